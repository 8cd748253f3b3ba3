//! The toolchain files that this user has pushed, kept in the state directory, where the agent looks for them last.
//!
//! A directory of the user's own choosing, or the system's, is looked into before, so what stands there wins. A file
//! appears whole or not at all.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::exchange::place;
use crate::ids::Name;

/// A kept file that could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} `{}`", path.display())]
pub(super) struct KeepError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Keeps the text of the toolchain file `name`, replacing an older one.
pub(super) fn keep(state_dir: &Path, name: &Name, text: &str) -> Result<(), KeepError> {
    let path = place::pushed_definition(state_dir, name);
    let write = || {
        let directory = path.parent().unwrap_or(state_dir);
        // As the agent makes the state directory: what a user builds is nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| KeepError {
        what: "write",
        path: path.clone(),
        source,
    })
}

/// Forgets the toolchain file `name`, if there is one.
pub(super) fn forget(state_dir: &Path, name: &Name) -> Result<(), KeepError> {
    let path = place::pushed_definition(state_dir, name);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KeepError {
            what: "remove",
            path,
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_text_is_kept_alone_until_it_is_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("not/there/yet");
        let name = Name::new("arm926").expect("a name");
        for text in ["name = 'arm926'\n", "another\n"] {
            keep(&state, &name, text).expect("kept");
            let kept = state.join("toolchains/arm926.toml");
            assert_eq!(std::fs::read_to_string(kept).expect("read"), text);
        }
        let left = || std::fs::read_dir(state.join("toolchains")).expect("read").count();
        assert_eq!(left(), 1);
        forget(&state, &name).expect("forgotten");
        forget(&state, &name).expect("nothing to forget");
        assert_eq!(left(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("toolchains"), "in the way").expect("written");
        let name = Name::new("x").expect("a name");
        let error = keep(dir.path(), &name, "").expect_err("no directory");
        assert!(error.to_string().contains("toolchains/x.toml"), "{error}");
    }
}

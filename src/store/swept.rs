//! Directories that were there and are gone: somebody's cleaner of temporary files, or somebody's hand.
//!
//! What a process keeps on disk it can make anew, so that such a directory is made again by whoever next wants to write
//! in it, instead of every job failing from then on.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Does `make`, which makes something in `directory`. When that is not there, makes it with `mode`, as well as what is
/// missing above it, and tries once more.
pub fn in_directory<T>(directory: &Path, mode: u32, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {
            tracing::warn!(directory = %directory.display(), "the directory is gone; it is made again");
            DirBuilder::new().recursive(true).mode(mode).create(directory)?;
            make()
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_gone_is_made_again_and_other_errors_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let gone = dir.path().join("a/b");
        in_directory(&gone, 0o700, || File::create(gone.join("c"))).expect("made");
        assert!(gone.join("c").exists());
        let error = in_directory(&gone, 0o700, || File::open(gone.join("missing"))).expect_err("nobody made it");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

//! Whether what stands on the disk is what a manifest says.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::store::content::digest_of;
use crate::store::stamp::Stamp;
use crate::toolchains::bundle::relative;
use crate::toolchains::manifest::{Entry, MODE_EXECUTABLE, Manifest};

/// The first difference between a manifest and the disk.
#[derive(Debug, thiserror::Error)]
#[error("`{}` {problem}", .path.display())]
pub struct Mismatch {
    /// The path on the disk.
    pub path: PathBuf,
    /// Such as "has other content".
    pub problem: String,
}

/// Returns where `path` stands below `root`.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(relative(path))
}

pub(super) fn mismatch(path: &Path, problem: impl Into<String>) -> Mismatch {
    Mismatch {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Mismatch {
    match error.kind() {
        io::ErrorKind::NotFound => mismatch(path, "is missing"),
        _ => mismatch(path, format!("cannot be read ({error})")),
    }
}

/// Takes the stamp of what stands at `path` below `root`.
pub(super) fn stamp(root: &Path, path: &Path) -> Result<Stamp, Mismatch> {
    let path = below(root, path);
    Stamp::of(&path).map_err(|error| unreadable(&path, &error))
}

/// Checks kind, mode, size and link target, without reading content.
pub(super) fn outline(root: &Path, path: &Path, entry: &Entry) -> Result<(), Mismatch> {
    let path = below(root, path);
    let metadata = path.symlink_metadata().map_err(|error| unreadable(&path, &error))?;
    match entry {
        Entry::Directory { .. } if metadata.is_dir() => Ok(()),
        Entry::Directory { .. } => Err(mismatch(&path, "is no directory")),
        Entry::Symlink { target } => {
            let found = fs::read_link(&path).map_err(|_| mismatch(&path, "is no symbolic link"))?;
            match found.as_os_str() == target {
                true => Ok(()),
                false => Err(mismatch(&path, format!("leads to `{}`", found.display()))),
            }
        }
        Entry::File { mode, size, .. } => {
            let executable = metadata.permissions().mode() & 0o111 != 0;
            if !metadata.is_file() {
                Err(mismatch(&path, "is no regular file"))
            } else if executable != (*mode == MODE_EXECUTABLE) {
                Err(mismatch(&path, "has another mode"))
            } else if metadata.len() != *size {
                Err(mismatch(
                    &path,
                    format!("has {} bytes instead of {size}", metadata.len()),
                ))
            } else {
                Ok(())
            }
        }
    }
}

/// Checks what stands at `path` below `root`, content included.
pub(super) fn entry(root: &Path, path: &Path, entry: &Entry) -> Result<(), Mismatch> {
    outline(root, path, entry)?;
    let Entry::File { digest, .. } = entry else {
        return Ok(());
    };
    let path = below(root, path);
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let mut file = opened.map_err(|error| unreadable(&path, &error))?;
    let (found, _): (Digest, u64) = digest_of(&mut file, &mut |_| {}).map_err(|error| unreadable(&path, &error))?;
    match found == *digest {
        true => Ok(()),
        false => Err(mismatch(&path, "has other content")),
    }
}

/// Checks that a directory holds exactly the names that the manifest has there.
pub(super) fn listing(root: &Path, directory: &Path, manifest: &Manifest) -> Result<(), Mismatch> {
    let place = below(root, directory);
    let inside = |(path, _): &&(PathBuf, Entry)| path.parent() == Some(directory);
    let mut missing: BTreeSet<&OsStr> = manifest
        .entries()
        .iter()
        .filter(inside)
        .filter_map(|(path, _)| path.file_name())
        .collect();
    for found in fs::read_dir(&place).map_err(|error| unreadable(&place, &error))? {
        let name = found.map_err(|error| unreadable(&place, &error))?.file_name();
        if !missing.remove(name.as_os_str()) {
            return Err(mismatch(&place.join(name), "does not belong there"));
        }
    }
    match missing.first() {
        Some(name) => Err(mismatch(&place.join(name), "is missing")),
        None => Ok(()),
    }
}

//! What a job wrote and removed: the writable layer of its root, read after the job has ended.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::SandboxError;

/// The writable layer of a job that has ended. Holds its memory until dropped.
#[derive(Debug)]
pub struct UpperDir {
    changes: Vec<Change>,
}

/// One thing that a job did to its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path in the job's root.
    pub path: PathBuf,
    /// What stands there now.
    pub kind: ChangeKind,
}

/// What a job did at a path. Directories are not reported: what they hold is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It left a regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Length in bytes.
        size: u64,
    },
    /// It removed what the lower directories hold there.
    Removed,
    /// It left a symbolic link with this target.
    Symlink(OsString),
    /// It left something else: a socket, a pipe, a directory in place of another.
    Other,
}

impl UpperDir {
    /// Returns what the job changed, sorted by path, but for gcc's temporary files right in `/tmp`.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Opens a file that [`UpperDir::changes`] named.
    pub fn open(&self, path: &Path) -> Result<File, SandboxError> {
        File::open(path).map_err(|source| SandboxError::Io {
            what: "opening an output",
            source,
        })
    }
}

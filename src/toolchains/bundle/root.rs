//! Making a toolchain's tree in a directory, without ever following a link that stands in it.
//!
//! Every parent is opened name by name from the directory itself, links refused. A manifest has no entry below a link
//! anyway; this holds even when somebody else can write to the directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{BundleError, relative};
use crate::ids::ToolchainId;
use crate::store::nameless;
use crate::toolchains::manifest::{Entry, MODE_EXECUTABLE};

/// Opens a directory as a place to stand, never through a link.
const PLACE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The directory in which a toolchain's tree is made.
pub(in crate::toolchains) struct Root {
    directory: PathBuf,
    fd: OwnedFd,
    /// The last parent used: entries of one directory come in a row.
    parent: Option<(PathBuf, OwnedFd)>,
}

impl Root {
    pub(in crate::toolchains) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            fd: rustix::fs::openat(CWD, directory, PLACE, Mode::empty())?,
            parent: None,
        })
    }

    /// Makes what `entry` says at `path`; for a file, returns it empty and open, its final mode set.
    pub(in crate::toolchains) fn make(&mut self, path: &Path, entry: &Entry) -> io::Result<Option<File>> {
        let (parent, name) = self.parent_of(path)?;
        match entry {
            Entry::Directory { mode } => {
                let mode = Mode::from_raw_mode(*mode);
                rustix::fs::mkdirat(&parent, name, mode)?;
                // Once more, since the first time the process's mask has had its say.
                rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())?;
                Ok(None)
            }
            Entry::Symlink { target } => {
                rustix::fs::symlinkat(target, parent, name)?;
                Ok(None)
            }
            Entry::File { mode, .. } => {
                let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, create, Mode::RUSR)?;
                rustix::fs::fchmod(&file, read_only(*mode))?;
                Ok(Some(File::from(file)))
            }
        }
    }

    /// Makes a hard link to an open file at `path`.
    pub(in crate::toolchains) fn link(&mut self, source: &File, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent_of(path)?;
        nameless::link(source, parent, Path::new(name))
    }

    /// Says what failed while `path` was made.
    pub(in crate::toolchains) fn failed(&self, toolchain: ToolchainId, path: &Path, error: io::Error) -> BundleError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BundleError::DiskFull {
                toolchain,
                directory: self.directory.clone(),
            },
            _ => BundleError::io("write", &self.directory.join(relative(path)), error),
        }
    }

    fn parent_of<'a>(&'a mut self, path: &'a Path) -> io::Result<(impl AsFd + use<'a>, &'a OsStr)> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
        let name = path.file_name().ok_or_else(wrong)?;
        let parent = path.parent().ok_or_else(wrong)?;
        if !matches!(&self.parent, Some((known, _)) if known == parent) {
            let mut at = rustix::fs::openat(&self.fd, ".", PLACE, Mode::empty())?;
            for component in relative(parent).components() {
                let Component::Normal(name) = component else {
                    return Err(wrong());
                };
                at = rustix::fs::openat(&at, name, PLACE, Mode::empty())?;
            }
            self.parent = Some((parent.to_owned(), at));
        }
        let (_, fd) = self.parent.as_ref().ok_or_else(wrong)?;
        Ok((fd, name))
    }
}

/// A toolchain's files are for reading only, by anybody: jobs run as somebody else.
fn read_only(mode: u32) -> Mode {
    match mode {
        MODE_EXECUTABLE => Mode::from_raw_mode(0o555),
        _ => Mode::from_raw_mode(0o444),
    }
}

//! Carries out the changes of a plan in one directory tree.
//!
//! Every step goes through directories opened one component at a time without following links, so a tree that is not
//! as the model says gives an error, never a write elsewhere. Content comes from the blob store by hard link; an inode is
//! shared only by files of equal content, mode and modification time, since gcc compares them (`#pragma once`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use crate::digest::Digest;
use crate::job::InputKind;
use crate::store::disk::{DiskStore, StoreError};
use crate::worker::mirror_plan::Change;
use crate::worker::mirror_plan::catalog::{Catalog, Cell, PathId};

/// What one inode more takes, bytes, for the quota.
const INODE_BYTES: u64 = 4096;
/// Held while a blob's inode gets its times: between looking at it and changing it nobody else may link to it.
static STAMPING: Mutex<()> = Mutex::new(());

/// Why a tree could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A blob has gone since the job was planned.
    #[error("blob {0} is gone")]
    Lacking(Digest),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step failed.
    #[error("cannot place `{}` in the mirror", path.display())]
    Io {
        /// The client-side path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who the files of a tree belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A directory tree being changed.
#[derive(Debug)]
pub struct Placer<'a> {
    root: BorrowedFd<'a>,
    /// Where files are made ready, on the same file system.
    staging: &'a Path,
    store: &'a DiskStore,
    owner: Option<Owner>,
    /// The directory that the last change was in.
    parent: Option<(PathId, OwnedFd)>,
    /// Space that the tree takes and shares with nobody, bytes, so far.
    own_bytes: u64,
}

impl<'a> Placer<'a> {
    /// Starts changing the tree at `root`. With an `owner`, new files and directories are given to it.
    pub fn new(root: &'a OwnedFd, staging: &'a Path, store: &'a DiskStore, owner: Option<Owner>) -> Self {
        Self {
            root: root.as_fd(),
            staging,
            store,
            owner,
            parent: None,
            own_bytes: 0,
        }
    }

    /// Returns the space that the changes took and that is shared with nobody, bytes.
    pub fn own_bytes(&self) -> u64 {
        self.own_bytes
    }

    /// Carries out one change.
    pub fn apply(&mut self, catalog: &Catalog, change: &Change) -> Result<(), PlaceError> {
        let path = change.path;
        let failed = |source| failed(catalog, path, source);
        let name = catalog.name(path);
        match catalog.kind(change.to).map(|kind| &**kind) {
            Some(InputKind::File {
                digest, mode, mtime_ns, ..
            }) => {
                let wanted = Wanted {
                    digest: *digest,
                    mode: *mode,
                    mtime_ns: *mtime_ns,
                };
                let ready = self.staged_file(&wanted).map_err(|error| match error {
                    StageError::Io(source) => failed(source),
                    StageError::Place(error) => error,
                })?;
                let at = self.parent(catalog, path).map_err(failed)?;
                rustix::fs::renameat(rustix::fs::CWD, &ready, at, name).map_err(|error| failed(error.into()))
            }
            Some(InputKind::Symlink(target)) => {
                let owner = self.owner;
                self.own_bytes += INODE_BYTES;
                let at = self.parent(catalog, path).map_err(failed)?;
                remove(at, name, change.from).map_err(failed)?;
                rustix::fs::symlinkat(target, at, name).map_err(|error| failed(error.into()))?;
                give(at, name, owner).map_err(failed)
            }
            _ => {
                let owner = self.owner;
                let directory = change.to == Cell::DIRECTORY;
                let at = self.parent(catalog, path).map_err(failed)?;
                remove(at, name, change.from).map_err(failed)?;
                if directory {
                    make_directory(at, name, owner).map_err(failed)?;
                    self.own_bytes += INODE_BYTES;
                }
                Ok(())
            }
        }
    }

    fn parent(&mut self, catalog: &Catalog, path: PathId) -> io::Result<BorrowedFd<'_>> {
        let parent = catalog.parent(path);
        let known = self.parent.take_if(|(known, _)| *known == parent);
        let fd = match known {
            Some((_, fd)) => fd,
            None => self.open_directory(catalog, parent)?,
        };
        Ok(self.parent.insert((parent, fd)).1.as_fd())
    }

    /// Opens a directory of the tree. One that only the toolchain has so far is made.
    fn open_directory(&mut self, catalog: &Catalog, path: PathId) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
        let mut at = rustix::fs::openat(self.root, c".", flags, Mode::empty())?;
        for part in catalog.components(path) {
            let name = catalog.name(part);
            at = match rustix::fs::openat(&at, name, flags, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) => {
                    make_directory(at.as_fd(), name, self.owner)?;
                    self.own_bytes += INODE_BYTES;
                    rustix::fs::openat(&at, name, flags, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Ok(at)
    }

    /// Makes a file with the wanted content, mode and times ready to be moved into place.
    fn staged_file(&mut self, wanted: &Wanted) -> Result<PathBuf, StageError> {
        let ready = self.staging.join("next");
        match fs::remove_file(&ready) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let stamping = STAMPING.lock().unwrap_or_else(PoisonError::into_inner);
        let lacking = || StageError::Place(PlaceError::Lacking(wanted.digest));
        if !self.store.link(wanted.digest, &ready).map_err(PlaceError::from)? {
            return Err(lacking());
        }
        let file = File::open(&ready)?;
        let found = file.metadata()?;
        // The store and this link alone: nobody relies on the times yet. A single link is a copy that the store made.
        let fits = wanted.matches(&found, self.owner);
        if fits || found.nlink() <= 2 {
            if !fits {
                wanted.stamp(&file, self.owner)?;
            }
            drop(stamping);
            if found.nlink() == 1 {
                self.own_bytes += INODE_BYTES + found.size();
            }
            return Ok(ready);
        }
        drop(stamping);
        fs::remove_file(&ready)?;
        if !self.store.copy(wanted.digest, &ready).map_err(PlaceError::from)? {
            return Err(lacking());
        }
        wanted.stamp(&File::open(&ready)?, self.owner)?;
        self.own_bytes += INODE_BYTES + found.size();
        Ok(ready)
    }
}

enum StageError {
    Io(io::Error),
    Place(PlaceError),
}

impl From<io::Error> for StageError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<PlaceError> for StageError {
    fn from(error: PlaceError) -> Self {
        Self::Place(error)
    }
}

struct Wanted {
    digest: Digest,
    mode: u32,
    mtime_ns: i64,
}

impl Wanted {
    /// Permission bits as placed: the job's user must be able to read whatever the client could.
    fn bits(&self) -> u32 {
        self.mode & 0o777 | 0o400
    }

    fn matches(&self, found: &fs::Metadata, owner: Option<Owner>) -> bool {
        let time = (found.mtime(), found.mtime_nsec());
        let owned = owner.is_none_or(|owner| (owner.uid, owner.gid) == (found.uid(), found.gid()));
        owned && found.mode() & 0o777 == self.bits() && time == split(self.mtime_ns)
    }

    fn stamp(&self, file: &File, owner: Option<Owner>) -> io::Result<()> {
        if let Some(owner) = owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.bits()))?;
        let (tv_sec, tv_nsec) = split(self.mtime_ns);
        let time = Timespec { tv_sec, tv_nsec };
        rustix::fs::futimens(
            file,
            &Timestamps {
                last_access: time,
                last_modification: time,
            },
        )?;
        Ok(())
    }
}

/// Seconds and nanoseconds of a time since 1970.
fn split(time_ns: i64) -> (i64, i64) {
    (time_ns.div_euclid(1_000_000_000), time_ns.rem_euclid(1_000_000_000))
}

fn make_directory(at: BorrowedFd<'_>, name: &OsStr, owner: Option<Owner>) -> io::Result<()> {
    rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755))?;
    give(at, name, owner)
}

fn give(at: BorrowedFd<'_>, name: &OsStr, owner: Option<Owner>) -> io::Result<()> {
    if let Some(owner) = owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn remove(at: BorrowedFd<'_>, name: &OsStr, stands: Cell) -> io::Result<()> {
    if stands == Cell::NOTHING {
        return Ok(());
    }
    Ok(rustix::fs::unlinkat(at, name, AtFlags::empty())?)
}

fn failed(catalog: &Catalog, path: PathId, source: io::Error) -> PlaceError {
    let path = catalog.full_path(path);
    PlaceError::Io { path, source }
}

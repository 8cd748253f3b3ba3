//! The files that a scan may look at, behind a trait so that scans can be tested without a disk.
//!
//! A tree answers: which directory is this, does it hold this name, what does this file reduce to. Answers are as of
//! an [`Epoch`]: nothing older than its beginning. Implementations may keep anything as long as that holds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::dialect::Dialect;
use super::reduced::Reduced;
use super::symbols::Symbols;
use crate::digest::Digest;

pub mod disk;

/// A point in a tree's life; later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// Names one reading of a directory's names, which nothing has been added to or taken from since. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListingId(pub u64);

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of content or attributes, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Permission bits.
    pub mode: u32,
}

impl Fingerprint {
    /// Tells whether nothing but the change time differs, as after a hard link was made or removed. Whether the content
    /// is the same has to be looked at then: times can be set back.
    pub fn differs_in_ctime_at_most(&self, other: &Fingerprint) -> bool {
        let ctime_ns = self.ctime_ns;
        *self == Fingerprint { ctime_ns, ..*other }
    }

    /// Returns when the file last changed in any way, nanoseconds since 1970.
    pub fn changed_ns(&self) -> i64 {
        self.mtime_ns.max(self.ctime_ns)
    }
}

/// A symbolic link on a file's path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Where it stands; free of links, `.` and `..` itself.
    pub path: PathBuf,
    /// Its target as written.
    pub target: OsString,
}

/// How a spelled path leads to a place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// The place itself: absolute, free of links, `.` and `..`.
    pub path: PathBuf,
    /// Links met on the way.
    pub links: Vec<Arc<Link>>,
    /// Directories that have to exist only because the spelling leaves them again by `..`.
    pub crossed: Vec<PathBuf>,
}

/// A directory as spelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryInfo {
    /// How to get there.
    pub route: Route,
    /// Device and inode: two spellings of one directory agree in these.
    pub identity: (u64, u64),
}

/// One version of one file.
#[derive(Debug)]
pub struct SourceFile {
    /// Number of the file's place, the same for every version of it until the tree forgets the place. Never reused.
    pub id: u32,
    /// How to get there; links of the directory's own route are left out.
    pub route: Route,
    /// Which version it is.
    pub fingerprint: Fingerprint,
    /// What its content was when it was read, once it has been.
    pub content: OnceLock<Content>,
}

/// What reading a file showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Digest of the content.
    pub digest: Digest,
    /// When the reading began, nanoseconds since 1970 by this machine's clock.
    pub read_ns: i64,
}

/// What a name in a directory leads to.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A directory, which an inclusion passes over.
    Directory,
    /// A regular file.
    File(Arc<SourceFile>),
    /// Something that cannot be read twice with the same result: a device, a FIFO, a socket.
    Special,
}

/// Why a tree has no answer.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The system refused a look.
    #[error("cannot read `{}`: {error}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file kept changing while it was read.
    #[error("`{}` changes while it is read", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than the tree takes.
    #[error("`{}` is too large", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The path is longer, or has more links, than the system takes.
    #[error("`{}` cannot be resolved", path.display())]
    Unresolvable {
        /// The path.
        path: PathBuf,
    },
}

/// The files that a scan may look at.
pub trait SourceTree {
    /// A handle on a directory, cheap to copy.
    type Directory: Clone;

    /// Returns the table of spellings for scans that start now.
    fn symbols(&self) -> Arc<Symbols>;

    /// Starts an epoch.
    fn begin(&self) -> Epoch;

    /// Returns the directory at an absolute path, spelled in any way; `None` when there is none.
    fn directory(&self, path: &Path, epoch: Epoch) -> Result<Option<Self::Directory>, TreeError>;

    /// Returns the directory that `path`, relative, leads to from `from`; or the first part of `path` that leads nowhere.
    fn below(
        &self,
        from: &Self::Directory,
        path: &[u8],
        epoch: Epoch,
    ) -> Result<Result<Self::Directory, Dead<Self::Directory>>, TreeError>;

    /// Describes a directory.
    fn describe(&self, directory: &Self::Directory) -> Arc<DirectoryInfo>;

    /// Returns what `name`, a single component, is in a directory.
    fn find(&self, directory: &Self::Directory, name: &[u8], epoch: Epoch) -> Result<Found, TreeError>;

    /// Names the reading of the directory that answers for absent names: as long as it is the same one, no name has come.
    /// `None` where each name has to be looked for.
    fn listing(&self, _directory: &Self::Directory, _epoch: Epoch) -> Result<Option<ListingId>, TreeError> {
        Ok(None)
    }

    /// Says whether a link still stands, with the same target.
    fn has_link(&self, link: &Link) -> bool;

    /// Returns the digest of a file's content.
    fn digest(&self, file: &Arc<SourceFile>) -> Result<Digest, TreeError>;

    /// Returns what a file reduces to; its digest is known from then on.
    fn reduced(
        &self,
        file: &Arc<SourceFile>,
        dialect: Dialect,
        symbols: &Arc<Symbols>,
    ) -> Result<Arc<Reduced>, TreeError>;
}

/// Where a path ends too early.
#[derive(Debug, Clone)]
pub struct Dead<D> {
    /// The last directory that exists.
    pub directory: D,
    /// The component that it lacks.
    pub component: Vec<u8>,
}

//! Every path that workers may hold a file of ours at, for the whole life of the tree's name.
//!
//! A worker keeps a mirror of this client's files from one build to the next. A file that has vanished here since, and
//! that a compile looks for in vain, must not be found there: it is then named as absent, which takes knowing that it
//! was ever sent. Paths are kept as 64-bit hashes, in memory and in a file that only grows; when the file is lost, full,
//! or of another boot, the tree gets another name, and with it fresh mirrors. A clash of hashes names a path as absent
//! that is absent anyway.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// First bytes of the file. The last digit changes with the layout or the hash.
const MAGIC: &[u8; 8] = b"rdccsh1\n";
/// Magic, boot and name.
const HEADER_BYTES: usize = 8 + 32 + 32;
/// Paths after which the tree is named anew: 16 MB of memory.
const PATHS_MAX: usize = 1 << 20;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the list of sent paths in `{}`", .path.display())]
pub struct ShippedError {
    path: PathBuf,
    source: io::Error,
}

/// The paths that were ever sent.
#[derive(Debug)]
pub struct Shipped {
    name: Digest,
    paths: HashSet<u64, BuildHasherDefault<Same>>,
    file: File,
    unwritten: Vec<u8>,
}

/// A hasher for what is a hash already.
#[derive(Debug, Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Shipped {
    /// Reads the list at `path`, or begins one there. `boot` names the present boot of the machine, `fresh` is random:
    /// the name if a new list has to be begun.
    pub fn open(path: &Path, boot: Digest, fresh: [u8; 32]) -> Result<Self, ShippedError> {
        let fail = |source| ShippedError {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(path).map_err(fail)?;
        let mut bytes = Vec::new();
        // Twice as much as is ever written: a longer file is not ours.
        let limit = (HEADER_BYTES + 16 * PATHS_MAX) as u64;
        (&mut file).take(limit).read_to_end(&mut bytes).map_err(fail)?;
        if let Some((name, paths)) = decode(&bytes, boot) {
            return Ok(Self {
                name,
                paths,
                file,
                unwritten: Vec::new(),
            });
        }
        let name = Digest::from(fresh);
        file.set_len(0).map_err(fail)?;
        file.write_all(&[MAGIC.as_slice(), boot.as_bytes(), name.as_bytes()].concat())
            .map_err(fail)?;
        Ok(Self {
            name,
            paths: HashSet::default(),
            file,
            unwritten: Vec::new(),
        })
    }

    /// Returns what workers know this client's files by.
    pub fn tree_name(&self) -> Digest {
        self.name
    }

    /// Adds a path and the directories that lead to it.
    pub fn add(&mut self, path: &Path) {
        let mut next = Some(path);
        while let Some(path) = next.filter(|path| path.parent().is_some()) {
            let hash = PathHash::of(path).0;
            if self.is_full() || !self.paths.insert(hash) {
                return;
            }
            self.unwritten.extend(hash.to_le_bytes());
            next = path.parent();
        }
    }

    /// A full list knows everything: jobs then name more absences than they need to.
    fn is_full(&self) -> bool {
        self.paths.len() >= PATHS_MAX
    }

    /// Tells whether `path` may have been sent.
    pub fn has(&self, path: &Path) -> bool {
        self.is_full() || path.parent().is_none() || self.paths.contains(&PathHash::of(path).0)
    }

    /// Prepares for many questions about names in `directory`.
    pub fn below(&self, directory: &Path) -> Below<'_> {
        Below {
            shipped: self,
            directory: self.has(directory).then(|| PathHash::of(directory)),
        }
    }

    /// Writes down what was added. To be called before it is sent: a worker must not hold what we could forget.
    pub fn keep(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.unwritten);
        self.unwritten.clear();
        if written.is_err() || self.is_full() {
            // An incomplete list is worse than none: the next agent begins anew.
            let _ = self.file.set_len(0);
        }
    }
}

/// Questions about names in one directory.
#[derive(Debug)]
pub struct Below<'a> {
    shipped: &'a Shipped,
    /// `None` when nothing was ever sent below the directory.
    directory: Option<PathHash>,
}

impl Below<'_> {
    /// Tells whether `name` in the directory may have been sent.
    pub fn may_have(&self, name: &[u8]) -> bool {
        match self.directory {
            _ if self.shipped.is_full() => true,
            Some(directory) => self.shipped.paths.contains(&directory.with(name).0),
            None => false,
        }
    }
}

/// Fowler, Noll and Vo's hash of a path's components, taken one after the other.
#[derive(Debug, Clone, Copy)]
struct PathHash(u64);

impl PathHash {
    fn of(path: &Path) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        for name in path.as_os_str().as_bytes().split(|byte| *byte == b'/') {
            if !name.is_empty() {
                hash = hash.with(name);
            }
        }
        hash
    }

    fn with(self, name: &[u8]) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.iter().fold(step(self.0, b'/'), |hash, byte| step(hash, *byte)))
    }
}

fn decode(bytes: &[u8], boot: Digest) -> Option<(Digest, HashSet<u64, BuildHasherDefault<Same>>)> {
    let (header, hashes) = bytes.split_at_checked(HEADER_BYTES)?;
    let rest = header.strip_prefix(MAGIC)?;
    let (of_boot, name) = rest.split_at(32);
    let whole = hashes.len().is_multiple_of(8) && hashes.len() <= 8 * PATHS_MAX;
    if of_boot != boot.as_bytes() || !whole {
        return None;
    }
    let paths = hashes
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("chunks of eight")))
        .collect();
    Some((Digest::from_slice(name).ok()?, paths))
}

//! The tree on disk, with a cache that never misses a change.
//!
//! A file is trusted unread as long as device, inode, size, mtime and ctime are those of the version that was read, and
//! that version was not *too recent* when it was read: a later write within the same clock tick would leave no trace.
//! The same rule holds for directory listings, which answer probes of absent names without a system call. Everything is
//! looked at again once per epoch, so many scans at once share the looks; and what is watched, and quiet, is not looked at
//! again ([`watch`]). Invariant: no answer is older than the epoch.

use std::collections::HashMap;
use std::hash::RandomState;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    Content, Dead, DirectoryInfo, Epoch, Fingerprint, Found, Link, ListingId, SourceFile, SourceTree, TreeError,
};
use crate::digest::Digest;
use crate::includes::dialect::Dialect;
use crate::includes::reduced::Reduced;
use crate::includes::symbols::Symbols;

mod contents;
mod node;
mod reliance;
mod route;
mod watch;

use contents::Contents;
pub use node::Node;
use reliance::FileSystems;
use watch::Watch;

/// Bounds of a [`DiskTree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Memory for reduced files, bytes.
    pub reduced_bytes: usize,
    /// Memory for spellings, bytes. Beyond, spellings and reduced files are forgotten together.
    pub symbols_bytes: usize,
    /// Files and directories remembered. Beyond, all of them are forgotten together.
    pub places: u32,
    /// Files and directories watched, for each of which the kernel keeps about one kilobyte. Others are looked at each time.
    pub watches: usize,
}

impl Default for Bounds {
    /// Measured on the kernel's `net/`: some 12 MB, 4 MB and 6,000.
    fn default() -> Self {
        Self {
            reduced_bytes: 32 << 20,
            symbols_bytes: 16 << 20,
            places: 100_000,
            watches: 16_384,
        }
    }
}

/// The tree on disk.
#[derive(Debug)]
pub struct DiskTree {
    bounds: Bounds,
    epoch: AtomicU64,
    memory: RwLock<Memory>,
    shared: Arc<Shared>,
}

/// What may be forgotten as a whole.
#[derive(Debug, Clone)]
struct Memory {
    root: Arc<Node>,
    symbols: Arc<Symbols>,
    contents: Arc<Contents>,
}

/// What all nodes use.
#[derive(Debug)]
pub(super) struct Shared {
    watch: Watch,
    /// Looks at the disk, at files and at directories.
    looks: AtomicU64,
    next_id: AtomicU32,
    places: AtomicU32,
    next_listing: AtomicU64,
    files_read: AtomicU64,
    /// Digests that were known before this tree began, by the version of a file.
    known: OnceLock<HashMap<Fingerprint, Digest>>,
    file_systems: FileSystems,
    /// Hashes names in listings.
    names: RandomState,
}

impl Shared {
    fn new(bounds: Bounds) -> Self {
        Self {
            watch: Watch::new(bounds.watches),
            looks: AtomicU64::new(0),
            next_id: AtomicU32::new(0),
            places: AtomicU32::new(0),
            next_listing: AtomicU64::new(0),
            files_read: AtomicU64::new(0),
            known: OnceLock::new(),
            file_systems: FileSystems::default(),
            names: RandomState::new(),
        }
    }

    fn new_id(&self) -> u32 {
        self.places.fetch_add(1, Ordering::Relaxed);
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the content of a version if it was known before. It had settled then.
    fn known_content(&self, version: &Fingerprint) -> OnceLock<Content> {
        let known = self.known.get().and_then(|known| known.get(version));
        let settled = |digest: &Digest| Content {
            digest: *digest,
            read_ns: i64::MAX,
        };
        known.map(settled).map_or_else(OnceLock::new, OnceLock::from)
    }

    fn new_listing(&self) -> ListingId {
        ListingId(self.next_listing.fetch_add(1, Ordering::Relaxed))
    }
}

/// The present, in nanoseconds since 1970.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// File times come from a clock that ticks every 1 to 10 ms (`CONFIG_HZ`); five ticks of the slowest are allowed for.
const TICK_NS: i64 = 50_000_000;

/// Some file systems keep whole seconds, FAT every other one.
const COARSE_TICK_NS: i64 = 2_500_000_000;

/// Says whether something last changed at `changed_ns` may change again, after `looked_ns`, without the time showing it.
///
/// When the clock was set back, all that lies in its future may: that is read each time until the clock has caught up.
fn is_too_recent(changed_ns: i64, looked_ns: i64) -> bool {
    let coarse = changed_ns % 1_000_000_000 == 0;
    let tick = if coarse { COARSE_TICK_NS } else { TICK_NS };
    changed_ns > looked_ns.saturating_sub(tick)
}

impl DiskTree {
    /// Starts with nothing known.
    pub fn new(bounds: Bounds) -> Self {
        let shared = Arc::new(Shared::new(bounds));
        Self {
            bounds,
            epoch: AtomicU64::new(0),
            memory: RwLock::new(Memory::new(bounds, &shared)),
            shared,
        }
    }

    fn memory(&self) -> Memory {
        self.memory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what has outgrown its bound. Scans that run keep what they hold.
    fn forget_excess(&self) {
        let symbols = self.memory().symbols;
        let too_many_symbols = symbols.memory_bytes() > self.bounds.symbols_bytes || symbols.is_full();
        let too_many_places = self.shared.places.load(Ordering::Relaxed) > self.bounds.places;
        if !too_many_symbols && !too_many_places {
            return;
        }
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        if too_many_symbols && Arc::ptr_eq(&memory.symbols, &symbols) {
            memory.symbols = Arc::new(Symbols::new());
            memory.contents = Arc::new(Contents::new(self.bounds.reduced_bytes));
        }
        if too_many_places {
            self.shared.places.store(0, Ordering::Relaxed);
            self.shared.watch.forget();
            memory.root = Arc::new(Node::root(&self.shared));
        }
    }

    /// Takes over digests of versions that had settled when they were read. Only the first call counts.
    pub fn know_contents(&self, contents: Vec<(Fingerprint, Digest)>) {
        self.shared.known.get_or_init(|| contents.into_iter().collect());
    }

    /// Returns the digests of all versions that had settled when they were read, `most` at most: those that this tree
    /// has come across before those that it was told of.
    pub fn settled_contents(&self, most: usize) -> Vec<(Fingerprint, Digest)> {
        let mut contents = HashMap::new();
        self.memory().root.settled_contents(&mut contents);
        let known = self.shared.known.get().into_iter().flatten();
        let missing = known.filter(|(fingerprint, _)| !contents.contains_key(fingerprint));
        let missing: Vec<_> = missing.map(|(fingerprint, digest)| (*fingerprint, *digest)).collect();
        contents.into_iter().chain(missing).take(most).collect()
    }

    /// Returns how many files have been read so far.
    pub fn files_read(&self) -> u64 {
        self.shared.files_read.load(Ordering::Relaxed)
    }

    /// Returns how often a file or a directory has been looked at so far.
    pub fn looks(&self) -> u64 {
        self.shared.looks.load(Ordering::Relaxed)
    }

    /// Returns how many bytes the reduced files and the spellings take.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let memory = self.memory();
        (memory.contents.memory_bytes(), memory.symbols.memory_bytes())
    }
}

impl Memory {
    fn new(bounds: Bounds, shared: &Arc<Shared>) -> Self {
        Self {
            root: Arc::new(Node::root(shared)),
            symbols: Arc::new(Symbols::new()),
            contents: Arc::new(Contents::new(bounds.reduced_bytes)),
        }
    }
}

/// Splits a path into components that mean something: not empty, not `.`.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
        .filter(|component| !component.is_empty() && *component != b".")
}

impl SourceTree for DiskTree {
    type Directory = Arc<Node>;

    fn symbols(&self) -> Arc<Symbols> {
        self.forget_excess();
        self.memory().symbols
    }

    fn begin(&self) -> Epoch {
        let epoch = Epoch(self.epoch.fetch_add(1, Ordering::SeqCst) + 1);
        self.shared.watch.hear();
        epoch
    }

    fn directory(&self, path: &Path, epoch: Epoch) -> Result<Option<Arc<Node>>, TreeError> {
        use std::os::unix::ffi::OsStrExt;
        let mut node = self.memory().root;
        for component in components(path.as_os_str().as_bytes()) {
            // Only the last one has to be looked at: its path goes through the others.
            node = node.child_unchecked(component);
        }
        Ok(node.exists(epoch)?.then_some(node))
    }

    fn below(
        &self,
        from: &Arc<Node>,
        path: &[u8],
        epoch: Epoch,
    ) -> Result<Result<Arc<Node>, Dead<Arc<Node>>>, TreeError> {
        let mut node = Arc::clone(from);
        for component in components(path) {
            match node.child(component, epoch)? {
                Some(child) => node = child,
                None => {
                    return Ok(Err(Dead {
                        directory: node,
                        component: component.to_vec(),
                    }));
                }
            }
        }
        Ok(Ok(node))
    }

    fn describe(&self, directory: &Arc<Node>) -> Arc<DirectoryInfo> {
        directory.info()
    }

    fn find(&self, directory: &Arc<Node>, name: &[u8], epoch: Epoch) -> Result<Found, TreeError> {
        directory.find(name, epoch)
    }

    fn listing(&self, directory: &Arc<Node>, epoch: Epoch) -> Result<Option<ListingId>, TreeError> {
        directory.listing(epoch)
    }

    fn has_link(&self, link: &Link) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let target = rustix::fs::readlink(&link.path, Vec::new());
        target.is_ok_and(|target| target.as_bytes() == link.target.as_bytes())
    }

    fn digest(&self, file: &Arc<SourceFile>) -> Result<Digest, TreeError> {
        match file.content.get() {
            Some(content) => Ok(content.digest),
            None => contents::read(file, &self.shared.files_read).map(|(content, _)| content.digest),
        }
    }

    fn reduced(
        &self,
        file: &Arc<SourceFile>,
        dialect: Dialect,
        symbols: &Arc<Symbols>,
    ) -> Result<Arc<Reduced>, TreeError> {
        let memory = self.memory();
        // A scan that began before the last forgetting speaks an older table of spellings.
        let cache = Arc::ptr_eq(&memory.symbols, symbols).then_some(&*memory.contents);
        contents::reduced(cache, file, dialect, symbols, &self.shared.files_read)
    }
}

/// An error about `path`.
fn unreadable(path: PathBuf, error: impl Into<std::io::Error>) -> TreeError {
    TreeError::Unreadable {
        path,
        error: error.into(),
    }
}

#[cfg(test)]
mod tests;

//! Reads files, and keeps what they reduce to, once per content.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Content, Fingerprint, SourceFile, TreeError};
use super::{now_ns, unreadable};
use crate::digest::Digest;
use crate::includes::dialect::Dialect;
use crate::includes::reduce::{FILE_BYTES_MAX, reduce};
use crate::includes::reduced::Reduced;
use crate::includes::symbols::Symbols;

/// Parts of the cache with a lock each; more than the processors of the machines this is for.
const SHARDS: usize = 16;
/// How often a file is read when something happens to it meanwhile. Mostly that is a hard link made or removed, which
/// takes no time.
const READS_MAX: usize = 3;

/// Reduced files by content and dialect, the least recently used forgotten first.
#[derive(Debug)]
pub(super) struct Contents {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<(Digest, Dialect), Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    reduced: Arc<Reduced>,
    bytes: usize,
    used: u64,
}

impl Contents {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            shard_bytes_max: bytes_max / SHARDS,
            clock: AtomicU64::new(0),
        }
    }

    fn shard(&self, digest: &Digest) -> std::sync::MutexGuard<'_, Shard> {
        let shard = usize::from(digest.as_bytes()[0]) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, digest: Digest, dialect: Dialect) -> Option<Arc<Reduced>> {
        let now = self.clock.load(Ordering::Relaxed);
        let mut shard = self.shard(&digest);
        let kept = shard.entries.get_mut(&(digest, dialect))?;
        kept.used = now;
        Some(Arc::clone(&kept.reduced))
    }

    fn put(&self, digest: Digest, dialect: Dialect, reduced: &Arc<Reduced>) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let bytes = reduced.memory_bytes();
        let mut shard = self.shard(&digest);
        let kept = Kept {
            reduced: Arc::clone(reduced),
            bytes,
            used: now,
        };
        let replaced = shard.entries.insert((digest, dialect), kept);
        shard.bytes += bytes;
        shard.bytes -= replaced.map_or(0, |kept| kept.bytes);
        if shard.bytes > self.shard_bytes_max {
            shard.shrink(self.shard_bytes_max / 4 * 3);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let lock = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        self.shards.iter().map(lock).sum()
    }
}

impl Shard {
    /// Forgets the least recently used down to `bytes`.
    fn shrink(&mut self, bytes: usize) {
        let mut by_age: Vec<(u64, (Digest, Dialect))> =
            self.entries.iter().map(|(key, kept)| (kept.used, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            if self.bytes <= bytes {
                return;
            }
            if let Some(kept) = self.entries.remove(&key) {
                self.bytes -= kept.bytes;
            }
        }
    }
}

/// Returns what a file reduces to, from the cache if it is there.
pub(super) fn reduced(
    cache: Option<&Contents>,
    file: &Arc<SourceFile>,
    dialect: Dialect,
    symbols: &Symbols,
    files_read: &AtomicU64,
) -> Result<Arc<Reduced>, TreeError> {
    let known = file.content.get().map(|content| content.digest);
    if let (Some(cache), Some(digest)) = (cache, known)
        && let Some(reduced) = cache.get(digest, dialect)
    {
        return Ok(reduced);
    }
    let (content, bytes) = read(file, files_read)?;
    if let Some(cache) = cache
        && let Some(reduced) = cache.get(content.digest, dialect)
    {
        return Ok(reduced);
    }
    let reduced = Arc::new(reduce(&bytes, dialect, symbols));
    if let Some(cache) = cache {
        cache.put(content.digest, dialect, &reduced);
    }
    Ok(reduced)
}

/// Reads a file, which must be the version that it says it is, and notes its digest. Counts in `files_read`.
pub(super) fn read(file: &Arc<SourceFile>, files_read: &AtomicU64) -> Result<(Content, Vec<u8>), TreeError> {
    let path = &file.route.path;
    let wrong = |error| unreadable(path.clone(), error);
    if file.fingerprint.size > FILE_BYTES_MAX {
        return Err(TreeError::TooLarge { path: path.clone() });
    }
    let changing = || TreeError::Changing { path: path.clone() };
    files_read.fetch_add(1, Ordering::Relaxed);
    let mut opened = File::open(path).map_err(wrong)?;
    let mut read_whole = || -> Result<Option<(i64, Vec<u8>)>, TreeError> {
        let (read_ns, before) = (now_ns(), fingerprint_of(&opened).map_err(wrong)?);
        if !before.differs_in_ctime_at_most(&file.fingerprint) {
            return Err(changing());
        }
        let mut bytes = Vec::with_capacity(before.size as usize + 1);
        opened.rewind().map_err(wrong)?;
        opened
            .by_ref()
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(wrong)?;
        let after = fingerprint_of(&opened).map_err(wrong)?;
        Ok((after == before).then_some((read_ns, bytes)))
    };
    let mut whole = None;
    for _ in 0..READS_MAX {
        whole = read_whole()?;
        if whole.is_some() {
            break;
        }
    }
    let (read_ns, bytes) = whole.ok_or_else(changing)?;
    let content = Content {
        digest: Digest::of(&bytes),
        read_ns,
    };
    match file.content.get() {
        // Read before, and forgotten since: the same version must have the same content, or times cannot be relied on.
        Some(before) if before.digest != content.digest => Err(TreeError::Changing { path: path.clone() }),
        _ => Ok((*file.content.get_or_init(|| content), bytes)),
    }
}

fn fingerprint_of(file: &File) -> std::io::Result<Fingerprint> {
    let metadata = file.metadata()?;
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Ok(Fingerprint {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        mode: metadata.mode() & 0o7777,
    })
}

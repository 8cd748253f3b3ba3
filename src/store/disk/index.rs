//! What the blob store knows about its blobs, and how it makes room.
//!
//! Behind one mutex; nothing here reads a blob's content. A shard's directory is listed when first asked about, and
//! sizes stand in the names, so a start costs nothing and a whole scan no `stat`.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::StoreError;
use crate::digest::Digest;
use crate::store::eviction::{Candidate, choose};
use crate::store::stamp::Stamp;

/// One directory for each first byte of a digest: 200,000 blobs make directories of 800, which every file system likes.
const SHARDS: usize = 256;
/// What a small file takes on common file systems; the quota is charged in these.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// Once the quota is reached, this share of it is freed at a time, so that not every blob pays for a search.
const FREED_AT_ONCE: u64 = 50;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: PathBuf,
    pub(super) quota_bytes: u64,
    index: Mutex<Index>,
}

/// What is known about the blobs. Filled shard by shard, when first asked.
#[derive(Debug)]
pub(super) struct Index {
    scanned: [bool; SHARDS],
    pub(super) blobs: HashMap<Digest, Blob>,
    /// Blocks of all blobs in scanned shards, in bytes.
    pub(super) charged_bytes: u64,
    /// Counts uses: the store's own idea of time.
    pub(super) uses: u64,
    pub(super) dropped: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Blob {
    pub(super) size: u64,
    /// 0 when not used since the start.
    pub(super) last_use: u64,
    /// [`mark`] of the file when its content was last checked, 0 when it was not since the start.
    pub(super) checked: u64,
    pub(super) pins: u32,
}

impl Shared {
    pub(super) fn new(directory: &Path, quota_bytes: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            quota_bytes,
            index: Mutex::new(Index {
                scanned: [false; SHARDS],
                blobs: HashMap::new(),
                charged_bytes: 0,
                uses: 0,
                dropped: 0,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Index> {
        // Whoever panicked while holding it left a map behind that is still a map.
        self.index.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// Returns where a blob is. The size is in the name so that a scan needs no `stat` per blob.
    pub(super) fn path(&self, digest: &Digest, size: u64) -> PathBuf {
        let text = digest.to_string();
        self.directory.join(&text[..2]).join(format!("{}-{size}", &text[2..]))
    }

    pub(super) fn touch<'a>(&self, index: &'a mut Index, digest: &Digest) -> Option<&'a mut Blob> {
        self.scan(index, usize::from(digest.as_bytes()[0]));
        index.uses += 1;
        let uses = index.uses;
        let blob = index.blobs.get_mut(digest)?;
        blob.last_use = uses;
        Some(blob)
    }

    pub(super) fn scan_all(&self, index: &mut Index) {
        (0..SHARDS).for_each(|shard| self.scan(index, shard));
    }

    /// Lists one shard's directory, once.
    fn scan(&self, index: &mut Index, shard: usize) {
        if std::mem::replace(&mut index.scanned[shard], true) {
            return;
        }
        let prefix = format!("{shard:02x}");
        let entries = fs::read_dir(self.directory.join(&prefix))
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = entry.file_name();
            let parsed = name.to_str().and_then(|name| {
                let (rest, size) = name.split_once('-')?;
                Some((format!("{prefix}{rest}").parse().ok()?, size.parse().ok()?))
            });
            let Some((digest, size)) = parsed else {
                continue;
            };
            let blob = Blob {
                size,
                last_use: 0,
                checked: 0,
                pins: 0,
            };
            if index.blobs.insert(digest, blob).is_none() {
                index.charged_bytes = index.charged_bytes.saturating_add(charge(size));
            }
        }
    }

    /// Evicts until `bytes` more fit into the quota.
    pub(super) fn make_room(&self, index: &mut Index, digest: &Digest, bytes: u64) -> Result<(), StoreError> {
        self.scan_all(index);
        if index.blobs.contains_key(digest) {
            return Ok(());
        }
        let needed = index
            .charged_bytes
            .saturating_add(bytes)
            .saturating_sub(self.quota_bytes);
        if needed == 0 {
            return Ok(());
        }
        let candidates = || {
            index.blobs.iter().map(|(digest, blob)| Candidate {
                key: *digest,
                bytes: charge(blob.size),
                last_use: blob.last_use,
                pins: blob.pins,
            })
        };
        let generous = needed.max(self.quota_bytes / FREED_AT_ONCE);
        let chosen = choose(candidates(), generous)
            .or_else(|_| choose(candidates(), needed))
            .map_err(|_| StoreError::InUse {
                digest: *digest,
                quota_bytes: self.quota_bytes,
            })?;
        for digest in chosen {
            self.remove(index, &digest);
        }
        Ok(())
    }

    /// Drops a blob that was `seen` damaged, or gone (`None`), unless somebody has put it right since.
    pub(super) fn forget(&self, digest: &Digest, path: &Path, seen: Option<u64>) {
        let mut index = self.lock();
        let now = Stamp::of(path).ok().map(|stamp| mark(&stamp));
        if now == seen && index.blobs.contains_key(digest) {
            tracing::warn!(%digest, "blob is damaged or gone; it will be asked for again");
            index.dropped += 1;
            self.remove(&mut index, digest);
        }
    }

    fn remove(&self, index: &mut Index, digest: &Digest) {
        if let Some(blob) = index.blobs.remove(digest) {
            index.charged_bytes = index.charged_bytes.saturating_sub(charge(blob.size));
            let path = self.path(digest, blob.size);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove blob");
            }
        }
    }

    pub(super) fn failed(&self, doing: &'static str, path: &Path, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull {
                directory: self.directory.clone(),
            },
            _ => StoreError::Io {
                doing,
                path: path.to_owned(),
                source,
            },
        }
    }
}

/// Space that a blob of `size` bytes takes.
pub(super) fn charge(size: u64) -> u64 {
    size.max(1).checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)
}

/// Condenses what has to stay the same for content to count as unchanged; never 0. The time of the inode's change is
/// left out, because every hard link moves it.
pub(super) fn mark(stamp: &Stamp) -> u64 {
    let mut hasher = DefaultHasher::new();
    (stamp.inode, stamp.size, stamp.mtime_ns).hash(&mut hasher);
    hasher.finish().max(1)
}

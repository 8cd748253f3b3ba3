//! Blobs on disk, named by their digest: sources and headers that jobs need again and again.
//!
//! A blob is checked while it is written and again on its first reading after a start, and whenever its stamp has
//! changed; one that fails is dropped and reported as missing, so that it is sent again. Blobs are read-only files that
//! may be hard-linked into a job's tree. Space is bounded by a quota, least recently used first, pinned ones never.
//!
//! Nothing is flushed to the disk blob by blob: a compile would wait for it hundreds of times, and what a power cut
//! leaves behind is found by the check on first reading.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::NamedTempFile;

use crate::digest::{Digest, Hasher};
use crate::store::content::digest_of;
use crate::store::stamp::Stamp;
use crate::store::swept;

mod index;
#[cfg(test)]
mod tests;

use index::{Blob, Shared, charge, mark};

/// A store of blobs in one directory. Clones share it.
#[derive(Debug, Clone)]
pub struct DiskStore {
    shared: Arc<Shared>,
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Content that is not what its digest says.
    #[error("content has digest {found}, not {expected}")]
    WrongDigest {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More than the whole quota.
    #[error("blob {digest} does not fit into the store's quota of {quota_bytes} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The quota.
        quota_bytes: u64,
    },
    /// Everything else in the store is in use.
    #[error("no room for blob {digest}: everything within the quota of {quota_bytes} bytes is in use")]
    InUse {
        /// The blob.
        digest: Digest,
        /// The quota.
        quota_bytes: u64,
    },
    /// The file system has no space left.
    #[error("disk full while writing below `{}`", .directory.display())]
    DiskFull {
        /// The store.
        directory: PathBuf,
    },
    /// Another failure of the disk.
    #[error("cannot {doing} `{}`", .path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskStore {
    /// Opens the store in `directory`, which is made if needed, and removes what an earlier life left half-written.
    ///
    /// Looks at no blob: the directory's parts are listed when first asked about.
    pub fn open(directory: &Path, quota_bytes: u64) -> Result<Self, StoreError> {
        let shared = Shared::new(directory, quota_bytes);
        let incoming = shared.incoming();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&incoming);
        made.map_err(|error| shared.failed("make", &incoming, error))?;
        for entry in fs::read_dir(&incoming).into_iter().flatten().flatten() {
            let path = entry.path();
            fs::remove_file(&path).map_err(|error| shared.failed("remove", &path, error))?;
        }
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Stores what `source` gives as `digest`, unless it turns out to be something else.
    pub fn put(&self, digest: Digest, source: &mut impl Read) -> Result<(), StoreError> {
        let mut writer = self.begin(digest)?;
        let mut buffer = vec![0; crate::store::content::CHUNK_BYTES];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return writer.commit(),
                Ok(count) => writer.write(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(self
                        .shared
                        .failed("read what is to go below", &self.shared.directory, error));
                }
            }
        }
    }

    /// Starts a blob that comes in pieces. Dropping the writer forgets it.
    pub fn begin(&self, digest: Digest) -> Result<BlobWriter, StoreError> {
        let incoming = self.shared.incoming();
        let file = swept::in_directory(&incoming, 0o700, || NamedTempFile::new_in(&incoming))
            .map_err(|error| self.shared.failed("write in", &incoming, error))?;
        Ok(BlobWriter {
            store: self.clone(),
            digest,
            file,
            hasher: Hasher::default(),
        })
    }

    /// Opens a blob for reading, its content checked. `None` when it is not there, or no longer whole.
    pub fn open_blob(&self, digest: Digest) -> Result<Option<File>, StoreError> {
        Ok(self.checked(digest)?.map(|(file, _)| file))
    }

    /// Makes a blob appear at `path`, as a hard link when the file system allows, else as a copy; mode 0444 either way.
    /// Returns false when the blob is not there. Its times are the store's own: whoever needs others takes a copy.
    pub fn link(&self, digest: Digest, path: &Path) -> Result<bool, StoreError> {
        let Some((file, blob)) = self.checked(digest)? else {
            return Ok(false);
        };
        match fs::hard_link(&blob, path) {
            Ok(()) => Ok(true),
            // Gone since it was checked.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !blob.exists() => Ok(false),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMLINK | libc::EXDEV | libc::EPERM)) => {
                self.copy_file(file, path)?;
                Ok(true)
            }
            Err(error) => Err(self.shared.failed("link", path, error)),
        }
    }

    /// Makes a copy of a blob appear at `path`, an inode of its own. Returns false when the blob is not there.
    pub fn copy(&self, digest: Digest, path: &Path) -> Result<bool, StoreError> {
        let Some((file, _)) = self.checked(digest)? else {
            return Ok(false);
        };
        self.copy_file(file, path)?;
        Ok(true)
    }

    /// Tells for each digest whether a blob is there, without looking at its content.
    ///
    /// Counts as use, so that what was announced as present is not the next to go.
    pub fn contains_many(&self, digests: &[Digest]) -> Vec<bool> {
        let mut index = self.shared.lock();
        digests
            .iter()
            .map(|digest| self.shared.touch(&mut index, digest).is_some())
            .collect()
    }

    /// Keeps those of `digests` that are there from being evicted, until the result is dropped.
    pub fn pin(&self, digests: &[Digest]) -> Pins {
        let mut index = self.shared.lock();
        let mut pins = Pins {
            store: self.clone(),
            pinned: Vec::new(),
            missing: Vec::new(),
        };
        for digest in digests {
            match self.shared.touch(&mut index, digest) {
                Some(blob) => {
                    blob.pins += 1;
                    pins.pinned.push(*digest);
                }
                None => pins.missing.push(*digest),
            }
        }
        pins
    }

    /// Returns the space taken by all blobs, in whole blocks, bytes.
    pub fn charged_bytes(&self) -> u64 {
        let mut index = self.shared.lock();
        self.shared.scan_all(&mut index);
        index.charged_bytes
    }

    /// Returns how many blobs were dropped since the start because their content was damaged.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Opens a blob whose content is known to be right, and tells where it is.
    fn checked(&self, digest: Digest) -> Result<Option<(File, PathBuf)>, StoreError> {
        let shared = &self.shared;
        let Some(blob) = shared.touch(&mut shared.lock(), &digest).copied() else {
            return Ok(None);
        };
        let path = shared.path(&digest, blob.size);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                shared.forget(&digest, &path, None);
                return Ok(None);
            }
            Err(error) => return Err(shared.failed("open", &path, error)),
        };
        let read = |error| shared.failed("read", &path, error);
        let now = mark(&Stamp::from(&file.metadata().map_err(read)?));
        if now == blob.checked {
            return Ok(Some((file, path)));
        }
        let (found, _) = digest_of(&mut file, &mut |_| {}).map_err(read)?;
        if found != digest {
            shared.forget(&digest, &path, Some(now));
            return Ok(None);
        }
        file.rewind().map_err(read)?;
        if let Some(blob) = shared.lock().blobs.get_mut(&digest) {
            blob.checked = now;
        }
        Ok(Some((file, path)))
    }

    fn copy_file(&self, mut file: File, path: &Path) -> Result<(), StoreError> {
        let failed = |error| self.shared.failed("write", path, error);
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(path)
            .map_err(failed)?;
        io::copy(&mut file, &mut copy).map_err(failed)?;
        Ok(())
    }
}

/// A blob on its way in.
pub struct BlobWriter {
    store: DiskStore,
    digest: Digest,
    file: NamedTempFile,
    hasher: Hasher,
}

impl BlobWriter {
    /// Adds the next piece.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        self.hasher.update(piece);
        if charge(self.hasher.length()) > shared.quota_bytes {
            return Err(StoreError::TooLarge {
                digest: self.digest,
                quota_bytes: shared.quota_bytes,
            });
        }
        let written = self.file.write_all(piece);
        written.map_err(|error| shared.failed("write", self.file.path(), error))
    }

    /// Makes the blob visible, if it is what was announced.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self {
            store,
            digest,
            file,
            hasher,
        } = self;
        let shared = &store.shared;
        let size = hasher.length();
        let found = hasher.finish();
        if found != digest {
            return Err(StoreError::WrongDigest {
                expected: digest,
                found,
            });
        }
        let failed = |error| shared.failed("write", file.path(), error);
        let read_only = Permissions::from_mode(0o444);
        file.as_file().set_permissions(read_only).map_err(failed)?;
        let stamp = Stamp::from(&file.as_file().metadata().map_err(failed)?);
        let path = shared.path(&digest, size);
        let shard = path.parent().unwrap_or(&shared.directory);

        let mut index = shared.lock();
        let known = shared.touch(&mut index, &digest).map(|blob| blob.checked);
        if known.is_some() && known == Stamp::of(&path).ok().map(|stamp| mark(&stamp)) {
            // Somebody was faster, and mirrors may already be linked to that inode.
            return Ok(());
        }
        shared.make_room(&mut index, &digest, charge(size))?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(shard);
        made.map_err(|error| shared.failed("make", shard, error))?;
        file.persist(&path)
            .map_err(|error| shared.failed("write", &path, error.error))?;
        index.uses += 1;
        let blob = Blob {
            size,
            last_use: index.uses,
            checked: mark(&stamp),
            pins: index.blobs.get(&digest).map_or(0, |old| old.pins),
        };
        if index.blobs.insert(digest, blob).is_none() {
            index.charged_bytes += charge(size);
        }
        Ok(())
    }
}

/// Blobs that stay where they are while this lives.
#[derive(Debug)]
pub struct Pins {
    store: DiskStore,
    pinned: Vec<Digest>,
    missing: Vec<Digest>,
}

impl Pins {
    /// Returns the digests for which there is no blob, in the order asked.
    pub fn missing(&self) -> &[Digest] {
        &self.missing
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut index = self.store.shared.lock();
        for digest in &self.pinned {
            // It may have been dropped as damaged and come again without pins.
            if let Some(blob) = index.blobs.get_mut(digest) {
                blob.pins = blob.pins.saturating_sub(1);
            }
        }
    }
}

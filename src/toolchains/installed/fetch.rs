//! A bundle on its way in: received piece by piece, kept when the connection breaks, unpacked when whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use super::held::disk_bytes;
use super::shared::{Shared, remove};
use super::{InstallError, Origin, Pin, ToolchainStore};
use crate::digest::Hasher;
use crate::ids::ToolchainId;
use crate::store::content::CHUNK_BYTES;
use crate::store::swept;
use crate::toolchains::bundle::{BundleError, BundleRef, unpack};
use crate::toolchains::manifest::Manifest;

/// A bundle being received. Dropped, it leaves its file for the next attempt.
pub struct Partial {
    shared: Arc<Shared>,
    manifest: Arc<Manifest>,
    toolchain: ToolchainId,
    bundle: BundleRef,
    file: File,
    hasher: Hasher,
    reserved_bytes: u64,
    /// What is on the disk is wrong and must not be gone on with.
    spoilt: bool,
}

impl ToolchainStore {
    /// Starts, or resumes, fetching the bundle of `manifest`. Space for the bundle and for what is in it is set aside.
    ///
    /// What an earlier attempt has left is read once, for the digest.
    pub fn begin_fetch(&self, manifest: &Arc<Manifest>, bundle: BundleRef) -> Result<Partial, InstallError> {
        let toolchain = manifest.id();
        let shared = &self.shared;
        let reserved_bytes = disk_bytes(manifest).saturating_add(bundle.size);
        {
            let mut state = shared.lock();
            if state.active.contains(&bundle.digest) {
                return Err(InstallError::InProgress { toolchain });
            }
            // Our own leftover is neither to be evicted now nor to be counted twice.
            let own = state.partials.remove(&bundle.digest);
            if let Err(error) = shared.make_room(&mut state, toolchain, reserved_bytes) {
                state.partials.extend(own.map(|leftover| (bundle.digest, leftover)));
                return Err(error);
            }
            state.active.insert(bundle.digest);
            state.reserved_bytes += reserved_bytes;
        }
        let path = shared.partial(bundle.digest);
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(libc::O_NOFOLLOW)
                .mode(0o600)
                .open(&path)
        };
        let opened = swept::in_directory(&shared.partials(), 0o755, open).and_then(|mut file| {
            let hasher = hash_leftover(&mut file, bundle.size)?;
            Ok((file, hasher))
        });
        let (file, hasher) = opened.map_err(|error| {
            let mut state = shared.lock();
            state.active.remove(&bundle.digest);
            state.reserved_bytes -= reserved_bytes;
            InstallError::io("open", &path, error)
        })?;
        Ok(Partial {
            shared: shared.clone(),
            manifest: manifest.clone(),
            toolchain,
            bundle,
            file,
            hasher,
            reserved_bytes,
            spoilt: false,
        })
    }
}

impl Partial {
    /// Returns how many bytes are here: the offset to ask for next.
    pub fn offset(&self) -> u64 {
        self.hasher.length()
    }

    /// Returns which bundle this is to become.
    pub fn bundle(&self) -> BundleRef {
        self.bundle
    }

    /// Tells whether all bytes are here.
    pub fn is_complete(&self) -> bool {
        self.offset() == self.bundle.size
    }

    /// Adds the next piece.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), InstallError> {
        if self.offset().saturating_add(piece.len() as u64) > self.bundle.size {
            self.spoilt = true;
            return Err(InstallError::WrongBundle {
                toolchain: self.toolchain,
                problem: format!("more than the announced {} bytes came", self.bundle.size),
            });
        }
        if let Err(error) = self.file.write_all(piece) {
            // A part of the piece may be written; the digest of what is there is not known any more.
            self.spoilt = true;
            return Err(self.failed(error));
        }
        self.hasher.update(piece);
        Ok(())
    }

    /// Checks the bundle, unpacks it, and makes the toolchain visible. Blocks for as long as decompressing takes.
    ///
    /// `progress` is told bytes unpacked and in all.
    pub fn finish(mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Pin, InstallError> {
        let found = BundleRef {
            size: self.offset(),
            digest: self.hasher.clone().finish(),
        };
        if found.size < self.bundle.size {
            let problem = format!("{} of {} bytes are here", found.size, self.bundle.size);
            return Err(self.wrong(problem));
        }
        // Whatever happens below, these bytes are of no more use.
        self.spoilt = true;
        if found.digest != self.bundle.digest {
            let problem = format!("its digest is {}, not {}", found.digest, self.bundle.digest);
            return Err(self.wrong(problem));
        }
        let new = self.shared.start()?;
        let mut source = &self.file;
        source.rewind().map_err(|error| self.failed(error))?;
        unpack(source, &self.manifest, &new.path().join("root"), progress)?;
        self.shared.publish(new, &self.manifest, Origin::Bundle)
    }

    fn wrong(&self, problem: String) -> InstallError {
        InstallError::WrongBundle {
            toolchain: self.toolchain,
            problem,
        }
    }

    fn failed(&self, error: io::Error) -> InstallError {
        let path = self.shared.partial(self.bundle.digest);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BundleError::DiskFull {
                toolchain: self.toolchain,
                directory: self.shared.directory.clone(),
            }
            .into(),
            _ => InstallError::io("write", &path, error),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.active.remove(&self.bundle.digest);
        state.reserved_bytes -= self.reserved_bytes;
        let length = self.offset();
        if self.spoilt || length == 0 {
            remove(&self.shared.partial(self.bundle.digest));
        } else {
            state.uses += 1;
            let leftover = (length, state.uses);
            state.partials.insert(self.bundle.digest, leftover);
        }
    }
}

/// Hashes what is there already; what is longer than it could be is emptied.
fn hash_leftover(file: &mut File, size_max: u64) -> io::Result<Hasher> {
    use std::io::Read;
    if file.metadata()?.len() > size_max {
        file.set_len(0)?;
    }
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

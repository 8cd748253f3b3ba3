//! Using a compiler that is installed on this machine: verified by content, then made into a root without a transfer.
//!
//! Files are hard-linked where that is safe and the file system allows it, else cloned or copied. The root then does not
//! depend on the installation any more: an upgrade replaces files by new ones and leaves these alone, and one
//! that writes into them shows in their stamps.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::compare::{below, mismatch, outline, unreadable};
use super::held::disk_bytes;
use super::{InstallError, Origin, Pin, ToolchainStore};
use crate::digest::{Digest, Hasher};
use crate::store::content::{CHUNK_BYTES, digest_of};
use crate::toolchains::bundle::Root;
use crate::toolchains::manifest::{Entry, MODE_EXECUTABLE, Manifest};

impl ToolchainStore {
    /// Takes the toolchain from this machine's own files, if it has exactly those of `manifest`.
    ///
    /// Cheap when it has not: kinds and sizes are compared before anything is read. `progress` is told bytes done and
    /// in all.
    pub fn adopt_installed(
        &self,
        manifest: &Arc<Manifest>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Pin, InstallError> {
        self.adopt_below(Path::new("/"), manifest, progress)
    }

    pub(super) fn adopt_below(
        &self,
        installed: &Path,
        manifest: &Arc<Manifest>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Pin, InstallError> {
        let toolchain = manifest.id();
        let not_installed = |mismatch| InstallError::NotInstalled { toolchain, mismatch };
        if let Some(pin) = self.lookup(toolchain) {
            return Ok(pin);
        }
        for (path, entry) in manifest.entries() {
            outline(installed, path, entry).map_err(not_installed)?;
        }
        self.shared
            .make_room(&mut self.shared.lock(), toolchain, disk_bytes(manifest))?;
        let new = self.shared.start()?;
        let place = new.path().join("root");
        let mut root = Root::open(&place).map_err(|error| InstallError::io("open", &place, error))?;
        let total = manifest.content_bytes();
        let mut done = 0;
        for (path, entry) in manifest.entries() {
            let Entry::File { mode, size, digest } = entry else {
                root.make(path, entry)
                    .map_err(|error| root.failed(toolchain, path, error))?;
                continue;
            };
            let source = below(installed, path);
            let mut file = open(&source).map_err(|error| not_installed(unreadable(&source, &error)))?;
            let linked = may_be_linked(&file, *mode) && root.link(&file, path).is_ok();
            let found = match linked {
                true => digest_of(&mut file, &mut |_| {}).map(|(digest, _)| digest),
                false => {
                    let copy = root
                        .make(path, entry)
                        .map_err(|error| root.failed(toolchain, path, error))?;
                    match copy {
                        Some(copy) => copied(&mut file, copy),
                        None => Err(io::ErrorKind::InvalidInput.into()),
                    }
                }
            };
            let found = found.map_err(|error| root.failed(toolchain, path, error))?;
            if found != *digest {
                return Err(not_installed(mismatch(&source, "has other content")));
            }
            done += size;
            progress(done, total);
        }
        self.shared.publish(new, manifest, Origin::Installed)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Tells whether sharing the inode is safe and of use: nobody but root or this worker can write into it, everybody can
/// read it (jobs run as somebody else), and it has no special bits.
fn may_be_linked(file: &File, mode: u32) -> bool {
    let safe = |metadata: Metadata| {
        let bits = metadata.permissions().mode() & 0o7777;
        let ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
        let wanted = if mode == MODE_EXECUTABLE { 0o555 } else { 0o444 };
        ours && bits & !0o755 == 0 && bits & wanted == wanted
    };
    file.metadata().is_ok_and(safe)
}

/// Copies `from`, sharing its blocks where the file system can. Returns the digest of what was copied.
fn copied(from: &mut File, mut to: File) -> io::Result<Digest> {
    if rustix::fs::ioctl_ficlone(&to, &*from).is_ok() {
        return digest_of(from, &mut |_| {}).map(|(digest, _)| digest);
    }
    from.rewind()?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
    }
}

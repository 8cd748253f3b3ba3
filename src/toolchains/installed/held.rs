//! One toolchain that stands here: its manifest, its root, and the stamps that tell whether it is still the same.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Mismatch, Origin, compare};
use crate::digest::Digest;
use crate::ids::ToolchainId;
use crate::store::stamp::Stamp;
use crate::toolchains::manifest::{Entry, Manifest};

/// First words of a record; another version is not trusted.
const RECORD: &str = "rdcc-installed 1";
/// What a file or directory takes at least on common file systems; the quota is charged in these.
const BLOCK_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: ToolchainId,
    pub(super) manifest: Arc<Manifest>,
    pub(super) origin: Origin,
    pub(super) directory: PathBuf,
    pub(super) root: PathBuf,
    pub(super) bytes: u64,
    /// The stamp of the root, then of each entry, in the manifest's order.
    pub(super) stamps: Mutex<Vec<Stamp>>,
}

impl Held {
    pub(super) fn load(directory: &Path) -> Option<Self> {
        let id: Digest = directory.file_name()?.to_str()?.parse().ok()?;
        let text = fs::read(directory.join("manifest")).ok()?;
        if Digest::of(&text) != id {
            return None;
        }
        let manifest = Manifest::decode(&text).ok()?;
        let (origin, stamps) = parse_record(&fs::read_to_string(directory.join("record")).ok()?)?;
        (stamps.len() == manifest.entries().len() + 1).then(|| Self {
            id: ToolchainId(id),
            origin,
            root: directory.join("root"),
            directory: directory.to_owned(),
            bytes: disk_bytes(&manifest),
            manifest: Arc::new(manifest),
            stamps: Mutex::new(stamps),
        })
    }

    pub(super) fn note_use(&self) {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let now = Timestamps {
            last_access: now,
            last_modification: now,
        };
        // Only orders evictions after a restart.
        let _ = utimensat(CWD, self.directory.join("used"), &now, AtFlags::empty());
    }

    /// Compares stamps and reads what has another one: of all entries, or, when that has been done before, of programs,
    /// libraries, links and directories, some hundred `lstat` calls.
    pub(super) fn look_over(&self, keys_only: bool) -> Result<(), Mismatch> {
        self.compare(|manifest, path, entry| {
            !keys_only || matches!(entry, Entry::Directory { .. }) || manifest.is_key_file(path)
        })
    }

    pub(super) fn read_all(&self) -> Result<(), Mismatch> {
        for stamp in self.lock_stamps().iter_mut() {
            stamp.inode = 0;
        }
        self.look_over(false)
    }

    pub(super) fn compare(&self, wanted: impl Fn(&Manifest, &Path, &Entry) -> bool) -> Result<(), Mismatch> {
        let directory = Entry::Directory { mode: 0o755 };
        let root = (PathBuf::from("/"), directory);
        let mut stamps = self.lock_stamps();
        let mut changed = false;
        for ((path, entry), stamp) in std::iter::once(&root)
            .chain(self.manifest.entries())
            .zip(stamps.iter_mut())
        {
            if !wanted(&self.manifest, path, entry) {
                continue;
            }
            let now = compare::stamp(&self.root, path)?;
            if now != *stamp {
                compare::entry(&self.root, path, entry)?;
                if matches!(entry, Entry::Directory { .. }) {
                    compare::listing(&self.root, path, &self.manifest)?;
                }
                *stamp = now;
                changed = true;
            }
        }
        if changed {
            // If this is not kept, the next start reads the same files again.
            let _ = fs::write(self.directory.join("record"), record(self.origin, &stamps));
        }
        Ok(())
    }

    pub(super) fn lock_stamps(&self) -> MutexGuard<'_, Vec<Stamp>> {
        self.stamps.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub(super) fn stamps(root: &Path, manifest: &Manifest) -> io::Result<Vec<Stamp>> {
    std::iter::once(Path::new("/"))
        .chain(manifest.entries().iter().map(|(path, _)| path.as_path()))
        .map(|path| Stamp::of(&compare::below(root, path)))
        .collect()
}

pub(super) fn record(origin: Origin, stamps: &[Stamp]) -> String {
    let origin = match origin {
        Origin::Installed => "installed",
        Origin::Bundle => "bundle",
    };
    let mut text = format!("{RECORD} {origin}\n");
    for stamp in stamps {
        text += &format!("{stamp}\n");
    }
    text
}

pub(super) fn parse_record(text: &str) -> Option<(Origin, Vec<Stamp>)> {
    let mut lines = text.lines();
    let origin = match lines.next()?.strip_prefix(RECORD)? {
        " installed" => Origin::Installed,
        " bundle" => Origin::Bundle,
        _ => return None,
    };
    let stamps: Result<Vec<Stamp>, _> = lines.map(str::parse).collect();
    Some((origin, stamps.ok()?))
}

/// Space that an unpacked toolchain takes, bytes.
pub(super) fn disk_bytes(manifest: &Manifest) -> u64 {
    let block = |size: u64| size.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
    manifest.entries().iter().fold(0, |sum: u64, (_, entry)| {
        sum.saturating_add(match entry {
            Entry::File { size, .. } => block(*size),
            Entry::Directory { .. } => BLOCK_BYTES,
            // Short ones stand in the inode.
            Entry::Symlink { target } if target.as_bytes().len() < 60 => 0,
            Entry::Symlink { .. } => BLOCK_BYTES,
        })
    })
}

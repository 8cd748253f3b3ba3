//! What all handles of a store share: which toolchains stand here, who uses them, and how room is made.
//!
//! Counts are kept under one mutex; a toolchain appears and disappears by one rename.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::held::{Held, disk_bytes, record, stamps};
use super::{InstallError, Origin, Pin};
use crate::digest::Digest;
use crate::ids::ToolchainId;
use crate::store::eviction::{Candidate, choose};
use crate::store::stamp::Stamp;
use crate::store::swept;
use crate::toolchains::manifest::Manifest;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: PathBuf,
    pub(super) quota_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) slots: BTreeMap<ToolchainId, Slot>,
    /// Bundles half fetched that nobody is at, by digest: length, and when they were last at it.
    pub(super) partials: BTreeMap<Digest, (u64, u64)>,
    /// Bundles being fetched.
    pub(super) active: BTreeSet<Digest>,
    /// Space promised to those, bytes.
    pub(super) reserved_bytes: u64,
    /// Counts uses: the store's own idea of time.
    pub(super) uses: u64,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) held: Arc<Held>,
    pub(super) last_use: u64,
    pub(super) pins: u32,
    /// When stamps were last compared; all of them the first time, then those of key files.
    pub(super) looked_over: Option<Instant>,
}

impl State {
    pub(super) fn used_bytes(&self) -> u64 {
        let slots = self.slots.values().map(|slot| slot.held.bytes);
        let partials = self.partials.values().map(|(bytes, _)| *bytes);
        slots.chain(partials).fold(self.reserved_bytes, u64::saturating_add)
    }
}

/// Something that can be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Evictable {
    Partial(Digest),
    Toolchain(ToolchainId),
}

impl Shared {
    pub(super) fn new(directory: &Path, quota_bytes: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            quota_bytes,
            state: Mutex::new(State::default()),
        }
    }

    /// Learns what an earlier life has left.
    pub(super) fn find_all(&self) -> Result<(), InstallError> {
        let mut state = self.lock();
        self.find_partials(&mut state)?;
        self.find_toolchains(&mut state)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it left counts behind that are still counts.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn unfinished(&self) -> PathBuf {
        self.directory.join("unfinished")
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.directory.join("partial")
    }

    pub(super) fn partial(&self, digest: Digest) -> PathBuf {
        self.partials().join(digest.to_string())
    }

    fn find_partials(&self, state: &mut State) -> Result<(), InstallError> {
        for path in list(&self.partials())? {
            let digest = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            match digest.zip(Stamp::of(&path).ok()) {
                Some((digest, stamp)) => drop(state.partials.insert(digest, (stamp.size, 0))),
                None => remove(&path),
            }
        }
        Ok(())
    }

    fn find_toolchains(&self, state: &mut State) -> Result<(), InstallError> {
        let mut found = Vec::new();
        for directory in list(&self.directory)? {
            if directory == self.unfinished() || directory == self.partials() {
                continue;
            }
            match Held::load(&directory) {
                Some(held) => {
                    let used = Stamp::of(&directory.join("used")).map_or(0, |stamp| stamp.mtime_ns);
                    found.push((used, held));
                }
                None => {
                    tracing::warn!(directory = %directory.display(), "not a toolchain; it is removed");
                    remove(&directory);
                }
            }
        }
        found.sort_by_key(|(used, _)| *used);
        for (_, held) in found {
            state.uses += 1;
            let slot = Slot {
                last_use: state.uses,
                pins: 0,
                looked_over: None,
                held: Arc::new(held),
            };
            state.slots.insert(slot.held.id, slot);
        }
        Ok(())
    }

    pub(super) fn pin(self: &Arc<Self>, state: &mut State, id: ToolchainId) -> Option<Pin> {
        state.uses += 1;
        let uses = state.uses;
        let slot = state.slots.get_mut(&id)?;
        slot.last_use = uses;
        slot.pins += 1;
        if slot.pins == 1 {
            slot.held.note_use();
        }
        Some(Pin {
            shared: self.clone(),
            held: slot.held.clone(),
        })
    }

    /// Evicts until `bytes` more fit into the quota.
    pub(super) fn make_room(&self, state: &mut State, toolchain: ToolchainId, bytes: u64) -> Result<(), InstallError> {
        let (needed_bytes, quota_bytes) = (bytes, self.quota_bytes);
        if bytes > self.quota_bytes {
            return Err(InstallError::QuotaTooSmall {
                toolchain,
                needed_bytes,
                quota_bytes,
            });
        }
        let wanted = state
            .used_bytes()
            .saturating_add(bytes)
            .saturating_sub(self.quota_bytes);
        let partials = state.partials.iter().map(|(digest, (bytes, last_use))| Candidate {
            key: Evictable::Partial(*digest),
            bytes: *bytes,
            last_use: *last_use,
            pins: 0,
        });
        let toolchains = state.slots.iter().map(|(id, slot)| Candidate {
            key: Evictable::Toolchain(*id),
            bytes: slot.held.bytes,
            last_use: slot.last_use,
            pins: slot.pins,
        });
        let chosen = choose(partials.chain(toolchains), wanted).map_err(|_| InstallError::InUse {
            toolchain,
            needed_bytes,
            quota_bytes,
        })?;
        for evicted in chosen {
            match evicted {
                Evictable::Partial(digest) => {
                    state.partials.remove(&digest);
                    remove(&self.partial(digest));
                }
                Evictable::Toolchain(id) => {
                    tracing::info!(toolchain = %id, "evicted to make room");
                    self.discard(state, id);
                }
            }
        }
        Ok(())
    }

    pub(super) fn give_up(&self, id: ToolchainId) {
        let mut state = self.lock();
        self.discard(&mut state, id);
    }

    fn discard(&self, state: &mut State, id: ToolchainId) {
        if let Some(slot) = state.slots.remove(&id) {
            // Out of sight by one rename first, so that a crash leaves a whole toolchain or a leftover.
            let away = self.unfinished().join(id.to_string());
            match fs::rename(&slot.held.directory, &away) {
                Ok(()) => remove(&away),
                Err(_) => remove(&slot.held.directory),
            }
        }
    }

    /// Makes a directory in which a toolchain is put together.
    pub(super) fn start(&self) -> Result<tempfile::TempDir, InstallError> {
        let unfinished = self.unfinished();
        let make = || tempfile::Builder::new().prefix("new-").tempdir_in(&unfinished);
        let made = swept::in_directory(&unfinished, 0o755, make);
        let new = made.map_err(|error| InstallError::io("write in", &unfinished, error))?;
        let root = new.path().join("root");
        fs::create_dir(&root).map_err(|error| InstallError::io("make", &root, error))?;
        for path in [new.path(), &root] {
            // Jobs run as somebody else and have to get in.
            let opened = fs::set_permissions(path, Permissions::from_mode(0o755));
            opened.map_err(|error| InstallError::io("make", path, error))?;
        }
        Ok(new)
    }

    /// Makes a toolchain visible whose files stand, checked, in `new`. Returns it pinned.
    pub(super) fn publish(
        self: &Arc<Self>,
        new: tempfile::TempDir,
        manifest: &Arc<Manifest>,
        origin: Origin,
    ) -> Result<Pin, InstallError> {
        let id = manifest.id();
        let directory = self.directory.join(id.to_string());
        let io = |error| InstallError::io("write in", new.path(), error);
        let stamps = stamps(&new.path().join("root"), manifest).map_err(io)?;
        fs::write(new.path().join("manifest"), manifest.encode()).map_err(io)?;
        fs::write(new.path().join("record"), record(origin, &stamps)).map_err(io)?;
        fs::write(new.path().join("used"), "").map_err(io)?;
        // Stamps cannot tell content from what a power cut makes of it, so content has to be on the disk before the
        // name is. Once for all files, which costs far less than each by itself.
        File::open(new.path())
            .and_then(|opened| Ok(rustix::fs::syncfs(opened)?))
            .map_err(io)?;

        let mut state = self.lock();
        if let Some(pin) = self.pin(&mut state, id) {
            return Ok(pin);
        }
        fs::rename(new.path(), &directory).map_err(io)?;
        let held = Held {
            id,
            manifest: manifest.clone(),
            origin,
            root: directory.join("root"),
            directory,
            bytes: disk_bytes(manifest),
            stamps: Mutex::new(stamps),
        };
        let slot = Slot {
            held: Arc::new(held),
            last_use: 0,
            pins: 0,
            looked_over: Some(Instant::now()),
        };
        state.slots.insert(id, slot);
        // Nothing is lost if the rename is: it would be fetched again.
        drop(new);
        self.pin(&mut state, id).ok_or_else(|| {
            InstallError::io(
                "find",
                &self.directory.join(id.to_string()),
                io::ErrorKind::NotFound.into(),
            )
        })
    }
}

pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let io = |error| InstallError::io("list", directory, error);
    let entries = fs::read_dir(directory).map_err(io)?;
    entries.map(|entry| Ok(entry.map_err(io)?.path())).collect()
}

/// Removes a file or a whole directory. What cannot be removed now is a leftover that the next start finds.
pub(super) fn remove(path: &Path) {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "cannot remove leftover");
    }
}

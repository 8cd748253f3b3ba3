//! The toolchains that stand on this node, each unpacked as a root of its own: `DIR/IDENTITY/root/usr/bin/…`.
//!
//! One comes to stand here from files that are installed on the machine and verified by content ([`adopt`]), or
//! from a bundle ([`fetch`]); either way it becomes visible by one rename when every file has been checked. A look-up
//! compares stamps, reads again what has changed, and gives up a toolchain that is no longer what it was. What jobs use
//! is pinned; the rest is evicted within a quota, least recently used first. Synchronous: everything here blocks.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ids::ToolchainId;
use crate::toolchains::bundle::BundleError;
use crate::toolchains::manifest::Manifest;

mod adopt;
mod compare;
mod fetch;
mod held;
#[cfg(test)]
mod real;
mod shared;
#[cfg(test)]
mod tests;

pub use compare::Mismatch;
pub use fetch::Partial;

use held::Held;
use shared::{Shared, list, remove};

/// A node's toolchains, in one directory. Clones share it.
#[derive(Debug, Clone)]
pub struct ToolchainStore {
    shared: Arc<Shared>,
}

/// Where a toolchain's files came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// They are installed on this machine.
    Installed,
    /// They came in a bundle.
    Bundle,
}

/// Why a toolchain does not come to stand here.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It is larger than everything together may be.
    #[error(
        "toolchain {toolchain} needs {needed_bytes} bytes, more than the quota of {quota_bytes} for toolchains; raise `toolchain_quota`"
    )]
    QuotaTooSmall {
        /// The toolchain.
        toolchain: ToolchainId,
        /// What it needs, for a bundle together with the bundle.
        needed_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// The others are in use just now.
    #[error(
        "toolchain {toolchain} needs {needed_bytes} bytes, and jobs are using the other toolchains within the quota of {quota_bytes}"
    )]
    InUse {
        /// The toolchain.
        toolchain: ToolchainId,
        /// What it needs.
        needed_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// Somebody else is fetching the same bundle.
    #[error("toolchain {toolchain} is being fetched already")]
    InProgress {
        /// The toolchain.
        toolchain: ToolchainId,
    },
    /// This machine has not exactly those files.
    #[error("toolchain {toolchain} is not installed here: {mismatch}")]
    NotInstalled {
        /// The toolchain.
        toolchain: ToolchainId,
        /// The first difference.
        mismatch: Mismatch,
    },
    /// What came is not the bundle that was asked for; it has been thrown away.
    #[error("bundle of toolchain {toolchain}: {problem}")]
    WrongBundle {
        /// The toolchain.
        toolchain: ToolchainId,
        /// Digest or length, expected and found.
        problem: String,
    },
    /// The bundle is what was asked for, but hostile or not the manifest's; or the disk is full.
    #[error(transparent)]
    Bundle(#[from] BundleError),
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

impl InstallError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// Tells whether the node's disk or quota is at fault, rather than what was sent.
    pub fn is_full(&self) -> bool {
        let full =
            |source: &io::Error| matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::QuotaTooSmall { .. } | Self::InUse { .. } | Self::Bundle(BundleError::DiskFull { .. }) => true,
            Self::Io { source, .. } => full(source),
            _ => false,
        }
    }
}

impl ToolchainStore {
    /// Opens the store in `directory`, made if needed. What an earlier life left unfinished is removed, apart from
    /// bundles half fetched, and so is what cannot be read. Files are compared with their stamps at the first look-up.
    pub fn open(directory: &Path, quota_bytes: u64) -> Result<Self, InstallError> {
        let shared = Shared::new(directory, quota_bytes);
        for path in [shared.unfinished(), shared.partials()] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.map_err(|error| InstallError::io("make", &path, error))?;
        }
        for path in list(&shared.unfinished())? {
            remove(&path);
        }
        shared.find_all()?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns the toolchain if it stands here and is still what it was, pinned.
    pub fn lookup(&self, id: ToolchainId) -> Option<Pin> {
        let (pin, looked_over) = {
            let mut state = self.shared.lock();
            let looked_over = state.slots.get(&id)?.looked_over;
            (self.shared.pin(&mut state, id)?, looked_over)
        };
        if let Err(mismatch) = pin.held.look_over(looked_over.is_some()) {
            tracing::warn!(toolchain = %id, %mismatch, "toolchain has been tampered with; it is given up");
            drop(pin);
            self.shared.give_up(id);
            return None;
        }
        if let Some(slot) = self.shared.lock().slots.get_mut(&id) {
            slot.looked_over = Some(Instant::now());
        }
        Some(pin)
    }

    /// Returns the toolchain, pinned, if it stands here and the last look-up that compared stamps was less than `age`
    /// ago. Does not block.
    pub fn lookup_within(&self, id: ToolchainId, age: Duration) -> Option<Pin> {
        let mut state = self.shared.lock();
        let looked_over = state.slots.get(&id)?.looked_over?;
        (looked_over.elapsed() < age).then(|| self.shared.pin(&mut state, id))?
    }

    /// Reads every file of a toolchain again. One that is no longer what it was is given up.
    ///
    /// Returns false when it does not stand here.
    pub fn verify(&self, id: ToolchainId) -> Result<bool, Mismatch> {
        let Some(pin) = ({
            let mut state = self.shared.lock();
            self.shared.pin(&mut state, id)
        }) else {
            return Ok(false);
        };
        let checked = pin.held.read_all();
        drop(pin);
        if checked.is_err() {
            self.shared.give_up(id);
        }
        checked.map(|()| true)
    }

    /// Names the toolchains that stand here.
    pub fn ids(&self) -> Vec<ToolchainId> {
        self.shared.lock().slots.keys().copied().collect()
    }

    /// Returns the space taken, bytes: unpacked toolchains, half-fetched bundles, and what is being fetched.
    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().used_bytes()
    }

    /// Returns the quota, bytes.
    pub fn quota_bytes(&self) -> u64 {
        self.shared.quota_bytes
    }
}

/// A toolchain that stays where it is while this lives.
pub struct Pin {
    shared: Arc<Shared>,
    held: Arc<Held>,
}

impl Pin {
    /// Returns its identity.
    pub fn id(&self) -> ToolchainId {
        self.held.id
    }

    /// Returns the directory that holds exactly the manifest's files, at their absolute paths below it.
    ///
    /// To be used as a lower layer or mounted read-only: whatever is changed or added here makes the toolchain invalid.
    pub fn root(&self) -> &Path {
        &self.held.root
    }

    /// Returns what it consists of.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.held.manifest
    }

    /// Tells where its files came from.
    pub fn origin(&self) -> Origin {
        self.held.origin
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        if let Some(slot) = self.shared.lock().slots.get_mut(&self.held.id)
            && Arc::ptr_eq(&slot.held, &self.held)
        {
            slot.pins += 1;
        }
        Self {
            shared: self.shared.clone(),
            held: self.held.clone(),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // It may have been given up and come again since; the new one counts its own pins.
        if let Some(slot) = state.slots.get_mut(&self.held.id)
            && Arc::ptr_eq(&slot.held, &self.held)
        {
            slot.pins = slot.pins.saturating_sub(1);
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pin").field(&self.held.id).finish()
    }
}

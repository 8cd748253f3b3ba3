//! Keeps the mirrors within their quota, least recently used first, and removes what nobody uses.
//!
//! What a mirror shares with the blob store costs nothing here; a blob that the store has let go is then the mirror's
//! own. Invariant: nothing that a running job uses is removed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::{Live, Mirrors, Tree, lock};
use crate::digest::Digest;
use crate::ids::ToolchainId;

/// Changes after which a generation's space is counted anew. Counting looks at every file: 20 ms for 20,000.
const COUNT_AFTER: usize = 4096;
/// What one directory or link takes, bytes.
const INODE_BYTES: u64 = 4096;

impl Mirrors {
    /// Lets mirrors go until the rest fits into the quota, and removes from disk what nobody uses. May take seconds;
    /// jobs can start meanwhile.
    pub fn sweep(&self) {
        self.shrink();
        let garbage = std::mem::take(&mut *lock(&self.shared.garbage));
        for directory in garbage {
            if let Err(error) = fs::remove_dir_all(&directory)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(directory = %directory.display(), %error, "cannot remove an old mirror");
            }
        }
    }

    /// True when [`Mirrors::sweep`] has something to do.
    pub fn wants_sweep(&self) -> bool {
        !lock(&self.shared.garbage).is_empty() || self.own_bytes() > self.shared.quota_bytes
    }

    /// Returns the space that all mirrors take and share with nobody, bytes, as last counted.
    pub fn own_bytes(&self) -> u64 {
        self.trees().iter().map(|(_, tree)| tree.own_bytes()).sum()
    }

    fn trees(&self) -> Vec<(Digest, Arc<Tree>)> {
        let trees = lock(&self.shared.trees);
        trees.iter().map(|(id, tree)| (*id, tree.clone())).collect()
    }

    fn shrink(&self) {
        let trees = self.trees();
        trees.iter().for_each(|(_, tree)| tree.count());
        let mut total: u64 = trees.iter().map(|(_, tree)| tree.own_bytes()).sum();
        let mut idle: Vec<(u64, &Arc<Tree>, ToolchainId)> = trees
            .iter()
            .flat_map(|(_, tree)| tree.idle().into_iter().map(move |(last_use, id)| (last_use, tree, id)))
            .collect();
        idle.sort_by_key(|(last_use, _, _)| *last_use);
        for (last_use, tree, toolchain) in idle {
            if total <= self.shared.quota_bytes {
                break;
            }
            total -= tree.forget(toolchain, last_use).min(total);
        }
        drop(trees);
        // A tree without mirrors and links is only memory.
        lock(&self.shared.trees).retain(|_, tree| Arc::strong_count(tree) > 1 || !lock(&tree.state).mirrors.is_empty());
    }
}

impl Tree {
    fn own_bytes(&self) -> u64 {
        let state = lock(&self.state);
        state
            .mirrors
            .values()
            .flat_map(|mirror| &mirror.generations)
            .map(|live| live.own_bytes)
            .sum()
    }

    fn count(&self) {
        let mut state = lock(&self.state);
        for live in state.mirrors.values_mut().flat_map(|mirror| &mut mirror.generations) {
            live.count();
        }
    }

    /// Returns the mirrors in which no job runs, with their last use.
    fn idle(&self) -> Vec<(u64, ToolchainId)> {
        let state = lock(&self.state);
        let idle = state
            .mirrors
            .iter()
            .filter(|(_, mirror)| mirror.generations.iter().all(|live| live.running == 0));
        idle.map(|(toolchain, mirror)| (mirror.last_use, *toolchain)).collect()
    }

    /// Drops a mirror unless it has been used since; returns the space that will be free, bytes.
    fn forget(&self, toolchain: ToolchainId, last_use: u64) -> u64 {
        let mut state = lock(&self.state);
        match state.mirrors.get(&toolchain) {
            Some(mirror) if mirror.last_use == last_use => {}
            _ => return 0,
        }
        let dropped = state
            .mirrors
            .remove(&toolchain)
            .map(|mirror| mirror.generations)
            .unwrap_or_default();
        let mut garbage = lock(&self.shared.garbage);
        dropped
            .into_iter()
            .map(|live| {
                garbage.push(live.directory);
                live.own_bytes
            })
            .sum()
    }
}

impl Live {
    fn count(&mut self) {
        if self.uncounted < COUNT_AFTER {
            return;
        }
        match own_bytes(&self.directory) {
            Ok(bytes) => {
                self.own_bytes = bytes;
                self.uncounted = 0;
            }
            Err(error) => tracing::warn!(directory = %self.directory.display(), %error, "cannot count a mirror"),
        }
    }
}

/// Adds up what stands below `directory` and has no other name elsewhere.
fn own_bytes(directory: &Path) -> io::Result<u64> {
    let mut sum = INODE_BYTES;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            sum += own_bytes(&entry.path())?;
        } else if found.nlink() == 1 {
            sum += INODE_BYTES + found.size();
        }
    }
    Ok(sum)
}

//! How far a file system's answers can be relied on. An unknown one is not relied on at all.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The file systems that were met, by device.
#[derive(Debug, Default)]
pub(super) struct FileSystems {
    devices: Mutex<HashMap<u64, Reliance>>,
}

/// How far a file system can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reliance {
    /// Not at all.
    None,
    /// On times and names. What is changed in a lower layer of an overlay rings no bell.
    Times,
    /// On times, names, and being told of changes.
    Events,
}

/// Magic numbers (`statfs`) of local file systems that change a directory's times with its entries, and compare names
/// byte by byte: ext2/3/4, xfs, btrfs, tmpfs, ramfs, overlayfs, f2fs, zfs, bcachefs, squashfs, erofs.
const RELIABLE: [u64; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x7371_7368,
    0xe0f5_e1e2,
];
/// The magic number of overlayfs.
const OVERLAY: u64 = 0x794c_7630;

impl FileSystems {
    /// Says how far this device can be relied on; `place` is on it.
    pub(super) fn reliance(&self, device: u64, place: &Path) -> Reliance {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        *devices.entry(device).or_insert_with(|| {
            let Ok(found) = rustix::fs::statfs(place) else {
                return Reliance::None;
            };
            // The field's type differs by target; the numbers have 32 bits.
            match found.f_type as u64 & 0xffff_ffff {
                OVERLAY => Reliance::Times,
                magic if RELIABLE.contains(&magic) => Reliance::Events,
                _ => Reliance::None,
            }
        })
    }
}

//! What rdcc keeps on disk: blobs by digest, archives, and the rules for what goes when space is short.
//!
//! Knows files and digests only; what a toolchain or a job is, is not known here.

pub mod archive;
pub mod content;
pub mod disk;
pub mod eviction;
pub mod nameless;
pub mod packed;
pub mod sealed;
pub mod stamp;
pub mod swept;

#[cfg(test)]
pub(crate) mod small_disk;

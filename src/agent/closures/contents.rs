//! Digests of files by what tells their versions apart, packed for the agent's next life.
//!
//! Only versions that had settled when they were read: nothing can have changed them since without its showing. Pure.

use crate::digest::Digest;
use crate::includes::source_tree::Fingerprint;
use crate::store::packed::{Packer, Unpacker};

/// Packs digests.
pub fn pack(contents: &[(Fingerprint, Digest)]) -> Vec<u8> {
    let mut packer = Packer::default();
    packer.number(contents.len() as u64);
    for (fingerprint, digest) in contents {
        let Fingerprint {
            device,
            inode,
            size,
            mtime_ns,
            ctime_ns,
            mode,
        } = fingerprint;
        packer.number(*device);
        packer.number(*inode);
        packer.number(*size);
        packer.signed(*mtime_ns);
        packer.signed(*ctime_ns);
        packer.number(u64::from(*mode));
        packer.raw(digest.as_bytes());
    }
    packer.finish()
}

/// Reads packed digests; `None` when they are not.
pub fn unpack(bytes: &[u8]) -> Option<Vec<(Fingerprint, Digest)>> {
    let mut from = Unpacker::new(bytes);
    let mut contents = Vec::new();
    for _ in 0..from.count()? {
        let fingerprint = Fingerprint {
            device: from.number()?,
            inode: from.number()?,
            size: from.number()?,
            mtime_ns: from.signed()?,
            ctime_ns: from.signed()?,
            mode: u32::try_from(from.number()?).ok()?,
        };
        contents.push((fingerprint, Digest::from_slice(from.raw(size_of::<Digest>())?).ok()?));
    }
    from.is_empty().then_some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_digests_say_the_same_and_nonsense_says_nothing() {
        let fingerprint = Fingerprint {
            device: 1 << 40,
            inode: u64::MAX,
            size: 0,
            mtime_ns: -1,
            ctime_ns: i64::MAX,
            mode: 0o7777,
        };
        let contents = [
            (fingerprint, Digest::of(b"a")),
            (Fingerprint::default(), Digest::of(b"b")),
        ];
        let packed = pack(&contents);
        assert_eq!(unpack(&packed).as_deref(), Some(contents.as_slice()));
        for at in 0..packed.len() {
            assert_eq!(unpack(&packed[..at]), None);
        }
    }
}

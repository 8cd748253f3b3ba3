//! Parts of file names, as gcc's driver takes them apart.
//!
//! Bytes are looked at one by one. Names are short, and the wrapper, which takes a few of them apart for every compile, would
//! with its first call of `memchr` ask the processor what it can: that takes longer than everything here, above all in a
//! virtual machine.

/// Returns what stands in front of the last slash, and what stands behind it. Without a slash all of it is the name.
pub fn split_directories(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Returns where a name's last dot is.
pub fn last_dot(name: &[u8]) -> Option<usize> {
    name.iter().rposition(|byte| *byte == b'.')
}

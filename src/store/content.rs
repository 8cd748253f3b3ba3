//! Reading a file's whole content once, for its digest.

use std::io::{self, Read};

use crate::digest::{Digest, Hasher};

/// Read at a time: large enough that the system call does not show, small enough for a processor's cache.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Reads `source` to its end and returns digest and length. `progress` is told of every piece, in bytes.
pub fn digest_of(source: &mut impl Read, progress: &mut dyn FnMut(u64)) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => {
                let length = hasher.length();
                return Ok((hasher.finish(), length));
            }
            Ok(count) => {
                hasher.update(&buffer[..count]);
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_and_length_are_those_of_the_whole() {
        let content = vec![7; 3 * CHUNK_BYTES + 5];
        let mut seen = 0;
        let read = digest_of(&mut &content[..], &mut |bytes| seen += bytes).unwrap();
        assert_eq!(read, (Digest::of(&content), content.len() as u64));
        assert_eq!(seen, content.len() as u64);
    }
}

//! SHA-256 digests: the only name a blob, a manifest or a bundle has.
//!
//! SHA-256 rather than something faster because Remote Execution engines speak it (docs/decisions), and because a
//! digest here is a promise about content, also against a hostile peer. Invariant: a [`Digest`] is always 32 bytes and
//! prints as 64 lower-case hexadecimal digits.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of some content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the first eight bytes as a number, which orders digests as the bytes do.
    fn head(&self) -> u64 {
        let (head, _) = self.0.split_first_chunk().expect("a digest has 32 bytes");
        u64::from_be_bytes(*head)
    }
}

impl Ord for Digest {
    // The order of the bytes. Digests that differ do so in the first eight of them as good as always, and comparing
    // numbers needs no call: the scheduler does it some dozen times for each grant.
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Text or bytes that are not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text is not 64 hexadecimal digits.
    #[error("`{0}` is not a SHA-256 digest (64 hexadecimal digits)")]
    Text(String),
    /// The byte string is not 32 bytes long.
    #[error("a SHA-256 digest has 32 bytes, not {0}")]
    Length(usize),
}

impl Digest {
    /// Computes the digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes exactly 32 bytes, as they come off the wire.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DigestError> {
        bytes.try_into().map(Self).map_err(|_| DigestError::Length(bytes.len()))
    }

    /// Returns the first twelve hexadecimal digits: enough for a person to tell two toolchains apart.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError::Text(text.chars().take(80).collect());
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// Computes a digest piece by piece.
#[derive(Default, Clone)]
pub struct Hasher {
    state: Sha256,
    length: u64,
}

impl Hasher {
    /// Adds the next piece of content.
    pub fn update(&mut self, piece: &[u8]) {
        self.state.update(piece);
        self.length += piece.len() as u64;
    }

    /// Returns how many bytes went in so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Ends the computation.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        self.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vector_prints_and_parses() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), text);
        assert_eq!(text.parse::<Digest>(), Ok(Digest::of(b"abc")));
    }

    #[test]
    fn order_is_that_of_the_bytes() {
        let digests: Vec<Digest> = (0..200u32)
            .flat_map(|number| {
                let digest = Digest::of(&number.to_le_bytes());
                let mut tail = *digest.as_bytes();
                tail[31] ^= 0x80;
                [digest, Digest::from(tail)]
            })
            .collect();
        for one in &digests {
            for other in &digests {
                assert_eq!(one.cmp(other), one.as_bytes().cmp(other.as_bytes()));
            }
        }
    }

    #[test]
    fn pieces_equal_the_whole() {
        let mut hasher = Hasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.length(), 3);
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["", "ba78", &"g".repeat(64), &"é".repeat(32)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert_eq!(Digest::from_slice(b"short"), Err(DigestError::Length(5)));
    }
}

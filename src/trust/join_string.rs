//! The string that lets a machine join a farm: a secret that the coordinator knows, and the mark of the farm's authority.
//!
//! The secret proves to the coordinator that somebody with the right has let this machine in; the mark proves to the
//! machine that it talks to that farm's coordinator, before it says the secret. Pure. Invariant: a string of another
//! length or alphabet is refused as a whole, so that a cut one never costs a try.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// Random bytes of a secret: nobody guesses 96 bits, and a wrong guess is answered late.
pub const SECRET_BYTES: usize = 12;
/// Bytes of the authority's digest: to forge an authority with the same 128 bits takes 2^128 tries.
const MARK_BYTES: usize = 16;

/// The first half of the digest of an authority's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark([u8; MARK_BYTES]);

impl Mark {
    /// Makes the mark of a certificate, in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let digest = Digest::of(certificate);
        let (mark, _) = digest.as_bytes().split_first_chunk().expect("a digest is longer");
        Self(*mark)
    }
}

/// A join string, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinString {
    /// Shown to the coordinator, once.
    pub secret: [u8; SECRET_BYTES],
    /// Of the farm's authority.
    pub mark: Mark,
}

impl fmt::Debug for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinString(…)")
    }
}

/// Text that is no join string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no join string, or not all of it: they look like `rdcc-` with {} digits, a dash, and {} digits behind it",
    2 * SECRET_BYTES, 2 * MARK_BYTES)]
pub struct JoinStringError;

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let plain = text.len() == 2 * N && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut out = [0; N];
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2).filter(|_| plain)?, 16).ok()?;
    }
    Some(out)
}

impl fmt::Display for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rdcc-{}-{}", digits(&self.secret), digits(&self.mark.0))
    }
}

impl FromStr for JoinString {
    type Err = JoinStringError;

    fn from_str(text: &str) -> Result<Self, JoinStringError> {
        let taken = || {
            let (secret, mark) = text.trim().strip_prefix("rdcc-")?.split_once('-')?;
            Some(Self {
                secret: bytes(secret)?,
                mark: Mark(bytes(mark)?),
            })
        };
        taken().ok_or(JoinStringError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_whole_strings_only() {
        let string = JoinString {
            secret: *b"abcdefghijk\xff",
            mark: Mark::of(b"certificate"),
        };
        let text = string.to_string();
        assert_eq!(text.parse(), Ok(string.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(string));
        for at in 0..text.len() {
            assert_eq!(text[..at].parse::<JoinString>(), Err(JoinStringError));
        }
        assert!(text.to_uppercase().parse::<JoinString>().is_err());
        assert!("rdcc-é".parse::<JoinString>().is_err());
    }
}

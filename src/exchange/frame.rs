//! The envelope of a message: who speaks, in which format, and how long the message is.
//!
//! The header is the one thing that never changes between versions of rdcc, so that programs of different age can at
//! least tell each other so. Invariant: 16 bytes, little-endian: magic, format, version (three numbers), length.

use super::codec::Malformed;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// Longest message, bytes. Diagnostics are the longest part; workers cap them far below.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// How messages are encoded; raised with every change in `codec.rs` or in what it encodes.
pub const FORMAT: u16 = 4;

const MAGIC: [u8; 4] = *b"rdcc";

/// A version of rdcc, as in `0.1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

impl Version {
    /// The version of this program.
    pub const OURS: Version = Version(
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    );
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

const fn number(digits: &str) -> u16 {
    match u16::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("a package version is made of small numbers"),
    }
}

/// What stands before every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender's [`FORMAT`].
    pub format: u16,
    /// The sender's version.
    pub version: Version,
    /// Bytes of message that follow.
    pub length: u32,
}

impl Header {
    /// Makes our header for a message of `length` bytes.
    pub fn ours(length: usize) -> Result<Self, Malformed> {
        if length > MESSAGE_BYTES_MAX {
            return Err(Malformed::TooLong(length));
        }
        Ok(Self {
            format: FORMAT,
            version: Version::OURS,
            // Bounded above.
            length: length as u32,
        })
    }

    /// Encodes it.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        let version = self.version;
        for (place, number) in [self.format, version.0, version.1, version.2].into_iter().enumerate() {
            bytes[4 + 2 * place..][..2].copy_from_slice(&number.to_le_bytes());
        }
        bytes[12..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// Decodes one. A peer of another format is no error here.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        if bytes[..4] != MAGIC {
            return Err(Malformed::Magic);
        }
        let number = |place: usize| u16::from_le_bytes([bytes[place], bytes[place + 1]]);
        let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        if length as usize > MESSAGE_BYTES_MAX {
            return Err(Malformed::TooLong(length as usize));
        }
        Ok(Self {
            format: number(4),
            version: Version(number(6), number(8), number(10)),
            length,
        })
    }
}

/// What follows when a request reaches an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// Both understand each other.
    Serve,
    /// The caller is newer: the agent ends and makes room for one of the caller's age.
    MakeRoom,
    /// The caller is older and speaks a format that is no longer known; it sees that from the reply's header.
    CallerTooOld,
}

/// Decides what an agent of this build does with a request that came under `header`.
///
/// Only the older one ever gives way, or two builds in use side by side would end each other's agents all day.
pub fn meet(header: &Header) -> Meeting {
    if header.version > Version::OURS || header.version == Version::OURS && header.format > FORMAT {
        Meeting::MakeRoom
    } else if header.format == FORMAT {
        Meeting::Serve
    } else {
        Meeting::CallerTooOld
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_comes_back_and_its_layout_is_frozen() {
        let header = Header {
            format: 1,
            version: Version(0, 1, 2),
            length: 0x0102_0304 & 0x00ff_ffff,
        };
        let bytes = header.encode();
        assert_eq!(bytes, *b"rdcc\x01\0\0\0\x01\0\x02\0\x04\x03\x02\0");
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn strangers_and_absurd_lengths_are_refused() {
        assert_eq!(Header::decode(b"GET / HTTP/1.1\r\n"), Err(Malformed::Magic));
        let mut bytes = Header::ours(0).expect("short").encode();
        bytes[15] = 0xff;
        assert!(matches!(Header::decode(&bytes), Err(Malformed::TooLong(_))));
        assert!(Header::ours(MESSAGE_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn our_version_is_the_package_version() {
        assert_eq!(Version::OURS.to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_older_side_gives_way() {
        let Version(major, minor, patch) = Version::OURS;
        let meet = |format, version| {
            super::meet(&Header {
                format,
                version,
                length: 0,
            })
        };
        assert_eq!(meet(FORMAT, Version::OURS), Meeting::Serve);
        assert_eq!(meet(FORMAT, Version(major, minor, patch + 1)), Meeting::MakeRoom);
        assert_eq!(meet(FORMAT + 1, Version::OURS), Meeting::MakeRoom);
        assert_eq!(meet(FORMAT - 1, Version::OURS), Meeting::CallerTooOld);
        assert_eq!(meet(FORMAT, Version(0, 0, 0)), Meeting::Serve);
    }
}

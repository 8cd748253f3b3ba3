//! What `lstat` says about a file, reduced to what changes when the file does.
//!
//! An unchanged stamp stands for unchanged content, as make and git have it; a changed one only means "look again".
//! Device numbers are left out, since they may differ after a reboot.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

/// One file's stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of the inode, nanoseconds since 1970. Also moves when a hard link is made or removed.
    pub ctime_ns: i64,
}

impl Stamp {
    /// Takes the stamp of what stands at `path`, a link itself and not its target.
    pub fn of(path: &Path) -> io::Result<Self> {
        path.symlink_metadata().map(|metadata| Self::from(&metadata))
    }
}

/// Says which file a path leads to, links followed, whatever it is called: device and inode.
pub fn file_id(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        // Seconds as i64 times 10⁹ last until the year 2262.
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            inode,
            size,
            mode,
            mtime_ns,
            ctime_ns,
        } = self;
        write!(f, "{inode}:{size}:{mode:o}:{mtime_ns}:{ctime_ns}")
    }
}

/// Text that is not a stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a stamp")]
pub struct StampError;

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        let fields: Vec<&str> = text.split(':').collect();
        let [inode, size, mode, mtime, ctime] = fields[..] else {
            return Err(StampError);
        };
        Ok(Self {
            inode: inode.parse().map_err(|_| StampError)?,
            size: size.parse().map_err(|_| StampError)?,
            mode: u32::from_str_radix(mode, 8).map_err(|_| StampError)?,
            mtime_ns: mtime.parse().map_err(|_| StampError)?,
            ctime_ns: ctime.parse().map_err(|_| StampError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let stamp = Stamp::of(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for text in ["", "1:2:3", "1:2:9:4:5", "1:2:3:4:5:6"] {
            assert_eq!(text.parse::<Stamp>(), Err(StampError), "{text}");
        }
    }
}

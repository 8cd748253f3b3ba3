//! Compressed archives: tar within zstd, written so that equal content gives equal bytes, and read without trust.
//!
//! The writer leaves out owners, times and everything else that differs between machines. The reader accepts files,
//! directories and symbolic links, names them by clean relative paths, and refuses the rest with the reason; it
//! never touches the file system, so what becomes of a member is up to its caller. Every length it believes is bounded.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

mod reader;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use reader::as_archive_error;
pub use reader::{ArchiveReader, Limits};

/// The unit that tar counts in.
const BLOCK_BYTES: usize = 512;
/// Longest name that fits a header without an extension.
const SHORT_NAME_BYTES: usize = 100;
/// Ceiling on extended names and attributes: `PATH_MAX` and some room.
const EXTENSION_BYTES_MAX: u64 = 16 << 10;
/// Window that a decoder allocates at most, as a power of two: 16 MiB. The writer's levels stay at or below 8 MiB.
const WINDOW_LOG_MAX: u32 = 24;

/// One thing in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Relative, not empty, without `.` and `..`.
    pub path: PathBuf,
    /// What it is.
    pub kind: MemberKind,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file, whose content follows.
    File {
        /// Permission bits, none of them setuid, setgid or sticky.
        mode: u32,
        /// Length in bytes.
        size: u64,
    },
    /// A symbolic link with its target as written: it may be absolute or lead outside, and is never followed here.
    Symlink {
        /// Not empty.
        target: OsString,
    },
    /// A directory.
    Directory {
        /// Permission bits, none of them setuid, setgid or sticky.
        mode: u32,
    },
}

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive ends in the middle.
    #[error("the archive is truncated")]
    Truncated,
    /// It is not an archive, or a damaged one.
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    /// A name that leads, or may lead, outside.
    #[error("the archive holds `{}`, which {problem}", .path.display())]
    Path {
        /// The name, shortened.
        path: PathBuf,
        /// Such as "is absolute".
        problem: &'static str,
    },
    /// A member of a kind that has no place here.
    #[error("the archive holds {kind}, `{}`", .path.display())]
    Kind {
        /// The name.
        path: PathBuf,
        /// Such as "a device".
        kind: &'static str,
    },
    /// One of the caller's ceilings.
    #[error("the archive holds more than {max} {what}")]
    TooMuch {
        /// "members" or "bytes".
        what: &'static str,
        /// The ceiling.
        max: u64,
    },
    /// The stream below failed.
    #[error("cannot read or write the archive")]
    Io(#[from] io::Error),
}

/// How an archive is compressed. Part of what its digest depends on; the number of threads is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Threads that compress, at least 1.
    pub threads: u32,
}

/// Writes an archive, member by member.
pub struct ArchiveWriter<W: Write> {
    out: zstd::stream::write::Encoder<'static, W>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Starts an archive that is written to `out`.
    ///
    /// zstd with worker threads cuts its input at places that depend on the level only, so one worker and eight give
    /// the same bytes; without workers it would give others, hence at least one.
    pub fn new(out: W, compression: Compression) -> Result<Self, ArchiveError> {
        let mut out = zstd::stream::write::Encoder::new(out, compression.level)?;
        out.multithread(compression.threads.max(1))?;
        Ok(Self { out })
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &Path, mode: u32) -> Result<(), ArchiveError> {
        self.header(EntryType::Directory, path, b"", mode, 0)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &OsString) -> Result<(), ArchiveError> {
        self.header(EntryType::Symlink, path, target.as_bytes(), 0o777, 0)
    }

    /// Adds a file of `size` bytes, which `content` has to give exactly.
    pub fn file(&mut self, path: &Path, mode: u32, size: u64, content: &mut impl Read) -> Result<(), ArchiveError> {
        self.header(EntryType::Regular, path, b"", mode, size)?;
        let mut buffer = vec![0; crate::store::content::CHUNK_BYTES];
        let mut left = size;
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = content.read(&mut buffer[..wanted])?;
            if count == 0 {
                return Err(ArchiveError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            self.out.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        self.padding(size)
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES])?;
        Ok(self.out.finish()?)
    }

    fn header(
        &mut self,
        kind: EntryType,
        path: &Path,
        target: &[u8],
        mode: u32,
        size: u64,
    ) -> Result<(), ArchiveError> {
        let path = path.as_os_str().as_bytes();
        if path.len() > SHORT_NAME_BYTES {
            self.long_name(EntryType::GNULongName, path)?;
        }
        if target.len() > SHORT_NAME_BYTES {
            self.long_name(EntryType::GNULongLink, target)?;
        }
        let mut header = plain_header(kind, size);
        header.set_mode(mode);
        let old = header.as_old_mut();
        fill(&mut old.name, path);
        fill(&mut old.linkname, target);
        header.set_cksum();
        Ok(self.out.write_all(header.as_bytes())?)
    }

    fn long_name(&mut self, kind: EntryType, name: &[u8]) -> Result<(), ArchiveError> {
        // The name is followed by a zero, which counts.
        let size = name.len() as u64 + 1;
        let mut header = plain_header(kind, size);
        header.set_mode(0o644);
        fill(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name)?;
        self.out.write_all(&[0])?;
        self.padding(size)
    }

    fn padding(&mut self, size: u64) -> Result<(), ArchiveError> {
        Ok(self.out.write_all(&[0; BLOCK_BYTES][..padding_after(size)])?)
    }
}

fn plain_header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn fill(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Returns how many bytes follow content of `size` bytes up to the next whole block.
fn padding_after(size: u64) -> usize {
    let block = BLOCK_BYTES as u64;
    ((block - size % block) % block) as usize
}

//! Reading an archive that may come from anybody.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::{ArchiveError, BLOCK_BYTES, EXTENSION_BYTES_MAX, Member, MemberKind, WINDOW_LOG_MAX, padding_after};

/// Ceilings that an archive's reader knows better than the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members, of any kind.
    pub members_max: u64,
    /// Content of all files together, bytes.
    pub content_bytes_max: u64,
}

/// Empty blocks tolerated after the end mark: GNU tar fills up to 10 KiB, others to more.
const TRAILING_BYTES_MAX: u64 = 64 << 10;

/// Reads an archive, member by member.
pub struct ArchiveReader<R: Read> {
    source: Unpacked<R>,
    limits: Limits,
    members: u64,
    content_bytes: u64,
    /// Content of the current file that has not been read yet.
    content_left: u64,
    padding_left: usize,
    ended: bool,
}

type Unpacked<R> = zstd::stream::read::Decoder<'static, BufReader<R>>;

/// Names and sizes from the extension headers before a member.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> ArchiveReader<R> {
    /// Starts reading `source`, which is compressed.
    pub fn new(source: R, limits: Limits) -> Result<Self, ArchiveError> {
        let mut source = zstd::stream::read::Decoder::new(source)?;
        source.window_log_max(WINDOW_LOG_MAX)?;
        Ok(Self {
            source,
            limits,
            members: 0,
            content_bytes: 0,
            content_left: 0,
            padding_left: 0,
            ended: false,
        })
    }

    /// Returns the next member, or `None` at the end of the archive. Content that was not read is passed over.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        io::copy(&mut *self, &mut io::sink()).map_err(as_archive_error)?;
        self.skip_padding()?;
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else {
                self.end()?;
                return Ok(None);
            };
            let size = header
                .entry_size()
                .map_err(|_| ArchiveError::Damaged("a size that is no number"))?;
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => extended.path = Some(self.name(size)?),
                EntryType::GNULongLink => extended.target = Some(self.name(size)?),
                EntryType::XHeader => self.attributes(size, &mut extended)?,
                _ => {
                    let size = extended.size.take().unwrap_or(size);
                    return self.member(&header, kind, size, extended).map(Some);
                }
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extended: Extended,
    ) -> Result<Member, ArchiveError> {
        self.members += 1;
        if self.members > self.limits.members_max {
            return Err(ArchiveError::TooMuch {
                what: "members",
                max: self.limits.members_max,
            });
        }
        let name = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = clean_path(name, kind)?;
        let refused = |kind| ArchiveError::Kind {
            path: path.clone(),
            kind,
        };
        let mode = header
            .mode()
            .map_err(|_| ArchiveError::Damaged("a mode that is no number"))?;
        let kind = match kind {
            EntryType::Regular => {
                self.content_bytes = self.content_bytes.saturating_add(size);
                if self.content_bytes > self.limits.content_bytes_max {
                    return Err(ArchiveError::TooMuch {
                        what: "bytes",
                        max: self.limits.content_bytes_max,
                    });
                }
                self.content_left = size;
                self.padding_left = padding_after(size);
                MemberKind::File { mode, size }
            }
            EntryType::Directory => MemberKind::Directory { mode },
            EntryType::Symlink => {
                let short = || header.link_name_bytes().map(|name| name.into_owned());
                let target = extended.target.or_else(short).unwrap_or_default();
                if target.is_empty() || target.contains(&0) {
                    return Err(ArchiveError::Path {
                        path,
                        problem: "is a link to nowhere",
                    });
                }
                MemberKind::Symlink {
                    target: OsString::from_vec(target),
                }
            }
            EntryType::Link => return Err(refused("a hard link")),
            EntryType::Char | EntryType::Block => return Err(refused("a device")),
            EntryType::Fifo => return Err(refused("a pipe")),
            _ => return Err(refused("a member of unknown kind")),
        };
        match kind {
            MemberKind::File { mode, .. } | MemberKind::Directory { mode } if mode & !0o777 != 0 => {
                Err(refused("a setuid, setgid or sticky member"))
            }
            MemberKind::Directory { .. } | MemberKind::Symlink { .. } if size != 0 => {
                Err(ArchiveError::Damaged("content of something that has none"))
            }
            kind => Ok(Member { path, kind }),
        }
    }

    /// Reads a header. `None` for the first block of the end mark.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        self.fill(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum is taken with its own field as spaces.
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        if header.cksum().ok() != Some(expected) {
            return Err(ArchiveError::Damaged("a header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    /// Reads the rest after the first block of the end mark, which has to be empty.
    fn end(&mut self) -> Result<(), ArchiveError> {
        let mut block = [0; BLOCK_BYTES];
        self.fill(&mut block)?;
        let mut seen = 0;
        let mut count = BLOCK_BYTES;
        while count > 0 {
            if block[..count].iter().any(|byte| *byte != 0) {
                return Err(ArchiveError::Damaged("something after its end"));
            }
            seen += count as u64;
            if seen > TRAILING_BYTES_MAX {
                return Err(ArchiveError::Damaged("too much after its end"));
            }
            count = self.source.read(&mut block).map_err(as_archive_error)?;
        }
        self.ended = true;
        Ok(())
    }

    /// Reads a long name, which ends with a zero.
    fn name(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.extension(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// Reads pax attributes: lines of `LENGTH KEY=VALUE`. Only those that matter here are looked at.
    fn attributes(&mut self, size: u64, extended: &mut Extended) -> Result<(), ArchiveError> {
        const WRONG: ArchiveError = ArchiveError::Damaged("extended attributes that cannot be read");
        let text = self.extension(size)?;
        let mut rest = &text[..];
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or(WRONG)?;
            let length: usize = std::str::from_utf8(&rest[..space])
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or(WRONG)?;
            let (record, after) = rest.split_at_checked(length).ok_or(WRONG)?;
            rest = after;
            let record = record.get(space + 1..).ok_or(WRONG)?;
            let record = record.strip_suffix(b"\n").ok_or(WRONG)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(WRONG)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => extended.path = Some(value.to_vec()),
                b"linkpath" => extended.target = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                    extended.size = Some(size.ok_or(WRONG)?);
                }
                _ if key.starts_with(b"GNU.sparse") => {
                    return Err(ArchiveError::Damaged("a sparse file, which is not supported"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(ArchiveError::Damaged("a name beyond all bounds"));
        }
        let mut content = vec![0; size as usize];
        self.fill(&mut content)?;
        self.padding_left = padding_after(size);
        self.skip_padding()?;
        Ok(content)
    }

    fn skip_padding(&mut self) -> Result<(), ArchiveError> {
        let mut block = [0; BLOCK_BYTES];
        let length = std::mem::take(&mut self.padding_left);
        self.fill(&mut block[..length])
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        self.source.read_exact(buffer).map_err(as_archive_error)
    }
}

/// Reads the content of the current file, up to its end.
impl<R: Read> Read for ArchiveReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.content_left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content_left -= count as u64;
        Ok(count)
    }
}

/// zstd reports damage as an error of kind `Other`; what comes from the source below keeps its own kind.
pub(crate) fn as_archive_error(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
        io::ErrorKind::Other => ArchiveError::Damaged("not what zstd writes"),
        _ => ArchiveError::Io(error),
    }
}

fn clean_path(mut name: Vec<u8>, kind: EntryType) -> Result<PathBuf, ArchiveError> {
    if kind == EntryType::Directory && name.last() == Some(&b'/') {
        name.pop();
    }
    let wrong = |problem| {
        let shown = OsStr::from_bytes(&name[..name.len().min(200)]);
        Err(ArchiveError::Path {
            path: shown.into(),
            problem,
        })
    };
    if name.starts_with(b"/") {
        return wrong("is absolute");
    }
    if name.len() as u64 > EXTENSION_BYTES_MAX || name.contains(&0) {
        return wrong("is no path");
    }
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b".." => return wrong("climbs out with `..`"),
            b"" | b"." => return wrong("is not in its shortest form"),
            _ => {}
        }
    }
    Ok(PathBuf::from(OsString::from_vec(name)))
}

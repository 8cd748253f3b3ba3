//! What an ELF file needs in order to be started: its loader, its libraries, where it wants them looked for.
//!
//! Reads only the headers and the dynamic section, of either class and byte order, and executes nothing (so no `ldd`).
//! Every offset in the file is checked: a damaged or hostile file gives an [`ElfError`], never a panic or a
//! large allocation. Which file a library's name means is decided in `capture::libraries`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

#[cfg(test)]
pub(crate) mod tests;

const MAGIC: &[u8; 4] = b"\x7fELF";
const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Ceiling on a string in the file: `PATH_MAX`, with room for a long list of directories.
const STRING_BYTES_MAX: usize = 16 << 10;
/// Ceiling on dynamic entries; LLVM's libraries have about 40.
const DYNAMIC_MAX: u64 = 4096;

/// What kind of machine code a file holds. Two files can be loaded together only if these are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Machine {
    /// 32 or 64.
    pub bits: u8,
    /// `EI_DATA`: 1 little endian, 2 big endian.
    pub byte_order: u8,
    /// `e_machine`, such as 40 for ARM, 62 for x86-64.
    pub number: u16,
}

/// The part of an ELF file that matters for starting it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// What it is made for.
    pub machine: Machine,
    /// The dynamic loader of an executable; none in a static program or a library.
    pub interpreter: Option<OsString>,
    /// Libraries, in order.
    pub needed: Vec<OsString>,
    /// `DT_RPATH`, directories separated by colons.
    pub rpath: Option<OsString>,
    /// `DT_RUNPATH`, directories separated by colons.
    pub runpath: Option<OsString>,
}

/// Why a file that starts like ELF cannot be read as such.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// A field that no such file has.
    #[error("damaged ELF file: {0}")]
    Damaged(&'static str),
    /// The file could not be read.
    #[error("cannot read")]
    Io(#[from] io::Error),
}

/// Something that can be read at any offset.
pub trait ReadAt {
    /// Fills `buffer` from `offset` on, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(buffer.len()));
        match start.zip(end).and_then(|(start, end)| self.get(start..end)) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}

impl Elf {
    /// Reads the headers of `file`. `None` when it is no ELF file at all.
    pub fn read(file: &(impl ReadAt + ?Sized)) -> Result<Option<Elf>, ElfError> {
        let mut ident = [0; 16];
        match file.read_exact_at(&mut ident, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if !ident.starts_with(MAGIC) {
            return Ok(None);
        }
        let wide = match ident[4] {
            1 => false,
            2 => true,
            _ => return Err(ElfError::Damaged("neither 32 nor 64 bits")),
        };
        if !matches!(ident[5], 1 | 2) {
            return Err(ElfError::Damaged("unknown byte order"));
        }
        let reader = Reader {
            file,
            wide,
            big_endian: ident[5] == 2,
        };
        reader.elf(ident[5]).map(Some)
    }
}

struct Reader<'a, F: ?Sized> {
    file: &'a F,
    wide: bool,
    big_endian: bool,
}

/// One program header, reduced.
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    file_size: u64,
}

impl<F: ReadAt + ?Sized> Reader<'_, F> {
    fn elf(&self, byte_order: u8) -> Result<Elf, ElfError> {
        let machine = Machine {
            bits: if self.wide { 64 } else { 32 },
            byte_order,
            number: self.number(18, 2)? as u16,
        };
        let segments = self.segments()?;
        let mut elf = Elf {
            machine,
            interpreter: None,
            needed: Vec::new(),
            rpath: None,
            runpath: None,
        };
        if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
            elf.interpreter = Some(self.string(segment.offset)?);
        }
        if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) {
            self.dynamic(&mut elf, segment, &segments)?;
        }
        Ok(elf)
    }

    fn segments(&self) -> Result<Vec<Segment>, ElfError> {
        let (table_at, size_at) = if self.wide { (32, 54) } else { (28, 42) };
        let table = self.word(table_at)?;
        let size = self.number(size_at, 2)?;
        // At most 65535, so the list stays small whatever the file says.
        let count = self.number(size_at + 2, 2)?;
        let smallest = if self.wide { 56 } else { 32 };
        if count > 0 && size < smallest {
            return Err(ElfError::Damaged("program headers too small"));
        }
        let mut segments = Vec::new();
        for index in 0..count {
            let at = table
                .checked_add(index * size)
                .ok_or(ElfError::Damaged("program headers out of range"))?;
            let kind = self.number(at, 4)?;
            if !matches!(kind, PT_LOAD | PT_DYNAMIC | PT_INTERP) {
                continue;
            }
            let (offset, address, file_size) = if self.wide { (8, 16, 32) } else { (4, 8, 16) };
            segments.push(Segment {
                kind,
                offset: self.word(at + offset)?,
                address: self.word(at + address)?,
                file_size: self.word(at + file_size)?,
            });
        }
        Ok(segments)
    }

    fn dynamic(&self, elf: &mut Elf, segment: &Segment, segments: &[Segment]) -> Result<(), ElfError> {
        let step = if self.wide { 16 } else { 8 };
        let mut strings = None;
        let mut wanted = Vec::new();
        for index in 0..(segment.file_size / step).min(DYNAMIC_MAX) {
            let at = segment
                .offset
                .checked_add(index * step)
                .ok_or(ElfError::Damaged("dynamic section out of range"))?;
            let (tag, value) = (self.word(at)?, self.word(at + step / 2)?);
            match tag {
                DT_NULL => break,
                DT_STRTAB => strings = Some(value),
                DT_NEEDED | DT_RPATH | DT_RUNPATH => wanted.push((tag, value)),
                _ => {}
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let strings = strings.ok_or(ElfError::Damaged("dynamic section without strings"))?;
        let strings = segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD)
            .find_map(|load| {
                let inside = strings.checked_sub(load.address)?;
                (inside < load.file_size).then(|| load.offset.checked_add(inside))?
            })
            .ok_or(ElfError::Damaged("dynamic strings out of range"))?;
        for (tag, value) in wanted {
            let at = strings
                .checked_add(value)
                .ok_or(ElfError::Damaged("dynamic string out of range"))?;
            let text = self.string(at)?;
            match tag {
                DT_NEEDED => elf.needed.push(text),
                DT_RPATH => elf.rpath = Some(text),
                _ => elf.runpath = Some(text),
            }
        }
        Ok(())
    }

    /// Reads an address or an offset: 4 or 8 bytes.
    fn word(&self, at: u64) -> Result<u64, ElfError> {
        self.number(at, if self.wide { 8 } else { 4 })
    }

    fn number(&self, at: u64, bytes: usize) -> Result<u64, ElfError> {
        let mut buffer = [0; 8];
        let buffer = &mut buffer[..bytes];
        self.read(buffer, at)?;
        if self.big_endian {
            buffer.reverse();
        }
        Ok(buffer.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn string(&self, at: u64) -> Result<OsString, ElfError> {
        // Short steps, because the string table may end right after the string.
        let mut text = Vec::new();
        let mut at = at;
        while text.len() < STRING_BYTES_MAX {
            let mut byte = [0];
            self.read(&mut byte, at)?;
            if byte[0] == 0 {
                return Ok(OsString::from_vec(text));
            }
            text.push(byte[0]);
            at = at.saturating_add(1);
        }
        Err(ElfError::Damaged("a string without an end"))
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), ElfError> {
        match self.file.read_exact_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ElfError::Damaged("a header points beyond its end"))
            }
            other => Ok(other?),
        }
    }
}

//! Closures written down in little space: which files, by path and content, and which absences each of them rests on.
//!
//! Thousands of closures share most of what they name, so every name stands once in a table and a closure is a list of
//! positions, about three kilobytes for a unit of the kernel. A closure holds for contents, not for versions of files: one
//! that was touched, or checked out anew with the same content, is the same. Only where the scan compared times
//! (`#pragma once` and files of equal content) do times belong to it. Pure. Invariant: what a book of the same bytes says is
//! what was learnt; a damaged one is refused as a whole, and positions are never trusted.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexSet;

use crate::digest::Digest;
use crate::includes::closure::Closure;
use crate::includes::source_tree::{Link, SourceFile};
use crate::store::packed::{Packer, Unpacker};

mod record;
#[cfg(test)]
mod tests;

pub use record::Record;
use record::{Ends, position};

/// A file by where it stands and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileRow {
    /// Position of its directory.
    pub directory: u32,
    /// Its name there.
    pub name: Arc<[u8]>,
    /// Its content.
    pub digest: Digest,
}

/// A line of the compiler's list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListedRow {
    /// Position of the file.
    pub file: u32,
    /// As [`crate::includes::closure::Listed::spelling`].
    pub spelling: Arc<[u8]>,
    /// Whether it is a system header.
    pub system: bool,
}

/// A name that is looked for in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameRow {
    /// Position of the directory.
    pub directory: u32,
    /// The name.
    pub name: Arc<[u8]>,
}

/// All closures.
#[derive(Debug, Default)]
pub struct Book {
    /// Directories: absolute, free of links.
    pub directories: IndexSet<Arc<Path>>,
    /// Files.
    pub files: IndexSet<FileRow>,
    /// Lines of lists.
    pub listed: IndexSet<ListedRow>,
    /// Names.
    pub names: IndexSet<NameRow>,
    /// Links.
    pub links: IndexSet<Arc<Link>>,
    records: HashMap<Digest, Kept>,
    /// About what everything takes in memory.
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    packed: Box<[u8]>,
    used: u64,
}

/// What a row takes besides its bytes, about: the row, its position, its place in the hash table, an allocation.
const ROW_BYTES: usize = 96;

impl Book {
    /// Returns about how much memory the book takes, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes a closure down. The content of all of its files is known, else it is left out.
    pub fn learn(&mut self, key: Digest, closure: &Closure) -> Option<()> {
        let mut record = Record {
            facts: closure.facts,
            ..Record::default()
        };
        for listed in &closure.listed {
            let row = ListedRow {
                file: self.file(&listed.file)?,
                spelling: listed.spelling.clone(),
                system: listed.system,
            };
            record.listed.push(self.listed_row(row));
        }
        for (files, positions) in [
            (&closure.consulted, &mut record.consulted),
            (&closure.assembled, &mut record.assembled),
        ] {
            for file in files {
                positions.push(self.file(file)?);
            }
        }
        for file in twins(closure)? {
            record.times.push((self.file(file)?, file.fingerprint.mtime_ns));
        }
        record.links = closure.links.iter().map(|link| self.link(link)).collect();
        let directories = closure.directories.iter();
        record.directories = directories.map(|path| self.directory(path)).collect();
        let absent = closure.absent_directories.iter();
        record.absent_directories = absent.map(|path| self.directory(path)).collect();
        for absent in &closure.absent {
            let directory = self.directory(&absent.directory.route.path);
            for (names, positions) in [
                (&absent.names, &mut record.absent),
                (&absent.passed, &mut record.passed),
            ] {
                for name in names {
                    let name = closure.symbols.with(*name, |name| Arc::from(name));
                    positions.push(self.name(NameRow { directory, name }));
                }
            }
        }
        for positions in [&mut record.absent, &mut record.passed] {
            positions.sort_unstable();
            positions.dedup();
        }
        self.keep(key, &record);
        Some(())
    }

    fn keep(&mut self, key: Digest, record: &Record) {
        self.clock += 1;
        let packed: Box<[u8]> = record.pack().into();
        self.bytes += packed.len() + ROW_BYTES;
        let used = self.clock;
        if let Some(before) = self.records.insert(key, Kept { packed, used }) {
            self.bytes -= before.packed.len() + ROW_BYTES;
        }
    }

    /// Returns a closure.
    pub fn recall(&mut self, key: &Digest) -> Option<Record> {
        self.clock += 1;
        let ends = self.ends();
        let kept = self.records.get_mut(key)?;
        kept.used = self.clock;
        Record::unpack(&mut Unpacker::new(&kept.packed), &ends)
    }

    /// Forgets the least recently used closures, and the rows that then nobody names, down to about `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let mut by_age: Vec<(u64, Digest)> = self.records.iter().map(|(key, kept)| (kept.used, *key)).collect();
        by_age.sort_unstable();
        let mut kept = Self::default();
        while kept.bytes < bytes
            && let Some((_, key)) = by_age.pop()
            && let Some(record) = self.recall(&key)
        {
            let record = kept.copy(self, &record);
            kept.keep(key, &record);
        }
        *self = kept;
    }

    /// Translates a record of `other` into positions of this book.
    fn copy(&mut self, other: &Self, record: &Record) -> Record {
        let mut copied = Record {
            facts: record.facts,
            ..Record::default()
        };
        for at in &record.listed {
            let row = &other.listed[*at as usize];
            let file = self.copy_file(other, row.file);
            copied.listed.push(self.listed_row(ListedRow { file, ..row.clone() }));
        }
        let files = |book: &mut Self, positions: &[u32]| -> Vec<u32> {
            positions.iter().map(|at| book.copy_file(other, *at)).collect()
        };
        copied.consulted = files(self, &record.consulted);
        copied.assembled = files(self, &record.assembled);
        for (file, time) in &record.times {
            copied.times.push((self.copy_file(other, *file), *time));
        }
        for at in &record.links {
            copied.links.push(self.link(&other.links[*at as usize]));
        }
        let directories = |book: &mut Self, positions: &[u32]| -> Vec<u32> {
            let paths = positions.iter().map(|at| &other.directories[*at as usize]);
            paths.map(|path| book.directory(path)).collect()
        };
        copied.directories = directories(self, &record.directories);
        copied.absent_directories = directories(self, &record.absent_directories);
        let names = |book: &mut Self, positions: &[u32]| -> Vec<u32> {
            let copy = |at: &u32| {
                let row = &other.names[*at as usize];
                let directory = book.directory(&other.directories[row.directory as usize]);
                book.name(NameRow {
                    directory,
                    ..row.clone()
                })
            };
            positions.iter().map(copy).collect()
        };
        copied.absent = names(self, &record.absent);
        copied.passed = names(self, &record.passed);
        copied
    }

    fn copy_file(&mut self, other: &Self, at: u32) -> u32 {
        let row = &other.files[at as usize];
        let directory = self.directory(&other.directories[row.directory as usize]);
        self.file_row(FileRow {
            directory,
            ..row.clone()
        })
    }

    fn directory(&mut self, path: &Path) -> u32 {
        if let Some(at) = self.directories.get_index_of(path) {
            return at as u32;
        }
        self.bytes += ROW_BYTES + path.as_os_str().len();
        self.directories.insert_full(Arc::from(path)).0 as u32
    }

    fn file(&mut self, file: &SourceFile) -> Option<u32> {
        let path = &file.route.path;
        let name = path.file_name()?.as_bytes().into();
        let digest = file.content.get()?.digest;
        let directory = self.directory(path.parent()?);
        Some(self.file_row(FileRow {
            directory,
            name,
            digest,
        }))
    }

    fn file_row(&mut self, row: FileRow) -> u32 {
        let length = row.name.len();
        let (at, new) = self.files.insert_full(row);
        self.bytes += if new { ROW_BYTES + length } else { 0 };
        at as u32
    }

    fn listed_row(&mut self, row: ListedRow) -> u32 {
        let length = row.spelling.len();
        let (at, new) = self.listed.insert_full(row);
        self.bytes += if new { ROW_BYTES + length } else { 0 };
        at as u32
    }

    fn name(&mut self, row: NameRow) -> u32 {
        let length = row.name.len();
        let (at, new) = self.names.insert_full(row);
        self.bytes += if new { ROW_BYTES + length } else { 0 };
        at as u32
    }

    fn link(&mut self, link: &Arc<Link>) -> u32 {
        let (at, new) = self.links.insert_full(link.clone());
        let length = link.path.as_os_str().len() + link.target.len();
        self.bytes += if new { ROW_BYTES + length } else { 0 };
        at as u32
    }

    fn ends(&self) -> Ends {
        Ends {
            directories: self.directories.len(),
            files: self.files.len(),
            listed: self.listed.len(),
            names: self.names.len(),
            links: self.links.len(),
        }
    }

    /// Packs the whole book.
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = Packer::default();
        packer.number(self.directories.len() as u64);
        for path in &self.directories {
            packer.bytes(path.as_os_str().as_bytes());
        }
        packer.number(self.files.len() as u64);
        for row in &self.files {
            packer.number(row.directory.into());
            packer.bytes(&row.name);
            packer.raw(row.digest.as_bytes());
        }
        packer.number(self.listed.len() as u64);
        for row in &self.listed {
            packer.number(u64::from(row.file) << 1 | u64::from(row.system));
            packer.bytes(&row.spelling);
        }
        packer.number(self.names.len() as u64);
        for row in &self.names {
            packer.number(row.directory.into());
            packer.bytes(&row.name);
        }
        packer.number(self.links.len() as u64);
        for link in &self.links {
            packer.bytes(link.path.as_os_str().as_bytes());
            packer.bytes(link.target.as_bytes());
        }
        // Oldest first, so that the order of use comes out again.
        let mut records: Vec<(&Digest, &Kept)> = self.records.iter().collect();
        records.sort_unstable_by_key(|(_, kept)| kept.used);
        packer.number(records.len() as u64);
        for (key, kept) in records {
            packer.raw(key.as_bytes());
            packer.bytes(&kept.packed);
        }
        packer.finish()
    }

    /// Reads a packed book; `None` when it is not one.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut from = Unpacker::new(bytes);
        let mut book = Self::default();
        for _ in 0..from.count()? {
            book.directory(Path::new(OsStr::from_bytes(from.bytes()?)));
        }
        for _ in 0..from.count()? {
            let row = FileRow {
                directory: position(from.number()?, book.directories.len())?,
                name: from.bytes()?.into(),
                digest: Digest::from_slice(from.raw(size_of::<Digest>())?).ok()?,
            };
            book.file_row(row);
        }
        for _ in 0..from.count()? {
            let number = from.number()?;
            let row = ListedRow {
                file: position(number >> 1, book.files.len())?,
                system: number & 1 == 1,
                spelling: from.bytes()?.into(),
            };
            book.listed_row(row);
        }
        for _ in 0..from.count()? {
            let row = NameRow {
                directory: position(from.number()?, book.directories.len())?,
                name: from.bytes()?.into(),
            };
            book.name(row);
        }
        for _ in 0..from.count()? {
            let link = Link {
                path: PathBuf::from(OsStr::from_bytes(from.bytes()?)),
                target: std::ffi::OsString::from_vec(from.bytes()?.to_vec()),
            };
            book.link(&Arc::new(link));
        }
        let ends = book.ends();
        for _ in 0..from.count()? {
            let key = Digest::from_slice(from.raw(size_of::<Digest>())?).ok()?;
            let record = Record::unpack(&mut Unpacker::new(from.bytes()?), &ends)?;
            book.keep(key, &record);
        }
        from.is_empty().then_some(book)
    }
}

/// Returns the files that have the same content as another one of the closure: the scan may have compared their times.
fn twins(closure: &Closure) -> Option<Vec<&Arc<SourceFile>>> {
    let mut by_digest: Vec<(Digest, &Arc<SourceFile>)> = Vec::with_capacity(closure.listed.len());
    for file in closure.files() {
        by_digest.push((file.content.get()?.digest, file));
    }
    by_digest.sort_unstable_by_key(|(digest, _)| *digest);
    let same = by_digest.chunk_by(|(one, _), (other, _)| one == other);
    let twins = same.filter(|chunk| chunk.len() > 1).flatten().map(|(_, file)| *file);
    Some(twins.collect())
}

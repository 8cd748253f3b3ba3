//! One closure in a book, and how it is packed. Pure.

use crate::includes::reduced::Facts;
use crate::store::packed::{Packer, Unpacker};

/// One closure, as positions in the book's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Lines of the compiler's list, in its order.
    pub listed: Vec<u32>,
    /// Files that only have to be there.
    pub consulted: Vec<u32>,
    /// Files that the assembler reads.
    pub assembled: Vec<u32>,
    /// Links.
    pub links: Vec<u32>,
    /// Directories that must exist.
    pub directories: Vec<u32>,
    /// Directories that must not exist.
    pub absent_directories: Vec<u32>,
    /// Names that must not be there, by directory.
    pub absent: Vec<u32>,
    /// Names that must be directories, by directory.
    pub passed: Vec<u32>,
    /// Files whose time was compared with another's, and that time in nanoseconds since 1970.
    pub times: Vec<(u32, i64)>,
    /// What the texts mention.
    pub facts: Facts,
}

/// A position in a table of `end` rows.
pub(super) fn position(number: u64, end: usize) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| (*number as usize) < end)
}

/// Lengths of a book's tables.
pub(super) struct Ends {
    pub(super) directories: usize,
    pub(super) files: usize,
    pub(super) listed: usize,
    pub(super) names: usize,
    pub(super) links: usize,
}

impl Record {
    pub(super) fn pack(&self) -> Vec<u8> {
        let Facts {
            time,
            counter,
            line_directive,
            pragma_maker,
            pragma_words,
        } = self.facts;
        let facts = [time, counter, line_directive, pragma_maker, pragma_words];
        let mut packer = Packer::default();
        packer.number(facts.iter().rev().fold(0, |bits, fact| bits << 1 | u64::from(*fact)));
        let lists = [
            &self.listed,
            &self.consulted,
            &self.assembled,
            &self.links,
            &self.directories,
            &self.absent_directories,
            &self.absent,
            &self.passed,
        ];
        for list in lists {
            packer.list(list.iter().copied());
        }
        packer.list(self.times.iter().map(|(file, _)| *file));
        for (_, time) in &self.times {
            packer.signed(*time);
        }
        packer.finish()
    }

    pub(super) fn unpack(from: &mut Unpacker<'_>, ends: &Ends) -> Option<Self> {
        let facts = from.number()?;
        let mut record = Self {
            facts: Facts {
                time: facts & 1 != 0,
                counter: facts & 2 != 0,
                line_directive: facts & 4 != 0,
                pragma_maker: facts & 8 != 0,
                pragma_words: facts & 16 != 0,
            },
            listed: from.list(ends.listed)?,
            consulted: from.list(ends.files)?,
            assembled: from.list(ends.files)?,
            links: from.list(ends.links)?,
            directories: from.list(ends.directories)?,
            absent_directories: from.list(ends.directories)?,
            absent: from.list(ends.names)?,
            passed: from.list(ends.names)?,
            times: Vec::new(),
        };
        for file in from.list(ends.files)? {
            record.times.push((file, 0));
        }
        for (_, time) in &mut record.times {
            *time = from.signed()?;
        }
        from.is_empty().then_some(record)
    }
}

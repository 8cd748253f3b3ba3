//! Cuts a command line into options with their values, and file names.
//!
//! Response files are expanded before. Nothing is allocated: the wrapper walks its own arguments with this.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::options::{self, Row};

/// One option with its value, or one file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// An option that the table knows.
    Option {
        /// Its row.
        row: &'static Row,
        /// Its value, joined or separate.
        value: Option<&'a OsStr>,
        /// The words it takes up: one, or two when the value is separate.
        words: &'a [OsString],
    },
    /// A word that is no option: an input file. `-` is one.
    File(&'a OsStr),
    /// An option that the table does not know.
    Unknown(&'a OsStr),
    /// The last word is an option that lacks its value.
    MissingValue(&'a OsStr),
}

/// Walks over a command line, the driver's name excluded.
#[derive(Debug, Clone)]
pub struct Words<'a> {
    rest: &'a [OsString],
}

impl<'a> Words<'a> {
    /// Starts at the first word of `argv`.
    pub fn new(argv: &'a [OsString]) -> Self {
        Self { rest: argv }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let (word, rest) = self.rest.split_first()?;
        let whole = std::mem::replace(&mut self.rest, rest);
        let bytes = word.as_bytes();
        if bytes.first() != Some(&b'-') || bytes == b"-" {
            return Some(Word::File(word));
        }
        let Some(found) = options::find(word) else {
            return Some(Word::Unknown(word));
        };
        if !found.takes_next() {
            return Some(Word::Option {
                row: found.row,
                value: found.joined,
                words: &whole[..1],
            });
        }
        let Some((value, rest)) = rest.split_first() else {
            return Some(Word::MissingValue(word));
        };
        self.rest = rest;
        Some(Word::Option {
            row: found.row,
            value: Some(value),
            words: &whole[..2],
        })
    }
}

//! The part of a scan that conditions and computed names may ask: headers, the compiler's answers, where we are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Frame, Stop};
use crate::includes::closure::Reason;
use crate::includes::expand::{Host, Trouble};
use crate::includes::files::{Asker, Files};
use crate::includes::oracle::{Query, QueryOracle};
use crate::includes::reduced::{Facts, Form};
use crate::includes::request::ScanRequest;
use crate::includes::source_tree::SourceTree;
use crate::includes::symbols::{Symbol, Symbols};

/// Most tokens that the directives of one scan may expand to, together: some seconds of work. The largest real units
/// (Boost.Preprocessor's iterations) need a few million.
const SCAN_STEPS_MAX: u64 = 100_000_000;

/// The part of a scan that expansion may ask.
pub(super) struct Outside<'a, T: SourceTree> {
    pub(super) request: &'a ScanRequest,
    pub(super) oracle: &'a dyn QueryOracle,
    pub(super) files: Files<'a, T>,
    pub(super) symbols: Arc<Symbols>,
    pub(super) frames: Vec<Frame>,
    pub(super) queries: BTreeSet<Query>,
    pub(super) consulted: BTreeMap<usize, ()>,
    /// Line of the directive under evaluation, if it can be told.
    pub(super) line: Option<u32>,
    /// What ended a search within an expression.
    pub(super) stop: Option<Stop>,
    pub(super) facts: Facts,
    pub(super) depth_max: usize,
    /// Work of all directives so far, in tokens.
    pub(super) steps: u64,
}

impl<T: SourceTree> Outside<'_, T> {
    pub(super) fn trouble(&mut self, trouble: Trouble) -> Stop {
        match (trouble, self.stop.take()) {
            (Trouble::Search, Some(stop)) => stop,
            (trouble, _) => Reason::from(trouble).into(),
        }
    }

    /// Looks for a header from the topmost file; `None` when there is none.
    pub(super) fn look_up(&mut self, name: Symbol, form: Form, next: bool) -> Result<Option<usize>, Stop> {
        let Some(frame) = self.frames.last() else {
            return Ok(None);
        };
        let asker = Asker::File {
            entry: frame.entry,
            system: frame.system,
        };
        let Some(start) = self.files.start(name, form, next, asker)? else {
            return Ok(None);
        };
        let entry = self.files.find(name, start, asker)?;
        Ok(Some(entry).filter(|entry| self.files.entries[*entry].file.is_some()))
    }

    fn path_of(&self, frame: Option<&Frame>) -> Option<Vec<u8>> {
        if self.request.switches.file_macro_is_mapped {
            return None;
        }
        Some(self.files.entries[frame?.entry].path.to_vec())
    }
}

impl<T: SourceTree> Host for Outside<'_, T> {
    fn has_include(&mut self, name: &[u8], form: Form, next: bool) -> Result<bool, Trouble> {
        if name.is_empty() {
            return Err(Trouble::Rejected("empty header name"));
        }
        let name = self.symbols.intern(name);
        match self.look_up(name, form, next) {
            Ok(Some(entry)) => {
                self.consulted.insert(entry, ());
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(stop) => {
                self.stop = Some(stop);
                Err(Trouble::Search)
            }
        }
    }

    fn ask(&mut self, query: Query) -> Result<i64, Trouble> {
        match self.oracle.answer(&query) {
            Some(value) => Ok(value),
            None => {
                self.queries.insert(query);
                Ok(0)
            }
        }
    }

    fn file(&mut self) -> Option<Vec<u8>> {
        // With `#line` in play the compiler may say something else.
        self.line?;
        self.path_of(self.frames.last())
    }

    fn base_file(&mut self) -> Option<Vec<u8>> {
        self.path_of(self.frames.first())
    }

    fn line(&mut self) -> Option<u32> {
        self.line
    }

    fn level(&mut self) -> u32 {
        self.frames.len() as u32 - 1
    }

    fn spent(&mut self, steps: u32) -> Result<(), Trouble> {
        self.steps += u64::from(steps);
        if self.steps > SCAN_STEPS_MAX {
            return Err(Trouble::TooLarge);
        }
        Ok(())
    }
}

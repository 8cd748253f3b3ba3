//! Goes into a file that is included, unless it has nothing to say: once is enough, its guard is defined, or gcc takes it
//! for one that it has seen.

use std::sync::Arc;

use super::stop::Stop;
use super::{ENTERED_MAX, Frame, Scan};
use crate::includes::closure::{Listed, Reason};
use crate::includes::reduced::{Form, Inclusion, Refusal};
use crate::includes::source_tree::{SourceFile, SourceTree};
use crate::includes::symbols::Symbol;

impl<T: SourceTree> Scan<'_, T> {
    pub(super) fn include(&mut self, name: Symbol, form: Form, inclusion: Inclusion) -> Result<(), Stop> {
        if self.outside.frames.len() >= self.outside.depth_max {
            return Err(Reason::Depth.into());
        }
        let next = inclusion == Inclusion::Next && self.outside.frames.len() > 1;
        let entry = self.outside.look_up(name, form, next)?;
        match entry {
            Some(entry) => self.enter(entry, inclusion),
            None => Err(Stop::Missing(name, form, Arc::clone(&self.outside.symbols))),
        }
    }

    /// Enters a file unless it is known to have nothing to say.
    pub(super) fn enter(&mut self, entry: usize, inclusion: Inclusion) -> Result<(), Stop> {
        let entered = self.outside.files.entries[entry].entered;
        if self.outside.files.entries[entry].once {
            return Ok(());
        }
        if inclusion == Inclusion::Import {
            self.mark_once(entry);
            if entered > 0 {
                return Ok(());
            }
        }
        let source = self.source_of(entry)?;
        if entered > 0
            && let Some(guard) = self.sources[source].guard
            && self.macros.is_defined(guard)
        {
            return Ok(());
        }
        if self.is_repeated_content(entry, inclusion)? {
            // The compiler reads it to find that out, and does not list it.
            self.outside.consulted.insert(entry, ());
            return Ok(());
        }
        if let Some((line, defect)) = self.sources[source].defect {
            // The place is in the file that is about to be entered.
            let _ = line;
            return Err(Reason::Defect(defect).into());
        }
        let outside = &mut self.outside;
        let in_system = outside.files.is_in_system_directory(entry);
        let system = outside.frames.last().is_some_and(|frame| frame.system || in_system);
        let record = &mut outside.files.entries[entry];
        if record.entered == 0
            && let Some(file) = &record.file
        {
            self.listed.push(Listed {
                spelling: Arc::clone(&record.path),
                file: Arc::clone(file),
                system,
            });
            let facts = self.sources[source].facts;
            outside.facts.time |= facts.time;
            outside.facts.counter |= facts.counter;
            outside.facts.line_directive |= facts.line_directive;
            outside.facts.pragma_maker |= facts.pragma_maker;
            outside.facts.pragma_words |= facts.pragma_words;
            if outside.facts.pragma_maker && outside.facts.pragma_words {
                return Err(Reason::from(Refusal::PragmaOperator).into());
            }
        }
        record.entered += 1;
        self.entered += 1;
        if self.entered > ENTERED_MAX {
            return Err(Reason::TooLarge.into());
        }
        outside.frames.push(Frame {
            entry,
            source,
            at: 0,
            system,
        });
        Ok(())
    }

    /// Returns the reduced form of an entry's file.
    pub(super) fn source_of(&mut self, entry: usize) -> Result<usize, Stop> {
        let record = &self.outside.files.entries[entry];
        if let Some(source) = record.source {
            return Ok(source);
        }
        let Some(file) = &record.file else {
            return Err(Reason::Unreadable("a file that was not found".to_owned()).into());
        };
        let reduced = self.tree.reduced(file, self.dialect, &self.outside.symbols)?;
        self.sources.push(reduced);
        let source = self.sources.len() - 1;
        self.outside.files.entries[entry].source = Some(source);
        Ok(source)
    }

    pub(super) fn mark_once(&mut self, entry: usize) {
        let record = &mut self.outside.files.entries[entry];
        if !record.once
            && let Some(file) = &record.file
        {
            self.once.entry(once_key(file)).or_default().push(entry);
        }
        record.once = true;
    }

    /// Says whether a file of the same modification second, size and content has been marked once under another name.
    fn is_repeated_content(&self, entry: usize, inclusion: Inclusion) -> Result<bool, Stop> {
        if self.once.is_empty() {
            return Ok(false);
        }
        let entries = &self.outside.files.entries;
        let Some(file) = &entries[entry].file else {
            return Ok(false);
        };
        let key = once_key(file);
        let marked = self.once.get(&key).map(Vec::as_slice).unwrap_or_default();
        let all: Vec<usize> = if inclusion == Inclusion::Import {
            (0..entries.len()).collect()
        } else {
            marked.to_vec()
        };
        for other in all {
            if other == entry {
                continue;
            }
            let Some(other) = &entries[other].file else {
                continue;
            };
            if once_key(other) == key && self.tree.digest(other)? == self.tree.digest(file)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The parts of a file that gcc compares before it compares contents.
fn once_key(file: &SourceFile) -> (i64, u64) {
    let second = file.fingerprint.mtime_ns.div_euclid(1_000_000_000);
    (second, file.fingerprint.size)
}

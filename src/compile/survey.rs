//! The first look at a command: is it one compile of one source, and of which?
//!
//! Shared by the wrapper's quick answer and the full parser, so the two cannot differ. Holds references and counters
//! only. Which of several reasons is named: a mode such as `-E` before a link, a link before whatever else is odd about
//! the command, and otherwise the first in the order of the words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::language::{self, Driver, FileKind, Language};
use super::options::{self, Role};
use super::probe;
use super::reason::LocalReason;
use super::words::Word;

/// A reason with the word that gave it.
pub(super) type Objection<'a> = (LocalReason, Option<&'a OsStr>);

/// How far the compiler goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// `-c`: an object.
    Object,
    /// `-S`: assembly. Wins over `-c`.
    Assembly,
}

/// What one look at all words found out.
#[derive(Debug, Clone)]
pub(super) struct Survey<'a> {
    driver: Driver,
    stage: Option<Stage>,
    mode: Option<Objection<'a>>,
    oddity: Option<Objection<'a>>,
    /// The last `-x`, unless it was `none`.
    language: Option<&'a OsStr>,
    /// g++ lets the first file behind any `-x` alone, even behind `-x none`.
    cxx_spared: bool,
    source: Option<(&'a OsStr, FileKind)>,
    sources: u32,
    linker_input: Option<&'a OsStr>,
    output: Option<&'a OsStr>,
    outputs: u32,
    dump_name: Option<&'a OsStr>,
}

/// A command that is one compile of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    pub source: &'a OsStr,
    pub language: Language,
    pub stage: Stage,
    pub output: Option<&'a OsStr>,
}

impl<'a> Survey<'a> {
    pub fn new(driver: Driver) -> Self {
        Survey {
            driver,
            stage: None,
            mode: None,
            oddity: None,
            language: None,
            cxx_spared: false,
            source: None,
            sources: 0,
            linker_input: None,
            output: None,
            outputs: 0,
            dump_name: None,
        }
    }

    /// Takes in the next word.
    pub fn take(&mut self, word: &Word<'a>) {
        match *word {
            Word::File(file) => self.take_file(file),
            Word::Unknown(word) => self.object(LocalReason::UnknownOption, Some(word)),
            Word::MissingValue(word) => self.object(LocalReason::MissingValue, Some(word)),
            Word::Option { row, value, words } => {
                if let Some(reason) = options::local_reason(row.role, value) {
                    self.object(reason, words.first().map(|word| word.as_os_str()));
                }
                self.take_option(row.role, value);
            }
        }
    }

    fn take_option(&mut self, role: Role, value: Option<&'a OsStr>) {
        match role {
            Role::Compile => self.stage = self.stage.max(Some(Stage::Object)),
            Role::Assembly => self.stage = Some(Stage::Assembly),
            Role::Language => {
                self.language = value.filter(|language| language.as_bytes() != b"none");
                self.cxx_spared = true;
            }
            Role::Output => {
                self.outputs += 1;
                self.output = value;
            }
            Role::DumpName => self.dump_name = value,
            _ => {}
        }
    }

    fn take_file(&mut self, file: &'a OsStr) {
        if file.as_bytes() == b"-" {
            return self.object(LocalReason::Stdin, Some(file));
        }
        let kind = match self.language {
            Some(language) => language::by_name(language),
            None if self.cxx_spared => language::by_suffix(file, Driver::C),
            None => language::by_suffix(file, self.driver),
        };
        self.cxx_spared = false;
        if kind == FileKind::LinkerInput {
            self.linker_input = Some(file);
        } else {
            self.sources += 1;
            self.source = Some((file, kind));
        }
    }

    /// Remembers the first reason of its class.
    pub fn object(&mut self, reason: LocalReason, word: Option<&'a OsStr>) {
        let slot = if reason.is_mode() {
            &mut self.mode
        } else {
            &mut self.oddity
        };
        slot.get_or_insert((reason, word));
    }

    /// Says what the command is, now that all words were seen.
    pub fn finish(self) -> Result<Plan<'a>, Objection<'a>> {
        if let Some(mode) = self.mode {
            return Err(mode);
        }
        let Some(stage) = self.stage else {
            return Err(self.without_stage());
        };
        if let Some(oddity) = self.oddity {
            return Err(oddity);
        }
        if let Some(file) = self.linker_input {
            return Err((LocalReason::LinkerInput, Some(file)));
        }
        let Some((source, kind)) = self.source else {
            return Err((LocalReason::NoSource, None));
        };
        if self.sources > 1 {
            return Err((LocalReason::SeveralSources, Some(source)));
        }
        let language = match kind {
            FileKind::Source(language) => language,
            FileKind::Elsewhere(reason) => return Err((reason, Some(source))),
            FileKind::LinkerInput => return Err((LocalReason::LinkerInput, Some(source))),
        };
        let assembly = matches!(language, Language::Assembler | Language::AssemblerWithCpp);
        if assembly && stage == Stage::Assembly {
            return Err((LocalReason::PreprocessOnly, Some(source)));
        }
        self.check_places(source)?;
        Ok(Plan {
            source,
            language,
            stage,
            output: self.output,
        })
    }

    fn without_stage(&self) -> Objection<'a> {
        match self.source {
            Some((source, FileKind::Elsewhere(LocalReason::Pch))) => (LocalReason::Pch, Some(source)),
            None if self.linker_input.is_none() => (LocalReason::NoSource, None),
            _ => (LocalReason::Link, None),
        }
    }

    fn check_places(&self, source: &'a OsStr) -> Result<(), Objection<'a>> {
        if self.outputs > 1 {
            return Err((LocalReason::SeveralOutputs, self.output));
        }
        for place in [Some(source), self.output].into_iter().flatten() {
            match place.as_bytes() {
                b"/dev/null" => return Err((LocalReason::DevNull, Some(place))),
                b"-" => return Err((LocalReason::OutputStdout, Some(place))),
                b"" => return Err((LocalReason::OutputNotRegular, Some(place))),
                bytes if bytes.starts_with(b"/dev/") || bytes.ends_with(b"/") => {
                    return Err((LocalReason::OutputNotRegular, Some(place)));
                }
                _ => {}
            }
        }
        if self.output.is_none() && self.dump_name.is_some() {
            return Err((LocalReason::DumpNames, self.dump_name));
        }
        if probe::is_probe(source) || self.output.is_some_and(probe::is_probe) {
            return Err((LocalReason::ConfigureProbe, Some(source)));
        }
        Ok(())
    }
}

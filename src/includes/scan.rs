//! Finds the include closure of one unit: walks the reduced files as the preprocessor would, and lists what it enters.
//!
//! No text is produced; a file that is already known costs a few nanoseconds for each directive. What cannot be decided
//! ends the scan with a place and a reason. Invariant: a closure that is returned depended on no guess: questions without
//! an answer are collected by going on with 0, but then only the questions are returned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::closure::{Closure, Listed, NoClosure, Place, Reason};
use super::dialect::Dialect;
use super::expand::World;
use super::expression;
use super::files::{Asker, Files};
use super::macros::{MacroRef, MacroTable};
use super::oracle::QueryOracle;
use super::reduce::reduce;
use super::reduced::{Facts, Form, Inclusion, Op, Reduced};
use super::request::ScanRequest;
use super::source_tree::{SourceFile, SourceTree, TreeError};
use crate::compile::ForcedInclude;

mod assembled;
mod enter;
mod finish;
mod outside;
mod start;
mod stop;

use outside::Outside;
use start::{command_line_text, depth_max, dialect, search_path};
use stop::Stop;

/// How often a scan starts over because files change under it.
const ATTEMPTS: u32 = 3;

/// Most files that one scan enters, repetitions included. The largest real units (Boost.Preprocessor's iterations) enter
/// some 100,000; a compiler given more than this takes minutes, and so might we.
const ENTERED_MAX: u32 = 1_000_000;

/// Finds the closure of a unit.
pub fn scan<T: SourceTree>(request: &ScanRequest, tree: &T, oracle: &dyn QueryOracle) -> Result<Closure, NoClosure> {
    let mut attempt = 1;
    loop {
        match Scan::run(request, tree, oracle) {
            Err(Stop::Tree(TreeError::Changing { .. })) if attempt < ATTEMPTS => attempt += 1,
            Err(stop) => return Err(stop.at(command_line(request))),
            Ok(result) => return result,
        }
    }
}

fn command_line(request: &ScanRequest) -> Place {
    Place {
        file: PathBuf::from(&request.source),
        line: 0,
    }
}

/// A file being read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    entry: usize,
    source: usize,
    /// The next operation.
    at: usize,
    system: bool,
}

struct Scan<'a, T: SourceTree> {
    tree: &'a T,
    dialect: Dialect,
    macros: MacroTable,
    sources: Vec<Arc<Reduced>>,
    outside: Outside<'a, T>,
    listed: Vec<Listed>,
    /// Entries marked once, by modification second and size.
    once: HashMap<(i64, u64), Vec<usize>>,
    assembled: Vec<Arc<SourceFile>>,
    /// How many files have been entered, repetitions included.
    entered: u32,
    /// Whether a file of `-imacros` is being read.
    macros_only: bool,
}

impl<'a, T: SourceTree> Scan<'a, T> {
    /// Scans once. The outer error starts over or ends the scan without a place.
    fn run(
        request: &'a ScanRequest,
        tree: &'a T,
        oracle: &'a dyn QueryOracle,
    ) -> Result<Result<Closure, NoClosure>, Stop> {
        let symbols = tree.symbols();
        let epoch = tree.begin();
        let cwd = tree
            .directory(&request.cwd, epoch)?
            .ok_or_else(|| Reason::Unreadable(format!("`{}` does not exist", request.cwd.display())))?;
        let path = search_path(request, tree, &cwd, epoch)?;
        let absent_directories = path.absent.clone();
        let mut files = Files::new(tree, epoch, Arc::clone(&symbols), cwd, path)?;
        if !request.switches.canonical_system_headers {
            files.keep_system_spellings();
        }
        let mut scan = Self {
            tree,
            dialect: dialect(request),
            macros: MacroTable::default(),
            sources: Vec::with_capacity(512),
            outside: Outside {
                request,
                oracle,
                files,
                symbols,
                frames: Vec::new(),
                queries: BTreeSet::new(),
                consulted: BTreeMap::new(),
                line: None,
                stop: None,
                facts: Facts::default(),
                depth_max: depth_max(request)?,
                steps: 0,
            },
            listed: Vec::with_capacity(512),
            once: HashMap::new(),
            assembled: Vec::new(),
            entered: 0,
            macros_only: false,
        };
        let walked = scan.walk();
        if !scan.outside.queries.is_empty() {
            let queries = scan.outside.queries.into_iter().collect();
            return Ok(Err(NoClosure::NeedsAnswers(queries)));
        }
        match walked {
            Ok(()) => Ok(Ok(scan.closure(absent_directories)?)),
            Err(Stop::Tree(error @ TreeError::Changing { .. })) => Err(Stop::Tree(error)),
            Err(stop) => {
                let place = scan.place();
                Ok(Err(stop.at(place)))
            }
        }
    }

    /// Where the walk stands.
    fn place(&self) -> Place {
        let Some(frame) = self.outside.frames.last() else {
            return command_line(self.outside.request);
        };
        let path = &self.outside.files.entries[frame.entry].path;
        let lines = &self.sources[frame.source].lines;
        Place {
            file: PathBuf::from(OsStr::from_bytes(path)),
            line: lines.get(frame.at).copied().unwrap_or(0),
        }
    }

    fn walk(&mut self) -> Result<(), Stop> {
        let request = self.outside.request;
        self.macros.reset(self.outside.symbols.len());
        for special in request.facts.specials() {
            self.macros.define_special(*special);
        }
        let predefined = request.facts.reduced(self.dialect, &self.outside.symbols);
        self.apply(predefined)?;
        let text = command_line_text(&request.options.macros)?;
        let options = reduce(&text, self.dialect, &self.outside.symbols);
        self.apply(Arc::new(options))?;

        let name = self.outside.symbols.intern(request.source.as_os_str().as_bytes());
        let main = self.outside.files.source(name)?;
        if self.outside.files.entries[main].file.is_none() {
            return Err(Stop::Missing(name, Form::Quote, Arc::clone(&self.outside.symbols)));
        }
        self.enter(main, Inclusion::Include)?;
        self.macros_only = true;
        for file in &request.options.forced {
            if let ForcedInclude::Macros(file) = file {
                self.command_line_file(file, Asker::CommandLine)?;
            }
        }
        self.macros_only = false;
        if let Some(name) = &request.facts.preinclude {
            self.command_line_file(OsStr::from_bytes(name), Asker::Compiler)?;
        }
        for file in &request.options.forced {
            if let ForcedInclude::Header(file) = file {
                self.command_line_file(file, Asker::CommandLine)?;
            }
        }
        self.run_frames(0)
    }

    /// Applies definitions that stand in no file.
    fn apply(&mut self, reduced: Arc<Reduced>) -> Result<(), Stop> {
        let source = self.sources.len();
        for op in &reduced.ops {
            match *op {
                Op::Define { first, end } => self.define(&reduced, source, first, end),
                Op::Undefine(name) => self.macros.undefine(name),
                _ => return Err(Reason::CommandLine.into()),
            }
        }
        self.sources.push(reduced);
        Ok(())
    }

    fn define(&mut self, reduced: &Reduced, source: usize, first: u32, end: u32) {
        let names = &reduced.names[first as usize..end as usize];
        for (number, name) in (first..end).zip(names) {
            self.macros.define(*name, MacroRef::new(source as u32, number));
        }
    }

    /// Reads a file that the command line, or the compiler itself, puts in front of the source.
    fn command_line_file(&mut self, file: &OsStr, asker: Asker) -> Result<(), Stop> {
        let name = self.outside.symbols.intern(file.as_bytes());
        let form = if asker == Asker::Compiler {
            Form::Angle
        } else {
            Form::Quote
        };
        let files = &mut self.outside.files;
        let found = match files.start(name, form, false, asker)? {
            Some(start) => Some(files.find(name, start, asker)?),
            None => None,
        };
        let found = found.filter(|entry| files.entries[*entry].file.is_some());
        let Some(entry) = found else {
            if asker == Asker::Compiler {
                return Ok(());
            }
            return Err(Stop::Missing(name, form, Arc::clone(&self.outside.symbols)));
        };
        let floor = self.outside.frames.len();
        self.enter(entry, Inclusion::Include)?;
        self.run_frames(floor)
    }

    /// Runs until only `floor` files are left open.
    fn run_frames(&mut self, floor: usize) -> Result<(), Stop> {
        while self.outside.frames.len() > floor
            && let Some(frame) = self.outside.frames.last().copied()
        {
            let reduced = Arc::clone(&self.sources[frame.source]);
            self.run_file(&reduced, frame)?;
        }
        Ok(())
    }

    /// Runs the topmost file until it ends or enters another.
    fn run_file(&mut self, reduced: &Reduced, frame: Frame) -> Result<(), Stop> {
        let mut at = frame.at;
        while let Some(op) = reduced.ops.get(at) {
            match *op {
                Op::Define { first, end } => {
                    self.define(reduced, frame.source, first, end);
                    at += 1;
                }
                Op::IfDefined { name, next } => {
                    let holds = self.macros.is_defined(name);
                    at = self.choose(reduced, at, holds, next)?;
                }
                Op::IfNotDefined { name, next } => {
                    let holds = !self.macros.is_defined(name);
                    at = self.choose(reduced, at, holds, next)?;
                }
                Op::If { expression, next } => {
                    let holds = self.evaluate(reduced, expression, at)?;
                    at = self.choose(reduced, at, holds, next)?;
                }
                // Reached from above: the branch before was taken.
                Op::ElseIf { next, .. }
                | Op::ElseIfDefined { next, .. }
                | Op::ElseIfNotDefined { next, .. }
                | Op::Else { next } => at = next as usize,
                Op::EndIf => at += 1,
                Op::Operator => at += 1 + usize::from(self.macros_only),
                Op::Undefine(name) => {
                    self.macros.undefine(name);
                    at += 1;
                }
                _ => {
                    self.stand(at);
                    let depth = self.outside.frames.len();
                    self.rare(reduced, *op, at)?;
                    at += 1;
                    if self.outside.frames.len() > depth {
                        self.outside.frames[depth - 1].at = at;
                        return Ok(());
                    }
                }
            }
        }
        self.outside.frames.pop();
        Ok(())
    }

    /// Notes the operation at which the topmost file stands.
    fn stand(&mut self, at: usize) {
        if let Some(frame) = self.outside.frames.last_mut() {
            frame.at = at;
        }
    }

    /// Returns where a conditional goes on, its first condition being `holds`.
    fn choose(&mut self, reduced: &Reduced, at: usize, holds: bool, next: u32) -> Result<usize, Stop> {
        if holds {
            return Ok(at + 1);
        }
        let mut at = next as usize;
        loop {
            let (holds, next) = match reduced.ops.get(at) {
                Some(Op::ElseIf { expression, next }) => (self.evaluate(reduced, *expression, at)?, *next),
                Some(Op::ElseIfDefined { name, next }) => (self.macros.is_defined(*name), *next),
                Some(Op::ElseIfNotDefined { name, next }) => (!self.macros.is_defined(*name), *next),
                _ => return Ok(at + 1),
            };
            if holds {
                return Ok(at + 1);
            }
            at = next as usize;
        }
    }

    /// Readies the answers for `__LINE__` and places.
    fn prepare(&mut self, reduced: &Reduced, at: usize) {
        self.stand(at);
        let known = reduced.is_single_line(at) && !reduced.facts.line_directive;
        self.outside.line = known.then(|| reduced.lines[at]);
    }

    fn evaluate(&mut self, reduced: &Reduced, number: u32, at: usize) -> Result<bool, Stop> {
        self.prepare(reduced, at);
        let symbols = Arc::clone(&self.outside.symbols);
        let world = World {
            macros: &self.macros,
            sources: &self.sources,
            symbols: &symbols,
            dialect: self.dialect,
        };
        let characters = self.outside.request.facts.characters;
        let tokens = reduced.expression(number);
        expression::evaluate(world, &mut self.outside, tokens, characters)
            .map_err(|trouble| self.outside.trouble(trouble))
    }

    fn rare(&mut self, reduced: &Reduced, op: Op, at: usize) -> Result<(), Stop> {
        match op {
            Op::Include { name, form, inclusion } => self.include(name, form, inclusion),
            Op::IncludeComputed { expression, inclusion } => {
                self.prepare(reduced, at);
                let symbols = Arc::clone(&self.outside.symbols);
                let world = World {
                    macros: &self.macros,
                    sources: &self.sources,
                    symbols: &symbols,
                    dialect: self.dialect,
                };
                let tokens = reduced.expression(expression);
                let (name, form) = expression::header_name(world, &mut self.outside, tokens)
                    .map_err(|trouble| self.outside.trouble(trouble))?;
                self.include(symbols.intern(&name), form, inclusion)
            }
            Op::Once => {
                if let Some(frame) = self.outside.frames.last() {
                    self.mark_once(frame.entry);
                }
                Ok(())
            }
            Op::SystemHeader => {
                let nested = self.outside.frames.len() > 1;
                if let Some(frame) = self.outside.frames.last_mut().filter(|_| nested) {
                    frame.system = true;
                }
                Ok(())
            }
            Op::PushMacro(name) => {
                self.macros.push(name);
                Ok(())
            }
            Op::PopMacro(name) => {
                self.macros.pop(name);
                Ok(())
            }
            Op::Assemble { path, input } => self.assemble(path, input, 0),
            Op::Refuse(refusal) => Err(Reason::from(refusal).into()),
            _ => Ok(()),
        }
    }
}

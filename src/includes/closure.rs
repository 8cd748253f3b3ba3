//! What a scan finds, or why it finds nothing.

use std::path::PathBuf;
use std::sync::Arc;

use super::expand::Trouble;
use super::hashing::NumberMap;
use super::oracle::Query;
use super::reduced::{Facts, Form, Refusal};
use super::search::SearchError;
use super::source_tree::{DirectoryInfo, Link, ListingId, SourceFile};
use super::symbols::{Symbol, Symbols};

/// One line of the compiler's dependency list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The path as the compiler's dependency list spells it, before its quoting for make.
    pub spelling: Arc<[u8]>,
    /// The file.
    pub file: Arc<SourceFile>,
    /// It is a system header, which `-MMD` leaves out.
    pub system: bool,
}

/// Names that are looked for in a directory and must not be there.
#[derive(Debug, Clone)]
pub struct Absent {
    /// The directory, which exists.
    pub directory: Arc<DirectoryInfo>,
    /// The names: of files, or of directories that a longer path would go through.
    pub names: Vec<Symbol>,
    /// Names that were passed over because they are directories.
    pub passed: Vec<Symbol>,
    /// The listing that the directory had before the first of them was looked for; while it stands, so do the absences.
    pub listing: Option<ListingId>,
}

/// How a closure was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By a scan.
    Scanned,
    /// By the compiler's own list, which does not tell what was looked for in vain.
    Listed,
    /// An earlier scan's, and everything it rested on still stands.
    Remembered,
}

/// Everything that a compile depends on, besides the toolchain.
#[derive(Debug)]
pub struct Closure {
    /// The files that are read, the source first, in the compiler's order. One file may be listed twice, by two
    /// spellings or even by one.
    pub listed: Vec<Listed>,
    /// Files that have to be there and are not listed: `__has_include` asked for them, or `#pragma once` found them to be
    /// copies.
    pub consulted: Vec<Arc<SourceFile>>,
    /// Files that the assembler reads by itself.
    pub assembled: Vec<Arc<SourceFile>>,
    /// Links on the way to the files and directories, each once, sorted.
    pub links: Vec<Arc<Link>>,
    /// Directories that must exist, each once, sorted: the working directory, the search path, and what a spelled path
    /// walks through.
    pub directories: Vec<PathBuf>,
    /// What must not exist.
    pub absent: Vec<Absent>,
    /// Directories that must not exist: search path candidates.
    pub absent_directories: Vec<PathBuf>,
    /// What the texts mention.
    pub facts: Facts,
    /// Spells the names in `absent`.
    pub symbols: Arc<Symbols>,
    /// How it was found.
    pub origin: Origin,
}

impl Closure {
    /// Returns every file to ship, each once, in order of first mention.
    pub fn files(&self) -> Vec<&Arc<SourceFile>> {
        let mut seen = NumberMap::default();
        let all = self.listed.iter().map(|listed| &listed.file);
        all.chain(&self.consulted)
            .chain(&self.assembled)
            .filter(|file| seen.insert(file.id, ()).is_none())
            .collect()
    }

    /// Returns the absolute paths that must not exist.
    pub fn absent_paths(&self) -> impl Iterator<Item = PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let named = self.absent.iter().flat_map(|absent| {
            absent.names.iter().map(|name| {
                let directory = &absent.directory.route.path;
                self.symbols
                    .with(*name, |name| directory.join(std::ffi::OsStr::from_bytes(name)))
            })
        });
        named.chain(self.absent_directories.iter().cloned())
    }
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as the compiler spells it.
    pub file: PathBuf,
    /// The line, counted from 1; 0 for the command line.
    pub line: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Why a scan gives no closure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A directive that this scanner refuses.
    #[error("{0}")]
    Directive(#[from] Refusal),
    /// A condition or computed name that has no decidable value.
    #[error("a directive cannot be evaluated: {0}")]
    Evaluation(#[from] Trouble),
    /// The compiler will reject the file as a whole.
    #[error("the file is malformed: {0}")]
    Defect(&'static str),
    /// The search path cannot be told.
    #[error("search path: {0}")]
    Search(#[from] SearchError),
    /// A default directory has appeared since the compiler was asked.
    #[error("`{}` has appeared in the default search path", .0.display())]
    NewDefault(PathBuf),
    /// `-traditional-cpp`, `-fpreprocessed`, `-fdirectives-only`: other rules.
    #[error("a mode of the preprocessor that is not followed here")]
    Mode,
    /// Inclusions are nested deeper than the compiler takes.
    #[error("inclusions are nested too deeply")]
    Depth,
    /// The unit enters more files than this scanner follows.
    #[error("too many files are entered")]
    TooLarge,
    /// A precompiled header lies beside a header that is looked for first.
    #[error("`{}` may be a precompiled header", .0.display())]
    Precompiled(PathBuf),
    /// Neither a regular file nor a directory.
    #[error("`{}` is no regular file", .0.display())]
    Special(PathBuf),
    /// Larger than any file that is read here.
    #[error("`{}` is too large", .0.display())]
    Oversized(PathBuf),
    /// A header name that no file can have.
    #[error("a header name with a zero byte")]
    ZeroByte,
    /// The file system gave no answer; the text says which and why.
    #[error("{0}")]
    Unreadable(String),
    /// The assembler will not find this file.
    #[error("the assembler finds no `{}`", .0.display())]
    NotAssembled(PathBuf),
    /// The command line has a definition that is no definition.
    #[error("a macro on the command line")]
    CommandLine,
}

impl Reason {
    /// Says whether the file had better be opened by the one compiler that makes the object: to ask the compiler for a
    /// list of what it reads would take a FIFO's content, or read a second time what takes half a minute.
    pub fn is_for_the_compiler_alone(&self) -> bool {
        matches!(self, Self::Special(_) | Self::Oversized(_))
    }
}

/// A scan that ends without a closure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoClosure {
    /// Cannot be decided here: let the compiler say.
    #[error("{place}: {reason}")]
    Undecidable {
        /// Where.
        place: Place,
        /// Why.
        reason: Reason,
    },
    /// A header that does not exist; the compiler will say so in its own words.
    #[error("{place}: `{}` is not found", name.display())]
    MissingHeader {
        /// The directive.
        place: Place,
        /// The header's name.
        name: PathBuf,
        /// How it was written.
        form: Form,
    },
    /// Ask the compiler these, and scan again.
    #[error("{} questions to the compiler", .0.len())]
    NeedsAnswers(Vec<Query>),
}

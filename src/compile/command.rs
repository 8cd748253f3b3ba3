//! One compile of one source, as data.
//!
//! Everything is as the command says it: paths are not made absolute, `=` in front of a directory is not yet the
//! sysroot, nothing was looked up on disk. Order is gcc's, not the command line's, wherever gcc reorders.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::facts::Facts;
use super::file_name::{last_dot, split_directories};
use super::language::{Driver, Language};
use super::options::{MacroAction, RequiredKind};
use super::survey::Stage;

/// A command that can be compiled elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileCommand {
    /// Which driver was called.
    pub driver: Driver,
    /// The words behind the driver's name, response files expanded. The worker runs the words as they were typed;
    /// these are for reading, and for runs that are ours.
    pub argv: Vec<OsString>,
    /// The response files, as named, in the order of reading. When there are any, a worker that runs the typed words
    /// needs these files at their places.
    pub response_files: Vec<PathBuf>,
    /// The source, as given.
    pub source: PathBuf,
    /// What language the driver takes it for.
    pub language: Language,
    /// How far the compiler goes.
    pub stage: Stage,
    /// Where the object or assembly goes: `-o`, or the source's name with another suffix in the working directory.
    pub output: PathBuf,
    /// Whether `-o` was given.
    pub output_is_explicit: bool,
    /// The list of dependencies that the user asked for.
    pub dependencies: Option<DependencyRequest>,
    /// What a scanner for includes has to know.
    pub preprocess: PreprocessOptions,
    /// Where the assembler looks for `.include` and `.incbin` behind the working directory and all `-I`: the
    /// directories from `-Wa,-I`.
    pub assembler_dirs: Vec<PathBuf>,
    /// Files besides source and headers that the compiler reads.
    pub required_files: Vec<RequiredFile>,
    /// What else policy has to know.
    pub facts: Facts,
}

/// A file that the compiler reads besides source and headers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequiredFile {
    /// What it is to the compiler; it decides how a name without a slash is looked up.
    pub kind: RequiredKind,
    /// The name as given.
    pub path: PathBuf,
}

/// What the user's list of dependencies has to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyRequest {
    /// Which headers it names.
    pub kind: DependencyKind,
    /// Where it goes, as gcc would write it: relative to the working directory unless given absolute.
    pub file: PathBuf,
    /// The rule's targets, in the order in which gcc is told of them; never empty.
    pub targets: Vec<DependencyTarget>,
    /// `-MP`: an empty rule for each header follows.
    pub phony: Phony,
}

/// Which headers a list of dependencies names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DependencyKind {
    /// `-MD`.
    All,
    /// `-MMD`: not those from system directories.
    User,
}

/// Whether a list of dependencies has an empty rule for each header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phony {
    /// `-MP` was given.
    Yes,
    /// It was not.
    No,
}

/// A target of the rule in a list of dependencies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DependencyTarget {
    /// The name, before any quoting.
    pub text: OsString,
    /// Whether gcc quotes it for make.
    pub quoting: Quoting,
}

/// Whether gcc quotes a target for make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quoting {
    /// `-MT`: as it is.
    Raw,
    /// `-MQ` and defaults.
    Quoted,
}

/// What a scanner for includes has to know of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PreprocessOptions {
    /// `-D`, `-U`, `-A`, in the order in which gcc applies them, all before any forced header.
    pub macros: Vec<MacroOption>,
    /// Directories for `"…"` only.
    pub quote_dirs: Vec<SearchDir>,
    /// `-I` and `-iwithprefixbefore`: for both forms, before the system's.
    pub bracket_dirs: Vec<SearchDir>,
    /// `-isystem` and `-iwithprefix`.
    pub system_dirs: Vec<SearchDir>,
    /// `-idirafter`.
    pub after_dirs: Vec<SearchDir>,
    /// `--embed-dir`, for `#embed`.
    pub embed_dirs: Vec<SearchDir>,
    /// `-I-` was given: the directory of the including file is not searched for `"…"`. The directories before `-I-`
    /// are in `quote_dirs` already.
    pub quote_split: bool,
    /// `-imacros` and `-include`. gcc reads all macro files first, then the headers, each group in order; they stand
    /// here in that order.
    pub forced: Vec<ForcedInclude>,
    /// `-nostdinc`.
    pub nostdinc: bool,
    /// `-nostdinc++`.
    pub nostdinc_cxx: bool,
    /// `--sysroot`: moves the compiler's own directories, and replaces a leading `=` or `$SYSROOT` in ours.
    pub sysroot: Option<OsString>,
    /// `-isysroot`: stronger than `sysroot` for headers.
    pub header_sysroot: Option<OsString>,
    /// Directories from the environment.
    pub environment: EnvironmentDirs,
    /// How the text is read.
    pub lexical: LexicalOptions,
    /// The words, in order, that may change predefined macros or the compiler's own search list. Same driver, same
    /// language, same words: same answer of the compiler to `-dM -E` and to `-v -E`.
    pub predefined_words: Vec<OsString>,
}

/// `-D`, `-U` or `-A`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MacroOption {
    /// Which of them.
    pub action: MacroAction,
    /// Its text: `NAME`, `NAME=VALUE`, `NAME(ARGS)=VALUE`.
    pub text: OsString,
}

/// A directory to search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SearchDir {
    /// The directory; a leading `=` or `$SYSROOT` stands for the sysroot.
    pub path: OsString,
    /// What it is relative to.
    pub base: DirBase,
}

/// What a search directory's path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirBase {
    /// The working directory, unless absolute. An `-iprefix` is already in the path.
    Given,
    /// The compiler's own prefix: `-iwithprefix` without `-iprefix`. The path is appended to it without a slash.
    CompilerPrefix,
}

/// A file read before the source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForcedInclude {
    /// `-imacros`: only its macros stay.
    Macros(OsString),
    /// `-include`: looked up like `#include "…"` in the working directory.
    Header(OsString),
}

/// Directories that the environment adds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct EnvironmentDirs {
    /// `CPATH`: behind `-I`, before `-isystem`, and not as system directories.
    pub cpath: Vec<PathBuf>,
    /// `C_INCLUDE_PATH` or `CPLUS_INCLUDE_PATH`, whichever the language takes: behind `-isystem`.
    pub language: Vec<PathBuf>,
}

/// How the text is read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct LexicalOptions {
    /// The last of `-std=…` and `-ansi`, as the name that `-std=` takes; `-ansi` is `ansi`.
    pub standard: Option<OsString>,
    /// `-undef`: no predefined macros of the system's or the compiler's.
    pub undef: bool,
    /// `-trigraphs`.
    pub trigraphs: bool,
    /// `-traditional-cpp`.
    pub traditional: bool,
    /// `-fpreprocessed`: macros and most directives are done.
    pub preprocessed: bool,
    /// `-fdirectives-only`.
    pub directives_only: bool,
    /// `-f[no-]dollars-in-identifiers`, when given.
    pub dollars_in_identifiers: Option<bool>,
    /// `-fmax-include-depth=`, as given.
    pub include_depth_max: Option<OsString>,
}

/// Returns the file's name without directories, with its last suffix replaced by `suffix`.
///
/// A name that begins with its only dot has no suffix to replace.
pub(super) fn with_suffix(file: &OsStr, suffix: &str) -> PathBuf {
    let (_, name) = split_directories(file.as_bytes());
    let stem = match last_dot(name) {
        Some(dot) if dot > 0 => &name[..dot],
        _ => name,
    };
    let mut path = stem.to_vec();
    path.extend_from_slice(suffix.as_bytes());
    PathBuf::from(OsString::from_vec(path))
}

//! What each gcc option means to us: one row per option, found by the longest name that fits.
//!
//! The rows stand in [`table`]; this file says what a row can say and finds the row for a word, by gcc's own rule: the
//! longest option whose name begins the word wins, and only options that take a joined value may be longer than their
//! name. It knows nothing about the rest of the command. Invariant (tested): rows are sorted, unique, and each is found
//! by its own name.

mod table;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::facts::Feature;
use super::reason::LocalReason;

/// How an option takes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It has none: the word is the option.
    Flag,
    /// The value follows in the same word, and may be empty.
    Joined,
    /// The value is the next word.
    Separate,
    /// The value follows in the same word, or is the next word when this one ends with the name.
    Either,
}

/// What an option does, as far as we care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `-c`.
    Compile,
    /// `-S`.
    Assembly,
    /// The command has to run here.
    Local(LocalReason),
    /// Names the output.
    Output,
    /// `-x`.
    Language,
    /// Asks for, or shapes, a list of dependencies.
    Dependency(DependencyOption),
    /// Defines or undefines a macro.
    Macro(MacroAction),
    /// Adds to the places where headers are searched.
    Search(SearchOption),
    /// `-include`.
    Include,
    /// `-imacros`.
    Imacros,
    /// Changes how text is read before macros come in.
    Lexical(LexicalOption),
    /// Reads the file that the value names.
    Reads(RequiredKind),
    /// Words for the preprocessor, separated by commas.
    PreprocessorList,
    /// One word for the preprocessor.
    PreprocessorWord,
    /// Words for the assembler, separated by commas.
    AssemblerList,
    /// One word for the assembler.
    AssemblerWord,
    /// Debug information: `-g` and all that begins with it and has no row.
    Debug,
    /// `-O` and what follows it.
    Optimize,
    /// Something that policy wants to know about; see [`Feature`].
    Feature(Feature),
    /// Takes back a feature named before.
    Without(Feature),
    /// A character set's name: that of string constants.
    Charset,
    /// A character set's name: that of the source.
    InputCharset,
    /// `-dumpbase` and its like.
    DumpName,
    /// Shapes code; may change predefined macros, touches no file.
    Codegen,
    /// `-f…` without a row: as [`Role::Codegen`] as long as the value cannot be a file.
    FamilyF,
    /// `-m…`: as [`Role::Codegen`] as long as the value is not a file and not `native`.
    FamilyM,
    /// Changes neither code nor macros nor files: diagnostics, names of paths in debug information.
    Inert,
    /// Concerns the linker only; silent when nothing is linked.
    LinkOnly,
}

/// The `-M` family, as far as it goes with compiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyOption {
    /// `-MD`.
    All,
    /// `-MMD`.
    User,
    /// `-MF`.
    File,
    /// `-MT`.
    RawTarget,
    /// `-MQ`.
    QuotedTarget,
    /// `-MP`.
    Phony,
}

/// What `-D`, `-U` and `-A` do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MacroAction {
    /// `-D`.
    Define,
    /// `-U`.
    Undefine,
    /// `-A`.
    Assert,
}

/// What the search options do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchOption {
    /// `-I`.
    Bracket,
    /// `-I-`.
    Barrier,
    /// `-iquote`.
    Quote,
    /// `-isystem`.
    System,
    /// `-idirafter`.
    After,
    /// `--embed-dir`.
    Embed,
    /// `-iprefix`.
    Prefix,
    /// `-iwithprefix`.
    WithPrefix,
    /// `-iwithprefixbefore`.
    WithPrefixBefore,
    /// `--sysroot`.
    Sysroot,
    /// `-isysroot`.
    HeaderSysroot,
    /// `-nostdinc`.
    NoStandard,
    /// `-nostdinc++`.
    NoStandardCxx,
    /// Changes the compiler's own list: `-imultilib`, `-imultiarch`.
    Builtin,
}

/// Options that change how text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexicalOption {
    /// `-std=`.
    Standard,
    /// `-ansi`.
    Ansi,
    /// `-undef`.
    Undef,
    /// `-trigraphs`.
    Trigraphs,
    /// `-traditional-cpp`, `-traditional`.
    Traditional,
    /// `-fpreprocessed`.
    Preprocessed,
    /// `-fno-preprocessed`.
    NotPreprocessed,
    /// `-fdirectives-only`.
    DirectivesOnly,
    /// `-fdollars-in-identifiers`.
    Dollars,
    /// `-fno-dollars-in-identifiers`.
    NoDollars,
    /// `-fmax-include-depth=`.
    MaxIncludeDepth,
}

/// What a file that a command needs besides its source and headers is to the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequiredKind {
    /// `-fplugin=`: a path, or a bare name that the compiler looks up in its own plugin directory.
    Plugin,
    /// `-specs=`: a path, or a name that the compiler looks up among its own files.
    Specs,
    /// `-fauto-profile`: one file.
    AutoProfile,
    /// `-fsanitize-blacklist=` and its like.
    SanitizerList,
    /// `-B`: a prefix (mostly a directory) under which the compiler looks for its own parts, and `include/` in it.
    ExecPrefix,
    /// A file named in `-Wa,…` that the assembler reads before the compiler's output.
    AssemblerInput,
}

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The option as typed, dashes included, value excluded.
    pub name: &'static str,
    /// How it takes its value.
    pub shape: Shape,
    /// What it does.
    pub role: Role,
}

/// A row that fits a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match<'a> {
    /// The row.
    pub row: &'static Row,
    /// The joined value; `None` when there is none or the next word holds it.
    pub joined: Option<&'a OsStr>,
}

impl Match<'_> {
    /// Returns whether the next word is this option's value.
    pub fn takes_next(&self) -> bool {
        self.joined.is_none() && matches!(self.row.shape, Shape::Separate | Shape::Either)
    }
}

/// Finds the row for `word`, which begins with a dash.
///
/// Returns `None` for a word that is no option gcc could know by our table.
pub fn find(word: &OsStr) -> Option<Match<'_>> {
    let bytes = word.as_bytes();
    let mut key = bytes;
    loop {
        let end = table::ROWS.partition_point(|row| row.name.as_bytes() <= key);
        let row = &table::ROWS[end.checked_sub(1)?];
        let name = row.name.as_bytes();
        if let Some(rest) = bytes.strip_prefix(name) {
            let joined = match row.shape {
                Shape::Joined => Some(rest),
                Shape::Either if !rest.is_empty() => Some(rest),
                _ => None,
            };
            if joined.is_some() || rest.is_empty() {
                return Some(Match {
                    row,
                    joined: joined.map(OsStr::from_bytes),
                });
            }
            key = &bytes[..name.len() - 1];
        } else {
            // Any other name that begins `word` begins this row's name as well, so it is no longer than what they share.
            let shared = name.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            key = &bytes[..shared];
        }
    }
}

impl Role {
    /// Returns whether the option can change the macros the compiler predefines or its own search list.
    ///
    /// Errs on the side of yes: a yes costs one more question to the compiler, a wrong no costs a wrong scan.
    pub fn shapes_predefined(self) -> bool {
        match self {
            Role::Codegen | Role::Optimize | Role::FamilyF | Role::FamilyM => true,
            Role::Feature(feature) | Role::Without(feature) => feature.shapes_predefined(),
            Role::Lexical(lexical) => matches!(
                lexical,
                LexicalOption::Standard | LexicalOption::Ansi | LexicalOption::Undef | LexicalOption::Traditional
            ),
            Role::Search(search) => matches!(
                search,
                SearchOption::Sysroot | SearchOption::HeaderSysroot | SearchOption::Builtin | SearchOption::Prefix
            ),
            Role::Reads(kind) => matches!(
                kind,
                RequiredKind::Plugin | RequiredKind::Specs | RequiredKind::ExecPrefix
            ),
            _ => false,
        }
    }
}

/// Returns the reason why this option, with this value, keeps the command here, when it does.
pub fn local_reason(role: Role, value: Option<&OsStr>) -> Option<LocalReason> {
    let value = value.map(OsStr::as_bytes).unwrap_or_default();
    match role {
        Role::Local(reason) => Some(reason),
        Role::FamilyM => family_m_reason(value),
        Role::FamilyF => (!is_plain(assigned(value), b"")).then_some(LocalReason::UnknownOption),
        Role::Charset | Role::InputCharset => (!is_builtin_charset(value)).then_some(LocalReason::Charset),
        _ => None,
    }
}

/// Everything behind the first `=`, or nothing.
fn assigned(value: &[u8]) -> &[u8] {
    match value.iter().position(|byte| *byte == b'=') {
        Some(at) => &value[at + 1..],
        None => b"",
    }
}

fn family_m_reason(value: &[u8]) -> Option<LocalReason> {
    let assigned = assigned(value);
    if let Some(rest) = assigned.strip_prefix(b"native")
        && !rest.first().is_some_and(u8::is_ascii_alphanumeric)
    {
        return Some(LocalReason::NativeCpu);
    }
    // Names of processors have dots in them (`armv8.2-a`), names of files mostly slashes.
    (!is_plain(assigned, b".")).then_some(LocalReason::UnknownOption)
}

/// Tells a number, keyword or list of these from what could be the name of a file.
fn is_plain(value: &[u8], also: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_,:+-=%".contains(byte);
    value.iter().all(|byte| plain(byte) || also.contains(byte))
}

/// Tells the character sets that gcc converts by itself from those it asks the C library for.
fn is_builtin_charset(value: &[u8]) -> bool {
    const BUILTIN: [&[u8]; 7] = [
        b"UTF-8",
        b"UTF-16",
        b"UTF-16LE",
        b"UTF-16BE",
        b"UTF-32",
        b"UTF-32LE",
        b"UTF-32BE",
    ];
    BUILTIN.iter().any(|name| value.eq_ignore_ascii_case(name))
}

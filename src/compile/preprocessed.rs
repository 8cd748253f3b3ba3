//! Mode B: preprocess here, compile the preprocessed text elsewhere.
//!
//! The text stands at the source's own path over there, so every name that gcc derives from the source stays right,
//! and the words stay the user's apart from the `-M` family and `-fpreprocessed` (`-x assembler` for `.S`). That gives the same object only as long
//! as nothing in it depends on what preprocessing throws away: columns, the extent of macros, comments, the headers
//! themselves. [`exactness`] says no to every command that could show a difference, [`text_exactness`] to every text;
//! what they let pass was compared with gcc's own objects (`tests/it/real_gcc.rs`). Diagnostics do depend on what is
//! thrown away: a result with a word on stderr, from either run, is not to be used.

use std::ffi::OsString;
use std::path::Path;

use super::command::{CompileCommand, DependencyKind, Phony, Quoting};
use super::facts::{DebugLevel, Feature, Optimization};
use super::language::Language;
use super::options::Role;
use super::rewrite;
use super::survey::Stage;
use super::words::{Word, Words};

/// Why the object might differ if the source were preprocessed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NotExact {
    /// The source is not preprocessed at all: there is nothing to gain.
    #[error("nothing to preprocess")]
    NothingToPreprocess,
    /// `.debug_line` has columns, `.debug_macro` has macros, `DW_AT_producer` has the words.
    #[error("debug information")]
    Debug,
    /// Without optimization gcc keeps an instruction for each place in the source that a jump comes from, and tells places
    /// by their columns: jsoncpp's tests get ten more `nop`.
    #[error("no optimization")]
    Unoptimized,
    /// The compiler's own representation holds places in the source.
    #[error("link-time optimization")]
    Lto,
    /// Counters and notes are keyed by places in the source.
    #[error("coverage or profile")]
    Coverage,
    /// Reports of the sanitizers hold columns.
    #[error("sanitizer")]
    Sanitizer,
    /// Files beside the object name places in the source.
    #[error("files beside the object")]
    SideFiles,
    /// The command line is in the output.
    #[error("recorded command line")]
    RecordedCommandLine,
    /// A plugin or the analyzer sees what we cannot.
    #[error("plugin or analyzer")]
    Plugin,
    /// Comments, line markers or macros are handled unlike anybody else does.
    #[error("unusual preprocessing")]
    Preprocessing,
    /// The source's character set would be converted twice.
    #[error("input character set")]
    Charset,
    /// The words do not fit on a command line.
    #[error("command line too long")]
    TooLong,
    /// The text asks for its own place: `__builtin_LINE`, `__builtin_source_location`.
    #[error("place in the source as a value")]
    PlaceAsValue,
    /// A pragma changes predefined macros halfway, which gcc before 13 does not follow under `-E`; or an attribute may
    /// switch optimization off.
    #[error("target or optimize pragma, or optimize attribute")]
    OptionChange,
    /// The assembler reads further files: `.incbin`, `.include`.
    #[error("assembler input")]
    AssemblerInput,
}

/// Says whether preprocessing first can be told from the command to leave the output as it would be.
pub fn exactness(command: &CompileCommand) -> Result<(), NotExact> {
    const REFUSED: [(Feature, NotExact); 15] = [
        (Feature::DebugToggled, NotExact::Debug),
        (Feature::Lto, NotExact::Lto),
        (Feature::Coverage, NotExact::Coverage),
        (Feature::ProfileGenerate, NotExact::Coverage),
        (Feature::Sanitizer, NotExact::Sanitizer),
        (Feature::RecordedSwitches, NotExact::RecordedCommandLine),
        (Feature::Plugin, NotExact::Plugin),
        (Feature::Analyzer, NotExact::Plugin),
        (Feature::CompareDebug, NotExact::Plugin),
        (Feature::IncludeTrace, NotExact::Preprocessing),
        (Feature::KeptComments, NotExact::Preprocessing),
        (Feature::NoLineMarkers, NotExact::Preprocessing),
        (Feature::SeparatePreprocessor, NotExact::Preprocessing),
        (Feature::Progress, NotExact::Preprocessing),
        (Feature::InputCharset, NotExact::Charset),
    ];
    if !command.language.is_preprocessed_here() {
        return Err(NotExact::NothingToPreprocess);
    }
    if command.facts.debug != DebugLevel::None {
        return Err(NotExact::Debug);
    }
    if command.facts.optimization == Optimization::Off && command.language != Language::AssemblerWithCpp {
        return Err(NotExact::Unoptimized);
    }
    let features = command.facts.features;
    for (feature, reason) in REFUSED {
        if features.has(feature) {
            return Err(reason);
        }
    }
    if features.writes_side_files() {
        return Err(NotExact::SideFiles);
    }
    if features.has(Feature::VerboseAsm) && command.stage == Stage::Assembly {
        return Err(NotExact::RecordedCommandLine);
    }
    let lexical = &command.preprocess.lexical;
    if lexical.preprocessed || lexical.directives_only || lexical.traditional {
        return Err(NotExact::Preprocessing);
    }
    // The two command lines are longer than the user's by a few words at most.
    if !rewrite::fits(&command.argv) {
        return Err(NotExact::TooLong);
    }
    Ok(())
}

/// Says whether a preprocessed text holds anything that tells it from the source it came from.
pub fn text_exactness(text: &[u8]) -> Result<(), NotExact> {
    const REFUSED: [(&[u8], NotExact); 4] = [
        (b"__builtin_LINE", NotExact::PlaceAsValue),
        (b"__builtin_source_location", NotExact::PlaceAsValue),
        (b".incbin", NotExact::AssemblerInput),
        (b".include", NotExact::AssemblerInput),
    ];
    for (needle, reason) in REFUSED {
        if memchr::memmem::find(text, needle).is_some() {
            return Err(reason);
        }
    }
    let optimize = memchr::memmem::Finder::new(b"optimize");
    if optimize.find_iter(text).any(|at| is_attribute(text, at)) {
        return Err(NotExact::OptionChange);
    }
    let pragma = memchr::memmem::Finder::new(b"#pragma");
    if pragma
        .find_iter(text)
        .any(|at| changes_options(&text[at + b"#pragma".len()..]))
    {
        return Err(NotExact::OptionChange);
    }
    Ok(())
}

/// Tells whether the `optimize` at `at` is a whole word, or nearly (`__optimize__`), with a parenthesis behind it.
fn is_attribute(text: &[u8], at: usize) -> bool {
    let before = text[..at].strip_suffix(b"__").unwrap_or(&text[..at]);
    let after = &text[at + b"optimize".len()..];
    let after = after.strip_prefix(b"__").unwrap_or(after).trim_ascii_start();
    after.first() == Some(&b'(')
        && !before
            .last()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Reads what follows `#pragma`.
fn changes_options(rest: &[u8]) -> bool {
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line
        .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .filter(|word| !word.is_empty());
    words.next() == Some(b"GCC")
        && matches!(
            words.next(),
            Some(b"target" | b"optimize" | b"push_options" | b"pop_options" | b"reset_options")
        )
}

/// Returns the words of the run that preprocesses here, into `text`.
///
/// It also writes the list of dependencies that the user asked for, as the compile itself would have.
pub fn local_preprocess(command: &CompileCommand, text: &Path) -> Vec<OsString> {
    let mut argv = Vec::with_capacity(command.argv.len() + 8);
    let without = rewrite::without_dependencies(&command.argv);
    for word in Words::new(&without) {
        match word {
            Word::Option { row, words, .. } => {
                if !matches!(row.role, Role::Compile | Role::Assembly | Role::Output) {
                    argv.extend_from_slice(words);
                }
            }
            Word::File(word) | Word::Unknown(word) | Word::MissingValue(word) => {
                argv.push(word.to_owned());
            }
        }
    }
    argv.extend([OsString::from("-E"), OsString::from("-o"), text.into()]);
    if let Some(list) = &command.dependencies {
        // Handed to the compiler proper: the driver would sort the targets anew and add one of its own.
        let mut hand_over = |word: OsString| argv.extend([OsString::from("-Xpreprocessor"), word]);
        hand_over(match list.kind {
            DependencyKind::All => "-MD".into(),
            DependencyKind::User => "-MMD".into(),
        });
        hand_over(list.file.clone().into());
        for target in &list.targets {
            hand_over(match target.quoting {
                Quoting::Raw => "-MT".into(),
                Quoting::Quoted => "-MQ".into(),
            });
            hand_over(target.text.clone());
        }
        if list.phony == Phony::Yes {
            hand_over("-MP".into());
        }
    }
    argv
}

/// Returns the words of the run that compiles the preprocessed text, which stands at the source's path.
pub fn remote_compile(command: &CompileCommand) -> Vec<OsString> {
    let without = rewrite::without_dependencies(&command.argv);
    if command.language != Language::AssemblerWithCpp {
        let mut argv = without;
        argv.push("-fpreprocessed".into());
        return argv;
    }
    // Asked to preprocess preprocessed assembler, gcc 12 eats the first character.
    let mut argv = Vec::with_capacity(without.len() + 2);
    for word in Words::new(&without) {
        match word {
            Word::Option { words, .. } => argv.extend_from_slice(words),
            Word::File(source) => {
                argv.extend(["-x".into(), Language::Assembler.name().into(), source.into()]);
            }
            Word::Unknown(word) | Word::MissingValue(word) => argv.push(word.to_owned()),
        }
    }
    argv
}

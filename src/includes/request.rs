//! What a scan starts from: the parts of a compile command that decide which files it reads.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dialect::Language;
use super::predefined::Facts;
use crate::compile::{self, CompileCommand, PreprocessOptions};

/// What to scan, and how the compiler would look at it.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The language that the source is preprocessed as.
    pub language: Language,
    /// The source as spelled on the command line.
    pub source: PathBuf,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// Macros, search path, forced headers.
    pub options: PreprocessOptions,
    /// Where the assembler looks behind the working directory and all `-I`.
    pub assembler_dirs: Vec<PathBuf>,
    /// Choices that are on or off.
    pub switches: Switches,
    /// What the compiler says of itself, asked once per toolchain and [`probe_words`].
    pub facts: Arc<Facts>,
}

/// Choices that are on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// Off with `-fno-operator-names`.
    pub operator_names: bool,
    /// Off with `-fno-canonical-system-headers`.
    pub canonical_system_headers: bool,
    /// On with `-ffile-prefix-map=` and `-fmacro-prefix-map=`: `__FILE__` says something else.
    pub file_macro_is_mapped: bool,
    /// On with a character set other than UTF-8 for the source or the program: constants have other values.
    pub other_characters: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            operator_names: true,
            canonical_system_headers: true,
            file_macro_is_mapped: false,
            other_characters: false,
        }
    }
}

/// Options that name a character set.
const CHARSETS: [&[u8]; 3] = [b"-finput-charset=", b"-fexec-charset=", b"-fwide-exec-charset="];

impl Switches {
    /// Reads the switches off a command's words.
    fn of(argv: &[OsString]) -> Self {
        let mut switches = Self::default();
        for word in argv.iter().map(|word| word.as_bytes()) {
            match word.strip_prefix(b"-Wp,") {
                Some(list) => list.split(|b| *b == b',').for_each(|word| switches.take(word)),
                None => switches.take(word),
            }
        }
        switches
    }

    fn take(&mut self, word: &[u8]) {
        let begins = |options: &[&[u8]]| options.iter().any(|option| word.starts_with(option));
        match word {
            b"-foperator-names" => self.operator_names = true,
            b"-fno-operator-names" => self.operator_names = false,
            b"-fcanonical-system-headers" => self.canonical_system_headers = true,
            b"-fno-canonical-system-headers" => self.canonical_system_headers = false,
            _ if begins(&[b"-ffile-prefix-map=", b"-fmacro-prefix-map="]) => self.file_macro_is_mapped = true,
            _ if begins(&CHARSETS) => {
                let value = word.split(|b| *b == b'=').nth(1).unwrap_or_default();
                self.other_characters |= !value.eq_ignore_ascii_case(b"UTF-8");
            }
            _ => {}
        }
    }
}

impl ScanRequest {
    /// A request with nothing but a source; the rest as a bare compiler has it.
    pub fn new(language: Language, source: &Path, cwd: &Path, facts: Arc<Facts>) -> Self {
        Self {
            language,
            source: source.to_path_buf(),
            cwd: cwd.to_path_buf(),
            options: PreprocessOptions::default(),
            assembler_dirs: Vec::new(),
            switches: Switches::default(),
            facts,
        }
    }

    /// The request of a compile command run in `cwd`; `None` for languages that are not preprocessed.
    pub fn of(command: &CompileCommand, cwd: &Path, facts: Arc<Facts>) -> Option<Self> {
        let language = match command.language {
            compile::Language::C => Language::C,
            compile::Language::Cxx => Language::Cxx,
            compile::Language::AssemblerWithCpp => Language::Assembler,
            _ => return None,
        };
        Some(Self {
            options: command.preprocess.clone(),
            assembler_dirs: command.assembler_dirs.clone(),
            switches: Switches::of(&command.argv),
            ..Self::new(language, &command.source, cwd, facts)
        })
    }
}

/// Returns the words that decide what the compiler says of itself: the key of its [`Facts`], besides driver and language,
/// and the flags for asking it.
pub fn probe_words(options: &PreprocessOptions) -> Vec<OsString> {
    let mut words = options.predefined_words.clone();
    if options.nostdinc {
        words.push(OsStr::new("-nostdinc").to_owned());
    }
    if options.nostdinc_cxx {
        words.push(OsStr::new("-nostdinc++").to_owned());
    }
    words
}

//! Which language a source is in: by `-x`, by its suffix, and by the driver.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::file_name::{last_dot, split_directories};
use super::reason::LocalReason;

/// Which driver was called: it decides what `.c`, `.h` and `.i` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Driver {
    /// `gcc`, `cc`.
    C,
    /// `g++`, `c++`.
    Cxx,
}

/// The languages that the farm compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// C (`.c`).
    C,
    /// Preprocessed C (`.i`).
    CPreprocessed,
    /// C++ (`.cc`, `.cpp`, …).
    Cxx,
    /// Preprocessed C++ (`.ii`).
    CxxPreprocessed,
    /// Assembler (`.s`).
    Assembler,
    /// Assembler that is preprocessed first (`.S`, `.sx`).
    AssemblerWithCpp,
}

impl Language {
    /// Returns the name that `-x` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::CPreprocessed => "cpp-output",
            Language::Cxx => "c++",
            Language::CxxPreprocessed => "c++-cpp-output",
            Language::Assembler => "assembler",
            Language::AssemblerWithCpp => "assembler-with-cpp",
        }
    }

    /// Returns whether the preprocessor runs over the source.
    pub const fn is_preprocessed_here(self) -> bool {
        matches!(self, Language::C | Language::Cxx | Language::AssemblerWithCpp)
    }

    /// Returns whether the C++ compiler proper is used.
    pub const fn is_cxx(self) -> bool {
        matches!(self, Language::Cxx | Language::CxxPreprocessed)
    }
}

/// What a file on the command line is to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A source in a language of ours.
    Source(Language),
    /// A source, but not for us.
    Elsewhere(LocalReason),
    /// Not a source: the linker gets it.
    LinkerInput,
}

/// Tells what a file is that `-x` has not spoken about.
pub(super) fn by_suffix(file: &OsStr, driver: Driver) -> FileKind {
    use FileKind::*;
    let (_, name) = split_directories(file.as_bytes());
    let Some(dot) = last_dot(name) else {
        return LinkerInput;
    };
    let cxx = driver == Driver::Cxx;
    match &name[dot + 1..] {
        b"c" if cxx => Source(Language::Cxx),
        b"i" if cxx => Source(Language::CxxPreprocessed),
        b"c" => Source(Language::C),
        b"i" => Source(Language::CPreprocessed),
        b"ii" => Source(Language::CxxPreprocessed),
        b"cc" | b"cp" | b"cxx" | b"cpp" | b"c++" | b"C" | b"CPP" => Source(Language::Cxx),
        b"s" => Source(Language::Assembler),
        b"S" | b"sx" => Source(Language::AssemblerWithCpp),
        b"h" | b"hh" | b"H" | b"hp" | b"hxx" | b"hpp" | b"HPP" | b"h++" | b"tcc" => Elsewhere(LocalReason::Pch),
        b"ixx" | b"cppm" | b"cxxm" | b"c++m" | b"ccm" => Elsewhere(LocalReason::Modules),
        b"m" | b"mm" | b"M" | b"mi" | b"mii" | b"f" | b"for" | b"ftn" | b"F" | b"FOR" | b"FTN" | b"fpp" | b"FPP"
        | b"f90" | b"f95" | b"f03" | b"f08" | b"F90" | b"F95" | b"F03" | b"F08" | b"ads" | b"adb" | b"go" | b"d"
        | b"di" | b"dd" | b"brig" | b"mod" | b"def" | b"java" | b"rs" | b"cu" | b"hip" => {
            Elsewhere(LocalReason::UnsupportedLanguage)
        }
        _ => LinkerInput,
    }
}

/// Tells what a file is for which `-x` gave `language` (anything but `none`).
pub(super) fn by_name(language: &OsStr) -> FileKind {
    use FileKind::*;
    match language.as_bytes() {
        b"c" => Source(Language::C),
        b"cpp-output" => Source(Language::CPreprocessed),
        b"c++" => Source(Language::Cxx),
        b"c++-cpp-output" => Source(Language::CxxPreprocessed),
        b"assembler" => Source(Language::Assembler),
        b"assembler-with-cpp" => Source(Language::AssemblerWithCpp),
        b"c-header" | b"c++-header" => Elsewhere(LocalReason::Pch),
        b"c++-system-header" | b"c++-user-header" => Elsewhere(LocalReason::Modules),
        _ => Elsewhere(LocalReason::UnsupportedLanguage),
    }
}

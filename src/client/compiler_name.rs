//! What a program's name says: is it a compiler driver, and for which language?
//!
//! Names only, no files. Cross prefixes (`arm-linux-gnueabi-gcc`), versions (`gcc-12.2`) and Buildroot's suffix
//! (`gcc.br_real`) are looked through.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::compile::file_name;

/// What a program called like a compiler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Compiles C.
    C,
    /// Compiles C++.
    Cxx,
    /// Preprocesses.
    Preprocessor,
    /// Compiles another language.
    Other,
}

/// Tells what `program` (a name or a path) does; `None` when it is not called like a compiler.
pub fn kind_of(program: &OsStr) -> Option<Kind> {
    let name = base_name(program).as_bytes();
    let name = name.strip_suffix(b".br_real").unwrap_or(name);
    let name = without_version(name);
    // What remains is the driver's name, alone or behind a cross prefix.
    let driver = match name.iter().rposition(|byte| *byte == b'-') {
        Some(dash) => &name[dash + 1..],
        None => name,
    };
    match driver {
        b"gcc" | b"cc" | b"clang" | b"c89" | b"c99" => Some(Kind::C),
        b"g++" | b"c++" | b"clang++" => Some(Kind::Cxx),
        b"cpp" => Some(Kind::Preprocessor),
        b"gfortran" | b"gdc" | b"gccgo" | b"gnat" | b"gnatmake" => Some(Kind::Other),
        _ => None,
    }
}

/// Returns the part behind the last slash.
pub fn base_name(program: &OsStr) -> &OsStr {
    OsStr::from_bytes(file_name::split_directories(program.as_bytes()).1)
}

fn without_version(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte == b'-') {
        Some(dash) if is_version(&name[dash + 1..]) => &name[..dash],
        _ => name,
    }
}

fn is_version(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit) && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_known_by_name() {
        for (program, kind) in [
            ("gcc", Some(Kind::C)),
            ("/usr/bin/cc", Some(Kind::C)),
            ("arm-linux-gnueabi-gcc-12", Some(Kind::C)),
            ("/host/bin/arm-linux-gcc.br_real", Some(Kind::C)),
            ("x86_64-linux-gnu-g++-12.2.0", Some(Kind::Cxx)),
            ("arm-linux-g++.br_real", Some(Kind::Cxx)),
            ("clang++-15", Some(Kind::Cxx)),
            ("cpp", Some(Kind::Preprocessor)),
            ("arm-linux-gnueabi-cpp-12", Some(Kind::Preprocessor)),
            ("gfortran", Some(Kind::Other)),
        ] {
            assert_eq!(kind_of(OsStr::new(program)), kind, "{program}");
        }
    }

    #[test]
    fn other_programs_are_not_drivers() {
        for program in [
            "", "-", "foo.c", "x.cc", "gcc.c", "gcc-ar", "gcc-12-x", "ld", "stats", "a/", "agcc", "gcc/", "12",
        ] {
            assert_eq!(kind_of(OsStr::new(program)), None, "{program}");
        }
    }
}

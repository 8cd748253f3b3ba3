//! Tells the tiny compiles with which build systems find out about a machine.
//!
//! They are short, come one after the other, and some of them are meant to fail: sending them away makes `configure`
//! slower and its log odd. Only names that nobody uses for real sources are taken; a miss costs a little time, no more.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::file_name::split_directories;

/// Stems of the sources that CMake's own modules write.
const CMAKE_STEMS: [&[u8]; 12] = [
    b"CMakeCCompilerId",
    b"CMakeCXXCompilerId",
    b"CMakeCCompilerABI",
    b"CMakeCXXCompilerABI",
    b"CheckFunctionExists",
    b"CheckIncludeFile",
    b"CheckIncludeFiles",
    b"CheckPrototypeExists",
    b"CheckSymbolExists",
    b"CheckTypeSize",
    b"CheckVariableExists",
    b"CheckForPthreads",
];

/// Returns whether `path`, a source or an output, belongs to a test of autoconf, CMake or meson.
pub fn is_probe(path: &OsStr) -> bool {
    let (directories, name) = split_directories(path.as_bytes());
    let stem = match name.iter().position(|byte| *byte == b'.') {
        Some(dot) => &name[..dot],
        None => name,
    };
    stem == b"conftest"
        || name.starts_with(b"tmp.conftest.")
        || name.starts_with(b"sanitycheck")
        || (stem == b"testfile" && directories.split(|b| *b == b'/').any(is_meson_directory))
        || CMAKE_STEMS.contains(&stem)
        || directories.split(|b| *b == b'/').any(is_cmake_directory)
}

fn is_cmake_directory(name: &[u8]) -> bool {
    name == b"CMakeTmp" || name == b"CMakeScratch" || name.starts_with(b"cmTC_")
}

fn is_meson_directory(name: &[u8]) -> bool {
    name == b"meson-private"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_build_systems_are_told_from_sources() {
        for path in [
            "conftest.c",
            "/b/conftest.cpp",
            "tmp.conftest.c",
            "/b/CMakeFiles/CMakeScratch/TryCompile-x1/src.c",
            "/b/CMakeFiles/CMakeTmp/testCCompiler.c",
            "CMakeFiles/cmTC_1a2b3.dir/src.c.o",
            "CheckIncludeFile.c",
            "CMakeCCompilerId.c",
            "/b/meson-private/sanitycheckc.c",
            "/b/meson-private/tmpx1/testfile.c",
        ] {
            assert!(is_probe(OsStr::new(path)), "{path}");
        }
        for path in [
            "conftestable.c",
            "src/CheckBox.cpp",
            "CheckInput.c",
            "testfile.c",
            "CMakeFiles/app.dir/main.c.o",
            "src.c",
            "",
        ] {
            assert!(!is_probe(OsStr::new(path)), "{path}");
        }
    }
}

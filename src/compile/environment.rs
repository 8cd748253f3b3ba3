//! Which environment variables matter to gcc, and how.
//!
//! Only names and values that are handed in: nothing here looks at the process's own environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::command::EnvironmentDirs;
use super::language::Language;
use super::reason::LocalReason;

/// Variables besides `LC_*` that can change what the compiler or the assembler writes, to files or to the terminal.
///
/// `PWD` is what gcc puts into debug information when it names the working directory; `STAGING_DIR` is asked for by
/// OpenWrt's compilers.
const RELEVANT: [&str; 18] = [
    "COLUMNS",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "C_INCLUDE_PATH",
    "GCC_COLORS",
    "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "GCC_URLS",
    "GNUTARGET",
    "LANG",
    "LANGUAGE",
    "LIBRARY_PATH",
    "NO_COLOR",
    "OBJC_INCLUDE_PATH",
    "PWD",
    "SOURCE_DATE_EPOCH",
    "STAGING_DIR",
    "TERM",
    "TERM_URLS",
];

/// Returns whether a variable of this name belongs into a job.
pub fn is_relevant(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"LC_") || RELEVANT.iter().any(|known| name == *known)
}

/// Returns the reason why this environment keeps every compile here, with the variable's name.
pub fn objection(env: &[(OsString, OsString)]) -> Option<(LocalReason, &OsStr)> {
    env.iter().find_map(|(name, value)| {
        let reason = match name.as_bytes() {
            b"DEPENDENCIES_OUTPUT" | b"SUNPRO_DEPENDENCIES" => LocalReason::EnvDependencies,
            b"GCC_COMPARE_DEBUG" if !value.is_empty() => LocalReason::EnvCompareDebug,
            b"GCC_EXEC_PREFIX" | b"COMPILER_PATH" if !value.is_empty() => LocalReason::EnvExecPrefix,
            _ => return None,
        };
        Some((reason, name.as_os_str()))
    })
}

/// Returns the variable that says where temporary files go, if one does.
pub fn temporary_directory(env: &[(OsString, OsString)]) -> Option<&OsStr> {
    let names = |name: &OsStr| ["TMPDIR", "TMP", "TEMP"].iter().any(|known| name == *known);
    let (name, _) = env.iter().find(|(name, value)| names(name) && !value.is_empty())?;
    Some(name)
}

/// Returns the directories that the environment adds for sources in `language`.
pub fn include_dirs(env: &[(OsString, OsString)], language: Language) -> EnvironmentDirs {
    let dirs = |wanted: &str| {
        env.iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| split_path(value))
            .unwrap_or_default()
    };
    EnvironmentDirs {
        cpath: dirs("CPATH"),
        language: if language.is_cxx() {
            dirs("CPLUS_INCLUDE_PATH")
        } else {
            dirs("C_INCLUDE_PATH")
        },
    }
}

/// Splits at colons; an empty element is the working directory, an empty list has no elements.
fn split_path(value: &OsStr) -> Vec<PathBuf> {
    if value.is_empty() {
        return Vec::new();
    }
    value
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|dir| match dir {
            b"" => PathBuf::from("."),
            dir => PathBuf::from(OsStr::from_bytes(dir)),
        })
        .collect()
}

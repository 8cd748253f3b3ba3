//! Which environment variables a compiler may read.
//!
//! The wrapper sends these and no others. Too many costs a few bytes; one too few would make the remote compile another
//! compile, so whole families are taken: gcc's own variables, the locale, what decides on colours, and the variables by
//! which compiler wrappers (Buildroot's among them) are steered. Credentials that sit in a build's environment stay home.
//! Invariant: the tables are sorted.

/// Names taken as they are.
const NAMES: &[&str] = &[
    "COLORTERM",
    "COLUMNS",
    "COMPILER_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "C_INCLUDE_PATH",
    "DEPENDENCIES_OUTPUT",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "LOCPATH",
    "NLSPATH",
    "NO_COLOR",
    "OBJCPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "PATH",
    "POSIXLY_CORRECT",
    "PWD",
    "SOURCE_DATE_EPOCH",
    "SUNPRO_DEPENDENCIES",
    "TEMP",
    "TERM",
    "TERM_PROGRAM",
    "TERM_URLS",
    "TMP",
    "TMPDIR",
    "TZ",
    "VTE_VERSION",
];

/// Beginnings of names. `COLLECT_` is for gcc's helpers, `BR2_`, `BR_` and `TOOLCHAIN_` for the toolchain wrappers of
/// Buildroot and its kind. `LD_PRELOAD` is left out on purpose: the library is not on the worker, and the loader would say
/// so on the compiler's stderr.
const FAMILIES: &[&str] = &[
    "ASAN_",
    "BR2_",
    "BR_",
    "CLANG_",
    "COLLECT_",
    "GCC_",
    "LC_",
    "TOOLCHAIN_",
];

/// Tells whether a compiler may read the variable `name`.
pub fn matters(name: &[u8]) -> bool {
    NAMES.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok()
        || FAMILIES.iter().any(|family| name.starts_with(family.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(NAMES.is_sorted());
        assert!(FAMILIES.is_sorted());
    }

    #[test]
    fn what_steers_a_compiler_matters_and_secrets_do_not() {
        for name in [
            "CPATH",
            "LC_ALL",
            "LANG",
            "GCC_COLORS",
            "GCC_EXEC_PREFIX",
            "PWD",
            "BR2_DEBUG_WRAPPER",
        ] {
            assert!(matters(name.as_bytes()), "{name}");
        }
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "MAKEFLAGS",
            "LD_PRELOAD",
            "LANGUAGES",
            "RDCC_TOOLCHAIN",
            "",
            "PATHX",
        ] {
            assert!(!matters(name.as_bytes()), "{name}");
        }
    }
}

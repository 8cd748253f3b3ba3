//! The table of commands in `tests/fixtures/commands`: everything that compile farms get wrong or leave out, and what
//! becomes of it here. Response files and the environment do not fit on a line; they follow below.

use super::{check, check_in};

/// Checks each line `claim | command | expected`; blank lines and those that begin with `#` are for the reader.
fn check_table(table: &str) {
    for line in table.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split(" | ").collect();
        let [claim, command, expected] = columns[..] else {
            panic!("not `claim | command | expected`: {line}");
        };
        check(command, expected, claim);
    }
}

macro_rules! tables {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check_table(include_str!(concat!("../../../tests/fixtures/commands/", stringify!($name), ".txt")));
            }
        )*
    };
}

tables! { stages languages probes machine side_files assembler dependencies preprocessor }

#[test]
fn response_files() {
    let files = [
        ("args", "-c foo.c -O2\n-DX='a b'"),
        ("nested", "@args -o x.o"),
        ("native", "-march=native"),
        ("odd", r"'a\b'"),
        ("endless", "@endless"),
    ];
    for (command, expected, claim) in [
        (
            "gcc @args",
            "c foo.c -> foo.o",
            "-c inside one, which distcc does not see",
        ),
        ("gcc @nested", "c foo.c -> x.o", "one in the other"),
        (
            "gcc @args @native",
            "local native_cpu (-march=native)",
            "native inside one",
        ),
        (
            "gcc @none -c foo.c",
            "local linker_input (@none)",
            "an unreadable one is a file name",
        ),
        (
            "gcc -c foo.c @odd",
            "local response_file (response file `odd` has a NUL byte, or a backslash that releases of gcc read differently)",
            "no guessing",
        ),
        (
            "gcc -c foo.c @endless",
            "local response_file (more than 200 response files)",
            "an endless one",
        ),
        (
            "gcc -c foo.c -o @args",
            "local several_sources (foo.c)",
            "expansion comes before everything",
        ),
    ] {
        check_in(command, &[], &files, expected, claim);
    }
}

#[test]
fn environment() {
    for (name, value, expected, claim) in [
        (
            "DEPENDENCIES_OUTPUT",
            "d",
            "local env_dependencies (DEPENDENCIES_OUTPUT)",
            "a list by environment",
        ),
        (
            "DEPENDENCIES_OUTPUT",
            "",
            "local env_dependencies (DEPENDENCIES_OUTPUT)",
            "even if empty",
        ),
        (
            "SUNPRO_DEPENDENCIES",
            "d",
            "local env_dependencies (SUNPRO_DEPENDENCIES)",
            "the other one",
        ),
        (
            "GCC_COMPARE_DEBUG",
            "-gtoggle",
            "local env_compare_debug (GCC_COMPARE_DEBUG)",
            "compiles twice",
        ),
        (
            "GCC_EXEC_PREFIX",
            "/x/",
            "local env_exec_prefix (GCC_EXEC_PREFIX)",
            "another compiler's parts",
        ),
        (
            "COMPILER_PATH",
            "/x",
            "local env_exec_prefix (COMPILER_PATH)",
            "another compiler's parts",
        ),
        ("CPATH", "/x", "c a.c -> a.o", "directories are taken along"),
        ("SOURCE_DATE_EPOCH", "1", "c a.c -> a.o", "forwarded"),
        ("TMPDIR", "/x", "c a.c -> a.o", "names no file that stays"),
    ] {
        check_in("gcc -c a.c", &[(name, value)], &[], expected, claim);
    }
    check_in(
        "gcc -c a.c -Wa,-al=x.lst",
        &[("TMPDIR", "/x")],
        &[],
        "local env_temporary_directory (TMPDIR)",
        "a listing names the assembler's temporary file",
    );
}

//! The dependency scanner against the real compiler.
//!
//! Skipped, with a word, where there is no gcc. `RDCC_SCAN_TREES=N` makes N trees instead of a few; a failure prints the
//! seed, and `RDCC_SCAN_SEED=S` runs that one alone.

mod cases;
mod expressions;
mod generate;
mod mutations;
mod system_headers;
mod trees;

use std::ffi::OsString;

use crate::support::gcc::Compiler;

/// The compilers to compare with; says so for each that is missing.
fn compilers() -> Vec<(String, Compiler)> {
    ["gcc", "arm-linux-gnueabi-gcc"]
        .into_iter()
        .filter_map(|program| match Compiler::find(program) {
            Some(compiler) => Some((program.to_owned(), compiler)),
            None => {
                println!("skipped: no {program} here");
                None
            }
        })
        .collect()
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

/// A number from the environment, or `default`.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// The seeds to run: the one asked for, or as many as asked for.
fn seeds(default_count: u64) -> Vec<u64> {
    match number("RDCC_SCAN_SEED", u64::MAX) {
        u64::MAX => (1..=number("RDCC_SCAN_TREES", default_count)).collect(),
        seed => vec![seed],
    }
}

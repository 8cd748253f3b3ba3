//! Units that nobody would write: texts with lines and tokens moved, dropped and mixed.
//!
//! Where the compiler takes such a unit, the closure equals its list or the scan says that it cannot decide; and bytes of
//! any kind make no scan panic or run away. `RDCC_SCAN_TREES=N` makes N units; `RDCC_SCAN_SEED=S` runs one again.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdcc::compile::Driver;
use rdcc::includes::source_tree::disk::{Bounds, DiskTree};

use super::cases::{Compared, case_sources, compare, write_tree};
use super::{compilers, seeds, words};
use crate::support::gcc::parse;

/// What is put in where something is wanted.
const SNIPPETS: [&str; 56] = [
    "\\\n",
    "/*",
    "*/",
    "//",
    "\"",
    "'",
    "R\"(",
    ")\"",
    "#",
    "##",
    "%:",
    "??=",
    "??/",
    "(",
    ")",
    ",",
    "...",
    "defined",
    "__VA_ARGS__",
    "__VA_OPT__",
    "__VA_OPT__(",
    "_Pragma",
    "__has_include(",
    "__has_include_next(<n.h>)",
    "<x.h>",
    "\"1.h\"",
    "__LINE__",
    "__FILE__",
    "__COUNTER__",
    "1",
    "0u",
    "'a'",
    "L'\\0'",
    "0x7fffffffffffffff",
    "1'0",
    "A",
    "F",
    "B",
    "x",
    "+",
    "-",
    "&&",
    "||",
    "?",
    ":",
    "<<",
    "\r\n",
    "\0",
    "\u{e9}",
    "$",
    "#if 1\n",
    "\n#endif\n",
    "\n#else\n",
    "\n#elif A\n",
    "\n#include \"2.h\"\n",
    "and",
];

/// Commands to compile a unit with.
const COMMANDS: [&str; 8] = [
    "-c -x c",
    "-c -x c -std=c89 -DA",
    "-c -x c -std=c2x -DF(x)=x",
    "-c -x c++",
    "-c -x c++ -std=c++11 -DA=B",
    "-c -x c++ -std=gnu++20 -DF(x,...)=x##__VA_OPT__(x)",
    "-c -x assembler-with-cpp -DA=0",
    "-c -x c -std=gnu99 -trigraphs -include guard.h",
];

/// A text made of others.
fn mutated(random: &mut ChaCha8Rng, texts: &[Vec<u8>]) -> Vec<u8> {
    let any = |random: &mut ChaCha8Rng| &texts[random.random_range(0..texts.len())];
    let mut text = any(random).clone();
    for _ in 0..random.random_range(1..4) {
        let other = any(random);
        match random.random_range(0..8) {
            0 => text.extend_from_slice(other),
            1..=3 => on_lines(random, &mut text, other),
            4 | 5 => on_tokens(random, &mut text),
            6 => {
                let at = random.random_range(0..=text.len());
                let snippet = SNIPPETS[random.random_range(0..SNIPPETS.len())];
                text.splice(at..at, snippet.bytes());
            }
            _ => {
                let from = random.random_range(0..=text.len());
                let to = (from + random.random_range(0..6)).min(text.len());
                text.drain(from..to);
            }
        }
    }
    text
}

/// Moves, doubles, drops or borrows a line.
fn on_lines(random: &mut ChaCha8Rng, text: &mut Vec<u8>, other: &[u8]) {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    let others: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
    if lines.is_empty() || others.is_empty() {
        return;
    }
    let (at, to) = (random.random_range(0..lines.len()), random.random_range(0..lines.len()));
    match random.random_range(0..4) {
        0 => lines.swap(at, to),
        1 => lines.insert(to, lines[at]),
        2 => {
            lines.remove(at);
        }
        _ => lines.insert(at, others[random.random_range(0..others.len())]),
    }
    *text = lines.concat();
}

/// Replaces or follows one run of letters, or one other byte, by something else.
fn on_tokens(random: &mut ChaCha8Rng, text: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut from = random.random_range(0..text.len());
    let mut to = from + 1;
    if word(text[from]) {
        while from > 0 && word(text[from - 1]) {
            from -= 1;
        }
        while to < text.len() && word(text[to]) {
            to += 1;
        }
    }
    if random.random_ratio(1, 3) {
        from = to;
    }
    let snippet = SNIPPETS[random.random_range(0..SNIPPETS.len())];
    text.splice(from..to, snippet.bytes());
}

fn command(random: &mut ChaCha8Rng) -> Vec<OsString> {
    let mut argv = words(COMMANDS[random.random_range(0..COMMANDS.len())]);
    argv.extend(words("-Iinc -Iinc2 main.c"));
    argv
}

#[test]
fn mixed_units_have_the_compilers_list_or_none() {
    let directory = tempfile::tempdir().expect("a directory for the tree");
    let root = directory.path();
    write_tree(root);
    let texts = case_sources();
    for (program, mut compiler) in compilers().into_iter().take(1) {
        let seeds = seeds(200);
        let (mut equal, mut undecided, mut rejected) = (0, 0, 0);
        for seed in &seeds {
            let mut random = ChaCha8Rng::seed_from_u64(*seed);
            let text = mutated(&mut random, &texts);
            let argv = command(&mut random);
            fs::write(root.join("main.c"), &text).expect("a source can be written");
            match compare(&mut compiler, root, &argv) {
                Compared::Equal => equal += 1,
                Compared::Undecided(_) => undecided += 1,
                Compared::Rejected => rejected += 1,
                Compared::Wrong(difference) => panic!(
                    "{difference}\n{}\nRDCC_SCAN_SEED={seed} cargo test --test it includes::mutations\n  {program} {argv:?}",
                    String::from_utf8_lossy(&text)
                ),
            }
        }
        println!("{program}: {equal} equal, {undecided} undecided, {rejected} rejected by the compiler");
        assert!(seeds.len() < 50 || equal > seeds.len() / 10, "too little was compared");
    }
}

/// Real headers to spoil.
fn real_headers() -> Vec<Vec<u8>> {
    let names = [
        "/usr/include/features.h",
        "/usr/include/stdio.h",
        "/usr/include/limits.h",
        "/usr/include/tgmath.h",
        "/usr/include/c++/12/bits/c++config.h",
    ];
    names.iter().filter_map(|name| fs::read(Path::new(name)).ok()).collect()
}

#[test]
fn spoilt_headers_and_random_bytes_end_every_scan() {
    let Some((program, mut compiler)) = compilers().into_iter().next() else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory for the tree");
    let root = directory.path();
    write_tree(root);
    let mut texts = case_sources();
    texts.extend(real_headers());
    // Headers are long; they shall come up as often as all cases together.
    for _ in 0..3 {
        texts.extend(real_headers());
    }
    let (mut closures, mut refused) = (0, 0);
    for seed in seeds(600) {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0xf0_22);
        let mut text = mutated(&mut random, &texts);
        for _ in 0..random.random_range(0..8) {
            if !text.is_empty() {
                let at = random.random_range(0..text.len());
                text[at] = random.random();
            }
        }
        fs::write(root.join("main.c"), &text).expect("a source can be written");
        let argv = command(&mut random);
        let command = parse(&argv, &[], Driver::C);
        let tree = DiskTree::new(Bounds::default());
        match compiler.scan(&command, root, &tree) {
            Ok(_) => closures += 1,
            Err(_) => refused += 1,
        }
    }
    println!("{program}: {closures} closures, {refused} refused");
}

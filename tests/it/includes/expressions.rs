//! Random conditions and header names: their values are the compiler's.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rdcc::compile::Driver;
use rdcc::includes::closure::NoClosure;
use rdcc::includes::source_tree::disk::{Bounds, DiskTree};

use super::generate::{EXPRESSION_MACROS, STRINGIFIED_MACROS, expression, stringified};
use super::{compilers, seeds, words};
use crate::support::gcc::{Compiler, parse, spellings};

/// Expressions in one source.
const EXPRESSIONS: usize = 60;

/// Values are told apart by these bits, and by sign.
const BITS: u32 = 6;

fn check_values(compiler: &mut Compiler, program: &str, seed: u64, language: &str) {
    let directory = tempfile::tempdir().expect("a directory for the source");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut source = EXPRESSION_MACROS.to_owned();
    let mut expressions = Vec::new();
    for number in 0..EXPRESSIONS {
        let text = expression(&mut random, 3);
        let text = match number % 8 {
            0 => format!("defined M1 + {text}"),
            1 => format!("(defined(nope) || {text})"),
            2 if language != "assembler-with-cpp" => format!("({text}) ^ u'x' ^ U'\\U0001F600'"),
            _ => text,
        };
        for bit in 0..BITS {
            let name = format!("{number}.{bit}.h");
            fs::write(directory.path().join(&name), "").expect("a header can be written");
            let _ = writeln!(source, "#if (({text}) >> {bit}) & 1\n#include \"{name}\"\n#endif");
        }
        let _ = writeln!(source, "#if ({text}) < 0\n#include \"{number}.s.h\"\n#endif");
        fs::write(directory.path().join(format!("{number}.s.h")), "").expect("a header can be written");
        expressions.push(text);
    }
    fs::write(directory.path().join("main.c"), source).expect("a source can be written");
    let argv = words(&format!("-c -x {language} main.c"));
    let command = parse(&argv, &[], Driver::C);
    let tree = DiskTree::new(Bounds::default());
    let ours = compiler.scan(&command, directory.path(), &tree);
    let theirs = compiler.list(&argv, &[], directory.path());
    let replay = format!("RDCC_SCAN_SEED={seed} cargo test --test it includes::expressions ({program}, {language})");
    match (ours, theirs) {
        (Ok(closure), Ok(theirs)) => {
            let ours = spellings(&closure);
            let at = ours.iter().zip(&theirs).position(|(a, b)| a != b);
            let Some(at) = at.or((ours.len() != theirs.len()).then_some(ours.len().min(theirs.len()))) else {
                return;
            };
            let show = |list: &[Vec<u8>]| list.get(at).map(|name| String::from_utf8_lossy(name).into_owned());
            let (ours, theirs) = (show(&ours), show(&theirs));
            let numbers = [&ours, &theirs].map(|name| {
                let number = name
                    .as_deref()
                    .and_then(|name| name.split('.').next()?.parse::<usize>().ok());
                number.map(|number| expressions[number].as_str())
            });
            panic!("ours {ours:?}, gcc's {theirs:?}: {numbers:?}\n{replay}");
        }
        (Err(error), Ok(_)) => {
            let line = match &error {
                NoClosure::Undecidable { place, .. } => place.line as usize,
                _ => 0,
            };
            let text = fs::read_to_string(directory.path().join("main.c")).expect("the source is there");
            panic!("{error}: {:?}\n{replay}", text.lines().nth(line.saturating_sub(1)));
        }
        (_, Err(complaint)) => {
            let error = complaint.lines().find(|line| line.contains("error: "));
            panic!("the generator made an error: {error:?}\n{replay}")
        }
    }
}

#[test]
fn conditions_have_the_compilers_values() {
    for (program, mut compiler) in compilers() {
        for seed in seeds(12) {
            for language in ["c", "c++", "assembler-with-cpp"] {
                check_values(&mut compiler, &program, seed, language);
            }
        }
    }
}

/// Returns the name that the compiler looks for in vain. It also looks for what it has rejected, `<x` without an end.
fn name_by_gcc(compiler: &Compiler, cwd: &Path) -> Result<String, String> {
    let complaint = compiler.list(&words("main.c"), &[], cwd).expect_err("no such header");
    let line = complaint.lines().find(|line| line.contains(": fatal error: "));
    let name = line.and_then(|line| {
        line.split(": fatal error: ")
            .nth(1)?
            .strip_suffix(": No such file or directory")
    });
    let rejected = complaint.contains(": error: ");
    name.filter(|_| !rejected).map(str::to_owned).ok_or(complaint)
}

#[test]
fn computed_names_are_the_compilers() {
    let Some((program, mut compiler)) = compilers().into_iter().next() else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory for the source");
    let command = parse(&words("-c main.c"), &[], Driver::C);
    let mut compared = 0;
    for seed in seeds(120) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let text = stringified(&mut random);
        let operand = if seed % 3 == 0 {
            format!("<no/x{text}.h>")
        } else {
            format!("WRAP(no/{text})")
        };
        let operand = if seed % 2 == 0 {
            format!("DIRECT\n#define DIRECT {operand}")
        } else {
            operand
        };
        let (first, rest) = operand.split_once('\n').unwrap_or((&operand, ""));
        let source = format!("{STRINGIFIED_MACROS}{rest}\n#include {first}\n");
        fs::write(directory.path().join("main.c"), &source).expect("a source can be written");
        let tree = DiskTree::new(Bounds::default());
        let ours = compiler.scan(&command, directory.path(), &tree);
        let replay = format!("{source}RDCC_SCAN_SEED={seed} cargo test --test it includes::expressions ({program})");
        match (ours, name_by_gcc(&compiler, directory.path())) {
            (Err(NoClosure::MissingHeader { name, .. }), Ok(theirs)) => {
                assert_eq!(name.to_string_lossy(), theirs, "{replay}");
                compared += 1;
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("ours {ours:?}, gcc's {theirs:?}\n{replay}"),
        }
    }
    println!("{compared} names equal");
}

//! Random trees of headers: the closure equals `gcc -M`, entry by entry. `RDCC_SCAN_KEEP=DIR` leaves the tree in DIR.

use std::path::PathBuf;

use rdcc::compile::Driver;
use rdcc::includes::source_tree::disk::{Bounds, DiskTree};

use super::generate;
use super::{compilers, seeds, words};
use crate::support::gcc::{Compiler, difference, parse, spellings};

/// Ways to compile the tree's source.
const COMMANDS: [&str; 10] = [
    "-c -Iinc1 -Iinc2 -isystem sys1 -isystem sys2 src/main.c",
    "-c -std=c99 -Isys2 -iquote inc1 -I inc2/ -isystem sys1 -DA=1 -DB=A src/main.c",
    "-c -std=gnu89 -I. -Isrc -Iinc1 -Isys2 -idirafter sys1 -D F0(x)=x src/main.c",
    "-c -Iinc1 -include k.h -imacros z.h -Isrc -Isys2 -nostdinc ./src/main.c",
    "-c -x c++ -Iinc1 -I- -Iinc2 -Isys2 src/main.c",
    "-c -x c++ -std=c++11 -iprefix inc -iwithprefix 1 -iwithprefixbefore 2 -Isys2 -trigraphs src/main.c",
    "-c -x assembler-with-cpp -Iinc2 -Inope -Iinc1 -Iinc1/../inc1 -Isys2 -isystem inc1 src/main.c",
    "-c -std=c2x -Isrc/sub/../../inc1 -isystem ./sys2 -include src/../inc1/../sys2/z.h -ffreestanding src/main.c",
    "-c -std=c++20 -x c++ -Isys1 -isystem sys1 -isystem sys2 -UA -DE -undef src/main.c",
    "-c -I inc1/sub -I src/sub -I inc2 -I sys2 -funsigned-char -fno-canonical-system-headers src/main.c",
];

fn check(compiler: &mut Compiler, name: &str, seed: u64) -> (usize, usize) {
    let directory = tempfile::tempdir().expect("a directory for the tree");
    let kept = std::env::var_os("RDCC_SCAN_KEEP").map(PathBuf::from);
    let root = kept.as_deref().unwrap_or(directory.path());
    generate::tree(seed, root);
    let tree = DiskTree::new(Bounds::default());
    let mut listed = 0;
    let mut rejected = 0;
    for text in COMMANDS {
        let text = text.replace("-D F0(x)=x", "-DF0(x)=x");
        let argv = words(&text);
        let command = parse(&argv, &[], Driver::C);
        let ours = compiler.scan(&command, root, &tree);
        let replay = || format!("RDCC_SCAN_SEED={seed} cargo test --test it includes::trees\n  {name} {text}");
        match (ours, compiler.list(&argv, &[], root)) {
            (Ok(closure), Ok(theirs)) => {
                listed += theirs.len();
                if let Some(difference) = difference(&spellings(&closure), &theirs) {
                    panic!("{difference}\n{}", replay());
                }
            }
            (Err(error), Ok(_)) => panic!("{error}\n{}", replay()),
            (_, Err(_)) => rejected += 1,
        }
    }
    (listed, rejected)
}

#[test]
fn random_trees_have_the_compilers_list() {
    for (name, mut compiler) in compilers() {
        let seeds = seeds(30);
        let (mut listed, mut rejected) = (0, 0);
        for seed in &seeds {
            let (more, wrong) = check(&mut compiler, &name, *seed);
            listed += more;
            rejected += wrong;
        }
        let commands = seeds.len() * COMMANDS.len();
        println!("{name}: {commands} commands, {listed} entries equal, {rejected} rejected by the compiler");
        assert!(seeds.len() == 1 || rejected < commands / 2, "too little was compared");
    }
}

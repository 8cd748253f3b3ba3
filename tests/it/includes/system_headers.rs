//! Every installed header as a unit of its own.
//!
//! `RDCC_SCAN_HEADERS=all` takes all of them, in C and in C++; otherwise a few. `RDCC_SCAN_KERNEL=DIR` takes all headers of
//! a kernel tree in which `make ARCH=arm at91_dt_defconfig prepare` has run. `RDCC_SCAN_EVERY=N` takes each Nth of either.

use std::fs;
use std::path::{Path, PathBuf};

use rdcc::compile::Driver;
use rdcc::includes::source_tree::disk::{Bounds, DiskTree};

use super::{compilers, number, words};
use crate::support::gcc::{Compiler, difference, parse, spellings};

/// Headers that make a short run worth while: deep, macro-heavy, or with computed names.
const SOME: [&str; 14] = [
    "stdio.h",
    "stdlib.h",
    "math.h",
    "limits.h",
    "tgmath.h",
    "pthread.h",
    "linux/if_ether.h",
    "c++/12/iostream",
    "c++/12/regex",
    "c++/12/bits/stdc++.h",
    "c++/12/experimental/filesystem",
    "c++/12/ext/pb_ds/assoc_container.hpp",
    "c++/12/parallel/algorithm",
    "c++/12/stdatomic.h",
];

fn headers(below: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(below) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            headers(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// How the units of one set of headers came out.
#[derive(Default)]
struct Tally {
    equal: usize,
    rejected: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Compares the unit that includes `header` and nothing else.
    fn take(&mut self, compiler: &mut Compiler, tree: &DiskTree, unit: &Path, flags: &str, header: &str) {
        let source = unit.join("unit.c");
        fs::write(&source, format!("#include <{header}>\n")).expect("a source can be written");
        let mut argv = words(flags);
        argv.extend(words("-c unit.c"));
        let command = parse(&argv, &[], Driver::C);
        let ours = compiler.scan(&command, unit, tree);
        let Ok(theirs) = compiler.list(&argv, &[], unit) else {
            self.rejected += 1;
            return;
        };
        let problem = match ours {
            Ok(closure) => difference(&spellings(&closure), &theirs),
            Err(error) => Some(error.to_string()),
        };
        match problem {
            Some(problem) => self.wrong.push(format!("{flags} <{header}>: {problem}")),
            None => self.equal += 1,
        }
    }

    /// Says how far it is now and then: all of them take an hour, and who stops that sooner has something, too.
    fn progress(&self, name: &str, headers: usize) {
        let taken = self.equal + self.rejected + self.wrong.len();
        if taken.is_multiple_of(2000) {
            println!(
                "{name}: {taken} units, {headers} headers in all, {} differ so far",
                self.wrong.len()
            );
        }
    }

    fn report(&self, name: &str) {
        println!(
            "{name}: {} equal, {} rejected by the compiler, {} differ",
            self.equal,
            self.rejected,
            self.wrong.len()
        );
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

/// The headers below `root` as they are included from there, sorted.
fn names_below(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    headers(root, &mut files);
    let name = |path: &PathBuf| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned());
    let mut names: Vec<String> = files.iter().filter_map(name).collect();
    names.sort();
    let every = usize::try_from(number("RDCC_SCAN_EVERY", 1)).unwrap_or(1).max(1);
    names.into_iter().step_by(every).collect()
}

#[test]
fn system_headers_have_the_compilers_list() {
    let all = std::env::var_os("RDCC_SCAN_HEADERS").is_some();
    let unit = tempfile::tempdir().expect("a directory for the unit");
    for (program, mut compiler) in compilers() {
        let root = match program.strip_suffix("-gcc") {
            Some(target) => format!("/usr/{target}/include"),
            None => "/usr/include".to_owned(),
        };
        let root = Path::new(&root);
        let names = match all {
            true => names_below(root),
            false => SOME
                .iter()
                .filter(|name| root.join(name).is_file())
                .map(|name| (*name).to_owned())
                .collect(),
        };
        let tree = DiskTree::new(Bounds::default());
        let mut tally = Tally::default();
        for name in &names {
            for flags in ["-x c", "-x c++ -std=gnu++20"] {
                tally.take(&mut compiler, &tree, unit.path(), flags, name);
                tally.progress(&program, names.len());
            }
        }
        tally.report(&program);
    }
}

/// Flags of a kernel's own build for a small ARM board, `DIR` standing for the tree.
const KERNEL_FLAGS: &str = "-x c -nostdinc -IDIR/arch/arm/include -IDIR/arch/arm/include/generated -IDIR/include \
    -IDIR/arch/arm/include/uapi -IDIR/arch/arm/include/generated/uapi -IDIR/include/uapi \
    -IDIR/include/generated/uapi -include DIR/include/linux/compiler-version.h -include DIR/include/linux/kconfig.h \
    -include DIR/include/linux/compiler_types.h -D__KERNEL__ -mlittle-endian -D__LINUX_ARM_ARCH__=5 -std=gnu11 \
    -msoft-float -Uarm -marm -mabi=aapcs-linux -march=armv5te -O2 -DKBUILD_MODNAME=\"unit\"";

#[test]
fn kernel_headers_have_the_compilers_list() {
    let Some(kernel) = std::env::var("RDCC_SCAN_KERNEL").ok().filter(|dir| !dir.is_empty()) else {
        println!("skipped: RDCC_SCAN_KERNEL names no kernel tree, prepared for ARM");
        return;
    };
    let Some(mut compiler) = Compiler::find("arm-linux-gnueabi-gcc") else {
        println!("skipped: no arm-linux-gnueabi-gcc here");
        return;
    };
    let unit = tempfile::tempdir().expect("a directory for the unit");
    let flags = KERNEL_FLAGS.replace("DIR", &kernel);
    let tree = DiskTree::new(Bounds::default());
    let mut tally = Tally::default();
    let roots = ["include", "arch/arm/include"].into_iter();
    let names = roots.flat_map(|root| names_below(&Path::new(&kernel).join(root)));
    let names: Vec<String> = names.filter(|name| name.ends_with(".h")).collect();
    for name in &names {
        tally.take(&mut compiler, &tree, unit.path(), &flags, name);
        tally.progress("kernel", names.len());
    }
    tally.report("kernel");
}

//! Every installed header as a unit of its own.
//!
//! `RDCC_SCAN_HEADERS=all` takes all of them, in C and in C++; otherwise a few.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rdcc::compile::Driver;
use rdcc::includes::source_tree::disk::{Bounds, DiskTree};

use super::{compilers, words};
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

/// Compares one header; `None` when the compiler rejects it.
fn check(compiler: &mut Compiler, tree: &DiskTree, argv: &[OsString]) -> Option<Result<usize, String>> {
    let cwd = Path::new("/");
    let command = parse(argv, &[], Driver::C);
    let ours = compiler.scan(&command, cwd, tree);
    let theirs = compiler.list(argv, &[], cwd).ok()?;
    Some(match ours {
        Ok(closure) => match difference(&spellings(&closure), &theirs) {
            Some(difference) => Err(difference),
            None => Ok(theirs.len()),
        },
        Err(error) => Err(error.to_string()),
    })
}

#[test]
fn system_headers_have_the_compilers_list() {
    let all = std::env::var_os("RDCC_SCAN_HEADERS").is_some();
    for (program, mut compiler) in compilers() {
        let mut files = Vec::new();
        if all {
            headers(Path::new("/usr/include"), &mut files);
            headers(Path::new("/usr/arm-linux-gnueabi/include"), &mut files);
        } else {
            let roots = ["/usr/include", "/usr/arm-linux-gnueabi/include"];
            let named = roots
                .iter()
                .flat_map(|root| SOME.map(|name| Path::new(root).join(name)));
            files.extend(named.filter(|path| path.is_file()));
        }
        files.sort();
        let tree = DiskTree::new(Bounds::default());
        let (mut compared, mut rejected, mut wrong) = (0, 0, Vec::new());
        for file in &files {
            for language in ["-x c", "-x c++ -std=gnu++20"] {
                let mut argv = words("-c");
                argv.extend(words(language));
                argv.push(file.into());
                match check(&mut compiler, &tree, &argv) {
                    Some(Ok(_)) => compared += 1,
                    Some(Err(problem)) => wrong.push(format!("{program} {language} {}: {problem}", file.display())),
                    None => rejected += 1,
                }
            }
        }
        println!(
            "{program}: {compared} equal, {rejected} rejected by the compiler, {} differ",
            wrong.len()
        );
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

//! The corpora of the fuzzers, and every input that once broke something, through the fuzzers' own checks.
//!
//! `make fuzz` goes on from there. A file `fuzz/corpus/NAME/crash-…` is one that did break.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod checks;

#[test]
fn every_file_of_every_corpus_passes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, check) in checks::ALL {
        let directory = root.join("corpus").join(name);
        let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut count = 0;
        for file in files {
            let path = file.expect("a directory entry can be read").path();
            let bytes = fs::read(&path).expect("a corpus is of files");
            let passed = panic::catch_unwind(|| check(&bytes));
            assert!(passed.is_ok(), "{} broke", path.display());
            count += 1;
        }
        assert!(count >= 2, "{}: {count} files", directory.display());
        assert!(
            root.join("bins").join(format!("{name}.rs")).is_file(),
            "`make fuzz` misses {name}"
        );
    }
    let corpora = fs::read_dir(root.join("corpus")).expect("there are corpora");
    assert_eq!(corpora.count(), checks::ALL.len(), "a corpus without a check");
}

/// The fuzzers have a lock file of their own, and would otherwise test other libraries than rdcc is made of.
#[test]
fn fuzzers_are_built_of_the_versions_that_rdcc_is_built_of() {
    let locked = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(path).expect("readable");
        let lock: toml::Table = text.parse().expect("TOML");
        let packages = lock["package"].as_array().expect("a list").clone();
        let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
        for package in packages {
            let field = |name: &str| package[name].as_str().expect("text").to_owned();
            versions.entry(field("name")).or_default().insert(field("version"));
        }
        versions
    };
    let (ours, theirs) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    for (name, versions) in theirs {
        let known = ours.get(&name).is_none_or(|known| versions.is_subset(known));
        assert!(
            known,
            "{name} {versions:?}: copy Cargo.lock to fuzz/Cargo.lock, and run `cargo metadata` there"
        );
    }
}

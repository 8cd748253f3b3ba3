//! The corpora of the fuzzers, and every input that once broke something, through the fuzzers' own checks.
//!
//! `make fuzz` goes on from there. A file `fuzz/corpus/NAME/crash-…` is one that did break.

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

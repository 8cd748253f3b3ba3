//! What the ledger keeps, sums and finds again.

use super::*;
use crate::exchange::{Mode, Ran, journal};

fn remote(output: &Path) -> JobRecord {
    let mut record = JobRecord::new(Ran::Remote {
        mode: Mode::B,
        worker: "n1".into(),
    });
    record.outputs = vec![output.to_owned()];
    record
}

fn note(dir: &Path, output: &str) {
    let line = journal::line(9, "link", "", dir.as_os_str(), Some(OsStr::new(output)));
    let path = dir.join("journal");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(path, old + &line).expect("written");
}

#[test]
fn counts_of_two_agents_and_of_wrappers_add_up_and_survive() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (Ledger::new(dir.path()), Ledger::new(dir.path()));
    one.record(remote(Path::new("/b/1.o")));
    two.record(remote(Path::new("/b/2.o")));
    note(dir.path(), "prog");
    one.flush().expect("flushed");
    two.flush().expect("flushed");
    let counters = Ledger::new(dir.path()).stats(Zero::Keep).expect("read");
    assert_eq!((counters.jobs, counters.remote, counters.local), (3, 2, 1));
    assert_eq!(counters.local_by_reason["link"], 1);
}

#[test]
fn reset_tells_the_counters_a_last_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = Ledger::new(dir.path());
    ledger.record(remote(Path::new("/b/1.o")));
    assert_eq!(ledger.stats(Zero::Reset).expect("reset").jobs, 1);
    assert_eq!(ledger.stats(Zero::Keep).expect("read").jobs, 0);
    // What is known of files stays.
    assert_eq!(ledger.why(Path::new("/b/1.o")).expect("read").len(), 1);
}

#[test]
fn file_is_found_by_every_path_that_leads_to_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = Ledger::new(dir.path());
    let real = dir.path().join("real");
    std::fs::create_dir(&real).expect("created");
    std::os::unix::fs::symlink(&real, dir.path().join("way")).expect("linked");
    std::fs::write(real.join("a.o"), "").expect("written");
    std::os::unix::fs::symlink(real.join("a.o"), dir.path().join("other.o")).expect("linked");
    ledger.record(remote(&dir.path().join("way/a.o")));
    for path in ["way/a.o", "real/a.o", "real/../way/./a.o", "other.o"] {
        assert_eq!(ledger.why(&dir.path().join(path)).expect("read").len(), 1, "{path}");
    }
    for path in ["a.o", "real/b.o"] {
        assert_eq!(ledger.why(&dir.path().join(path)).expect("read").len(), 0, "{path}");
    }
}

#[test]
fn newest_record_comes_first_and_wrappers_are_heard_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = Ledger::new(dir.path());
    for time in 0..20 {
        let mut record = remote(&dir.path().join("prog"));
        record.ended_unix_ms = time;
        ledger.record(record);
    }
    ledger.flush().expect("flushed");
    note(dir.path(), "prog");
    let found = ledger.why(&dir.path().join("prog")).expect("read");
    assert_eq!(found.len(), ANSWERS_MAX);
    assert_eq!(found[0].ran, Ran::Local { reason: "link".into() });
    assert_eq!(found[1].ended_unix_ms, 19);
}

#[test]
fn name_with_quotes_and_other_bytes_is_found() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = Ledger::new(dir.path());
    let output = dir.path().join(OsStr::from_bytes(b"a\"\\\n\xff.o"));
    ledger.record(remote(&output));
    assert_eq!(ledger.why(&output).expect("read").len(), 1);
}

#[test]
fn damaged_files_lose_what_they_held_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("stats.json"), "{\"counters\": tru").expect("written");
    std::fs::write(dir.path().join("jobs.log"), "{\"outputs\": [\"/b/1.o\"\n").expect("written");
    let ledger = Ledger::new(dir.path());
    ledger.record(remote(Path::new("/b/1.o")));
    assert_eq!(ledger.why(Path::new("/b/1.o")).expect("read").len(), 1);
    assert_eq!(ledger.stats(Zero::Keep).expect("read").jobs, 1);
}

#[test]
fn failed_flush_keeps_everything_for_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let ledger = Ledger::new(&state);
    ledger.record(remote(Path::new("/b/1.o")));
    let error = ledger.flush().expect_err("no such directory");
    assert!(error.to_string().contains("ledger.lock"), "{error}");
    ledger.record(remote(Path::new("/b/2.o")));
    assert_eq!(ledger.stats(Zero::Keep).expect("told all the same").jobs, 2);
    assert_eq!(ledger.why(Path::new("/b/2.o")).expect("told all the same").len(), 1);
    ledger.stats(Zero::Reset).expect_err("cannot start again");
    std::fs::create_dir(&state).expect("created");
    assert_eq!(ledger.flush().expect("flushed").jobs, 2);
    assert_eq!(ledger.why(Path::new("/b/1.o")).expect("read").len(), 1);
}

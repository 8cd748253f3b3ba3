//! What a person types, without a cluster: every command says what is wrong and what to do, and exits as documented.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rdcc::client::link::{self, WhenAbsent};
use rdcc::client::surroundings::{self, Environment};
use rdcc::exchange::{Counters, JobRecord, Ran, Request};

/// An address where nothing listens: the discard port of this machine.
const NOBODY: &str = "http://127.0.0.1:9";

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn rdcc(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdcc"));
        command
            .args(words.split(' ').filter(|word| !word.is_empty()))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.dir.path())
            .env("RDCC_COORDINATOR", NOBODY)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command.output().expect("runs")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("created");
        std::fs::write(path, text).expect("written");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let env = Environment(vec![
            ("HOME".into(), self.dir.path().into()),
            ("RDCC_COORDINATOR".into(), NOBODY.into()),
        ]);
        let state = surroundings::state_dir(&env, Path::new("/")).expect("ours");
        let place = surroundings::place(&env, state);
        if link::ask(&place, &Request::Retire, WhenAbsent::GiveUp).is_ok() {
            let lock = std::fs::File::open(place.agent_lock()).expect("it has run");
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        }
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn unreachable_coordinator_has_an_exit_status_of_its_own() {
    let home = Home::new();
    for words in [
        "status",
        "nodes",
        "jobs",
        "drain n1",
        "toolchain list",
        "toolchain rm x",
    ] {
        let output = home.rdcc(words);
        assert_eq!(output.status.code(), Some(3), "{words}");
        let said = stderr(&output);
        assert!(
            said.starts_with(&format!(
                "rdcc: error: cannot reach the coordinator at `{NOBODY}`\n  cause: "
            )),
            "{words}: {said}"
        );
    }
    assert!(stdout(&home.rdcc("status")).contains("this agent   not running"));
    let json: serde_json::Value = serde_json::from_slice(&home.rdcc("status --json").stdout).expect("JSON");
    assert_eq!(json["coordinator"], NOBODY);
    assert!(json["cluster"].is_null() && json["agent"].is_null());
}

#[test]
fn slots_are_a_number_whatever_happens() {
    let home = Home::new();
    home.write(".config/rdcc/config.toml", "local_slots = 7\n");
    let output = home.rdcc("slots");
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("7\n", Some(0)));
    assert!(stderr(&output).contains(NOBODY));
}

#[test]
fn wrong_configuration_is_named_by_file_line_and_key() {
    let home = Home::new();
    home.write(".config/rdcc/config.toml", "log = 'info'\nlocal_slot = 7\n");
    for words in ["status", "slots", "agent --foreground"] {
        let output = home.rdcc(words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{words}");
        for part in [".config/rdcc/config.toml", "line 2", "local_slot", "local_slots"] {
            assert!(said.contains(part), "{words}: {part}: {said}");
        }
    }
}

#[test]
fn local_jobs_are_counted_and_explained() {
    let home = Home::new();
    home.write("sub/x", "");
    // A link of nothing: the compiler fails, and was asked to write this file all the same.
    home.rdcc("gcc nothing.o -o sub/prog");
    home.rdcc("gcc --version");
    let counters: Counters = serde_json::from_slice(&home.rdcc("stats --json --zero").stdout).expect("JSON");
    assert_eq!((counters.jobs, counters.local, counters.remote), (2, 2, 0));
    assert_eq!(counters.local_by_reason["link"], 1);
    assert_eq!(counters.local_by_reason["query"], 1);
    assert!(stdout(&home.rdcc("stats")).starts_with("jobs       0\n"));

    for words in ["why sub/prog", "why ./sub/../sub/prog"] {
        let output = home.rdcc(words);
        let said = stdout(&output);
        assert!(
            said.contains("ran here, because: link") && said.contains("/sub/prog\n"),
            "{words}: {said}"
        );
    }
    let records: Vec<JobRecord> = serde_json::from_slice(&home.rdcc("why --json sub/prog").stdout).expect("JSON");
    assert_eq!(records[0].ran, Ran::Local { reason: "link".into() });
    let output = home.rdcc("why sub/x.c");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no job is known") && stderr(&output).contains("source"));
}

#[test]
fn agent_is_started_and_stopped_by_hand() {
    let home = Home::new();
    assert_eq!(stdout(&home.rdcc("agent stop")), "no agent is running\n");
    assert!(stdout(&home.rdcc("agent")).starts_with("the agent runs as process "));
    let json: serde_json::Value = serde_json::from_slice(&home.rdcc("status --json").stdout).expect("JSON");
    assert!(json["agent"]["pid"].is_u64());
    let second = home.rdcc("agent --foreground");
    assert!(stderr(&second).contains("running already"), "{}", stderr(&second));
    assert_eq!(
        stdout(&home.rdcc("agent stop")),
        "the agent ends when its jobs are done\n"
    );
}

#[test]
fn usage_errors_exit_with_two() {
    let home = Home::new();
    for words in [
        "drain",
        "status --jsn",
        "toolchain",
        "toolchain push",
        "why",
        "frobnicate",
        "",
    ] {
        let output = home.rdcc(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(stderr(&output).starts_with("rdcc: error: "), "{words}");
        assert!(stderr(&output).contains("\n  hint: "), "{words}");
        assert_eq!(stdout(&output), "", "{words}");
    }
    home.write("bad.toml", "name = 'x'\nnonsense = 1\n");
    for (words, expected) in [("absent.toml", "No such file"), ("bad.toml", "line 2")] {
        let output = home.rdcc(&format!("toolchain push {words}"));
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(home.rdcc("help").status.code(), Some(0));
    assert_eq!(
        stdout(&home.rdcc("--version")),
        format!("rdcc {}\n", env!("CARGO_PKG_VERSION"))
    );
}

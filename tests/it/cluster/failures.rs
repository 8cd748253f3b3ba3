//! What goes wrong on the way: only the counters tell.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use super::farm::{COMPILER, TestFarm, has_compiler, wait_for};
use crate::support::hear_interrupts;

/// Compiles for some seconds, and reads a header.
const LONG: &str = "#include \"long.h\"\n#define F(n) int f##n(int *a, int b) { for (int i = 0; i < b; i++) \
    for (int j = i; j < b; j++) a[i] = a[j] * (a[j - i] + K) ^ (a[i] >> (j & 7)); return a[b - 1]; }\n\
    #define T(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7)\n\
    #define S(n) T(n##0) T(n##1) T(n##2) T(n##3) T(n##4) T(n##5) T(n##6) T(n##7)\nS(1) S(2) S(3) S(4) S(5) S(6)\n";

fn write_long(farm: &TestFarm) {
    farm.write("long.c", LONG);
    farm.write("long.h", "#define K 1\n");
}

const LONG_WORDS: [&str; 5] = ["-O3", "-c", "long.c", "-o", "long.o"];

/// What the compiler itself makes of some words.
fn local_object(farm: &TestFarm, words: &[&str], object: &str) -> Vec<u8> {
    let mut command = farm.client(Path::new("/usr/bin/arm-linux-gnueabi-gcc"));
    let status = command.args(words).status().expect("runs");
    assert!(status.success());
    let path = farm.src().join(object);
    let content = fs::read(&path).expect("made");
    fs::remove_file(path).expect("removed");
    content
}

/// Returns the worker that a job runs on, once one does.
fn running_on(farm: &TestFarm) -> String {
    wait_for("a job's run", || {
        let report = farm.json(&["status"]).to_string();
        let (_, rest) = report.split_once("running on ")?;
        Some(rest.split('"').next().unwrap_or_default().to_owned())
    })
}

fn spawn_long(farm: &TestFarm) -> Child {
    let mut command = farm.compile(&LONG_WORDS);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

#[test]
fn worker_that_dies_costs_time_and_nothing_else() {
    if !has_compiler() {
        return;
    }
    let mut farm = TestFarm::with_workers(&[("n1", 1), ("n2", 1)]);
    write_long(&farm);
    let expected = local_object(&farm, &LONG_WORDS, "long.o");
    let compile = spawn_long(&farm);
    let victim = running_on(&farm);
    farm.kill_worker(&victim);
    let output = compile.wait_with_output().expect("ends");
    farm.assert_success(&output);
    assert!(fs::read(farm.src().join("long.o")).expect("made") == expected);
    let stats = farm.stats();
    assert_eq!(stats["fallbacks_by_reason"]["worker_lost"], 1, "{stats:#}");
    assert_eq!(stats["remote"], 1, "{stats:#}");
    assert_eq!(stats["remote_by_worker"].get(&victim), None, "{stats:#}");
}

#[test]
fn drained_node_stays_drained_when_the_coordinator_restarts() {
    let mut farm = TestFarm::new();
    farm.start_worker("n1", 1);
    let state = |farm: &TestFarm| {
        wait_for("the node's session", || {
            let output = farm.rdcc().args(["nodes", "--json"]).output().expect("runs");
            let nodes: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            nodes.to_string().contains("\"n1\"").then(|| nodes.to_string())
        })
    };
    assert!(!state(&farm).contains("draining"));
    let drained = farm.rdcc().args(["drain", "n1"]).status().expect("runs");
    assert!(drained.success());
    wait_for("the node's being told", || {
        let told = fs::read_to_string(farm.path("n1.log")).expect("written");
        told.contains("the coordinator drains this node").then_some(())
    });
    farm.kill_coordinator();
    farm.start_coordinator();
    assert!(state(&farm).contains("draining"), "{}", farm.logs());
}

#[test]
fn bundle_damaged_at_the_coordinator_is_found_and_mended_by_another_push() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    let verify = || {
        let mut command = farm.rdcc();
        command.args(["toolchain", "verify", "arm926"]).output().expect("runs")
    };
    let sound = || String::from_utf8_lossy(&verify().stdout).contains("is sound");
    assert!(sound());
    let objects = farm.path("coordinator/toolchains/objects");
    let object = fs::read_dir(objects)
        .expect("readable")
        .next()
        .expect("one")
        .expect("readable");
    let path = object.path().join("bundle");
    let mut bundle = fs::read(&path).expect("readable");
    let middle = bundle.len() / 2;
    bundle[middle] ^= 1;
    fs::write(&path, &bundle).expect("writable");

    let output = verify();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("damaged") && said.contains("rdcc toolchain push"),
        "{said}"
    );
    farm.push();
    assert!(sound(), "{}", farm.logs());
    bundle[middle] ^= 1;
    assert!(
        fs::read(&path).expect("readable") == bundle,
        "the same files make the same bundle"
    );
}

#[test]
fn interrupted_compile_ends_everywhere_and_leaves_nothing() {
    if !has_compiler() {
        return;
    }
    hear_interrupts();
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    write_long(&farm);
    let mut compile = spawn_long(&farm);
    running_on(&farm);
    kill_process(Pid::from_child(&compile), Signal::INT).expect("signalled");
    let status = compile.wait().expect("ends");
    assert!(!status.success());
    wait_for("the job's end", || {
        let status = farm.json(&["status"]).to_string();
        (!status.contains("long.c")).then_some(())
    });
    // Its slot is free again, and nothing came of it.
    farm.write("a.c", "int a;\n");
    farm.must(farm.compile(&["-c", "a.c"]));
    assert!(!farm.src().join("long.o").exists());
    let names: Vec<_> = fs::read_dir(farm.src()).expect("listed").flatten().collect();
    assert!(
        names
            .iter()
            .all(|name| !name.file_name().to_string_lossy().starts_with('.')),
        "{names:?}"
    );
}

#[test]
fn header_edited_during_the_compile_counts() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    write_long(&farm);
    let compile = spawn_long(&farm);
    running_on(&farm);
    farm.write("long.h", "#define K 1001\n");
    farm.assert_success(&compile.wait_with_output().expect("ends"));
    let object = fs::read(farm.src().join("long.o")).expect("made");
    assert!(object == local_object(&farm, &LONG_WORDS, "long.o"));
    let stats = farm.stats();
    assert_eq!(stats["fallbacks_by_reason"]["file_changed"], 1, "{stats:#}");
}

#[test]
fn coordinator_that_is_away_means_here_and_comes_back() {
    if !has_compiler() {
        return;
    }
    let mut farm = TestFarm::with_workers(&[("n1", 1)]);
    farm.write("a.c", "int a;\n");
    farm.must(farm.compile(&["-c", "a.c"]));
    farm.wait_until_all_places_are_back();
    farm.kill_coordinator();
    let words = ["--toolchain", "arm926", COMPILER, "-c", "a.c"];
    wait_for("the first local compile", || {
        fs::remove_file(farm.src().join("a.o")).expect("was made");
        let mut command = farm.rdcc();
        command.args(words);
        farm.must(command);
        farm.stats()["local_by_reason"].get("no_coordinator").cloned()
    });
    let strict = farm.compile(&["-c", "a.c"]).output().expect("runs");
    let said = String::from_utf8_lossy(&strict.stderr);
    assert!(
        !strict.status.success() && said.contains("coordinator") && said.contains("hint:"),
        "{said}"
    );
    farm.start_coordinator();
    let before = farm.stats()["remote"].clone();
    wait_for("a remote compile", || {
        let _ = farm.compile(&["-c", "a.c"]).output().expect("runs");
        (farm.stats()["remote"] != before).then_some(())
    });
}

#[test]
fn jobs_take_turns_in_their_places_while_the_coordinator_is_away() {
    if !has_compiler() {
        return;
    }
    let mut farm = TestFarm::with_workers(&[("n1", 1)]);
    write_long(&farm);
    let long = spawn_long(&farm);
    running_on(&farm);
    farm.kill_coordinator();
    let others: Vec<Child> = (0..4)
        .map(|number| {
            let name = format!("{number}.c");
            farm.write(&name, format!("int number = {number};\n"));
            let mut command = farm.compile(&["-c", &name]);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("starts")
        })
        .collect();
    for child in others.into_iter().chain([long]) {
        farm.assert_success(&child.wait_with_output().expect("ends"));
    }
    let stats = farm.stats();
    assert_eq!((&stats["remote"], &stats["local"]), (&5.into(), &0.into()), "{stats:#}");
    let object = fs::read(farm.src().join("3.o")).expect("made");
    assert!(object == local_object(&farm, &["-c", "3.c"], "3.o"));
    farm.start_coordinator();
    wait_for("a session", || {
        let status = farm.json(&["status"]);
        (status["agent"]["link"] == "connected").then_some(())
    });
}

#[test]
fn toolchain_that_nobody_pushed_is_explained() {
    if !has_compiler() {
        return;
    }
    let mut farm = TestFarm::new();
    farm.start_worker("n1", 1);
    farm.remember_toolchain();
    farm.write("a.c", "int a;\n");
    let mut command = farm.rdcc();
    command.args(["--toolchain", "arm926", COMPILER, "-c", "a.c"]);
    farm.must(command);
    assert_eq!(
        farm.stats()["local_by_reason"]["toolchain_not_on_farm"],
        1,
        "{:#}",
        farm.stats()
    );
    let status = farm.json(&["status"]).to_string();
    assert!(status.contains("rdcc toolchain push"), "{status}");
    let strict = farm.compile(&["-c", "a.c"]).output().expect("runs");
    let said = String::from_utf8_lossy(&strict.stderr);
    assert!(
        !strict.status.success() && said.contains("`arm926`") && said.contains("rdcc toolchain push"),
        "{said}"
    );
}

#[test]
fn header_that_vanished_is_not_found_at_the_worker_either() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    let words = ["-Ione", "-Itwo", "-c", "a.c"];
    farm.write("a.c", "#include <x.h>\nint x[X];\n");
    let gone = farm.write("one/x.h", "#define X 1\n");
    farm.write("two/x.h", "#define X 2\n");
    farm.must(farm.compile(&words));
    fs::remove_file(gone).expect("removed");
    farm.must(farm.compile(&words));
    let object = fs::read(farm.src().join("a.o")).expect("made");
    assert!(object == local_object(&farm, &words, "a.o"));
    let stats = farm.stats();
    assert_eq!(stats["remote_by_mode"]["A"], 2, "{stats:#}");
    assert_eq!(
        stats["fallbacks_by_reason"].as_object().map(serde_json::Map::len),
        Some(0),
        "{stats:#}"
    );
}

#[test]
fn unit_that_cannot_be_scanned_is_listed_and_in_the_end_preprocessed_here() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    let words = ["-Ione", "-Itwo", "-MMD", "-O2", "-c", "a.c"];
    // The scanner does not follow macro stacks; the compiler's own list does not tell what was looked for in vain.
    let text = "#define P _Pragma(\"push_macro(\\\"X\\\")\")\nP\n#include <x.h>\n#include <stddef.h>\nint x[X];\n";
    farm.write("a.c", text);
    let gone = farm.write("one/x.h", "#define X 1\n");
    farm.write("two/x.h", "#define X 2\n");
    farm.must(farm.compile(&words));
    let stats = farm.stats();
    assert_eq!(stats["remote_by_mode"]["A"], 1, "{stats:#}");
    assert_eq!(stats["fallbacks_by_reason"]["scan_undecidable"], 1, "{stats:#}");
    fs::remove_file(gone).expect("removed");
    farm.must(farm.compile(&words));
    let (object, list) = (
        fs::read(farm.src().join("a.o")).expect("made"),
        fs::read(farm.src().join("a.d")).expect("made"),
    );
    assert!(object == local_object(&farm, &words, "a.o"));
    assert_eq!(list, fs::read(farm.src().join("a.d")).expect("made"));
    let stats = farm.stats();
    assert_eq!(stats["remote_by_mode"]["B"], 1, "{stats:#}");
    assert_eq!(stats["fallbacks_by_reason"]["dependency_mismatch"], 1, "{stats:#}");
    let why = farm.json(&["why", "a.o"]).to_string();
    assert!(why.contains("one/x.h") && why.contains("two/x.h"), "{why}");
}

#[test]
fn warnings_on_preprocessed_text_come_from_the_local_compiler() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    farm.write(
        "a.c",
        "#define P _Pragma(\"push_macro(\\\"X\\\")\")\nP\nint f(void) { int unused; }\n",
    );
    farm.write("flags", "-c");
    // A list that cannot be had: gcc's driver refuses `-M` beside an unreadable file, so preprocessing is next.
    let words = ["-Wall", "-c", "a.c"];
    let remote = farm.compile(&words).output().expect("runs");
    let mut local = farm.client(Path::new("/usr/bin/arm-linux-gnueabi-gcc"));
    let local = local.args(words).output().expect("runs");
    assert_eq!(
        String::from_utf8_lossy(&remote.stderr),
        String::from_utf8_lossy(&local.stderr)
    );
    assert!(!local.stderr.is_empty());
}

/// Tells whether a process has a handler for SIGTERM (see proc_pid_status(5)).
fn hears_terminate(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (Signal::TERM.as_raw() - 1) != 0)
}

/// Starts a program that cannot say that it is ready, tells it to end, lets it speak, and expects that it ends well.
fn assert_ends_well_at_once(mut command: Command) {
    let (mut hears, mut says) = std::io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&says).expect("asked");
    fcntl_setfl(&says, flags | OFlags::NONBLOCK).expect("set");
    while says.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&says, flags).expect("set");
    let program = command.stdout(says).stderr(Stdio::piped()).spawn().expect("starts");
    // It holds the other end of the pipe.
    drop(command);
    wait_for("a handler for SIGTERM", || hears_terminate(program.id()).then_some(()));
    kill_process(Pid::from_child(&program), Signal::TERM).expect("signalled");
    hears.read_to_end(&mut Vec::new()).expect("read");
    let output = program.wait_with_output().expect("ends");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn programs_that_are_told_to_end_before_they_are_ready_end_well() {
    let mut farm = TestFarm::with_workers(&[]);
    assert_ends_well_at_once(farm.worker_command("n1", 1, &farm.path("n1")));
    farm.end_coordinator();
    assert_ends_well_at_once(farm.coordinator_command());
}

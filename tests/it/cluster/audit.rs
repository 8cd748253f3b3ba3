//! A node with bad memory: an audit finds it.
//!
//! The bad bit is a real one: the node keeps its copy of the compiler on a file system in memory, and one byte of it is
//! changed there through a mapping. That leaves size and times as they were, as a bit does that flips by itself, so the node
//! verifies its compiler and finds nothing.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::farm::{TestFarm, has_compiler, wait_for};

/// What the compiler puts into every object's `.comment`.
const IDENT: &[u8] = b"GCC: \0";

/// Changes one byte of what the compiler proper at or below `dir` puts into every object. The file must be in memory.
fn flip_a_bit(dir: &Path) {
    let compiler = find(dir, "cc1").expect("the node's own copy of the compiler");
    let before = fs::metadata(&compiler).expect("readable").modified().expect("known");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&compiler)
        .expect("opened");
    let place = position(&file, IDENT);
    let length = file.metadata().expect("readable").len() as usize;
    flip(&file, length, place);
    let after = fs::metadata(&compiler).expect("readable").modified().expect("known");
    assert_eq!(before, after, "this file system notes what is written through mappings");
}

#[expect(unsafe_code, reason = "a mapping is the way to change a file and not its times")]
fn flip(file: &File, length: usize, place: usize) {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    // SAFETY: the mapping is new, as long as the file, and gone before this returns; nobody truncates the file.
    unsafe {
        let start = mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            file,
            0,
        )
        .expect("mapped");
        *start.cast::<u8>().add(place) ^= 1;
        munmap(start, length).expect("unmapped");
    }
}

fn position(mut file: &File, text: &[u8]) -> usize {
    let mut content = Vec::new();
    file.read_to_end(&mut content).expect("read");
    let found = content.windows(text.len()).position(|window| window == text);
    found.expect("the compiler names itself in objects")
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let mut below = entries.map(|entry| entry.path());
    below.find_map(|path| match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => find(&path, name),
        Ok(metadata) if metadata.is_file() && path.ends_with(name) => Some(path),
        _ => None,
    })
}

#[test]
fn node_with_bad_memory_is_found_by_audits_and_told_to_the_user() {
    if !has_compiler() {
        return;
    }
    // Three nodes; `bad` has its files in memory.
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no file system in memory here");
        return;
    };
    let mut farm = TestFarm::new();
    for name in ["n1", "n2"] {
        farm.start_worker(name, 1);
    }
    farm.start_worker_in("bad", 1, memory.path());
    farm.push();
    let compile_at = |unit: usize, audit: &str| {
        let (source, object) = (format!("u{unit}.c"), format!("u{unit}.o"));
        farm.write(&source, format!("int f{unit}(int a) {{ return a * {unit}; }}\n"));
        let mut command = farm.compile(&["-O2", "-c", &source, "-o", &object]);
        command.env("RDCC_AUDIT", audit);
        farm.must(command);
    };
    // Every node is asked once, so that it has its compiler.
    let checked = farm
        .rdcc()
        .args(["check", "--toolchain", "arm926"])
        .output()
        .expect("runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    farm.must_rdcc(&["agent", "stop"]);

    flip_a_bit(memory.path());
    let mut unit = 0;
    let remark = wait_for("an audit that finds the node", || {
        compile_at(unit, "1.0");
        unit += 1;
        let report = farm.json(&["status"]);
        let remarks = report["agent"]["remarks"].as_array().cloned().unwrap_or_default();
        remarks
            .first()
            .map(|remark| remark.as_str().unwrap_or_default().to_owned())
    });
    assert!(
        remark.contains("`bad`") && remark.contains("third node agrees"),
        "{remark}"
    );
    let accused = remark.contains("from `bad` is wrong") || remark.contains("so `bad` is wrong");
    assert!(accused && remark.contains("rdcc drain bad"), "{remark}");
    let node = || {
        let nodes = farm.json(&["nodes"]);
        let all = nodes.as_array().cloned().unwrap_or_default();
        all.into_iter()
            .find(|node| node["name"] == "bad")
            .expect("it is connected")
    };
    let quarantined = wait_for("the quarantine", || {
        let node = node();
        (node["state"] == "quarantined").then_some(node)
    });
    let note = quarantined["note"].as_str().unwrap_or_default();
    assert!(
        note.contains("rdcc drain bad --off") && note.contains("third node"),
        "{note}"
    );
    // The list has what it made since, as far as that stands; what somebody else compiled again does not.
    let report = farm.json(&["audit"]);
    let finding = &report["findings"][0];
    assert_eq!(finding["node"], "bad", "{report:#}");
    for file in finding["files"].as_array().expect("a list") {
        let why = farm.json(&["why", file.as_str().expect("a path")]);
        assert_eq!(why[0]["ran"]["worker"], "bad", "{why:#}");
    }
    let done = node()["jobs_done"].clone();
    for unit in 1000..1006 {
        compile_at(unit, "1.0");
    }
    assert_eq!(node()["jobs_done"], done, "a node in quarantine gets no jobs");
    let stats = farm.stats();
    assert!(stats["audit_differed"].as_u64() >= Some(1), "{stats:#}");
    assert!(
        stats["audited"].as_u64() >= stats["audit_differed"].as_u64(),
        "{stats:#}"
    );
    let text = farm.rdcc().arg("stats").output().expect("runs").stdout;
    assert!(String::from_utf8_lossy(&text).contains("of the audited"));

    // The coordinator's next life knows it, too, and an administrator lets it work again.
    farm.end_coordinator();
    farm.start_coordinator();
    wait_for("the quarantine of the next life", || {
        let nodes = farm.json(&["nodes"]).to_string();
        nodes.contains("\"quarantined\"").then_some(())
    });
    farm.must_rdcc(&["drain", "bad", "--off"]);
    wait_for("its release", || {
        let nodes = farm.json(&["nodes"]).to_string();
        (!nodes.contains("\"quarantined\"") && nodes.contains("\"bad\"")).then_some(())
    });
    farm.must_rdcc(&["audit", "--forget"]);
    assert_eq!(farm.json(&["audit"])["findings"], serde_json::json!([]));
}

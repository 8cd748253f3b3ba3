//! Builds during which workers, coordinator and agent are stopped, killed and frozen at random: only time is lost.
//!
//! `RDCC_CHAOS_SEEDS=20` runs that many seeds, `RDCC_CHAOS_SEED=17` only that one. The next disturbance comes when the
//! build has made another object, so that a slow machine sees as many of them as a fast one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Signal, kill_process};

use super::farm::{COMPILER, TestFarm, assert_same_files, distributed_compiler, has_compiler, snapshot};

/// How long the build may stand still; a machine that builds other things too is slow.
const PATIENCE: Duration = Duration::from_secs(240);
const SOURCES: u32 = 30;
const WORKERS: [&str; 3] = ["n1", "n2", "n3"];

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("RDCC_CHAOS_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RDCC_CHAOS_SEEDS").unwrap_or(1)).collect(),
    }
}

/// Sources that compile for some tenths of a second each, and a makefile that names them by full path.
pub(super) fn write_project(farm: &TestFarm) {
    farm.write("sub/k.h", "#define K 3\n");
    let body = "#include <stdio.h>\n#include \"sub/k.h\"\n#define F(n) int f##n(int *a, int b) { \
        for (int i = 0; i < b; i++) for (int j = i; j < b; j++) a[i] = a[j] * (a[j - i] + K) ^ (a[i] >> (j & 7)); \
        printf(\"%d\", N); return a[b - 1]; }\n#define T(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4)\nT(1) T(2) T(3)\n";
    for number in 0..SOURCES {
        farm.write(&format!("f{number}.c"), format!("#define N {number}\n{body}"));
    }
    let objects: String = (0..SOURCES).map(|number| format!(" f{number}.o")).collect();
    let rules = format!("all:{objects}\n%.o: %.c\n\t$(CC) -O2 -g -MMD -c $(CURDIR)/$< -o $(CURDIR)/$@\n");
    farm.write("Makefile", rules);
}

pub(super) fn make(farm: &TestFarm, compiler: &str) -> Command {
    let mut make = farm.client(Path::new("/usr/bin/make"));
    make.args(["-s", "-j6", &format!("CC={compiler}")]);
    make
}

/// Removes everything that the build makes.
pub(super) fn clean(farm: &TestFarm) {
    for entry in fs::read_dir(farm.src()).expect("listed").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ext| ext == "o" || ext == "d") {
            fs::remove_file(path).expect("removed");
        }
    }
}

fn objects(farm: &TestFarm) -> usize {
    let entries = fs::read_dir(farm.src()).expect("listed").flatten();
    entries
        .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "o"))
        .count()
}

/// What may happen to a cluster.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    KillWorker,
    StopWorker,
    FreezeWorker,
    ThawWorker,
    RestartCoordinator,
    KillAgent,
}

const DISTURBANCES: [Disturbance; 8] = [
    Disturbance::KillWorker,
    Disturbance::KillWorker,
    Disturbance::StopWorker,
    Disturbance::FreezeWorker,
    Disturbance::FreezeWorker,
    Disturbance::ThawWorker,
    Disturbance::RestartCoordinator,
    Disturbance::KillAgent,
];

fn disturb(farm: &mut TestFarm, what: Disturbance, worker: &str) {
    match what {
        Disturbance::KillWorker => {
            farm.kill_worker(worker);
            farm.start_worker(worker, 2);
        }
        Disturbance::StopWorker => {
            // A frozen one could not obey.
            farm.signal_worker(worker, Signal::CONT);
            farm.signal_worker(worker, Signal::TERM);
            farm.wait_for_worker(worker);
            farm.start_worker(worker, 2);
        }
        Disturbance::FreezeWorker => farm.signal_worker(worker, Signal::STOP),
        Disturbance::ThawWorker => farm.signal_worker(worker, Signal::CONT),
        Disturbance::RestartCoordinator => {
            farm.kill_coordinator();
            farm.start_coordinator();
        }
        Disturbance::KillAgent => {
            if let Some(agent) = farm.agent() {
                let _ = kill_process(agent, Signal::KILL);
            }
        }
    }
}

/// Waits until the build has made more than `made` objects, and returns how many; `None` when it has ended.
pub(super) fn more_than(farm: &TestFarm, build: &mut Child, made: usize, story: &[String]) -> Option<usize> {
    let began = Instant::now();
    loop {
        if build.try_wait().expect("asked").is_some() {
            return None;
        }
        let now = objects(farm);
        if now > made {
            return Some(now);
        }
        assert!(
            began.elapsed() < PATIENCE,
            "stands still after {story:?}\n{}",
            farm.logs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes other than this one whose words name `dir`.
fn processes_of(dir: &Path) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("listed").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let names = words
            .windows(dir.as_os_str().len())
            .any(|part| part == dir.as_os_str().as_bytes());
        if names {
            found.insert(pid, String::from_utf8_lossy(&words).replace('\0', " "));
        }
    }
    found
}

fn build_disturbed(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut farm = TestFarm::with_workers(&WORKERS.map(|name| (name, 2)));
    write_project(&farm);
    let local = make(&farm, COMPILER).output().expect("make runs");
    farm.assert_success(&local);
    let expected = snapshot(&farm.src());
    clean(&farm);
    let mut command = make(&farm, &distributed_compiler());
    let mut build = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("make starts");
    let mut story = Vec::new();
    let mut made = 0;
    while let Some(now) = more_than(&farm, &mut build, made, &story) {
        made = now;
        let what = DISTURBANCES[random.random_range(0..DISTURBANCES.len())];
        let worker = WORKERS[random.random_range(0..WORKERS.len())];
        story.push(format!("{made}: {what:?} {worker}"));
        disturb(&mut farm, what, worker);
    }
    let output = build.wait_with_output().expect("ended");
    eprintln!("seed {seed}: {story:?}");
    for worker in WORKERS {
        farm.signal_worker(worker, Signal::CONT);
    }
    farm.assert_success(&output);
    assert_same_files(&snapshot(&farm.src()), &expected, &format!("seed {seed}, {story:?}"));
    let dir = farm.path("");
    drop(farm);
    let began = Instant::now();
    loop {
        let left = processes_of(&dir);
        if left.is_empty() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mounts = fs::read("/proc/self/mountinfo").expect("read");
    assert!(
        !String::from_utf8_lossy(&mounts).contains(&*dir.to_string_lossy()),
        "mounts of {} are left",
        dir.display()
    );
    assert!(!dir.exists(), "files are left in {}", dir.display());
}

#[test]
fn disturbed_build_ends_with_the_same_objects_and_leaves_nothing() {
    if !has_compiler() {
        return;
    }
    for seed in seeds() {
        build_disturbed(seed);
    }
}

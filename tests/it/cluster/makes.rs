//! What people do to a make that runs: they close the laptop's lid, start it twice, kill it outright.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::chaos::{clean, make, more_than, write_project};
use super::farm::{COMPILER, TestFarm, assert_same_files, distributed_compiler, has_compiler, snapshot};

/// Longer than coordinator and workers wait for a peer that answers nothing.
const ASLEEP: Duration = Duration::from_secs(25);

/// A farm with the project, and the files that the local compiler makes of it.
fn farm() -> (TestFarm, BTreeMap<PathBuf, Vec<u8>>) {
    let farm = TestFarm::with_workers(&[("n1", 2), ("n2", 2)]);
    write_project(&farm);
    farm.must(make(&farm, COMPILER));
    let expected = snapshot(&farm.src());
    clean(&farm);
    (farm, expected)
}

fn distributed(farm: &TestFarm) -> Command {
    let mut command = make(farm, &distributed_compiler());
    // A group of its own, as a shell gives each command.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

fn started(farm: &TestFarm) -> Child {
    distributed(farm).spawn().expect("make starts")
}

/// Starts make, and waits until some objects are made and many are not.
fn under_way(farm: &TestFarm) -> Child {
    let mut build = started(farm);
    more_than(farm, &mut build, 5, &[]).expect("the build goes on");
    build
}

fn assert_ends(farm: &TestFarm, build: Child, expected: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    farm.assert_success(&build.wait_with_output().expect("make ends"));
    assert_same_files(&snapshot(&farm.src()), expected, what);
}

#[test]
fn client_asleep_longer_than_its_peers_wait_goes_on_remotely() {
    if !has_compiler() {
        return;
    }
    let (farm, expected) = farm();
    let build = under_way(&farm);
    let agent = farm.agent().expect("an agent");
    let signal_all = |signal| {
        kill_process_group(Pid::from_child(&build), signal).expect("signalled");
        kill_process(agent, signal).expect("signalled");
    };
    signal_all(Signal::STOP);
    std::thread::sleep(ASLEEP);
    signal_all(Signal::CONT);
    let before = farm.stats()["remote"].as_u64().expect("a count");
    assert_ends(&farm, build, &expected, "after the sleep");
    let after = farm.stats();
    assert_eq!(after["failed"], 0, "{after}");
    assert!(
        after["remote"].as_u64() > Some(before),
        "all the rest was left to this machine: {after}"
    );
}

#[test]
fn two_makes_in_one_tree_make_what_one_makes() {
    if !has_compiler() {
        return;
    }
    let (farm, expected) = farm();
    let builds = [started(&farm), started(&farm)];
    for build in builds {
        farm.assert_success(&build.wait_with_output().expect("make ends"));
    }
    assert_same_files(&snapshot(&farm.src()), &expected, "two makes");
}

#[test]
fn make_killed_outright_leaves_nothing_half_written_for_the_next() {
    if !has_compiler() {
        return;
    }
    let (farm, expected) = farm();
    let mut build = under_way(&farm);
    build.kill().expect("killed");
    build.wait().expect("gone");
    // The compiles that it had started may be running still; what is there now is whole.
    for (path, content) in snapshot(&farm.src()) {
        assert!(
            expected.get(&path).is_none_or(|whole| *whole == content),
            "{}",
            path.display()
        );
    }
    assert_ends(&farm, started(&farm), &expected, "after the kill");
}

#[test]
fn farm_ends_well_while_a_client_is_asleep() {
    if !has_compiler() {
        return;
    }
    let (mut farm, _) = farm();
    farm.must(distributed(&farm));
    let agent = farm.agent().expect("an agent");
    kill_process(agent, Signal::STOP).expect("signalled");
    for worker in ["n1", "n2"] {
        farm.signal_worker(worker, Signal::TERM);
        farm.wait_for_worker(worker);
    }
    farm.end_coordinator();
    kill_process(agent, Signal::CONT).expect("signalled");
}

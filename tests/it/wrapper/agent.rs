//! The real agent, started by wrappers.

use std::process::Child;

use rdcc::client::link::{self, WhenAbsent};
use rustix::fs::FlockOperation;

use super::*;

/// Ends the agent of a stage, and waits until it has let go of its lock.
fn retire(stage: &Stage) {
    let place = stage.place();
    let (reply, _) = link::ask(&place, &Request::Retire, WhenAbsent::GiveUp).expect("it runs");
    assert_eq!(reply, Reply::Retiring);
    wait_until_unlocked(&place);
}

fn wait_until_unlocked(place: &Place) {
    let lock = std::fs::File::open(place.agent_lock()).expect("it has run");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("locked");
}

fn log(stage: &Stage) -> String {
    std::fs::read_to_string(stage.place().log()).unwrap_or_default()
}

#[test]
fn thirty_two_wrappers_start_one_agent() {
    let stage = Stage::new();
    let wrappers: Vec<Child> = (0..32)
        .map(|_| {
            let mut command = stage.command("gcc -c x.c");
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("runs")
        })
        .collect();
    for wrapper in wrappers {
        let output = wrapper.wait_with_output().expect("ends");
        assert_compiled_here(&output, "-c x.c");
    }
    let log = log(&stage);
    assert_eq!(log.matches("agent listens").count(), 1, "{log}");
    retire(&stage);
}

#[test]
fn agent_keeps_nothing_of_the_build_that_started_it() {
    let stage = Stage::new();
    // As make's job server: a pipe that children inherit. The output pipes end only when everybody has let go of them.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).expect("inherited");
    let output = run(stage.command("gcc -c x.c"));
    assert_compiled_here(&output, "-c x.c");
    drop(writer);
    let mut reader = reader;
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    let (reply, _) = link::ask(&stage.place(), &Request::Status, WhenAbsent::GiveUp).expect("it runs");
    assert!(matches!(reply, Reply::Status(_)));
    retire(&stage);
}

#[test]
fn agent_that_has_ended_is_started_again() {
    let stage = Stage::new();
    for _ in 0..2 {
        assert_compiled_here(&run(stage.command("gcc -c x.c")), "-c x.c");
        retire(&stage);
    }
    assert_eq!(log(&stage).matches("agent listens").count(), 2);
}

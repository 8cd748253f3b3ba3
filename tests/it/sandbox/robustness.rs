//! Faults: of launchers, of the worker, of whoever talks to a launcher; and that many jobs leave nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdcc::job::Status;
use rdcc::worker::doctor::{self, State};
use rdcc::worker::sandbox::{LAUNCHER_ARGUMENT, Mode, SandboxError, start, start_with};
use rustix::process::{Pid, Signal};

use super::world::{EVERY_WAY, USER_SPACES, World, launcher_program, left_with, settings, token};
use crate::sandbox_test;

/// Jobs that are run to see what they leave.
const MANY: usize = 300;

/// Set in the process that stands in for a worker.
const TOKEN: &str = "RDCC_TEST_TOKEN";

/// Launchers among the children of this process, which has to run one test only.
fn launchers() -> Vec<Pid> {
    let own = std::process::id();
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{own}/task")).unwrap() {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()),
        );
    }
    found
}

fn kill_launchers() {
    let found = launchers();
    assert!(!found.is_empty());
    for launcher in found {
        rustix::process::kill_process(launcher, Signal::KILL).unwrap();
    }
}

fn what_a_process_holds() -> (String, usize, Vec<Pid>) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    (mounts, descriptors, launchers())
}

sandbox_test!(
    many_jobs_leave_no_mount_no_process_and_no_descriptor,
    alone,
    EVERY_WAY,
    |world| async move {
        world.probe(&["exit", "0"]).await;
        let before = what_a_process_holds();
        for round in 0..MANY {
            let mut job = world.job(&["write", "a.o", "10"]);
            if round % 10 == 0 {
                job = world.job(&["sleep"]);
                job.limits.wall = Duration::from_millis(1);
            }
            world.run(job).await.unwrap();
        }
        assert_eq!(what_a_process_holds(), before);
    }
);

sandbox_test!(jobs_run_at_once_and_keep_apart, EVERY_WAY, |world| async move {
    let (first, second, third) = tokio::join!(
        world.run(world.job(&["write", "a.o", "1"])),
        world.run(world.job(&["write", "a.o", "2"])),
        world.run(world.job(&["write", "b.o", "3"])),
    );
    let sizes = [first, second, third].map(|finished| {
        let finished = finished.unwrap();
        let [change] = finished.outputs.changes() else {
            panic!("{:?}", finished.outputs);
        };
        let mut content = Vec::new();
        finished
            .outputs
            .open(&change.path)
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        content.len()
    });
    assert_eq!(sizes, [1, 2, 3]);
});

sandbox_test!(
    a_launcher_that_died_idle_is_replaced,
    alone,
    USER_SPACES,
    |world| async move {
        world.probe(&["exit", "0"]).await;
        kill_launchers();
        world.probe(&["exit", "0"]).await;
        assert_eq!(launchers().len(), 1, "the dead one is not left as a zombie");
    }
);

sandbox_test!(
    a_launcher_that_dies_takes_its_job_along_and_says_so,
    alone,
    EVERY_WAY,
    |world| async move {
        let token = token("launcher");
        let running = world
            .launcher
            .run(world.job(&["sleep-with-children", &token]))
            .await
            .unwrap();
        kill_launchers();
        assert!(matches!(running.finished().await, Err(SandboxError::LauncherDied)));
        assert_eq!(left_with(&token), [""; 0]);
        world.probe(&["exit", "0"]).await;
    }
);

/// The process that the next test kills: a worker with a job.
#[test]
fn stand_in_for_a_worker() {
    let Some(token) = std::env::var_os(TOKEN) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = World::new(Mode::UserOverlay);
    runtime.block_on(async {
        let job = world.job(&["sleep-with-children", token.to_str().unwrap()]);
        let running = world.launcher.run(job).await.unwrap();
        // The layer is of no more use, and nobody will be left to clear it up.
        fs::remove_dir_all(world.base.path()).unwrap();
        println!("started");
        running.finished().await.unwrap();
    });
}

#[test]
fn jobs_die_with_the_worker() {
    let token = token("worker");
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["sandbox::robustness::stand_in_for_a_worker", "--exact", "--nocapture"])
        .env(TOKEN, &token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("started")));
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(left_with(&token), [""; 0]);
}

#[test]
fn a_launcher_ends_at_whatever_makes_no_sense() {
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat();
    let job_without_setup = frame(&[1, 0, 0, 0, 0]);
    let cases: [&[u8]; 6] = [
        b"",
        b"\0",
        &[0xff; 64],
        &frame(b"\x07nonsense"),
        &frame(b"\0\x09\0\0\0\0\0"),
        &job_without_setup,
    ];
    for case in cases {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut launcher = Command::new(launcher_program())
            .arg(LAUNCHER_ARGUMENT)
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        ours.write_all(case).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too: what was sent was never read.
        ours.read_to_end(&mut answer).ok();
        assert_eq!(answer, b"", "{case:?}");
        assert!(launcher.wait().unwrap().code().is_some(), "{case:?}");
    }
}

#[test]
fn a_launcher_program_that_is_none_is_a_clear_error() {
    let base = tempfile::tempdir().unwrap();
    let mut settings = settings(base.path());
    settings.launcher_program = "/nonexistent/rdcc-worker".into();
    let error = start(settings.clone()).unwrap_err();
    assert!(matches!(error, SandboxError::Start { .. }), "{error}");
    settings.launcher_program = "/bin/true".into();
    let error = start(settings).unwrap_err();
    assert!(matches!(error, SandboxError::NoIsolation(_)), "{error}");
}

#[test]
fn a_base_that_is_not_there_or_closed_to_jobs_is_named() {
    let base = tempfile::tempdir().unwrap();
    let missing = start(settings(&base.path().join("missing"))).unwrap_err().to_string();
    assert!(missing.contains("entering the base directory"), "{missing}");
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let closed = start_with(settings(base.path()), &[Mode::UserOverlay])
            .unwrap_err()
            .to_string();
        assert!(
            closed.contains("searching the base directory as the job's user"),
            "{closed}"
        );
    }
}

#[test]
fn the_best_way_is_taken_and_its_job_can_be_run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let launcher = start(settings(base.path())).unwrap();
    let report = launcher.report();
    assert_eq!((report.mode, report.refused.len()), (Mode::UserOverlay, 0));
    let mut world = World::new(Mode::UserOverlay);
    let mut job = world.job(&["exit", "3"]);
    job.lower = vec!["/etc".into()];
    let refused = runtime.block_on(launcher.run(job));
    assert!(matches!(refused, Err(SandboxError::NotBelowBase(path)) if path == Path::new("/etc")));
    world.launcher = launcher;
    fs::rename(&world.layer, base.path().join("layer")).unwrap();
    world.layer = base.path().join("layer");
    let finished = runtime.block_on(world.run(world.job(&["exit", "3"]))).unwrap();
    assert_eq!(finished.status, Status::Exited(3));
}

sandbox_test!(
    the_doctor_agrees_with_what_works,
    &[Mode::UserOverlay],
    |world| async move {
        let report = doctor::examine(settings(world.base.path())).await;
        let (mode, usage) = report.sandbox.clone().unwrap();
        assert_eq!(mode, Mode::UserOverlay);
        assert!(usage.wall > Duration::ZERO);
        let best = &report.findings[0];
        assert_eq!(
            (best.subject, &best.state),
            ("jobs in a user name space, overlay", &State::Yes)
        );
        let text = report.to_string();
        assert!(
            text.starts_with("jobs run isolated: user name space, overlay\n"),
            "{text}"
        );
        println!("{text}");
    }
);

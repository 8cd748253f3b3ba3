//! Jobs from an agent's link to the outcome: both sides of a real connection, with a sandbox that only pretends.

mod farm;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::farm::{Farm, Source, file, job_with};
use crate::agent::worker_link::LinkError;
use crate::job::{Input, InputKind, OutputKind, RefusalKind, Status};
use crate::worker::session::Places;

fn output<'a>(outcome: &'a crate::job::Outcome, path: &str) -> &'a [u8] {
    let found = outcome.outputs.iter().find(|output| output.path.as_os_str() == path);
    match &found.expect("it left that file").kind {
        OutputKind::File { content, .. } => content,
        OutputKind::Removed => panic!("`{path}` was removed"),
    }
}

#[tokio::test]
async fn job_gets_its_inputs_and_its_outputs_come_back() {
    let farm = Farm::start(2).await;
    let link = farm.link();
    let job = farm.job(
        &[("/src/a.c", "int a;"), ("/src/inc/a.h", "header")],
        "cat a.c inc/a.h > a.o",
    );
    let outcome = link.run(job).await.expect("runs");
    assert_eq!(outcome.status, Status::Exited(0));
    assert_eq!(output(&outcome, "/src/a.o"), b"int a;header");
    let sent = link.traffic().sent();
    let job = farm.job(&[("/src/a.c", "int a;"), ("/src/inc/a.h", "header")], "cat a.c > b.o");
    let outcome = link.run(job).await.expect("runs");
    assert_eq!(output(&outcome, "/src/b.o"), b"int a;");
    assert!(link.traffic().sent() - sent < 400, "known inputs travel as numbers");
}

#[tokio::test]
async fn large_inputs_and_outputs_arrive_whole() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let large: String = (0..200_000).map(|number| format!("{number};")).collect();
    let job = farm.job(&[("/src/a.i", &large), ("/src/b.i", &large)], "cat a.i b.i > a.o");
    let outcome = link.run(job).await.expect("runs");
    assert!(output(&outcome, "/src/a.o") == [&large, &large].map(String::as_str).concat().as_bytes());
    assert!(
        link.traffic().sent() < large.len() as u64 * 3 / 2,
        "equal content travels once"
    );
}

#[tokio::test]
async fn dependencies_come_apart_from_the_outputs_and_removals_are_told() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let mut job = farm.job(&[("/src/old.o", "")], "echo a.o: a.c > a.d; rm old.o");
    job.spec.dependency_file = Some("/src/a.d".into());
    let outcome = link.run(job).await.expect("runs");
    assert_eq!(outcome.dependencies.as_deref(), Some(&b"a.o: a.c\n"[..]));
    let [removed] = outcome.outputs.as_slice() else {
        panic!("{:?}", outcome.outputs)
    };
    assert_eq!(removed.kind, OutputKind::Removed);
}

#[tokio::test]
async fn two_trees_with_other_content_at_one_path_never_meet() {
    let farm = Farm::start(4).await;
    let links = [farm.link(), farm.link_as(b"another tree")];
    for round in 0..3 {
        let runs = ["one", "two"].map(|content| format!("{content}{round}"));
        let jobs = [0, 1].map(|at| farm.job(&[("/src/a.h", &runs[at])], "cat a.h > a.o"));
        let [first, second] = jobs;
        let (first, second) = tokio::join!(links[0].run(first), links[1].run(second));
        assert_eq!(output(&first.expect("runs"), "/src/a.o"), runs[0].as_bytes());
        assert_eq!(output(&second.expect("runs"), "/src/a.o"), runs[1].as_bytes());
    }
}

#[tokio::test]
async fn file_edited_between_two_running_jobs_is_seen_by_the_second_only() {
    let farm = Farm::start(2).await;
    let link = farm.link();
    let first = farm.job(&[("/src/a.h", "old")], "wait; cat a.h > a.o");
    let (first, second) = tokio::join!(link.run(first), async {
        farm.sandbox.started.notified().await;
        let second = farm.job(&[("/src/a.h", "new")], "cat a.h > b.o");
        let second = link.run(second).await;
        farm.sandbox.go_on.notify_one();
        second
    });
    assert_eq!(output(&first.expect("runs"), "/src/a.o"), b"old");
    assert_eq!(output(&second.expect("runs"), "/src/b.o"), b"new");
}

#[tokio::test]
async fn cancelled_job_is_killed_and_frees_its_slot() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let job = farm.job(&[], "wait");
    {
        let running = link.run(job);
        tokio::select! {
            _ = running => panic!("it waits for ever"),
            () = farm.sandbox.started.notified() => {}
        }
    }
    farm.sandbox.killed.notified().await;
    let next = farm.job(&[], "echo free > a.o");
    assert_eq!(output(&link.run(next).await.expect("runs"), "/src/a.o"), b"free\n");
}

#[tokio::test]
async fn lost_link_kills_its_jobs() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let job = farm.job(&[], "wait");
    let running = Arc::new(link);
    let (task, done) = (running.clone(), Arc::new(Notify::new()));
    let ended = done.clone();
    farm.agents.spawn_until_cancelled(async move {
        drop(task.run(job).await);
        ended.notify_one();
    });
    farm.sandbox.started.notified().await;
    farm.agents.shut_down(Duration::from_secs(60)).await;
    farm.sandbox.killed.notified().await;
    farm.executor.door.idle().await;
}

#[tokio::test]
async fn voided_grant_starts_nothing_and_lets_a_running_job_go_on() {
    let farm = Farm::start(2).await;
    let link = farm.link();
    let late = farm.job(&[], "true");
    farm.executor.door.void(late.grant);
    assert!(matches!(link.run(late).await, Err(LinkError::Refused(refusal)) if refusal.kind == RefusalKind::Busy));
    let running = farm.job(&[], "wait");
    let grant = running.grant;
    let (ended, ()) = tokio::join!(link.run(running), async {
        farm.sandbox.started.notified().await;
        farm.executor.door.void(grant);
        farm.sandbox.go_on.notify_one();
    });
    assert!(ended.is_ok());
}

#[tokio::test]
async fn slot_is_free_when_the_agent_hears_of_the_end() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    for _ in 0..20 {
        link.run(farm.job(&[], "true")).await.expect("runs");
        assert_eq!(farm.executor.door.report().0, []);
    }
}

#[tokio::test]
async fn grant_serves_once() {
    let farm = Farm::start(2).await;
    let link = farm.link();
    let mut again = farm.job(&[], "true");
    let first = farm.job(&[], "true");
    (again.grant, again.token) = (first.grant, first.token.clone());
    link.run(first).await.expect("runs");
    assert!(matches!(link.run(again).await, Err(LinkError::Refused(refusal)) if refusal.kind == RefusalKind::Busy));
}

#[tokio::test]
async fn input_that_changed_ends_its_job_and_not_the_one_that_waits_for_the_same() {
    let farm = Farm::start(2).await;
    let link = farm.link();
    let mut first = farm.job(&[("/src/a.h", "same")], "cat a.h > a.o");
    let (source, asked, open) = Source::empty_behind_a_gate();
    first.content = Arc::new(source);
    let second = farm.job(&[("/src/b.h", "same")], "cat b.h > b.o");
    let (first, second, ()) = tokio::join!(
        link.run(first),
        async {
            asked.notified().await;
            link.run(second).await
        },
        async {
            while farm.executor.door.report().0.len() < 2 {
                tokio::task::yield_now().await;
            }
            open.send(()).expect("the first still waits");
        }
    );
    assert_eq!(first, Err(LinkError::Changed("/src/a.h".into())));
    assert_eq!(output(&second.expect("runs"), "/src/b.o"), b"same");
}

#[tokio::test]
async fn content_that_is_not_what_was_announced_is_refused() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let mut job = farm.job(&[("/src/a.h", "honest")], "cat a.h > a.o");
    job.content = Arc::new(Source::lying(b"lying!"));
    let error = link.run(job).await.expect_err("refused");
    assert!(matches!(error, LinkError::Refused(refusal) if refusal.kind == RefusalKind::Changed));
    let job = farm.job(&[("/src/a.h", "honest")], "cat a.h > a.o");
    assert_eq!(output(&link.run(job).await.expect("runs"), "/src/a.o"), b"honest");
}

#[tokio::test]
async fn damaged_blob_is_fetched_again() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let job = farm.job(&[("/src/a.h", "content")], "cat a.h > a.o");
    link.run(job).await.expect("runs");
    farm.damage_blob(b"content", b"c0ntent");
    let other = farm.link_as(b"another tree");
    let job = farm.job(&[("/src/a.h", "content")], "cat a.h > a.o");
    assert_eq!(output(&other.run(job).await.expect("runs"), "/src/a.o"), b"content");
    assert!(other.traffic().sent() > 0);
}

#[tokio::test]
async fn store_stays_warm_over_a_restart() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let large = "x".repeat(100_000);
    let job = farm.job(&[("/src/a.h", &large)], "cat a.h > a.o");
    link.run(job).await.expect("runs");
    let farm = farm.restart().await;
    let link = farm.link();
    let mut job = farm.job(&[("/src/a.h", &large)], "cat a.h > a.o");
    job.content = Arc::new(Source::empty());
    assert_eq!(
        output(&link.run(job).await.expect("runs"), "/src/a.o"),
        large.as_bytes()
    );
}

#[tokio::test]
async fn what_cannot_run_here_is_refused_by_kind() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let mut kinds = Vec::new();
    for (files, script) in [
        (vec![file("/usr/bin/x-gcc-12", "another driver")], "true"),
        (vec![file("/proc/self/mem", "x")], "true"),
        (vec![file("/src/a", "x"), file("/src/a/b", "y")], "true"),
        (vec![], "ln -s x y"),
        (vec![], "limit"),
        (vec![], "hindered"),
        (vec![], "break"),
    ] {
        let error = link.run(job_with(&farm, files, script)).await.expect_err(script);
        let LinkError::Refused(refusal) = error else {
            panic!("{error}")
        };
        kinds.push(refusal.kind);
    }
    use RefusalKind::{Fault, Limit, ReadOnly, Unsupported};
    assert_eq!(
        kinds,
        [
            Unsupported,
            Unsupported,
            Unsupported,
            Unsupported,
            Limit,
            ReadOnly,
            Fault
        ]
    );
    let mut unknown = farm.job(&[], "true");
    unknown.spec.toolchain.0 = crate::digest::Digest::of(b"unknown");
    unknown.token = farm.token(unknown.grant, unknown.spec.toolchain);
    let error = link.run(unknown).await.expect_err("refused");
    assert!(matches!(error, LinkError::Refused(refusal) if refusal.kind == RefusalKind::NoToolchain));
}

#[tokio::test]
async fn absent_paths_and_links_reach_the_job() {
    let farm = Farm::start(1).await;
    let link = farm.link();
    let job = farm.job(&[("/src/gone.h", "there")], "cat gone.h > a.o");
    link.run(job).await.expect("runs");
    let inputs = vec![
        Input {
            path: "/src/gone.h".into(),
            kind: InputKind::Absent,
        },
        Input {
            path: "/src/l".into(),
            kind: InputKind::Symlink("real".into()),
        },
        file("/src/real/a.h", "through a link"),
    ];
    let outcome = link
        .run(job_with(&farm, inputs, "test ! -e gone.h && cat l/a.h > a.o"))
        .await;
    assert_eq!(output(&outcome.expect("runs"), "/src/a.o"), b"through a link");
}

#[tokio::test]
async fn agent_that_breaks_the_protocol_is_cut_off_and_others_are_served() {
    use crate::protocol::wire::{self, link_request::Request};
    let farm = Farm::start(1).await;
    let reference = |number| wire::Define {
        first: number,
        entries: Vec::new(),
    };
    for requests in [
        vec![Request::Define(reference(7))],
        vec![Request::Run(wire::Run {
            inputs: vec![3],
            ..farm.wire_run()
        })],
        vec![Request::Run(farm.wire_run()), Request::Run(farm.wire_run())],
        vec![Request::Run(wire::Run {
            argv: Vec::new(),
            ..farm.wire_run()
        })],
        vec![Request::Hello(wire::LinkHello::default())],
    ] {
        let status = farm.speak(requests).await.expect_err("cut off");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    }
    let link = farm.link();
    let job = farm.job(&[], "echo fine > a.o");
    link.run(job).await.expect("runs");
}

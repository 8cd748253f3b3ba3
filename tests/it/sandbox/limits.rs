//! What a job may use, and that nothing of it is left when it used more.

use std::time::Duration;

use rdcc::job::Status;
use rdcc::worker::sandbox::{Limit, Mode};

use super::world::{EVERY_WAY, USER_SPACES, left_with, processes_with, token};
use crate::sandbox_test;

sandbox_test!(
    the_wall_clock_ends_a_job_and_its_children,
    EVERY_WAY,
    |world| async move {
        let token = token("wall");
        let mut job = world.job(&["sleep-with-children", &token]);
        job.limits.wall = Duration::from_millis(200);
        let finished = world.run(job).await.unwrap();
        assert_eq!(
            (finished.status, finished.killed_by),
            (Status::Signaled(9), Some(Limit::Wall))
        );
        assert_eq!(processes_with(&token), [""; 0]);
        assert!(finished.outputs.changes().is_empty());
        world.probe(&["exit", "0"]).await;
    }
);

sandbox_test!(kill_ends_a_job_and_its_children, EVERY_WAY, |world| async move {
    let token = token("kill");
    let running = world
        .launcher
        .run(world.job(&["sleep-with-children", &token]))
        .await
        .unwrap();
    running.kill();
    let finished = running.finished().await.unwrap();
    assert_eq!((finished.status, finished.killed_by), (Status::Signaled(9), None));
    assert_eq!(processes_with(&token), [""; 0]);
    world.probe(&["exit", "0"]).await;
});

sandbox_test!(a_switch_kills_its_own_job_only, EVERY_WAY, |world| async move {
    let running = world.launcher.run(world.job(&["exit", "0"])).await.unwrap();
    let old = running.kill_switch();
    running.finished().await.unwrap();
    let running = world.launcher.run(world.job(&["exit", "7"])).await.unwrap();
    old.kill();
    assert_eq!(running.finished().await.unwrap().status, Status::Exited(7));
});

sandbox_test!(a_job_that_is_dropped_is_killed, EVERY_WAY, |world| async move {
    let token = token("drop");
    let running = world
        .launcher
        .run(world.job(&["sleep-with-children", &token]))
        .await
        .unwrap();
    drop(running);
    assert_eq!(left_with(&token), [""; 0]);
    world.probe(&["exit", "0"]).await;
});

sandbox_test!(
    children_that_outlive_the_program_are_ended_with_it,
    EVERY_WAY,
    |world| async move {
        let token = token("leave");
        let finished = world.run(world.job(&["leave-children", &token])).await.unwrap();
        assert_eq!(finished.status, Status::Exited(0));
        assert_eq!(processes_with(&token), [""; 0]);
    }
);

sandbox_test!(
    cpu_time_is_limited_and_told_as_such,
    &[Mode::UserOverlay],
    |world| async move {
        for what in ["burn", "burn-in-child"] {
            let mut job = world.job(&[what]);
            job.limits.cpu = Duration::from_secs(1);
            let finished = world.run(job).await.unwrap();
            assert_eq!(finished.killed_by, Some(Limit::Cpu), "{what}");
            let used = finished.usage.user + finished.usage.system;
            // The kernel looks at ticks, and may be early by as much as it sampled wrongly.
            assert!(used >= Duration::from_millis(500), "{what}: {used:?}");
        }
    }
);

sandbox_test!(memory_is_limited_and_its_peak_told, EVERY_WAY, |world| async move {
    let mut job = world.job(&["allocate", "200000000"]);
    job.limits.memory_bytes = 100 << 20;
    assert_eq!(world.run(job).await.unwrap().killed_by, Some(Limit::Memory));
    let finished = world.run(world.job(&["touch-memory", "50000000"])).await.unwrap();
    assert_eq!((finished.status, finished.killed_by), (Status::Exited(0), None));
    let peak = finished.usage.memory_peak_bytes;
    assert!((50_000_000..80_000_000).contains(&peak), "{peak}");
});

sandbox_test!(files_are_limited_in_sum_and_singly, EVERY_WAY, |world| async move {
    let mut job = world.job(&["write", "big", "3000000"]);
    job.limits.output_bytes = 2 << 20;
    let finished = world.run(job).await.unwrap();
    assert_eq!(finished.killed_by, Some(Limit::OutputBytes));
    assert!(finished.outputs.changes().is_empty());

    let mut job = world.job(&["sparse", "big", "3000000"]);
    job.limits.output_bytes = 2 << 20;
    assert_eq!(world.run(job).await.unwrap().killed_by, Some(Limit::OutputBytes));

    let mut job = world.job(&["sparse-many", "4", "1000000"]);
    job.limits.output_bytes = 2 << 20;
    assert_eq!(world.run(job).await.unwrap().killed_by, Some(Limit::OutputBytes));
});

sandbox_test!(endless_words_end_the_job, EVERY_WAY, |world| async move {
    let mut job = world.job(&["every-byte", "1000000"]);
    job.limits.text_bytes = 5000;
    let finished = world.run(job).await.unwrap();
    assert_eq!(finished.killed_by, Some(Limit::TextBytes));
    assert_eq!(finished.stderr.len(), 5000);
});

sandbox_test!(
    processes_are_limited_for_each_job_alone,
    USER_SPACES,
    |world| async move {
        let mut small = world.job(&["fork", "8"]);
        small.limits.processes = 8;
        assert_eq!(world.run(small).await.unwrap().killed_by, Some(Limit::Processes));
        let mut enough = world.job(&["fork", "7"]);
        enough.limits.processes = 8;
        // Another job that has as many as it may.
        let mut other = world.job(&["sleep-with-children", "x"]);
        other.limits.processes = 3;
        let other = world.launcher.run(other).await.unwrap();
        let finished = world.run(enough).await.unwrap();
        assert_eq!((finished.status, finished.killed_by), (Status::Exited(0), None));
        other.kill();
        other.finished().await.unwrap();
    }
);

sandbox_test!(
    a_job_yields_to_others_and_leaves_no_core,
    EVERY_WAY,
    |world| async move {
        let own = rustix::process::getpriority_process(None).unwrap();
        assert_eq!(world.probe(&["limits"]).await, format!("0 {}\n", own + 3));
        assert_eq!(world.probe(&["show", "/proc/self/oom_score_adj"]).await, "500\n");
    }
);

sandbox_test!(job_is_kept_on_its_processors, EVERY_WAY, |world| async move {
    let everywhere = world.probe(&["processors"]).await;
    let last = everywhere.split_whitespace().last().expect("one at least");
    let mut job = world.job(&["processors"]);
    job.cpus = last.parse().ok();
    assert!(job.cpus.is_some(), "{everywhere}");
    let finished = world.run(job).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&finished.stdout).trim(), last);
    assert_eq!(
        world.probe(&["processors"]).await,
        everywhere,
        "the next job runs anywhere"
    );
});

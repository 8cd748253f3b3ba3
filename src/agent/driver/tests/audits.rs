//! Jobs that are run again on another node, and what is told when the results differ.

use super::*;
use crate::agent::driver::audits::{PATIENCE, place};

/// Compiles with every job audited, and returns the counters once `ended` holds for them.
async fn audited(world: &World, ended: impl Fn(&Counters) -> bool) -> Counters {
    world.write("a.c", "int a;\n");
    assert!(succeeded(&world.compile("-c a.c -o a.o").await));
    loop {
        let counters = world.counters().await;
        if ended(&counters) {
            return counters;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn audited_job_runs_again_on_another_node_and_its_user_does_not_wait() {
    let world = World::with_audits(1.0, &[]);
    let counters = audited(&world, |counters| counters.audited > 0).await;
    assert_eq!((counters.jobs, counters.audited, counters.audit_differed), (1, 1, 0));
    let report = world.agent.audits(Zero::Keep).await.expect("read");
    let confirmed: Vec<u64> = report.nodes.values().map(|node| node.confirmed).collect();
    assert_eq!((confirmed, report.findings.len()), (vec![1, 1], 0));
    let wants = world.farm.wants.lock().unwrap().clone();
    assert_eq!(wants.len(), 2);
    assert_eq!(wants[1].ask.reach, Reach::Chosen);
    assert_eq!(wants[1].ask.avoid, [Name::new("played").unwrap()]);
    assert!(world.agent.report().await.remarks.is_empty());

    let unfinished = World::with_audits(1.0, &[]);
    let hangs = [Mishap::Links(unfinished.write("h", "")), Mishap::Hangs];
    unfinished.farm.mishaps.lock().unwrap().extend(hangs);
    let counters = audited(&unfinished, |_| true).await;
    assert_eq!(
        (counters.remote, counters.audited),
        (1, 0),
        "answered while its audit hangs"
    );
}

#[tokio::test]
async fn nothing_is_audited_unless_asked_for() {
    let world = World::new(&[]);
    let counters = audited(&world, |_| true).await;
    tokio::task::yield_now().await;
    assert_eq!((counters.audited, counters.audit_skipped), (0, 0));
    assert_eq!(world.farm.runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn third_node_decides_whose_result_is_wrong() {
    let well = |world: &World| Mishap::Links(world.write("h", ""));
    let differed = |counters: &Counters| counters.audit_differed > 0;
    for (bad, expected) in [(0, "the object from `played` is wrong"), (1, "so `second` is wrong")] {
        let world = World::with_audits(1.0, &[]);
        let mishaps = (0..3).map(|run| if run == bad { Mishap::FlipsABit } else { well(&world) });
        world.farm.mishaps.lock().unwrap().extend(mishaps);
        audited(&world, differed).await;
        let remarks = remarks(&world).await;
        assert!(
            remarks[0].contains(expected) && remarks[0].contains("rdcc drain"),
            "{remarks:?}"
        );
        assert_eq!(world.counters().await.audited, 1);
        let node = ["played", "second"][bad];
        assert_eq!(*world.farm.accused.lock().unwrap(), [node]);
        let report = world.agent.audits(Zero::Keep).await.expect("read");
        assert_eq!((report.nodes[node].wrong, report.findings.len()), (1, 1));
        let files: &[PathBuf] = if bad == 0 { &[world.path("a.o")] } else { &[] };
        assert_eq!(report.findings[0].files, files, "what `second` made went to nobody");
        world.agent.audits(Zero::Reset).await.expect("read");
        assert_eq!(world.agent.audits(Zero::Keep).await.expect("read").findings, []);
    }
    let world = World::with_audits(1.0, &[]);
    let mishaps = [well(&world), Mishap::FlipsABit, Mishap::Run(Reason::WorkerFault)];
    world.farm.mishaps.lock().unwrap().extend(mishaps);
    audited(&world, differed).await;
    let remarks = remarks(&world).await;
    assert!(remarks[0].contains("no third node"), "{remarks:?}");
    assert_eq!(*world.farm.accused.lock().unwrap(), [""; 0]);
}

/// Returns what the agent has to say, once it has.
async fn remarks(world: &World) -> Vec<String> {
    loop {
        let remarks = world.agent.report().await.remarks;
        if !remarks.is_empty() {
            return remarks;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn audit_that_finds_no_second_node_is_counted_as_skipped() {
    let world = World::with_audits(1.0, &[]);
    let mishaps = [Mishap::Links(world.write("h", "")), Mishap::Run(Reason::WorkerBusy)];
    world.farm.mishaps.lock().unwrap().extend(mishaps);
    let counters = audited(&world, |counters| counters.audit_skipped > 0).await;
    assert_eq!((counters.audited, counters.audit_skipped), (0, 1));
    assert!(world.agent.report().await.remarks.is_empty());
}

#[tokio::test]
async fn audit_gives_way_for_a_while_and_is_a_job_like_any_other_then() {
    let world = World::new(&[]);
    world.write("a.c", "int a;\n");
    assert!(succeeded(&world.compile("-c a.c -o a.o").await));
    let mut want = world.farm.wants.lock().unwrap().remove(0);
    want.ask.reach = Reach::Chosen;
    world.farm.mishaps.lock().unwrap().push_back(Mishap::Full);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let placed = place(&world.farm, want).await.expect("a place");
    assert!(matches!(placed, Placed::There("played")));
    assert!((PATIENCE..2 * PATIENCE).contains(&began.elapsed()));
    let wants = world.farm.wants.lock().unwrap().clone();
    let reaches: Vec<Reach> = wants.iter().map(|want| want.ask.reach).collect();
    assert_eq!(reaches, [Reach::Chosen, Reach::Workers]);
}

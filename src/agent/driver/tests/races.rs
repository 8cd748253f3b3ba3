//! Second copies of jobs that take far too long.

use super::*;

/// A world in which `a.c` has been compiled once, so that what it costs is known, and in which these things happen next.
async fn world_that_knows_the_job(mishaps: &[Mishap]) -> World {
    let world = World::new(&[]);
    world.write("a.c", "int a;\n");
    world.compile("-c a.c -o a.o").await;
    fs::remove_file(world.path("a.o")).unwrap();
    world.farm.mishaps.lock().unwrap().extend(mishaps.iter().cloned());
    world
}

#[tokio::test]
async fn second_copy_of_a_job_that_hangs_wins() {
    let world = world_that_knows_the_job(&[Mishap::Hangs]).await;
    assert!(succeeded(&world.compile("-c a.c -o a.o").await));
    assert!(world.path("a.o").exists());
    let counters = world.counters().await;
    assert_eq!((counters.remote, counters.raced, counters.races_won), (2, 1, 1));
    let wants = world.farm.wants.lock().unwrap();
    assert_eq!(wants[2].ask.reach, Reach::Chosen);
    assert_eq!(wants[2].ask.avoid, [Name::new("played").unwrap()]);
}

#[tokio::test]
async fn second_copy_that_found_no_place_is_tried_again() {
    let world = world_that_knows_the_job(&[Mishap::Hangs, Mishap::Place(Reason::WorkerBusy)]).await;
    assert!(succeeded(&world.compile("-c a.c -o a.o").await));
    let counters = world.counters().await;
    assert_eq!((counters.remote, counters.raced, counters.races_won), (2, 1, 1));
    assert_eq!(world.farm.wants.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn copies_with_different_results_are_an_alarm_and_the_job_is_done_here() {
    let world = world_that_knows_the_job(&[Mishap::EndsTogether, Mishap::FlipsABit]).await;
    let reply = world.compile("-c a.c -o a.o").await;
    assert!(matches!(reply, Reply::RunLocally(_)), "{reply:?}");
    assert!(!world.path("a.o").exists());
    assert_eq!(world.counters().await.results_differ, 1);
    let remarks = world.agent.report().await.remarks;
    assert!(remarks[0].contains("different results"), "{remarks:?}");
}

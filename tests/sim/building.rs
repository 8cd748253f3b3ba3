//! Whole builds: how near the bound the placement comes, in simulated time, and how fairly.
//!
//! The clusters and tapes are those of `cargo bench --bench placement`, which prints the whole table; here are the ratios
//! that must hold, of fewer seeds and with a little to spare.

use super::bouts::{Build, Node, Ours, Rival, Rule, Tape, bound, clusters, restart, run};

const SEEDS: u64 = 4;

fn builds(tape: Tape, nodes: &[Node], seed: u64, count: u64) -> Vec<Build> {
    let there = nodes.iter().filter(|node| node.joins == 0.0);
    let slots: usize = there.map(|node| node.slots).sum();
    (0..count)
        .map(|build| tape.build(slots * 7 / 4, 100 * seed + build))
        .collect()
}

/// Mean of wall over bound.
fn ratio(nodes: &[Node], tape: Tape) -> f64 {
    let ratios = (0..SEEDS).map(|seed| {
        let builds = builds(tape, nodes, seed, 1);
        run(nodes, &builds, Ours::new(nodes, &builds)).wall() / bound(nodes, &builds)
    });
    ratios.sum::<f64>() / SEEDS as f64
}

#[test]
fn builds_end_near_the_bound() {
    for (what, nodes, tape, most) in [
        ("equal", clusters::equal(), Tape::NET, 1.15),
        ("mixed", clusters::mixed(), Tape::NET, 1.2),
        ("equal, first", clusters::equal(), Tape::FIRST, 1.18),
        ("equal, new", clusters::equal(), Tape::NEW, 1.18),
        ("mixed, first", clusters::mixed(), Tape::FIRST, 1.4),
        ("mixed, new", clusters::mixed(), Tape::NEW, 1.4),
        ("mixed, long", clusters::mixed(), Tape::LONG, 1.12),
        ("big.LITTLE", clusters::big_little(), Tape::NET, 1.25),
        ("large", clusters::large(), Tape::LONG, 1.35),
        ("in trouble", clusters::troubled(6.0), Tape::NET, 1.3),
        ("in trouble, long", clusters::troubled(25.0), Tape::LONG, 1.15),
    ] {
        let ratio = ratio(&nodes, tape);
        assert!(
            ratio <= most,
            "{what}: wall is {ratio:.3} of the bound, more than {most}"
        );
    }
}

/// A kernel's make begins with all of its jobs and goes on with half of them, fewer than there are slots.
#[test]
fn build_that_goes_on_with_fewer_jobs_than_it_began_with_uses_the_slow_nodes_too() {
    let nodes = clusters::mixed();
    let ratio = |settled: usize| {
        let ratios = (0..SEEDS).map(|seed| {
            let mut builds = builds(Tape::LONG, &nodes, seed, 1);
            builds[0].settled = settled;
            run(&nodes, &builds, Ours::new(&nodes, &builds)).wall() / bound(&nodes, &builds)
        });
        ratios.sum::<f64>() / SEEDS as f64
    };
    let (kept, fewer) = (ratio(35), ratio(17));
    assert!(
        fewer <= 1.1 * kept,
        "{fewer:.3} of the bound, {kept:.3} with a full window"
    );
}

#[test]
fn wrong_powers_cost_little_once_they_are_learned() {
    let right = ratio(&clusters::mixed(), Tape::LONG);
    let wrong = ratio(&clusters::mislabelled(), Tape::LONG);
    assert!(wrong <= 1.1 * right, "{wrong:.3} against {right:.3}");
}

#[test]
fn what_was_learned_outlives_a_restart() {
    // In a long build, what is learned anew soon makes up for what was lost.
    let (mut kept, mut lost, mut right) = (0.0, 0.0, 0.0);
    for outcome in (0..SEEDS).map(|seed| restart(seed, 30)) {
        kept += outcome.kept;
        lost += outcome.lost;
        right += outcome.right;
    }
    assert!(
        kept <= 1.1 * right,
        "{kept:.1} s against {right:.1} s with the powers right"
    );
    assert!(
        lost >= 2.0 * right,
        "these builds tell nothing: {lost:.1} s against {right:.1} s"
    );
}

#[test]
fn two_builds_at_once_get_half_each() {
    let nodes = clusters::mixed();
    for seed in 0..SEEDS {
        let builds = builds(Tape::LONG, &nodes, seed, 2);
        let outcome = run(&nodes, &builds, Ours::new(&nodes, &builds));
        let done = &outcome.done_at_first_end;
        let part = done[0] / (done[0] + done[1]);
        assert!((part - 0.5).abs() <= 0.075, "seed {seed}: {done:?}");
        assert!(outcome.jobs_on.iter().all(|jobs| *jobs > 0), "{:?}", outcome.jobs_on);
    }
}

#[test]
fn prediction_beats_other_rules_on_a_mixed_cluster() {
    let nodes = clusters::mixed();
    let builds = builds(Tape::NET, &nodes, 1, 1);
    let ours = run(&nodes, &builds, Ours::new(&nodes, &builds)).wall();
    for rule in [Rule::ListOrder, Rule::LeastLoaded, Rule::Icecream, Rule::PowerTimesFree] {
        let theirs = run(&nodes, &builds, Rival::new(rule, &nodes, &builds)).wall();
        assert!(ours < 0.85 * theirs, "{rule:?}: {theirs:.1} s, ours {ours:.1} s");
    }
}

//! What the rule of placement is worth: whole builds on simulated clusters, under ours and under others.
//!
//! `cargo bench --bench placement`. Each figure is wall over bound, the mean of some seeds; nothing but simulated time is
//! in it, so it is the same on every machine. What the clusters, jobs and rules are is told in `tests/sim/bouts`.

#[path = "../tests/sim/bouts/mod.rs"]
mod bouts;

use bouts::{Build, Node, Ours, Outcome, Rival, Rule, Tape, bound, clusters, restart, run};

const SEEDS: u64 = 40;

type Cluster = fn() -> Vec<Node>;

fn window(nodes: &[Node]) -> usize {
    let there = nodes.iter().filter(|node| node.joins == 0.0);
    there.map(|node| node.slots).sum::<usize>() * 7 / 4
}

fn outcome(rule: Option<Rule>, nodes: &[Node], builds: &[Build]) -> Outcome {
    match rule {
        Some(rule) => run(nodes, builds, Rival::new(rule, nodes, builds)),
        None => run(nodes, builds, Ours::new(nodes, builds)),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

fn main() {
    let rules = [
        Some(Rule::ListOrder),
        Some(Rule::LeastLoaded),
        Some(Rule::Icecream),
        Some(Rule::PowerTimesFree),
        None,
    ];
    println!("wall / bound, mean of {SEEDS} seeds");
    println!(
        "{:34} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "bound", "list", "least", "icecream", "pow*free", "rdcc"
    );
    let rows: [(&str, Cluster, Tape, usize); 17] = [
        ("8 x 1.0 (16 slots), net/", clusters::equal, Tape::NET, 1),
        ("8 x 1.0 (16 slots), first net/", clusters::equal, Tape::FIRST, 1),
        ("8 x 1.0 (16 slots), new net/", clusters::equal, Tape::NEW, 1),
        ("8 x 1.0 (16 slots), long", clusters::equal, Tape::LONG, 1),
        ("mixed (20 slots), net/", clusters::mixed, Tape::NET, 1),
        ("mixed (20 slots), first net/", clusters::mixed, Tape::FIRST, 1),
        ("mixed (20 slots), new net/", clusters::mixed, Tape::NEW, 1),
        ("mixed (20 slots), long", clusters::mixed, Tape::LONG, 1),
        ("mixed in trouble, net/", || clusters::troubled(6.0), Tape::NET, 1),
        ("in trouble, first net/", || clusters::troubled(6.0), Tape::FIRST, 1),
        ("in trouble, new net/", || clusters::troubled(6.0), Tape::NEW, 1),
        ("mixed in trouble, long", || clusters::troubled(25.0), Tape::LONG, 1),
        ("two builds on mixed, long", clusters::mixed, Tape::LONG, 2),
        ("6 of 2 x 2.0 and 4 x 0.5, net/", clusters::big_little, Tape::NET, 1),
        ("6 of 2 x 2.0 and 4 x 0.5, long", clusters::big_little, Tape::LONG, 1),
        ("32 x 1.0 (128 slots), long", clusters::large, Tape::LONG, 1),
        ("mixed, all said to be 1.0, long", clusters::mislabelled, Tape::LONG, 1),
    ];
    for (what, cluster, tape, builds) in rows {
        let nodes = cluster();
        let window = window(&nodes);
        let bout = |seed: u64| -> Vec<Build> {
            (0..builds as u64)
                .map(|build| tape.build(window, 100 * seed + build))
                .collect()
        };
        let ratio = |rule| {
            mean((0..SEEDS).map(|seed| {
                let builds = bout(seed);
                outcome(rule, &nodes, &builds).wall() / bound(&nodes, &builds)
            }))
        };
        let bounds = mean((0..SEEDS).map(|seed| bound(&nodes, &bout(seed))));
        let ratios = rules.map(|rule| format!("{:8.2}", ratio(rule)));
        println!("{what:34} {bounds:7.1}s {}", ratios.join(" "));
        if builds > 1 {
            let shares = (0..SEEDS).map(|seed| {
                let done = outcome(None, &nodes, &bout(seed)).done_at_first_end;
                (done[0] / (done[0] + done[1]) - 0.5).abs() * 2.0
            });
            println!(
                "{:34} furthest from half, rdcc: {:.0} %",
                "",
                100.0 * shares.fold(0.0, f64::max)
            );
        }
    }
    restarts();
}

fn restarts() {
    println!("\nfirst jobs after a restart on mixed, all said to be 1.0, over the same with the powers right");
    for jobs in [10, 30, 100, 260] {
        let outcomes: Vec<_> = (0..SEEDS).map(|seed| restart(seed, jobs)).collect();
        let right: f64 = outcomes.iter().map(|outcome| outcome.right).sum();
        let kept: f64 = outcomes.iter().map(|outcome| outcome.kept).sum();
        let lost: f64 = outcomes.iter().map(|outcome| outcome.lost).sum();
        println!(
            "{jobs:5} jobs: {:.2} with what was learned, {:.2} without",
            kept / right,
            lost / right
        );
    }
}

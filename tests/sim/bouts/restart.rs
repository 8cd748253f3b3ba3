//! A coordinator's restart on nodes whose powers are configured wrong.

use super::{Build, Ours, Tape, clusters, run};

/// How long the first jobs of a build take, seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Restart {
    /// Where the coordinator knows what one before it learned.
    pub kept: f64,
    /// Where it knows what is configured, which is wrong.
    pub lost: f64,
    /// Where what is configured is right.
    pub right: f64,
}

/// Learns from one build of `net/` on the mixed cluster, all of it said to be alike, then builds the first `jobs` of another.
pub fn restart(seed: u64, jobs: usize) -> Restart {
    let (wrong, right) = (clusters::mislabelled(), clusters::mixed());
    let window = right.iter().map(|node| node.slots).sum::<usize>() * 7 / 4;
    let first = [Tape::NET.build(window, 10_000 + 100 * seed)];
    let mut teacher = Ours::new(&wrong, &first);
    run(&wrong, &first, &mut teacher);

    let mut second: [Build; 1] = [Tape::NET.build(window, 100 * seed)];
    second[0].work.truncate(jobs);
    second[0].predicted.truncate(jobs);
    let knows = Ours::new(&wrong, &second).recall(&teacher.learned());
    Restart {
        kept: run(&wrong, &second, knows).wall(),
        lost: run(&wrong, &second, Ours::new(&wrong, &second)).wall(),
        right: run(&right, &second, Ours::new(&right, &second)).wall(),
    }
}

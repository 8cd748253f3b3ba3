//! Whole builds on made-up clusters, under one rule of placement or another: what a rule is worth, in simulated time.
//!
//! Nodes have true powers, which may differ from what they are said to have and change on the way; a build is `make -jN`
//! on a machine of two cores, so that the next job comes only when one has ended and the client had the time for it.
//! The same seed gives the same jobs to every rule. `cargo bench --bench placement` prints the table, tests hold the
//! ratios.

mod engine;
mod ours;
mod restart;
mod rivals;
mod traces;

pub use engine::run;
pub use ours::Ours;
pub use restart::restart;
pub use rivals::{Rival, Rule};
pub use traces::{Tape, clusters};

/// A node.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Speed of a slot.
    pub power: f64,
    /// What it is said to be.
    pub told: f64,
    pub slots: usize,
    /// Whether these are other cores of the same machine as the node before.
    pub with_previous: bool,
    /// When it joins, seconds.
    pub joins: f64,
    /// When it is killed.
    pub dies: f64,
    /// When its power changes, and to which part of it.
    pub throttled: Option<(f64, f64)>,
}

impl Node {
    pub fn new(power: f64, slots: usize) -> Self {
        Self {
            power,
            told: power,
            slots,
            with_previous: false,
            joins: 0.0,
            dies: f64::INFINITY,
            throttled: None,
        }
    }

    /// Speed of a slot at a time; none while it is not there.
    pub fn power_at(&self, time: f64) -> f64 {
        match self.throttled {
            _ if time < self.joins || time >= self.dies => 0.0,
            Some((from, part)) if time >= from => self.power * part,
            _ => self.power,
        }
    }
}

/// A build.
#[derive(Debug, Clone)]
pub struct Build {
    /// Work of its jobs, seconds, in the order in which make comes to them.
    pub work: Vec<f64>,
    /// What each was predicted to be.
    pub predicted: Vec<f64>,
    /// Sizes of its jobs' closures, bytes.
    pub closures: Vec<u64>,
    /// Whether its agent predicts from what it learns on the way instead.
    pub learns: bool,
    /// Standard deviation of the logarithm of the predictions' error.
    pub spread: f64,
    /// Jobs at one time, at the beginning.
    pub window: usize,
    /// Jobs at one time from then on: a recursive `make` has a part of its jobs in makes that do nothing but wait.
    pub settled: usize,
    /// What a job costs the client, seconds of one of its two cores.
    pub client: f64,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// When each build ended, seconds.
    pub walls: Vec<f64>,
    /// Work of each that was done when the first of them ended.
    pub done_at_first_end: Vec<f64>,
    /// How many jobs ran on each node.
    pub jobs_on: Vec<usize>,
}

impl Outcome {
    pub fn wall(&self) -> f64 {
        self.walls.iter().copied().fold(0.0, f64::max)
    }
}

/// No schedule is faster than this: area, the longest jobs on the fastest slots, and the client.
pub fn bound(nodes: &[Node], builds: &[Build]) -> f64 {
    let mut work: Vec<f64> = builds.iter().flat_map(|build| build.work.iter().copied()).collect();
    let client = builds
        .iter()
        .map(|build| build.work.len() as f64 * build.client / CLIENT_CORES as f64);
    // Power changes a few times only; small steps are exact enough.
    let step = 0.01;
    let (mut area, mut left) = (0.0, work.iter().sum::<f64>());
    while left > 0.0 {
        left -= step
            * nodes
                .iter()
                .map(|node| node.power_at(area) * node.slots as f64)
                .sum::<f64>();
        area += step;
    }
    work.sort_by(|a, b| b.total_cmp(a));
    let mut slots: Vec<f64> = nodes
        .iter()
        .flat_map(|node| std::iter::repeat_n(node.power, node.slots))
        .collect();
    slots.sort_by(|a, b| b.total_cmp(a));
    let sums = |values: &[f64]| {
        let mut sum = 0.0;
        values
            .iter()
            .map(|value| {
                sum += value;
                sum
            })
            .collect::<Vec<f64>>()
    };
    let longest = sums(&work)
        .into_iter()
        .zip(sums(&slots))
        .map(|(work, power)| work / power);
    longest.chain(client).fold(area, f64::max)
}

/// Cores of the machine that submits.
pub const CLIENT_CORES: usize = 2;

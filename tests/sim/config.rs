//! How rough a simulated farm is.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What can happen in a world, and how often. Probabilities are per message, per job, or per second.
#[derive(Debug, Clone)]
pub struct Config {
    pub workers: usize,
    pub agents: usize,
    pub toolchains: usize,
    pub jobs_per_agent: usize,
    pub parallel: usize,
    pub slots: (u32, u32),
    pub power_milli: (u32, u32),
    /// Work of a job, milliseconds on the reference core.
    pub work_ms: (u64, u64),
    /// Delay of a message, milliseconds.
    pub delay_ms: (u64, u64),
    /// Whether messages within a session may be lost, doubled and overtake each other.
    pub loose: Loose,
    /// Whether jobs tell their predicted work.
    pub predicted: bool,
    /// Faults stop then, so that everything can end.
    pub calm_after: Duration,
    /// Mean number of each kind of accident in a minute.
    pub accidents_per_minute: f64,
    /// Share of grants that agents give back, sit on, or forget.
    pub odd_agents: f64,
    /// Share of toolchains that a worker does not have ready at the start.
    pub not_ready: f64,
    /// Whether some workers have cores of different speed.
    pub unlike_cores: bool,
    /// Kinds of host, of toolchains and workers. With more than one, neighbours stand in for each other now and then.
    pub kinds: usize,
}

/// How a session treats its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loose {
    /// As a stream does: all of them in order, until it breaks.
    No,
    /// Worse than any stream.
    Yes,
}

impl Config {
    /// A small orderly farm in which nothing goes wrong.
    pub fn orderly() -> Self {
        Self {
            workers: 3,
            agents: 2,
            toolchains: 1,
            jobs_per_agent: 40,
            parallel: 12,
            slots: (2, 2),
            power_milli: (1000, 1000),
            work_ms: (200, 4000),
            delay_ms: (1, 2),
            loose: Loose::No,
            predicted: false,
            calm_after: Duration::ZERO,
            accidents_per_minute: 0.0,
            odd_agents: 0.0,
            not_ready: 0.0,
            unlike_cores: false,
            kinds: 1,
        }
    }

    /// A farm drawn at random, in which everything goes wrong.
    pub fn rough(random: &mut ChaCha8Rng, loose: Loose) -> Self {
        Self {
            workers: random.random_range(1..=5),
            agents: random.random_range(1..=3),
            toolchains: random.random_range(1..=3),
            jobs_per_agent: random.random_range(5..=25),
            parallel: random.random_range(1..=12),
            slots: (1, 4),
            power_milli: (250, 4000),
            work_ms: (10, 6000),
            delay_ms: (0, if random.random_bool(0.3) { 3000 } else { 30 }),
            loose,
            predicted: random.random_bool(0.5),
            calm_after: Duration::from_secs(random.random_range(5..60)),
            accidents_per_minute: random.random_range(0.5..8.0),
            odd_agents: random.random_range(0.0..0.2),
            not_ready: random.random_range(0.0..1.0),
            unlike_cores: true,
            kinds: 1,
        }
    }
}

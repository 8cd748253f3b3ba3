//! The numbers that the scheduler goes by.
//!
//! Every wait and every count is bounded by one of these. Operators can set the times; the bounds on counts protect the
//! coordinator's memory and are far above any farm that one coordinator serves.

use std::time::Duration;

use super::events::Purpose;

/// The scheduler's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// A grant has to be in use this long after it was given. An agent that has the job at hand uses it at once.
    pub grant_valid: Duration,
    /// The same for a grant that an agent holds ahead of need: it gives it back by itself when its build pauses, and on
    /// recall, so this only ends what was forgotten.
    pub ahead_valid: Duration,
    /// How long an agent has to give back a place that it holds ahead of need, or to have used it, once it is called back.
    pub recall_wait: Duration,
    /// Agents are told how the farm is no more often than this.
    pub outlook_every: Duration,
    /// How often workers report.
    pub report_every: Duration,
    /// A worker that missed this many reports is lost. Ten: a board that swaps may be late by some.
    pub silent_reports: u32,
    /// How long a want waits for a toolchain that no worker has ready: a fetch of 100 MB over 100 Mbit/s, unpacked on a
    /// slow board, with some to spare.
    pub prepare_wait: Duration,
    /// How long a want waits at most while all workers are busy.
    pub queue_wait: Duration,
    /// How long workers have to come (back), after the coordinator's start or a worker's loss, before wants that only
    /// they could serve are refused.
    pub settle: Duration,
    /// First pause of a worker after a fault; it doubles with every further one.
    pub fault_pause_first: Duration,
    /// Longest such pause.
    pub fault_pause_most: Duration,
    /// How long a want waits for workers that all pause after faults.
    pub pause_wait: Duration,
    /// First pause before a worker that could not get a toolchain is asked again; it doubles.
    pub failed_pause_first: Duration,
    /// Longest such pause.
    pub failed_pause_most: Duration,
    /// An order to prepare a toolchain that was not answered is repeated after this.
    pub prepare_again: Duration,
    /// Workers that fetch one toolchain at one time: they share the coordinator's uplink, and the first should be ready
    /// soon rather than all late.
    pub fetches_max: usize,
    /// Agents with a session.
    pub agents_max: usize,
    /// Workers known.
    pub workers_max: usize,
    /// Wants waiting per agent.
    pub wants_per_agent_max: usize,
    /// Builds told apart per agent; beyond it they share one account.
    pub builds_per_agent_max: usize,
    /// Toolchains followed per worker.
    pub toolchains_per_worker_max: usize,
    /// Toolchains in the catalogue.
    pub toolchains_max: usize,
    /// Slots of one worker that count.
    pub slots_per_worker_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            grant_valid: Duration::from_secs(10),
            ahead_valid: Duration::from_secs(30),
            recall_wait: Duration::from_millis(500),
            outlook_every: Duration::from_millis(250),
            report_every: Duration::from_secs(1),
            silent_reports: 10,
            prepare_wait: Duration::from_secs(120),
            queue_wait: Duration::from_secs(30 * 60),
            settle: Duration::from_secs(5),
            fault_pause_first: Duration::from_secs(1),
            fault_pause_most: Duration::from_secs(60),
            pause_wait: Duration::from_secs(2),
            failed_pause_first: Duration::from_secs(60),
            failed_pause_most: Duration::from_secs(3600),
            prepare_again: Duration::from_secs(30),
            fetches_max: 4,
            agents_max: 1024,
            workers_max: 4096,
            wants_per_agent_max: 4096,
            builds_per_agent_max: 64,
            toolchains_per_worker_max: 256,
            toolchains_max: 4096,
            slots_per_worker_max: 1024,
        }
    }
}

impl Rules {
    /// How long after it was given a grant for `purpose` has to be in use.
    pub fn grant_valid_for(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Job | Purpose::Race => self.grant_valid,
            Purpose::Ahead => self.ahead_valid.max(self.grant_valid),
        }
    }

    /// How long a worker may be silent, or without a session, before it is lost.
    pub fn silence(&self) -> Duration {
        self.report_every.saturating_mul(self.silent_reports)
    }
}

//! The last build, as jobs come and end: the clock and the kernel's counters around [`Builds`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::builds::{Builds, EndedJob, Own, Surroundings};
use super::machine;
use crate::exchange::{BuildSummary, BuildTrace};
use crate::runtime::clock::unix_ms;

/// The log; clones are the same log.
#[derive(Debug, Clone)]
pub struct BuildLog {
    builds: Arc<Mutex<Builds>>,
}

/// A job that has come, until it ends or goes away.
#[derive(Debug)]
pub struct Entry {
    builds: Arc<Mutex<Builds>>,
    began: Instant,
    open: bool,
}

impl BuildLog {
    /// Starts an empty log.
    pub fn new(own: Own) -> Self {
        Self {
            builds: Arc::new(Mutex::new(Builds::new(own))),
        }
    }

    /// Lets a job come.
    pub fn enter(&self) -> Entry {
        let began = Instant::now();
        let mut builds = lock(&self.builds);
        let begins = builds.begins(began);
        let cpu = begins.then(machine::cpu_time).flatten();
        builds.handle_began(began, unix_ms(), cpu);
        Entry {
            builds: Arc::clone(&self.builds),
            began,
            open: true,
        }
    }

    /// Returns the last build's summary.
    pub fn summary(&self) -> Option<BuildSummary> {
        lock(&self.builds).summary()
    }

    /// Returns the last build, job by job.
    pub fn trace(&self) -> Option<BuildTrace> {
        lock(&self.builds).trace()
    }
}

impl Entry {
    /// Ends the job. `slots` and `power_here` are what is known of farm and machine now.
    pub fn end(mut self, mut job: EndedJob, slots: u32, power_here: f64) {
        self.open = false;
        job.began = self.began;
        let now = Instant::now();
        let mut builds = lock(&self.builds);
        let around = Surroundings {
            cpu: builds.wants_cpu(now).then(machine::cpu_time).flatten(),
            slots,
            power_here,
        };
        builds.handle_ended(job, around, now);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open {
            lock(&self.builds).handle_left();
        }
    }
}

fn lock(builds: &Mutex<Builds>) -> MutexGuard<'_, Builds> {
    // Sums and lists of whole entries.
    builds.lock().unwrap_or_else(PoisonError::into_inner)
}

//! How long a job would take in each place that it might go to, seconds.

use super::{Job, JobNumber, Placing, ROUND_TRIP, Reach, State};

/// What sending a job costs beside its run, seconds: its inputs' numbers, the answer checked, files in place. A guess between
/// what client and worker spend on it in CPU time (`docs/performance.md`) and what a network adds.
const REMOTE_EXTRA_S: f64 = 0.005;
/// How much sooner another place has to end a job for a round trip to be worth it.
const BETTER_PLACE: f64 = 0.8;

impl Placing {
    pub(super) fn share_for(&self, job: &Job) -> Option<f64> {
        match job.ask.reach {
            Reach::Anywhere => self.share.for_one_more(job.ask.prediction.memory_bytes),
            Reach::Workers | Reach::Chosen => None,
        }
    }

    /// Tells whether a job should ask for a faster place than the held one of `power`.
    pub(super) fn is_worth_a_wait(&self, job: &Job, power: f64) -> bool {
        let Some(view) = self.view else { return false };
        let fastest = f64::from(view.fastest_milli) / 1000.0;
        if view.slots_busy >= view.slots_total || fastest <= 0.0 {
            return false;
        }
        let asked = ROUND_TRIP.as_secs_f64() + job.work_s() / fastest;
        asked < BETTER_PLACE * job.work_s() / power.max(0.001)
    }

    /// Predicts how long a new job takes on a worker: at a held place of that power, or else at one that is free.
    pub(super) fn finish_there(&self, job: &Job, spare: Option<f64>) -> f64 {
        let fastest = self.view.map_or(0.0, |view| f64::from(view.fastest_milli) / 1000.0);
        let power = match spare {
            Some(power) => power,
            None if fastest > 0.0 => fastest,
            None => 1.0,
        };
        REMOTE_EXTRA_S + job.work_s() / power.max(0.001)
    }

    /// Predicts how long a job that waits will still take on a worker. The coordinator starts the longest first, so all
    /// longer ones of ours come before it.
    pub(super) fn finish_in_queue(&self, number: JobNumber, job: &Job) -> f64 {
        let (mut rate, mut running, mut count, mut before) = (0.0, 0.0, 0.0, 0.0);
        for (other_number, other) in &self.jobs {
            match &other.state {
                State::There(spare) => {
                    rate += spare.power;
                    running += other.work_s();
                    count += 1.0;
                }
                State::Waits(_) | State::Holds(_) if *other_number != number && other.work_s() >= job.work_s() => {
                    before += other.work_s();
                }
                _ => {}
            }
        }
        if rate <= 0.0 {
            // None of ours runs: others have the farm, for who knows how long.
            return f64::INFINITY;
        }
        let next_free = running / count / rate;
        REMOTE_EXTRA_S + next_free + before / rate + job.work_s() / (rate / count)
    }
}

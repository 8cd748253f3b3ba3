//! How far a worker is trusted after a fault.
//!
//! A fault costs a pause, then the worker is tried with one job at a time until one runs; every further fault doubles
//! the pause, up to a bound. It is never shut out: a node that was unplugged for a minute is back a job later. One
//! incident counts once: only a grant given after the last counted fault says anything new.

use super::moment::Moment;
use super::rules::Rules;
use crate::ids::GrantId;
use crate::runtime::backoff::Backoff;

/// A worker's standing after faults.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone)]
struct Trouble {
    since: Moment,
    pause_until: Moment,
    pauses: Backoff,
    probe: Option<GrantId>,
}

/// How many of its free slots a worker may be given jobs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// All.
    Full,
    /// One job, to see.
    OneJob,
    /// None for now.
    Paused,
}

impl Health {
    /// Takes note of a fault under a grant given at `given`. Returns when the pause that follows ends, if it is a new
    /// fault. `random` jitters the pause.
    pub fn fault(&mut self, given: Moment, now: Moment, rules: &Rules, random: u32) -> Option<Moment> {
        if self.trouble.as_ref().is_some_and(|trouble| given <= trouble.since) {
            return None;
        }
        let first = || Backoff::new(rules.fault_pause_first, rules.fault_pause_most);
        let mut pauses = self.trouble.take().map_or_else(first, |trouble| trouble.pauses);
        let pause_until = now.after(pauses.next_delay(random));
        self.trouble = Some(Trouble {
            since: now,
            pause_until,
            pauses,
            probe: None,
        });
        Some(pause_until)
    }

    /// Takes note of a job that ran under a grant given at `given`.
    pub fn success(&mut self, given: Moment) {
        if self.trouble.as_ref().is_some_and(|trouble| given > trouble.since) {
            self.trouble = None;
        }
    }

    /// Takes note of a grant given.
    pub fn given(&mut self, grant: GrantId) {
        if let Some(trouble) = &mut self.trouble {
            trouble.probe.get_or_insert(grant);
        }
    }

    /// Takes note that a grant takes no slot any more.
    pub fn ended(&mut self, grant: GrantId) {
        if let Some(trouble) = &mut self.trouble
            && trouble.probe == Some(grant)
        {
            trouble.probe = None;
        }
    }

    /// Returns when the pause ends, if one was ordered since the last success.
    pub fn pause_until(&self) -> Option<Moment> {
        self.trouble.as_ref().map(|trouble| trouble.pause_until)
    }

    /// Returns how far the worker is trusted now.
    pub fn trust(&self, now: Moment) -> Trust {
        match &self.trouble {
            None => Trust::Full,
            Some(trouble) if now < trouble.pause_until || trouble.probe.is_some() => Trust::Paused,
            Some(_) => Trust::OneJob,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    #[test]
    fn fault_pauses_then_one_job_at_a_time_until_one_runs() {
        let rules = Rules::default();
        let mut health = Health::default();
        assert_eq!(health.fault(at(0), at(10), &rules, u32::MAX), Some(at(1010)));
        assert_eq!(health.trust(at(1009)), Trust::Paused);
        assert_eq!(health.trust(at(1010)), Trust::OneJob);
        health.given(GrantId(7));
        assert_eq!(health.trust(at(1011)), Trust::Paused);
        assert_eq!(health.fault(at(1010), at(1020), &rules, u32::MAX), Some(at(3020)));
        health.given(GrantId(8));
        health.success(at(3020));
        assert_eq!(health.trust(at(3030)), Trust::Full);
    }

    #[test]
    fn one_incident_counts_once_and_earlier_jobs_prove_nothing() {
        let rules = Rules::default();
        let mut health = Health::default();
        assert!(health.fault(at(0), at(10), &rules, 0).is_some());
        assert_eq!(health.fault(at(5), at(11), &rules, 0), None);
        health.success(at(5));
        assert_eq!(health.trust(at(11)), Trust::Paused);
    }

    #[test]
    fn probe_that_was_given_back_makes_room_for_another() {
        let mut health = Health::default();
        health.fault(at(0), at(10), &Rules::default(), 0);
        health.given(GrantId(1));
        health.ended(GrantId(1));
        assert_eq!(health.trust(at(60_000)), Trust::OneJob);
    }
}

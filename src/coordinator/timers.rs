//! Everything the scheduler has to do at a time rather than upon an event.
//!
//! One timer per key; setting it again moves it. Invariant: `by_time` and `by_key` hold the same pairs.

use std::collections::{BTreeMap, BTreeSet};

use super::moment::Moment;
use super::scopes::Scope;
use crate::ids::{AgentSessionId, GrantId, RequestId, ToolchainId, WorkerSessionId};

/// What comes due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Workers had time to come (back): what still has no worker is refused.
    Settled,
    /// A grant was not used in time, or the agent never said how it ended.
    Grant(GrantId),
    /// A want has waited long enough to be looked at.
    Want(AgentSessionId, RequestId),
    /// A worker has been silent, or away, for too long.
    Silence(WorkerSessionId),
    /// A faulty worker's pause is over.
    Pause(WorkerSessionId),
    /// A worker that could not get a toolchain may try again.
    Toolchain(WorkerSessionId, ToolchainId),
    /// Wants of a scope wait beside open slots for better ones, which should have come by now.
    Look(Scope),
    /// Agents may be told how the farm is.
    Outlook,
}

/// The set of timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Moment, Timer)>,
    by_key: BTreeMap<Timer, Moment>,
}

impl Timers {
    /// Makes `timer` come due at `at`, and at no other time.
    pub fn set(&mut self, timer: Timer, at: Moment) {
        if let Some(before) = self.by_key.insert(timer, at) {
            self.by_time.remove(&(before, timer));
        }
        self.by_time.insert((at, timer));
    }

    /// Forgets `timer`.
    pub fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.by_key.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Returns when the next one is due.
    pub fn next(&self) -> Option<Moment> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub fn pop_due(&mut self, now: Moment) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_key.remove(&timer);
        Some(timer)
    }

    /// Returns whether `timer` is set.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.by_key.contains_key(&timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moved_timer_comes_due_once_at_its_new_time() {
        let at = |seconds| Moment::at(Duration::from_secs(seconds));
        let mut timers = Timers::default();
        timers.set(Timer::Settled, at(1));
        timers.set(Timer::Settled, at(5));
        timers.set(Timer::Grant(GrantId(1)), at(3));
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.pop_due(at(2)), None);
        assert_eq!(timers.pop_due(at(9)), Some(Timer::Grant(GrantId(1))));
        assert_eq!(timers.pop_due(at(9)), Some(Timer::Settled));
        assert_eq!(timers.pop_due(at(9)), None);
    }
}

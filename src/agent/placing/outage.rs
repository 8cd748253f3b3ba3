//! While the coordinator is away: nobody gives places, so jobs take turns in those that this agent has.
//!
//! A place whose job has ended serves the next one instead of being given back; the worker takes that as long as it is
//! without the coordinator too. One that a worker refuses rests for a while: it may notice later than we do that the coordinator
//! has gone, or sooner that it is back. Jobs wait for such a place as they do in the coordinator's queue, the longest first,
//! and are taken back for an idle core here in the same way. Invariants: no job waits that none of these places could
//! take; nothing is kept for longer than [`REUSED_FOR`], or once there is a coordinator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Action, Job, JobNumber, Placing, Reach, Spare, State};
use crate::ids::{GrantId, ToolchainId};
use crate::protocol::token::REUSED_FOR;

/// How long a place rests that was refused for the first time; twice as long the next time.
const REST: Duration = Duration::from_secs(1);
/// A place that was refused this often is given up: then its worker has long noticed what there was to notice.
const REFUSALS_MAX: u32 = 5;

/// What a place whose job has ended is good for without a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The next job.
    AtOnce,
    /// The next job, after a rest: the worker refused this one.
    Later,
    /// Nothing: the worker failed, or is not to be used.
    Never,
}

/// The time in which there is no coordinator any more.
#[derive(Debug)]
pub(super) struct Outage {
    since: Instant,
    resting: BTreeMap<GrantId, Rest>,
    /// How often each place was refused.
    refusals: BTreeMap<GrantId, u32>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    toolchain: ToolchainId,
    spare: Spare,
}

impl Outage {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            resting: BTreeMap::new(),
            refusals: BTreeMap::new(),
        }
    }

    /// Returns when something is to be done.
    pub(super) fn next_deadline(&self) -> Instant {
        let rests = self.resting.values().map(|rest| rest.until);
        rests.fold(self.since + REUSED_FOR, Instant::min)
    }
}

impl Placing {
    /// Takes note of the loss of the coordinator.
    pub(super) fn lose_coordinator(&mut self, now: Instant) {
        self.view = None;
        for pool in self.pools.values_mut() {
            self.actions.extend(pool.asked.drain(..).map(Action::TakeBackAhead));
        }
        self.outage.get_or_insert_with(|| Outage::new(now));
    }

    /// Takes note of a new session: what was kept is nothing there, and what waited for it is asked for.
    pub(super) fn find_coordinator(&mut self) {
        self.end_outage();
        for (number, job) in &mut self.jobs {
            if let State::Holds(since) = job.state {
                job.state = State::Waits(since);
                self.actions.push(Action::Want(*number));
            }
        }
    }

    fn end_outage(&mut self) {
        let resting = self.outage.take().map(|outage| outage.resting.into_keys());
        let held = self.pools.values_mut();
        let held = held.flat_map(|pool| std::mem::take(&mut pool.spares).into_keys());
        self.actions
            .extend(resting.into_iter().flatten().chain(held).map(Action::Return));
    }

    /// Takes the place back that a job has left, or goes on with it.
    pub(super) fn vacated(&mut self, left: Option<Job>, grant: GrantId, again: Again, now: Instant) {
        let (
            Some(outage),
            Some(Job {
                ask,
                state: State::There(spare),
            }),
            Again::AtOnce | Again::Later,
        ) = (&mut self.outage, left, again)
        else {
            return self.actions.push(Action::Return(grant));
        };
        let toolchain = ask.toolchain;
        if again == Again::AtOnce {
            outage.refusals.remove(&grant);
            return self.keep(toolchain, grant, spare, now);
        }
        // Perhaps the coordinator is back already, and the worker knows.
        self.actions.push(Action::Reconnect);
        let refusals = outage.refusals.entry(grant).or_default();
        *refusals += 1;
        if *refusals >= REFUSALS_MAX {
            return self.actions.push(Action::Return(grant));
        }
        let until = now + REST * (1 << (*refusals - 1));
        outage.resting.insert(
            grant,
            Rest {
                until,
                toolchain,
                spare,
            },
        );
    }

    /// Ends what has lasted long enough, and gives up the jobs that wait in vain.
    pub(super) fn go_on_alone(&mut self, now: Instant) {
        let Some(outage) = &mut self.outage else { return };
        if now >= outage.since + REUSED_FOR {
            self.end_outage();
        } else {
            let all = std::mem::take(&mut outage.resting).into_iter();
            let (rested, resting): (BTreeMap<_, _>, _) = all.partition(|(_, rest)| now >= rest.until);
            outage.resting = resting;
            for (grant, rest) in rested {
                self.keep(rest.toolchain, grant, rest.spare, now);
            }
        }
        let in_vain = |job: &Job| matches!(job.state, State::Holds(_)) && !self.may_hold_on(job);
        let in_vain = self.jobs.iter().filter(|(_, job)| in_vain(job));
        for number in in_vain.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.give_up(number);
        }
    }

    /// Takes note that a want could not be sent, or is lost with the coordinator.
    pub(super) fn unheard(&mut self, number: JobNumber) {
        let Some(job) = self.jobs.get(&number) else { return };
        match job.state {
            State::Waits(since) if self.may_hold_on(job) => self.set(number, State::Holds(since)),
            _ => self.give_up(number),
        }
    }

    fn give_up(&mut self, number: JobNumber) {
        self.jobs.remove(&number);
        self.actions.push(Action::GiveUp(number));
    }

    /// Tells whether a job may come by one of the places that this agent has, now or when another job has left it.
    pub(super) fn may_hold_on(&self, job: &Job) -> bool {
        let Some(outage) = &self.outage else { return false };
        let toolchain = job.ask.toolchain;
        let held = self.pools.get(&toolchain).into_iter();
        let held = held.flat_map(|pool| pool.spares.values().map(|(spare, _)| spare));
        let resting = outage.resting.values().filter(|rest| rest.toolchain == toolchain);
        let used = self.jobs.values().filter_map(|other| match &other.state {
            State::There(spare) if other.ask.toolchain == toolchain => Some(spare),
            _ => None,
        });
        let mut all = held.chain(resting.map(|rest| &rest.spare)).chain(used);
        job.ask.reach != Reach::Chosen && all.any(|spare| job.may_use(spare))
    }
}

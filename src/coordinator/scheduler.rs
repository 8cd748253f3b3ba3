//! The coordinator's state machine: events and moments in, actions out.
//!
//! It keeps one record per agent, worker, grant and toolchain; the rules for each are in the file of that name. What
//! is not here: sockets, clocks, tokens, files. Invariants, checked by [`Scheduler::audit`] after every step of the
//! simulation, but for the second half of the fourth:
//! 1. a want is waiting, granted or ended, and nothing else;
//! 2. a worker's grants never take more slots than it has, except for jobs that it reported by itself;
//! 3. a slot is free only when its job is known to be over: by the agent's word, the worker's report or acknowledgement,
//!    or the worker's loss;
//! 4. while a want with a job waits for a toolchain, no worker that has it ready has a slot to give, unless the want is
//!    looked at again at a set time; and while one waits, no place held ahead of need is out that it would rather have;
//! 5. every want and every grant has a deadline;
//! 6. a grant that is not in use yet names a variant only while that is certified for the job's toolchain.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::agents::Agent;
use super::events::{Action, Drain, Event};
use super::grants::GrantRecord;
use super::moment::Moment;
use super::quarantine::Quarantine;
use super::rules::Rules;
use super::scopes::{Scope, Scopes};
use super::speed::Speed;
use super::supplies::Supply;
use super::timers::{Timer, Timers};
use super::workers::Worker;
use crate::ids::{AgentSessionId, GrantId, Name, WorkerSessionId};

/// The state machine.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) rules: Rules,
    /// Time of the event in hand.
    pub(super) now: Moment,
    pub(super) agents: BTreeMap<AgentSessionId, Agent>,
    pub(super) workers: BTreeMap<WorkerSessionId, Worker>,
    /// The worker record that stands for each name.
    pub(super) names: BTreeMap<Name, WorkerSessionId>,
    /// What administrators decided in this life, also for workers that are away.
    pub(super) drains: BTreeMap<Name, Drain>,
    /// Who gets no jobs because its results were found wrong.
    pub(super) quarantine: Quarantine,
    pub(super) grants: BTreeMap<GrantId, GrantRecord>,
    pub(super) supplies: BTreeMap<Scope, Supply>,
    /// The catalogue, and who stands in for whom.
    pub(super) scopes: Scopes,
    pub(super) timers: Timers,
    /// Speeds of workers that are gone, by name.
    pub(super) remembered: BTreeMap<Name, BTreeMap<Scope, Speed>>,
    /// Whether anything that agents are told of the farm may have changed since they were.
    pub(super) outlook_changed: bool,
    /// Until then workers may still come (back), and no want is refused for lack of them.
    pub(super) settled_at: Moment,
    /// Wants taken so far.
    pub(super) arrivals: u64,
    next_grant: u64,
    random: ChaCha8Rng,
    actions: Vec<Action>,
}

impl Scheduler {
    /// Starts with nothing known. Grants are numbered from `life` << 32 on: a number drawn anew at every start of the
    /// coordinator keeps grants of different lives apart. `seed` is all its randomness.
    pub fn new(rules: Rules, life: u32, seed: u64, now: Moment) -> Self {
        let settled_at = now.after(rules.settle);
        let mut timers = Timers::default();
        timers.set(Timer::Settled, settled_at);
        Self {
            rules,
            now,
            agents: BTreeMap::new(),
            workers: BTreeMap::new(),
            names: BTreeMap::new(),
            drains: BTreeMap::new(),
            quarantine: Quarantine::default(),
            grants: BTreeMap::new(),
            supplies: BTreeMap::new(),
            scopes: Scopes::default(),
            timers,
            remembered: BTreeMap::new(),
            outlook_changed: false,
            settled_at,
            arrivals: 0,
            next_grant: (u64::from(life) << 32) + 1,
            random: ChaCha8Rng::seed_from_u64(seed),
            actions: Vec::new(),
        }
    }

    /// Takes an event. What came due before it is dealt with first. Returns what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Action> {
        self.now = self.now.max(now);
        self.handle_timers();
        match event {
            Event::AgentJoined(agent, hello) => self.handle_agent_joined(agent, hello),
            Event::AgentLeft(agent) => self.handle_agent_left(agent),
            Event::Want(agent, want) => self.handle_want(agent, want),
            Event::CancelWant(agent, request) => self.handle_cancel(agent, request),
            Event::GrantUsed(agent, grant, demand) => self.handle_used(agent, grant, demand),
            Event::GrantDone(agent, grant, ending) => self.handle_done(agent, grant, ending),
            Event::WorkerJoined(worker, hello) => self.handle_worker_joined(worker, hello),
            Event::WorkerLeft(worker) => self.handle_worker_left(worker),
            Event::WorkerToolchain(worker, toolchain, news) => self.handle_news(worker, toolchain, news),
            Event::WorkerLoad(worker, report) => self.handle_load(worker, report),
            Event::Accused(agent, name, what) => self.handle_accused(agent, &name, &what),
            Event::DrainSet(name, drain) => self.handle_drain(&name, drain),
            Event::ToolchainAdded(toolchain, host_kind) => self.handle_toolchain_added(toolchain, host_kind),
            Event::ToolchainRemoved(toolchain) => self.handle_toolchain_removed(toolchain),
            Event::StandIns(table) => self.handle_stand_ins(table),
            Event::SpeedsKept(kept) => self.handle_speeds_kept(kept),
            Event::QuarantineKept(kept) => self.handle_quarantine_kept(kept),
            Event::Tick => {}
        }
        self.time_outlook();
        std::mem::take(&mut self.actions)
    }

    /// Returns when the scheduler wants an [`Event::Tick`] at the latest, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// Returns whether a worker of this name is connected, was a moment ago, or is in quarantine.
    pub fn knows_worker(&self, name: &Name) -> bool {
        self.names.contains_key(name) || self.quarantine.of(name).is_some()
    }

    fn handle_timers(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Settled => self.refuse_what_has_no_worker(),
                Timer::Grant(grant) => self.handle_grant_deadline(grant),
                Timer::Want(agent, request) => self.handle_want_deadline(agent, request),
                Timer::Silence(worker) => self.handle_silence(worker),
                Timer::Pause(worker) => self.handle_pause_over(worker),
                Timer::Toolchain(worker, toolchain) => self.handle_failed_pause_over(worker, toolchain),
                Timer::Look(scope) => self.serve_scope(scope),
                Timer::Outlook => self.tell_outlook(),
            }
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn draw_grant(&mut self) -> GrantId {
        let grant = GrantId(self.next_grant);
        self.next_grant += 1;
        grant
    }

    pub(super) fn draw_random(&mut self) -> u32 {
        self.random.next_u32()
    }

    /// Gives workers time to come back before what only they could serve is refused.
    pub(super) fn unsettle(&mut self) {
        self.settled_at = self.now.after(self.rules.settle);
        self.timers.set(Timer::Settled, self.settled_at);
    }
}

#[cfg(test)]
mod tests;

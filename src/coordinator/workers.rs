//! Workers: their sessions, their slots, and what their reports correct.
//!
//! A record is kept per name. When a session breaks the record stays for a while, without getting jobs, and a new
//! session of that name takes it over with what still runs; after that the worker is lost and its grants with it.
//! Invariant: `grants` are those that take a slot here, each of them in `spares` or `ends` unless it was called back, and
//! `listed` is how the worker stands in the lists of the scopes that it serves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::cores::Cores;
use super::events::{Action, Demand, Drain, HostKind, Leaving, LoadReport, VoidReason, WorkerHello};
use super::grants::{GrantRecord, GrantState, Spare};
use super::health::{Health, Trust};
use super::holdings::Holding;
use super::moment::Moment;
use super::quarantine::Accusation;
use super::scheduler::Scheduler;
use super::scopes::{Scope, Scopes};
use super::speed::{Speed, Spot};
use super::supplies::{Class, Listing};
use super::timers::Timer;
use crate::ids::{CoreGroupId, GrantId, Name, RequestId, ToolchainId, WorkerSessionId};
use crate::job::Variants;

/// Highest power that counts, thousandths: a thousand reference cores in one slot is a typing error.
const POWER_MILLI_MAX: u32 = 1_000_000;

/// A worker whose tasks all stood still for want of memory for more than this part of the last ten seconds, in
/// thousandths, gets no job beside those that it has.
const PRESSURE_MILLI_MAX: u32 = 100;

/// A worker that is connected, or was a moment ago.
#[derive(Debug)]
pub(super) struct Worker {
    pub hello: WorkerHello,
    pub link: Link,
    pub drain: Drain,
    pub leaving: Leaving,
    /// Its results were found wrong; see `quarantine`.
    pub quarantined: bool,
    /// The same, while too many are in quarantine.
    pub accused: Option<Accusation>,
    pub health: Health,
    /// It refused a job as busy, so nothing is given until its next report.
    pub wary: bool,
    pub grants: BTreeSet<GrantId>,
    /// Which of its cores these are for.
    pub cores: Cores,
    /// Those of them that agents hold ahead of need and that can be called back.
    pub spares: BTreeSet<GrantId>,
    /// Those of them that have a job, by when it is predicted to end.
    pub ends: BTreeSet<(Moment, GrantId)>,
    /// Ended by the agent's word, and perhaps in a report that was on its way then.
    pub ended: VecDeque<GrantId>,
    pub holdings: BTreeMap<ToolchainId, Holding>,
    /// Toolchains that it has found unfit to stand in for others.
    pub uncertified: BTreeSet<ToolchainId>,
    /// The scopes that it has a tool ready for, with the tool.
    pub serves: BTreeMap<Scope, ToolchainId>,
    /// How fast it is in the scopes that it serves or served.
    pub speeds: BTreeMap<Scope, Speed>,
    pub report_newest: u64,
    pub memory_available_bytes: u64,
    /// Predicted memory of the jobs given since the last report.
    pub memory_promised_bytes: u64,
    pub memory_pressure_milli: u32,
    pub listed: BTreeMap<Scope, Listing>,
    pub jobs_done: u64,
    pub faults: u64,
}

/// Whether a worker has a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    Away,
}

impl Worker {
    fn new(hello: WorkerHello, drain: Drain) -> Self {
        Self {
            memory_available_bytes: hello.memory_bytes,
            cores: Cores::new(&hello),
            hello,
            link: Link::Up,
            drain,
            leaving: Leaving::No,
            quarantined: false,
            accused: None,
            health: Health::default(),
            wary: false,
            grants: BTreeSet::new(),
            spares: BTreeSet::new(),
            ends: BTreeSet::new(),
            ended: VecDeque::new(),
            holdings: BTreeMap::new(),
            uncertified: BTreeSet::new(),
            serves: BTreeMap::new(),
            speeds: BTreeMap::new(),
            report_newest: 0,
            memory_promised_bytes: 0,
            memory_pressure_milli: 0,
            listed: BTreeMap::new(),
            jobs_done: 0,
            faults: 0,
        }
    }

    pub fn is_linked(&self) -> bool {
        self.link == Link::Up
    }

    /// Whether it may get jobs at all, now or when a slot is free.
    pub fn is_usable(&self) -> bool {
        let wanted = self.drain == Drain::Off && !self.quarantined;
        self.is_linked() && wanted && self.leaving == Leaving::No && self.hello.slots > 0
    }

    /// Slots that may be given out now.
    pub fn open_slots(&self, now: Moment) -> u32 {
        if !self.is_usable() || self.wary {
            return 0;
        }
        let taken = u32::try_from(self.grants.len()).unwrap_or(u32::MAX);
        let free = self.hello.slots.saturating_sub(taken);
        match self.health.trust(now) {
            Trust::Full => free,
            Trust::OneJob => free.min(1),
            Trust::Paused => 0,
        }
    }

    /// Jobs that it has, as far as is known.
    pub fn jobs(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// Returns where its next job runs that may run on any of its cores.
    pub fn next_spot(&self) -> Spot {
        Spot {
            occupancy: self.jobs() + 1,
            cores: self.cores.next(),
        }
    }

    /// Returns how it stands among the workers that have one of its toolchains ready; none while it gets no jobs.
    pub fn class(&self, now: Moment) -> Option<Class> {
        let trusted = !self.wary && self.health.trust(now) == Trust::Full;
        match self.open_slots(now) {
            _ if !self.is_usable() => None,
            0 if !trusted => None,
            0 if self.spares.is_empty() => Some(Class::Taken),
            0 => Some(Class::Spare),
            _ => Some(Class::Open),
        }
    }

    /// Memory that the next job could have; `None` when it is not known or the worker is idle, where whatever it has
    /// must do.
    pub fn memory_for_next(&self) -> Option<u64> {
        let known = self.memory_available_bytes > 0 && !self.ends.is_empty();
        let available = self.memory_available_bytes.saturating_sub(self.memory_promised_bytes);
        known.then_some(if self.is_pressed() { 0 } else { available })
    }

    /// Whether its jobs wait for memory so much that another one would only slow them down.
    fn is_pressed(&self) -> bool {
        self.memory_pressure_milli > PRESSURE_MILLI_MAX
    }

    /// Whether it may run jobs of other toolchains with `tool`.
    pub fn stands_in_with(&self, tool: ToolchainId) -> bool {
        self.hello.variants == Variants::Certified && !self.uncertified.contains(&tool)
    }

    /// Returns the scopes whose jobs it runs with `tool`.
    pub fn scopes_of(&self, tool: ToolchainId, scopes: &Scopes) -> Vec<Scope> {
        let mut of_tool = scopes.of_tool(tool, &self.hello.host_kind);
        if !self.stands_in_with(tool) {
            of_tool.retain(|scope| scope.toolchain() == tool);
        }
        of_tool
    }

    /// Remembers a grant whose end was heard of from its agent, so that a report which is older than that does not
    /// bring it back. As many as it can run and some: they end no faster than reports come, but for tiny jobs.
    pub fn remember_ended(&mut self, grant: GrantId) {
        let most = 64 + 4 * self.hello.slots as usize;
        if self.ended.len() >= most {
            self.ended.pop_front();
        }
        self.ended.push_back(grant);
    }
}

impl Scheduler {
    pub(super) fn handle_worker_joined(&mut self, id: WorkerSessionId, mut hello: WorkerHello) {
        let before = self.names.get(&hello.name).copied();
        if before.is_none() && self.workers.len() >= self.rules.workers_max {
            let reason = format!("{} workers are connected, no more are taken", self.workers.len());
            return self.act(Action::DropWorker(id, reason));
        }
        if self.workers.contains_key(&id) {
            return;
        }
        let slots_max = self.rules.slots_per_worker_max;
        hello.slots = hello.slots.min(slots_max);
        hello.power_milli = hello.power_milli.clamp(1, POWER_MILLI_MAX);
        take_sane_cores(&mut hello);
        hello.running.truncate(2 * slots_max as usize);
        let drain = self.drains.get(&hello.name).copied().unwrap_or(hello.drain);
        let told = hello.drain;
        let running = std::mem::take(&mut hello.running);
        let ready: BTreeSet<ToolchainId> = std::mem::take(&mut hello.ready).into_iter().collect();
        let name = hello.name.clone();
        let mut worker = Worker::new(hello, drain);
        worker.quarantined = self.quarantine.of(&name).is_some();
        if let Some(before) = before {
            self.hand_over(before, id, &running, &mut worker);
        } else if let Some(known) = self.remembered.remove(&name) {
            self.recall_speeds(&mut worker, known);
        }
        self.names.insert(name, id);
        self.workers.insert(id, worker);
        self.timers
            .set(Timer::Silence(id), self.now.after(self.rules.silence()));
        self.adopt(id, &running);
        if drain != told {
            self.act(Action::Drain(id, drain));
        }
        self.begin_holdings(id, &ready);
        self.relist(id);
    }

    /// Ends the session that had the name before, and moves what still runs to the new one.
    fn hand_over(&mut self, before: WorkerSessionId, id: WorkerSessionId, running: &[GrantId], worker: &mut Worker) {
        let running: BTreeSet<GrantId> = running.iter().copied().collect();
        let held = self.workers.get(&before).map(|old| old.grants.clone());
        for grant in held.unwrap_or_default().intersection(&running) {
            if let Some(record) = self.grants.get_mut(grant) {
                record.worker = id;
                record.state = GrantState::Running;
                self.timers.clear(Timer::Grant(*grant));
                worker.grants.insert(*grant);
                worker.cores.take(record.cores);
                record.spare = Spare::No;
                worker.ends.insert((record.ends, *grant));
            }
        }
        let mut known = BTreeMap::new();
        if let Some(old) = self.workers.get_mut(&before) {
            old.grants.retain(|grant| !running.contains(grant));
            old.spares.retain(|grant| !running.contains(grant));
            old.ends.retain(|(_, grant)| !running.contains(grant));
            known = std::mem::take(&mut old.speeds);
        }
        self.recall_speeds(worker, known);
        self.lose_grants(before);
        let Some(old) = self.workers.get(&before) else { return };
        worker.health = old.health.clone();
        worker.accused = old.accused.clone();
        worker.ended = old.ended.clone();
        (worker.jobs_done, worker.faults) = (old.jobs_done, old.faults);
        if let Some(until) = worker.health.pause_until().filter(|until| *until > self.now) {
            self.timers.set(Timer::Pause(id), until);
        }
        if old.is_linked() {
            let reason = format!("another session came under the name `{}`", old.hello.name);
            self.act(Action::DropWorker(before, reason));
        }
        self.forget_worker(before);
    }

    /// Takes in jobs that a worker runs and that this coordinator did not give, or forgot.
    fn adopt(&mut self, id: WorkerSessionId, running: &[GrantId]) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        for grant in running {
            if self.grants.contains_key(grant) || worker.ended.contains(grant) {
                continue;
            }
            let cores = worker.cores.next();
            worker.grants.insert(*grant);
            worker.cores.take(cores);
            let ends = self.now.after(self.rules.report_every);
            worker.ends.insert((ends, *grant));
            let record = GrantRecord {
                agent: None,
                request: RequestId(0),
                build: Arc::from(""),
                worker: id,
                scope: None,
                tool: None,
                cores,
                given: self.now,
                power_milli: worker.hello.power_milli,
                state: GrantState::Running,
                spare: Spare::No,
                demand: Demand::default(),
                begun: self.now,
                ends,
                late_again: ends,
                occupancy: worker.jobs(),
            };
            self.grants.insert(*grant, record);
        }
    }

    pub(super) fn handle_worker_left(&mut self, id: WorkerSessionId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if !worker.is_linked() {
            return;
        }
        worker.link = Link::Away;
        self.timers
            .set(Timer::Silence(id), self.now.after(self.rules.silence()));
        self.relist(id);
        self.unsettle();
    }

    pub(super) fn handle_silence(&mut self, id: WorkerSessionId) {
        let silence = self.rules.silence().as_millis();
        self.drop_worker(id, format!("nothing was heard from this worker for {silence} ms"));
        self.forget_worker(id);
    }

    /// Ends a worker's session; its record stays as when a session breaks.
    pub(super) fn drop_worker(&mut self, id: WorkerSessionId, reason: String) {
        if self.workers.get(&id).is_some_and(Worker::is_linked) {
            self.act(Action::DropWorker(id, reason));
            self.handle_worker_left(id);
        }
    }

    /// Ends all grants of a worker that will not tell what became of them.
    fn lose_grants(&mut self, id: WorkerSessionId) {
        let held = self.workers.get(&id).map(|worker| worker.grants.clone());
        for grant in held.unwrap_or_default() {
            self.tell_agent_void(grant, VoidReason::WorkerLost);
            self.end_grant(grant);
        }
    }

    /// Removes a worker's record; what it ran is lost.
    fn forget_worker(&mut self, id: WorkerSessionId) {
        self.lose_grants(id);
        self.unlist(id);
        self.unsettle();
        let Some(worker) = self.workers.get(&id) else { return };
        for toolchain in worker.holdings.keys() {
            self.timers.clear(Timer::Toolchain(id, *toolchain));
        }
        self.timers.clear(Timer::Silence(id));
        self.timers.clear(Timer::Pause(id));
        for agent in self.agents.values_mut() {
            agent.routes.remove(&id);
        }
        if let Some(worker) = self.workers.remove(&id)
            && self.names.get(&worker.hello.name) == Some(&id)
        {
            self.names.remove(&worker.hello.name);
            self.remember_speeds(worker.hello.name, worker.speeds);
        }
        self.note_outlook();
    }

    pub(super) fn handle_pause_over(&mut self, id: WorkerSessionId) {
        self.relist_open_slots(id);
        self.serve_worker(id);
    }

    pub(super) fn handle_drain(&mut self, name: &Name, drain: Drain) {
        let released = drain == Drain::Off && self.release_from_quarantine(name);
        let Some(id) = self.names.get(name).copied() else {
            return;
        };
        if self.drains.len() >= self.rules.workers_max {
            let names = &self.names;
            self.drains.retain(|name, _| names.contains_key(name));
        }
        self.drains.insert(name.clone(), drain);
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let turned = worker.drain != drain;
        worker.drain = drain;
        if turned && worker.is_linked() {
            self.act(Action::Drain(id, drain));
        }
        if turned || released {
            self.relist(id);
        }
    }

    pub(super) fn handle_load(&mut self, id: WorkerSessionId, mut report: LoadReport) {
        let slots_max = self.rules.slots_per_worker_max;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if !worker.is_linked() || report.number <= worker.report_newest {
            return;
        }
        worker.report_newest = report.number;
        worker.memory_available_bytes = report.memory_available_bytes;
        worker.memory_promised_bytes = 0;
        worker.memory_pressure_milli = report.memory_pressure_milli;
        worker.wary = false;
        let turned = worker.leaving != report.leaving;
        worker.leaving = report.leaving;
        report.running.truncate(2 * slots_max as usize);
        self.timers
            .set(Timer::Silence(id), self.now.after(self.rules.silence()));
        self.reconcile(id, &report);
        self.learn_from_silence(id);
        match turned {
            true => self.relist(id),
            false => self.relist_open_slots(id),
        }
        self.repeat_orders(id);
        self.serve_worker(id);
    }

    /// Corrects what is believed of a worker's slots by what it reports.
    fn reconcile(&mut self, id: WorkerSessionId, report: &LoadReport) {
        let running: BTreeSet<GrantId> = report.running.iter().copied().collect();
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.ended.retain(|grant| running.contains(grant));
        for grant in worker.grants.clone() {
            let Some(record) = self.grants.get_mut(&grant) else {
                continue;
            };
            match record.state {
                GrantState::Given | GrantState::Voided(_) if running.contains(&grant) => {
                    let spare = record.spare != Spare::No;
                    record.state = GrantState::Running;
                    self.timers.clear(Timer::Grant(grant));
                    if spare {
                        self.begin_job(grant);
                    }
                }
                GrantState::Running if !running.contains(&grant) => self.release_by_report(grant),
                GrantState::Voided(_) if report.voided.contains(&grant) => self.end_grant(grant),
                // The order, or its acknowledgement, is on its way or was lost.
                GrantState::Voided(reason) => self.tell_worker_void(grant, reason),
                GrantState::Given | GrantState::Running | GrantState::Released => {}
            }
        }
        self.adopt(id, &report.running);
    }

    /// Brings a worker's place in the lists up to date, after anything that changes its slots or speed.
    pub(super) fn relist_open_slots(&mut self, id: WorkerSessionId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let class = worker.class(self.now);
        let spot = worker.next_spot();
        let Worker {
            serves, speeds, listed, ..
        } = worker;
        for scope in serves.keys() {
            let speed = speeds.get(scope);
            let listing = class.zip(speed).map(|(class, speed)| Listing::new(class, speed, spot));
            let before = match listing {
                Some(listing) => listed.insert(*scope, listing),
                None => listed.remove(scope),
            };
            if before != listing
                && let Some(supply) = self.supplies.get_mut(scope)
            {
                supply.move_listed(id, before, listing);
            }
        }
    }

    /// Returns the workers that are connected and run toolchains of `host_kind`.
    pub(super) fn linked_of_kind(&self, host_kind: &HostKind) -> Vec<WorkerSessionId> {
        let fits = |worker: &Worker| worker.is_linked() && worker.hello.host_kind == *host_kind;
        let fitting = self.workers.iter().filter(|(_, worker)| fits(worker));
        fitting.map(|(id, _)| *id).collect()
    }
}

/// Forgets groups of cores that do not add up to the slots: the cores then count as alike.
fn take_sane_cores(hello: &mut WorkerHello) {
    let slots: u64 = hello.cores.iter().map(|group| u64::from(group.slots)).sum();
    if slots != u64::from(hello.slots) || !(2..=CoreGroupId::GROUPS_MAX).contains(&hello.cores.len()) {
        hello.cores.clear();
    }
    for group in &mut hello.cores {
        group.power_milli = group.power_milli.clamp(1, POWER_MILLI_MAX);
    }
}

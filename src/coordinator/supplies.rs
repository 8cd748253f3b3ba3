//! Supplies: what waits for a toolchain, which workers have it ready, and which could get it.
//!
//! How a worker comes to have a toolchain is decided in `holdings`. Invariant: each usable worker that holds a toolchain
//! stands in exactly the list of its supply that its holding says, and in no other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::agents::Waiting;
use super::events::{HostKind, Purpose, Want};
use super::fairness::Share;
use super::holdings::Holding;
use super::queue::Queue;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::speed::{Pace, Speed, Spot, WORK_MOST};
use super::workers::Worker;
use crate::ids::{AgentSessionId, Name, RequestId, WorkerSessionId};

/// Work assumed of jobs that do not tell theirs, until some do, microseconds: the mean of 260 compiles of a kernel's
/// network code, about 1.2 s of a reference core.
const TYPICAL_WORK_US: f64 = 1.2e6;
/// Weight of the newest in that mean.
const TYPICAL_NEWEST: f64 = 0.05;

/// One scope of a toolchain: who has a tool for its jobs, and what waits for it.
#[derive(Debug)]
pub(super) struct Supply {
    pub host_kind: HostKind,
    /// What waits, by purpose.
    queues: [Queue; 3],
    /// Predicted work of the wants with a job that wait, microseconds.
    waiting_work_us: u64,
    /// Mean work of the jobs that were wanted lately, microseconds.
    typical_work_us: f64,
    /// What its workers have in common.
    pub pace: Pace,
    /// Ready and in use, by class and then the fastest first.
    pub listed: BTreeSet<(Listing, WorkerSessionId)>,
    /// Sum of what the listed workers do in a second, microseconds of work.
    pub capacity_us: u64,
    pub ready: BTreeSet<WorkerSessionId>,
    pub looking: BTreeSet<WorkerSessionId>,
    /// By what they could do, most first.
    pub fetchable: BTreeSet<(Reverse<u64>, WorkerSessionId)>,
    /// With their slots.
    pub fetching: BTreeMap<WorkerSessionId, u32>,
    /// Wants with a job that wait for one worker; see `bound.rs`.
    pub bound: BTreeMap<(AgentSessionId, RequestId), Name>,
}

impl Supply {
    pub fn new(host_kind: HostKind) -> Self {
        Self {
            host_kind,
            queues: Default::default(),
            waiting_work_us: 0,
            typical_work_us: TYPICAL_WORK_US,
            pace: Pace::default(),
            listed: BTreeSet::new(),
            capacity_us: 0,
            ready: BTreeSet::new(),
            looking: BTreeSet::new(),
            fetchable: BTreeSet::new(),
            fetching: BTreeMap::new(),
            bound: BTreeMap::new(),
        }
    }

    /// Whether a usable worker has it ready.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether no usable worker has it or might get it.
    pub fn is_hopeless(&self) -> bool {
        self.ready.is_empty() && self.looking.is_empty() && self.fetchable.is_empty() && self.fetching.is_empty()
    }

    /// Returns what waits for a purpose.
    pub fn queue(&self, purpose: Purpose) -> &Queue {
        &self.queues[purpose as usize]
    }

    /// The same, to be changed.
    pub fn queue_mut(&mut self, purpose: Purpose) -> &mut Queue {
        &mut self.queues[purpose as usize]
    }

    /// Returns whether anything waits.
    pub fn has_waiting(&self) -> bool {
        self.queues.iter().any(|queue| queue.len() > 0)
    }

    /// Returns whose job is to be served next, and its account.
    pub fn head(&self) -> Option<(Share, AgentSessionId)> {
        self.queue(Purpose::Job).head()
    }

    /// Returns how many wants with a job wait.
    pub fn jobs_waiting(&self) -> usize {
        self.queue(Purpose::Job).len()
    }

    /// Takes note of a want. Returns its predicted work, or what is typical.
    pub fn note_want(&mut self, want: &Want) -> Duration {
        if let Some(work) = want.demand.work {
            self.typical_work_us += TYPICAL_NEWEST * (work.as_micros() as f64 - self.typical_work_us);
        }
        let work = want.demand.work.unwrap_or_else(|| self.typical_work()).min(WORK_MOST);
        if want.purpose == Purpose::Job {
            self.waiting_work_us = self.waiting_work_us.saturating_add(micros(work));
        }
        work
    }

    /// Returns the mean work of the jobs that were wanted lately.
    pub fn typical_work(&self) -> Duration {
        Duration::from_micros(self.typical_work_us as u64)
    }

    /// Takes a want out of its queue.
    pub fn remove_want(&mut self, agent: AgentSessionId, waiting: &Waiting) {
        self.bound.remove(&(agent, waiting.ticket.request));
        self.queue_mut(waiting.purpose)
            .remove(agent, &waiting.build, waiting.ticket);
        if waiting.purpose == Purpose::Job {
            self.waiting_work_us = self.waiting_work_us.saturating_sub(micros(waiting.work));
        }
    }

    /// Checks that what is counted is what is there; for [`Scheduler::audit`].
    pub fn audit_counts(&self) -> Result<(), String> {
        for queue in &self.queues {
            let all = queue.all().len();
            if all != queue.len() {
                return Err(format!("a queue of {all} counts {}", queue.len()));
            }
        }
        let queued = self.queue(Purpose::Job).all();
        if let Some((key, _)) = self.bound.iter().find(|(key, _)| !queued.contains(key)) {
            return Err(format!("{key:?} is bound to a worker and does not wait"));
        }
        if self.jobs_waiting() == 0 && self.waiting_work_us > 0 {
            return Err(format!("nothing waits, and its work is {} us", self.waiting_work_us));
        }
        Ok(())
    }

    /// Moves an agent to where its account puts it now.
    pub fn reshare(&mut self, agent: AgentSessionId, share: Share) {
        self.queues.iter_mut().for_each(|queue| queue.reshare(agent, share));
    }

    /// Returns everything that waits.
    pub fn all_waiting(&self) -> Vec<(AgentSessionId, RequestId)> {
        self.queues.iter().flat_map(Queue::all).collect()
    }

    /// Returns how long the farm has work in sight for, seconds.
    pub fn backlog(&self) -> f64 {
        let capacity = self.pace.rate_of(self.capacity_us as f64);
        if capacity > 0.0 {
            self.waiting_work_us as f64 / capacity
        } else {
            0.0
        }
    }

    /// The same without one of the wants that wait.
    pub fn backlog_before(&self, waiting: &Waiting) -> f64 {
        let capacity = self.pace.rate_of(self.capacity_us as f64);
        let others = self.waiting_work_us.saturating_sub(micros(waiting.work));
        if capacity > 0.0 { others as f64 / capacity } else { 0.0 }
    }

    /// Returns whether every worker that has the toolchain or might get it is among `avoid`, or is not `only`.
    pub fn is_ruled_out(&self, avoid: &[Name], only: Option<&Name>, names: &BTreeMap<Name, WorkerSessionId>) -> bool {
        let allowed = allowed(avoid, only, names);
        let mut all = self.ready.iter().copied().chain(self.workers_to_come());
        (!avoid.is_empty() || only.is_some()) && !all.any(|id| allowed(&id))
    }

    /// Returns the workers that do not have the toolchain yet, and might get it.
    pub fn workers_to_come(&self) -> impl Iterator<Item = WorkerSessionId> {
        let fetchable = self.fetchable.iter().map(|(_, id)| id);
        self.looking
            .iter()
            .chain(fetchable)
            .chain(self.fetching.keys())
            .copied()
    }

    /// Moves a ready worker in the list.
    pub fn move_listed(&mut self, id: WorkerSessionId, before: Option<Listing>, listing: Option<Listing>) {
        if let Some(listing) = before {
            self.listed.remove(&(listing, id));
            self.capacity_us -= listing.capacity_us;
        }
        if let Some(listing) = listing {
            self.listed.insert((listing, id));
            self.capacity_us += listing.capacity_us;
        }
    }

    /// Returns the listed workers of a class, the fastest first.
    pub fn of_class(&self, class: Class) -> impl Iterator<Item = WorkerSessionId> {
        let first = Listing::first_of(class);
        let from = self.listed.range((first, WorkerSessionId(0))..);
        let of_class = from.take_while(move |(listing, _)| listing.class == class);
        of_class.map(|(_, id)| *id)
    }

    /// Whether a worker of this class is listed.
    pub fn has(&self, class: Class) -> bool {
        self.of_class(class).next().is_some()
    }

    pub fn put(&mut self, id: WorkerSessionId, worker: &Worker, holding: &Holding) {
        match holding {
            Holding::Looking { .. } => {
                self.looking.insert(id);
            }
            Holding::Ready(_) => {
                self.ready.insert(id);
            }
            Holding::Fetchable { .. } => {
                self.fetchable.insert((capacity(worker), id));
            }
            Holding::Fetching { .. } => {
                self.fetching.insert(id, worker.hello.slots);
            }
            Holding::Failed { .. } => {}
        }
    }

    pub fn take_out(&mut self, id: WorkerSessionId, worker: &Worker, listing: Option<Listing>) {
        self.looking.remove(&id);
        self.ready.remove(&id);
        self.move_listed(id, listing, None);
        self.fetchable.remove(&(capacity(worker), id));
        self.fetching.remove(&id);
    }
}

/// How a worker stands in the list of one of its ready toolchains; ordered by whom to look at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listing {
    pub class: Class,
    /// Speed of its next slot: millionths of a natural logarithm.
    rank: Reverse<i64>,
    /// What all its slots do in a second, microseconds of work.
    pub capacity_us: u64,
}

/// Whether a worker has a slot for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Now.
    Open,
    /// Once a place that is held ahead of need is called back.
    Spare,
    /// When a job there ends.
    Taken,
}

impl Listing {
    /// Describes a worker whose next job would be there.
    pub fn new(class: Class, speed: &Speed, next: Spot) -> Self {
        Self {
            class,
            rank: Reverse((speed.log(next) * 1e6) as i64),
            capacity_us: (speed.full_rate() * 1e6) as u64,
        }
    }

    fn first_of(class: Class) -> Self {
        Self {
            class,
            rank: Reverse(i64::MAX),
            capacity_us: 0,
        }
    }
}

/// Tells which workers a want may have that avoids some and may be bound to one.
pub(super) fn allowed(
    avoid: &[Name],
    only: Option<&Name>,
    names: &BTreeMap<Name, WorkerSessionId>,
) -> impl Fn(&WorkerSessionId) -> bool {
    let avoid: Vec<WorkerSessionId> = avoid.iter().filter_map(|name| names.get(name).copied()).collect();
    let only = only.map(|name| names.get(name).copied());
    move |id| !avoid.contains(id) && only.is_none_or(|only| only == Some(*id))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn capacity(worker: &Worker) -> Reverse<u64> {
    Reverse(u64::from(worker.hello.power_milli) * u64::from(worker.hello.slots))
}

impl Scheduler {
    /// Takes a worker out of all lists.
    pub(super) fn unlist(&mut self, id: WorkerSessionId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        for tool in worker.holdings.keys() {
            for scope in worker.scopes_of(*tool, &self.scopes) {
                if let Some(supply) = self.supplies.get_mut(&scope) {
                    supply.take_out(id, worker, worker.listed.get(&scope).copied());
                }
            }
        }
        worker.listed.clear();
    }

    /// Puts a worker into the lists that it belongs in, after a change of whether it is usable.
    pub(super) fn relist(&mut self, id: WorkerSessionId) {
        self.unlist(id);
        self.note_outlook();
        let Some(worker) = self.workers.get(&id) else { return };
        let held = worker.holdings.iter();
        let held = held.flat_map(|(tool, holding)| {
            let scopes = worker.scopes_of(*tool, &self.scopes);
            scopes.into_iter().map(move |scope| (scope, holding))
        });
        let held: Vec<(Scope, &Holding)> = held.collect();
        let scopes: Vec<Scope> = held.iter().map(|(scope, _)| *scope).collect();
        if worker.is_usable() {
            for (scope, holding) in held {
                if let Some(supply) = self.supplies.get_mut(&scope) {
                    supply.put(id, worker, holding);
                }
            }
            self.relist_open_slots(id);
            self.serve_worker(id);
        }
        for scope in scopes {
            self.order_fetches(scope);
            self.refuse_if_hopeless(scope);
        }
    }
}

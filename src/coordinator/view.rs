//! The cluster as it is now, for `rdcc status` and `rdcc nodes`.
//!
//! A copy of what the scheduler knows, in words for people; changing it changes nothing.

use std::time::Duration;

use super::events::{AgentHello, Drain, Leaving, WorkerHello};
use super::grants::{GrantState, Spare};
use super::health::Trust;
use super::holdings::{Holding, Origin};
use super::quarantine::Accusation;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::workers::Worker;
use crate::ids::{GrantId, ToolchainId};

/// The whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// Every worker, by name.
    pub workers: Vec<WorkerView>,
    /// Every agent, in order of arrival.
    pub agents: Vec<AgentView>,
    /// Every grant that takes a slot, oldest first.
    pub jobs: Vec<JobView>,
    /// Wants that wait.
    pub queued: u64,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// What it said of itself.
    pub hello: WorkerHello,
    /// Slots taken.
    pub busy: u32,
    /// Its state.
    pub state: WorkerState,
    /// Its toolchains, by identity.
    pub toolchains: Vec<(ToolchainId, HoldingView)>,
    /// Jobs that ran there since it came.
    pub jobs_done: u64,
    /// Faults that agents met there.
    pub faults: u64,
    /// As it last reported.
    pub memory_available_bytes: u64,
    /// Why it gets less than it could; empty when it does not.
    pub note: String,
    /// Speed of one slot when all are in use, as learned; `None` when no job ran there yet.
    pub learned_milli: Option<u32>,
}

/// What a worker is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It gets jobs.
    Ready,
    /// It gets none and finishes what it has.
    Draining,
    /// It gets none, and nothing of what it makes is used: its results were found wrong.
    Quarantined,
    /// Its session broke a moment ago.
    Lost,
}

/// How a worker stands with a toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldingView {
    /// It was asked and has not answered.
    Looking,
    /// The machine's own files.
    Installed,
    /// Unpacked from its bundle.
    Bundle,
    /// It could be fetched.
    Fetchable,
    /// It is being fetched.
    Fetching,
    /// It cannot be had, and why.
    Failed(String),
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// Who it is.
    pub hello: AgentHello,
    /// Its wants that wait.
    pub waiting: u32,
    /// Its grants that take a slot.
    pub holding: u32,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its number.
    pub grant: GrantId,
    /// The worker's name.
    pub worker: String,
    /// The agent's host; empty when the agent is gone or unknown.
    pub host: String,
    /// The toolchain, unless the worker reported the job by itself.
    pub toolchain: Option<ToolchainId>,
    /// Time since it was given.
    pub age: Duration,
}

impl Scheduler {
    /// Takes the view.
    pub fn view(&self) -> ClusterView {
        let workers = self.names.values().filter_map(|id| self.workers.get(id));
        let agents = self.agents.values().map(|agent| AgentView {
            hello: agent.hello.clone(),
            waiting: count(agent.waiting.len()),
            holding: count(agent.builds.values().map(|build| build.slots).sum()),
        });
        let taking = self.grants.iter();
        // A place that is held ahead of need has no job.
        let taking = taking.filter(|(_, record)| record.state != GrantState::Released && record.spare == Spare::No);
        let jobs = taking.map(|(grant, record)| {
            let worker = self.workers.get(&record.worker);
            let agent = record.agent.and_then(|id| self.agents.get(&id));
            JobView {
                grant: *grant,
                worker: worker.map(|worker| worker.hello.name.to_string()).unwrap_or_default(),
                host: agent.map(|agent| agent.hello.host.clone()).unwrap_or_default(),
                toolchain: record.scope.map(Scope::toolchain),
                age: self.now.since(record.given),
            }
        });
        ClusterView {
            workers: workers.map(|worker| self.view_worker(worker)).collect(),
            agents: agents.collect(),
            jobs: jobs.collect(),
            queued: self.supplies.values().map(|supply| supply.jobs_waiting() as u64).sum(),
        }
    }

    fn view_worker(&self, worker: &Worker) -> WorkerView {
        let state = match (worker.is_linked(), worker.is_usable()) {
            (false, _) => WorkerState::Lost,
            (true, false) if worker.quarantined => WorkerState::Quarantined,
            (true, false) => WorkerState::Draining,
            (true, true) => WorkerState::Ready,
        };
        let toolchains = worker.holdings.iter();
        WorkerView {
            hello: worker.hello.clone(),
            busy: count(worker.grants.len() - worker.spares.len()),
            state,
            toolchains: toolchains.map(|(id, holding)| (*id, view_holding(holding))).collect(),
            jobs_done: worker.jobs_done,
            faults: worker.faults,
            memory_available_bytes: worker.memory_available_bytes,
            note: self.note(worker),
            learned_milli: self.learned_milli(worker),
        }
    }

    fn note(&self, worker: &Worker) -> String {
        let name = &worker.hello.name;
        match (self.quarantine.of(name), &worker.accused) {
            (Some(accusation), _) => {
                let Accusation { by, what } = accusation;
                format!("in quarantine by the word of {by}: {what}; `rdcc drain {name} --off` lets it work again")
            }
            (None, Some(Accusation { by, what })) => {
                format!(
                    "accused by {by}, and too many nodes are in quarantine already: {what}; `rdcc drain {name}` takes it out"
                )
            }
            (None, None) => self.lesser_note(worker).to_owned(),
        }
    }

    fn lesser_note(&self, worker: &Worker) -> &'static str {
        if !worker.is_linked() {
            return "no session; it has a moment to come back";
        }
        match (worker.drain, worker.leaving, worker.health.trust(self.now)) {
            (Drain::On, ..) => "drained by an administrator",
            (_, Leaving::Yes, _) => "about to stop",
            _ if worker.hello.slots == 0 => "has no slots",
            (.., Trust::Paused | Trust::OneJob) => "tried with one job at a time after a fault",
            (.., Trust::Full) if worker.wary => "refused a job as busy; its next report decides",
            (.., Trust::Full) if !worker.uncertified.is_empty() => {
                "makes other golden objects with a variant, and gets no jobs of other toolchains for it"
            }
            (.., Trust::Full) => "",
        }
    }
}

fn view_holding(holding: &Holding) -> HoldingView {
    match holding {
        Holding::Looking { .. } => HoldingView::Looking,
        Holding::Ready(Origin::Installed) => HoldingView::Installed,
        Holding::Ready(Origin::Bundle) => HoldingView::Bundle,
        Holding::Fetchable { .. } => HoldingView::Fetchable,
        Holding::Fetching { .. } => HoldingView::Fetching,
        Holding::Failed { message, .. } => HoldingView::Failed(message.clone()),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

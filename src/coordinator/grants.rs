//! Grants: from the moment a slot is given until it is known to be free.
//!
//! A grant may be in use from the moment it is sent, so its slot is taken from then on, and free only on evidence:
//! the agent says that the job is over or was never started, the worker no longer reports it, the worker acknowledges
//! that it is void, or the worker is lost. A deadline alone frees nothing: it makes the grant void, and the worker's
//! acknowledgement frees the slot.

use std::sync::Arc;

use super::agents::Waiting;
use super::events::{Action, Demand, Ending, Grant, Purpose, VoidReason};
use super::holdings::Holding;
use super::moment::Moment;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::speed::{Pace, Spot};
use super::timers::Timer;
use super::workers::Worker;
use crate::ids::{AgentSessionId, CoreGroupId, GrantId, RequestId, ToolchainId, WorkerSessionId};
use crate::job::RefusalKind;

/// A grant that has not ended.
#[derive(Debug)]
pub(super) struct GrantRecord {
    /// Who holds it; `None` once the agent is gone or through with it, and for jobs that a worker reported by itself.
    pub agent: Option<AgentSessionId>,
    pub request: RequestId,
    pub build: Arc<str>,
    pub worker: WorkerSessionId,
    /// `None` for jobs that a worker reported by itself.
    pub scope: Option<Scope>,
    /// What it is run with there: the toolchain that was wanted, or who stands in for it.
    pub tool: Option<ToolchainId>,
    /// On which of the worker's cores; taken there for as long as it takes a slot.
    pub cores: CoreGroupId,
    pub given: Moment,
    /// Power of the slot, as it was booked.
    pub power_milli: u32,
    pub state: GrantState,
    pub spare: Spare,
    /// What its job is expected to cost.
    pub demand: Demand,
    /// When its job began, as far as is known.
    pub begun: Moment,
    /// When its job is predicted to end; as it stands in the worker's list of ends.
    pub ends: Moment,
    /// When to ask next whether its job is late.
    pub late_again: Moment,
    /// Jobs on the worker when it began, itself included.
    pub occupancy: u32,
}

/// Whether a grant is held ahead of need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// It has a job.
    No,
    /// It has none yet.
    Held,
    /// It has none yet and was called back.
    Recalled,
}

/// How far a grant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantState {
    /// Sent to the agent; perhaps in use.
    Given,
    /// The worker reported it in use.
    Running,
    /// Void; the worker has not acknowledged it.
    Voided(VoidReason),
    /// The worker's report says that its job is over, the agent has not spoken yet. Takes no slot.
    Released,
}

/// A worker's slot that a want gets.
struct Slot {
    worker: WorkerSessionId,
    cores: CoreGroupId,
    tool: ToolchainId,
    power_milli: u32,
}

impl GrantRecord {
    /// Makes the record of what a want is given now.
    fn new(agent: AgentSessionId, waiting: Waiting, slot: Slot, now: Moment) -> Self {
        Self {
            agent: Some(agent),
            request: waiting.ticket.request,
            build: waiting.build,
            worker: slot.worker,
            scope: Some(waiting.scope),
            tool: Some(slot.tool),
            cores: slot.cores,
            given: now,
            power_milli: slot.power_milli,
            state: GrantState::Given,
            spare: match waiting.purpose {
                Purpose::Ahead => Spare::Held,
                Purpose::Job | Purpose::Race => Spare::No,
            },
            demand: waiting.demand,
            begun: now,
            ends: now,
            late_again: now,
            occupancy: 0,
        }
    }
}

/// Returns the power of a worker's next slot on these cores, as far as its speed there is known.
fn told_power(worker: &Worker, scope: Scope, cores: CoreGroupId, pace: &Pace) -> Option<u32> {
    let spot = Spot {
        occupancy: worker.jobs() + 1,
        cores,
    };
    let speed = worker.speeds.get(&scope)?;
    Some(pace.told_milli(speed.log(spot)))
}

impl Scheduler {
    /// Gives a want a slot of a worker that has one open, on these of its cores.
    pub(super) fn give(
        &mut self,
        id: AgentSessionId,
        request: RequestId,
        worker_id: WorkerSessionId,
        cores: CoreGroupId,
    ) {
        let waiting = self.agents.get(&id).and_then(|agent| agent.waiting.get(&request));
        let Some(waiting) = waiting.cloned() else { return };
        let scope = waiting.scope;
        let Some(worker) = self.workers.get(&worker_id) else {
            return;
        };
        let Some(tool) = self.tool_of(scope, worker) else {
            return;
        };
        let run_as = self.scopes.stand_in(scope, &worker.hello.host_kind).copied();
        let grant = self.draw_grant();
        let Some(worker) = self.workers.get_mut(&worker_id) else {
            return;
        };
        let told = self
            .supplies
            .get(&scope)
            .and_then(|supply| told_power(worker, scope, cores, &supply.pace));
        let power_milli = told.unwrap_or(worker.hello.power_milli);
        let purpose = waiting.purpose;
        let memory_bytes = waiting.demand.memory_bytes.unwrap_or(0);
        worker.grants.insert(grant);
        worker.cores.take(cores);
        worker.health.given(grant);
        worker.memory_promised_bytes = worker.memory_promised_bytes.saturating_add(memory_bytes);
        // Booked before the want is taken, so that the build's account is never empty in between.
        self.book(id, &waiting.build, |share, build| {
            share.charge(power_milli, grant.0);
            build.share.charge(power_milli, grant.0);
            build.slots += 1;
        });
        self.take_waiting(id, request);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.granted.insert(request, grant);
        }
        let slot = Slot {
            worker: worker_id,
            cores,
            tool,
            power_milli,
        };
        self.grants.insert(grant, GrantRecord::new(id, waiting, slot, self.now));
        match purpose {
            Purpose::Ahead => {
                if let Some(worker) = self.workers.get_mut(&worker_id) {
                    worker.spares.insert(grant);
                }
                self.relist_open_slots(worker_id);
            }
            Purpose::Job | Purpose::Race => self.begin_job(grant),
        }
        self.timers
            .set(Timer::Grant(grant), self.now.after(self.rules.grant_valid_for(purpose)));
        self.act(Action::Grant(Grant {
            agent: id,
            request,
            grant,
            worker: worker_id,
            toolchain: scope.toolchain(),
            run_as,
            cores,
            power_milli,
            purpose,
        }));
    }

    /// Ends a grant upon the word of the agent that holds it.
    pub(super) fn end_by_agent(&mut self, grant: GrantId, ending: Ending) {
        let Some(record) = self.grants.get(&grant) else { return };
        let (id, given, state) = (record.worker, record.given, record.state);
        let tool = record.tool;
        match ending {
            Ending::Ran(report) => {
                self.learn_from(grant, &report);
                self.close_job(grant);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.jobs_done += 1;
                    worker.health.success(given);
                }
            }
            Ending::Unused if matches!(state, GrantState::Given | GrantState::Voided(_)) => {
                self.tell_worker_void(grant, VoidReason::Returned);
                self.end_grant(grant);
            }
            // The worker says that it runs, and its word counts.
            Ending::Unused => self.abandon_grant(grant),
            Ending::Refused(kind) => {
                self.close_job(grant);
                self.note_refusal(id, tool, kind);
            }
            Ending::Fault => {
                self.abandon_grant(grant);
                self.note_fault(id, given);
            }
        }
        self.relist_open_slots(id);
        self.serve_worker(id);
    }

    /// Ends a grant whose job the worker has finished or declined; the worker's last report may not know that yet.
    fn close_job(&mut self, grant: GrantId) {
        if let Some(record) = self.grants.get(&grant)
            && record.state != GrantState::Released
            && let Some(worker) = self.workers.get_mut(&record.worker)
        {
            worker.remember_ended(grant);
        }
        self.end_grant(grant);
    }

    /// Gives up on a grant whose agent is gone, or has lost sight of its job: the slot stays taken until the worker
    /// says what became of it.
    pub(super) fn abandon_grant(&mut self, grant: GrantId) {
        self.detach(grant);
        let Some(record) = self.grants.get(&grant) else { return };
        match record.state {
            GrantState::Given => {
                self.void_grant(grant, VoidReason::Returned);
            }
            GrantState::Running | GrantState::Voided(_) => {}
            GrantState::Released => self.end_grant(grant),
        }
    }

    /// Makes a grant void; the worker's next reports say whether its slot is free.
    pub(super) fn void_grant(&mut self, grant: GrantId, reason: VoidReason) {
        if let Some(record) = self.grants.get_mut(&grant) {
            record.state = GrantState::Voided(reason);
            record.spare = Spare::No;
            let (id, before) = (record.worker, record.ends);
            record.ends = self.now.after(self.rules.report_every);
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.spares.remove(&grant);
                worker.ends.remove(&(before, grant));
                worker.ends.insert((record.ends, grant));
            }
            self.relist_open_slots(id);
        }
        // A worker that keeps silent about it for as long as one that keeps silent altogether, is as good as lost.
        self.timers
            .set(Timer::Grant(grant), self.now.after(2 * self.rules.silence()));
        self.tell_worker_void(grant, reason);
    }

    /// Tells the agent that holds a grant, if there is one, not to use it.
    pub(super) fn tell_agent_void(&mut self, grant: GrantId, reason: VoidReason) {
        if let Some(agent) = self.grants.get(&grant).and_then(|record| record.agent) {
            self.act(Action::VoidAtAgent(agent, grant, reason));
        }
    }

    pub(super) fn tell_worker_void(&mut self, grant: GrantId, reason: VoidReason) {
        let Some(record) = self.grants.get(&grant) else { return };
        let worker = record.worker;
        if self.workers.get(&worker).is_some_and(|worker| worker.is_linked()) {
            self.act(Action::VoidAtWorker(worker, grant, reason));
        }
    }

    pub(super) fn handle_grant_deadline(&mut self, grant: GrantId) {
        let Some(record) = self.grants.get(&grant) else { return };
        match record.state {
            GrantState::Given => {
                self.tell_agent_void(grant, VoidReason::Expired);
                self.void_grant(grant, VoidReason::Expired);
            }
            GrantState::Released => self.end_grant(grant),
            GrantState::Voided(_) => {
                let (worker, reason) = (
                    record.worker,
                    format!("grant {grant} was voided and never acknowledged"),
                );
                self.drop_worker(worker, reason);
                let again = self.now.after(2 * self.rules.silence());
                self.timers.set(Timer::Grant(grant), again);
            }
            GrantState::Running => {}
        }
    }

    /// Frees a grant's slot on the worker's word; the agent may still tell how the job went.
    pub(super) fn release_by_report(&mut self, grant: GrantId) {
        let Some(record) = self.grants.get(&grant) else { return };
        if record.agent.is_none() {
            return self.end_grant(grant);
        }
        self.free_slot(grant);
        if let Some(record) = self.grants.get_mut(&grant) {
            record.state = GrantState::Released;
        }
        self.timers
            .set(Timer::Grant(grant), self.now.after(self.rules.grant_valid));
    }

    /// Takes a grant off its worker and its agent's account.
    fn free_slot(&mut self, grant: GrantId) {
        let Some(record) = self.grants.get(&grant) else { return };
        if record.state == GrantState::Released {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&record.worker) {
            worker.grants.remove(&grant);
            worker.cores.give_back(record.cores);
            worker.spares.remove(&grant);
            worker.ends.remove(&(record.ends, grant));
            worker.health.ended(grant);
        }
        self.outlook_changed = true;
        let (agent, build, power) = (record.agent, Arc::clone(&record.build), record.power_milli);
        if let Some(agent) = agent {
            self.book(agent, &build, |share, build| {
                share.release(power);
                build.share.release(power);
                build.slots -= 1;
            });
        }
    }

    /// Forgets a grant. The caller relists and serves the worker.
    pub(super) fn end_grant(&mut self, grant: GrantId) {
        self.free_slot(grant);
        let Some(record) = self.grants.remove(&grant) else {
            return;
        };
        if let Some(agent) = record.agent.and_then(|id| self.agents.get_mut(&id)) {
            agent.granted.remove(&record.request);
        }
        self.timers.clear(Timer::Grant(grant));
    }

    fn note_fault(&mut self, id: WorkerSessionId, given: Moment) {
        let random = self.draw_random();
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.faults += 1;
        if let Some(until) = worker.health.fault(given, self.now, &self.rules, random) {
            self.timers.set(Timer::Pause(id), until);
            self.refuse_if_paused(id);
        }
    }

    fn note_refusal(&mut self, id: WorkerSessionId, tool: Option<ToolchainId>, kind: RefusalKind) {
        match kind {
            // Its picture and ours differ: nothing more until it has reported.
            RefusalKind::Busy => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.wary = true;
                }
            }
            RefusalKind::NoToolchain => {
                if let Some(tool) = tool {
                    self.set_holding(id, tool, Holding::Looking { asked: self.now });
                }
            }
            RefusalKind::Fault => self.note_fault(id, self.now),
            RefusalKind::Uncertified => {
                if let Some(tool) = tool {
                    self.note_uncertified(id, tool);
                }
            }
            RefusalKind::Unsupported
            | RefusalKind::Unlike
            | RefusalKind::Limit
            | RefusalKind::Changed
            | RefusalKind::ReadOnly => {}
        }
    }
}

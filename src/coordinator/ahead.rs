//! Places that agents hold ahead of need: given when nobody's job wants them, called back when somebody's does.
//!
//! Such a place takes a slot, but holds no job until its agent says so, or the worker reports it. A place is called back
//! once; if the agent neither gives it back nor uses it within a moment, it is void like one that was not used in time,
//! so a job never waits for it longer than that.

use std::sync::Arc;

use super::events::{Demand, VoidReason};
use super::grants::{GrantState, Spare};
use super::scheduler::Scheduler;
use super::speed::Spot;
use super::timers::Timer;
use crate::ids::{AgentSessionId, CoreGroupId, GrantId, WorkerSessionId};

impl Scheduler {
    /// Calls back one of the places held ahead of need on a worker, on these cores: of the agent that holds the most.
    /// Returns whether there was one.
    pub(super) fn recall_from(&mut self, id: WorkerSessionId, cores: CoreGroupId) -> bool {
        let Some(worker) = self.workers.get(&id) else {
            return false;
        };
        let held = worker.spares.iter().filter_map(|grant| {
            let record = self.grants.get(grant).filter(|record| record.cores == cores)?;
            let agent = self.agents.get(&record.agent?)?;
            Some((agent.share.held_milli(), *grant))
        });
        let Some((_, grant)) = held.max() else { return false };
        self.recall(grant);
        self.relist_open_slots(id);
        true
    }

    fn recall(&mut self, grant: GrantId) {
        let Some(record) = self.grants.get_mut(&grant) else {
            return;
        };
        record.spare = Spare::Recalled;
        if let Some(worker) = self.workers.get_mut(&record.worker) {
            worker.spares.remove(&grant);
        }
        self.timers
            .set(Timer::Grant(grant), self.now.after(self.rules.recall_wait));
        self.tell_agent_void(grant, VoidReason::Recalled);
    }

    /// The agent has put a job into a place that it held ahead of need.
    pub(super) fn handle_used(&mut self, id: AgentSessionId, grant: GrantId, demand: Demand) {
        let Some(record) = self.grants.get_mut(&grant) else {
            return;
        };
        if record.agent != Some(id) || record.spare == Spare::No {
            return;
        }
        record.demand = demand;
        let (now, build) = (self.now, Arc::clone(&record.build));
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.with_build(&build, |build| build.note_job(now));
        }
        if record.state == GrantState::Given {
            let valid = self.now.after(self.rules.grant_valid);
            self.timers.set(Timer::Grant(grant), valid);
        }
        self.begin_job(grant);
    }

    /// A place has a job from now on, as far as is known.
    pub(super) fn begin_job(&mut self, grant: GrantId) {
        let Some(record) = self.grants.get_mut(&grant) else {
            return;
        };
        let Some(worker) = self.workers.get_mut(&record.worker) else {
            return;
        };
        record.spare = Spare::No;
        worker.spares.remove(&grant);
        worker.ends.remove(&(record.ends, grant));
        record.begun = self.now;
        record.occupancy = worker.jobs();
        let typical = record.scope.and_then(|scope| self.supplies.get(&scope));
        let wall = typical.map(|supply| {
            let work = record.demand.work.unwrap_or_else(|| supply.typical_work());
            let speed = record.scope.and_then(|scope| worker.speeds.get(&scope));
            let spot = Spot {
                occupancy: record.occupancy,
                cores: record.cores,
            };
            supply.pace.wall(work, speed.map_or(0.0, |speed| speed.log(spot)))
        });
        let agent = record.agent.and_then(|agent| self.agents.get(&agent));
        let route = agent.and_then(|agent| agent.routes.get(&record.worker)).copied();
        let transfer = route.unwrap_or_default().seconds(record.demand.input_bytes);
        let wall = wall.unwrap_or(self.rules.report_every);
        record.ends = self.now.after(wall).after(std::time::Duration::from_secs_f64(transfer));
        record.late_again = record.ends;
        worker.ends.insert((record.ends, grant));
        let id = record.worker;
        self.relist_open_slots(id);
        self.note_outlook();
    }
}

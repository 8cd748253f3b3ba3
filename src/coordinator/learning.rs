//! What the farm teaches: speeds from jobs that ended or should have, routes from what was sent.
//!
//! The arithmetic is in `speed` and `transfer`; here is when it is done, and with which numbers. Invariant: a toolchain's
//! pace counts each worker whose speed for it is known, connected or remembered, exactly once.

use std::collections::BTreeMap;

use super::grants::{GrantRecord, GrantState, Spare};
use super::moment::Moment;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::speed::{Lesson, Speed, Spot};
use super::workers::Worker;
use crate::ids::{GrantId, Name, WorkerSessionId};
use crate::job::RunReport;

/// A running job is asked about again when it has taken this many times as long as when it was last found late.
const LATE_AGAIN: f64 = 1.5;

impl Scheduler {
    /// Learns from a job that ran, before its grant ends.
    pub(super) fn learn_from(&mut self, grant: GrantId, report: &RunReport) {
        let Some(record) = self.grants.get(&grant) else { return };
        let (Some(scope), id) = (record.scope, record.worker) else {
            return;
        };
        if let Some(agent) = record.agent.and_then(|agent| self.agents.get_mut(&agent)) {
            let route = agent.routes.entry(id).or_default();
            route.learn(record.demand.input_bytes, report.sent_bytes, report.transfer);
        }
        let work = report.work.or(record.demand.work);
        let (Some(work), false) = (work, report.usage.wall.is_zero()) else {
            return;
        };
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let lesson = Lesson {
            work,
            spread_milli: report.spread_milli.or(record.demand.spread_milli),
            wall: report.usage.wall,
            spot: Spot {
                occupancy: record.occupancy.midpoint(worker.jobs()),
                cores: record.cores,
            },
        };
        if let (Some(speed), Some(supply)) = (worker.speeds.get_mut(&scope), self.supplies.get_mut(&scope)) {
            speed.learn(&mut supply.pace, &lesson, self.now);
        }
    }

    /// Looks at a worker's running jobs and its silence, once a report.
    pub(super) fn learn_from_silence(&mut self, id: WorkerSessionId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        for (scope, speed) in &mut worker.speeds {
            if let Some(supply) = self.supplies.get_mut(scope) {
                speed.rest(&mut supply.pace, self.now);
            }
        }
        let late = worker.ends.iter().take_while(|(end, _)| *end < self.now);
        let late: Vec<GrantId> = late.map(|(_, grant)| *grant).collect();
        let jobs = worker.jobs();
        for grant in late {
            let Some(record) = self.grants.get_mut(&grant) else {
                continue;
            };
            let Some(lesson) = overdue_lesson(record, self.now, jobs) else {
                continue;
            };
            record.late_again = self.now.after(lesson.wall.mul_f64(LATE_AGAIN - 1.0));
            let Some(scope) = record.scope else { continue };
            let Some(speed) = worker.speeds.get_mut(&scope) else {
                continue;
            };
            if let Some(supply) = self.supplies.get_mut(&scope) {
                speed.learn_overdue(&mut supply.pace, &lesson, self.now);
            }
        }
    }

    /// Begins to follow a worker's speed for a toolchain that it has ready.
    pub(super) fn follow_speed(&mut self, id: WorkerSessionId, scope: Scope) {
        let (Some(worker), Some(supply)) = (self.workers.get_mut(&id), self.supplies.get_mut(&scope)) else {
            return;
        };
        if !worker.speeds.contains_key(&scope) {
            let best_known = worker.speeds.values().max_by_key(|speed| speed.jobs());
            let speed = Speed::new(worker.hello.power_milli, worker.hello.slots, best_known, self.now);
            let speed = speed.on(&worker.cores);
            supply.pace.add(&speed);
            worker.speeds.insert(scope, speed);
        }
    }

    /// Gives a worker that joins what is known of its name, as far as it is set up as it was then.
    pub(super) fn recall_speeds(&mut self, worker: &mut Worker, known: BTreeMap<Scope, Speed>) {
        for (scope, speed) in known {
            if speed.is_of(worker.hello.power_milli, worker.hello.slots) {
                worker.speeds.insert(scope, speed.on(&worker.cores));
            } else if let Some(supply) = self.supplies.get_mut(&scope) {
                supply.pace.remove(&speed);
            }
        }
    }

    /// Remembers the speeds of a worker that is gone.
    pub(super) fn remember_speeds(&mut self, name: Name, speeds: BTreeMap<Scope, Speed>) {
        if self.remembered.len() >= self.rules.workers_max
            && let Some(dropped) = self.longest_silent().and_then(|name| self.remembered.remove(&name))
        {
            for (scope, speed) in dropped {
                if let Some(supply) = self.supplies.get_mut(&scope) {
                    supply.pace.remove(&speed);
                }
            }
        }
        self.remembered.insert(name, speeds);
    }

    /// Returns the worker that nothing has been heard of for the longest, among those that are gone.
    fn longest_silent(&self) -> Option<Name> {
        let heard = |speeds: &BTreeMap<Scope, Speed>| speeds.values().map(Speed::heard).max();
        let silent = self.remembered.iter().min_by_key(|(_, speeds)| heard(speeds));
        silent.map(|(name, _)| name.clone())
    }
}

fn overdue_lesson(record: &GrantRecord, now: Moment, occupancy: u32) -> Option<Lesson> {
    let runs = record.state == GrantState::Running && record.spare == Spare::No;
    if !runs || now < record.late_again {
        return None;
    }
    Some(Lesson {
        work: record.demand.work?,
        spread_milli: record.demand.spread_milli,
        wall: now.since(record.begun),
        spot: Spot {
            occupancy,
            cores: record.cores,
        },
    })
}

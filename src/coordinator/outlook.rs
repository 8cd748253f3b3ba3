//! What agents are told of the farm as a whole, so that they can decide how much to bring to it.
//!
//! Told when it has changed noticeably, and no more often than `outlook_every`; a farm in which nothing happens tells
//! nothing.

use super::events::{Action, FarmView};
use super::scheduler::Scheduler;
use super::speed::Spot;
use super::timers::Timer;
use super::workers::Worker;
use crate::ids::{AgentSessionId, CoreGroupId};

/// A figure has changed noticeably when it differs by this part of it, in twentieths.
const NOTICEABLE_TWENTIETHS: u64 = 1;

impl Scheduler {
    /// Notes that what agents are told may have changed.
    pub(super) fn note_outlook(&mut self) {
        self.outlook_changed = true;
    }

    /// Sees that agents are told in time.
    pub(super) fn time_outlook(&mut self) {
        if self.outlook_changed && !self.timers.is_set(Timer::Outlook) && !self.agents.is_empty() {
            self.timers
                .set(Timer::Outlook, self.now.after(self.rules.outlook_every));
        }
    }

    /// Tells agents how the farm is, as far as it is news to them.
    pub(super) fn tell_outlook(&mut self) {
        self.outlook_changed = false;
        let common = self.outlook();
        let active = self.agents.values().filter(|agent| agent.is_active()).count() as u64;
        let views: Vec<(AgentSessionId, FarmView)> = self
            .agents
            .iter_mut()
            .filter_map(|(id, agent)| {
                let sharers = active + u64::from(!agent.is_active());
                let view = FarmView {
                    my_share_slots: u64::from(common.slots_total).div_ceil(sharers.max(1)),
                    ..common
                };
                let news = agent.told.is_none_or(|told| differs(&told, &view));
                news.then(|| {
                    agent.told = Some(view);
                    (*id, view)
                })
            })
            .collect();
        for (id, view) in views {
            self.act(Action::TellFarm(id, view));
        }
    }

    fn outlook(&self) -> FarmView {
        let mut view = FarmView::default();
        for worker in self.workers.values().filter(|worker| worker.is_usable()) {
            view.slots_total += worker.hello.slots;
            view.slots_busy += worker.jobs().min(worker.hello.slots);
            view.fastest_milli = view.fastest_milli.max(self.speed_when_full(worker));
        }
        view.queued = self.supplies.values().map(|supply| supply.jobs_waiting() as u64).sum();
        view
    }

    /// Returns the speed of a worker's fastest slots when all are in use, for the toolchain that it is fastest with.
    fn speed_when_full(&self, worker: &Worker) -> u32 {
        let told = worker.listed.keys().filter_map(|scope| {
            let (speed, supply) = (worker.speeds.get(scope)?, self.supplies.get(scope)?);
            let fastest = Spot {
                occupancy: worker.hello.slots,
                cores: CoreGroupId::default(),
            };
            Some(supply.pace.told_milli(speed.log(fastest)))
        });
        told.max().unwrap_or(0)
    }

    /// Returns the mean speed of a worker's slots when all are in use, learned from the toolchain that ran there most.
    pub(super) fn learned_milli(&self, worker: &Worker) -> Option<u32> {
        let known = worker.speeds.iter().filter(|(_, speed)| speed.jobs() > 0);
        let (scope, speed) = known.max_by_key(|(_, speed)| speed.jobs())?;
        let supply = self.supplies.get(scope)?;
        Some(supply.pace.told_milli(speed.log_when_full()))
    }
}

fn differs(before: &FarmView, now: &FarmView) -> bool {
    let far = |a: u64, b: u64| a.abs_diff(b) * 20 > a.max(b) * NOTICEABLE_TWENTIETHS;
    let free = |view: &FarmView| view.slots_total.saturating_sub(view.slots_busy);
    before.slots_total != now.slots_total
        || before.my_share_slots != now.my_share_slots
        || far(free(before).into(), free(now).into())
        || far(before.fastest_milli.into(), now.fastest_milli.into())
        || far(before.queued, now.queued)
}

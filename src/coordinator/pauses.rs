//! Wants that only nodes which pause after faults could serve: their jobs run at the client rather than wait.
//!
//! A short pause is waited for. A node that fails again and again pauses for a minute, and while it is the only one that has
//! the toolchain, nobody gains from queueing for it. Invariant: such a want is refused as soon as the last of its nodes
//! pauses, or at once when it comes later.

use super::events::{Action, Purpose};
use super::moment::Moment;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::supplies::Supply;
use crate::ids::{AgentSessionId, Name, RequestId, WorkerSessionId};
use crate::job::{Refusal, RefusalKind};

impl Scheduler {
    /// Returns the refusal of a want when all workers that it may have pause for longer than it should wait.
    pub(super) fn refusal_for_pauses(&self, supply: &Supply, avoid: &[Name], only: Option<&Name>) -> Option<Refusal> {
        let end = self.now.after(self.rules.pause_wait);
        let avoided = |id: &WorkerSessionId| avoid.iter().any(|name| self.names.get(name) == Some(id));
        let allowed = |id: &WorkerSessionId| match only {
            Some(name) => self.names.get(name) == Some(id),
            None => !avoided(id),
        };
        let pause = |id: &WorkerSessionId| self.workers.get(id)?.health.pause_until();
        let mut first: Option<Moment> = None;
        for id in supply.ready.iter().filter(|id| allowed(id)) {
            let until = pause(id).filter(|until| *until > end)?;
            first = Some(first.map_or(until, |first| first.min(until)));
        }
        let others_may_come = supply.workers_to_come().any(|id| allowed(&id));
        let wait = first.filter(|_| !others_may_come)?.since(self.now).as_secs();
        Some(Refusal {
            kind: RefusalKind::Busy,
            message: format!("every worker that could take this job failed lately; one is tried again in {wait} s"),
        })
    }

    /// Refuses what waits for a worker that has just failed and for others that pause too.
    pub(super) fn refuse_if_paused(&mut self, id: WorkerSessionId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let scopes: Vec<Scope> = worker.serves.keys().copied().collect();
        for scope in scopes {
            for (agent, request, refusal) in self.waiting_for_paused(scope) {
                self.take_waiting(agent, request);
                self.act(Action::Refuse(agent, request, refusal));
            }
        }
    }

    fn waiting_for_paused(&self, scope: Scope) -> Vec<(AgentSessionId, RequestId, Refusal)> {
        let Some(supply) = self.supplies.get(&scope) else {
            return Vec::new();
        };
        let refused = |(agent, request): (AgentSessionId, RequestId)| {
            let waiting = self.agents.get(&agent)?.waiting.get(&request)?;
            let refusal = self.refusal_for_pauses(supply, &waiting.avoid, waiting.only.as_ref())?;
            Some((agent, request, refusal))
        };
        supply
            .queue(Purpose::Job)
            .all()
            .into_iter()
            .filter_map(refused)
            .collect()
    }
}

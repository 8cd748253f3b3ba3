//! Wants that nobody will serve: their jobs run at the client rather than wait.
//!
//! That is when no worker has the toolchain or can get it, when the one that a want is bound to cannot serve it, and when all that could take
//! it pause after faults: a short pause is waited for, but a node that fails again and again pauses for a minute, and while it
//! is the only one, nobody gains from queueing for it. Invariant: such a want is refused as soon as that is so, or at once
//! when it comes later; but for the time in which workers may still come (back).

use super::events::{Action, Purpose};
use super::moment::Moment;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::supplies::{Supply, allowed};
use crate::ids::{AgentSessionId, Name, RequestId, WorkerSessionId};
use crate::job::{Refusal, RefusalKind};

/// A want that is to be refused, and why.
pub(super) type Refused = (AgentSessionId, RequestId, Refusal);

impl Scheduler {
    pub(super) fn refuse_what_has_no_worker(&mut self) {
        let scopes: Vec<Scope> = self.supplies.keys().copied().collect();
        for scope in scopes {
            self.refuse_if_hopeless(scope);
        }
    }

    pub(super) fn refuse_if_hopeless(&mut self, scope: Scope) {
        if self.now < self.settled_at {
            return;
        }
        let hopeless = |supply: &Supply| supply.is_hopeless() && supply.has_waiting();
        if self.supplies.get(&scope).is_some_and(hopeless) {
            let refusal = self.why_hopeless(scope);
            self.refuse_waiting(scope, &refusal);
        }
        self.refuse_these(self.bound_in_vain(scope));
    }

    /// Refuses all that waits for a scope.
    pub(super) fn refuse_waiting(&mut self, scope: Scope, refusal: &Refusal) {
        let waiting = self.supplies.get(&scope).map(Supply::all_waiting).unwrap_or_default();
        let refused = waiting
            .into_iter()
            .map(|(agent, request)| (agent, request, refusal.clone()));
        self.refuse_these(refused.collect());
    }

    /// Returns the refusal of a want when all workers that it may have pause for longer than it should wait.
    pub(super) fn refusal_for_pauses(&self, supply: &Supply, avoid: &[Name], only: Option<&Name>) -> Option<Refusal> {
        let end = self.now.after(self.rules.pause_wait);
        let allowed = allowed(avoid, only, &self.names);
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
            self.refuse_these(self.waiting_for_paused(scope));
        }
    }

    fn waiting_for_paused(&self, scope: Scope) -> Vec<Refused> {
        let Some(supply) = self.supplies.get(&scope) else {
            return Vec::new();
        };
        let refused = |(agent, request): (AgentSessionId, RequestId)| {
            let waiting = self.agents.get(&agent)?.waiting.get(&request)?;
            let refusal = self.refusal_for_pauses(supply, &waiting.avoid, waiting.only.as_ref())?;
            Some((agent, request, refusal))
        };
        let waiting = supply.queue(Purpose::Job).all();
        waiting.into_iter().filter_map(refused).collect()
    }

    fn refuse_these(&mut self, refused: Vec<Refused>) {
        for (agent, request, refusal) in refused {
            self.take_waiting(agent, request);
            self.act(Action::Refuse(agent, request, refusal));
        }
    }
}

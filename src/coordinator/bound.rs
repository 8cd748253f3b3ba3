//! Wants that one worker alone may serve: somebody looks at that worker, and no other will do.
//!
//! Such a want takes its turn like any other and then the worker's next open slot, however slow that is. A worker that
//! could get the toolchain is told to; when it cannot serve the want any more, that is said at once. Invariant: a
//! supply's `bound` has exactly the wants with a job that wait for it and name a worker.

use super::agents::Waiting;
use super::events::Drain;
use super::holdings::Holding;
use super::refusals::Refused;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::supplies::{Class, Supply};
use crate::ids::{Name, WorkerSessionId};
use crate::job::{Refusal, RefusalKind};

impl Scheduler {
    /// Returns the worker that `waiting` may have, and how that worker's next slot stands; `None` when it is not ready.
    pub(super) fn bound_worker(&self, waiting: &Waiting, only: &Name) -> Option<(WorkerSessionId, Class)> {
        let id = *self.names.get(only)?;
        let worker = self.workers.get(&id)?;
        worker.listed.get(&waiting.scope)?;
        Some((id, worker.class(self.now)?))
    }

    /// Tells the workers that wants wait for, and that could fetch the toolchain, to do so.
    pub(super) fn order_bound_fetches(&mut self, scope: Scope) {
        let Some(supply) = self.supplies.get(&scope) else {
            return;
        };
        let fetchable = |id: &WorkerSessionId| {
            let worker = self.workers.get(id)?;
            let tool = self.tool_of(scope, worker)?;
            match worker.holdings.get(&tool)? {
                Holding::Fetchable { failures } => Some((*id, tool, failures.clone())),
                _ => None,
            }
        };
        let workers = supply.bound.values().filter_map(|name| self.names.get(name));
        let room = self.rules.fetches_max.saturating_sub(supply.fetching.len());
        let wanted: Vec<_> = workers.filter_map(fetchable).take(room).collect();
        for (id, tool, failures) in wanted {
            let asked = self.now;
            self.set_holding(id, tool, Holding::Fetching { asked, failures });
        }
    }

    /// Returns the wants whose worker cannot serve them any more, with the reason.
    pub(super) fn bound_in_vain(&self, scope: Scope) -> Vec<Refused> {
        let Some(supply) = self.supplies.get(&scope) else {
            return Vec::new();
        };
        let vain = |name: &Name| supply.is_ruled_out(&[], Some(name), &self.names);
        let wants = supply.bound.iter().filter(|(_, name)| vain(name));
        wants
            .map(|((agent, request), name)| (*agent, *request, self.why_not_there(scope, name)))
            .collect()
    }

    /// Says why the worker `name` cannot serve a scope.
    pub(super) fn why_not_there(&self, scope: Scope, name: &Name) -> Refusal {
        let toolchain = scope.toolchain();
        let short = toolchain.0.short();
        let worker = self.names.get(name).and_then(|id| self.workers.get(id));
        let worker = worker.filter(|worker| worker.is_linked());
        let holding = worker.and_then(|worker| worker.holdings.get(&self.tool_of(scope, worker)?));
        let (kind, message) = match (worker, holding) {
            (None, _) => (RefusalKind::Busy, format!("worker `{name}` is not connected")),
            (Some(_), Some(Holding::Failed { message, .. })) => {
                let message = format!("worker `{name}` cannot get toolchain {short}: {message}");
                (RefusalKind::NoToolchain, message)
            }
            (Some(worker), _) if worker.drain == Drain::On || !worker.is_usable() => {
                (RefusalKind::Busy, format!("worker `{name}` takes no jobs now"))
            }
            (Some(worker), _) => {
                let kind = &worker.hello.host_kind.0;
                let message = format!("worker `{name}` is of kind `{kind}`, which toolchain {short} does not run on");
                (RefusalKind::NoToolchain, message)
            }
        };
        Refusal { kind, message }
    }
}

impl Supply {
    /// Returns how many wants with a job wait for no particular worker.
    pub(super) fn free_jobs_waiting(&self) -> usize {
        self.jobs_waiting().saturating_sub(self.bound.len())
    }
}

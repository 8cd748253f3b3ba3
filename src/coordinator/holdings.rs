//! Holdings: how each worker stands with each toolchain, and when it is told to look or to fetch.
//!
//! Workers look when they join and when a toolchain for their kind of host is pushed, which costs them nothing. They
//! fetch when more jobs wait for a toolchain than the fetches under way will serve. A want that no connected worker can
//! ever serve is refused with the reason. Invariant: every order is answered, repeated, or forgotten with its worker.

use std::collections::BTreeSet;

use super::events::{Action, Effort, HostKind, ToolchainNews};
use super::moment::Moment;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::supplies::Supply;
use super::timers::Timer;
use crate::ids::{ToolchainId, WorkerSessionId};
use crate::job::{Refusal, RefusalKind};
use crate::runtime::backoff::Backoff;

/// How a worker stands with one toolchain.
#[derive(Debug, Clone)]
pub(super) enum Holding {
    Looking { asked: Moment },
    Ready(Origin),
    Fetchable { failures: Option<Backoff> },
    Fetching { asked: Moment, failures: Option<Backoff> },
    Failed { message: String, pauses: Backoff },
}

/// Where a ready toolchain's files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Installed,
    Bundle,
}

impl Holding {
    pub fn is_ready(&self) -> bool {
        matches!(self, Holding::Ready(_))
    }
}

impl Scheduler {
    /// Changes how a worker stands with a toolchain, and asks it what has to be asked.
    pub(super) fn set_holding(&mut self, id: WorkerSessionId, toolchain: ToolchainId, holding: Holding) {
        if self.scopes.host_of(toolchain).is_none() {
            return;
        }
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let mut scopes = worker.scopes_of(toolchain, &self.scopes);
        scopes.retain(|scope| self.supplies.contains_key(scope));
        for scope in &scopes {
            let Some(supply) = self.supplies.get_mut(scope) else {
                continue;
            };
            let listing = worker.listed.remove(scope);
            supply.take_out(id, worker, listing);
            if worker.is_usable() {
                supply.put(id, worker, &holding);
            }
            match holding.is_ready() {
                true => worker.serves.insert(*scope, toolchain),
                false => worker.serves.remove(scope),
            };
        }
        let linked = worker.is_linked();
        let effort = match &holding {
            Holding::Looking { .. } => Some(Effort::Look),
            Holding::Fetching { .. } => Some(Effort::Fetch),
            Holding::Ready(_) | Holding::Fetchable { .. } | Holding::Failed { .. } => None,
        };
        let ready = holding.is_ready();
        worker.holdings.insert(toolchain, holding);
        if ready {
            for scope in scopes {
                self.follow_speed(id, scope);
            }
            self.relist_open_slots(id);
        }
        if let Some(effort) = effort
            && linked
        {
            self.act(Action::Prepare(id, toolchain, effort));
        }
    }

    /// Starts a session's holdings: what it has is ready, and it is asked about all else that it could run. It is asked
    /// about what it has too, to learn where that comes from.
    pub(super) fn begin_holdings(&mut self, id: WorkerSessionId, ready: &BTreeSet<ToolchainId>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let host_kind = worker.hello.host_kind.clone();
        let has = |toolchain: &ToolchainId| ready.contains(toolchain);
        let of_interest = self.scopes.catalogue();
        let of_interest = of_interest.filter(|(toolchain, runs_on)| has(toolchain) || **runs_on == host_kind);
        let mut toolchains: Vec<ToolchainId> = of_interest.map(|(toolchain, _)| toolchain).collect();
        toolchains.sort_by_key(|toolchain| !has(toolchain));
        toolchains.truncate(self.rules.toolchains_per_worker_max);
        for toolchain in toolchains {
            if has(&toolchain) {
                self.set_holding(id, toolchain, Holding::Ready(Origin::Bundle));
                self.act(Action::Prepare(id, toolchain, Effort::Look));
            } else {
                self.set_holding(id, toolchain, Holding::Looking { asked: self.now });
            }
        }
    }

    pub(super) fn handle_toolchain_added(&mut self, toolchain: ToolchainId, host_kind: HostKind) {
        let known = self.scopes.host_of(toolchain).is_some();
        if self.scopes.catalogue().count() >= self.rules.toolchains_max && !known {
            return;
        }
        self.scopes.add(toolchain, host_kind.clone());
        let new = || Supply::new(host_kind.clone());
        self.supplies.entry(Scope::Own(toolchain)).or_insert_with(new);
        for id in self.linked_of_kind(&host_kind) {
            let Some(worker) = self.workers.get(&id) else { continue };
            let ask = match worker.holdings.get(&toolchain) {
                None => worker.holdings.len() < self.rules.toolchains_per_worker_max,
                Some(Holding::Failed { .. }) => true,
                Some(_) => false,
            };
            if ask {
                self.timers.clear(Timer::Toolchain(id, toolchain));
                self.set_holding(id, toolchain, Holding::Looking { asked: self.now });
            }
        }
    }

    pub(super) fn handle_toolchain_removed(&mut self, toolchain: ToolchainId) {
        self.remove_stand_ins(toolchain);
        let refusal = Refusal {
            kind: RefusalKind::NoToolchain,
            message: format!("toolchain {} was removed", toolchain.0.short()),
        };
        for scope in [Scope::Own(toolchain), Scope::Variants(toolchain)] {
            self.refuse_waiting(scope, &refusal);
            self.supplies.remove(&scope);
            self.timers.clear(Timer::Look(scope));
            for speeds in self.remembered.values_mut() {
                speeds.remove(&scope);
            }
            for worker in self.workers.values_mut() {
                worker.speeds.remove(&scope);
                worker.listed.remove(&scope);
                worker.serves.remove(&scope);
            }
        }
        self.scopes.remove(toolchain);
        for scope in [Scope::Own(toolchain), Scope::Variants(toolchain)] {
            self.void_what_is_revoked(scope);
        }
        for (id, worker) in &mut self.workers {
            worker.holdings.remove(&toolchain);
            worker.uncertified.remove(&toolchain);
            self.timers.clear(Timer::Toolchain(*id, toolchain));
        }
    }

    pub(super) fn handle_news(&mut self, id: WorkerSessionId, toolchain: ToolchainId, news: ToolchainNews) {
        let Some(worker) = self.workers.get(&id) else { return };
        let failures = match worker.holdings.get(&toolchain) {
            None => return,
            Some(Holding::Fetchable { failures } | Holding::Fetching { failures, .. }) => failures.clone(),
            Some(Holding::Failed { pauses, .. }) => Some(pauses.clone()),
            Some(Holding::Looking { .. } | Holding::Ready(_)) => None,
        };
        self.timers.clear(Timer::Toolchain(id, toolchain));
        let holding = match news {
            ToolchainNews::Installed => Holding::Ready(Origin::Installed),
            ToolchainNews::Bundle => Holding::Ready(Origin::Bundle),
            ToolchainNews::Fetchable => Holding::Fetchable { failures },
            ToolchainNews::Failed(message) => {
                let (first, most) = (self.rules.failed_pause_first, self.rules.failed_pause_most);
                let mut pauses = failures.unwrap_or_else(|| Backoff::new(first, most));
                let again = self.now.after(pauses.next_delay(self.draw_random()));
                self.timers.set(Timer::Toolchain(id, toolchain), again);
                Holding::Failed { message, pauses }
            }
        };
        self.set_holding(id, toolchain, holding);
        self.serve_worker(id);
        for scope in self.scopes_at(id, toolchain) {
            self.order_fetches(scope);
            self.refuse_if_hopeless(scope);
        }
    }

    pub(super) fn handle_failed_pause_over(&mut self, id: WorkerSessionId, toolchain: ToolchainId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if let Some(Holding::Failed { pauses, .. }) = worker.holdings.get(&toolchain) {
            let failures = Some(pauses.clone());
            self.set_holding(id, toolchain, Holding::Fetchable { failures });
            for scope in self.scopes_at(id, toolchain) {
                self.order_fetches(scope);
            }
        }
    }

    /// Orders fetches while more wants wait in a scope than those under way will serve, the most capable worker
    /// first. Wants only ever wait when no ready worker has an open slot.
    pub(super) fn order_fetches(&mut self, scope: Scope) {
        self.order_bound_fetches(scope);
        loop {
            let Some(supply) = self.supplies.get(&scope) else {
                return;
            };
            let coming: usize = supply.fetching.values().map(|slots| *slots as usize).sum();
            if supply.free_jobs_waiting() <= coming || supply.fetching.len() >= self.rules.fetches_max {
                return;
            }
            let Some((_, id)) = supply.fetchable.first().copied() else {
                return;
            };
            let Some(worker) = self.workers.get(&id) else { return };
            let Some(tool) = self.tool_of(scope, worker) else {
                return;
            };
            let Some(Holding::Fetchable { failures }) = worker.holdings.get(&tool) else {
                return;
            };
            let (asked, failures) = (self.now, failures.clone());
            self.set_holding(id, tool, Holding::Fetching { asked, failures });
        }
    }

    /// Asks again for what a worker has not answered in time.
    pub(super) fn repeat_orders(&mut self, id: WorkerSessionId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let mut overdue = Vec::new();
        for (toolchain, holding) in &mut worker.holdings {
            let (asked, effort) = match holding {
                Holding::Looking { asked } => (asked, Effort::Look),
                Holding::Fetching { asked, .. } => (asked, Effort::Fetch),
                Holding::Ready(_) | Holding::Fetchable { .. } | Holding::Failed { .. } => continue,
            };
            if self.now.since(*asked) >= self.rules.prepare_again {
                *asked = self.now;
                overdue.push((*toolchain, effort));
            }
        }
        for (toolchain, effort) in overdue {
            self.act(Action::Prepare(id, toolchain, effort));
        }
    }
}

//! Variants: who stands in for whom, as the catalogue says now, and what follows from a change of that.
//!
//! A toolchain with certified variants has a second supply beside its own. Its workers are those that have the toolchain and
//! those that have a variant that stands in for it. A want that may be served by variants waits there; any other waits in
//! the toolchain's own. Invariant: whatever the table stops saying is neither listed, nor given, nor left in an unused grant.

use std::collections::{BTreeMap, BTreeSet};

use super::events::{Drain, HostKind, StandIn, StandIns, VoidReason};
use super::grants::GrantState;
use super::holdings::Holding;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::supplies::Supply;
use super::workers::Worker;
use crate::ids::{GrantId, ToolchainId, WorkerSessionId};
use crate::job::{Refusal, RefusalKind};

impl Scheduler {
    /// Returns what a worker runs for the jobs of a scope.
    pub(super) fn tool_of(&self, scope: Scope, worker: &Worker) -> Option<ToolchainId> {
        let tool = self.scopes.tool(scope, &worker.hello.host_kind)?;
        (tool == scope.toolchain() || worker.stands_in_with(tool)).then_some(tool)
    }

    /// Returns the scopes whose jobs a worker runs with `tool`.
    pub(super) fn scopes_at(&self, id: WorkerSessionId, tool: ToolchainId) -> Vec<Scope> {
        let worker = self.workers.get(&id);
        worker.map_or_else(Vec::new, |worker| worker.scopes_of(tool, &self.scopes))
    }

    pub(super) fn handle_stand_ins(&mut self, mut table: StandIns) {
        let mut concerned: BTreeSet<ToolchainId> = self.scopes.with_stand_ins();
        concerned.extend(table.keys());
        for toolchain in concerned {
            let stand_ins = table.remove(&toolchain).unwrap_or_default();
            if self.scopes.stand_ins_of(toolchain) != stand_ins {
                self.change_stand_ins(toolchain, stand_ins);
            }
        }
    }

    /// Takes a toolchain out of the table, on either side.
    pub(super) fn remove_stand_ins(&mut self, toolchain: ToolchainId) {
        for served in self.scopes.served_by(toolchain) {
            let mut left = self.scopes.stand_ins_of(served);
            left.retain(|_, stand_in| stand_in.toolchain != toolchain);
            self.change_stand_ins(served, left);
        }
        self.change_stand_ins(toolchain, BTreeMap::new());
    }

    fn change_stand_ins(&mut self, toolchain: ToolchainId, stand_ins: BTreeMap<HostKind, StandIn>) {
        let Some(host) = self.scopes.host_of(toolchain).cloned() else {
            return;
        };
        let scope = Scope::Variants(toolchain);
        let ids: Vec<WorkerSessionId> = self.workers.keys().copied().collect();
        for id in &ids {
            self.leave_scope(*id, scope);
        }
        self.scopes.set(toolchain, stand_ins);
        self.void_what_is_revoked(scope);
        if !self.scopes.stand_ins_of(toolchain).is_empty() {
            self.supplies.entry(scope).or_insert_with(|| Supply::new(host));
        }
        if !self.supplies.contains_key(&scope) {
            return;
        }
        for id in ids {
            self.enter_scope(id, scope);
        }
        self.note_outlook();
        self.serve_scope(scope);
        self.order_fetches(scope);
        self.refuse_if_hopeless(scope);
    }

    fn leave_scope(&mut self, id: WorkerSessionId, scope: Scope) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.serves.remove(&scope);
        let listing = worker.listed.remove(&scope);
        if let Some(supply) = self.supplies.get_mut(&scope) {
            supply.take_out(id, worker, listing);
        }
    }

    fn enter_scope(&mut self, id: WorkerSessionId, scope: Scope) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(tool) = self.tool_of(scope, worker) else {
            return;
        };
        let Some(holding) = worker.holdings.get(&tool) else {
            return;
        };
        let ready = holding.is_ready();
        if worker.is_usable()
            && let Some(supply) = self.supplies.get_mut(&scope)
        {
            supply.put(id, worker, holding);
        }
        if ready {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.serves.insert(scope, tool);
            }
            self.follow_speed(id, scope);
            self.relist_open_slots(id);
        }
    }

    /// Voids the grants of a scope that are not in use yet and were given by what the table does not say any more.
    pub(super) fn void_what_is_revoked(&mut self, scope: Scope) {
        let revoked = self.grants.iter().filter(|(_, record)| {
            let worker = self.workers.get(&record.worker);
            let tool = worker.and_then(|worker| self.scopes.tool(scope, &worker.hello.host_kind));
            record.scope == Some(scope) && record.state == GrantState::Given && record.tool != tool
        });
        let revoked: Vec<GrantId> = revoked.map(|(grant, _)| *grant).collect();
        for grant in revoked {
            self.tell_agent_void(grant, VoidReason::Expired);
            self.void_grant(grant, VoidReason::Expired);
        }
    }

    /// A worker found that what it has of a toolchain does not make the objects that it was certified by. It gets no more jobs
    /// of other toolchains for it in this session.
    pub(super) fn note_uncertified(&mut self, id: WorkerSessionId, tool: ToolchainId) {
        let others = self.scopes_at(id, tool).into_iter();
        let others: Vec<Scope> = others.filter(|scope| scope.toolchain() != tool).collect();
        for scope in &others {
            self.leave_scope(id, *scope);
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            tracing::warn!(worker = %worker.hello.name, toolchain = tool.0.short(), "a variant makes other golden objects there");
            worker.uncertified.insert(tool);
        }
        for scope in others {
            self.order_fetches(scope);
            self.refuse_if_hopeless(scope);
        }
    }

    /// Says why no worker can serve a scope.
    pub(super) fn why_hopeless(&self, scope: Scope) -> Refusal {
        let toolchain = scope.toolchain();
        let short = toolchain.0.short();
        let Some(supply) = self.supplies.get(&scope) else {
            return Refusal {
                kind: RefusalKind::NoToolchain,
                message: format!("toolchain {short} is not known to the coordinator"),
            };
        };
        let variants = self.supplies.get(&Scope::Variants(toolchain));
        if scope == Scope::Own(toolchain) && variants.is_some_and(|variants| !variants.is_hopeless()) {
            let message =
                format!("the workers at hand have variants of toolchain {short}, and this job may not run on them");
            return Refusal {
                kind: RefusalKind::Unsupported,
                message,
            };
        }
        let holders = self.workers.values().filter_map(|worker| {
            let holding = worker.holdings.get(&self.tool_of(scope, worker)?)?;
            worker.is_linked().then_some((worker, holding))
        });
        let (mut drained, mut failed) = (0, Vec::new());
        for (worker, holding) in holders {
            match holding {
                Holding::Failed { message, .. } => failed.push(format!("`{}`: {message}", worker.hello.name)),
                _ if worker.drain == Drain::On || !worker.is_usable() => drained += 1,
                _ => {}
            }
        }
        let (kind, message) = match (drained, failed.first()) {
            (0, None) => {
                let kind = &supply.host_kind.0;
                let message = format!("no worker of kind `{kind}`, which toolchain {short} runs on, is connected");
                (RefusalKind::NoToolchain, message)
            }
            (0, Some(first)) => {
                let count = failed.len();
                let message = format!("{count} of {count} workers cannot get toolchain {short}; {first}");
                (RefusalKind::NoToolchain, message)
            }
            (drained, _) => {
                let message = format!("workers that could serve toolchain {short} take no jobs now: {drained}");
                (RefusalKind::Busy, message)
            }
        };
        Refusal { kind, message }
    }
}

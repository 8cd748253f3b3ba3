//! Kinds of host and who may stand in for whom in a simulated farm, and what must hold of it.

use std::collections::BTreeMap;

use rand::RngExt;
use rdcc::coordinator::events::{Action, Event, Grant, HostKind, StandIn, StandIns};
use rdcc::ids::ToolchainId;
use rdcc::job::Variants;
use rdcc::toolchains::definition::Certify;

use super::world::{Step, World, toolchain};

/// The kind of host that number `number` is of, worker or toolchain.
pub fn kind(number: usize, kinds: usize) -> HostKind {
    HostKind(format!("sim{}", number % kinds))
}

impl World {
    /// Returns the kind of host that a toolchain runs on.
    pub fn kind_of(&self, wanted: ToolchainId) -> HostKind {
        let number = (0..self.config.toolchains).find(|number| toolchain(*number) == wanted);
        kind(number.expect("one of ours"), self.config.kinds)
    }

    /// Returns who may stand in for whom now.
    pub fn stand_ins(&self) -> StandIns {
        let mut table = StandIns::new();
        for (own, stand_in) in &self.certified {
            let (own, stand_in) = (toolchain(*own), toolchain(*stand_in));
            if self.known.contains(&own) && self.known.contains(&stand_in) {
                let by_host: &mut BTreeMap<_, _> = table.entry(own).or_default();
                let stand_in = StandIn {
                    toolchain: stand_in,
                    level: Certify::Identical,
                };
                by_host.insert(self.kind_of(stand_in.toolchain), stand_in);
            }
        }
        table
    }

    /// Tells the scheduler who may stand in for whom, as the registry does after each change.
    pub fn tell_stand_ins(&mut self) {
        if self.config.kinds > 1 {
            self.tell_scheduler(Event::StandIns(self.stand_ins()));
        }
    }

    /// Certifies a pair of neighbours, or takes that back: new objects were pushed.
    pub fn recertify(&mut self) {
        let neighbour = |number: usize| number ^ 1;
        let own = self.random.random_range(0..self.config.toolchains);
        let pair = (own, neighbour(own));
        if pair.1 < self.config.toolchains && !self.certified.remove(&pair) {
            self.certified.insert(pair);
        }
        self.tell_stand_ins();
        let wait = self.random_wait(100, 8_000);
        if self.now + wait < self.config.calm_after {
            self.after(wait, Step::Recertify);
        }
    }

    pub fn random_variants(&mut self) -> Variants {
        match self.config.kinds > 1 && self.random.random_bool(0.7) {
            true => Variants::Certified,
            false => Variants::Never,
        }
    }

    /// Checks what is granted: a pair that is certified at this moment on a worker of the right kind, and for a job that may run
    /// there.
    pub fn check_granted(&mut self, action: &Action) {
        let Action::Grant(grant) = action else { return };
        if let Some(broken) = self.wrong_with(grant) {
            self.broken.push(format!("{broken}: {grant:?}"));
        }
    }

    fn wrong_with(&self, grant: &Grant) -> Option<&'static str> {
        let holder = |worker: &&super::worker::SimWorker| worker.session == Some(grant.worker);
        let worker = self.workers.iter().find(holder)?;
        if self.quarantine.of(&worker.name).is_some() {
            return Some("a slot of a node in quarantine was granted");
        }
        let Some(run_as) = grant.run_as else {
            let at_home = self.kind_of(grant.toolchain) == worker.host_kind;
            return (!at_home).then_some("a toolchain was granted on another kind of host");
        };
        let table = self.stand_ins();
        let certified = table
            .get(&grant.toolchain)
            .and_then(|by_host| by_host.get(&worker.host_kind));
        if certified != Some(&run_as) {
            return Some("a pair was granted that is not certified");
        }
        let asked = self.agents.iter().filter_map(|agent| agent.jobs.get(&grant.request));
        let wanted = asked.filter(|(job, _)| job.toolchain == grant.toolchain);
        let may = wanted.map(|(job, _)| job.variants).max();
        (may == Some(Variants::Never)).then_some("a variant was granted to a job that may not run on it")
    }
}

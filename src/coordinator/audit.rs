//! The scheduler's invariants, recomputed from scratch.
//!
//! For tests: it looks at everything and changes nothing. The numbers are those of `scheduler.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::grants::{GrantState, Spare};
use super::holdings::Holding;
use super::scheduler::Scheduler;
use super::supplies::{Class, Listing};
use super::timers::Timer;
use crate::ids::{AgentSessionId, GrantId, RequestId};

impl Scheduler {
    /// Checks every invariant. Returns the first that is broken, in words.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_wants()?;
        self.audit_accounts()?;
        self.audit_slots()?;
        self.audit_variants()?;
        self.audit_lists()
    }

    fn audit_wants(&self) -> Result<(), String> {
        let mut queued: BTreeSet<(AgentSessionId, RequestId)> = BTreeSet::new();
        for supply in self.supplies.values() {
            for waiting in supply.all_waiting() {
                check(queued.insert(waiting), || format!("{waiting:?} is queued twice"))?;
            }
            supply.audit_counts()?;
        }
        for (id, agent) in &self.agents {
            for request in agent.waiting.keys() {
                let known = queued.remove(&(*id, *request));
                check(known, || format!("want {id}/{request} is in no queue"))?;
                let timed = self.timers.is_set(Timer::Want(*id, *request));
                check(timed, || format!("want {id}/{request} has no deadline"))?;
                let granted = agent.granted.contains_key(request);
                check(!granted, || format!("want {id}/{request} waits and is granted"))?;
            }
            for (request, grant) in &agent.granted {
                let record = self.grants.get(grant);
                let right = record.is_some_and(|r| r.agent == Some(*id) && r.request == *request);
                check(right, || {
                    format!("want {id}/{request} has grant {grant}, which is not its")
                })?;
            }
        }
        check(queued.is_empty(), || format!("{queued:?} are queued for nobody"))
    }

    fn audit_accounts(&self) -> Result<(), String> {
        for (id, agent) in &self.agents {
            let held = |grant: &GrantId| {
                let record = self.grants.get(grant)?;
                (record.state != GrantState::Released).then_some(u64::from(record.power_milli))
            };
            let sum: u64 = agent.granted.values().filter_map(held).sum();
            let builds: u64 = agent.builds.values().map(|build| build.share.held_milli()).sum();
            let account = agent.share.held_milli();
            check(sum == account && sum == builds, || {
                format!("agent {id} holds {sum}, its account says {account}, its builds {builds}")
            })?;
            let wants: usize = agent.builds.values().map(|build| build.wants).sum();
            check(wants == agent.waiting.len(), || {
                format!("agent {id}: builds count {wants} wants")
            })?;
        }
        Ok(())
    }

    fn audit_slots(&self) -> Result<(), String> {
        let mut by_worker: BTreeMap<_, BTreeSet<GrantId>> = BTreeMap::new();
        for (grant, record) in &self.grants {
            let known = self.workers.contains_key(&record.worker);
            if record.state == GrantState::Released {
                check(record.agent.is_some(), || {
                    format!("grant {grant} waits for nobody's word")
                })?;
            } else {
                check(known, || {
                    format!("grant {grant} is on worker {}, which is gone", record.worker)
                })?;
                by_worker.entry(record.worker).or_default().insert(*grant);
            }
            let timed = self.timers.is_set(Timer::Grant(*grant));
            check(timed || record.state == GrantState::Running, || {
                format!("grant {grant} is {:?} and has no deadline", record.state)
            })?;
            let agent = record.agent.and_then(|id| self.agents.get(&id));
            let right = agent.is_none_or(|agent| agent.granted.get(&record.request) == Some(grant));
            check(right && record.agent.is_some() == agent.is_some(), || {
                format!("grant {grant} is not with its agent")
            })?;
        }
        self.audit_ends()?;
        for (id, worker) in &self.workers {
            let grants = by_worker.remove(id).unwrap_or_default();
            check(grants == worker.grants, || {
                format!("worker {id} has {:?}, the table says {grants:?}", worker.grants)
            })?;
            let own = |grant: &&GrantId| self.grants.get(grant).is_some_and(|record| record.scope.is_none());
            let adopted = grants.iter().filter(own).count();
            let slots = worker.hello.slots as usize;
            check(grants.len() <= slots.max(adopted) + adopted, || {
                format!("worker {id} is oversold: {} grants, {slots} slots", grants.len())
            })?;
            check(
                worker.quarantined == self.quarantine.of(&worker.hello.name).is_some(),
                || format!("worker {id} is not where the quarantine says"),
            )?;
            for (cores, taken) in worker.cores.taken() {
                let of_group = |grant: &&GrantId| self.grants.get(grant).is_some_and(|record| record.cores == cores);
                let counted = grants.iter().filter(of_group).count();
                check(counted == taken as usize, || {
                    format!("worker {id}: {taken} slots of {cores:?} are taken, by {counted} grants")
                })?;
            }
            check(self.names.get(&worker.hello.name) == Some(id), || {
                format!("worker {id} has lost its name")
            })?;
            check(self.timers.is_set(Timer::Silence(*id)), || {
                format!("worker {id} may be silent for ever")
            })?;
        }
        Ok(())
    }

    /// What was given and is not in use yet, is to be run as the table says now; and nobody serves what has no list.
    fn audit_variants(&self) -> Result<(), String> {
        for (grant, record) in &self.grants {
            let (Some(scope), GrantState::Given) = (record.scope, record.state) else {
                continue;
            };
            let Some(worker) = self.workers.get(&record.worker) else {
                continue;
            };
            let tool = self.scopes.tool(scope, &worker.hello.host_kind);
            check(record.tool == tool, || {
                format!(
                    "grant {grant} of {scope:?} is run with {:?}, and {tool:?} is certified",
                    record.tool
                )
            })?;
        }
        for (id, worker) in &self.workers {
            let unknown = worker.serves.keys().find(|scope| !self.supplies.contains_key(scope));
            check(unknown.is_none(), || format!("{id} serves {unknown:?}, which is gone"))?;
        }
        Ok(())
    }

    /// Every grant that takes a slot is held ahead of need, called back, or has an end in sight.
    fn audit_ends(&self) -> Result<(), String> {
        let (mut spares, mut ends) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for (grant, record) in &self.grants {
            match record.spare {
                _ if record.state == GrantState::Released => {}
                Spare::Held => drop(spares.entry(record.worker).or_default().insert(*grant)),
                Spare::No => drop(ends.entry(record.worker).or_default().insert((record.ends, *grant))),
                Spare::Recalled => {}
            }
        }
        for (id, worker) in &self.workers {
            let spares = spares.remove(id).unwrap_or_default();
            let ends = ends.remove(id).unwrap_or_default();
            check(spares == worker.spares && ends == worker.ends, || {
                format!("worker {id} is to have {spares:?} and {ends:?}, and has {worker:?}")
            })?;
        }
        Ok(())
    }

    fn audit_lists(&self) -> Result<(), String> {
        for (scope, supply) in &self.supplies {
            let toolchain = format!("{scope:?}");
            let idle = supply.jobs_waiting() == 0 || !supply.has(Class::Open);
            let looked_at = self.timers.is_set(Timer::Look(*scope));
            check(idle || looked_at, || {
                format!("wants for {toolchain} wait beside open slots, and nobody looks")
            })?;
            let (mut stand, mut ready, mut looking) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let (mut fetchable, mut fetching) = (BTreeSet::new(), BTreeSet::new());
            for (id, worker) in self.workers.iter().filter(|(_, worker)| worker.is_usable()) {
                let tool = self.tool_of(*scope, worker);
                match tool.and_then(|tool| worker.holdings.get(&tool)) {
                    Some(Holding::Ready(_)) => {
                        ready.insert(*id);
                        let serves = worker.serves.get(scope).copied();
                        check(serves == tool, || {
                            format!("{id} serves {scope:?} with {serves:?}, not {tool:?}")
                        })?;
                        let (class, speed) = (worker.class(self.now), worker.speeds.get(scope));
                        let listing = class.zip(speed);
                        let listing = listing.map(|(class, speed)| Listing::new(class, speed, worker.next_spot()));
                        check(speed.is_some(), || format!("nobody knows how fast {id} is"))?;
                        stand.extend(listing.map(|listing| (listing, *id)));
                    }
                    Some(Holding::Looking { .. }) => drop(looking.insert(*id)),
                    Some(Holding::Fetchable { .. }) => drop(fetchable.insert(*id)),
                    Some(Holding::Fetching { .. }) => drop(fetching.insert(*id)),
                    Some(Holding::Failed { .. }) | None => {}
                }
            }
            check(stand == supply.listed, || {
                format!("workers for {toolchain}: {:?}, not {stand:?}", supply.listed)
            })?;
            let capacity: u64 = stand.iter().map(|(listing, _)| listing.capacity_us).sum();
            check(capacity == supply.capacity_us, || {
                format!("capacity for {toolchain} is {capacity}, not {}", supply.capacity_us)
            })?;
            let listed: BTreeSet<_> = supply.fetchable.iter().map(|(_, id)| *id).collect();
            let under_way: BTreeSet<_> = supply.fetching.keys().copied().collect();
            let same = ready == supply.ready && looking == supply.looking;
            check(same && listed == fetchable && under_way == fetching, || {
                format!("the lists of {toolchain} are out of step")
            })?;
            let hopeless = supply.is_hopeless() && supply.has_waiting() && self.now >= self.settled_at;
            check(!hopeless, || format!("wants for {toolchain} wait for nobody"))?;
        }
        Ok(())
    }
}

fn check(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

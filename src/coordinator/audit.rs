//! The scheduler's invariants, recomputed from scratch.
//!
//! For tests: it looks at everything and changes nothing. The numbers are those of `scheduler.rs`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::grants::GrantState;
use super::placement;
use super::scheduler::Scheduler;
use super::timers::Timer;
use super::workers::Holding;
use crate::ids::{AgentSessionId, GrantId, RequestId};

impl Scheduler {
    /// Checks every invariant. Returns the first that is broken, in words.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_wants()?;
        self.audit_accounts()?;
        self.audit_slots()?;
        self.audit_lists()
    }

    fn audit_wants(&self) -> Result<(), String> {
        let mut queued: BTreeSet<(AgentSessionId, RequestId)> = BTreeSet::new();
        for supply in self.supplies.values() {
            for waiting in supply.queue.all() {
                check(queued.insert(waiting), || format!("{waiting:?} is queued twice"))?;
            }
            let all = supply.queue.all().len();
            check(all == supply.queue.len(), || format!("a queue of {all} counts wrong"))?;
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
        for (id, worker) in &self.workers {
            let grants = by_worker.remove(id).unwrap_or_default();
            check(grants == worker.grants, || {
                format!("worker {id} has {:?}, the table says {grants:?}", worker.grants)
            })?;
            let own = |grant: &&GrantId| self.grants.get(grant).is_some_and(|record| record.toolchain.is_none());
            let adopted = grants.iter().filter(own).count();
            let slots = worker.hello.slots as usize;
            check(grants.len() <= slots.max(adopted) + adopted, || {
                format!("worker {id} is oversold: {} grants, {slots} slots", grants.len())
            })?;
            check(self.names.get(&worker.hello.name) == Some(id), || {
                format!("worker {id} has lost its name")
            })?;
            check(self.timers.is_set(Timer::Silence(*id)), || {
                format!("worker {id} may be silent for ever")
            })?;
        }
        Ok(())
    }

    fn audit_lists(&self) -> Result<(), String> {
        for (toolchain, supply) in &self.supplies {
            let idle = supply.queue.len() == 0 || supply.free.is_empty();
            check(idle, || format!("wants for {toolchain} wait beside open slots"))?;
            let (mut free, mut ready, mut looking) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let (mut fetchable, mut fetching) = (BTreeSet::new(), BTreeSet::new());
            for (id, worker) in self.workers.iter().filter(|(_, worker)| worker.is_usable()) {
                match worker.holdings.get(toolchain) {
                    Some(Holding::Ready(_)) => {
                        ready.insert(*id);
                        let standing = worker.standing(self.now);
                        if standing.open_slots > 0 {
                            free.insert((Reverse(placement::rank(&standing)), *id));
                        }
                    }
                    Some(Holding::Looking { .. }) => drop(looking.insert(*id)),
                    Some(Holding::Fetchable { .. }) => drop(fetchable.insert(*id)),
                    Some(Holding::Fetching { .. }) => drop(fetching.insert(*id)),
                    Some(Holding::Failed { .. }) | None => {}
                }
            }
            check(free == supply.free, || {
                format!("open slots for {toolchain}: {:?}, not {free:?}", supply.free)
            })?;
            let listed: BTreeSet<_> = supply.fetchable.iter().map(|(_, id)| *id).collect();
            let under_way: BTreeSet<_> = supply.fetching.keys().copied().collect();
            let same = ready == supply.ready && looking == supply.looking;
            check(same && listed == fetchable && under_way == fetching, || {
                format!("the lists of {toolchain} are out of step")
            })?;
            let hopeless = supply.is_hopeless() && supply.queue.len() > 0 && self.now >= self.settled_at;
            check(!hopeless, || format!("wants for {toolchain} wait for nobody"))?;
        }
        Ok(())
    }
}

fn check(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

//! Decides whether a job that arrives with a grant may start, must wait a moment, or is refused.
//!
//! The coordinator gives out no more places than there are slots, but a grant may arrive while its predecessor is still
//! being cleaned up; such a job waits, and among those that wait the agent with the fewest running jobs is next. Each
//! grant serves once. No clock: how long a job may wait is the caller's business. Invariants: never more running than
//! slots; at most as many waiting; memory is bounded whatever arrives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{AgentSessionId, GrantId, ToolchainId};
use crate::job::{Refusal, RefusalKind};
use crate::protocol::token::{GrantKey, TokenCheck};

/// Used grants remembered by number. Grants are numbered in order and used within seconds, so older numbers than the
/// last few thousand are simply too old.
const SPENT_MAX: usize = 4096;
/// Sessions whose grants count: the present one, and the one before, whose grants were given before a reconnect.
const KEYS_MAX: usize = 2;

/// One job at this worker, from its admission to the end of its cleaning up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What a job shows at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The place it was given.
    pub grant: GrantId,
    /// The agent that it was given to, as the link's hello said.
    pub agent: AgentSessionId,
    /// What it is to be compiled with.
    pub toolchain: ToolchainId,
    /// Proof of all this.
    pub token: Vec<u8>,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It has a slot.
    Start(Ticket),
    /// All slots are being used; [`Slots::finished`] names it when one is free.
    Wait(Ticket),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    grant: GrantId,
    agent: AgentSessionId,
}

#[derive(Debug)]
struct Epoch {
    key: GrantKey,
    spent: BTreeSet<GrantId>,
    /// Numbers up to this one count as spent.
    floor: Option<GrantId>,
}

/// The slots of one worker.
#[derive(Debug)]
pub struct Slots {
    slots: usize,
    running: BTreeMap<Ticket, Holder>,
    waiting: VecDeque<(Ticket, Holder)>,
    /// Newest first.
    epochs: VecDeque<Epoch>,
    next: u64,
    closed: bool,
}

impl Slots {
    /// Starts with `slots` free ones.
    pub fn new(slots: u32) -> Self {
        Self {
            slots: slots as usize,
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            epochs: VecDeque::new(),
            next: 1,
            closed: false,
        }
    }

    /// Takes the key of a new session with the coordinator. The same key again changes nothing.
    pub fn new_session(&mut self, key: GrantKey) {
        if self.epochs.iter().any(|epoch| epoch.key == key) {
            return;
        }
        self.epochs.push_front(Epoch {
            key,
            spent: BTreeSet::new(),
            floor: None,
        });
        self.epochs.truncate(KEYS_MAX);
    }

    /// Refuses every job from now on; those that run end normally.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Checks a claim and uses its grant up.
    pub fn admit(&mut self, claim: &Claim) -> Result<Admission, Refusal> {
        if self.closed {
            return Err(busy("the worker is shutting down".to_owned()));
        }
        let Claim { grant, agent, .. } = *claim;
        let genuine =
            |epoch: &&mut Epoch| epoch.key.verify(grant, agent, claim.toolchain, &claim.token) == TokenCheck::Genuine;
        let Some(epoch) = self.epochs.iter_mut().find(genuine) else {
            return Err(busy(format!(
                "grant {grant} is not from this worker's present coordinator"
            )));
        };
        epoch.spend(grant)?;
        let ticket = Ticket(self.next);
        self.next += 1;
        let holder = Holder { grant, agent };
        if self.running.len() < self.slots {
            self.running.insert(ticket, holder);
            return Ok(Admission::Start(ticket));
        }
        if self.waiting.len() >= self.slots {
            return Err(busy("all slots are in use".to_owned()));
        }
        self.waiting.push_back((ticket, holder));
        Ok(Admission::Wait(ticket))
    }

    /// Takes a job as ended, running or waiting; returns the waiting job that now has its slot.
    pub fn finished(&mut self, ticket: Ticket) -> Option<Ticket> {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.running.remove(&ticket)?;
        let mut running_of = BTreeMap::<AgentSessionId, usize>::new();
        for holder in self.running.values() {
            *running_of.entry(holder.agent).or_default() += 1;
        }
        let load = |(index, (_, holder)): &(usize, &(Ticket, Holder))| {
            (running_of.get(&holder.agent).copied().unwrap_or(0), *index)
        };
        let (index, _) = self.waiting.iter().enumerate().min_by_key(load)?;
        let (next, holder) = self.waiting.remove(index)?;
        self.running.insert(next, holder);
        Some(next)
    }

    /// Takes a grant back: it can no longer be used. Returns the jobs that use it, which have to end.
    pub fn void(&mut self, grant: GrantId) -> Vec<Ticket> {
        for epoch in &mut self.epochs {
            // Being spent already is as good.
            let _ = epoch.spend(grant);
        }
        let waiting = self.waiting.iter().copied();
        let running = self.running.iter().map(|(ticket, holder)| (*ticket, *holder));
        let using = running.chain(waiting).filter(|(_, holder)| holder.grant == grant);
        using.map(|(ticket, _)| ticket).collect()
    }

    /// Returns the grants in use, those of waiting jobs included.
    pub fn grants(&self) -> Vec<GrantId> {
        let waiting = self.waiting.iter().map(|(_, holder)| holder);
        self.running
            .values()
            .chain(waiting)
            .map(|holder| holder.grant)
            .collect()
    }

    /// Returns how many jobs have a slot.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

impl Epoch {
    fn spend(&mut self, grant: GrantId) -> Result<(), Refusal> {
        if self.floor.is_some_and(|floor| grant <= floor) || !self.spent.insert(grant) {
            return Err(busy(format!("grant {grant} has been used or taken back")));
        }
        if self.spent.len() > SPENT_MAX {
            self.floor = self.spent.pop_first();
        }
        Ok(())
    }
}

fn busy(message: String) -> Refusal {
    Refusal {
        kind: RefusalKind::Busy,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const KEY: GrantKey = GrantKey([1; 32]);

    fn toolchain() -> ToolchainId {
        ToolchainId(Digest::of(b"toolchain"))
    }

    fn claim(key: &GrantKey, grant: u64, agent: u64) -> Claim {
        let (grant, agent) = (GrantId(grant), AgentSessionId(agent));
        Claim {
            grant,
            agent,
            toolchain: toolchain(),
            token: key.token(grant, agent, toolchain()).to_vec(),
        }
    }

    fn slots(count: u32) -> Slots {
        let mut slots = Slots::new(count);
        slots.new_session(KEY);
        slots
    }

    fn start(slots: &mut Slots, grant: u64, agent: u64) -> Ticket {
        match slots.admit(&claim(&KEY, grant, agent)) {
            Ok(Admission::Start(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn wait(slots: &mut Slots, grant: u64, agent: u64) -> Ticket {
        match slots.admit(&claim(&KEY, grant, agent)) {
            Ok(Admission::Wait(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn grant_serves_once_and_only_for_whom_it_was_made() {
        let mut slots = slots(4);
        start(&mut slots, 1, 7);
        assert!(slots.admit(&claim(&KEY, 1, 7)).is_err(), "used");
        assert!(slots.admit(&claim(&GrantKey([2; 32]), 2, 7)).is_err(), "forged");
        let mut stolen = claim(&KEY, 2, 7);
        stolen.agent = AgentSessionId(8);
        assert!(slots.admit(&stolen).is_err(), "stolen");
        assert!(Slots::new(1).admit(&claim(&KEY, 1, 1)).is_err(), "no session yet");
    }

    #[test]
    fn successor_waits_and_the_agent_with_fewest_running_jobs_is_next() {
        let mut slots = slots(2);
        let first = start(&mut slots, 1, 7);
        let second = start(&mut slots, 2, 7);
        let same = wait(&mut slots, 3, 7);
        let other = wait(&mut slots, 4, 8);
        assert!(slots.admit(&claim(&KEY, 5, 9)).is_err(), "enough are waiting");
        assert_eq!(slots.finished(first), Some(other));
        assert_eq!(slots.finished(second), Some(same));
        assert_eq!(slots.running(), 2);
        assert_eq!(slots.finished(other), None);
    }

    #[test]
    fn job_that_gives_up_waiting_frees_no_slot() {
        let mut slots = slots(1);
        let first = start(&mut slots, 1, 7);
        let second = wait(&mut slots, 2, 7);
        assert_eq!(slots.finished(second), None);
        assert_eq!(slots.running(), 1);
        assert_eq!(slots.finished(first), None);
        assert_eq!(slots.grants(), []);
    }

    #[test]
    fn voided_grant_is_refused_or_names_its_job() {
        let mut slots = slots(1);
        assert_eq!(slots.void(GrantId(1)), []);
        assert!(slots.admit(&claim(&KEY, 1, 7)).is_err());
        let running = start(&mut slots, 2, 7);
        let waiting = wait(&mut slots, 3, 7);
        assert_eq!(slots.void(GrantId(2)), [running]);
        assert_eq!(slots.void(GrantId(3)), [waiting]);
    }

    #[test]
    fn grants_of_the_session_before_a_reconnect_still_count() {
        let mut slots = slots(9);
        let keys = [GrantKey([2; 32]), GrantKey([3; 32])];
        slots.new_session(keys[0].clone());
        start(&mut slots, 1, 7);
        slots.new_session(keys[1].clone());
        assert!(slots.admit(&claim(&keys[0], 2, 7)).is_ok());
        assert!(slots.admit(&claim(&KEY, 3, 7)).is_err(), "two sessions ago");
    }

    #[test]
    fn memory_of_used_grants_is_bounded_and_errs_towards_refusing() {
        let mut slots = slots(1);
        for grant in 1..=2 * SPENT_MAX as u64 {
            let ticket = start(&mut slots, grant, 7);
            slots.finished(ticket);
        }
        assert_eq!(slots.epochs[0].spent.len(), SPENT_MAX);
        assert!(slots.admit(&claim(&KEY, 1, 7)).is_err());
    }

    #[test]
    fn closed_worker_starts_nothing() {
        let mut slots = slots(1);
        slots.close();
        assert!(slots.admit(&claim(&KEY, 1, 7)).is_err());
    }
}

//! Decides whether a job that arrives with a grant may start, must wait a moment, or is refused.
//!
//! The coordinator gives out no more places than there are slots, but a grant may arrive while a cancelled job is still
//! being killed; such a job waits, and among those that wait the agent with the fewest running jobs is next. Each grant
//! serves once, and only under the key of the present session, or of the last one while there is none. Then, for
//! [`REUSED_FOR`], who has had a place may also put one job after another into it: nobody is there to give places, and the
//! slots need not be idle for that. How long a job may wait is the caller's business. Invariants: never more running than
//! slots; at most as many waiting; memory is bounded whatever arrives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::ids::{AgentSessionId, CoreGroupId, GrantId};
use crate::job::{Refusal, RefusalKind};
use crate::protocol::token::{GrantKey, GrantedJob, REUSED_FOR, TokenCheck};

#[cfg(test)]
mod tests;

/// Used grants remembered by number. Grants are numbered in order and used within seconds, so older numbers than the
/// last few thousand are simply too old.
const SPENT_MAX: usize = 4096;
/// Voided grants of which the coordinator has not been told yet. It repeats what it gets no answer to.
const VOIDED_MAX: usize = 4096;

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
    /// The DNS name of the member that shows it; empty without certificates.
    pub holder: Arc<str>,
    /// The cores that the place is on.
    pub cores: CoreGroupId,
    /// What it is to be compiled with.
    pub job: GrantedJob,
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
    /// The cores that it was given; the cores that it is on, once it has a slot.
    cores: CoreGroupId,
    /// Whether its grant was taken back while it ran.
    voided: bool,
}

/// One session's grants.
#[derive(Debug)]
struct Session {
    key: GrantKey,
    spent: BTreeSet<GrantId>,
    /// Numbers up to this one count as spent.
    floor: Option<GrantId>,
    /// Those of jobs that have ended, the last ones, as many as there are slots.
    ended: VecDeque<GrantId>,
}

/// The slots of one worker.
#[derive(Debug)]
pub struct Slots {
    /// By group of cores.
    slots: Vec<u32>,
    running: BTreeMap<Ticket, Holder>,
    waiting: VecDeque<(Ticket, Holder)>,
    session: Option<Session>,
    /// Since when there has been no coordinator.
    parted: Option<Instant>,
    voided: BTreeSet<GrantId>,
    next: u64,
    closed: bool,
}

impl Slots {
    /// Starts with so many free ones on each group of cores.
    pub fn new(slots: Vec<u32>) -> Self {
        Self {
            slots,
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            session: None,
            parted: None,
            voided: BTreeSet::new(),
            next: 1,
            closed: false,
        }
    }

    /// Takes the key of a new session with the coordinator: only its grants count from now on.
    pub fn new_session(&mut self, key: GrantKey) {
        self.parted = None;
        if self.session.as_ref().is_some_and(|session| session.key == key) {
            return;
        }
        self.session = Some(Session {
            key,
            spent: BTreeSet::new(),
            floor: None,
            ended: VecDeque::new(),
        });
        self.voided.clear();
    }

    /// Takes note that there is no session with the coordinator: the last one's grants stay good.
    pub fn parted(&mut self, now: Instant) {
        self.parted.get_or_insert(now);
    }

    /// Refuses every job from now on; those that run end normally.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Checks a claim and uses its grant up.
    pub fn admit(&mut self, claim: &Claim, now: Instant) -> Result<Admission, Refusal> {
        if self.closed {
            return Err(busy("the worker is shutting down".to_owned()));
        }
        let Claim { grant, agent, .. } = *claim;
        let key_of = |session: &Session| {
            session
                .key
                .of_holder(&claim.holder)
                .verify(grant, agent, claim.job, &claim.token)
        };
        let all = self.all();
        let genuine = |session: &&mut Session| key_of(session) == TokenCheck::Genuine;
        let Some(session) = self.session.as_mut().filter(genuine) else {
            return Err(busy(format!("grant {grant} is not of this worker's present session")));
        };
        let alone = self.parted.is_some_and(|since| now < since + REUSED_FOR);
        if !(alone && session.reuse(grant)) {
            session.spend(grant)?;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let holder = Holder {
            grant,
            agent,
            cores: claim.cores,
            voided: false,
        };
        if self.running.len() < all {
            self.start(ticket, holder);
            return Ok(Admission::Start(ticket));
        }
        if self.waiting.len() >= all {
            self.ended(&holder);
            return Err(busy("all slots are in use".to_owned()));
        }
        self.waiting.push_back((ticket, holder));
        Ok(Admission::Wait(ticket))
    }

    /// Takes a job as ended, running or waiting; returns the waiting job that now has its slot.
    pub fn finished(&mut self, ticket: Ticket) -> Option<Ticket> {
        let gave_up = self.waiting.iter().position(|(waiting, _)| *waiting == ticket);
        let gave_up = gave_up.and_then(|at| self.waiting.remove(at)).map(|(_, holder)| holder);
        let ended = self.running.remove(&ticket);
        if let Some(holder) = ended.or(gave_up) {
            self.ended(&holder);
        }
        ended?;
        let mut running_of = BTreeMap::<AgentSessionId, usize>::new();
        for holder in self.running.values() {
            *running_of.entry(holder.agent).or_default() += 1;
        }
        let load = |(index, (_, holder)): &(usize, &(Ticket, Holder))| {
            (running_of.get(&holder.agent).copied().unwrap_or(0), *index)
        };
        let (index, _) = self.waiting.iter().enumerate().min_by_key(load)?;
        let (next, holder) = self.waiting.remove(index)?;
        self.start(next, holder);
        Some(next)
    }

    /// Remembers that a grant's job has ended, unless it was taken back meanwhile.
    fn ended(&mut self, holder: &Holder) {
        let all = self.all();
        if let Some(session) = self.session.as_mut().filter(|_| !holder.voided) {
            session.end(holder.grant, all);
        }
    }

    /// Gives a slot: on the cores that the job was given, or else on the fastest that have one. A grant may come before
    /// the job that it follows has left.
    fn start(&mut self, ticket: Ticket, mut holder: Holder) {
        let mut free = self.slots.clone();
        for other in self.running.values() {
            if let Some(free) = free.get_mut(usize::from(other.cores.0)) {
                *free = free.saturating_sub(1);
            }
        }
        if free.get(usize::from(holder.cores.0)).is_none_or(|free| *free == 0) {
            let fastest = free.iter().position(|free| *free > 0).unwrap_or(0);
            holder.cores = CoreGroupId(fastest as u8);
        }
        self.running.insert(ticket, holder);
    }

    /// Returns the cores that a job is on; `None` while it has no slot.
    pub fn cores(&self, ticket: Ticket) -> Option<CoreGroupId> {
        self.running.get(&ticket).map(|holder| holder.cores)
    }

    /// Takes a grant back: no job can start under it any more. One that has been admitted goes on.
    pub fn void(&mut self, grant: GrantId) {
        if let Some(session) = &mut self.session {
            // Being spent already is as good.
            let _ = session.spend(grant);
            session.ended.retain(|ended| *ended != grant);
        }
        let waiting = self.waiting.iter_mut().map(|(_, holder)| holder);
        for holder in self.running.values_mut().chain(waiting) {
            holder.voided |= holder.grant == grant;
        }
        if !self.grants().contains(&grant) && self.voided.len() < VOIDED_MAX {
            self.voided.insert(grant);
        }
    }

    /// Returns the voided grants that the coordinator has not been told of, and forgets them.
    pub fn take_voided(&mut self) -> Vec<GrantId> {
        std::mem::take(&mut self.voided).into_iter().collect()
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

    fn all(&self) -> usize {
        self.slots.iter().map(|slots| *slots as usize).sum()
    }

    /// Returns how many jobs have a slot.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

impl Session {
    fn spend(&mut self, grant: GrantId) -> Result<(), Refusal> {
        if self.floor.is_some_and(|floor| grant <= floor) || !self.spent.insert(grant) {
            return Err(busy(format!("grant {grant} has been used or taken back")));
        }
        if self.spent.len() > SPENT_MAX {
            self.floor = self.spent.pop_first();
        }
        Ok(())
    }

    /// Takes note that a grant's job has ended, if it is this session's. Only the last `most` are remembered.
    fn end(&mut self, grant: GrantId, most: usize) {
        if self.spent.contains(&grant) {
            self.ended.push_back(grant);
            if self.ended.len() > most {
                self.ended.pop_front();
            }
        }
    }

    /// Gives the place of a job that has ended to another one under the same grant; tells whether there was one.
    fn reuse(&mut self, grant: GrantId) -> bool {
        let found = self.ended.iter().position(|ended| *ended == grant);
        found.and_then(|at| self.ended.remove(at)).is_some()
    }
}

fn busy(message: String) -> Refusal {
    Refusal {
        kind: RefusalKind::Busy,
        message,
    }
}

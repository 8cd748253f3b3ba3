//! Agents: their sessions, what they wait for, and their accounts.
//!
//! Invariant: `waiting` and `granted` share no request, and an agent's account is the sum of its builds' accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::events::{Action, AgentHello, Demand, Ending, FarmView, Purpose, Want};
use super::fairness::Share;
use super::grants::GrantState;
use super::moment::Moment;
use super::queue::Ticket;
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::timers::Timer;
use super::transfer::Route;
use crate::ids::{AgentSessionId, GrantId, Name, RequestId, WorkerSessionId};
use crate::job::{Refusal, RefusalKind, Variants};

/// A connected agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub hello: AgentHello,
    pub share: Share,
    pub builds: BTreeMap<Arc<str>, Build>,
    pub waiting: BTreeMap<RequestId, Waiting>,
    /// Requests answered with a grant that has not ended.
    pub granted: BTreeMap<RequestId, GrantId>,
    /// How many wait in each scope.
    pub queued_for: BTreeMap<Scope, usize>,
    /// What is known of its ways to the workers.
    pub routes: BTreeMap<WorkerSessionId, Route>,
    /// The farm as it was last told.
    pub told: Option<FarmView>,
}

/// One build's account, kept while it wants or holds something.
#[derive(Debug)]
pub(super) struct Build {
    pub share: Share,
    pub wants: usize,
    pub slots: usize,
    pub began: Moment,
    /// The most jobs that it had under way, waiting or not.
    peak: usize,
    /// When its newest job came, and how long after the one before jobs come, on average, seconds.
    newest: Moment,
    gap_s: f64,
}

/// How many jobs a build has under way against its most, before it is taken to be running out of them, in tenths: `make
/// -jN` keeps them at N until the last is begun, but for those that it is just preparing.
const RUNNING_OUT_TENTHS: usize = 8;
/// But some builds begin with more jobs at a time than they go on with: a kernel's `make -j27` has 27 while it descends into
/// its directories and 17 from then on. So as long as jobs come no more than this much slower than they did, there are more.
const RUNNING_OUT_GAPS: f64 = 3.0;
/// Any pause shorter than that is none: messages and the client take that long.
const PAUSE_LEAST: Duration = Duration::from_millis(100);
/// Weight of the newest gap in their mean.
const GAP_NEWEST: f64 = 0.1;

impl Build {
    fn new(now: Moment) -> Self {
        Self {
            share: Share::default(),
            wants: 0,
            slots: 0,
            began: now,
            peak: 0,
            newest: now,
            gap_s: 0.0,
        }
    }

    /// Takes note that it has more under way than it had.
    fn note_more(&mut self) {
        self.peak = self.peak.max(self.wants + self.slots);
    }

    /// Takes note of a job that has come, for a place that it wants or one that was held for it.
    pub fn note_job(&mut self, now: Moment) {
        self.gap_s += GAP_NEWEST * (now.since(self.newest).as_secs_f64() - self.gap_s);
        self.newest = now;
    }

    /// Whether it seems to have no more jobs than are under way.
    pub fn is_running_out(&self, now: Moment) -> bool {
        let fewer = (self.wants + self.slots) * 10 < self.peak * RUNNING_OUT_TENTHS;
        let pause = Duration::from_secs_f64(RUNNING_OUT_GAPS * self.gap_s).max(PAUSE_LEAST);
        fewer && now.since(self.newest) > pause
    }
}

/// A want that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub scope: Scope,
    pub build: Arc<str>,
    pub ticket: Ticket,
    pub purpose: Purpose,
    pub demand: Demand,
    /// Its predicted work, or what is typical when nothing was predicted.
    pub work: Duration,
    pub avoid: Vec<Name>,
    /// The only worker that may have it, where there is one.
    pub only: Option<Name>,
    pub since: Moment,
}

impl Agent {
    /// Returns the account a build's wants are booked on; builds beyond `builds_max` share the nameless one.
    fn build_for(&mut self, build: &str, builds_max: usize, now: Moment) -> Arc<str> {
        if let Some((known, _)) = self.builds.get_key_value(build) {
            return Arc::clone(known);
        }
        let name = if self.builds.len() < builds_max { build } else { "" };
        let name: Arc<str> = name.into();
        self.builds.entry(Arc::clone(&name)).or_insert_with(|| Build::new(now));
        name
    }

    /// Returns how a build's account stands.
    pub fn share_of(&self, build: &str) -> Share {
        self.builds.get(build).map(|build| build.share).unwrap_or_default()
    }

    /// Whether it has jobs that run or wait.
    pub fn is_active(&self) -> bool {
        !self.waiting.is_empty() || !self.granted.is_empty()
    }

    /// Changes a build's account, and drops it when nothing is on it.
    pub fn with_build(&mut self, name: &str, change: impl FnOnce(&mut Build)) {
        if let Some(build) = self.builds.get_mut(name) {
            change(build);
            if build.wants == 0 && build.slots == 0 {
                self.builds.remove(name);
            }
        }
    }
}

impl Scheduler {
    pub(super) fn handle_agent_joined(&mut self, id: AgentSessionId, hello: AgentHello) {
        if self.agents.len() >= self.rules.agents_max {
            let reason = format!("{} agents are connected, no more are taken", self.agents.len());
            self.act(Action::DropAgent(id, reason));
            return;
        }
        self.agents.entry(id).or_insert_with(|| Agent {
            hello,
            share: Share::default(),
            builds: BTreeMap::new(),
            waiting: BTreeMap::new(),
            granted: BTreeMap::new(),
            queued_for: BTreeMap::new(),
            routes: BTreeMap::new(),
            told: None,
        });
        self.note_outlook();
    }

    pub(super) fn handle_agent_left(&mut self, id: AgentSessionId) {
        let Some(agent) = self.agents.get(&id) else { return };
        let waiting: Vec<RequestId> = agent.waiting.keys().copied().collect();
        let held: BTreeSet<GrantId> = agent.granted.values().copied().collect();
        for request in waiting {
            self.take_waiting(id, request);
        }
        for grant in held {
            self.abandon_grant(grant);
        }
        self.agents.remove(&id);
        self.note_outlook();
    }

    pub(super) fn handle_want(&mut self, id: AgentSessionId, want: Want) {
        let Some(agent) = self.agents.get(&id) else { return };
        let request = want.request;
        if agent.waiting.contains_key(&request) || agent.granted.contains_key(&request) {
            return;
        }
        let scope = match self.scope_for(agent, &want) {
            Ok(scope) => scope,
            Err(refusal) => return self.act(Action::Refuse(id, request, refusal)),
        };
        self.enqueue(id, want, scope);
        self.serve_arrival(scope, id, request);
        if self.is_waiting(id, request) {
            let wait = self.rules.prepare_wait.min(self.rules.queue_wait);
            self.timers.set(Timer::Want(id, request), self.now.after(wait));
            self.order_fetches(scope);
        }
    }

    /// Returns what a want may be served by, or why it had better not wait for that.
    fn scope_for(&self, agent: &Agent, want: &Want) -> Result<Scope, Refusal> {
        let refusal = |kind, message| Err(Refusal { kind, message });
        if agent.waiting.len() >= self.rules.wants_per_agent_max {
            let message = format!("{} jobs of this agent wait already", agent.waiting.len());
            return refusal(RefusalKind::Busy, message);
        }
        let toolchain = want.toolchain;
        let scope = match want.variants {
            Variants::Certified if self.supplies.contains_key(&Scope::Variants(toolchain)) => {
                Scope::Variants(toolchain)
            }
            Variants::Certified | Variants::Never => Scope::Own(toolchain),
        };
        let Some(supply) = self.supplies.get(&scope) else {
            let message = format!("toolchain {} is not known to the coordinator", toolchain.0.short());
            return refusal(RefusalKind::NoToolchain, message);
        };
        if supply.is_hopeless() && self.now >= self.settled_at {
            return Err(self.why_hopeless(scope));
        }
        if supply.is_ruled_out(&want.avoid, want.only.as_ref(), &self.names) {
            return match &want.only {
                Some(only) if want.avoid.is_empty() => Err(self.why_not_there(scope, only)),
                _ => {
                    let message = "all workers that could take this job are to be avoided";
                    refusal(RefusalKind::Busy, message.to_owned())
                }
            };
        }
        let paused = match want.purpose {
            Purpose::Job => self.refusal_for_pauses(supply, &want.avoid, want.only.as_ref()),
            Purpose::Race | Purpose::Ahead => None,
        };
        paused.map_or(Ok(scope), Err)
    }

    /// Puts a want into the queue of what may serve it.
    fn enqueue(&mut self, id: AgentSessionId, want: Want, scope: Scope) {
        let request = want.request;
        let (Some(agent), Some(supply)) = (self.agents.get_mut(&id), self.supplies.get_mut(&scope)) else {
            return;
        };
        let now = self.now;
        let build = agent.build_for(&want.build, self.rules.builds_per_agent_max, now);
        agent.with_build(&build, |build| {
            build.wants += 1;
            build.note_more();
            if want.purpose == Purpose::Job {
                build.note_job(now);
            }
        });
        let work = supply.note_want(&want);
        let ticket = Ticket::draw(request, self.arrivals, self.now, Some(work));
        self.arrivals += 1;
        supply.queue_mut(want.purpose).push(id, agent.share, &build, ticket);
        if let (Purpose::Job, Some(only)) = (want.purpose, &want.only) {
            supply.bound.insert((id, request), only.clone());
        }
        *agent.queued_for.entry(scope).or_default() += 1;
        let waiting = Waiting {
            scope,
            build,
            ticket,
            purpose: want.purpose,
            demand: want.demand,
            work,
            avoid: want.avoid,
            only: want.only,
            since: self.now,
        };
        agent.waiting.insert(request, waiting);
    }

    fn is_waiting(&self, id: AgentSessionId, request: RequestId) -> bool {
        self.agents
            .get(&id)
            .is_some_and(|agent| agent.waiting.contains_key(&request))
    }

    pub(super) fn handle_cancel(&mut self, id: AgentSessionId, request: RequestId) {
        if self.take_waiting(id, request).is_some() {
            return;
        }
        let granted = self.agents.get(&id).and_then(|agent| agent.granted.get(&request));
        if let Some(grant) = granted.copied() {
            // The grant is on its way to an agent that will not use it.
            self.handle_done(id, grant, Ending::Unused);
        }
    }

    /// Takes a want out of the queue, whatever becomes of it.
    pub(super) fn take_waiting(&mut self, id: AgentSessionId, request: RequestId) -> Option<Waiting> {
        let agent = self.agents.get_mut(&id)?;
        let waiting = agent.waiting.remove(&request)?;
        agent.with_build(&waiting.build, |build| build.wants -= 1);
        if let Some(count) = agent.queued_for.get_mut(&waiting.scope) {
            *count -= 1;
            if *count == 0 {
                agent.queued_for.remove(&waiting.scope);
            }
        }
        if let Some(supply) = self.supplies.get_mut(&waiting.scope) {
            supply.remove_want(id, &waiting);
        }
        self.note_outlook();
        self.timers.clear(Timer::Want(id, request));
        Some(waiting)
    }

    /// Changes an agent's account and that of one of its builds, and moves the agent in the queues it stands in.
    pub(super) fn book(&mut self, id: AgentSessionId, build: &str, change: impl FnOnce(&mut Share, &mut Build)) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let mut share = agent.share;
        agent.with_build(build, |build| change(&mut share, build));
        agent.share = share;
        for scope in agent.queued_for.keys() {
            if let Some(supply) = self.supplies.get_mut(scope) {
                supply.reshare(id, share);
            }
        }
    }

    pub(super) fn handle_done(&mut self, id: AgentSessionId, grant: GrantId, ending: Ending) {
        match self.grants.get(&grant) {
            Some(record) if record.agent == Some(id) => self.end_by_agent(grant, ending),
            _ => {}
        }
    }

    pub(super) fn handle_want_deadline(&mut self, id: AgentSessionId, request: RequestId) {
        let Some(agent) = self.agents.get(&id) else { return };
        let Some(waiting) = agent.waiting.get(&request) else {
            return;
        };
        let (scope, end) = (waiting.scope, waiting.since.after(self.rules.queue_wait));
        let waited = self.now.since(waiting.since).as_secs();
        let supply = self.supplies.get(&scope);
        let ready = supply.is_some_and(|supply| match &waiting.only {
            None => supply.has_ready() && !supply.is_ruled_out(&waiting.avoid, None, &self.names),
            Some(only) => self.names.get(only).is_some_and(|id| supply.ready.contains(id)),
        });
        let (kind, message) = match ready {
            true if self.now < end => return self.timers.set(Timer::Want(id, request), end),
            true => (RefusalKind::Busy, format!("no slot became free within {waited} s")),
            false => {
                let toolchain = scope.toolchain();
                let short = toolchain.0.short();
                let message = format!("no worker got toolchain {short} ready within {waited} s");
                (RefusalKind::NoToolchain, message)
            }
        };
        self.take_waiting(id, request);
        self.act(Action::Refuse(id, request, Refusal { kind, message }));
    }

    /// Detaches a grant from its agent, which will not speak of it again.
    pub(super) fn detach(&mut self, grant: GrantId) {
        let Some(record) = self.grants.get_mut(&grant) else {
            return;
        };
        let Some(id) = record.agent.take() else { return };
        let holds_slot = record.state != GrantState::Released;
        let (build, power, request) = (Arc::clone(&record.build), record.power_milli, record.request);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.granted.remove(&request);
        }
        if holds_slot {
            self.book(id, &build, |share, build| {
                share.release(power);
                build.share.release(power);
                build.slots -= 1;
            });
        }
    }
}

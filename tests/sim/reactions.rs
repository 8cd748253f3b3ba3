//! How simulated agents, workers and bad luck react to each step.

use std::time::Duration;

use rand::RngExt;
use rdcc::coordinator::events::{
    AgentHello, Demand, Drain, Effort, Ending, Event, Purpose, ToolchainNews, VoidReason, Want,
};
use rdcc::ids::{AgentSessionId, GrantId, RequestId, ToolchainId, WorkerSessionId};
use rdcc::job::{RefusalKind, RunReport};

use super::agent::{JobState, SimJob};
use super::config::Loose;
use super::worker::{Have, Shown};
use super::world::{Answer, Order, Step, Word, World};

/// Attempts after which an agent runs a job locally.
const ATTEMPTS_MAX: u32 = 12;

impl World {
    pub fn take(&mut self, step: Step) {
        match step {
            Step::AtCoordinator(event) => self.at_coordinator(event),
            Step::AtAgent(agent, session, word) => {
                if self.agents[agent].session == Some(session) && !self.cut.contains(&session.0) {
                    self.agent_hears(agent, word);
                }
            }
            Step::AtWorker(worker, session, order) => {
                if self.workers[worker].session == Some(session) && !self.cut.contains(&session.0) {
                    self.worker_hears(worker, session, order);
                }
            }
            Step::AgentConnects(agent) => self.agent_connects(agent),
            Step::WorkerConnects(worker) => self.worker_connects(worker),
            Step::AgentSeesCut(agent, session) => self.agent_sees_cut(agent, session),
            Step::WorkerSeesCut(worker, session) => self.worker_sees_cut(worker, session),
            Step::AgentAsks(agent) => self.agent_asks(agent),
            Step::AgentShows(agent, request, grant) => {
                if self.job_state(agent, request) == Some(JobState::Granted(grant.grant)) {
                    self.set_job_state(agent, request, JobState::Shown(grant.grant));
                    if grant.purpose == Purpose::Ahead
                        && let Some(session) = self.agents[agent].session
                    {
                        self.send_up(session.0, Event::GrantUsed(session, grant.grant, Demand::default()));
                    }
                    let wait = self.delay();
                    self.after(wait, Step::Shown(agent, request, grant));
                }
            }
            Step::AgentGivesBack(agent, request, grant) => {
                if self.job_state(agent, request) == Some(JobState::Granted(grant)) {
                    self.agent_says_done(agent, grant, Ending::Unused);
                    self.try_again(agent, request);
                }
            }
            Step::AgentLosesPatience(agent, request) => self.agent_loses_patience(agent, request),
            Step::Shown(agent, request, grant) => self.shown(agent, request, grant),
            Step::JobEnds(worker, grant, run) => self.job_ends(worker, grant, run),
            Step::Answer(agent, request, grant, answer) => self.agent_answered(agent, request, grant, answer),
            Step::Report(worker) => self.report(worker),
            Step::Fetched(worker, toolchain) => self.fetched(worker, toolchain),
            Step::Accident => self.accident(),
            Step::CoordinatorStarts => self.start_coordinator(),
            Step::WorkerStarts(worker) => {
                self.workers[worker].alive = true;
                self.after(Duration::ZERO, Step::WorkerConnects(worker));
                self.after(Duration::from_secs(1), Step::Report(worker));
            }
            Step::DrainOff(name) => {
                let known = self
                    .scheduler
                    .as_ref()
                    .is_some_and(|scheduler| scheduler.knows_worker(&name));
                match known {
                    true => self.tell_scheduler(Event::DrainSet(name, Drain::Off)),
                    // The administrator is told that there is no such worker now, and tries again.
                    false => self.after(Duration::from_secs(1), Step::DrainOff(name)),
                }
            }
            Step::Recertify => self.recertify(),
            Step::ToolchainPushed(toolchain) => {
                self.known.insert(toolchain);
                self.tell_scheduler(Event::ToolchainAdded(toolchain, self.kind_of(toolchain)));
                self.tell_stand_ins();
            }
        }
    }

    /// An event arrives, unless its connection broke before. The end of a connection always arrives.
    fn at_coordinator(&mut self, event: Event) {
        let session = match &event {
            Event::AgentJoined(id, _) | Event::Want(id, _) => id.0,
            Event::CancelWant(id, _) | Event::GrantDone(id, ..) | Event::GrantUsed(id, ..) => id.0,
            Event::Accused(id, ..) => id.0,
            Event::WorkerJoined(id, _) | Event::WorkerLoad(id, _) | Event::WorkerToolchain(id, ..) => id.0,
            Event::AgentLeft(_) | Event::WorkerLeft(_) | Event::DrainSet(..) => 0,
            Event::ToolchainAdded(..)
            | Event::ToolchainRemoved(_)
            | Event::StandIns(_)
            | Event::SpeedsKept(_)
            | Event::QuarantineKept(_)
            | Event::Tick => 0,
        };
        if self.cut.contains(&session) {
            return;
        }
        let joined = match &event {
            Event::WorkerJoined(id, _) => Some(*id),
            _ => None,
        };
        if let Some(id) = joined {
            self.send_to_worker(id, Order::Welcome);
        }
        self.tell_scheduler(event);
    }

    // ---- agents

    fn agent_connects(&mut self, agent: usize) {
        if self.scheduler.is_none() {
            return self.after(Duration::from_millis(300), Step::AgentConnects(agent));
        }
        self.sessions += 1;
        let session = AgentSessionId(self.sessions);
        self.agents[agent].session = Some(session);
        let hello = AgentHello {
            host: format!("host{agent}"),
            user: "u".into(),
            pid: 1,
        };
        // The handshake is part of connecting, so it is neither lost nor overtaken.
        self.tell_scheduler(Event::AgentJoined(session, hello));
        let jobs = self.agents[agent].jobs.iter();
        let wanted = jobs.filter(|(_, (_, state))| matches!(state, JobState::Wanted(_)));
        let wanted: Vec<RequestId> = wanted.map(|(request, _)| *request).collect();
        wanted.into_iter().for_each(|request| self.try_again(agent, request));
        self.agent_asks(agent);
    }

    fn agent_sees_cut(&mut self, agent: usize, session: AgentSessionId) {
        if self.agents[agent].session == Some(session) {
            self.agents[agent].session = None;
            let wait = self.random_wait(50, 2_000);
            self.after(wait, Step::AgentConnects(agent));
        }
    }

    fn agent_asks(&mut self, agent: usize) {
        let parallel = if self.lone_agent == Some(agent) {
            1
        } else {
            self.config.parallel
        };
        while self.agents[agent].session.is_some() && self.agents[agent].jobs.len() < parallel {
            let Some(job) = self.agents[agent].todo.pop() else {
                return;
            };
            self.ask(agent, job);
        }
    }

    fn ask(&mut self, agent: usize, job: SimJob) {
        let request = RequestId(self.agents[agent].next_request);
        self.agents[agent].next_request += 1;
        let state = JobState::Wanted(self.now);
        self.agents[agent].jobs.insert(request, (job, state));
        if self.config.loose == Loose::Yes {
            self.after(Duration::from_secs(40), Step::AgentLosesPatience(agent, request));
        }
        let purpose = match (self.mishap(0.2), self.mishap(0.05)) {
            (true, _) => Purpose::Ahead,
            (_, true) => Purpose::Race,
            _ => Purpose::Job,
        };
        let mut some_worker = |probability| {
            let happens = self.mishap(probability);
            happens.then(|| {
                let index = self.random.random_range(0..self.workers.len());
                self.workers[index].name.clone()
            })
        };
        let avoid = some_worker(0.05).into_iter().collect();
        let only = some_worker(0.05);
        if let Some(session) = self.agents[agent].session {
            let want = Want {
                request,
                toolchain: job.toolchain,
                variants: job.variants,
                build: format!("b{}", request.0 % 2),
                purpose,
                demand: Demand {
                    work: self.config.predicted.then_some(job.work),
                    ..Demand::default()
                },
                avoid,
                only,
            };
            self.send_up(session.0, Event::Want(session, want));
        }
    }

    /// Asks again for a job under a new number, or gives it up for local.
    fn try_again(&mut self, agent: usize, request: RequestId) {
        let Some((mut job, _)) = self.agents[agent].jobs.remove(&request) else {
            return;
        };
        job.attempts += 1;
        if job.attempts > ATTEMPTS_MAX {
            self.agents[agent].local += 1;
            return self.after(Duration::ZERO, Step::AgentAsks(agent));
        }
        self.ask(agent, job);
    }

    fn agent_loses_patience(&mut self, agent: usize, request: RequestId) {
        let session = self.agents[agent].session;
        match (self.job_state(agent, request), session) {
            (Some(JobState::Wanted(_)), Some(session)) => {
                self.send_up(session.0, Event::CancelWant(session, request));
                self.try_again(agent, request);
            }
            (Some(JobState::Granted(grant)), _) => {
                self.agent_says_done(agent, grant, Ending::Unused);
                self.try_again(agent, request);
            }
            _ => {}
        }
    }

    fn agent_hears(&mut self, agent: usize, word: Word) {
        match word {
            Word::Grant(grant) => {
                let Some(JobState::Wanted(since)) = self.job_state(agent, grant.request) else {
                    // A second grant for a request: from a doubled message, and given back.
                    let known = self.agents[agent].holder(grant.grant).is_some();
                    if !known {
                        self.agent_says_done(agent, grant.grant, Ending::Unused);
                    }
                    return;
                };
                let waited = self.now - since;
                self.agents[agent].longest_wait = self.agents[agent].longest_wait.max(waited);
                self.set_job_state(agent, grant.request, JobState::Granted(grant.grant));
                // It knows how long a grant is good for, whatever it hears.
                let patience = Duration::from_secs(25);
                self.after(patience, Step::AgentLosesPatience(agent, grant.request));
                let odd = self.config.odd_agents;
                if self.mishap(odd) {
                    match self.random.random_range(0..3) {
                        0 => self.after(
                            Duration::from_millis(5),
                            Step::AgentGivesBack(agent, grant.request, grant.grant),
                        ),
                        1 => {
                            let wait = self.random_wait(8_000, 12_000);
                            self.after(wait, Step::AgentShows(agent, grant.request, grant));
                        }
                        _ => {}
                    }
                } else {
                    self.after(Duration::ZERO, Step::AgentShows(agent, grant.request, grant));
                }
            }
            Word::Refused(request) => {
                if matches!(self.job_state(agent, request), Some(JobState::Wanted(_))) {
                    self.agents[agent].jobs.remove(&request);
                    self.agents[agent].local += 1;
                    self.agent_asks(agent);
                }
            }
            Word::Void(grant, reason) => {
                if let Some(request) = self.agents[agent].holder(grant)
                    && self.job_state(agent, request) == Some(JobState::Granted(grant))
                {
                    if reason == VoidReason::Recalled {
                        self.agent_says_done(agent, grant, Ending::Unused);
                    }
                    self.try_again(agent, request);
                }
            }
        }
    }

    fn agent_answered(&mut self, agent: usize, request: RequestId, grant: GrantId, answer: Answer) {
        if self.job_state(agent, request) != Some(JobState::Shown(grant)) {
            return;
        }
        match answer {
            Answer::Ran => {
                self.agents[agent].jobs.remove(&request);
                self.agents[agent].ran += 1;
                self.agent_says_done(agent, grant, Ending::Ran(RunReport::default()));
                self.agent_asks(agent);
            }
            Answer::Refused(kind) => {
                self.agent_says_done(agent, grant, Ending::Refused(kind));
                self.try_again(agent, request);
            }
            Answer::Broken => {
                self.agent_says_done(agent, grant, Ending::Fault);
                self.try_again(agent, request);
            }
        }
    }

    fn agent_says_done(&mut self, agent: usize, grant: GrantId, ending: Ending) {
        if let Some(session) = self.agents[agent].session {
            self.send_up(session.0, Event::GrantDone(session, grant, ending));
        }
    }

    fn job_state(&self, agent: usize, request: RequestId) -> Option<JobState> {
        self.agents[agent].jobs.get(&request).map(|(_, state)| *state)
    }

    fn set_job_state(&mut self, agent: usize, request: RequestId, state: JobState) {
        if let Some((_, now)) = self.agents[agent].jobs.get_mut(&request) {
            *now = state;
        }
    }

    // ---- workers

    fn worker_connects(&mut self, index: usize) {
        let down = self.scheduler.is_none();
        let worker = &mut self.workers[index];
        if !worker.alive || worker.session.is_some() {
            return;
        }
        if down || worker.hung_until > self.now {
            return self.after(Duration::from_millis(300), Step::WorkerConnects(index));
        }
        self.sessions += 1;
        let session = WorkerSessionId(self.sessions);
        worker.session = Some(session);
        worker.shaking_hands = true;
        worker.report = 0;
        let hello = worker.hello();
        let wait = self.delay();
        self.after(wait, Step::AtCoordinator(Event::WorkerJoined(session, hello)));
        // Without a welcome the connection is given up.
        self.after(Duration::from_secs(20), Step::WorkerSeesCut(index, session));
    }

    fn worker_sees_cut(&mut self, index: usize, session: WorkerSessionId) {
        let worker = &mut self.workers[index];
        let broken = self.cut.contains(&session.0) || worker.shaking_hands;
        if worker.session == Some(session) && broken {
            self.cut.insert(session.0);
            worker.session = None;
            worker.shaking_hands = false;
            let wait = self.random_wait(50, 2_000);
            self.after(wait, Step::WorkerConnects(index));
            let noticed = self.random_wait(0, 12_000);
            self.after(noticed, Step::AtCoordinator(Event::WorkerLeft(session)));
        }
    }

    fn worker_hears(&mut self, index: usize, session: WorkerSessionId, order: Order) {
        let worker = &mut self.workers[index];
        match order {
            Order::Welcome => {
                worker.key = Some(session);
                worker.shaking_hands = false;
            }
            Order::Void(grant) => worker.void(grant),
            Order::Drain(drain) => worker.drain = drain,
            Order::Prepare(toolchain, effort) => match (effort, worker.toolchains.get(&toolchain)) {
                (Effort::Fetch, Some(Have::AfterFetch(time, _))) => {
                    let time = *time;
                    self.after(time, Step::Fetched(index, toolchain));
                }
                _ => {
                    let news = worker.news(toolchain);
                    self.send_up(session.0, Event::WorkerToolchain(session, toolchain, news));
                }
            },
        }
    }

    fn fetched(&mut self, index: usize, toolchain: ToolchainId) {
        let worker = &mut self.workers[index];
        let Some(have) = worker.toolchains.get_mut(&toolchain) else {
            return;
        };
        let news = match have {
            Have::AfterFetch(time, failures) if *failures > 0 => {
                *have = Have::AfterFetch(*time, *failures - 1);
                ToolchainNews::Failed("disk full".into())
            }
            Have::AfterFetch(..) | Have::Ready => {
                *have = Have::Ready;
                ToolchainNews::Bundle
            }
            Have::Never => return,
        };
        if let Some(session) = worker.session {
            self.send_up(session.0, Event::WorkerToolchain(session, toolchain, news));
        }
    }

    fn report(&mut self, index: usize) {
        if !self.workers[index].alive {
            return;
        }
        self.after(Duration::from_secs(1), Step::Report(index));
        let worker = &mut self.workers[index];
        if worker.hung_until > self.now || worker.shaking_hands {
            return;
        }
        if let Some(session) = worker.session {
            let report = worker.report();
            self.send_up(session.0, Event::WorkerLoad(session, report));
        }
    }

    fn shown(&mut self, agent: usize, request: RequestId, grant: rdcc::coordinator::events::Grant) {
        let id = grant.grant;
        let keyed = |worker: &super::worker::SimWorker| worker.key == Some(grant.worker);
        let index = self.workers.iter().position(keyed);
        let wait = self.delay();
        let odd = self.config.odd_agents;
        let broken = self.mishap(odd / 2.0);
        let refuses = self.mishap(odd / 2.0);
        // A worker whose key has changed declines; one that is gone or hangs does not answer.
        let Some(index) = index else {
            return self.after(
                wait,
                Step::Answer(agent, request, id, Answer::Refused(RefusalKind::Busy)),
            );
        };
        if self.workers[index].hung_until > self.now {
            return self.after(wait, Step::Answer(agent, request, id, Answer::Broken));
        }
        if refuses {
            self.workers[index].used.insert(id);
            return self.after(
                wait,
                Step::Answer(agent, request, id, Answer::Refused(RefusalKind::Busy)),
            );
        }
        self.runs += 1;
        let run = self.runs;
        let refused = |kind| Step::Answer(agent, request, id, Answer::Refused(kind));
        let tool = grant.run_as.map_or(grant.toolchain, |run_as| run_as.toolchain);
        if grant.run_as.is_some() && self.mishap(odd) {
            self.workers[index].used.insert(id);
            return self.after(wait, refused(RefusalKind::Uncertified));
        }
        match self.workers[index].show(id, grant.worker, tool, run) {
            Shown::Starts => {
                self.ran_on_variants += usize::from(grant.run_as.is_some());
                let (job, _) = self.agents[agent].jobs[&request];
                let power = f64::from(self.workers[index].power_milli) / 1000.0;
                let time = job.work.div_f64(power);
                // A link that breaks ends the job there, some time before its end.
                let ends = if broken { time.div_f64(2.0) } else { time };
                self.after(ends, Step::JobEnds(index, id, run));
                if broken {
                    self.after(ends.div_f64(2.0), Step::Answer(agent, request, id, Answer::Broken));
                }
            }
            Shown::Refused => self.after(wait, refused(RefusalKind::Busy)),
            Shown::NoToolchain => self.after(wait, refused(RefusalKind::NoToolchain)),
            Shown::Oversold => {
                let name = &self.workers[index].name;
                self.broken
                    .push(format!("{name} was sold twice: no slot for grant {id}"));
            }
        }
    }

    fn job_ends(&mut self, index: usize, grant: GrantId, run: usize) {
        let worker = &mut self.workers[index];
        if worker.running.get(&grant) != Some(&run) {
            return;
        }
        worker.running.remove(&grant);
        let holder = (0..self.agents.len()).find_map(|agent| {
            let request = self.agents[agent].holder(grant)?;
            Some((agent, request))
        });
        if let Some((agent, request)) = holder {
            let wait = self.delay();
            self.after(wait, Step::Answer(agent, request, grant, Answer::Ran));
        }
    }

    // ---- bad luck

    fn accident(&mut self) {
        if self.now >= self.config.calm_after {
            return;
        }
        let mean = 60.0 / self.config.accidents_per_minute;
        let wait = Duration::from_secs_f64(self.random.random_range(0.0..2.0 * mean));
        self.after(wait, Step::Accident);
        let worker = self.random.random_range(0..self.workers.len());
        let agent = self.random.random_range(0..self.agents.len());
        match self.random.random_range(0..10) {
            0 => self.crash_worker(worker),
            1 => {
                if let Some(session) = self.workers[worker].session {
                    self.cut_worker(session);
                }
            }
            2 => {
                if let Some(session) = self.agents[agent].session {
                    self.cut_agent(session);
                }
            }
            3 => {
                if self.scheduler.is_some() {
                    self.crash_coordinator();
                }
            }
            4 => self.workers[worker].hung_until = self.now + self.random_wait(1_000, 20_000),
            5 => {
                let name = self.workers[worker].name.clone();
                self.tell_scheduler(Event::DrainSet(name.clone(), Drain::On));
                let wait = self.random_wait(100, 20_000);
                self.after(wait, Step::DrainOff(name));
            }
            6 => self.evict(worker),
            7 => self.remove_and_push(),
            8 => {
                let name = self.workers[worker].name.clone();
                if let Some(session) = self.agents[agent].session {
                    let accused = Event::Accused(session, name.clone(), "other bits".into());
                    self.send_up(session.0, accused);
                }
                let wait = self.random_wait(100, 20_000);
                self.after(wait, Step::DrainOff(name));
            }
            _ => self.restart_worker_twice(worker),
        }
    }

    fn crash_worker(&mut self, index: usize) {
        if !self.workers[index].alive {
            return;
        }
        for grant in self.workers[index].running.keys().copied().collect::<Vec<_>>() {
            for agent in 0..self.agents.len() {
                if let Some(request) = self.agents[agent].holder(grant) {
                    let wait = self.random_wait(0, 3_000);
                    self.after(wait, Step::Answer(agent, request, grant, Answer::Broken));
                }
            }
        }
        if let Some(session) = self.workers[index].session {
            self.cut_worker(session);
        }
        self.workers[index].crash();
        let wait = self.random_wait(100, 20_000);
        self.after(wait, Step::WorkerStarts(index));
    }

    /// The worker's connection breaks and it is back before the coordinator notices.
    fn restart_worker_twice(&mut self, index: usize) {
        if let Some(session) = self.workers[index].session {
            self.cut.insert(session.0);
            self.worker_sees_cut(index, session);
        }
    }

    fn evict(&mut self, index: usize) {
        let random = self.random_wait(100, 5_000);
        let told = self.random.random_bool(0.5);
        let worker = &mut self.workers[index];
        let ready = worker.toolchains.iter_mut().find(|(_, have)| **have == Have::Ready);
        let Some((toolchain, have)) = ready else { return };
        let toolchain = *toolchain;
        *have = Have::AfterFetch(random, 0);
        if let (Some(session), true) = (worker.session, told) {
            self.send_up(
                session.0,
                Event::WorkerToolchain(session, toolchain, ToolchainNews::Fetchable),
            );
        }
    }

    fn remove_and_push(&mut self) {
        let Some(toolchain) = self.known.pop_first() else {
            return;
        };
        self.tell_scheduler(Event::ToolchainRemoved(toolchain));
        self.tell_stand_ins();
        let wait = self.random_wait(100, 5_000);
        self.after(wait, Step::ToolchainPushed(toolchain));
    }
}

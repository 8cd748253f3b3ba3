//! The simulated farm: what is on its way, when it arrives, and what goes wrong.
//!
//! One ordered list of steps to come; each is taken at its time and may put others on the list. All chance comes from
//! one seeded generator, so a seed is a whole history. How agents and workers react is in `reactions.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdcc::coordinator::events::{Action, CoreGroup, Drain, Effort, Event, Grant, VoidReason};
use rdcc::coordinator::moment::Moment;
use rdcc::coordinator::quarantine::Quarantine;
use rdcc::coordinator::rules::Rules;
use rdcc::coordinator::scheduler::Scheduler;
use rdcc::digest::Digest;
use rdcc::ids::{AgentSessionId, GrantId, Name, RequestId, ToolchainId, WorkerSessionId};
use rdcc::job::RefusalKind;

use super::agent::{SimAgent, SimJob};
use super::config::{Config, Loose};
use super::variants::kind;
use super::worker::{Have, SimWorker};

/// Something that will happen.
#[derive(Debug, Clone)]
pub enum Step {
    AtCoordinator(Event),
    AtAgent(usize, AgentSessionId, Word),
    AtWorker(usize, WorkerSessionId, Order),
    AgentConnects(usize),
    WorkerConnects(usize),
    AgentSeesCut(usize, AgentSessionId),
    WorkerSeesCut(usize, WorkerSessionId),
    AgentAsks(usize),
    AgentShows(usize, RequestId, Grant),
    AgentGivesBack(usize, RequestId, GrantId),
    AgentLosesPatience(usize, RequestId),
    Shown(usize, RequestId, Grant),
    JobEnds(usize, GrantId, usize),
    Answer(usize, RequestId, GrantId, Answer),
    Report(usize),
    Fetched(usize, ToolchainId),
    Accident,
    CoordinatorStarts,
    WorkerStarts(usize),
    ToolchainPushed(ToolchainId),
    Recertify,
    DrainOff(Name),
}

/// What the coordinator tells an agent.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    Grant(Grant),
    Refused(RequestId),
    Void(GrantId, VoidReason),
}

/// What the coordinator tells a worker.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Welcome,
    Void(GrantId),
    Prepare(ToolchainId, Effort),
    Drain(Drain),
}

/// What a worker tells an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Ran,
    Refused(RefusalKind),
    Broken,
}

/// The farm.
#[derive(Debug)]
pub struct World {
    pub config: Config,
    pub random: ChaCha8Rng,
    pub now: Duration,
    pub scheduler: Option<Scheduler>,
    pub agents: Vec<SimAgent>,
    pub workers: Vec<SimWorker>,
    pub known: BTreeSet<ToolchainId>,
    /// As the coordinator has it on disk.
    pub quarantine: Quarantine,
    /// Pairs of toolchains of which the second may stand in for the first, by number.
    pub certified: BTreeSet<(usize, usize)>,
    /// Promises that were seen broken.
    pub broken: Vec<String>,
    pub runs: usize,
    pub ran_on_variants: usize,
    /// An agent that asks for one place at a time.
    pub lone_agent: Option<usize>,
    steps: BTreeMap<(Duration, u64), Step>,
    next_step: u64,
    started: Duration,
    life: u32,
    pub sessions: u64,
    /// Sessions whose connection is gone, whoever has noticed.
    pub cut: BTreeSet<u64>,
    /// When the last message of a session and direction arrives.
    last_arrival: BTreeMap<(u64, Direction), Duration>,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Up,
    Down,
}

pub fn toolchain(number: usize) -> ToolchainId {
    ToolchainId(Digest::of(format!("toolchain {number}").as_bytes()))
}

impl World {
    pub fn new(config: Config, seed: u64) -> Self {
        let mut world = Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            now: Duration::ZERO,
            scheduler: None,
            agents: Vec::new(),
            workers: Vec::new(),
            known: BTreeSet::new(),
            quarantine: Quarantine::default(),
            certified: BTreeSet::new(),
            broken: Vec::new(),
            runs: 0,
            ran_on_variants: 0,
            lone_agent: None,
            steps: BTreeMap::new(),
            next_step: 0,
            started: Duration::ZERO,
            life: 0,
            sessions: 0,
            cut: BTreeSet::new(),
            last_arrival: BTreeMap::new(),
            config,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        let config = self.config.clone();
        for number in 0..config.toolchains {
            // The first is there from the start, the others are pushed on the way.
            match number {
                0 => drop(self.known.insert(toolchain(0))),
                _ => {
                    let wait = self.random_wait(0, 20_000);
                    self.after(wait, Step::ToolchainPushed(toolchain(number)));
                }
            }
        }
        for number in 0..config.workers {
            let slots = self.random.random_range(config.slots.0..=config.slots.1);
            let power_milli = self.random.random_range(config.power_milli.0..=config.power_milli.1);
            let here = |t: &usize| kind(*t, config.kinds) == kind(number, config.kinds);
            let toolchains = (0..config.toolchains).filter(here);
            let toolchains = toolchains.map(|t| (toolchain(t), self.random_have()));
            let toolchains = toolchains.collect();
            self.workers.push(SimWorker {
                name: Name::new(&format!("w{number}")).expect("a name"),
                host_kind: kind(number, config.kinds),
                slots,
                power_milli,
                cores: if config.unlike_cores {
                    unlike_cores(slots, power_milli)
                } else {
                    Vec::new()
                },
                alive: true,
                session: None,
                key: None,
                shaking_hands: false,
                hung_until: Duration::ZERO,
                report: 0,
                running: BTreeMap::new(),
                used: BTreeSet::new(),
                voided: BTreeSet::new(),
                to_acknowledge: BTreeSet::new(),
                toolchains,
                drain: Drain::Off,
            });
            self.after(Duration::ZERO, Step::WorkerStarts(number));
            // An order to resume that was lost with a connection just before the coordinator was lost too is forgotten
            // by both; the administrator sees it and gives it again.
            if config.accidents_per_minute > 0.0 {
                let name = self.workers[number].name.clone();
                self.after(config.calm_after + Duration::from_secs(40), Step::DrainOff(name));
            }
        }
        for number in 0..config.agents {
            let todo = (0..config.jobs_per_agent).map(|_| self.random_job()).collect();
            self.agents.push(SimAgent::new(todo));
            let wait = self.random_wait(0, 100);
            self.after(wait, Step::AgentConnects(number));
        }
        self.after(Duration::ZERO, Step::CoordinatorStarts);
        if config.kinds > 1 {
            self.after(Duration::ZERO, Step::Recertify);
        }
        if config.accidents_per_minute > 0.0 {
            self.after(Duration::ZERO, Step::Accident);
        }
    }

    fn random_have(&mut self) -> Have {
        if !self.random.random_bool(self.config.not_ready) {
            return Have::Ready;
        }
        match self.random.random_range(0..4) {
            0 => Have::Never,
            failures => Have::AfterFetch(self.random_wait(100, 20_000), failures - 1),
        }
    }

    fn random_job(&mut self) -> SimJob {
        let (least, most) = self.config.work_ms;
        SimJob {
            toolchain: toolchain(self.random.random_range(0..self.config.toolchains)),
            variants: self.random_variants(),
            work: self.random_wait(least, most),
            attempts: 0,
        }
    }

    pub fn random_wait(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_micros(self.random.random_range(least_ms * 1000..=most_ms * 1000))
    }

    pub fn delay(&mut self) -> Duration {
        let (least, most) = self.config.delay_ms;
        self.random_wait(least, most)
    }

    /// Returns whether something that happens in this share of cases happens now. Never when all is calm.
    pub fn mishap(&mut self, share: f64) -> bool {
        self.now < self.config.calm_after && self.random.random_bool(share)
    }

    pub fn after(&mut self, wait: Duration, step: Step) {
        self.steps.insert((self.now + wait, self.next_step), step);
        self.next_step += 1;
    }

    /// Takes the next step, or lets the scheduler's deadline pass. Returns false when nothing is left to come.
    pub fn advance(&mut self) -> bool {
        let deadline = self.scheduler.as_ref().and_then(Scheduler::next_deadline);
        let deadline = deadline.map(|at| self.started + at.since(Moment::START));
        let next = self.steps.first_key_value().map(|((at, _), _)| *at);
        match (deadline, next) {
            (Some(deadline), next) if next.is_none_or(|next| deadline <= next) => {
                self.now = self.now.max(deadline);
                self.tell_scheduler(Event::Tick);
            }
            (_, None) => return false,
            (_, Some(_)) => {
                let Some(((at, _), step)) = self.steps.pop_first() else {
                    return false;
                };
                self.now = at;
                self.take(step);
            }
        }
        true
    }

    /// Sends an event up a session.
    pub fn send_up(&mut self, session: u64, event: Event) {
        self.send(session, Direction::Up, Step::AtCoordinator(event));
    }

    fn send(&mut self, session: u64, direction: Direction, step: Step) {
        let loose = self.config.loose == Loose::Yes;
        if loose && self.mishap(0.03) {
            return;
        }
        let copies = if loose && self.mishap(0.03) { 2 } else { 1 };
        for _ in 0..copies {
            let mut arrival = self.now + self.delay();
            if !loose {
                let last = self.last_arrival.entry((session, direction)).or_default();
                arrival = arrival.max(*last);
                *last = arrival;
            }
            self.after(arrival - self.now, step.clone());
        }
    }

    /// Hands an event to the scheduler and carries out what it wants.
    pub fn tell_scheduler(&mut self, event: Event) {
        let moment = Moment::at(self.now - self.started);
        let Some(scheduler) = &mut self.scheduler else { return };
        let actions = scheduler.handle(event, moment);
        if scheduler.next_deadline().is_some_and(|at| at <= moment) {
            self.broken.push("a deadline was passed over".to_owned());
        }
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        self.check_granted(&action);
        match action {
            Action::Grant(grant) => self.send_to_agent(grant.agent, Word::Grant(grant)),
            Action::Refuse(agent, request, _) => self.send_to_agent(agent, Word::Refused(request)),
            Action::VoidAtAgent(agent, grant, reason) => {
                assert_ne!(reason, VoidReason::Returned, "agents know what they gave back");
                self.send_to_agent(agent, Word::Void(grant, reason));
            }
            Action::TellFarm(..) => {}
            Action::VoidAtWorker(worker, grant, _) => self.send_to_worker(worker, Order::Void(grant)),
            Action::Prepare(worker, toolchain, effort) => {
                self.send_to_worker(worker, Order::Prepare(toolchain, effort));
            }
            Action::Drain(worker, drain) => self.send_to_worker(worker, Order::Drain(drain)),
            Action::KeepQuarantine => {
                let scheduler = self.scheduler.as_ref().expect("it acts");
                self.quarantine = scheduler.quarantine().clone();
            }
            Action::DropAgent(agent, _) => self.cut_agent(agent),
            Action::DropWorker(worker, _) => self.cut_worker(worker),
        }
    }

    fn send_to_agent(&mut self, session: AgentSessionId, word: Word) {
        if let Some(index) = self.agents.iter().position(|agent| agent.session == Some(session)) {
            self.send(session.0, Direction::Down, Step::AtAgent(index, session, word));
        }
    }

    pub fn send_to_worker(&mut self, session: WorkerSessionId, order: Order) {
        let holder = |worker: &SimWorker| worker.session == Some(session);
        if let Some(index) = self.workers.iter().position(holder) {
            self.send(session.0, Direction::Down, Step::AtWorker(index, session, order));
        }
    }

    /// Breaks an agent's connection; each side notices in its own time.
    pub fn cut_agent(&mut self, session: AgentSessionId) {
        self.cut.insert(session.0);
        let wait = self.random_wait(0, 12_000);
        self.after(wait, Step::AtCoordinator(Event::AgentLeft(session)));
        if let Some(index) = self.agents.iter().position(|agent| agent.session == Some(session)) {
            let wait = self.random_wait(0, 3_000);
            self.after(wait, Step::AgentSeesCut(index, session));
        }
    }

    /// Breaks a worker's connection; each side notices in its own time.
    pub fn cut_worker(&mut self, session: WorkerSessionId) {
        self.cut.insert(session.0);
        let wait = self.random_wait(0, 12_000);
        self.after(wait, Step::AtCoordinator(Event::WorkerLeft(session)));
        let holder = |worker: &SimWorker| worker.session == Some(session);
        if let Some(index) = self.workers.iter().position(holder) {
            let wait = self.random_wait(0, 3_000);
            self.after(wait, Step::WorkerSeesCut(index, session));
        }
    }

    pub fn start_coordinator(&mut self) {
        self.life += 1;
        self.started = self.now;
        let seed = self.random.random();
        self.scheduler = Some(Scheduler::new(Rules::default(), self.life, seed, Moment::START));
        for toolchain in self.known.clone() {
            self.tell_scheduler(Event::ToolchainAdded(toolchain, self.kind_of(toolchain)));
        }
        self.tell_stand_ins();
        self.tell_scheduler(Event::QuarantineKept(self.quarantine.clone()));
    }

    /// Stops the coordinator without a word; it starts again after a while.
    pub fn crash_coordinator(&mut self) {
        self.scheduler = None;
        let agents: Vec<_> = self.agents.iter().filter_map(|agent| agent.session).collect();
        let workers: Vec<_> = self.workers.iter().filter_map(|worker| worker.session).collect();
        agents.into_iter().for_each(|session| self.cut_agent(session));
        workers.into_iter().for_each(|session| self.cut_worker(session));
        let wait = self.random_wait(100, 8_000);
        self.after(wait, Step::CoordinatorStarts);
    }
}

/// Cores of different speed, on two machines of three.
fn unlike_cores(slots: u32, power_milli: u32) -> Vec<CoreGroup> {
    if slots < 2 || power_milli.is_multiple_of(3) {
        return Vec::new();
    }
    let group = |slots, power_milli| CoreGroup { slots, power_milli };
    vec![group(1, 2 * power_milli), group(slots - 1, power_milli / 2)]
}

//! The one task that owns the scheduler and reads the clock: takes the next event, applies it, performs the actions.
//!
//! Sessions are channels here: handlers send in what they decoded and get out what to encode. Nobody waits for a slow
//! session: one whose channel is full is ended, and its peer comes back when it can. Invariant: only this task touches
//! the scheduler, so there is no lock and no order to remember.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::events::{Action, AgentHello, Drain, Event, Grant, HostKind, StandIns, WorkerHello};
use super::kept_files::KeptFiles;
use super::kept_speeds::KeptSpeeds;
use super::moment::Moment;
use super::quarantine::Quarantine;
use super::rules::Rules;
use super::scheduler::Scheduler;
use super::view::ClusterView;
use crate::ids::{AgentSessionId, Name, ToolchainId, WorkerSessionId};
use crate::protocol::token::{GrantKey, GrantedJob};
use crate::runtime::tasks::Tasks;

mod words;

pub use words::{AgentWord, Place, RunAs, WorkerWord};

/// Commands that may wait. Handlers wait for room, so a flood is held back where it comes from.
const INBOX_MAX: usize = 4096;
/// How often what the farm teaches is written down: what a crash may cost.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Commands taken before the timers are looked at again.
const BATCH_MAX: usize = 256;
/// Orders that may wait for one session beyond one per want: several full rounds of reports and looks.
const ORDERS_SPARE: usize = 4096;

/// The coordinator is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub struct Stopped;

/// No worker of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no worker `{0}` is connected")]
pub struct UnknownWorker(pub Name);

/// An agent's session, as its handler holds it.
#[derive(Debug)]
pub struct AgentSession {
    /// Its number.
    pub id: AgentSessionId,
    /// What the agent is to be told.
    pub words: mpsc::Receiver<AgentWord>,
    /// Set when the driver ended the session.
    pub ended: CancellationToken,
}

/// A worker's session, as its handler holds it.
#[derive(Debug)]
pub struct WorkerSession {
    /// Its number.
    pub id: WorkerSessionId,
    /// The key of its grants' tokens.
    pub key: GrantKey,
    /// The pace of its reports.
    pub report_every: Duration,
    /// What the worker is to be told.
    pub words: mpsc::Receiver<WorkerWord>,
    /// Set when the driver ended the session.
    pub ended: CancellationToken,
}

/// The cluster and the coordinator itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The cluster.
    pub cluster: ClusterView,
    /// Time since the coordinator started.
    pub uptime: Duration,
}

#[derive(Debug)]
enum Command {
    JoinAgent(AgentHello, String, oneshot::Sender<AgentSession>),
    JoinWorker(Box<WorkerHello>, oneshot::Sender<WorkerSession>),
    Tell(Event),
    SetDrain(Name, Drain, oneshot::Sender<Result<(), UnknownWorker>>),
    View(oneshot::Sender<Snapshot>),
    KeptSpeeds(oneshot::Sender<KeptSpeeds>),
}

/// What handlers reach the driver by.
#[derive(Debug, Clone)]
pub struct DriverHandle {
    inbox: mpsc::Sender<Command>,
}

impl DriverHandle {
    /// Opens an agent's session. `holder` is the name of its certificate, to which its grants are bound; empty without.
    pub async fn join_agent(&self, hello: AgentHello, holder: String) -> Result<AgentSession, Stopped> {
        self.ask(|reply| Command::JoinAgent(hello, holder, reply)).await
    }

    /// Opens a worker's session.
    pub async fn join_worker(&self, hello: WorkerHello) -> Result<WorkerSession, Stopped> {
        self.ask(|reply| Command::JoinWorker(Box::new(hello), reply)).await
    }

    /// Hands in an event of a session, or of the catalogue.
    pub async fn tell(&self, event: Event) -> Result<(), Stopped> {
        self.inbox.send(Command::Tell(event)).await.map_err(|_| Stopped)
    }

    /// Stops or resumes the use of a worker.
    pub async fn set_drain(&self, worker: Name, drain: Drain) -> Result<Result<(), UnknownWorker>, Stopped> {
        self.ask(|reply| Command::SetDrain(worker, drain, reply)).await
    }

    /// Takes a look at the cluster.
    pub async fn view(&self) -> Result<Snapshot, Stopped> {
        self.ask(Command::View).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// What is known from before.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// The toolchains, and what they run on.
    pub toolchains: Vec<(ToolchainId, HostKind)>,
    /// Who may stand in for whom.
    pub stand_ins: StandIns,
}

/// Starts the driver as one of `tasks`.
pub async fn start(tasks: &Tasks, rules: Rules, catalogue: Catalogue, files: KeptFiles) -> DriverHandle {
    let (inbox, commands) = mpsc::channel(INBOX_MAX);
    // Never zero, so that a grant's number never looks like one that was left out.
    let life = rand::random::<u32>().max(1);
    let scheduler = Scheduler::new(rules.clone(), life, rand::random(), Moment::START);
    let mut driver = Driver {
        scheduler,
        rules,
        started: Instant::now(),
        agents: BTreeMap::new(),
        workers: BTreeMap::new(),
        next_session: (u64::from(life) << 32) + 1,
        follow_ups: VecDeque::new(),
        quarantine: watch::Sender::new(files.quarantine().await),
    };
    for (toolchain, host_kind) in catalogue.toolchains {
        driver.tell(Event::ToolchainAdded(toolchain, host_kind));
    }
    driver.tell(Event::StandIns(catalogue.stand_ins));
    let speeds = files.speeds().await;
    driver.tell(Event::SpeedsKept(speeds.clone()));
    let quarantine = driver.quarantine.borrow().clone();
    driver.tell(Event::QuarantineKept(quarantine));
    let handle = DriverHandle { inbox };
    tasks.spawn_until_cancelled(keep_regularly(handle.clone(), files.clone(), speeds));
    let changes = driver.quarantine.subscribe();
    // Ends with the driver, after its last change.
    tasks.spawn(keep_quarantine(changes, files.clone()));
    let cancelled = tasks.token();
    tasks.spawn(async move {
        cancelled.run_until_cancelled(driver.run(commands)).await;
        files.keep_speeds(driver.scheduler.kept_speeds()).await;
    });
    handle
}

/// Writes down who is in quarantine, whenever that changes.
async fn keep_quarantine(mut changes: watch::Receiver<Quarantine>, files: KeptFiles) {
    while changes.changed().await.is_ok() {
        let quarantine = changes.borrow_and_update().clone();
        files.keep_quarantine(quarantine).await;
    }
}

/// Writes down what the farm teaches: not in the driver's own task, which waits for no disk.
async fn keep_regularly(driver: DriverHandle, files: KeptFiles, mut written: KeptSpeeds) {
    loop {
        tokio::time::sleep(KEEP_EVERY).await;
        let Ok(kept) = driver.ask(Command::KeptSpeeds).await else {
            return;
        };
        if kept != written {
            files.keep_speeds(kept.clone()).await;
            written = kept;
        }
    }
}

#[derive(Debug)]
struct AgentEnd {
    holder: String,
    words: mpsc::Sender<AgentWord>,
    _ended: DropGuard,
}

#[derive(Debug)]
struct WorkerEnd {
    name: Name,
    address: String,
    host_kind: HostKind,
    key: GrantKey,
    words: mpsc::Sender<WorkerWord>,
    _ended: DropGuard,
}

struct Driver {
    scheduler: Scheduler,
    rules: Rules,
    started: Instant,
    agents: BTreeMap<AgentSessionId, AgentEnd>,
    workers: BTreeMap<WorkerSessionId, WorkerEnd>,
    next_session: u64,
    /// Ends of sessions that came about while actions were performed.
    follow_ups: VecDeque<Event>,
    /// Who is in quarantine, for whoever writes it down.
    quarantine: watch::Sender<Quarantine>,
}

impl Driver {
    async fn run(&mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let deadline = self.scheduler.next_deadline();
            let deadline = deadline.map(|at| self.started + at.since(Moment::START));
            let wake = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                taken = commands.recv_many(&mut batch, BATCH_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    for command in batch.drain(..) {
                        self.obey(command);
                    }
                }
                () = wake => self.tell(Event::Tick),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::JoinAgent(hello, holder, reply) => self.join_agent(hello, holder, reply),
            Command::JoinWorker(hello, reply) => self.join_worker(*hello, reply),
            Command::Tell(event) => {
                match &event {
                    Event::AgentLeft(id) => drop(self.agents.remove(id)),
                    Event::WorkerLeft(id) => drop(self.workers.remove(id)),
                    _ => {}
                }
                self.tell(event);
            }
            Command::SetDrain(name, drain, reply) => {
                let known = self.scheduler.knows_worker(&name);
                let answer = if known {
                    Ok(())
                } else {
                    Err(UnknownWorker(name.clone()))
                };
                self.tell(Event::DrainSet(name, drain));
                let _ = reply.send(answer);
            }
            Command::KeptSpeeds(reply) => {
                let _ = reply.send(self.scheduler.kept_speeds());
            }
            Command::View(reply) => {
                let snapshot = Snapshot {
                    cluster: self.scheduler.view(),
                    uptime: self.started.elapsed(),
                };
                let _ = reply.send(snapshot);
            }
        }
    }

    fn draw_session(&mut self) -> u64 {
        let session = self.next_session;
        self.next_session += 1;
        session
    }

    fn join_agent(&mut self, hello: AgentHello, holder: String, reply: oneshot::Sender<AgentSession>) {
        let id = AgentSessionId(self.draw_session());
        let (words, receiver) = mpsc::channel(self.rules.wants_per_agent_max + ORDERS_SPARE);
        let ended = CancellationToken::new();
        let end = AgentEnd {
            holder,
            words,
            _ended: ended.clone().drop_guard(),
        };
        let session = AgentSession {
            id,
            words: receiver,
            ended,
        };
        tracing::info!(agent = %id, host = hello.host, user = hello.user, pid = hello.pid, "agent joined");
        self.agents.insert(id, end);
        self.tell(Event::AgentJoined(id, hello));
        if reply.send(session).is_err() {
            self.agents.remove(&id);
            self.tell(Event::AgentLeft(id));
        }
    }

    fn join_worker(&mut self, hello: WorkerHello, reply: oneshot::Sender<WorkerSession>) {
        let id = WorkerSessionId(self.draw_session());
        let (words, receiver) = mpsc::channel(ORDERS_SPARE);
        let ended = CancellationToken::new();
        let key = GrantKey(rand::random());
        let end = WorkerEnd {
            name: hello.name.clone(),
            address: hello.address.clone(),
            host_kind: hello.host_kind.clone(),
            key: key.clone(),
            words,
            _ended: ended.clone().drop_guard(),
        };
        let session = WorkerSession {
            id,
            key,
            report_every: self.rules.report_every,
            words: receiver,
            ended,
        };
        tracing::info!(worker = %hello.name, address = hello.address, slots = hello.slots, "worker joined");
        self.workers.insert(id, end);
        self.tell(Event::WorkerJoined(id, hello));
        if reply.send(session).is_err() {
            self.workers.remove(&id);
            self.tell(Event::WorkerLeft(id));
        }
    }

    /// Applies an event, and what follows from performing its actions.
    fn tell(&mut self, event: Event) {
        self.follow_ups.push_back(event);
        while let Some(event) = self.follow_ups.pop_front() {
            let now = Moment::at(self.started.elapsed());
            for action in self.scheduler.handle(event, now) {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Grant(grant) => self.grant(grant),
            Action::Refuse(agent, request, refusal) => {
                tracing::debug!(%agent, %request, reason = refusal.message, "want refused");
                self.say_to_agent(agent, AgentWord::Refused(request, refusal));
            }
            Action::VoidAtAgent(agent, grant, reason) => self.say_to_agent(agent, AgentWord::Void(grant, reason)),
            Action::TellFarm(agent, view) => self.say_to_agent(agent, AgentWord::Farm(view)),
            Action::VoidAtWorker(worker, grant, reason) => self.say_to_worker(worker, WorkerWord::Void(grant, reason)),
            Action::Prepare(worker, toolchain, effort) => {
                self.say_to_worker(worker, WorkerWord::Prepare(toolchain, effort));
            }
            Action::KeepQuarantine => {
                let quarantine = self.scheduler.quarantine().clone();
                tracing::warn!(?quarantine, "the quarantine has changed");
                self.quarantine.send_replace(quarantine);
            }
            Action::Drain(worker, drain) => self.say_to_worker(worker, WorkerWord::Drain(drain)),
            Action::DropAgent(agent, reason) => {
                tracing::warn!(%agent, reason, "agent dropped");
                if let Some(end) = self.agents.remove(&agent) {
                    // When there is no room for the reason, the end of the stream has to do.
                    let _ = end.words.try_send(AgentWord::Ended(reason));
                }
            }
            Action::DropWorker(worker, reason) => {
                if let Some(end) = self.workers.remove(&worker) {
                    tracing::warn!(worker = %end.name, reason, "worker dropped");
                    let _ = end.words.try_send(WorkerWord::Ended(reason));
                }
            }
        }
    }

    fn grant(&mut self, grant: Grant) {
        let Some(worker) = self.workers.get(&grant.worker) else {
            return;
        };
        let holder = self.agents.get(&grant.agent).map_or("", |agent| &agent.holder);
        let job = GrantedJob {
            toolchain: grant.toolchain,
            run_as: grant.run_as.map(|stand_in| stand_in.toolchain),
        };
        let place = Place {
            request: grant.request,
            grant: grant.grant,
            worker: worker.name.clone(),
            address: worker.address.clone(),
            token: worker.key.of_holder(holder).token(grant.grant, grant.agent, job),
            valid: self.rules.grant_valid_for(grant.purpose),
            power_milli: grant.power_milli,
            purpose: grant.purpose,
            cores: grant.cores,
            run_as: grant.run_as.map(|stand_in| RunAs {
                stand_in,
                host_kind: worker.host_kind.clone(),
            }),
        };
        self.say_to_agent(grant.agent, AgentWord::Granted(place));
    }

    fn say_to_agent(&mut self, id: AgentSessionId, word: AgentWord) {
        let Some(end) = self.agents.get(&id) else { return };
        if end.words.try_send(word).is_err() {
            tracing::warn!(agent = %id, "agent takes no orders; its session ends");
            self.agents.remove(&id);
            self.follow_ups.push_back(Event::AgentLeft(id));
        }
    }

    fn say_to_worker(&mut self, id: WorkerSessionId, word: WorkerWord) {
        let Some(end) = self.workers.get(&id) else { return };
        if end.words.try_send(word).is_err() {
            tracing::warn!(worker = %end.name, "worker takes no orders; its session ends");
            self.workers.remove(&id);
            self.follow_ups.push_back(Event::WorkerLeft(id));
        }
    }
}

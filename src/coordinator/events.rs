//! What the scheduler hears and what it answers: one closed enum each.
//!
//! Events come from agents, workers, administrators and the clock, already checked and converted. Actions are carried
//! out by the driver. Nothing here decides anything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kept_speeds::KeptSpeeds;
use super::quarantine::Quarantine;
use crate::ids::{AgentSessionId, CoreGroupId, GrantId, Name, RequestId, ToolchainId, WorkerSessionId};
use crate::job::{Refusal, RefusalKind, RunReport, Variants};
use crate::toolchains::definition::Certify;

/// Everything that can happen to the scheduler, besides time passing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An agent opened a session.
    AgentJoined(AgentSessionId, AgentHello),
    /// An agent's session ended, however.
    AgentLeft(AgentSessionId),
    /// An agent asks for a place.
    Want(AgentSessionId, Want),
    /// An agent takes a want back.
    CancelWant(AgentSessionId, RequestId),
    /// An agent has put a job into a place that it held ahead of need.
    GrantUsed(AgentSessionId, GrantId, Demand),
    /// An agent is through with a grant.
    GrantDone(AgentSessionId, GrantId, Ending),
    /// A worker opened a session.
    WorkerJoined(WorkerSessionId, WorkerHello),
    /// A worker's session ended, however.
    WorkerLeft(WorkerSessionId),
    /// A worker says what became of a toolchain.
    WorkerToolchain(WorkerSessionId, ToolchainId, ToolchainNews),
    /// A worker's regular report.
    WorkerLoad(WorkerSessionId, LoadReport),
    /// An agent has found by comparison that a worker's results are wrong, and says what it found.
    Accused(AgentSessionId, Name, String),
    /// An administrator stops or resumes the use of a worker.
    DrainSet(Name, Drain),
    /// A toolchain was pushed, or is known from before.
    ToolchainAdded(ToolchainId, HostKind),
    /// A toolchain's last name was removed.
    ToolchainRemoved(ToolchainId),
    /// Who may stand in for whom now, by toolchain and kind of host. What is not in it may not.
    StandIns(StandIns),
    /// What an earlier life of the coordinator learned. Told once, after the catalogue and before anybody joins.
    SpeedsKept(KeptSpeeds),
    /// Who was in quarantine at the end of the earlier life; likewise.
    QuarantineKept(Quarantine),
    /// Only time has passed.
    Tick,
}

/// What a toolchain's programs run on, say `x86_64-linux`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostKind(pub String);

/// Who may stand in for a toolchain, by kind of host.
pub type StandIns = BTreeMap<ToolchainId, BTreeMap<HostKind, StandIn>>;

/// A variant that is certified to make the objects of another toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandIn {
    /// The variant.
    pub toolchain: ToolchainId,
    /// How equal its objects are.
    pub level: Certify,
}

/// Who an agent is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentHello {
    /// Its machine.
    pub host: String,
    /// Its user.
    pub user: String,
    /// Its process.
    pub pid: u32,
}

/// A request for a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The agent's number for it.
    pub request: RequestId,
    /// What the job needs.
    pub toolchain: ToolchainId,
    /// Whether a certified variant of it will do.
    pub variants: Variants,
    /// What fairness is counted by, below the agent; may be empty.
    pub build: String,
    /// What the place is for.
    pub purpose: Purpose,
    /// What the job is expected to cost.
    pub demand: Demand,
    /// Workers that must not be used.
    pub avoid: Vec<Name>,
    /// The only worker that may be used, where there is one.
    pub only: Option<Name>,
}

/// What a place is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Purpose {
    /// A job that waits for it.
    #[default]
    Job,
    /// A second copy of a job that is far beyond its prediction.
    Race,
    /// No job yet: to be ready for the next one.
    Ahead,
}

/// What a job is expected to cost; `None` where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// CPU time on one reference core.
    pub work: Option<Duration>,
    /// Standard deviation of ln(work), thousandths.
    pub spread_milli: Option<u32>,
    /// Peak memory, bytes.
    pub memory_bytes: Option<u64>,
    /// What a worker that has seen nothing of the job's tree would have to be sent, bytes.
    pub input_bytes: u64,
}

/// How a grant ended, in the agent's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The compiler ran there, whatever it said.
    Ran(RunReport),
    /// Given back without use.
    Unused,
    /// The worker declined without fault.
    Refused(RefusalKind),
    /// The worker broke or could not be reached.
    Fault,
}

/// All that a worker says of itself when it opens a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerHello {
    /// Its name; a session under a name that has one already takes its place.
    pub name: Name,
    /// Where agents reach it, `HOST:PORT`.
    pub address: String,
    /// Jobs it runs at one time.
    pub slots: u32,
    /// One slot against one reference core, in thousandths.
    pub power_milli: u32,
    /// Its cores where they are of different speed, the fastest first: `slots` is their sum, `power_milli` the mean of
    /// all slots. Empty: they are alike.
    pub cores: Vec<CoreGroup>,
    /// What its toolchains must run on.
    pub host_kind: HostKind,
    /// Installed memory.
    pub memory_bytes: u64,
    /// What isolates jobs there, for people.
    pub sandbox: String,
    /// Its software, for people.
    pub version: String,
    /// Whether it can run a job on a variant of the job's toolchain.
    pub variants: Variants,
    /// Toolchains ready to use.
    pub ready: Vec<ToolchainId>,
    /// Grants of jobs that run now.
    pub running: Vec<GrantId>,
    /// What it was last told.
    pub drain: Drain,
}

/// Cores of one speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreGroup {
    /// Jobs on them at one time.
    pub slots: u32,
    /// One of these slots against one reference core, in thousandths.
    pub power_milli: u32,
}

/// Whether a worker gets jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// It gets none; what runs ends normally.
    On,
    /// It gets jobs.
    Off,
}

/// What became of a toolchain on a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolchainNews {
    /// The machine's own files are that toolchain.
    Installed,
    /// Unpacked from its bundle.
    Bundle,
    /// Not there, but could be fetched.
    Fetchable,
    /// Cannot be had, and why.
    Failed(String),
}

/// A worker's regular report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Its number within the session, growing.
    pub number: u64,
    /// Grants in use.
    pub running: Vec<GrantId>,
    /// Voided grants that run nothing and never will.
    pub voided: Vec<GrantId>,
    /// Memory that could be had now.
    pub memory_available_bytes: u64,
    /// Part of the last ten seconds in which all its tasks stood still for want of memory, thousandths.
    pub memory_pressure_milli: u32,
    /// Whether it is about to stop and takes no more jobs.
    pub leaving: Leaving,
}

/// Whether a worker is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leaving {
    /// It takes jobs.
    #[default]
    No,
    /// It takes no more.
    Yes,
}

/// Something for the driver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell the agent that it has a place.
    Grant(Grant),
    /// Tell the agent that it gets none.
    Refuse(AgentSessionId, RequestId, Refusal),
    /// Tell the agent not to use a grant any more.
    VoidAtAgent(AgentSessionId, GrantId, VoidReason),
    /// Tell the agent how the farm is.
    TellFarm(AgentSessionId, FarmView),
    /// Tell the worker not to honour a grant any more.
    VoidAtWorker(WorkerSessionId, GrantId, VoidReason),
    /// Ask the worker for a toolchain.
    Prepare(WorkerSessionId, ToolchainId, Effort),
    /// Write down who is in quarantine.
    KeepQuarantine,
    /// Tell the worker whether it is drained.
    Drain(WorkerSessionId, Drain),
    /// End the agent's session.
    DropAgent(AgentSessionId, String),
    /// End the worker's session.
    DropWorker(WorkerSessionId, String),
}

/// A place given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub agent: AgentSessionId,
    /// For which want.
    pub request: RequestId,
    /// Its number.
    pub grant: GrantId,
    /// Where.
    pub worker: WorkerSessionId,
    /// For what.
    pub toolchain: ToolchainId,
    /// What it is to be run with instead.
    pub run_as: Option<StandIn>,
    /// On which of the worker's cores.
    pub cores: CoreGroupId,
    /// Speed of the slot, thousandths of a reference core.
    pub power_milli: u32,
    /// What it was wanted for.
    pub purpose: Purpose,
}

/// The farm as an agent may count on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FarmView {
    /// Slots of workers that take jobs.
    pub slots_total: u32,
    /// Of those, slots with a job; a place held ahead of need counts as free.
    pub slots_busy: u32,
    /// Speed of the fastest worker's slots when it is full, thousandths of a reference core.
    pub fastest_milli: u32,
    /// Wants with a job that wait, of all agents.
    pub queued: u64,
    /// Slots that this agent may hold while all that want the farm share it equally.
    pub my_share_slots: u64,
}

/// Why a grant is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoidReason {
    /// Not used in time.
    Expired,
    /// The worker is gone, or came back without it.
    WorkerLost,
    /// The agent gave it back, or is gone.
    Returned,
    /// A place held ahead of need is wanted for somebody's job.
    Recalled,
    /// The worker's results were found wrong: nothing that comes from there is to be used.
    Distrusted,
}

/// How much a worker is to do for a toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Verify what is there; fetch nothing.
    Look,
    /// Get it.
    Fetch,
}

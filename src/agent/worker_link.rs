//! The agent's side of the link to one worker: one long-lived stream, many jobs at a time.
//!
//! [`WorkerLink::run`] sends a job, feeds the worker what it lacks, and returns the compiler's answer. Nothing is
//! retried here: when the link breaks, each of its jobs ends in [`LinkError::Broken`] and the next `run` connects anew.
//! Dropping the future of `run` cancels the job. Invariant: a job is answered exactly once, by one of the ways that
//! [`LinkError`] lists or an outcome whose outputs are whole.

mod feeder;
mod inputs;
mod jobs;
mod session;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

pub use self::inputs::{InputRef, InputTable};
use self::jobs::Assembly;
use crate::digest::Digest;
use crate::ids::{AgentSessionId, CoreGroupId, GrantId, JobId, Name};
use crate::job::{Input, JobSpec, Outcome, Refusal};
use crate::protocol::convert::Compress;
use crate::runtime::tasks::Tasks;
use crate::toolchains::profile::RunAs;
use crate::trust::credentials::Trust;

/// Jobs waiting to be sent. An agent has a few per slot of a worker; the rest waits in its own queue.
const RUN_QUEUE: usize = 64;
/// Outputs of at least this many bytes are decompressed off the event loop.
const OFF_LOOP_BYTES: u64 = 256 << 10;

/// Which worker a link leads to, and as whom.
#[derive(Debug, Clone)]
pub struct LinkTarget {
    /// `HOST:PORT`, as the grant says.
    pub address: String,
    /// What it is called; its certificate has to say so.
    pub worker: Name,
    /// How it is spoken to.
    pub trust: Trust,
    /// This agent's session at the coordinator; tokens are bound to it.
    pub agent: AgentSessionId,
    /// Names the file tree that the jobs' paths are of: host, mount namespace and root directory.
    pub tree: Digest,
}

/// A job for a worker.
pub struct LinkRun {
    /// The place it was given.
    pub grant: GrantId,
    /// Proof of the grant.
    pub token: Vec<u8>,
    /// The cores of the worker that it is for.
    pub cores: CoreGroupId,
    /// The job; [`JobSpec::inputs`] is ignored.
    pub spec: JobSpec,
    /// The job's inputs, in any order.
    pub inputs: Arc<[InputRef]>,
    /// Where their content is read.
    pub content: Arc<dyn ContentSource>,
    /// Most bytes that its outputs may have together.
    pub output_bytes_max: u64,
    /// Set when it runs on a variant of its toolchain.
    pub run_as: Option<RunAs>,
}

/// Gives the content of inputs.
pub trait ContentSource: Send + Sync {
    /// Opens the content of a regular file. May block on the disk, never on anything else.
    ///
    /// Content that has another digest than `input` says is noticed by the worker, which then declines the job; what
    /// can be seen cheaply (size, modification time) should be checked here.
    fn open(&self, input: &Input) -> Result<Content, Changed>;
}

/// Content of a file.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Held(Arc<Vec<u8>>),
    /// A regular file, at its start.
    File(File),
}

/// An input is not as it was when the job was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed;

/// Why a job has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The worker declined.
    #[error("worker declined: {}", .0.message)]
    Refused(Refusal),
    /// An input changed while the job was on its way.
    #[error("`{}` changed while the job was on its way", .0.display())]
    Changed(PathBuf),
    /// The worker could not be reached, went away, or does not speak the protocol.
    #[error("link to worker at `{address}`: {reason}")]
    Broken {
        /// Where it was thought to be.
        address: String,
        /// What happened, one line.
        reason: String,
    },
}

/// How much a link has carried, bytes of messages.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Returns the bytes sent to the worker so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns the bytes received from the worker so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// A link to one worker. Connects at the first job.
#[derive(Debug)]
pub struct WorkerLink {
    target: LinkTarget,
    tasks: Tasks,
    next_job: AtomicU64,
    orders: mpsc::Sender<Order>,
    // At most one message per job in flight, so bounded by the jobs.
    cancels: mpsc::UnboundedSender<JobId>,
    traffic: Arc<Traffic>,
}

/// A job on its way to the driver.
struct Order {
    job: JobId,
    run: LinkRun,
    answer: oneshot::Sender<Result<Raw, LinkError>>,
}

/// An outcome before its outputs are put together.
#[derive(Debug)]
struct Raw {
    outcome: Outcome,
    outputs: Assembly,
}

/// Cancels a job whose caller went away.
struct CancelOnDrop<'a> {
    link: &'a WorkerLink,
    job: Option<JobId>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.job {
            // An error says that the driver has ended, and every job with it.
            let _ = self.link.cancels.send(job);
        }
    }
}

impl WorkerLink {
    /// Starts a link; its tasks end with `tasks` or when the link is dropped.
    pub fn new(target: LinkTarget, tasks: &Tasks) -> Self {
        let (orders, order_queue) = mpsc::channel(RUN_QUEUE);
        let (cancels, cancel_queue) = mpsc::unbounded_channel();
        let traffic = Arc::new(Traffic::default());
        let driver = session::Driver::new(
            target.clone(),
            tasks.clone(),
            order_queue,
            cancel_queue,
            traffic.clone(),
        );
        tasks.spawn(driver.run());
        Self {
            target,
            tasks: tasks.clone(),
            next_job: AtomicU64::new(1),
            orders,
            cancels,
            traffic,
        }
    }

    /// Runs a job at the worker and returns the compiler's answer, or why there is none.
    pub async fn run(&self, run: LinkRun) -> Result<Outcome, LinkError> {
        let job = JobId(self.next_job.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let ended = |_| self.broken("the link was closed");
        self.orders
            .send(Order { job, run, answer })
            .await
            .map_err(|_| self.broken("the link was closed"))?;
        let mut guard = CancelOnDrop {
            link: self,
            job: Some(job),
        };
        let raw = answered.await.map_err(ended)?;
        guard.job = None;
        let Raw { mut outcome, outputs } = raw?;
        let finished = if outputs.bytes() < OFF_LOOP_BYTES {
            outputs.finish()
        } else {
            self.tasks.blocking(move || outputs.finish()).await
        };
        outcome.outputs = finished.map_err(|error| self.broken(&error.to_string()))?;
        Ok(outcome)
    }

    /// Returns where the link leads.
    pub fn target(&self) -> &LinkTarget {
        &self.target
    }

    /// Returns what the link has carried so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn broken(&self, reason: &str) -> LinkError {
        LinkError::Broken {
            address: self.target.address.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// Loopback is faster than any compressor.
fn compress_towards(address: &str) -> Compress {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.ip().to_canonical().is_loopback() => Compress::Never,
        _ => Compress::Allowed,
    }
}

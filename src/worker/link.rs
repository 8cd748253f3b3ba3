//! One agent's link to this worker: reads its messages, starts and stops its jobs, keeps track of what is being sent.
//!
//! One task per link owns all of its state; jobs run in tasks of their own and talk to it through a [`JobPort`]. The task
//! never waits for the agent to read, so the two sides cannot wait for each other. Invariant: when the link ends, all of
//! its jobs are stopped.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::executor::{Attempt, Executor};
use super::mirror::Tree;
use super::mirror_plan::catalog::EntryId;
use super::receiver::{self, Arrival};
use super::stop::Stop;
use super::transfers::{Lacking, Transfers};
use crate::digest::Digest;
use crate::ids::{AgentSessionId, JobId};
use crate::job::{Refusal, RefusalKind};
use crate::protocol::convert::{self, RunRequest};
use crate::protocol::pieces::{BlobPiece, OutputPiece, blob_piece_from_wire, output_piece_to_wire};
use crate::protocol::wire::link_reply::Reply;
use crate::protocol::wire::link_request::Request;
use crate::protocol::{LINK_ENTRIES_MAX, wire};
use crate::runtime::tasks::Tasks;
use crate::store::disk::DiskStore;

/// Jobs of one link at a time, waiting ones included. Agents have a few per slot.
const JOBS_MAX: usize = 1024;
/// Bytes of paths and targets that a link may define.
const DEFINED_BYTES_MAX: usize = 256 << 20;
/// Pieces of content between the connection and the store: 2 MiB at most.
const PIECE_QUEUE: usize = 8;
/// Messages from jobs to their link.
const EVENT_QUEUE: usize = 64;
/// Lists of inputs to ask for that a job may be behind with.
const NOTICE_QUEUE: usize = 64;

type Replies = mpsc::Sender<Result<wire::LinkReply, Status>>;

/// What a link is made of.
pub(super) struct LinkParts {
    pub(super) executor: Arc<Executor>,
    pub(super) store: DiskStore,
    pub(super) tasks: Tasks,
    pub(super) agent: AgentSessionId,
    pub(super) holder: Arc<str>,
    pub(super) tree: Arc<Tree>,
    pub(super) requests: Streaming<wire::LinkRequest>,
    pub(super) replies: Replies,
}

/// A job's way to its agent.
pub struct JobPort {
    job: JobId,
    events: mpsc::Sender<Event>,
    notices: mpsc::Receiver<Notice>,
    replies: Replies,
}

/// What a job tells its link.
enum Event {
    Want(JobId, Vec<Lacking>),
    Ended(JobId),
}

/// What a link tells a job that waits for content.
enum Notice {
    /// These have to be asked for.
    Ask(Vec<u32>),
    /// All has come.
    Ready,
}

struct Job {
    stop: Stop,
    notices: mpsc::Sender<Notice>,
}

struct Link {
    executor: Arc<Executor>,
    tasks: Tasks,
    agent: AgentSessionId,
    holder: Arc<str>,
    tree: Arc<Tree>,
    replies: Replies,
    events: mpsc::Sender<Event>,
    /// By number on this link.
    entries: Vec<EntryId>,
    defined_bytes: usize,
    jobs: HashMap<JobId, Job>,
    transfers: Transfers,
    /// The blob that is coming, and whether somebody waits for it.
    coming: Option<(Digest, Expected)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Yes,
    No,
}

/// Serves a link until either side ends it.
pub(super) async fn serve(parts: LinkParts) {
    let LinkParts {
        executor,
        store,
        tasks,
        agent,
        holder,
        tree,
        mut requests,
        replies,
    } = parts;
    let (events, mut event_queue) = mpsc::channel(EVENT_QUEUE);
    let (pieces, piece_queue) = mpsc::channel(PIECE_QUEUE);
    let (arrivals, mut arrival_queue) = mpsc::channel(EVENT_QUEUE);
    tasks.spawn(receiver::run(tasks.clone(), store, piece_queue, arrivals));
    let mut link = Link {
        executor,
        tasks: tasks.clone(),
        agent,
        holder,
        tree,
        replies,
        events,
        entries: Vec::new(),
        defined_bytes: 0,
        jobs: HashMap::new(),
        transfers: Transfers::default(),
        coming: None,
    };
    // A piece that the store has no room for yet; the link is not read meanwhile.
    let mut stalled: Option<BlobPiece> = None;
    loop {
        let step = tokio::select! {
            biased;
            () = tasks.cancelled() => break,
            Some(event) = event_queue.recv() => {
                link.event(event);
                Ok(())
            }
            Some(arrival) = arrival_queue.recv() => {
                link.arrival(arrival);
                Ok(())
            }
            permit = pieces.reserve(), if stalled.is_some() => match permit {
                Ok(permit) => {
                    if let Some(piece) = stalled.take() {
                        permit.send(piece);
                    }
                    Ok(())
                }
                Err(_) => break,
            },
            request = requests.message(), if stalled.is_none() => match request {
                Ok(Some(request)) => link.request(request).await.map(|piece| stalled = piece),
                // A broken connection ends like a closed one.
                Ok(None) | Err(_) => break,
            },
        };
        if let Err(problem) = step {
            tracing::warn!(agent = %link.agent, %problem, "link closed");
            // The agent may be gone already.
            let _ = link.replies.try_send(Err(Status::invalid_argument(problem)));
            break;
        }
    }
    for job in link.jobs.values() {
        job.stop.stop(RefusalKind::Busy, "the link to the agent ended");
    }
}

impl Link {
    fn event(&mut self, event: Event) {
        match event {
            Event::Want(job, lacking) => {
                let ask = self.transfers.want(job, &lacking);
                if !ask.is_empty() {
                    self.notify(job, Notice::Ask(ask));
                }
                if lacking.is_empty() {
                    self.notify(job, Notice::Ready);
                }
            }
            Event::Ended(job) => {
                self.jobs.remove(&job);
                for ask in self.transfers.ended(job) {
                    self.notify(ask.job, Notice::Ask(ask.numbers));
                }
            }
        }
    }

    fn arrival(&mut self, arrival: Arrival) {
        match arrival.result {
            Ok(()) => {
                for job in self.transfers.arrived(&arrival.digest) {
                    self.notify(job, Notice::Ready);
                }
            }
            Err(error) => {
                let kind = match &error {
                    receiver::ReceiveError::Changed => RefusalKind::Changed,
                    receiver::ReceiveError::Store(error) => store_refusal_kind(error),
                };
                for job in self.transfers.waiting_for(&arrival.digest) {
                    if let Some(job) = self.jobs.get(&job) {
                        job.stop.stop(kind, format!("an input could not be received: {error}"));
                    }
                }
            }
        }
    }

    fn notify(&mut self, job: JobId, notice: Notice) {
        if let Some(job) = self.jobs.get(&job)
            && job.notices.try_send(notice).is_err()
        {
            job.stop
                .stop(RefusalKind::Busy, "the job fell behind with asking for its inputs");
        }
    }

    /// Takes a message; gives back a piece of content that somebody waits for.
    async fn request(&mut self, request: wire::LinkRequest) -> Result<Option<BlobPiece>, String> {
        match request.request {
            Some(Request::Define(define)) => self.define(define).await?,
            Some(Request::Run(run)) => {
                let defined = self.entries.len() as u32;
                let run = convert::run_from_wire(run, defined).map_err(|error| error.to_string())?;
                self.start(run)?;
            }
            Some(Request::Blob(piece)) => {
                let piece = blob_piece_from_wire(piece).map_err(|error| error.to_string())?;
                return self.piece(piece);
            }
            Some(Request::Gone(gone)) => {
                if let Some(job) = self.jobs.get(&JobId(gone.job)) {
                    job.stop.stop(RefusalKind::Changed, "an input changed at the client");
                }
            }
            Some(Request::Cancel(cancel)) => {
                if let Some(job) = self.jobs.get(&JobId(cancel.job)) {
                    job.stop.stop(RefusalKind::Busy, "the agent cancelled the job");
                }
            }
            Some(Request::Hello(_)) => return Err("a second hello".to_owned()),
            None => return Err("a kind of message that this worker does not know".to_owned()),
        }
        Ok(None)
    }

    async fn define(&mut self, define: wire::Define) -> Result<(), String> {
        if define.first as usize != self.entries.len() {
            return Err(format!(
                "inputs numbered from {}, not {}",
                define.first,
                self.entries.len()
            ));
        }
        if self.entries.len() + define.entries.len() > LINK_ENTRIES_MAX as usize {
            return Err(format!("more than {LINK_ENTRIES_MAX} inputs"));
        }
        let inputs = define.entries.into_iter().map(convert::input_from_wire);
        let inputs = inputs
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        self.defined_bytes += inputs.iter().map(|input| input.path.as_os_str().len()).sum::<usize>();
        if self.defined_bytes > DEFINED_BYTES_MAX {
            return Err(format!("paths of more than {DEFINED_BYTES_MAX} bytes"));
        }
        let tree = self.tree.clone();
        // The tree may be busy placing another job's files.
        let entries = self.tasks.blocking(move || tree.define(&inputs)).await;
        self.entries.extend(entries.map_err(|full| full.to_string())?);
        Ok(())
    }

    fn piece(&mut self, piece: BlobPiece) -> Result<Option<BlobPiece>, String> {
        let expected = match self.coming.take() {
            Some((digest, expected)) if digest == piece.digest => expected,
            Some((digest, _)) => return Err(format!("a blob began before {digest} had ended")),
            None => match self.transfers.expected(&piece.digest) {
                Some(size) if size != piece.size => return Err("a blob of another size than defined".to_owned()),
                Some(_) => Expected::Yes,
                None => Expected::No,
            },
        };
        if !piece.last {
            self.coming = Some((piece.digest, expected));
        }
        Ok((expected == Expected::Yes).then_some(piece))
    }

    fn start(&mut self, run: RunRequest) -> Result<(), String> {
        let job = run.job;
        if self.jobs.len() >= JOBS_MAX {
            return Err(format!("more than {JOBS_MAX} jobs at a time"));
        }
        if self.jobs.contains_key(&job) {
            return Err(format!("job {job} was started twice"));
        }
        let stop = Stop::default();
        let (notices, notice_queue) = mpsc::channel(NOTICE_QUEUE);
        let entries = run.inputs.iter().map(|number| self.entries[*number as usize]).collect();
        let attempt = Attempt {
            run,
            agent: self.agent,
            holder: self.holder.clone(),
            tree: self.tree.clone(),
            entries,
        };
        let port = JobPort {
            job,
            events: self.events.clone(),
            notices: notice_queue,
            replies: self.replies.clone(),
        };
        let handle = Job {
            stop: stop.clone(),
            notices,
        };
        self.jobs.insert(job, handle);
        self.tasks.spawn(run_job(self.executor.clone(), attempt, port, stop));
        Ok(())
    }
}

async fn run_job(executor: Arc<Executor>, attempt: Attempt, mut port: JobPort, stop: Stop) {
    let job = port.job;
    let (result, remains) = executor.run(&attempt, &mut port, &stop).await;
    let answer = match result {
        Ok(outcome) => Reply::Done(convert::done_to_wire(job, &outcome)),
        Err(refusal) => {
            tracing::debug!(%job, message = refusal.message, "job refused");
            Reply::Refused(wire::JobRefused {
                job: job.0,
                kind: convert::refusal_kind_to_wire(refusal.kind),
                message: refusal.message,
            })
        }
    };
    // Agent or link may have gone, which is often why a job ends.
    let _ = port.reply(answer).await;
    let _ = port.events.send(Event::Ended(job)).await;
    executor.clean(remains).await;
}

impl JobPort {
    /// Waits until this content is in the store, asking the agent for it where nobody has.
    pub async fn fetch(&mut self, lacking: Vec<Lacking>) -> Result<(), Refusal> {
        self.events
            .send(Event::Want(self.job, lacking))
            .await
            .map_err(|_| gone())?;
        loop {
            match self.notices.recv().await {
                Some(Notice::Ready) => return Ok(()),
                Some(Notice::Ask(numbers)) => {
                    let need = wire::NeedInputs {
                        job: self.job.0,
                        inputs: convert::numbers_to_wire(&numbers),
                    };
                    self.reply(Reply::Need(need)).await?;
                }
                None => return Err(gone()),
            }
        }
    }

    /// Sends a piece of an output.
    pub async fn output(&self, piece: OutputPiece) -> Result<(), Refusal> {
        self.reply(Reply::Output(output_piece_to_wire(piece))).await
    }

    async fn reply(&self, reply: Reply) -> Result<(), Refusal> {
        let reply = wire::LinkReply { reply: Some(reply) };
        self.replies.send(Ok(reply)).await.map_err(|_| gone())
    }
}

fn gone() -> Refusal {
    Refusal {
        kind: RefusalKind::Busy,
        message: "the link to the agent ended".to_owned(),
    }
}

fn store_refusal_kind(error: &crate::store::disk::StoreError) -> RefusalKind {
    use crate::store::disk::StoreError;
    match error {
        StoreError::TooLarge { .. } | StoreError::InUse { .. } => RefusalKind::Busy,
        StoreError::WrongDigest { .. } | StoreError::DiskFull { .. } | StoreError::Io { .. } => RefusalKind::Fault,
    }
}

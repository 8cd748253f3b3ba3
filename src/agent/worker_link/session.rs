//! Owns the connection of one link: connects, sends jobs, sorts replies, fails what is lost.
//!
//! One task, one loop; reading and compressing content is the feeder's. Invariant: every order taken from the queue is
//! answered before the driver ends.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::feeder::{self, Feed, GoneInput};
use super::jobs::{Assembly, Full, Numbered, Numbering, ReplyError, index_of};
use super::{LinkError, LinkTarget, Order, Raw, Traffic, compress_towards};
use crate::ids::JobId;
use crate::job::InputKind;
use crate::protocol::convert::{self, RunRequest, done_from_wire, numbers_from_wire, refusal_from_wire};
use crate::protocol::pieces::{BlobPiece, blob_piece_to_wire, output_piece_from_wire};
use crate::protocol::wire::link_reply::Reply;
use crate::protocol::wire::link_request::Request;
use crate::protocol::{MESSAGE_BYTES_MAX, version, wire};
use crate::runtime::errors::with_causes;
use crate::runtime::tasks::Tasks;

/// Time that a worker has to say `welcome` on an open connection.
const WELCOME_WAIT: Duration = Duration::from_secs(10);
/// Messages other than content that wait to be sent.
const CONTROL_QUEUE: usize = 256;
/// Pieces of content that wait to be sent: with the feeder's batch, about 1.5 MiB per link.
const PIECE_QUEUE: usize = 4;
/// Bytes of paths in one `define`, far below the largest message.
const DEFINE_BYTES: usize = 1 << 20;
/// How often a worker may ask for content of one job: once, and again when what another job fetched did not come.
const NEEDS_MAX: u32 = 1000;

type Connecting = Pin<Box<dyn Future<Output = Result<Live, String>> + Send>>;

pub(super) struct Driver {
    target: LinkTarget,
    tasks: Tasks,
    orders: mpsc::Receiver<Order>,
    cancels: mpsc::UnboundedReceiver<JobId>,
    traffic: Arc<Traffic>,
    /// Orders that wait for a connection.
    waiting: VecDeque<Order>,
    connecting: Option<Connecting>,
    live: Option<Live>,
}

/// An open connection.
struct Live {
    control: mpsc::Sender<wire::LinkRequest>,
    feeds: mpsc::UnboundedSender<Vec<Feed>>,
    gone: mpsc::Receiver<GoneInput>,
    replies: Streaming<wire::LinkReply>,
    numbering: Numbering,
    jobs: HashMap<JobId, Job>,
    /// Takes no more jobs: its numbers have run out.
    full: bool,
}

struct Job {
    order: Order,
    numbered: Numbered,
    outputs: Assembly,
    needs: u32,
    ended: CancellationToken,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

enum Event {
    Order(Option<Order>),
    Cancel(JobId),
    Connected(Result<Live, String>),
    Reply(Result<Option<wire::LinkReply>, String>),
    Gone(GoneInput),
    Stop,
}

impl Driver {
    pub(super) fn new(
        target: LinkTarget,
        tasks: Tasks,
        orders: mpsc::Receiver<Order>,
        cancels: mpsc::UnboundedReceiver<JobId>,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self {
            target,
            tasks,
            orders,
            cancels,
            traffic,
            waiting: VecDeque::new(),
            connecting: None,
            live: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.next_event().await {
                Event::Order(Some(order)) => self.waiting.push_back(order),
                Event::Order(None) | Event::Stop => break,
                Event::Cancel(job) => self.cancel(job).await,
                Event::Connected(Ok(live)) => {
                    self.connecting = None;
                    self.live = Some(live);
                }
                Event::Connected(Err(reason)) => {
                    self.connecting = None;
                    self.fail_waiting(&reason);
                }
                Event::Reply(Ok(Some(reply))) => self.reply(reply),
                Event::Reply(Ok(None)) => self.break_link("the worker closed it"),
                Event::Reply(Err(reason)) => self.break_link(&reason),
                Event::Gone(input) => self.gone(input).await,
            }
            self.launch_waiting().await;
        }
        self.fail_waiting("the link was closed");
        self.break_link("the link was closed");
    }

    async fn next_event(&mut self) -> Event {
        let (replies, gone) = match &mut self.live {
            Some(live) => (Some(&mut live.replies), Some(&mut live.gone)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            () = self.tasks.cancelled() => Event::Stop,
            Some(job) = self.cancels.recv() => Event::Cancel(job),
            connected = maybe(self.connecting.as_mut()) => Event::Connected(connected),
            Some(input) = maybe(gone.map(mpsc::Receiver::recv)) => Event::Gone(input),
            reply = maybe(replies.map(Streaming::message)) => {
                Event::Reply(reply.map_err(|status| one_line(&status)))
            }
            order = self.orders.recv(), if self.waiting.len() < CONTROL_QUEUE => Event::Order(order),
        }
    }

    /// Sends what waits, connecting first where needed.
    async fn launch_waiting(&mut self) {
        // A full connection ends with its last job; the next one numbers from the start.
        if self.live.as_ref().is_some_and(|live| live.full && live.jobs.is_empty()) {
            self.live = None;
        }
        while let Some(order) = self.waiting.pop_front() {
            let Some(live) = &mut self.live else {
                self.waiting.push_front(order);
                if self.connecting.is_none() {
                    let (target, tasks, traffic) = (self.target.clone(), self.tasks.clone(), self.traffic.clone());
                    self.connecting = Some(Box::pin(connect(target, tasks, traffic)));
                }
                return;
            };
            if live.full {
                self.waiting.push_front(order);
                return;
            }
            if order.answer.is_closed() {
                continue;
            }
            if let Err(unsent) = live.launch(&self.target, &self.traffic, order).await {
                match unsent {
                    Unsent::NoNumbers(order) => {
                        live.full = true;
                        self.waiting.push_front(*order);
                        if live.jobs.is_empty() {
                            self.live = None;
                            continue;
                        }
                        return;
                    }
                    Unsent::LinkEnded => self.break_link("the worker closed it"),
                }
            }
        }
    }

    async fn cancel(&mut self, job: JobId) {
        self.waiting.retain(|order| order.job != job);
        if let Some(live) = &mut self.live
            && live.jobs.remove(&job).is_some()
        {
            let request = Request::Cancel(wire::CancelJob { job: job.0 });
            live.send(&self.traffic, request).await;
        }
    }

    async fn gone(&mut self, gone: GoneInput) {
        let Some(live) = &mut self.live else { return };
        if let Some(job) = live.jobs.remove(&gone.job) {
            job.answer(Err(LinkError::Changed(gone.input.path.clone())));
            let request = Request::Gone(wire::Gone {
                job: gone.job.0,
                input: gone.number,
            });
            live.send(&self.traffic, request).await;
        }
    }

    fn reply(&mut self, reply: wire::LinkReply) {
        let Some(live) = &mut self.live else { return };
        self.traffic
            .received
            .fetch_add(reply.encoded_len() as u64, Ordering::Relaxed);
        if let Err(error) = live.take(reply) {
            self.break_link(&error.to_string());
        }
    }

    fn break_link(&mut self, reason: &str) {
        if let Some(live) = self.live.take() {
            for job in live.jobs.into_values() {
                job.answer(Err(broken(&self.target, reason)));
            }
        }
    }

    fn fail_waiting(&mut self, reason: &str) {
        for order in self.waiting.drain(..) {
            // A caller that went away needs no answer.
            let _ = order.answer.send(Err(broken(&self.target, reason)));
        }
    }
}

/// An order that was not sent.
enum Unsent {
    NoNumbers(Box<Order>),
    LinkEnded,
}

impl Live {
    async fn launch(&mut self, target: &LinkTarget, traffic: &Traffic, mut order: Order) -> Result<(), Unsent> {
        let mut defines = Defines::default();
        let inputs = order.run.inputs.clone();
        let numbered = match self
            .numbering
            .number(&inputs, |input| defines.push(convert::input_to_wire(input)))
        {
            Ok((first, numbered)) => {
                defines.first = first;
                numbered
            }
            Err(Full) => return Err(Unsent::NoNumbers(Box::new(order))),
        };
        let mut first = defines.first;
        for entries in defines.chunks {
            let count = entries.len() as u32;
            self.send(traffic, Request::Define(wire::Define { first, entries }))
                .await;
            first += count;
        }
        let request = RunRequest {
            job: order.job,
            grant: order.run.grant,
            token: std::mem::take(&mut order.run.token),
            spec: order.run.spec.clone(),
            inputs: numbered.iter().map(|(number, _)| *number).collect(),
            compress: compress_towards(&target.address),
            run_as: order.run.run_as.clone(),
            cores: order.run.cores,
        };
        let sent = self.send(traffic, Request::Run(convert::run_to_wire(&request))).await;
        let job = Job {
            numbered,
            outputs: Assembly::new(order.run.output_bytes_max),
            needs: 0,
            ended: CancellationToken::new(),
            order,
        };
        self.jobs.insert(job.order.job, job);
        if sent { Ok(()) } else { Err(Unsent::LinkEnded) }
    }

    /// Queues a message; false when the link has ended, which the replies' end then tells.
    async fn send(&self, traffic: &Traffic, request: Request) -> bool {
        let request = wire::LinkRequest { request: Some(request) };
        traffic.sent.fetch_add(request.encoded_len() as u64, Ordering::Relaxed);
        self.control.send(request).await.is_ok()
    }

    /// Takes a reply. Replies about jobs that have ended here are crossed messages, not errors.
    fn take(&mut self, reply: wire::LinkReply) -> Result<(), ReplyError> {
        match reply.reply {
            Some(Reply::Need(need)) => self.need(need),
            Some(Reply::Output(piece)) => {
                let piece = output_piece_from_wire(piece)?;
                match self.jobs.get_mut(&piece.job) {
                    Some(job) => job.outputs.piece(piece),
                    None => Ok(()),
                }
            }
            Some(Reply::Done(done)) => {
                let (job, outcome) = done_from_wire(done)?;
                if let Some(mut job) = self.jobs.remove(&job) {
                    let outputs = std::mem::replace(&mut job.outputs, Assembly::new(0));
                    job.answer(Ok(Raw { outcome, outputs }));
                }
                Ok(())
            }
            Some(Reply::Refused(refused)) => {
                if let Some(job) = self.jobs.remove(&JobId(refused.job)) {
                    let refusal = refusal_from_wire(refused.kind, refused.message);
                    job.answer(Err(LinkError::Refused(refusal)));
                }
                Ok(())
            }
            // A second welcome, or a kind of reply that this build does not know, changes nothing.
            Some(Reply::Welcome(_)) | None => Ok(()),
        }
    }

    fn need(&mut self, need: wire::NeedInputs) -> Result<(), ReplyError> {
        let Some(job) = self.jobs.get_mut(&JobId(need.job)) else {
            return Ok(());
        };
        job.needs += 1;
        if job.needs > NEEDS_MAX {
            return Err(ReplyError::TooManyNeeds(job.needs));
        }
        let numbers = numbers_from_wire(&need.inputs, self.numbering.defined())?;
        let feeds = numbers.into_iter().map(|number| {
            let input = &job.order.run.inputs[index_of(&job.numbered, number)?];
            match input.kind {
                InputKind::File { .. } => Ok(Feed {
                    job: job.order.job,
                    number,
                    input: input.clone(),
                    content: job.order.run.content.clone(),
                    ended: job.ended.clone(),
                }),
                _ => Err(ReplyError::ForeignInput(number)),
            }
        });
        let feeds = feeds.collect::<Result<Vec<_>, _>>()?;
        // The feeder ends with the link, and the link's end is noticed by its replies.
        let _ = self.feeds.send(feeds);
        Ok(())
    }
}

impl Job {
    fn answer(mut self, answer: Result<Raw, LinkError>) {
        let (unused, _) = tokio::sync::oneshot::channel();
        let sender = std::mem::replace(&mut self.order.answer, unused);
        // A caller that went away needs no answer.
        let _ = sender.send(answer);
    }
}

/// New inputs, cut into messages.
#[derive(Default)]
struct Defines {
    first: u32,
    chunks: Vec<Vec<wire::InputEntry>>,
    bytes: usize,
}

impl Defines {
    fn push(&mut self, entry: wire::InputEntry) {
        let bytes = entry.encoded_len();
        if self.chunks.is_empty() || self.bytes + bytes > DEFINE_BYTES {
            self.chunks.push(Vec::new());
            self.bytes = 0;
        }
        self.bytes += bytes;
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(entry);
        }
    }
}

/// What goes to the worker: control messages first, content when there are none.
struct Outgoing {
    control: mpsc::Receiver<wire::LinkRequest>,
    pieces: mpsc::Receiver<BlobPiece>,
    traffic: Arc<Traffic>,
}

impl Stream for Outgoing {
    type Item = wire::LinkRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.control.poll_recv(context) {
            // The driver has let the link go.
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(control) => return Poll::Ready(control),
            Poll::Pending => {}
        }
        match self.pieces.poll_recv(context) {
            Poll::Ready(Some(piece)) => {
                let request = Some(Request::Blob(blob_piece_to_wire(piece)));
                let request = wire::LinkRequest { request };
                self.traffic
                    .sent
                    .fetch_add(request.encoded_len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(request))
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

async fn connect(target: LinkTarget, tasks: Tasks, traffic: Arc<Traffic>) -> Result<Live, String> {
    let channel = target
        .trust
        .worker(&target.address, &target.worker)
        .await
        .map_err(|error| one_line(&error))?;
    let mut client = wire::worker_client::WorkerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
    let (pieces, piece_queue) = mpsc::channel(PIECE_QUEUE);
    let hello = wire::LinkHello {
        protocol: version::NEWEST,
        agent_session: target.agent.0,
        tree: target.tree.as_bytes().to_vec(),
    };
    let outgoing = Outgoing {
        control: control_queue,
        pieces: piece_queue,
        traffic,
    };
    let open = async {
        let request = Some(Request::Hello(hello));
        // The receiver was made three statements ago, with room.
        let _ = control.send(wire::LinkRequest { request }).await;
        let mut replies = client
            .link(outgoing)
            .await
            .map_err(|status| one_line(&status))?
            .into_inner();
        match replies.message().await.map_err(|status| one_line(&status))? {
            Some(wire::LinkReply {
                reply: Some(Reply::Welcome(welcome)),
            }) => version::accept("worker", welcome.protocol).map_err(|skew| skew.to_string())?,
            _ => return Err("no `welcome` from the worker".to_owned()),
        };
        Ok(replies)
    };
    let replies = tokio::time::timeout(WELCOME_WAIT, open)
        .await
        .map_err(|_| "no `welcome` from the worker in time".to_owned())??;
    // At most NEEDS_MAX lists per job.
    let (feeds, feed_queue) = mpsc::unbounded_channel();
    let (gone_sender, gone) = mpsc::channel(CONTROL_QUEUE);
    let compress = compress_towards(&target.address);
    tasks.spawn_until_cancelled(feeder::run(tasks.clone(), compress, feed_queue, pieces, gone_sender));
    Ok(Live {
        control,
        feeds,
        gone,
        replies,
        numbering: Numbering::default(),
        jobs: HashMap::new(),
        full: false,
    })
}

/// Waits for a future that may be absent; then for ever.
async fn maybe<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn broken(target: &LinkTarget, reason: &str) -> LinkError {
    LinkError::Broken {
        address: target.address.clone(),
        reason: reason.to_owned(),
    }
}

/// Writes an error with its causes, on a line of its own.
fn one_line(error: &dyn std::error::Error) -> String {
    with_causes(error).replace('\n', " ")
}

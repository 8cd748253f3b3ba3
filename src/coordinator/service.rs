//! The gRPC face: each handler decodes, hands one event to the driver, and encodes what comes back.
//!
//! Decides nothing. Every peer begins with a `hello` within a bounded time; what it says is checked in `messages.rs`
//! before anything else sees it. Invariant: a session that was opened with the driver is also closed with it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::driver::{AgentWord, DriverHandle, Stopped, WorkerWord};
use super::events::{Drain, Event};
use super::farm::{AuditLog, Farm};
use crate::ids::{AgentSessionId, Name, WorkerSessionId};
use crate::protocol::{convert, version, wire};
use crate::runtime::tasks::Tasks;
use crate::trust::identity::Identity;
use crate::trust::listening::Peer;

mod messages;

/// Time for a peer to say who it is. It says so in its first packet.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// Most accusations that one session may bring: each is a line in the audit log, and a farm has no more bad nodes at once.
const ACCUSATIONS_MAX: u32 = 16;

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The `Coordinator` service.
#[derive(Debug)]
pub struct CoordinatorService {
    driver: DriverHandle,
    tasks: Tasks,
    farm: Option<Arc<Farm>>,
    audit: Arc<AuditLog>,
    /// What every status says first.
    warning: Option<String>,
}

impl CoordinatorService {
    /// Serves what `driver` decides; sessions are among `tasks`, and end when their member is thrown out of `farm`. Every status
    /// has the `warning`.
    pub fn new(
        driver: DriverHandle,
        tasks: Tasks,
        farm: Option<Arc<Farm>>,
        audit: Arc<AuditLog>,
        warning: Option<String>,
    ) -> Self {
        Self {
            driver,
            tasks,
            farm,
            audit,
            warning,
        }
    }

    fn until_revoked(&self, peer: Option<&Peer>) -> CancellationToken {
        let farm = self.farm.as_ref().zip(peer);
        farm.map_or_else(CancellationToken::new, |(farm, peer)| farm.until_revoked(peer))
    }
}

/// Who is at the other end, if it has a certificate.
fn member<T>(request: &Request<T>) -> Option<Identity> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.identity.clone())
}

/// The same in words, for the audit log.
fn by<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<Peer>();
    peer.map_or_else(|| "somebody".to_owned(), Peer::to_string)
}

/// What an agent says against nodes goes to the audit log first.
struct Witness {
    audit: Arc<AuditLog>,
    tasks: Tasks,
    by: String,
    accusations_left: u32,
}

impl Witness {
    /// Notes it. False when the agent has said too much already.
    async fn note(&mut self, worker: &Name, what: &str) -> bool {
        if self.accusations_left == 0 {
            return false;
        }
        self.accusations_left -= 1;
        let (audit, by, about) = (self.audit.clone(), self.by.clone(), format!("{worker}: {what}"));
        self.tasks.blocking(move || audit.note(&by, "accused", &about)).await;
        true
    }
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Status::unavailable(stopped.to_string())
    }
}

fn malformed(error: convert::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

async fn first_of<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let first = tokio::time::timeout(HELLO_WAIT, stream.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no `hello` came"))??;
    first.ok_or_else(|| Status::invalid_argument("the stream ended before `hello`"))
}

#[tonic::async_trait]
impl wire::coordinator_server::Coordinator for CoordinatorService {
    type AgentSessionStream = Outgoing<wire::AgentOrder>;
    type WorkerSessionStream = Outgoing<wire::WorkerOrder>;

    async fn agent_session(
        &self,
        request: Request<Streaming<wire::AgentEvent>>,
    ) -> Result<Response<Self::AgentSessionStream>, Status> {
        let holder = member(&request).map(|member| member.dns_name()).unwrap_or_default();
        let revoked = self.until_revoked(request.extensions().get());
        let witness = Witness {
            audit: self.audit.clone(),
            tasks: self.tasks.clone(),
            by: by(&request),
            accusations_left: ACCUSATIONS_MAX,
        };
        let mut events = request.into_inner();
        let hello = messages::agent_hello(first_of(&mut events).await?).map_err(malformed)?;
        let who = format!("agent of {}@{}", hello.hello.user, hello.hello.host);
        let protocol = agree(&who, hello.protocol)?;
        let session = self.driver.join_agent(hello.hello, holder).await?;
        let id = session.id;
        self.tasks.spawn_until_cancelled(read_agent(
            events,
            id,
            self.driver.clone(),
            witness,
            [session.ended, revoked],
        ));
        let welcome = messages::agent_welcome(protocol, id);
        let words = ReceiverStream::new(session.words).map(|word| match word {
            AgentWord::Ended(reason) => Err(Status::aborted(reason)),
            word => messages::agent_order(word),
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(welcome)).chain(words))))
    }

    async fn worker_session(
        &self,
        request: Request<Streaming<wire::WorkerEvent>>,
    ) -> Result<Response<Self::WorkerSessionStream>, Status> {
        let member = member(&request);
        let revoked = self.until_revoked(request.extensions().get());
        let mut events = request.into_inner();
        let hello = messages::worker_hello(first_of(&mut events).await?).map_err(malformed)?;
        if let Some(member) = member.filter(|member| member.name != hello.hello.name) {
            let words = format!("{member} cannot be worker `{}`", hello.hello.name);
            return Err(Status::permission_denied(words));
        }
        let protocol = agree(&format!("worker `{}`", hello.hello.name), hello.protocol)?;
        let session = self.driver.join_worker(hello.hello).await?;
        let id = session.id;
        self.tasks
            .spawn_until_cancelled(read_worker(events, id, self.driver.clone(), [session.ended, revoked]));
        let welcome = messages::worker_welcome(protocol, id, &session.key, session.report_every);
        let words = ReceiverStream::new(session.words).map(|word| match word {
            WorkerWord::Ended(reason) => Err(Status::aborted(reason)),
            word => messages::worker_order(word),
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(welcome)).chain(words))))
    }

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        let snapshot = self.driver.view().await?;
        let mut status = messages::status(snapshot);
        status.warning = self.warning.clone().unwrap_or_default();
        Ok(Response::new(status))
    }

    async fn set_drain(
        &self,
        request: Request<wire::SetDrainRequest>,
    ) -> Result<Response<wire::SetDrainReply>, Status> {
        let by = by(&request);
        let request = request.into_inner();
        let name = Name::new(&request.worker).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let drain = if request.on { Drain::On } else { Drain::Off };
        let what = if request.on { "drained" } else { "no longer drained" };
        let (audit, about) = (self.audit.clone(), name.to_string());
        self.tasks.blocking(move || audit.note(&by, what, &about)).await;
        let answer = self.driver.set_drain(name, drain).await?;
        answer.map_err(|unknown| Status::not_found(unknown.to_string()))?;
        Ok(Response::new(wire::SetDrainReply {}))
    }
}

fn agree(who: &str, theirs: u32) -> Result<u32, Status> {
    version::agree(who, theirs).map_err(|skew| {
        tracing::warn!("{skew}");
        Status::failed_precondition(skew.to_string())
    })
}

/// Reads an agent's events until its stream ends, or the driver ends the session.
async fn read_agent(
    mut events: Streaming<wire::AgentEvent>,
    id: AgentSessionId,
    driver: DriverHandle,
    mut witness: Witness,
    [ended, revoked]: [CancellationToken; 2],
) {
    loop {
        let event = tokio::select! {
            () = ended.cancelled() => break,
            () = revoked.cancelled() => break,
            event = events.message() => event,
        };
        let Ok(Some(event)) = event else { break };
        match messages::agent_event(id, event) {
            Ok(Some(Event::Accused(_, worker, what))) if !witness.note(&worker, &what).await => {}
            Ok(Some(event)) => {
                if driver.tell(event).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(agent = %id, %error, "agent sent what cannot be taken; its session ends");
                break;
            }
        }
    }
    tracing::info!(agent = %id, "agent left");
    // When the driver is gone, so is the session.
    let _ = driver.tell(Event::AgentLeft(id)).await;
}

/// Reads a worker's events until its stream ends, or the driver ends the session.
async fn read_worker(
    mut events: Streaming<wire::WorkerEvent>,
    id: WorkerSessionId,
    driver: DriverHandle,
    [ended, revoked]: [CancellationToken; 2],
) {
    loop {
        let event = tokio::select! {
            () = ended.cancelled() => break,
            () = revoked.cancelled() => break,
            event = events.message() => event,
        };
        let Ok(Some(event)) = event else { break };
        match messages::worker_event(id, event) {
            Ok(Some(event)) => {
                if driver.tell(event).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(worker = %id, %error, "worker sent what cannot be taken; its session ends");
                break;
            }
        }
    }
    tracing::info!(worker = %id, "worker left");
    let _ = driver.tell(Event::WorkerLeft(id)).await;
}

//! Takes links from agents.
//!
//! A link begins with the agent's hello, which says what it speaks and whose files its jobs read. Invariant: nothing of a
//! link is served before its hello has been checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::executor::Executor;
use super::link::{self, LinkParts};
use crate::digest::Digest;
use crate::ids::AgentSessionId;
use crate::protocol::{MESSAGE_BYTES_MAX, version, wire};
use crate::runtime::tasks::Tasks;
use crate::store::disk::DiskStore;
use crate::trust::identity::Role;
use crate::trust::listening::{Guarded, Peer};

/// Links at a time: each has a few megabytes of buffers when busy.
const LINKS_MAX: usize = 256;
/// Time that an agent has for its hello.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// Replies that wait to be sent, pieces of outputs among them: 2 MiB at most.
const REPLY_QUEUE: usize = 8;

/// The gRPC service that agents connect to.
#[derive(Clone)]
pub struct LinkService {
    executor: Arc<Executor>,
    store: DiskStore,
    tasks: Tasks,
    links: Arc<AtomicUsize>,
}

/// The service as tonic wants it.
pub type Server = wire::worker_server::WorkerServer<LinkService>;

impl LinkService {
    /// Makes the service; its links end with `tasks`.
    pub fn new(executor: Arc<Executor>, store: DiskStore, tasks: Tasks) -> Self {
        Self {
            executor,
            store,
            tasks,
            links: Arc::default(),
        }
    }

    /// Turns it into what tonic serves, with bounds on messages.
    pub fn into_server(self) -> Server {
        wire::worker_server::WorkerServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn serve(
        self,
        holder: Arc<str>,
        mut requests: Streaming<wire::LinkRequest>,
        replies: mpsc::Sender<Result<wire::LinkReply, Status>>,
    ) {
        let hello = tokio::select! {
            () = self.tasks.cancelled() => return,
            hello = tokio::time::timeout(HELLO_WAIT, requests.message()) => hello,
        };
        let checked = match hello {
            Ok(Ok(Some(wire::LinkRequest {
                request: Some(wire::link_request::Request::Hello(hello)),
            }))) => check(&hello),
            _ => Err(Status::invalid_argument("a link begins with a hello")),
        };
        let (protocol, agent, tree) = match checked {
            Ok(checked) => checked,
            Err(status) => {
                // The agent may have gone meanwhile.
                let _ = replies.send(Err(status)).await;
                return;
            }
        };
        let welcome = wire::link_reply::Reply::Welcome(wire::LinkWelcome { protocol });
        let welcome = wire::LinkReply { reply: Some(welcome) };
        if replies.send(Ok(welcome)).await.is_err() {
            return;
        }
        let tree = self.executor.mirrors.tree(tree);
        link::serve(LinkParts {
            executor: self.executor,
            store: self.store,
            tasks: self.tasks,
            agent,
            holder,
            tree,
            requests,
            replies,
        })
        .await;
    }
}

/// Returns the name under which a peer holds its grants, if it may have jobs run. The grants themselves are checked one by one.
fn holder(peer: Option<&Peer>) -> Result<Arc<str>, Status> {
    let Some(peer) = peer.filter(|peer| peer.guarded == Guarded::ByCertificates) else {
        return Ok(Arc::from(""));
    };
    match &peer.identity {
        Some(identity) if matches!(identity.role, Role::Client | Role::Admin) => Ok(identity.dns_name().into()),
        _ => Err(Status::permission_denied(format!(
            "{peer} may not have jobs run; clients and admins may"
        ))),
    }
}

fn check(hello: &wire::LinkHello) -> Result<(u32, AgentSessionId, Digest), Status> {
    let protocol =
        version::agree("agent", hello.protocol).map_err(|skew| Status::failed_precondition(skew.to_string()))?;
    let tree = Digest::from_slice(&hello.tree).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok((protocol, AgentSessionId(hello.agent_session), tree))
}

/// Counts a link for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl wire::worker_server::Worker for LinkService {
    type LinkStream = ReceiverStream<Result<wire::LinkReply, Status>>;

    async fn link(&self, request: Request<Streaming<wire::LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        let holder = holder(request.extensions().get::<Peer>())?;
        let counted = Counted(self.links.clone());
        if self.links.fetch_add(1, Ordering::Relaxed) >= LINKS_MAX {
            return Err(Status::resource_exhausted(format!(
                "this worker has {LINKS_MAX} links already"
            )));
        }
        let (replies, stream) = mpsc::channel(REPLY_QUEUE);
        let service = self.clone();
        self.tasks.spawn(async move {
            service.serve(holder, request.into_inner(), replies).await;
            drop(counted);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

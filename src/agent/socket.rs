//! The agent's Unix socket: who may connect, one request and one reply per connection, and when to stop listening.
//!
//! Knows nothing of compiling: [`Service`] answers. A caller that goes away cancels its request. Stops by itself after a
//! time without connections, when asked to retire, or when its own program was replaced. Invariants: at most one agent
//! listens per [`Place`] (its lock says so), and no connection that was served is ever cut off by the end of listening.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::exchange::frame::{HEADER_BYTES, Header, Meeting, meet};
use crate::exchange::place::Place;
use crate::exchange::{
    AgentReport, AuditReport, BuildTrace, CompileRequest, Complaint, JobRecord, Reply, Request, Statistics, Zero, codec,
};
use crate::runtime::tasks::Tasks;
use crate::runtime::unix_socket;

#[cfg(test)]
mod tests;

/// Time for a caller to send its request. It is sent in one piece, at once.
const REQUEST_WAIT: Duration = Duration::from_secs(30);

/// What an agent does for those who connect.
pub trait Service: Send + Sync + 'static {
    /// Runs a compile, or says how to. Returns soon after `caller.gone` fires.
    fn compile(&self, request: CompileRequest, caller: Caller) -> impl Future<Output = Answer> + Send;
    /// Tells the counters, and starts them again if asked to.
    fn stats(&self, zero: Zero) -> impl Future<Output = Result<Statistics, Complaint>> + Send;
    /// Tells the last build, job by job.
    fn trace(&self) -> impl Future<Output = Option<BuildTrace>> + Send;
    /// Tells what is known of the jobs that wrote `path`, newest first.
    fn why(&self, path: PathBuf) -> impl Future<Output = Result<Vec<JobRecord>, Complaint>> + Send;
    /// Tells what audits have found, and forgets the findings then if asked to.
    fn audits(&self, zero: Zero) -> impl Future<Output = Result<AuditReport, Complaint>> + Send;
    /// Tells what the agent is doing.
    fn report(&self) -> impl Future<Output = AgentReport> + Send;
}

/// Who asks for a compile.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Process id of the wrapper; 0 when the kernel does not tell.
    pub pid: u32,
    /// Fires when the wrapper has gone away without waiting for its reply.
    pub gone: CancellationToken,
}

/// The answer to a compile.
pub struct Answer {
    /// What goes back.
    pub reply: Reply,
    /// Dropped when the connection has ended on the other side: with `Connection::Inherit`, when the local compiler has.
    pub until_gone: Option<Box<dyn Send>>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            until_gone: None,
        }
    }
}

/// Why an agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another one does.
    #[error("an agent is running already at `{}`", .0.display())]
    Running(PathBuf),
    /// The system said no.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Nobody came for a while.
    Idle,
    /// Asked by a caller, or in favour of a newer program.
    Retired,
    /// The agent is shutting down.
    Cancelled,
}

/// A bound socket and the right to it.
#[derive(Debug)]
pub struct Listener {
    socket: std::os::unix::net::UnixListener,
    lock: OwnedFd,
}

impl Listener {
    /// Takes the lock and listens; from here on callers may connect.
    pub fn bind(place: &Place) -> Result<Self, ListenError> {
        let fail = |what, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| ListenError::Io { what, path, source }
        };
        let dir = place.own_dir();
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(fail("create", dir))?;
        let lock_path = place.agent_lock();
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&lock_path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| fail("open", &lock_path)(errno.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ListenError::Running(place.socket())),
            Err(errno) => return Err(fail("lock", &lock_path)(errno.into())),
        }
        // By rename, so that no caller meets a socket that is bound and does not listen yet.
        let (fresh, path) = (dir.join("socket.new"), place.socket());
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("remove", &fresh)(error)),
            _ => {}
        }
        let socket = unix_socket::listen(&fresh).map_err(fail("listen at", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(fail("create", &path))?;
        Ok(Self { socket, lock })
    }

    /// Serves callers until nobody has been connected for `idle`, or something else ends it. Returns when the last
    /// connection has ended, except on cancellation, when the owner of `tasks` waits for them.
    pub async fn serve<S: Service>(self, service: Arc<S>, tasks: &Tasks, idle: Duration) -> io::Result<Closed> {
        self.socket.set_nonblocking(true)?;
        let socket = UnixListener::from_std(self.socket)?;
        let open = watch::Sender::new(0_usize);
        let house = Arc::new(House {
            service,
            retire: Notify::new(),
            program: Program::ours(),
        });
        let mut count = open.subscribe();
        let closed = loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let held = OpenConnection::new(&open);
                        let house = Arc::clone(&house);
                        tasks.spawn(async move {
                            let _held = held;
                            house.receive(stream).await;
                        });
                    }
                    Err(error) => tracing::warn!(%error, "cannot accept a connection"),
                },
                () = nobody_for(idle, &mut count) => break Closed::Idle,
                () = house.retire.notified() => break Closed::Retired,
                () = tasks.cancelled() => return Ok(Closed::Cancelled),
            }
        };
        // The right goes before the socket: whoever is then refused may start the next agent at once. Callers between the
        // two are cut off unserved, and do the same.
        drop(self.lock);
        drop(socket);
        // The sender lives on this stack, so waiting cannot fail.
        let _ = count.wait_for(|open| *open == 0).await;
        Ok(closed)
    }
}

/// Returns when no connection has been open for `idle` on end.
async fn nobody_for(idle: Duration, count: &mut watch::Receiver<usize>) {
    loop {
        let _ = count.wait_for(|open| *open == 0).await;
        tokio::select! {
            () = tokio::time::sleep(idle) => return,
            _ = count.wait_for(|open| *open != 0) => {}
        }
    }
}

struct OpenConnection(watch::Sender<usize>);

impl OpenConnection {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// The program file that this process runs.
struct Program {
    replaced_at_start: bool,
}

impl Program {
    fn ours() -> Self {
        Self {
            replaced_at_start: Self::is_deleted(),
        }
    }

    /// True once the file has been replaced, by an upgrade or a rebuild. An agent that was started by an old program
    /// in the first place stays: a new one would be no newer.
    fn is_replaced(&self) -> bool {
        !self.replaced_at_start && Self::is_deleted()
    }

    fn is_deleted() -> bool {
        // The kernel marks the link of a removed file so.
        std::fs::read_link("/proc/self/exe")
            .is_ok_and(|path| path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"))
    }
}

struct House<S> {
    service: Arc<S>,
    retire: Notify,
    program: Program,
}

impl<S: Service> House<S> {
    async fn receive(&self, mut stream: UnixStream) {
        let ours = rustix::process::geteuid().as_raw();
        let pid = match stream.peer_cred() {
            Ok(peer) if peer.uid() == ours => peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            Ok(peer) => return tracing::warn!(uid = peer.uid(), "refused a connection of another user"),
            Err(error) => return tracing::warn!(%error, "cannot tell who connects"),
        };
        let message = match tokio::time::timeout(REQUEST_WAIT, read_message(&mut stream)).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return tracing::debug!(%error, pid, "no request"),
            Err(_) => return tracing::debug!(pid, "no request in time"),
        };
        let answer = self.answer(message, pid, &mut stream).await;
        let frame = match codec::encode_reply(&answer.reply) {
            Ok(frame) => frame,
            Err(error) => return tracing::error!(%error, pid, "cannot encode a reply"),
        };
        if let Err(error) = stream.write_all(&frame).await {
            return tracing::debug!(%error, pid, "cannot reply");
        }
        if let Some(held) = answer.until_gone {
            wait_for_end(&mut stream).await;
            drop(held);
        }
    }

    async fn answer(&self, (header, body): (Header, Vec<u8>), pid: u32, stream: &mut UnixStream) -> Answer {
        match meet(&header) {
            Meeting::Serve if !self.program.is_replaced() => {}
            Meeting::Serve | Meeting::MakeRoom => {
                tracing::info!(pid, caller = %header.version, "making room for a newer program");
                self.retire.notify_one();
                return Reply::Superseded.into();
            }
            Meeting::CallerTooOld => {
                return Reply::Failed(Complaint::new(format!(
                    "rdcc {} cannot talk to this agent",
                    header.version
                )))
                .into();
            }
        }
        match codec::decode_request(&body) {
            Ok(Request::Compile(request)) => self.compile(request, pid, stream).await,
            Ok(Request::Stats(zero)) => or_complain(self.service.stats(zero).await, Reply::Stats),
            Ok(Request::Why(path)) => or_complain(self.service.why(path).await, Reply::Why),
            Ok(Request::Audits(zero)) => or_complain(self.service.audits(zero).await, Reply::Audits),
            Ok(Request::Trace) => Reply::Trace(self.service.trace().await).into(),
            Ok(Request::Status) => Reply::Status(self.service.report().await).into(),
            Ok(Request::Retire) => {
                self.retire.notify_one();
                Reply::Retiring.into()
            }
            Err(error) => {
                tracing::warn!(%error, pid, "malformed request");
                Reply::Failed(Complaint::from_error(&error)).into()
            }
        }
    }

    async fn compile(&self, request: CompileRequest, pid: u32, stream: &mut UnixStream) -> Answer {
        let gone = CancellationToken::new();
        let caller = Caller {
            pid,
            gone: gone.clone(),
        };
        let mut answer = std::pin::pin!(self.service.compile(request, caller));
        tokio::select! {
            answer = &mut answer => return answer,
            () = wait_for_end(stream) => {
                tracing::debug!(pid, "caller went away");
                gone.cancel();
            }
        }
        answer.await
    }
}

fn or_complain<T>(result: Result<T, Complaint>, reply: impl FnOnce(T) -> Reply) -> Answer {
    result.map_or_else(Reply::Failed, reply).into()
}

async fn read_message(stream: &mut UnixStream) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).await?;
    let header = Header::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    // Read as it comes, so that a header alone takes no memory.
    let mut body = Vec::new();
    stream.take(header.length.into()).read_to_end(&mut body).await?;
    if body.len() != header.length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((header, body))
}

/// Returns when the other side has closed the connection; a caller has nothing more to say.
async fn wait_for_end(stream: &mut UnixStream) {
    let mut byte = [0; 64];
    while matches!(stream.read(&mut byte).await, Ok(1..)) {}
}

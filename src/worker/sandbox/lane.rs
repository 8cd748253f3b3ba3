//! One launcher process as the worker holds it: started, spoken to, and ended with its handle.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;

use super::channel::{Inbox, send, send_all};
use super::wire::{Event, Request, Setup};
use super::{LAUNCHER_ARGUMENT, Mode, SandboxError, SandboxSettings};
use crate::store::stamp::file_id;

/// Time in which a launcher has set itself up. It takes some ten milliseconds on a PC; a loaded board, a second.
const SET_UP_WAIT: Duration = Duration::from_secs(30);

/// A launcher that lives as long as this, and its job no longer.
#[derive(Debug)]
pub(super) struct Lane {
    socket: UnixStream,
    inbox: Inbox,
    /// A second handle on the socket.
    killer: Killer,
    process: Process,
}

/// A launcher process, killed when this is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    /// The base that it has entered, by [`file_id`].
    base: Option<(u64, u64)>,
}

impl Lane {
    /// Starts a launcher for `mode`. Its answer is still to come.
    fn spawn(settings: &SandboxSettings, mode: Mode) -> Result<Self, SandboxError> {
        let failed = |source| start_error(settings, source);
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        let killer = Killer(Arc::new(socket.try_clone().map_err(failed)?));
        // Before the launcher enters it: should it be replaced in between, the launcher counts as one of the old base.
        let base = file_id(&settings.lower_base);
        let child = std::process::Command::new(&settings.launcher_program)
            .arg(LAUNCHER_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let lane = Lane {
            socket,
            inbox: Inbox::default(),
            killer,
            process: Process { child, base },
        };
        let setup = Setup {
            mode,
            base: settings.lower_base.clone(),
            job_user: settings.job_user,
            niceness: settings.niceness,
        };
        send_all(&lane.socket, &Request::Setup(setup).encode(), &[]).map_err(gone)?;
        Ok(lane)
    }

    /// Tells whether the launcher's lower directories are still those that the worker fills: somebody may have removed them
    /// all, and the worker have made new ones.
    pub(super) fn has_base(&self, settings: &SandboxSettings) -> bool {
        self.process.base == file_id(&settings.lower_base)
    }

    /// Starts a launcher and waits until it is ready. Blocks.
    pub(super) fn start(settings: &SandboxSettings, mode: Mode) -> Result<Self, SandboxError> {
        let failed = |source| start_error(settings, source);
        let mut lane = Self::spawn(settings, mode)?;
        lane.socket.set_read_timeout(Some(SET_UP_WAIT)).map_err(failed)?;
        let ready = loop {
            match arrived(&mut lane.inbox)? {
                Some(event) => break event,
                None if lane.inbox.receive(&lane.socket).map_err(gone)? == 0 => {
                    return Err(SandboxError::LauncherDied);
                }
                None => {}
            }
        };
        expect_ready(ready)?;
        lane.socket.set_nonblocking(true).map_err(failed)?;
        Ok(lane)
    }

    /// As [`Lane::start`], but blocks only while the process is made.
    pub(super) async fn start_more(settings: &SandboxSettings, mode: Mode) -> Result<Self, SandboxError> {
        let failed = |source| start_error(settings, source);
        let lane = Self::spawn(settings, mode)?;
        lane.socket.set_nonblocking(true).map_err(failed)?;
        let mut link = Link::new(lane)?;
        let waited = tokio::time::timeout(SET_UP_WAIT, link.event()).await;
        expect_ready(waited.map_err(|_| failed(io::ErrorKind::TimedOut.into()))??)?;
        link.into_lane()
    }
}

/// Takes the next event that has arrived whole.
fn arrived(inbox: &mut Inbox) -> Result<Option<Event>, SandboxError> {
    let garbled = |error| io_error("understanding the launcher", io::Error::other(error));
    let body = inbox.next_body().map_err(garbled)?;
    body.map(|body| Event::decode(&body)).transpose().map_err(garbled)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killed rather than asked: it may be blocked. Its job's first process dies with it, and so all of the job.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn expect_ready(event: Event) -> Result<(), SandboxError> {
    match event {
        Event::Ready => Ok(()),
        Event::Failed { step, errno } => Err(SandboxError::Root {
            step,
            source: io::Error::from_raw_os_error(errno),
        }),
        _ => Err(SandboxError::LauncherDied),
    }
}

fn start_error(settings: &SandboxSettings, source: io::Error) -> SandboxError {
    SandboxError::Start {
        program: settings.launcher_program.clone(),
        source,
    }
}

fn io_error(what: &'static str, source: io::Error) -> SandboxError {
    SandboxError::Io { what, source }
}

/// A lane in use, known to the runtime that uses it.
#[derive(Debug)]
pub(super) struct Link {
    socket: tokio::net::UnixStream,
    inbox: Inbox,
    killer: Killer,
    process: Process,
}

impl Link {
    /// Takes a lane into use in the current runtime.
    pub(super) fn new(lane: Lane) -> Result<Self, SandboxError> {
        let socket = tokio::net::UnixStream::from_std(lane.socket);
        Ok(Self {
            socket: socket.map_err(|source| io_error("watching the launcher", source))?,
            inbox: lane.inbox,
            killer: lane.killer,
            process: lane.process,
        })
    }

    /// Gives the lane back, to be used from any runtime.
    pub(super) fn into_lane(self) -> Result<Lane, SandboxError> {
        let socket = self.socket.into_std();
        Ok(Lane {
            socket: socket.map_err(|source| io_error("keeping the launcher", source))?,
            inbox: self.inbox,
            killer: self.killer,
            process: self.process,
        })
    }

    /// Sends a frame with descriptors on its first byte.
    pub(super) async fn send(&self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        let mut sent = 0;
        while sent < frame.len() {
            let descriptors = if sent == 0 { descriptors } else { &[] };
            let attempt = || send(&self.socket, &frame[sent..], descriptors);
            sent += self.socket.async_io(Interest::WRITABLE, attempt).await.map_err(gone)?;
        }
        Ok(())
    }

    /// Returns what ends the lane's job.
    pub(super) fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Ends the launcher, which does not answer.
    pub(super) fn end(&mut self) {
        self.process.child.kill().ok();
    }

    /// Waits for the launcher's next word.
    pub(super) async fn event(&mut self) -> Result<Event, SandboxError> {
        loop {
            if let Some(event) = arrived(&mut self.inbox)? {
                return Ok(event);
            }
            let receive = || self.inbox.receive(&self.socket);
            if self.socket.async_io(Interest::READABLE, receive).await.map_err(gone)? == 0 {
                return Err(SandboxError::LauncherDied);
            }
        }
    }

    /// Takes a descriptor that came with an event.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.inbox.next_descriptor()
    }
}

/// Ends the job of a lane from wherever that is decided.
#[derive(Debug, Clone)]
pub(super) struct Killer(Arc<UnixStream>);

impl Killer {
    /// Asks the launcher to kill its job. The request is small and the launcher's socket nearly empty: it goes at once, or
    /// the launcher is gone and the job with it.
    pub(super) fn kill(&self) {
        send(&self.0, &Request::Kill.encode(), &[]).ok();
    }
}

/// A socket whose other end is closed says so in several ways.
fn gone(source: io::Error) -> SandboxError {
    match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SandboxError::LauncherDied,
        _ => io_error("talking to the launcher", source),
    }
}

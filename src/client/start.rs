//! Starting the agent: one of however many wrappers find it missing does, and the others wait for that.
//!
//! A lock makes one the starter; the new agent tells by a line through a socket when it listens. Nothing sleeps or polls.
//! A failure is remembered for some seconds, so that a build does not try anew for each of its compiles.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::link;
use crate::exchange::place::Place;

/// What an agent writes to its stdout once it listens.
pub const READY: &[u8] = b"ready\n";
/// Words by which the agent is called.
pub const LAUNCH: [&str; 2] = ["agent", "--launch"];
/// Time for an agent to listen. It binds its socket first of all; a board under full load may need seconds for that.
const READY_WAIT: Duration = Duration::from_secs(20);
/// How long a failed start stands.
const FAILURE_STANDS: Duration = Duration::from_secs(10);
/// Size beyond which an agent's log is moved aside at its start, bytes.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Why no agent runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of its cannot be used.
    #[error("cannot {what} `{}`", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("cannot execute `{}`", .0.display())]
    Execute(PathBuf, #[source] io::Error),
    /// It ended, or did not listen in time.
    #[error("it did not come up; its log is `{}`", .0.display())]
    NotReady(PathBuf),
    /// Somebody else has just failed.
    #[error("a start has failed some seconds ago; the log is `{}`", .0.display())]
    FailedBefore(PathBuf),
}

/// Starts the agent at `place`, or waits until another process has. When it returns, somebody listens there, or did.
pub fn start(place: &Place) -> Result<(), StartError> {
    let dir = place.own_dir();
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(fail("create", dir))?;
    let lock_path = place.start_lock();
    let mut options = File::options();
    options.create(true).write(true).mode(0o600);
    let lock = options.open(&lock_path).map_err(fail("open", &lock_path))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(io::Error::from)
        .map_err(fail("lock", &lock_path))?;
    // Whoever had the lock before may have done the work.
    if link::connect(place).is_ok_and(|stream| stream.is_some()) {
        return Ok(());
    }
    let failed = dir.join("start.failed");
    if is_recent(&failed) {
        return Err(StartError::FailedBefore(place.log()));
    }
    let result = launch(place);
    if result.is_err() {
        // Without the mark the next wrapper tries again, which is no worse.
        let _ = std::fs::write(&failed, b"");
    }
    result
}

fn fail(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::File { what, path, source }
}

fn is_recent(mark: &Path) -> bool {
    let written = std::fs::metadata(mark).and_then(|metadata| metadata.modified());
    let age = written
        .ok()
        .and_then(|written| SystemTime::now().duration_since(written).ok());
    age.is_some_and(|age| age < FAILURE_STANDS)
}

fn launch(place: &Place) -> Result<(), StartError> {
    let program = own_program();
    let execute = |error| StartError::Execute(program.clone(), error);
    let (mut ours, theirs) = UnixStream::pair().map_err(execute)?;
    let mut child = Command::new(&program)
        .arg0("rdcc")
        .args(LAUNCH)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_kept(name.as_encoded_bytes())))
        .env("RDCC_STATE_DIR", place.state_dir())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(theirs))
        .stderr(open_log(&place.log())?)
        .spawn()
        .map_err(execute)?;
    // It ends as soon as it has started the agent, and its status says nothing that the line does not.
    let _ = child.wait();
    let mut line = [0; READY.len()];
    let heard = ours
        .set_read_timeout(Some(READY_WAIT))
        .and_then(|()| ours.read_exact(&mut line));
    match heard {
        Ok(()) if line == READY => Ok(()),
        _ => Err(StartError::NotReady(place.log())),
    }
}

/// Returns this program's path; through `/proc` where it has no other any more.
fn own_program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.is_file() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}

fn open_log(path: &Path) -> Result<File, StartError> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("old")).map_err(fail("move", path))?;
    }
    let mut options = File::options();
    options.create(true).append(true).mode(0o600);
    options.open(path).map_err(fail("open", path))
}

/// Tells which variables an agent gets: it outlives the build that started it, and jobs bring their own.
fn is_kept(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"HOME",
        b"USER",
        b"LOGNAME",
        b"PATH",
        b"TMPDIR",
        b"TZ",
        b"LANG",
        b"RUST_BACKTRACE",
    ];
    NAMES.contains(&name) || name.starts_with(b"RDCC_") && name != b"RDCC_DEPTH" || name.starts_with(b"XDG_")
}

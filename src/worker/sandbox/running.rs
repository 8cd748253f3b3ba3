//! One job from the moment it is handed to a launcher until nothing of it is left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::lane::{Killer, Lane, Link};
use super::launcher::Idle;
use super::upper::Layer;
use super::wire::{Cost, Event};
use super::{Command, Finished, JobLimits, Limit, Mode, SandboxError, UpperDir, limits};
use crate::job::{Status, Usage};
use crate::worker::process::{self, Stream};

/// What a process that was killed ends with.
const KILLED: Status = Status::Signaled(9);

/// Time from asking a launcher to kill its job to doubting the launcher itself. Freeing the memory of a large compiler
/// takes a slow board a second.
const KILL_WAIT: Duration = Duration::from_secs(20);

/// A job that has been started. Dropping it kills the job.
#[derive(Debug)]
pub struct Running {
    link: Link,
    idle: Idle,
    stdout: OwnedFd,
    stderr: OwnedFd,
    written: OwnedFd,
    layer: Layer,
    outputs: Vec<PathBuf>,
    limits: JobLimits,
    started: Instant,
    killer: Killer,
    switch: KillSwitch,
}

/// Kills a job, also while [`Running::finished`] waits for it. Does nothing once the job has ended, when its launcher may
/// have another one.
#[derive(Debug, Clone)]
pub struct KillSwitch(Arc<Mutex<Switch>>);

#[derive(Debug)]
struct Switch {
    /// Gone with the job.
    killer: Option<Killer>,
    pressed: bool,
}

impl KillSwitch {
    fn new(killer: Killer) -> Self {
        Self(Arc::new(Mutex::new(Switch {
            killer: Some(killer),
            pressed: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Switch> {
        // A switch is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills every process of the job, soon. [`Running::finished`] then returns.
    pub fn kill(&self) {
        let mut switch = self.lock();
        if let Some(killer) = &switch.killer {
            killer.kill();
            switch.pressed = true;
        }
    }

    /// Takes the switch off the launcher. Returns whether it was used.
    fn retire(&self) -> bool {
        let mut switch = self.lock();
        switch.killer = None;
        switch.pressed
    }
}

impl Running {
    /// Hands a job to a launcher and waits until its program is executing.
    pub(super) async fn start(
        lane: Lane,
        idle: &Idle,
        mode: Mode,
        frame: &[u8],
        command: &Command,
    ) -> Result<Self, SandboxError> {
        let mut link = Link::new(lane)?;
        let output = process::pipe().map_err(|source| io_error("making a pipe", source))?;
        let errors = stderr_of(command)?;
        let started = Instant::now();
        link.send(frame, &[output.far.as_fd(), errors.far.as_fd()]).await?;
        let (stdout, stderr) = (output.near, errors.near);
        // The job's ends are the launcher's now; were they kept here, the streams would never end.
        drop((output.far, errors.far));
        let error = match link.event().await? {
            Event::Started => {
                let written = link.descriptor().ok_or(SandboxError::LauncherDied)?;
                return Ok(Self {
                    killer: link.killer(),
                    switch: KillSwitch::new(link.killer()),
                    link,
                    idle: idle.clone(),
                    stdout,
                    stderr,
                    written,
                    layer: match mode {
                        Mode::UserOverlay | Mode::RootOverlay => Layer::Overlay,
                        Mode::UserBinds | Mode::RootBinds => Layer::Tree,
                    },
                    outputs: command.outputs.clone(),
                    limits: command.limits,
                    started,
                });
            }
            Event::NotExecuted { errno } => SandboxError::Program {
                program: command.program.clone(),
                source: io::Error::from_raw_os_error(errno),
            },
            // Only the node's own need of memory kills a job that early.
            Event::Reaped(_) => {
                idle.put(link.into_lane()?);
                return Err(SandboxError::Root {
                    step: "being killed before the program began".to_owned(),
                    source: io::ErrorKind::OutOfMemory.into(),
                });
            }
            event => not_begun(event),
        };
        reaped(&mut link, &mut None).await?;
        idle.put(link.into_lane()?);
        Err(error)
    }

    /// Kills every process of the job, soon. [`Running::finished`] then returns.
    pub fn kill(&self) {
        self.switch.kill();
    }

    /// Returns what kills the job while [`Running::finished`] waits for it.
    pub fn kill_switch(&self) -> KillSwitch {
        self.switch.clone()
    }

    /// Waits for the end of the job, enforcing its wall clock and text limits meanwhile.
    pub async fn finished(self) -> Result<Finished, SandboxError> {
        let Running { mut link, limits, .. } = self;
        let cut = OnceLock::new();
        let cut_at = |limit| {
            cut.set(limit).ok();
            self.killer.kill();
        };
        let deadline = self.started + limits.wall;
        let (ended, stdout, stderr) = tokio::join!(
            ended(&mut link, deadline, || cut_at(Limit::Wall)),
            process::capture(self.stdout, limits.text_bytes, || cut_at(Limit::TextBytes)),
            process::capture(self.stderr, limits.text_bytes, || cut_at(Limit::TextBytes)),
        );
        let Ended { status, cost } = ended?;
        let wall = self.started.elapsed();
        let given_up = self.switch.retire();
        self.idle.put(link.into_lane()?);
        let stdout = stdout.map_err(|source| io_error("reading a job's standard output", source))?;
        let stderr = stderr.map_err(|source| io_error("reading a job's standard error", source))?;

        let mut killed_by = cut.into_inner();
        let status = status.unwrap_or(KILLED);
        if killed_by.is_none() && !given_up {
            killed_by = limits::hit(status, &stderr, cost.user + cost.system, &limits);
            if killed_by.is_none() && self.layer == Layer::Tree && limits::hindered(&stderr) {
                killed_by = Some(Limit::Writing);
            }
        }
        let mut outputs = UpperDir::empty();
        if killed_by.is_none() && !given_up {
            match UpperDir::read(self.written, self.layer, &self.outputs, limits.output_bytes)? {
                Some(read) => outputs = read,
                None => killed_by = Some(Limit::OutputBytes),
            }
        }
        Ok(Finished {
            status,
            stdout,
            stderr,
            usage: usage(&cost, wall),
            outputs,
            killed_by,
        })
    }
}

/// How a job was accounted for.
struct Ended {
    /// Nothing when the first process did not live to tell.
    status: Option<Status>,
    cost: Cost,
}

/// Waits until nothing of a job is left; calls `late` at the deadline.
async fn ended(link: &mut Link, deadline: Instant, late: impl Fn()) -> Result<Ended, SandboxError> {
    let mut status = None;
    if let Ok(cost) = tokio::time::timeout_at(deadline.into(), reaped(link, &mut status)).await {
        return cost.map(|cost| Ended { status, cost });
    }
    late();
    if let Ok(cost) = tokio::time::timeout(KILL_WAIT, reaped(link, &mut status)).await {
        return cost.map(|cost| Ended { status, cost });
    }
    link.end();
    Err(SandboxError::LauncherDied)
}

/// Waits for a job's last event, and notes how its program ended. May be dropped and called again.
async fn reaped(link: &mut Link, status: &mut Option<Status>) -> Result<Cost, SandboxError> {
    loop {
        match link.event().await? {
            Event::Reaped(cost) => return Ok(cost),
            Event::Exited(ended) => *status = Some(ended),
            event => return Err(not_begun(event)),
        }
    }
}

fn not_begun(event: Event) -> SandboxError {
    match event {
        Event::Failed { step, errno } => SandboxError::Root {
            step,
            source: io::Error::from_raw_os_error(errno),
        },
        // The launcher says what makes no sense.
        _ => SandboxError::LauncherDied,
    }
}

fn stderr_of(command: &Command) -> Result<Stream, SandboxError> {
    match command.terminal {
        Some(size) => process::terminal(size).map_err(|source| io_error("making a terminal", source)),
        None => process::pipe().map_err(|source| io_error("making a pipe", source)),
    }
}

fn usage(cost: &Cost, wall: Duration) -> Usage {
    Usage {
        user: cost.user,
        system: cost.system,
        wall,
        memory_peak_bytes: cost.memory_peak_bytes,
        major_faults: cost.major_faults,
    }
}

fn io_error(what: &'static str, source: io::Error) -> SandboxError {
    SandboxError::Io { what, source }
}

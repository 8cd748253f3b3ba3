//! The worker's handle on its launchers: finds out how jobs can be isolated here, hands a job to an idle launcher or
//! starts one more, and takes it back afterwards.
//!
//! There are as many launchers as jobs ever ran at once. One that dies takes its job along and is replaced; the others
//! do not notice.

use std::sync::{Arc, Mutex, PoisonError};

use super::lane::Lane;
use super::running::Running;
use super::{Command, Mode, SandboxError, SandboxReport, SandboxSettings, request};
use crate::job::Usage;

/// The worker's handle on the sandbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Launcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: SandboxSettings,
    report: SandboxReport,
    idle: Idle,
}

/// Launchers that have no job.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Vec<Lane>>>);

impl Idle {
    fn take(&self) -> Option<Lane> {
        // A vector of lanes is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps a lane for the next job.
    pub(super) fn put(&self, lane: Lane) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
    }
}

/// Finds the best way to isolate jobs on this node by trying, and starts the sandbox with it.
///
/// Needs no runtime and may be called at any time. Blocks for some milliseconds.
pub fn start(settings: SandboxSettings) -> Result<Launcher, SandboxError> {
    start_with(settings, modes())
}

/// Returns the modes that are open to this user, best first.
pub fn modes() -> &'static [Mode] {
    if rustix::process::geteuid().is_root() {
        &[Mode::UserOverlay, Mode::RootOverlay, Mode::UserBinds, Mode::RootBinds]
    } else {
        &[Mode::UserOverlay, Mode::UserBinds]
    }
}

/// As [`start`], with the first of `modes` that works.
pub fn start_with(settings: SandboxSettings, modes: &[Mode]) -> Result<Launcher, SandboxError> {
    let mut refused = Vec::new();
    for &mode in modes {
        match Lane::start(&settings, mode) {
            Ok(lane) => {
                let root = rustix::process::geteuid().is_root();
                let report = SandboxReport {
                    mode,
                    refused,
                    job_user: root.then_some(settings.job_user),
                };
                let idle = Idle::default();
                idle.put(lane);
                let shared = Shared { settings, report, idle };
                return Ok(Launcher {
                    shared: Arc::new(shared),
                });
            }
            // The program itself cannot be started: no mode will help.
            Err(error @ SandboxError::Start { .. }) => return Err(error),
            Err(SandboxError::Root { step, source }) => refused.push((mode, format!("{step}: {source}"))),
            Err(other) => refused.push((mode, other.to_string())),
        }
    }
    Err(SandboxError::NoIsolation(refused))
}

impl Launcher {
    /// Starts `command` and returns when its program is executing. Runs as many at once as it is asked to.
    pub async fn run(&self, command: Command) -> Result<Running, SandboxError> {
        let frame = request::frame(&command, &self.shared.settings.lower_base)?;
        self.begin(&frame, &command).await
    }

    /// Runs a job that ends as soon as it begins, in a root without layers, and returns what it used.
    pub async fn trial(&self) -> Result<Usage, SandboxError> {
        let (frame, command) = request::trial();
        Ok(self.begin(&frame, &command).await?.finished().await?.usage)
    }

    async fn begin(&self, frame: &[u8], command: &Command) -> Result<Running, SandboxError> {
        let shared = &*self.shared;
        let mode = shared.report.mode;
        // A launcher may have died while it was idle; nothing of this job has happened then.
        while let Some(lane) = shared.idle.take() {
            if !lane.has_base(&shared.settings) {
                continue;
            }
            match Running::start(lane, &shared.idle, mode, frame, command).await {
                Err(SandboxError::LauncherDied) => {}
                other => return other,
            }
        }
        let lane = Lane::start_more(&shared.settings, mode).await?;
        Running::start(lane, &shared.idle, mode, frame, command).await
    }

    /// Says how jobs run here, and why not better.
    pub fn report(&self) -> &SandboxReport {
        &self.shared.report
    }
}

//! The worker's handle on its launchers: starts them, hands a job to an idle one, takes it back afterwards.

use super::{Command, Finished, SandboxError, SandboxReport, SandboxSettings};

/// The worker's handle on the sandbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Launcher {
    report: std::sync::Arc<SandboxReport>,
}

/// A job that has been started. Dropping it kills the job.
#[derive(Debug)]
pub struct Running {}

/// Finds the best way to isolate jobs on this node by trying, and starts the sandbox with it.
///
/// Needs no runtime and may be called at any time. Blocks for some milliseconds.
pub fn start(settings: SandboxSettings) -> Result<Launcher, SandboxError> {
    drop(settings);
    Err(SandboxError::NoIsolation(Vec::new()))
}

impl Launcher {
    /// Starts `command` and returns when its program is executing. Runs as many at once as it is asked to.
    pub async fn run(&self, command: Command) -> Result<Running, SandboxError> {
        drop(command);
        Err(SandboxError::LauncherDied)
    }

    /// Says how jobs run here, and why not better.
    pub fn report(&self) -> &SandboxReport {
        &self.report
    }
}

impl Running {
    /// Kills every process of the job, soon. [`Running::finished`] then returns.
    pub fn kill(&self) {}

    /// Waits for the end of the job, enforcing its wall clock and text limits meanwhile.
    pub async fn finished(self) -> Result<Finished, SandboxError> {
        Err(SandboxError::LauncherDied)
    }
}

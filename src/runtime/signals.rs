//! SIGTERM and SIGINT as events.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that tell a program to end. From [`Stops::watch`] on they end nothing by themselves, and none is missed.
pub struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    /// Begins to watch. A program does so before it makes what it has to clear away, and before it says that it is ready.
    ///
    /// # Errors
    /// When the system has no room for another handler.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them, and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

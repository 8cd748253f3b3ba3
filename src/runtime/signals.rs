//! SIGTERM and SIGINT as a future.

use tokio::signal::unix::{SignalKind, signal};

/// Returns the name of the first of SIGTERM and SIGINT to arrive.
pub async fn shutdown_requested() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

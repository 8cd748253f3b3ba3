//! A whole coordinator: binds, starts the driver and the services, and stops in order.
//!
//! Stopping ends all sessions at once, since jobs need no coordinator and everybody comes back to the next one, while
//! transfers of bundles have a grace period to end in.

use std::net::SocketAddr;

use tokio_stream::wrappers::TcpListenerStream;

use super::driver::{self, DriverHandle};
use super::service::CoordinatorService;
use super::settings::Settings;
use crate::protocol::{MESSAGE_BYTES_MAX, wire};
use crate::runtime::channel::{self, ListenError};
use crate::runtime::tasks::Tasks;

/// A coordinator that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its state directory cannot be used.
    #[error("cannot use the state directory `{path}`")]
    StateDir {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its driver.
    pub driver: DriverHandle,
}

/// Starts a coordinator as some of `tasks`; it stops when they are cancelled.
pub async fn start(settings: &Settings, tasks: &Tasks) -> Result<Coordinator, StartError> {
    let wanted = channel::listen_address(&settings.listen)?;
    std::fs::create_dir_all(&settings.state_dir).map_err(|source| StartError::StateDir {
        path: settings.state_dir.display().to_string(),
        source,
    })?;
    let listener = channel::listen(wanted).await?;
    let address = listener.local_addr().map_err(|source| ListenError::Bind {
        address: wanted,
        source,
    })?;
    let driver = driver::start(tasks, settings.rules.clone(), Vec::new());
    let service = CoordinatorService::new(driver.clone(), tasks.clone());
    let service = wire::coordinator_server::CoordinatorServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let stop = tasks.token();
    let serving = channel::server()
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the coordinator's listener failed");
        }
    });
    Ok(Coordinator { address, driver })
}

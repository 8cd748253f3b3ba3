//! A whole coordinator: binds, starts the driver and the services, and stops in order.
//!
//! Stopping ends all sessions at once, since jobs need no coordinator and everybody comes back to the next one, while
//! transfers of bundles have a grace period to end in.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

use super::driver::{self, Catalogue, DriverHandle};
use super::events::{Event, HostKind, StandIn, StandIns};
use super::registry::{Registry, RegistryError};
use super::service::CoordinatorService;
use super::settings::Settings;
use super::toolchain_service::{CatalogueChange, ToolchainService};
use crate::protocol::{MESSAGE_BYTES_MAX, wire};
use crate::runtime::channel::{self, ListenError};
use crate::runtime::tasks::Tasks;
use crate::toolchains::host::Host;

/// The registry's place within the state directory.
const TOOLCHAINS_DIR: &str = "toolchains";

/// A coordinator that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its toolchains cannot be read.
    #[error("cannot use the state directory `{}`", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: RegistryError,
    },
    /// The state directory cannot be locked.
    #[error("cannot lock the state directory `{}`", path.display())]
    Lock {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("another coordinator uses the state directory `{}`", .0.display())]
    InUse(PathBuf),
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its driver.
    pub driver: DriverHandle,
    /// Keeps other coordinators away from the state directory.
    _lock: File,
}

/// Starts a coordinator as some of `tasks`; it stops when they are cancelled.
pub async fn start(settings: &Settings, tasks: &Tasks) -> Result<Coordinator, StartError> {
    let wanted = channel::listen_address(&settings.listen)?;
    let lock = lock_state(&settings.state_dir)?;
    let registry = open_registry(&settings.state_dir, tasks).await?;
    let listener = channel::listen(wanted).await?;
    let address = listener.local_addr().map_err(|source| ListenError::Bind {
        address: wanted,
        source,
    })?;
    let known = registry.list().into_iter();
    let known = known.map(|record| (record.id, host_kind(record.manifest.host())));
    let catalogue = Catalogue {
        toolchains: known.collect(),
        stand_ins: stand_ins(&registry),
    };
    let driver = driver::start(tasks, settings.rules.clone(), catalogue);
    let (changes, changed) = mpsc::unbounded_channel();
    tasks.spawn_until_cancelled(tell_changes(changed, driver.clone(), registry.clone(), tasks.clone()));
    let toolchains = ToolchainService::new(registry, tasks.clone(), changes).into_server();
    let service = CoordinatorService::new(driver.clone(), tasks.clone());
    let service = wire::coordinator_server::CoordinatorServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let stop = tasks.token();
    let serving = channel::server()
        .add_service(service)
        .add_service(toolchains)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the coordinator's listener failed");
        }
    });
    Ok(Coordinator {
        address,
        driver,
        _lock: lock,
    })
}

/// Takes the state directory for this process; another one would write over its registry.
fn lock_state(state_dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Lock {
        path: state_dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(state_dir).map_err(failed)?;
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = options.open(state_dir.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse(state_dir.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

async fn open_registry(state_dir: &Path, tasks: &Tasks) -> Result<Arc<Registry>, StartError> {
    let path = state_dir.join(TOOLCHAINS_DIR);
    let opened = tasks.blocking(move || Registry::open(&path)).await;
    opened.map(Arc::new).map_err(|source| StartError::StateDir {
        path: state_dir.to_owned(),
        source,
    })
}

fn host_kind(host: Host) -> HostKind {
    HostKind(host.to_string())
}

/// Asks the registry who may stand in for whom. Blocks on nothing but its lock; compares golden objects.
fn stand_ins(registry: &Registry) -> StandIns {
    let of_host = |(host, (toolchain, level))| (host_kind(host), StandIn { toolchain, level });
    let pairs = registry.pairs().into_iter();
    pairs
        .map(|(toolchain, by_host)| (toolchain, by_host.into_iter().map(of_host).collect()))
        .collect()
}

/// Passes changes of the catalogue on to the scheduler. Who may stand in for whom is asked by this one task, after each
/// change, so that an old answer never comes behind a new one.
async fn tell_changes(
    mut changed: mpsc::UnboundedReceiver<CatalogueChange>,
    driver: DriverHandle,
    registry: Arc<Registry>,
    tasks: Tasks,
) {
    while let Some(change) = changed.recv().await {
        let event = match change {
            CatalogueChange::Added(toolchain, host) => Event::ToolchainAdded(toolchain, host_kind(host)),
            CatalogueChange::Removed(toolchain) => Event::ToolchainRemoved(toolchain),
        };
        let registry = registry.clone();
        let table = tasks.blocking(move || stand_ins(&registry)).await;
        for event in [event, Event::StandIns(table)] {
            if driver.tell(event).await.is_err() {
                return;
            }
        }
    }
}

//! A whole coordinator: binds, starts the driver and the services, and stops in order.
//!
//! Stopping ends all sessions at once, since jobs need no coordinator and everybody comes back to the next one, while
//! transfers of bundles have a grace period to end in.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use tokio::sync::mpsc;

use super::driver::{self, Catalogue, DriverHandle};
use super::enrolment_service::EnrolmentService;
use super::events::{Event, HostKind, StandIn, StandIns};
use super::farm::{AuditLog, Farm, FarmError, now_unix_s};
use super::guard_service::GuardLayer;
use super::kept_files::KeptFiles;
use super::registry::{Registry, RegistryError};
use super::service::CoordinatorService;
use super::settings::Settings;
use super::toolchain_service::{CatalogueChange, ToolchainService};
use crate::protocol::{MESSAGE_BYTES_MAX, wire};
use crate::runtime::channel::{self, ListenError};
use crate::runtime::discovery::{self, Announced, Announcement};
use crate::runtime::tasks::Tasks;
use crate::toolchains::host::Host;
use crate::trust::listening::{self, Guard, Server};

/// The registry's place within the state directory.
const TOOLCHAINS_DIR: &str = "toolchains";

/// What every status says where anybody on a network may use the farm.
const INSECURE: &str =
    "INSECURE: --insecure-lan is set; every machine on the allowed networks may run commands on this farm";
/// Largest message about members: a public key and a name.
const ENROLMENT_BYTES_MAX: usize = 64 << 10;
/// Certificates are not renewed more often than this, however short their lives.
const RENEWAL_LEAST: Duration = Duration::from_millis(500);
/// How often the clock is looked at, which somebody may set: nobody gets in with a certificate that has ended by it.
const RENEWAL_LOOK: Duration = Duration::from_secs(10);

/// A coordinator that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its farm cannot be used.
    #[error("cannot use the farm in the state directory")]
    Farm(#[from] FarmError),
    /// A farm has certificates, and `--insecure-lan` wants none.
    #[error("this coordinator has a farm with certificates, and `--insecure-lan` would let others in without")]
    InsecureFarm,
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
    _announced: Option<Announced>,
    /// Keeps other coordinators away from the state directory.
    _lock: File,
}

/// Starts a coordinator as some of `tasks`; it stops when they are cancelled.
pub async fn start(settings: &Settings, tasks: &Tasks) -> Result<Coordinator, StartError> {
    let lock = lock_state(&settings.state_dir)?;
    let audit = AuditLog::new(&settings.state_dir);
    let farm = open_farm(settings, &audit, tasks).await?;
    let guard = guard(settings, farm.as_ref(), tasks)?;
    let wanted = listening::address(&settings.listen, &guard)?;
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
    let files = KeptFiles::new(&settings.state_dir, tasks);
    let driver = driver::start(tasks, settings.rules.clone(), catalogue, files).await;
    let (changes, changed) = mpsc::unbounded_channel();
    tasks.spawn_until_cancelled(tell_changes(changed, driver.clone(), registry.clone(), tasks.clone()));
    let toolchains = ToolchainService::new(registry, tasks.clone(), changes, audit.clone()).into_server();
    let warning = settings.insecure_lan.as_ref().map(|_| INSECURE.to_owned());
    let service = CoordinatorService::new(driver.clone(), tasks.clone(), farm.clone(), audit, warning);
    let service = wire::coordinator_server::CoordinatorServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let enrolment = EnrolmentService::new(farm.clone(), tasks.clone());
    let enrolment =
        wire::enrolment_server::EnrolmentServer::new(enrolment).max_decoding_message_size(ENROLMENT_BYTES_MAX);
    let announced = settings.announce.then(|| announced(address, farm.is_some())).flatten();
    let serving = channel::server()
        .layer(GuardLayer::new(farm))
        .add_service(service)
        .add_service(toolchains)
        .add_service(enrolment)
        .serve_with_incoming_shutdown(
            listening::incoming(listener, guard, tasks),
            tasks.token().cancelled_owned(),
        );
    channel::serve(serving, "coordinator", tasks);
    Ok(Coordinator {
        address,
        driver,
        _announced: announced,
        _lock: lock,
    })
}

/// Announces a coordinator, as far as that is of use and can be done; it works without.
fn announced(address: SocketAddr, certificates: bool) -> Option<Announced> {
    if address.ip().is_loopback() {
        tracing::warn!("not announced: nobody on the network can reach {address}");
        return None;
    }
    let announcement = Announcement {
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        address,
        certificates,
    };
    let announced = discovery::announce(&announcement);
    announced
        .inspect_err(|error| tracing::warn!(error = error as &dyn std::error::Error, "not announced"))
        .ok()
}

async fn open_farm(settings: &Settings, audit: &Arc<AuditLog>, tasks: &Tasks) -> Result<Option<Arc<Farm>>, StartError> {
    let (state_dir, valid, audit) = (settings.state_dir.clone(), settings.certificate_valid, audit.clone());
    let opened = tasks.blocking(move || Farm::open(&state_dir, valid, audit)).await?;
    Ok(opened.map(Arc::new))
}

/// How the listener is guarded: by certificates where there is a farm.
fn guard(settings: &Settings, farm: Option<&Arc<Farm>>, tasks: &Tasks) -> Result<Guard, StartError> {
    let networks = settings.insecure_lan.clone();
    let Some(farm) = farm else {
        if networks.is_some() {
            tracing::warn!("{INSECURE}");
        }
        return Ok(networks.map_or(Guard::Loopback, |networks| Guard::Networks(networks.into())));
    };
    if networks.is_some() {
        return Err(StartError::InsecureFarm);
    }
    let server = Server::new(farm.server_config()?);
    tasks.spawn_until_cancelled(renew_regularly(
        farm.clone(),
        server.clone(),
        settings.certificate_valid,
    ));
    Ok(Guard::Farm(server))
}

/// Gives the server a new certificate whenever half of the present one's time is over, by whichever clock says so first:
/// one that was signed before a clock was set forward ends before its time.
async fn renew_regularly(farm: Arc<Farm>, server: Arc<Server>, valid: Duration) {
    let half = valid / 2;
    let (mut signed, mut signed_unix_s) = (Instant::now(), now_unix_s());
    loop {
        let left = half.saturating_sub(signed.elapsed());
        tokio::time::sleep(left.clamp(RENEWAL_LEAST, RENEWAL_LOOK)).await;
        if signed.elapsed() < half && now_unix_s().saturating_sub(signed_unix_s) < half.as_secs() {
            continue;
        }
        (signed, signed_unix_s) = (Instant::now(), now_unix_s());
        if let Err(error) = farm.renew_server(&server) {
            tracing::error!(%error, "the coordinator's certificate is not renewed");
        }
    }
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

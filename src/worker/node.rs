//! A whole worker: its state directory, stores, sandbox, service and session, and how it stops in order.
//!
//! Stopping lets running jobs end within a grace period, and tells the coordinator at once that no more are taken.
//! Invariant: one process at a time uses a state directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::admission::Door;
use super::coordinator_rpc::CoordinatorBundles;
use super::cores::{self, CpuList, Group};
use super::executor::{self, Executor};
use super::link_service::LinkService;
use super::mirror::{Mirrors, Owner};
use super::power;
use super::sandbox::{self, Launcher, SandboxError, SandboxReport, SandboxSettings};
use super::session::{Session, WorkerIdentity, memory_field};
use super::settings::Settings;
use super::toolchains::{FetchProgress, WorkerToolchains};
use super::variant_checks::{Sources, VariantChecks};
use crate::ids::Name;
use crate::runtime::channel::{self, ListenError};
use crate::runtime::tasks::{Ended, Tasks};
use crate::store::disk::{DiskStore, StoreError};
use crate::toolchains::host::Host;
use crate::toolchains::installed::{InstallError, ToolchainStore};
use crate::trust::credentials::{Credentials, Kept, Trust, TrustError};
use crate::trust::identity::{Identity, Role};
use crate::trust::listening::{self, Guard, Server};
use crate::trust::tls::{self, Strangers};
use crate::trust::{self, enrolment_rpc};

/// Time that running jobs have to end when the worker is asked to stop: most compiles take less, and service managers
/// lose patience after a minute and a half.
pub const JOBS_GRACE: Duration = Duration::from_secs(30);
/// Time for everything else to end after that.
const TASKS_GRACE: Duration = Duration::from_secs(10);

/// A worker that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("cannot use the state directory `{}`", path.display())]
    StateDir {
        /// The directory, or what in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("another worker uses the state directory `{}`", .0.display())]
    InUse(PathBuf),
    /// The blob store does not open.
    #[error("cannot open the store of inputs")]
    Blobs(#[from] StoreError),
    /// The toolchain store does not open.
    #[error("cannot open the store of toolchains")]
    Toolchains(#[from] InstallError),
    /// Jobs cannot be isolated.
    #[error("cannot run jobs")]
    Sandbox(#[from] SandboxError),
    /// The coordinator's address is none.
    #[error("`{address}` is not the address of a coordinator")]
    Coordinator {
        /// What was given.
        address: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// Its certificate cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// It is called otherwise than its certificate says.
    #[error("this worker is called `{called}`, but it joined the farm as {joined}")]
    OtherName {
        /// By its settings.
        called: Name,
        /// By its certificate.
        joined: Identity,
    },
    /// A farm has certificates, and `--insecure-lan` wants none.
    #[error("this worker's farm has certificates, and `--insecure-lan` would let others in without")]
    InsecureFarm,
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A running worker.
#[derive(Debug)]
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// How its jobs are isolated.
    pub sandbox: SandboxReport,
    door: Door,
    tasks: Tasks,
    /// Held for as long as the state directory is used.
    _lock: File,
}

impl Node {
    /// Starts a worker. `launcher_program` is a program that becomes the sandbox's launcher when asked to, normally this
    /// one. `joined` is called whenever the coordinator has welcomed the worker.
    pub async fn start(
        settings: &Settings,
        launcher_program: &Path,
        tasks: &Tasks,
        joined: impl FnMut() + Send + 'static,
    ) -> Result<Self, StartError> {
        let lock = lock_state(&settings.state_dir)?;
        let coordinator = settings.coordinator.clone();
        let own = trust::credentials::directory(&settings.state_dir);
        let trust = tasks.blocking(move || Trust::with(&coordinator, &own)).await?;
        let guard = guard(settings, &trust, tasks)?;
        let wanted = listening::address(&settings.listen, &guard)?;
        let bundles =
            CoordinatorBundles::new(&settings.coordinator, &trust).map_err(|source| StartError::Coordinator {
                address: settings.coordinator.clone(),
                source,
            })?;
        let listener = channel::listen(wanted).await?;
        let address = listener.local_addr().map_err(|source| ListenError::Bind {
            address: wanted,
            source,
        })?;
        let (opening, program) = (settings.clone(), launcher_program.to_owned());
        let parts = tasks.blocking(move || Parts::open(&opening, &program)).await?;
        let door = Door::new(slots(settings, &parts.cores));
        let report = Box::new(tell_progress);
        let toolchains = WorkerToolchains::new(parts.toolchains, bundles.clone(), tasks.clone(), report);
        let toolchains = Arc::new(toolchains);
        let sandbox = parts.launcher.report().clone();
        let launcher: Arc<dyn executor::Sandbox> = Arc::new(parts.launcher);
        let variants = VariantChecks::new(
            Arc::new(bundles.clone()),
            launcher.clone(),
            settings.limits,
            tasks.clone(),
            parts.golden_sources,
        );
        let executor = Arc::new(Executor {
            door: door.clone(),
            toolchains: toolchains.clone(),
            mirrors: parts.mirrors.clone(),
            sandbox: launcher,
            variants,
            ceilings: settings.limits,
            core_groups: parts.cores.iter().map(|group| group.cpus.clone()).collect(),
            blob_quota_bytes: settings.blob_quota_bytes,
            tasks: tasks.clone(),
        });
        let links = LinkService::new(executor, parts.blobs, tasks.clone()).into_server();
        let serving = channel::server().add_service(links).serve_with_incoming_shutdown(
            listening::incoming(listener, guard, tasks),
            tasks.token().cancelled_owned(),
        );
        channel::serve(serving, "worker", tasks);
        let session = Session {
            coordinator: settings.coordinator.clone(),
            identity: identity(settings, address, (parts.power, parts.cores), &sandbox),
            trust,
            places: Arc::new(door.clone()),
            toolchains,
            tasks: tasks.clone(),
            drained: AtomicBool::new(false),
        };
        tasks.spawn(session.run(joined));
        sweep(parts.mirrors, tasks);
        Ok(Self {
            address,
            sandbox,
            door,
            tasks: tasks.clone(),
            _lock: lock,
        })
    }

    /// Takes no more jobs, and returns when none runs any more or [`JOBS_GRACE`] is over.
    pub async fn drain(&self) {
        self.door.close();
        if tokio::time::timeout(JOBS_GRACE, self.door.idle()).await.is_err() {
            tracing::warn!("jobs are still running; they are killed");
        }
    }

    /// Ends everything.
    pub async fn stop(self) -> Ended {
        self.tasks.shut_down(TASKS_GRACE).await
    }
}

/// What takes time to open.
struct Parts {
    blobs: DiskStore,
    toolchains: ToolchainStore,
    mirrors: Mirrors,
    golden_sources: Sources,
    launcher: Launcher,
    power: f64,
    /// Cores of different speed, the fastest first; empty: all are alike.
    cores: Vec<Group>,
}

impl Parts {
    fn open(settings: &Settings, launcher_program: &Path) -> Result<Self, StartError> {
        let state = &settings.state_dir;
        let roots = state.join("roots");
        // Jobs see their roots through this directory, as whoever they run as.
        make_directory(&roots, 0o711)?;
        let blobs = DiskStore::open(&state.join("blobs"), settings.blob_quota_bytes)?;
        let toolchains = ToolchainStore::open(&roots.join("toolchains"), settings.toolchain_quota_bytes)?;
        let launcher = sandbox::start(SandboxSettings {
            launcher_program: launcher_program.to_owned(),
            lower_base: roots.clone(),
            job_user: sandbox::JobUser::default(),
            niceness: settings.niceness,
        })?;
        let owner = launcher.report().job_user.map(|user| Owner {
            uid: user.uid,
            gid: user.gid,
        });
        let golden_sources = Sources {
            directory: roots.join("golden"),
            owner,
        };
        let mirrors = roots.join("mirrors");
        let mirrors = Mirrors::open(&mirrors, blobs.clone(), owner, settings.mirror_quota_bytes)
            .map_err(|source| StartError::StateDir { path: mirrors, source })?;
        let groups = settings.cores.iter().map(|group| Group {
            cpus: group.cpus.clone(),
            slots: group.slots,
            power: group.power.unwrap_or_else(|| measured_power(state, Some(&group.cpus))),
        });
        let groups = cores::in_order(groups.collect());
        let power = match (settings.power, groups.is_empty()) {
            (Some(power), _) => power,
            (None, true) => measured_power(state, None),
            (None, false) => cores::mean_power(&groups),
        };
        Ok(Self {
            blobs,
            toolchains,
            mirrors,
            golden_sources,
            launcher,
            power,
            cores: groups,
        })
    }
}

/// Returns how many jobs may run at a time, on cores of each speed.
fn slots(settings: &Settings, cores: &[Group]) -> Vec<u32> {
    match cores {
        [] => vec![settings.slots],
        groups => groups.iter().map(|group| group.slots).collect(),
    }
}

fn tell_progress(progress: FetchProgress) {
    let (received, total) = (progress.received_bytes, progress.total_bytes);
    tracing::info!(toolchain = %progress.toolchain, received, total, "fetching a toolchain");
}

/// Removes what an earlier life left behind, while the first jobs come in.
fn sweep(mirrors: Mirrors, tasks: &Tasks) {
    let sweeping = tasks.clone();
    tasks.spawn(async move { sweeping.blocking(move || mirrors.sweep()).await });
}

fn lock_state(state: &Path) -> Result<File, StartError> {
    make_directory(state, 0o755)?;
    let path = state.join("lock");
    let failed = |source| StartError::StateDir {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse(state.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| StartError::StateDir {
        path: path.to_owned(),
        source,
    })
}

/// Returns the power of this machine, or of some of its cores, measured once per processor model and program version.
fn measured_power(state: &Path, cpus: Option<&CpuList>) -> f64 {
    let path = state.join(cpus.map_or_else(|| "power".to_owned(), |cpus| format!("power-{cpus}")));
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let key = power_key(&cpuinfo);
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let known = kept.strip_prefix(&key).and_then(|rest| rest.trim().parse().ok());
    known.unwrap_or_else(|| {
        let on = cpus.map(CpuList::to_string);
        tracing::info!(on, "measuring this machine's power");
        let power = power::measure(cpus);
        // If it is not kept, the next start measures again.
        let _ = fs::write(&path, format!("{key}{power:.3}\n"));
        power
    })
}

/// What a measurement holds for: the processor's model as the kernel names it, and this program's version.
fn power_key(cpuinfo: &str) -> String {
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name") || line.starts_with("Hardware"));
    let model = model
        .and_then(|line| line.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    format!("{model}\nrdcc {}\n", env!("CARGO_PKG_VERSION"))
}

/// How the listener is guarded: by certificates where the coordinator has a farm.
fn guard(settings: &Settings, trust: &Trust, tasks: &Tasks) -> Result<Guard, StartError> {
    let networks = settings.insecure_lan.clone();
    let Trust::Farm(kept) = trust else {
        if networks.is_some() {
            tracing::warn!("INSECURE: every machine on the allowed networks may run commands on this node");
        }
        return Ok(networks.map_or(Guard::Loopback, |networks| Guard::Networks(networks.into())));
    };
    if networks.is_some() {
        return Err(StartError::InsecureFarm);
    }
    let joined = kept.current().identity.clone();
    if joined.role != Role::Worker || joined.name != settings.name {
        let called = settings.name.clone();
        return Err(StartError::OtherName { called, joined });
    }
    let server = Server::new(server_config(&kept.current())?);
    tasks.spawn_until_cancelled(renew_regularly(kept.clone(), server.clone(), tasks.clone()));
    Ok(Guard::Farm(server))
}

fn server_config(own: &Credentials) -> Result<Arc<tokio_rustls::rustls::ServerConfig>, tokio_rustls::rustls::Error> {
    tls::server(&own.authority, &own.certificate, &own.key, Strangers::Refused)
}

/// Has the certificate renewed, for those who connect from then on.
async fn renew_regularly(kept: Arc<Kept>, server: Arc<Server>, tasks: Tasks) {
    loop {
        enrolment_rpc::renewed(&kept, &tasks).await;
        match server_config(&kept.current()) {
            Ok(config) => server.renew(config),
            Err(error) => tracing::error!(%error, "the new certificate cannot be used"),
        }
    }
}

fn identity(
    settings: &Settings,
    address: SocketAddr,
    (power, cores): (f64, Vec<Group>),
    sandbox: &SandboxReport,
) -> WorkerIdentity {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    WorkerIdentity {
        name: settings.name.clone(),
        address: settings.address.clone().unwrap_or_else(|| address.to_string()),
        slots: settings.slots,
        power,
        cores,
        host_kind: Host::current().to_string(),
        memory_bytes: memory_field(&meminfo, "MemTotal:"),
        sandbox: format!("{:?}", sandbox.mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directory_serves_one_worker_at_a_time() {
        let state = tempfile::tempdir().expect("temporary directory");
        let held = lock_state(state.path()).expect("free");
        assert!(matches!(lock_state(state.path()), Err(StartError::InUse(_))));
        drop(held);
        assert!(lock_state(state.path()).is_ok());
    }

    #[test]
    fn power_is_kept_for_the_same_processor_only() {
        let pc = power_key("processor: 0\nmodel name\t: Some CPU @ 2 GHz\n");
        assert!(pc.starts_with("Some CPU @ 2 GHz\nrdcc "));
        assert_ne!(pc, power_key("Hardware\t: Allwinner sun7i (A20) Family\n"));
        assert!(power_key("").starts_with("unknown\n"));
    }
}

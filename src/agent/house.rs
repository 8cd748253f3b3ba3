//! An agent put together: its parts made from the settings, and what it answers to those who connect.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::audit::Lottery;
use super::broker::Broker;
use super::build_log::BuildLog;
use super::builds::Own;
use super::closures::{Closures, Home, Remembered};
use super::cluster::Cluster;
use super::compiler_run::CompilerRunner;
use super::coordinator_link::{CoordinatorLink, Identity};
use super::driver::{Auditor, Driver};
use super::farm::Farm;
use super::inputs::{InputMaker, Shipped};
use super::learned::Learned;
use super::ledger::Ledger;
use super::local_slots::LocalSlots;
use super::locale_probe::LocaleProbes;
use super::profiles::Profiles;
use super::recheck::Rechecks;
use super::socket::{Answer, Caller, Service};
use super::toolchain_resolve::Toolchains;
use super::watch::Watch;
use crate::digest::Digest;
use crate::exchange::place::{Place, pushed_definitions};
use crate::exchange::settings::Settings;
use crate::exchange::{
    AgentReport, AuditReport, BuildTrace, CompileRequest, Complaint, JobRecord, Reply, ReportedFarm, Statistics, Zero,
};
use crate::includes::source_tree::disk::{Bounds, DiskTree};
use crate::runtime::tasks::Tasks;
use crate::toolchains::host::Host;
use crate::trust::{self, credentials::Trust, enrolment_rpc};

/// An agent.
#[derive(Debug)]
pub struct Agent<F> {
    driver: Driver<F>,
    started: Instant,
}

/// What names this client's files to workers.
#[derive(Debug)]
pub struct ClientTree {
    shipped: Shipped,
    boot: Digest,
}

impl ClientTree {
    /// Finds or makes the name in the agent's own directory.
    pub fn open(place: &Place) -> Result<Self, Complaint> {
        let random = random().map_err(|error| Complaint::new("no random numbers").because(error.to_string()))?;
        // Without a boot id every start counts as another boot: fresh mirrors, nothing wrong.
        let boot = match std::fs::read("/proc/sys/kernel/random/boot_id") {
            Ok(id) => Digest::of(&id),
            Err(_) => Digest::from(random),
        };
        let path = place.own_dir().join("shipped");
        let shipped = Shipped::open(&path, boot, random).map_err(|error| Complaint::from_error(&error))?;
        Ok(Self { shipped, boot })
    }

    /// Returns the name.
    pub fn name(&self) -> Digest {
        self.shipped.tree_name()
    }
}

/// What to do about a farm that this user is no member of.
const NOT_JOINED: &str =
    "`rdcc join HOST TOKEN`, with a token that `rdcc token create --role client` made elsewhere, lets this user in";

impl Agent<Cluster> {
    /// Makes an agent that sends its jobs wherever the coordinator of `settings` says. Starts to look for it at once. `host` is
    /// what programs of this machine are made for.
    pub fn of_cluster(
        settings: &Settings,
        place: &Place,
        host: Host,
        identity: Identity,
        ledger: Arc<Ledger>,
        tasks: &Tasks,
    ) -> Result<Self, Complaint> {
        let tree = ClientTree::open(place)?;
        let address = &settings.coordinator;
        let trust = Trust::with(address, &trust::credentials::directory(place.state_dir()));
        // An agent that would not start is one that every compile tries to start. Without a certificate the address, which
        // asks for one, is never connected to.
        let trust = trust.unwrap_or_else(|error| {
            tracing::error!("{}", Complaint::from_error(&error).hint(NOT_JOINED));
            Trust::Plain
        });
        if let Trust::Farm(kept) = &trust {
            tasks.spawn_until_cancelled(enrolment_rpc::renew_regularly(kept.clone(), tasks.clone()));
        }
        let connect = |news| CoordinatorLink::start(tasks, address, trust.clone(), identity, news);
        let (broker, coordinator) = Broker::start(tasks, settings.share_cores, connect);
        let cluster = Cluster::new(broker, coordinator, address, trust, tree.name(), tasks);
        Self::new(settings, place, host, tree, cluster, ledger, tasks)
    }
}

impl<F: Farm> Agent<F> {
    /// Makes an agent that sends its jobs to `farm`.
    pub fn new(
        settings: &Settings,
        place: &Place,
        host: Host,
        tree: ClientTree,
        farm: F,
        ledger: Arc<Ledger>,
        tasks: &Tasks,
    ) -> Result<Self, Complaint> {
        let scratch = fresh_scratch(place).map_err(|error| {
            let path = place.own_dir().join("scratch");
            Complaint::new(format!("cannot make `{}`", path.display())).because(error.to_string())
        })?;
        let mut toolchain_dirs = settings.toolchain_dirs.clone();
        toolchain_dirs.push(pushed_definitions(place.state_dir()));
        let records = place.state_dir().join("captured");
        let files = Arc::new(DiskTree::new(Bounds::default()));
        let learned = Arc::new(Learned::open(place.state_dir()));
        let home = Home {
            directory: place.own_dir().to_owned(),
            boot: tree.boot,
        };
        let random = random().map_err(|error| Complaint::new("no random numbers").because(error.to_string()))?;
        let (farm, watch) = (Arc::new(farm), Watch::default());
        let lottery = Lottery::new(settings.audit, random);
        let auditor = Auditor::new(lottery, farm.clone(), ledger.clone(), watch.clone(), tasks);
        let runner = CompilerRunner::new(settings.local_slots as usize);
        Ok(Self {
            driver: Driver {
                toolchains: Arc::new(Toolchains::new(toolchain_dirs, records, host, place.clone())),
                closures: Closures::new(
                    files.clone(),
                    runner.clone(),
                    tasks.clone(),
                    scratch.clone(),
                    Arc::new(Remembered::new(files.clone(), Some(home))),
                ),
                maker: Arc::new(InputMaker::new(files.clone(), tree.shipped)),
                tree: files,
                locales: LocaleProbes::default(),
                profiles: Profiles::new(runner.clone()),
                runner,
                farm,
                slots: LocalSlots::new(settings.local_slots),
                ledger,
                learned,
                races: Mutex::default(),
                builds: BuildLog::new(Own {
                    cores: settings.cores,
                    compiles: settings.share_cores > 0,
                }),
                tasks: tasks.clone(),
                scratch,
                watch,
                rechecks: Rechecks::default(),
                auditor,
            },
            started: Instant::now(),
        })
    }

    /// Returns what the agent remembers of files and closures, which somebody has to write down.
    pub fn remembered(&self) -> &Arc<Remembered> {
        self.driver.closures.remembered()
    }
}

impl<F> Agent<F> {
    /// Returns what the agent learns of compiles.
    pub fn learned(&self) -> Arc<Learned> {
        self.driver.learned.clone()
    }
}

#[cfg(test)]
impl<F> Agent<F> {
    pub(super) fn driver(&self) -> &Driver<F> {
        &self.driver
    }
}

impl<F: Farm> Service for Agent<F> {
    async fn compile(&self, request: CompileRequest, caller: Caller) -> Answer {
        tokio::select! {
            answer = self.driver.compile(request, caller.pid) => answer,
            () = caller.gone.cancelled() => Reply::Failed(Complaint::new("the caller went away")).into(),
        }
    }

    async fn stats(&self, zero: Zero) -> Result<Statistics, Complaint> {
        let ledger = self.driver.ledger.clone();
        let told = self.driver.tasks.blocking(move || ledger.stats(zero)).await;
        let counters = told.map_err(|error| Complaint::from_error(&error))?;
        Ok(Statistics {
            counters,
            build: self.driver.builds.summary(),
        })
    }

    async fn trace(&self) -> Option<BuildTrace> {
        self.driver.builds.trace()
    }

    async fn why(&self, path: PathBuf) -> Result<Vec<JobRecord>, Complaint> {
        let ledger = self.driver.ledger.clone();
        let told = self.driver.tasks.blocking(move || ledger.why(&path)).await;
        told.map_err(|error| Complaint::from_error(&error))
    }

    async fn audits(&self, zero: Zero) -> Result<AuditReport, Complaint> {
        let ledger = self.driver.ledger.clone();
        let told = self.driver.tasks.blocking(move || ledger.audits(zero)).await;
        told.map_err(|error| Complaint::from_error(&error))
    }

    async fn report(&self) -> AgentReport {
        let (jobs, remarks) = self.driver.watch.report();
        AgentReport {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            coordinator: self.driver.farm.coordinator(),
            link: self.driver.farm.link(),
            farm: self.driver.farm.view().map(|view| ReportedFarm {
                slots: view.slots_total,
                busy: view.slots_busy,
                my_share: view.my_share_slots,
            }),
            jobs,
            remarks,
        }
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Empties the directory for short-lived files: an agent that was killed may have left some.
fn fresh_scratch(place: &Place) -> io::Result<PathBuf> {
    let scratch: PathBuf = Path::new(place.own_dir()).join("scratch");
    match std::fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(&scratch)?;
    Ok(scratch)
}

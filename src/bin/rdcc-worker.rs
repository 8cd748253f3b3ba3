//! `rdcc-worker`: settings, start, wait for a signal, drain, stop.
//!
//! The sandbox starts this program again as its launcher. Exit status: 0 stopped by a signal, 1 cannot start or did not
//! stop in time, 2 the command line or the settings are wrong.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rdcc::ids::Name;
use rdcc::runtime::signals::Stops;
use rdcc::runtime::tasks::{Ended, Tasks};
use rdcc::telemetry::logging::{self, LogTarget};
use rdcc::trust::credentials::{self, Credentials};
use rdcc::trust::enrolment_rpc;
use rdcc::trust::identity::Role;
use rdcc::trust::join_string::JoinString;
use rdcc::worker::cores::CpuList;
use rdcc::worker::doctor;
use rdcc::worker::node::Node;
use rdcc::worker::sandbox::{self, JobUser, SandboxSettings};
use rdcc::worker::settings::{File, Given, Machine, Settings, SettingsError};

/// Where the settings stand when `--config` does not say.
const CONFIG: &str = "/etc/rdcc/worker.toml";
/// What the sandbox starts as its launcher: this program, even when its file has been replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Threads that may block at a time besides two per slot.
const SPARE_THREADS: usize = 6;

/// Compiles for the agents of an rdcc farm.
#[derive(Debug, Parser)]
#[command(name = "rdcc-worker", version)]
struct Arguments {
    /// The coordinator
    #[arg(long, value_name = "http[s]://HOST:PORT")]
    coordinator: Option<String>,
    /// Address to listen on for agents; loopback only, unless this node has joined a farm (`join`)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The node's name [default: the host's]
    #[arg(long, global = true)]
    name: Option<String>,
    /// Jobs at one time [default: one per processor]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Speed of one slot, one reference core being 1.0 [default: measured once]
    #[arg(long, value_name = "P")]
    power: Option<f64>,
    /// Where everything is kept
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Settings; /etc/rdcc/worker.toml is read when it exists and this is not given
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run jobs for machines of the networks in --allow without certificates
    #[arg(long)]
    insecure_lan: bool,
    /// A network for --insecure-lan, such as 192.168.1.0/24; may be given several times
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<ipnet::IpNet>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Says what this node can do to isolate jobs, and what to change
    Doctor,
    /// Joins a farm with certificates
    Join {
        /// HOST or HOST:PORT of its coordinator
        host: String,
        /// The join string that `rdcc token create --role worker` printed
        token: String,
    },
}

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == sandbox::LAUNCHER_ARGUMENT)
    {
        return sandbox::launcher_main();
    }
    let arguments = Arguments::parse();
    match arguments.action {
        Some(Action::Doctor) => return doctor(arguments.state_dir).unwrap_or_else(|error| complain(&error, 1)),
        Some(Action::Join { .. }) => return join(arguments).unwrap_or_else(|error| complain(&error, 1)),
        None => {}
    }
    logging::start(LogTarget::Stderr, std::env::var("RDCC_LOG").ok().as_deref());
    let settings = match settings(arguments) {
        Ok(settings) => settings,
        Err(error) => return complain(&error, 2),
    };
    // One thread decides and carries bytes; whatever blocks has threads of its own, which end when idle.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2 * settings.slots as usize + SPARE_THREADS)
        .build();
    let ended = runtime
        .context("cannot start threads")
        .and_then(|runtime| runtime.block_on(run(&settings)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

/// Examines the node as a worker with this state directory would find it; exit status 1 when no job can run.
fn doctor(state_dir: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let scratch = tempfile::tempdir().context("cannot make a directory to try jobs in")?;
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o711))?;
    let roots = state_dir.map(|directory| directory.join("roots"));
    let settings = SandboxSettings {
        launcher_program: THIS_PROGRAM.into(),
        lower_base: roots
            .filter(|roots| roots.is_dir())
            .unwrap_or_else(|| scratch.path().to_owned()),
        job_user: JobUser::default(),
        niceness: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(doctor::examine(settings));
    write!(std::io::stdout(), "{report}")?;
    Ok(if report.sandbox.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn settings_file(config: Option<&PathBuf>) -> anyhow::Result<File> {
    let path = config.cloned().unwrap_or_else(|| CONFIG.into());
    match std::fs::read_to_string(&path) {
        Ok(text) => File::parse(&text).with_context(|| format!("cannot use the settings in `{}`", path.display())),
        Err(error) if config.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the processors that this program may use; the first alone when the kernel does not say.
fn processors() -> CpuList {
    let allowed = rustix::thread::sched_getaffinity(None).ok();
    let numbers =
        (0..=CpuList::HIGHEST).filter(|cpu| allowed.as_ref().is_some_and(|set| set.is_set(usize::from(*cpu))));
    CpuList::new(numbers).unwrap_or_else(|| CpuList::only(0))
}

/// Joins a farm as a worker, under the name that this worker will have.
fn join(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Some(Action::Join { host, token }) = &arguments.action else {
        return Ok(ExitCode::FAILURE);
    };
    let file = settings_file(arguments.config.as_ref())?;
    let state_dir = arguments
        .state_dir
        .clone()
        .or(file.state_dir)
        .ok_or(SettingsError::Missing("--state-dir"))?;
    let name = arguments.name.clone().or(file.name).unwrap_or_else(host_name);
    let name: Name = name.parse()?;
    let string: JoinString = token.parse()?;
    let directory = credentials::directory(&state_dir);
    if let Some(present) = Credentials::load(&directory)? {
        let (who, farm) = (present.identity, present.coordinator);
        anyhow::bail!(
            "this node is {who} of the farm at `{farm}` already; to join anew remove `{}`",
            directory.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let joined = runtime.block_on(enrolment_rpc::join(host, &string, &name))?;
    if joined.identity.role != Role::Worker {
        anyhow::bail!(
            "this token is for a {}, and is used up now; a worker needs one of `rdcc token create --role worker`",
            joined.identity.role
        );
    }
    joined.save(&directory)?;
    writeln!(
        std::io::stdout(),
        "joined the farm at `{}` as {}",
        joined.coordinator,
        joined.identity
    )?;
    Ok(ExitCode::SUCCESS)
}

fn settings(arguments: Arguments) -> anyhow::Result<Settings> {
    let file = settings_file(arguments.config.as_ref())?;
    let state_dir = arguments.state_dir.as_ref().or(file.state_dir.as_ref());
    let joined = match state_dir {
        Some(state_dir) => Credentials::load(&credentials::directory(state_dir))?,
        None => None,
    };
    let machine = Machine {
        host_name: host_name(),
        processors: processors(),
    };
    let given = Given {
        coordinator: arguments.coordinator,
        listen: arguments.listen,
        name: arguments.name,
        slots: arguments.slots,
        power: arguments.power,
        state_dir: arguments.state_dir,
        insecure_lan: arguments.insecure_lan,
        allow: arguments.allow,
        joined: joined.as_ref().map(|joined| joined.coordinator.clone()),
        joined_name: joined.map(|joined| joined.identity.name),
    };
    Ok(Settings::new(given, file, &machine)?)
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    let tasks = Tasks::default();
    let mut stops = Stops::watch().context("cannot watch for signals")?;
    let (name, mut announced) = (settings.name.clone(), false);
    let (told, mut tell) = tokio::sync::mpsc::channel(1);
    let node = Node::start(settings, THIS_PROGRAM.as_ref(), &tasks, move || {
        // A full channel says the same already.
        let _ = told.try_send(());
    })
    .await?;
    let address = node.address;
    tracing::info!(%address, sandbox = ?node.sandbox.mode, "started");
    let signal = loop {
        tokio::select! {
            signal = stops.next() => break signal,
            Some(()) = tell.recv(), if !announced => {
                announced = true;
                // One line that scripts and service managers may wait for.
                let _ = writeln!(std::io::stdout(), "worker {name} ready on {address}");
            }
        }
    };
    tracing::info!(signal, "stopping; running jobs may end");
    tokio::select! {
        () = node.drain() => {}
        signal = stops.next() => tracing::warn!(signal, "stopping at once"),
    }
    match node.stop().await {
        Ended::Cleanly => Ok(()),
        Ended::Abandoned(count) => anyhow::bail!("{count} tasks did not end in time"),
    }
}

/// Prints an error with its causes, and what to do about it where that is clear.
fn complain(error: &anyhow::Error, status: u8) -> ExitCode {
    eprintln!("rdcc-worker: error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  cause: {cause}");
    }
    if let Some(hint) = hint(error) {
        eprintln!("  hint: {hint}");
    }
    ExitCode::from(status)
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    use rdcc::runtime::channel::ListenError;
    use rdcc::worker::node::StartError;
    if let Some(ListenError::NotLoopback(_)) = error.chain().find_map(|cause| cause.downcast_ref()) {
        return Some(
            "join the farm first: `rdcc-worker join HOST TOKEN`; `rdcc token create --role worker` prints the token",
        );
    }
    let system = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if system.is_some_and(|cause| cause.kind() == std::io::ErrorKind::AddrInUse) {
        return Some("another worker may be running; `--listen` chooses another port");
    }
    match error.downcast_ref::<StartError>() {
        Some(StartError::InUse(_)) => return Some("stop it, or give each worker of a machine its own `--state-dir`"),
        Some(StartError::Trust(_)) => {
            return Some(
                "join the farm first: `rdcc-worker join HOST TOKEN`; `rdcc token create --role worker` prints the token",
            );
        }
        Some(StartError::OtherName { .. }) => {
            return Some("leave out `--name`, or remove `trust` in the state directory and join again");
        }
        Some(StartError::InsecureFarm) => return Some("leave out --insecure-lan"),
        Some(StartError::Sandbox(_)) => return Some("`rdcc-worker doctor` explains what is missing on this node"),
        Some(StartError::Coordinator { .. }) => return Some("give `--coordinator http://HOST:PORT`"),
        _ => {}
    }
    match error.downcast_ref::<SettingsError>() {
        Some(SettingsError::Missing("--allow")) => Some("name the networks too, such as `--allow 192.168.1.0/24`"),
        Some(SettingsError::Missing("--insecure-lan")) => {
            Some("`--allow` goes with `--insecure-lan`; a farm with certificates needs neither")
        }
        Some(SettingsError::Missing(_)) => Some(
            "a worker needs `--coordinator http://HOST:7420`, `--listen 127.0.0.1:PORT` and `--state-dir DIR`, \
             or the same in /etc/rdcc/worker.toml",
        ),
        _ => None,
    }
}

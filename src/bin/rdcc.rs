//! `rdcc`: the compiler's stand-in, the agent behind it, and the commands for people.
//!
//! Reads arguments, environment and configuration files, and hands over. The wrapper comes first, and nothing is done
//! before it that it does not need: it runs for every compile.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rdcc::admin::arguments::{self, Command};
use rdcc::admin::{self, AgentDoor, Context, Ending, Stream};
use rdcc::agent::closures;
use rdcc::agent::coordinator_link::Identity;
use rdcc::agent::house::Agent;
use rdcc::agent::learned;
use rdcc::agent::ledger::{self, Ledger};
use rdcc::agent::socket::{ListenError, Listener};
use rdcc::client::invocation::{self, Invocation, USAGE_STATUS, Variables};
use rdcc::client::link::{self, LinkError, WhenAbsent};
use rdcc::client::surroundings::{self, Environment};
use rdcc::client::{detach, start, wrapper};
use rdcc::exchange::place::Place;
use rdcc::exchange::settings::{File, Given, Settings};
use rdcc::exchange::{Complaint, Reply, Request};
use rdcc::runtime::clock::unix_ms;
use rdcc::runtime::signals::Stops;
use rdcc::runtime::tasks::Tasks;
use rdcc::telemetry::logging::{self, LogTarget};
use rdcc::toolchains::capture::Surroundings;
use rdcc::toolchains::host::Host;
use rdcc::trust::credentials::{self, Credentials};

/// Time for jobs to be cancelled when the agent is told to stop.
const SHUTDOWN_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

fn main() -> ExitCode {
    let env = Environment(std::env::vars_os().collect());
    let variables = Variables {
        toolchain: env.get("RDCC_TOOLCHAIN").map(Into::into),
        strict: env.get("RDCC_STRICT").map(Into::into),
        disable: env.get("RDCC_DISABLE").map(Into::into),
    };
    let argv = std::env::args_os().collect();
    let status = match invocation::read(argv, &variables, &wrapper::Here(&env)) {
        Ok(Invocation::Wrapper(command)) => wrapper::run(command, env),
        Ok(Invocation::Admin(words)) => for_people(words, &env),
        Err(complaint) => complain(&complaint, USAGE_STATUS),
    };
    ExitCode::from(status)
}

fn complain(complaint: &Complaint, status: u8) -> u8 {
    eprint!("{complaint}");
    status
}

fn for_people(words: Vec<OsString>, env: &Environment) -> u8 {
    let own: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    match own[..] {
        // How a wrapper starts the agent; see `client/detach.rs`.
        ["agent", "--launch"] => match detach::launch(&["agent", "--serve"]) {
            Ok(()) => 0,
            Err(error) => complain(&Complaint::new("cannot start the agent").because(error.to_string()), 1),
        },
        ["agent", "--serve"] => or_complain(agent(env, Announce::Ready)),
        _ => match arguments::parse(words) {
            Ok(Command::Agent { foreground: true, .. }) => or_complain(agent(env, Announce::Nothing)),
            Ok(command) => match administrate(command, env) {
                Ok(ending) => print(ending),
                Err(complaint) => complain(&complaint, admin::FAILED),
            },
            Err(ending) => print(ending),
        },
    }
}

fn administrate(command: Command, env: &Environment) -> Result<Ending, Complaint> {
    let path = env.get("PATH").unwrap_or_default();
    let cwd = working_directory(env);
    let context = Context {
        agent: &Door { env },
        settings: settings(env)?,
        state_dir: surroundings::state_dir(env, &cwd),
        cwd,
        surroundings: Surroundings {
            path: std::env::split_paths(path).collect(),
            own_program: std::env::current_exe().ok(),
            environment: env.0.clone(),
        },
        now_unix_ms: unix_ms(),
        stderr: if std::io::stderr().is_terminal() {
            Stream::Terminal
        } else {
            Stream::Other
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Complaint::new("cannot start").because(error.to_string()))?;
    Ok(runtime.block_on(admin::run(command, &context)))
}

fn print(ending: Ending) -> u8 {
    let mut stdout = std::io::stdout();
    // Whoever closes the pipe early (`| head`) has seen enough.
    let _ = stdout.write_all(ending.text.as_bytes()).and_then(|()| stdout.flush());
    match ending.failure {
        None => admin::DONE,
        Some(failure) => complain(&failure.complaint, failure.status),
    }
}

/// The way to the agent for commands.
struct Door<'a> {
    env: &'a Environment,
}

impl Door<'_> {
    fn send(&self, request: &Request, when_absent: WhenAbsent) -> Result<Option<Reply>, Complaint> {
        match link::ask(&place(self.env)?, request, when_absent) {
            Ok((reply, _)) => Ok(Some(reply)),
            Err(LinkError::NotRunning) => Ok(None),
            Err(error) => Err(Complaint::from_error(&error)),
        }
    }
}

impl AgentDoor for Door<'_> {
    fn ask_running(&self, request: &Request) -> Result<Option<Reply>, Complaint> {
        self.send(request, WhenAbsent::GiveUp)
    }

    fn ask(&self, request: &Request) -> Result<Reply, Complaint> {
        let reply = self.send(request, WhenAbsent::Start)?;
        reply.ok_or_else(|| Complaint::new("no agent is running"))
    }
}

fn or_complain(result: Result<(), Complaint>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(complaint) => complain(&complaint, 1),
    }
}

/// Whether somebody waits to hear that the agent listens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announce {
    Ready,
    Nothing,
}

/// Runs the agent until it is idle, retired or told to stop.
fn agent(env: &Environment, announce: Announce) -> Result<(), Complaint> {
    let settings = settings(env)?;
    logging::start(LogTarget::Stderr, settings.log.as_deref());
    let place = place(env)?;
    prepare_process();
    let listener = match Listener::bind(&place) {
        // Somebody listens, which is what the starter wants to hear.
        Err(ListenError::Running(_)) if announce == Announce::Ready => return say_ready(),
        bound => bound.map_err(|error| Complaint::from_error(&error))?,
    };
    if announce == Announce::Ready {
        say_ready()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Scanning, hashing and compressing happen on blocking threads; the others only pass messages.
        .worker_threads(2)
        .max_blocking_threads(settings.local_slots.clamp(2, 16) as usize)
        .enable_all()
        .build()
        .map_err(|error| Complaint::new("cannot start the agent's threads").because(error.to_string()))?;
    runtime.block_on(serve(listener, &place, &settings, identity(env)))
}

async fn serve(listener: Listener, place: &Place, settings: &Settings, identity: Identity) -> Result<(), Complaint> {
    let mut stops =
        Stops::watch().map_err(|error| Complaint::new("cannot watch for signals").because(error.to_string()))?;
    let tasks = Tasks::default();
    let ledger = Arc::new(Ledger::new(place.state_dir()));
    let agent = Agent::of_cluster(settings, place, Host::current(), identity, Arc::clone(&ledger), &tasks)?;
    tasks.spawn(ledger::flush_regularly(Arc::clone(&ledger), tasks.clone()));
    tasks.spawn(learned::save_regularly(agent.learned(), tasks.clone()));
    let remembered = Arc::clone(agent.remembered());
    tasks.spawn(closures::keep_regularly(Arc::clone(&remembered), tasks.clone()));
    let stopping = tasks.clone();
    tasks.spawn_until_cancelled(async move {
        let signal = stops.next().await;
        tracing::info!(signal, "stopping");
        stopping.cancel();
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), place = %place.own_dir().display(), "agent listens");
    let closed = listener.serve(Arc::new(agent), &tasks, settings.idle_exit).await;
    let ended = tasks.shut_down(SHUTDOWN_GRACE).await;
    if let Err(error) = remembered.keep() {
        tracing::warn!(%error, "what is known of files is not saved");
    }
    tracing::info!(?closed, ?ended, "agent ends");
    ledger.flush().map_err(|error| Complaint::from_error(&error))?;
    Ok(())
}

/// Who the agent is, for `rdcc status` elsewhere.
fn identity(env: &Environment) -> Identity {
    let uid = || rustix::process::geteuid().as_raw().to_string();
    let user = env.get("USER").or_else(|| env.get("LOGNAME"));
    Identity {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        user: user.map_or_else(uid, |name| name.to_string_lossy().into_owned()),
        pid: std::process::id(),
    }
}

/// An agent outlives its starter and sees many files: a mask and a limit of its own.
fn prepare_process() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Left as it was, a very parallel build meets the limit, and its wrappers compile here.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

fn say_ready() -> Result<(), Complaint> {
    let mut stdout = std::io::stdout();
    // The starter may have given up waiting, which is no reason to end.
    let _ = stdout.write_all(start::READY).and_then(|()| stdout.flush());
    Ok(())
}

fn place(env: &Environment) -> Result<Place, Complaint> {
    let state_dir = surroundings::state_dir(env, &working_directory(env)).ok_or_else(|| {
        Complaint::new("there is no directory for rdcc's state")
            .because("neither HOME nor the one below /tmp can be used")
            .hint("set RDCC_STATE_DIR to a directory of yours")
    })?;
    Ok(surroundings::place(env, state_dir))
}

/// Returns `/` for a directory that is gone: what people ask about does not depend on it.
fn working_directory(env: &Environment) -> PathBuf {
    surroundings::working_directory(env).unwrap_or_else(|_| PathBuf::from("/"))
}

fn settings(env: &Environment) -> Result<Settings, Complaint> {
    let text = |name: &str| env.get(name).map(|value| value.to_string_lossy().into_owned());
    let absolute = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config_home = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let user_dir = config_home.map(|dir| dir.join("rdcc"));
    let user = match &user_dir {
        Some(dir) => settings_file(&dir.join("config.toml"))?,
        None => File::default(),
    };
    let system = settings_file(Path::new("/etc/rdcc/rdcc.toml"))?;
    let given = Given {
        coordinator: text("RDCC_COORDINATOR"),
        audit: text("RDCC_AUDIT"),
        log: text("RDCC_LOG"),
        joined: joined(env)?,
        user_dir,
        processors: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1024)),
    };
    Settings::new(given, user, system).map_err(|error| {
        Complaint::new("the configuration cannot be used")
            .because(error.to_string())
            .hint("see ~/.config/rdcc/config.toml and /etc/rdcc/rdcc.toml")
    })
}

/// The coordinator whose farm this user has joined, if there is one.
fn joined(env: &Environment) -> Result<Option<String>, Complaint> {
    let Some(state_dir) = surroundings::state_dir(env, &working_directory(env)) else {
        return Ok(None);
    };
    let kept = Credentials::load(&credentials::directory(&state_dir));
    let kept = kept.map_err(|error| {
        Complaint::from_error(&error).hint("remove it and join the farm again: `rdcc join HOST TOKEN`")
    })?;
    Ok(kept.map(|kept| kept.coordinator))
}

fn settings_file(path: &Path) -> Result<File, Complaint> {
    let unusable = |why: String| Complaint::new(format!("cannot use `{}`", path.display())).because(why);
    match std::fs::read_to_string(path) {
        Ok(text) => File::parse(&text).map_err(|error| unusable(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(unusable(error.to_string())),
    }
}

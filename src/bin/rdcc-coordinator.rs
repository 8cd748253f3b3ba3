//! `rdcc-coordinator`: settings, start, wait for a signal, stop in order.
//!
//! Exit status: 0 stopped by a signal, 1 cannot start or did not stop in time, 2 the command line or the settings are
//! wrong.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rdcc::coordinator::farm::{AuditLog, Farm};
use rdcc::coordinator::server;
use rdcc::coordinator::settings::{File, Given, Settings};
use rdcc::runtime::signals::Stops;
use rdcc::runtime::tasks::{Ended, Tasks};
use rdcc::telemetry::logging::{self, LogTarget};
use rdcc::trust::identity::Role;

/// Where the settings stand when `--config` does not say.
const CONFIG: &str = "/etc/rdcc/coordinator.toml";

/// How long the first administrator has to join.
const FIRST_TOKEN_VALID: Duration = Duration::from_secs(3600);

/// Hands out places on the workers of an rdcc compile farm, and keeps its toolchains.
#[derive(Debug, Parser)]
#[command(name = "rdcc-coordinator", version)]
struct Arguments {
    /// Address to listen on; loopback only, unless there is a farm (`init`) [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where toolchains are kept
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Settings; /etc/rdcc/coordinator.toml is read when it exists and this is not given
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let machines of the networks in --allow use the farm without certificates: for networks where everybody may
    /// run commands on every node
    #[arg(long)]
    insecure_lan: bool,
    /// A network for --insecure-lan, such as 192.168.1.0/24; may be given several times
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<ipnet::IpNet>,
    /// Announce this coordinator on the local networks, so that `rdcc find` finds it
    #[arg(long)]
    announce: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a farm with certificates, which other machines may reach, and print how the first administrator joins it
    Init,
    /// Print a join string, by the right of who may read the state directory
    Token {
        /// worker, client or admin
        #[arg(long, default_value = "admin")]
        role: Role,
        /// How many minutes it can be used
        #[arg(long, default_value_t = 60, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=43_200))]
        minutes: u64,
        /// How many machines may join with it
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        uses: u32,
    },
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let action = arguments.action.take();
    logging::start(LogTarget::Stderr, std::env::var("RDCC_LOG").ok().as_deref());
    let settings = match settings(arguments) {
        Ok(settings) => settings,
        Err(error) => return complain(&error, 2),
    };
    if let Some(action) = action {
        return act(&action, &settings).map_or_else(|error| complain(&error, 1), |()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime
        .context("cannot start threads")
        .and_then(|runtime| runtime.block_on(run(&settings)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

fn settings(arguments: Arguments) -> anyhow::Result<Settings> {
    let path = arguments.config.clone().unwrap_or_else(|| CONFIG.into());
    let file = match std::fs::read_to_string(&path) {
        Ok(text) => File::parse(&text).with_context(|| format!("cannot use the settings in `{}`", path.display()))?,
        Err(error) if arguments.config.is_none() && error.kind() == std::io::ErrorKind::NotFound => File::default(),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    };
    let given = Given {
        listen: arguments.listen,
        state_dir: arguments.state_dir,
        insecure_lan: arguments.insecure_lan,
        allow: arguments.allow,
        announce: arguments.announce,
    };
    Ok(Settings::new(given, file)?)
}

/// Carries out what needs no running coordinator.
fn act(action: &Action, settings: &Settings) -> anyhow::Result<()> {
    let (role, valid, uses) = match action {
        Action::Init => {
            Farm::init(&settings.state_dir)?;
            (Role::Admin, FIRST_TOKEN_VALID, 1)
        }
        Action::Token { role, minutes, uses } => (*role, Duration::from_secs(60 * minutes), *uses),
    };
    let audit = AuditLog::new(&settings.state_dir);
    let farm = Farm::open(&settings.state_dir, settings.certificate_valid, audit)?;
    let farm = farm.context("there is no farm in this state directory")?;
    let by = format!(
        "user {} on the coordinator's machine",
        rustix::process::getuid().as_raw()
    );
    let token = farm.create_token(role, valid, uses, &by)?;
    let mut out = std::io::stdout();
    if let Action::Init = action {
        writeln!(
            out,
            "the farm is made. Start the coordinator with an address that the others reach:\n\
             \x20 rdcc-coordinator --listen 0.0.0.0:7420 --state-dir {}\n\
             and within an hour, as the user who is to administer it, on any machine:\n\
             \x20 rdcc join HOST-OF-THE-COORDINATOR {token}\n\
             That user lets workers and other users in: `rdcc token create --role worker`, `--role client`.",
            settings.state_dir.display()
        )?;
    } else {
        writeln!(out, "{token}")?;
    }
    Ok(())
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    let tasks = Tasks::default();
    let mut stops = Stops::watch().context("cannot watch for signals")?;
    let coordinator = server::start(settings, &tasks).await?;
    // One line that scripts and service managers may wait for.
    let _ = writeln!(std::io::stdout(), "listening on {}", coordinator.address);
    let signal = stops.next().await;
    tracing::info!(signal, "stopping");
    match tasks.shut_down(settings.shutdown_grace).await {
        Ended::Cleanly => Ok(()),
        Ended::Abandoned(count) => anyhow::bail!("{count} tasks did not end within {:?}", settings.shutdown_grace),
    }
}

/// Prints an error with its causes, and what to do about it where that is clear.
fn complain(error: &anyhow::Error, status: u8) -> ExitCode {
    eprintln!("rdcc-coordinator: error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  cause: {cause}");
    }
    if let Some(hint) = hint(error) {
        eprintln!("  hint: {hint}");
    }
    ExitCode::from(status)
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    use rdcc::coordinator::server::StartError;
    use rdcc::coordinator::settings::SettingsError;
    use rdcc::runtime::channel::ListenError;
    let in_use = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::AddrInUse;
    let system = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if system.is_some_and(in_use) {
        return Some("another coordinator may be running; `--listen` chooses another port");
    }
    if let Some(StartError::Listen(ListenError::NotLoopback(_))) = error.downcast_ref::<StartError>() {
        return Some("make a farm with certificates first: `rdcc-coordinator init`, with the same --state-dir");
    }
    if let Some(StartError::InUse(_)) = error.downcast_ref::<StartError>() {
        return Some("stop it, or give each coordinator of a machine its own `--state-dir`");
    }
    if let Some(StartError::InsecureFarm) = error.downcast_ref::<StartError>() {
        return Some("leave out --insecure-lan; `rdcc token create` lets machines in");
    }
    match error.downcast_ref::<SettingsError>() {
        Some(SettingsError::Missing("--allow")) => Some("name the networks too, such as `--allow 192.168.1.0/24`"),
        Some(SettingsError::Missing("--insecure-lan")) => {
            Some("`--allow` goes with `--insecure-lan`; a farm with certificates needs neither")
        }
        Some(SettingsError::Missing(_)) => {
            Some("give `--state-dir DIR`, or set `state_dir` in /etc/rdcc/coordinator.toml")
        }
        _ => None,
    }
}

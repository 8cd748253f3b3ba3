//! `rdcc-coordinator`: settings, start, wait for a signal, stop in order.
//!
//! Exit status: 0 stopped by a signal, 1 cannot start or did not stop in time, 2 the command line or the settings are
//! wrong.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use rdcc::coordinator::server;
use rdcc::coordinator::settings::{File, Given, Settings};
use rdcc::runtime::signals;
use rdcc::runtime::tasks::{Ended, Tasks};
use rdcc::telemetry::logging::{self, LogTarget};

/// Where the settings stand when `--config` does not say.
const CONFIG: &str = "/etc/rdcc/coordinator.toml";

/// Hands out places on the workers of an rdcc compile farm, and keeps its toolchains.
#[derive(Debug, Parser)]
#[command(name = "rdcc-coordinator", version)]
struct Arguments {
    /// Address to listen on; loopback only, until there is authentication [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where toolchains are kept
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Settings; /etc/rdcc/coordinator.toml is read when it exists and this is not given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(LogTarget::Stderr, std::env::var("RDCC_LOG").ok().as_deref());
    let settings = match settings(arguments) {
        Ok(settings) => settings,
        Err(error) => return complain(&error, 2),
    };
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
    };
    Ok(Settings::new(given, file)?)
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    let tasks = Tasks::default();
    let signal = signals::shutdown_requested();
    let coordinator = server::start(settings, &tasks).await?;
    // One line that scripts and service managers may wait for.
    let _ = writeln!(std::io::stdout(), "listening on {}", coordinator.address);
    let signal = signal.await.context("cannot watch for signals")?;
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
        return Some("listen on 127.0.0.1, and let other nodes come through a tunnel, say `ssh -R`");
    }
    if let Some(StartError::InUse(_)) = error.downcast_ref::<StartError>() {
        return Some("stop it, or give each coordinator of a machine its own `--state-dir`");
    }
    match error.downcast_ref::<SettingsError>() {
        Some(SettingsError::Missing(_)) => {
            Some("give `--state-dir DIR`, or set `state_dir` in /etc/rdcc/coordinator.toml")
        }
        _ => None,
    }
}

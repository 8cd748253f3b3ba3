//! What a person types: `rdcc status`, `stats`, `why`, `toolchain …`.
//!
//! Each command makes a text and perhaps a [`Failure`]; `bin/` prints both. The cluster is asked over gRPC
//! (`coordinator_rpc`), the local agent through [`AgentDoor`], which `bin/` provides. Rendering is pure. JSON output is a
//! contract; tables are for people and may change.

use std::path::PathBuf;

use crate::exchange::settings::Settings;
use crate::exchange::{Complaint, Reply, Request};

pub mod arguments;
mod audit;
mod check;
mod check_report;
mod cluster;
mod commands;
mod coordinator_rpc;
mod definitions;
mod difference;
mod find;
mod kept_definition;
mod masquerade;
mod masquerade_names;
mod members;
mod members_rpc;
mod nodes;
mod progress;
mod stats;
mod table;
mod toolchain;
mod trace;
mod why;

pub use commands::run;

/// Exit status: done.
pub const DONE: u8 = 0;
/// Exit status: it was tried and failed.
pub const FAILED: u8 = 1;
/// Exit status: the command line is wrong.
pub const USAGE: u8 = 2;
/// Exit status: the coordinator, or the agent, cannot be reached.
pub const UNREACHABLE: u8 = 3;

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct Failure {
    /// For the person.
    pub complaint: Complaint,
    /// For the script: [`FAILED`], [`USAGE`] or [`UNREACHABLE`]; [`DONE`] for a mere warning.
    pub status: u8,
}

impl Failure {
    fn failed(complaint: Complaint) -> Self {
        Self {
            complaint,
            status: FAILED,
        }
    }
}

/// What a command has to say; a failure does not make the rest worthless.
#[derive(Debug, Default)]
pub struct Ending {
    /// For stdout.
    pub text: String,
    /// For stderr, and the exit status.
    pub failure: Option<Failure>,
}

impl From<Result<String, Failure>> for Ending {
    fn from(result: Result<String, Failure>) -> Self {
        match result {
            Ok(text) => Self { text, failure: None },
            Err(failure) => Self {
                text: String::new(),
                failure: Some(failure),
            },
        }
    }
}

/// The way to this user's agent.
pub trait AgentDoor {
    /// Asks an agent that runs; `None` when none does.
    fn ask_running(&self, request: &Request) -> Result<Option<Reply>, Complaint>;
    /// Asks the agent, starting it when it does not run.
    fn ask(&self, request: &Request) -> Result<Reply, Complaint>;
}

/// What the commands need to know of the world.
pub struct Context<'a> {
    /// The agent.
    pub agent: &'a dyn AgentDoor,
    /// The configuration.
    pub settings: Settings,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// Where the user's state is kept; `None` when there is no directory for it, and so no agent either.
    pub state_dir: Option<PathBuf>,
    /// What capturing a toolchain depends on.
    pub surroundings: crate::toolchains::capture::Surroundings,
    /// Milliseconds since 1970.
    pub now_unix_ms: u64,
    /// Whether stderr is a terminal.
    pub stderr: Stream,
}

/// What is at the other end of an output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// A person.
    Terminal,
    /// A file or a program.
    Other,
}

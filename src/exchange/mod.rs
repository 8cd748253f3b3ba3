//! What the wrapper, `rdcc` subcommands and the agent say to each other over the agent's Unix socket.
//!
//! Vocabulary: values and their encoding, no sockets. One connection carries one [`Request`] and one [`Reply`], each in a
//! frame (`frame.rs`). Both ends are the same program, but not always of the same age: the frame's header never changes,
//! and what follows it is understood only by equal [`frame::FORMAT`]s. Invariant: decoding arbitrary bytes ends in a
//! value or a [`codec::Malformed`], never in a panic, and allocates no more than the bytes at hand justify.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

pub mod audits;
pub mod build;
pub mod codec;
pub mod complaint;
pub mod counters;
pub mod escape;
pub mod frame;
pub mod journal;
pub mod place;
pub mod record;
pub mod report;
pub mod settings;

pub use audits::{AuditNote, AuditReport, Audits};
pub use build::{BuildSummary, BuildTrace};
pub use complaint::Complaint;
pub use counters::Counters;
pub use record::{JobRecord, Mode, Phase, Race, Ran, Variant};
pub use report::{AgentReport, ReportedFarm, ReportedJob, Statistics};

use crate::ids::Name;
use crate::job::{Status, Terminal};

/// The variable that counts how often rdcc has become a compiler on the way here.
pub const DEPTH: &str = "RDCC_DEPTH";

/// What is asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Run this compile, or say how to.
    Compile(CompileRequest),
    /// Tell the counters.
    Stats(Zero),
    /// Tell what is known of the jobs that wrote this file.
    Why(PathBuf),
    /// Tell what audits have found; findings are forgotten after that when `Zero::Reset` says so.
    Audits(Zero),
    /// Tell what the agent is doing.
    Status,
    /// Tell the last build, job by job.
    Trace,
    /// Take no more jobs, finish those at hand, and end.
    Retire,
}

/// Whether counters start again after they were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// They go on.
    Keep,
    /// They start again from nothing.
    Reset,
}

/// One command that a build wants a compiler to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileRequest {
    /// The toolchain that `--toolchain` or `RDCC_TOOLCHAIN` named; `None`: to be found by the compiler's content.
    pub toolchain: Option<Name>,
    /// Which compiler.
    pub compiler: Compiler,
    /// The argument vector as the compiler would get it. `argv[0]` is empty for [`Compiler::OfToolchain`]: the agent
    /// knows the path that belongs there.
    pub argv: Vec<OsString>,
    /// Working directory: `$PWD` when that is the same directory, as gcc itself prefers it for `DW_AT_comp_dir`.
    pub cwd: PathBuf,
    /// The whole environment, in the caller's order. The agent decides which of it belongs into a job; what it runs here
    /// itself has to see what the compiler would see.
    pub env: Vec<(OsString, OsString)>,
    /// File mode creation mask.
    pub umask: u32,
    /// Set when stderr is a terminal.
    pub terminal: Option<Terminal>,
    /// Where the user lets it run.
    pub wish: Wish,
    /// The only worker that may run it, where there is one: for `rdcc check`.
    pub worker: Option<Name>,
}

impl CompileRequest {
    /// Returns the value of the environment variable `name`.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_os_str())
    }
}

/// Which compiler a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// This executable: absolute, found on `PATH` if need be, symbolic links not followed.
    At(PathBuf),
    /// The toolchain's own, for this language.
    OfToolchain(Driver),
}

/// Which of a toolchain's compilers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Driver {
    /// The C compiler, as `gcc`.
    C,
    /// The C++ compiler, as `g++`.
    Cxx,
}

/// Where the user lets a job run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Wherever is best.
    Anywhere,
    /// `RDCC_STRICT`: what is distributable and cannot be distributed for want of infrastructure is an error.
    NoFallback,
    /// `RDCC_DISABLE`: here.
    Here,
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The compiler ran and its files are in place.
    Finished(Finished),
    /// The wrapper should execute the compiler itself, in its own place.
    RunLocally(LocalRun),
    /// It cannot be run, or asked, at all; the complaint goes to stderr.
    Failed(Complaint),
    /// This agent takes no more requests: start another one.
    Superseded,
    /// Answer to [`Request::Stats`].
    Stats(Statistics),
    /// Answer to [`Request::Why`], newest first.
    Why(Vec<JobRecord>),
    /// Answer to [`Request::Audits`].
    Audits(AuditReport),
    /// Answer to [`Request::Status`].
    Status(AgentReport),
    /// Answer to [`Request::Retire`].
    Retiring,
    /// Answer to [`Request::Trace`]; `None`: no build since the agent started.
    Trace(Option<BuildTrace>),
}

/// The compiler's answer, less its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Standard error, byte for byte.
    pub stderr: Vec<u8>,
}

/// A command for the wrapper to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRun {
    /// The executable, absolute. It also becomes `argv[0]` where the request left that empty.
    pub program: PathBuf,
    /// Flags that belong to the toolchain's identity, to be put in front of the user's own.
    pub flags: Vec<OsString>,
    /// What happens to the connection meanwhile.
    pub connection: Connection,
    /// What it is made nicer by; 0 for a command that has to run here.
    pub niceness: u8,
}

/// What the wrapper does with its connection when it becomes the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Lets the compiler inherit it, so that its end tells the agent that a local slot is free.
    Inherit,
    /// Closes it.
    Close,
}

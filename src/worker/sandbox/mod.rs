//! Runs one compile in a private root: the caller's directories as `/`, everything written kept apart and handed back.
//!
//! A small process, the *launcher*, is started per job that runs at the same time and is used again for the next one. It
//! lives in name spaces of its own and forks each job from there, so that a job costs a fork and a handful of mounts. What
//! to stage, which outputs matter and when to give up are the caller's decisions.
//!
//! Invariants: a job never runs unisolated; when [`Running::finished`] returns, no process of the job is left; lower
//! directories are never written.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::job::{Status, Terminal, Usage};
use crate::worker::cores::CpuList;

mod channel;
mod filter;
mod inside;
mod landlock;
mod lane;
mod launcher;
mod limits;
mod request;
mod running;
mod upper;
mod wire;

pub use landlock::{is_enough as landlock_is_enough, landlock_version};
pub use launcher::{Launcher, modes, start, start_with};
pub use running::{KillSwitch, Running};
pub use upper::{Change, ChangeKind, UpperDir};

/// The hidden first argument that turns a program into a launcher; such a program calls [`launcher_main`] and nothing else.
pub const LAUNCHER_ARGUMENT: &str = "__launcher";

/// What holds for all jobs of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSettings {
    /// A program that calls [`launcher_main`] when [`LAUNCHER_ARGUMENT`] is its only argument: `/proc/self/exe` of the
    /// worker.
    pub launcher_program: PathBuf,
    /// The directory below which all lower directories lie. It needs to be searchable by the job's user (see
    /// [`JobUser`]); the directories above it do not.
    pub lower_base: PathBuf,
    /// Who jobs run as when the worker is root. An ordinary user's jobs run as that user.
    pub job_user: JobUser,
    /// How far jobs give way to other processes of the node, 0 to 19.
    pub niceness: u8,
}

/// The user that jobs run as when the worker is root.
///
/// Whatever a job reads has to be readable by this user, and the directories it writes to have to be writable by it, as
/// their permission bits stand in the lower directories: a worker that is root gives its mirrors to this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobUser {
    /// Never 0.
    pub uid: u32,
    /// Never 0.
    pub gid: u32,
}

impl Default for JobUser {
    /// `nobody`, as nearly all systems number it.
    fn default() -> Self {
        Self { uid: 65534, gid: 65534 }
    }
}

/// One job, as the sandbox sees it. Paths without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Directories that together are the job's `/`, topmost first, each below [`SandboxSettings::lower_base`]. Where two
    /// hold a file at one path, the first one's is seen; directories merge.
    pub lower: Vec<PathBuf>,
    /// The executable, absolute, inside the job's root.
    pub program: PathBuf,
    /// The argument vector, `argv[0]` included.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory, absolute; made with its parents when the lower directories lack it.
    pub cwd: PathBuf,
    /// File mode creation mask.
    pub umask: u32,
    /// When given, stderr is a terminal of this size.
    pub terminal: Option<Terminal>,
    /// What the job may use.
    pub limits: JobLimits,
    /// The processors that it is kept on; `None`: any.
    pub cpus: Option<CpuList>,
    /// Further directories that have to exist, absolute; made like [`Command::cwd`].
    pub make_dirs: Vec<PathBuf>,
    /// Directories that the job is expected to write to, besides [`Command::cwd`] and `/tmp`. Not made when missing: that
    /// is for the compiler to complain about. Only kernels without overlayfs need to know; with it, a job may write
    /// wherever permission bits let it.
    pub writable_dirs: Vec<PathBuf>,
    /// Files in such directories that the job is expected to write, whether the lower directories hold them or not. Only
    /// kernels without overlayfs need to know.
    pub outputs: Vec<PathBuf>,
}

/// Ceilings for one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// Address space of each process, bytes.
    pub memory_bytes: u64,
    /// CPU time of each process.
    pub cpu: Duration,
    /// Time from start to end.
    pub wall: Duration,
    /// Processes alive at one time.
    pub processes: u32,
    /// All files the job writes, temporary ones included, bytes.
    pub output_bytes: u64,
    /// Standard output and standard error, bytes each.
    pub text_bytes: u64,
}

/// A ceiling that ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// [`JobLimits::memory_bytes`].
    Memory,
    /// [`JobLimits::cpu`].
    Cpu,
    /// [`JobLimits::wall`].
    Wall,
    /// [`JobLimits::processes`].
    Processes,
    /// [`JobLimits::output_bytes`].
    OutputBytes,
    /// [`JobLimits::text_bytes`].
    TextBytes,
    /// [`Command::writable_dirs`], where there is no overlayfs. Not always the job's end: an assembler that cannot write
    /// its listing warns and goes on.
    Writing,
}

/// How a job ended, and what it left.
#[derive(Debug)]
pub struct Finished {
    /// How the program itself ended. After [`Running::kill`]: killed by SIGKILL.
    pub status: Status,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, byte for byte, terminal or not.
    pub stderr: Vec<u8>,
    /// What the job's processes used, all of them together.
    pub usage: Usage,
    /// What the job wrote and removed. Empty when the job was killed.
    pub outputs: UpperDir,
    /// The ceiling that the job ran into, if one ended it or, for memory, processes and output, evidently made it fail.
    /// Its status and output then say nothing about the source.
    pub killed_by: Option<Limit>,
}

/// A way to build the private root, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// A user name space and an overlay.
    UserOverlay,
    /// Root privileges and an overlay; the job itself is an ordinary user.
    RootOverlay,
    /// A user name space and a tree of bind mounts.
    UserBinds,
    /// Root privileges and a tree of bind mounts; the job itself is an ordinary user.
    RootBinds,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Mode::UserOverlay => "user name space, overlay",
            Mode::RootOverlay => "root, overlay",
            Mode::UserBinds => "user name space, bind mounts",
            Mode::RootBinds => "root, bind mounts",
        })
    }
}

/// What the probe found when the sandbox started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxReport {
    /// The way that jobs run.
    pub mode: Mode,
    /// Better ways that do not work here, each with the step that failed.
    pub refused: Vec<(Mode, String)>,
    /// Who jobs run as, when that is not the worker's own user: see [`JobUser`].
    pub job_user: Option<JobUser>,
}

/// Why a job could not be run, or no job can be run here. Never the job's own failure.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Nothing on this node isolates a job.
    #[error("this node cannot isolate a job, so it runs none: {}", list(.0))]
    NoIsolation(Vec<(Mode, String)>),
    /// The launcher could not be started.
    #[error("cannot start the sandbox launcher `{}`", program.display())]
    Start {
        /// What was to be executed.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A lower directory lies elsewhere.
    #[error("`{}` is not below the sandbox's base directory", .0.display())]
    NotBelowBase(PathBuf),
    /// A command that no job can have: too large, a NUL inside, a relative path.
    #[error("not a command: {0}")]
    BadCommand(&'static str),
    /// The program is not in the job's root, or cannot be executed there.
    #[error("cannot execute `{}` in the job's root", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A step of building the root failed.
    #[error("cannot build the job's root: {step}")]
    Root {
        /// What was being done.
        step: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The launcher ended in the middle of a job.
    #[error("the sandbox launcher ended unexpectedly")]
    LauncherDied,
    /// Talking to the launcher, or reading what a job wrote, failed.
    #[error("sandbox: {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

fn list(refused: &[(Mode, String)]) -> String {
    let lines: Vec<String> = refused.iter().map(|(mode, why)| format!("{mode}: {why}")).collect();
    lines.join("; ")
}

/// Runs a launcher: what a program does that was started with [`LAUNCHER_ARGUMENT`]. Ends when the worker does.
pub fn launcher_main() -> std::process::ExitCode {
    inside::live(std::os::fd::AsFd::as_fd(&std::io::stdin()))
}

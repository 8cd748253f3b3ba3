//! A job as data, and how it ended.
//!
//! The shape is that of a Remote Execution action on purpose: argv, directory, environment, toolchain and inputs by
//! digest, nothing hidden. Three endings are kept apart: the compiler's answer ([`Outcome`]), a worker that declines
//! ([`Refusal`]), and our own faults (typed errors in the modules that meet them).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::digest::Digest;
use crate::ids::ToolchainId;

/// What a worker needs to run one compile exactly as the client would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// The toolchain that has to stand in the job's root.
    pub toolchain: ToolchainId,
    /// The executable, an absolute client-side path inside the toolchain.
    pub program: PathBuf,
    /// The argument vector, `argv[0]` included, as the client's compiler would get it.
    pub argv: Vec<OsString>,
    /// The client's working directory, absolute.
    pub cwd: PathBuf,
    /// The environment, whole: what is not here is not set. Sorted by name.
    pub env: Vec<(OsString, OsString)>,
    /// Everything the compiler may read besides the toolchain. Sorted by path, no path twice.
    pub inputs: Vec<Input>,
    /// File mode creation mask of the client.
    pub umask: u32,
    /// Whether the compiler's stderr is a terminal at the client, and how wide.
    pub terminal: Option<Terminal>,
    /// Where the job writes its list of dependencies for us, if it does; the file goes into
    /// [`Outcome::dependencies`] instead of among the outputs.
    pub dependency_file: Option<PathBuf>,
    /// Files that the command names as its output and as its list of dependencies, links on the way followed.
    pub outputs: Vec<PathBuf>,
    /// Every directory that the job may write to, links followed: those of [`JobSpec::outputs`] among them. A worker
    /// that has to know them beforehand lets the job write nowhere else but in `/tmp`.
    pub output_dirs: Vec<PathBuf>,
    /// Ceilings for this job; the worker applies the lower of these and its own.
    pub limits: Limits,
}

/// One thing that stands in a job's root at its client-side absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    /// Absolute, and free of `.` and `..`.
    pub path: PathBuf,
    /// What stands there.
    pub kind: InputKind,
}

/// What stands at an input's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// A regular file.
    File {
        /// Digest of the content.
        digest: Digest,
        /// Length of the content in bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// Modification time in nanoseconds since 1970. gcc compares whole seconds of it for `#pragma once`.
        mtime_ns: i64,
    },
    /// A symbolic link with its target as written.
    Symlink(OsString),
    /// A directory that has to exist, perhaps empty.
    Directory,
    /// Nothing may stand here: the client looked and found the path absent.
    Absent,
}

/// The client's terminal, as far as it shapes diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terminal {
    /// Columns; 0 when the terminal does not say.
    pub columns: u16,
    /// Rows; 0 when the terminal does not say.
    pub rows: u16,
}

/// Ceilings on what one job may use. `None` leaves it to the worker's own ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Address space of each process, bytes.
    pub memory_bytes: Option<u64>,
    /// CPU time of each process.
    pub cpu: Option<Duration>,
    /// Time from start to end of the job.
    pub wall: Option<Duration>,
    /// Processes alive at one time.
    pub processes: Option<u32>,
    /// Sum of the sizes of all files the job writes, bytes.
    pub output_bytes: Option<u64>,
}

/// How the compiler ended: a value, never an error of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It exited with this status.
    Exited(u8),
    /// It was ended by this signal.
    Signaled(u8),
}

impl Status {
    /// True when the compiler reported success.
    pub fn success(self) -> bool {
        self == Status::Exited(0)
    }
}

/// The compiler's whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status or signal.
    pub status: Status,
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Standard error, byte for byte.
    pub stderr: Vec<u8>,
    /// Every file that the job left behind, sorted by path.
    pub outputs: Vec<Output>,
    /// Content of [`JobSpec::dependency_file`], when the job wrote it.
    pub dependencies: Option<Vec<u8>>,
    /// What it cost.
    pub usage: Usage,
}

/// One change that a job made to its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Absolute client-side path.
    pub path: PathBuf,
    /// What the job did there.
    pub kind: OutputKind,
}

/// What a job did at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// It left a regular file.
    File {
        /// Permission bits, the client's umask already applied.
        mode: u32,
        /// The content.
        content: Vec<u8>,
    },
    /// It removed an input (gcc removes a stale object when it fails).
    Removed,
}

/// What a job used, as the kernel counted it for the job's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// From start to end.
    pub wall: Duration,
    /// Largest resident set of any one process, bytes.
    pub memory_peak_bytes: u64,
    /// Page faults that needed the disk.
    pub major_faults: u64,
}

/// What an agent tells the coordinator of a job that ran on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunReport {
    /// What it used.
    pub usage: Usage,
    /// What had been predicted for it, time on one reference core; `None` when nothing was known.
    pub work: Option<Duration>,
    /// Standard deviation of the logarithm of that prediction, thousandths; `None` when it is not known.
    pub spread_milli: Option<u32>,
    /// Bytes that were sent before it could start.
    pub sent_bytes: u64,
    /// How long that took; zero when nothing was sent.
    pub transfer: Duration,
}

/// Returns how many times its predicted work a job does not exceed in 19 of 20 cases, where that work's logarithm has this
/// standard deviation and its error is normal (1.645 is the 95 % quantile).
pub fn at_most(spread: f64) -> f64 {
    (1.645 * spread.clamp(0.0, SPREAD_MOST)).exp()
}

/// A spread is no larger than this, whatever is said: a factor of a hundred between such a job and what was predicted.
const SPREAD_MOST: f64 = 2.8;

/// Why a worker did not run a job that was offered to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The class, which decides what happens next.
    pub kind: RefusalKind,
    /// One line for `rdcc why`.
    pub message: String,
}

/// Whether a job may run on a variant of its toolchain: on another kind of host, with other files that are certified to make
/// the same objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Variants {
    /// On its own toolchain only.
    #[default]
    Never,
    /// On variants that are certified for it, too.
    Certified,
}

/// Classes of refusal. Only [`RefusalKind::Fault`] says anything about the worker's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalKind {
    /// This job cannot run on this kind of worker at all.
    Unsupported,
    /// The worker neither has the toolchain nor could get it.
    NoToolchain,
    /// No slot, no memory, a quota too small for this job, or a grant that has ended.
    Busy,
    /// The worker tried and its own machinery failed.
    Fault,
    /// The job went beyond a limit: memory, CPU time, running time, processes, or bytes of output.
    Limit,
    /// An input is no longer what it was announced as.
    Changed,
    /// The worker's way of isolating jobs kept this one from writing somewhere.
    ReadOnly,
    /// What the worker has of a variant does not make the objects that the variant was certified by.
    Uncertified,
    /// Under this job's flags the variant is another compiler than the job's own.
    Unlike,
}

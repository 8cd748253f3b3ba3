//! One attempt at a job: admit, get the toolchain, stage the inputs, run, hand back what it left, clean up.
//!
//! The steps are other modules'; this puts them in order and turns every failure into a refusal of the right kind. A job
//! that is stopped ends at the next step, its processes killed. Invariants: the compiler runs only with all inputs
//! standing and the toolchain pinned; the slot is free before the agent is told of the end, and what takes longer to
//! clean up comes after that.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use super::admission::{Door, Place};
use super::cores::CpuList;
use super::link::JobPort;
use super::mirror::{Lease, MirrorError, Mirrors, Missing, PlaceError, Placed, Tree};
use super::mirror_plan::Stop as PlanStop;
use super::mirror_plan::catalog::EntryId;
use super::outputs::{self, Left, OutputReader};
use super::sandbox::{Command, JobLimits, Limit, SandboxError};
use super::settings::Ceilings;
use super::slots::Claim;
use super::stop::Stop;
use super::transfers::Lacking;
use super::variant_checks::{VariantChecks, own_words};
use crate::ids::{AgentSessionId, ToolchainId};
use crate::job::{JobSpec, Outcome, Refusal, RefusalKind, Status, Usage};
use crate::protocol::BLOB_BYTES_MAX;
use crate::protocol::convert::RunRequest;
use crate::protocol::pieces::OutputPiece;
use crate::protocol::token::GrantedJob;
use crate::runtime::errors::with_causes;
use crate::runtime::tasks::Tasks;
use crate::store::disk::StoreError;
use crate::toolchains::manifest::Manifest;
use crate::toolchains::profile::{self, RunAs};

/// How often a job's inputs are staged anew because content went missing in between.
const STAGE_ROUNDS_MAX: usize = 5;
/// Most bytes of standard output, and of standard error, which travel in one message.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// A future behind a pointer.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the executor gets toolchains.
pub trait Toolchains: Send + Sync {
    /// Returns the toolchain, verified, getting it first where needed.
    fn ensure(&self, toolchain: ToolchainId) -> Pending<'_, Result<ReadyToolchain, Refusal>>;
}

/// A toolchain that stays on disk for as long as this lives.
pub struct ReadyToolchain {
    /// The directory in which its files stand at their paths.
    pub root: PathBuf,
    /// What it consists of.
    pub manifest: Arc<Manifest>,
    /// Keeps it there.
    pub pin: Box<dyn Any + Send + Sync>,
}

/// Where the executor runs compilers.
pub trait Sandbox: Send + Sync {
    /// Runs a command to its end, or kills it when `stop` says so. No process is left when this returns.
    fn run(&self, command: Command, stop: Stop) -> Pending<'_, Result<Ran, SandboxError>>;
}

/// How a command ended.
pub struct Ran {
    /// Of the program itself.
    pub status: Status,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// What it used.
    pub usage: Usage,
    /// The ceiling that ended it.
    pub killed_by: Option<Limit>,
    /// What it left.
    pub left: Box<dyn Left>,
}

/// Everything that attempts need. Shared by all links.
pub struct Executor {
    /// Slots.
    pub door: Door,
    /// Toolchains.
    pub toolchains: Arc<dyn Toolchains>,
    /// Mirrors.
    pub mirrors: Mirrors,
    /// The sandbox.
    pub sandbox: Arc<dyn Sandbox>,
    /// What makes sure of variants.
    pub variants: VariantChecks,
    /// Ceilings for each job.
    pub ceilings: Ceilings,
    /// The processors of each group of cores; empty: jobs run on any.
    pub core_groups: Vec<CpuList>,
    /// Room for blobs, bytes.
    pub blob_quota_bytes: u64,
    /// Owner of the threads that block.
    pub tasks: Tasks,
}

/// One job as it arrived.
pub struct Attempt {
    /// The job.
    pub run: RunRequest,
    /// Who sent it.
    pub agent: AgentSessionId,
    /// The DNS name of the member that it is; empty without certificates.
    pub holder: Arc<str>,
    /// The file tree that its paths are of.
    pub tree: Arc<Tree>,
    /// Its inputs, in the order of [`RunRequest::inputs`].
    pub entries: Arc<[EntryId]>,
}

/// What a job leaves to be cleaned up once its agent has been answered.
#[derive(Default)]
pub struct Remains {
    left: Option<Box<dyn Left>>,
    lease: Option<Lease>,
    toolchain: Option<ReadyToolchain>,
}

impl Executor {
    /// Runs a job; its outputs go to `port` on the way. When this returns, its slot is free and its processes are gone.
    /// What is left of it goes to [`Executor::clean`].
    pub async fn run(&self, attempt: &Attempt, port: &mut JobPort, stop: &Stop) -> (Result<Outcome, Refusal>, Remains) {
        let mut remains = Remains::default();
        let claim = Claim {
            grant: attempt.run.grant,
            agent: attempt.agent,
            holder: attempt.holder.clone(),
            cores: attempt.run.cores,
            job: GrantedJob {
                toolchain: attempt.run.spec.toolchain,
                run_as: attempt.run.run_as.as_ref().map(|run_as| run_as.toolchain),
            },
            token: attempt.run.token.clone(),
        };
        let result = match self.door.admit(&claim, stop).await {
            Ok(place) => self.run_admitted(attempt, &place, port, stop, &mut remains).await,
            Err(refusal) => Err(refusal),
        };
        (result, remains)
    }

    /// Removes what a job left, and what nobody uses any more.
    pub async fn clean(&self, remains: Remains) {
        self.tasks.blocking(move || drop(remains)).await;
        if self.mirrors.wants_sweep() {
            let mirrors = self.mirrors.clone();
            self.tasks.blocking(move || mirrors.sweep()).await;
        }
    }

    async fn run_admitted(
        &self,
        attempt: &Attempt,
        place: &Place,
        port: &mut JobPort,
        stop: &Stop,
        remains: &mut Remains,
    ) -> Result<Outcome, Refusal> {
        let spec = &attempt.run.spec;
        let toolchain = stop.unless_stopped(self.toolchains.ensure(attempt.tool())).await??;
        let toolchain = remains.toolchain.insert(toolchain);
        if let Some(run_as) = &attempt.run.run_as {
            self.variants.check(toolchain, run_as, &spec.env, stop).await?;
        }
        let lease = self.stage(attempt, toolchain, port, stop).await?;
        let lease = remains.lease.insert(lease);
        let mut command = command(spec, lease, toolchain, &self.ceilings);
        if let Some(run_as) = &attempt.run.run_as {
            call_variant(&mut command, run_as, &toolchain.manifest)?;
        }
        command.cpus = self.core_groups.get(usize::from(place.cores().0)).cloned();
        let ran = self.sandbox.run(command, stop.clone()).await;
        let ran = ran.map_err(|error| sandbox_refusal(&error))?;
        let (left, result) = self.hand_back(&attempt.run, &toolchain.manifest, ran, port, stop).await;
        remains.left = Some(left);
        result
    }

    /// Makes the job's inputs stand, fetching what is missing.
    async fn stage(
        &self,
        attempt: &Attempt,
        toolchain: &ReadyToolchain,
        port: &mut JobPort,
        stop: &Stop,
    ) -> Result<Lease, Refusal> {
        // What has come stays until all has.
        let mut pins = Vec::new();
        for _ in 0..STAGE_ROUNDS_MAX {
            let (tree, manifest, entries) = (
                attempt.tree.clone(),
                toolchain.manifest.clone(),
                attempt.entries.clone(),
            );
            let id = attempt.tool();
            let placed = self.tasks.blocking(move || tree.place(id, &manifest, &entries)).await;
            let (missing, pinned) = match placed {
                Ok(Placed::Ready(lease)) => return Ok(lease),
                Ok(Placed::Lacking(missing, pinned)) => (missing, pinned),
                Err(MirrorError::Place(PlaceError::Lacking(_))) => continue,
                Err(error) => return Err(mirror_refusal(&error)),
            };
            pins.push(pinned);
            let bytes: u64 = missing.iter().map(|missing| missing.size).sum();
            if bytes > self.blob_quota_bytes {
                let quota = self.blob_quota_bytes;
                let message = format!("its inputs take {bytes} bytes, more than this worker's quota of {quota}");
                return Err(refusal(RefusalKind::Busy, message));
            }
            if let Some(large) = missing.iter().find(|missing| missing.size > BLOB_BYTES_MAX) {
                let message = format!("an input has {} bytes, more than {BLOB_BYTES_MAX}", large.size);
                return Err(refusal(RefusalKind::Unsupported, message));
            }
            let lacking = attempt.numbered(missing);
            stop.unless_stopped(port.fetch(lacking)).await??;
        }
        let message = "its inputs do not stay in this worker's store: the quota is too small".to_owned();
        Err(refusal(RefusalKind::Busy, message))
    }

    /// Sends what the job left. Gives back what there is to clean up, and how it went.
    async fn hand_back(
        &self,
        run: &RunRequest,
        manifest: &Manifest,
        ran: Ran,
        port: &mut JobPort,
        stop: &Stop,
    ) -> (Box<dyn Left>, Result<Outcome, Refusal>) {
        let bytes_max = limits(&run.spec, &self.ceilings).output_bytes;
        let dependency_file = run.spec.dependency_file.as_deref();
        let selected = match (stop.reason(), ran.killed_by) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(limit)) => Err(limit_refusal(limit)),
            (None, None) => outputs::select(ran.left.changes(), dependency_file, manifest, bytes_max),
        };
        let selected = match selected {
            Ok(selected) => selected,
            Err(refusal) => return (ran.left, Err(refusal)),
        };
        let mut outcome = Outcome {
            status: ran.status,
            stdout: ran.stdout,
            stderr: ran.stderr,
            outputs: Vec::new(),
            dependencies: None,
            usage: ran.usage,
        };
        let mut reader = OutputReader::new(run.job, ran.left, selected.outputs, run.compress);
        let mut dependency_file = dependency_file.filter(|_| selected.dependencies).map(Path::to_owned);
        loop {
            let path = dependency_file.take();
            let (back, read) = self
                .tasks
                .blocking(move || {
                    let dependencies = path.map(|path| reader.dependencies(&path)).transpose();
                    let read = dependencies.and_then(|read| Ok((read, reader.batch()?)));
                    (reader, read)
                })
                .await;
            reader = back;
            let sent = match read {
                Ok((dependencies, pieces)) => {
                    outcome.dependencies = outcome.dependencies.or(dependencies);
                    send_all(pieces, port, stop).await
                }
                Err(error) => Err(refusal(
                    RefusalKind::Fault,
                    format!("an output cannot be read: {error}"),
                )),
            };
            if let Err(refusal) = sent {
                return (reader.into_left(), Err(refusal));
            }
            if reader.is_done() {
                break;
            }
        }
        (reader.into_left(), Ok(outcome))
    }
}

async fn send_all(pieces: Vec<OutputPiece>, port: &JobPort, stop: &Stop) -> Result<(), Refusal> {
    for piece in pieces {
        stop.unless_stopped(port.output(piece)).await??;
    }
    Ok(())
}

impl Attempt {
    /// What the job runs on.
    fn tool(&self) -> ToolchainId {
        let run_as = self.run.run_as.as_ref();
        run_as.map_or(self.run.spec.toolchain, |run_as| run_as.toolchain)
    }

    /// Puts what is missing in terms of the link's numbers.
    fn numbered(&self, missing: Vec<Missing>) -> Vec<Lacking> {
        let mut missing: HashMap<EntryId, Missing> = missing.into_iter().map(|input| (input.entry, input)).collect();
        let listed = self.entries.iter().zip(&self.run.inputs);
        let lacking = |(entry, number): (&EntryId, &u32)| {
            missing.remove(entry).map(|missing| Lacking {
                number: *number,
                digest: missing.digest,
                size: missing.size,
            })
        };
        listed.filter_map(lacking).collect()
    }
}

fn command(spec: &JobSpec, lease: &Lease, toolchain: &ReadyToolchain, ceilings: &Ceilings) -> Command {
    Command {
        lower: vec![lease.root().to_owned(), toolchain.root.clone()],
        program: spec.program.clone(),
        argv: spec.argv.clone(),
        env: environment(&spec.env, toolchain.manifest.library_path()),
        cwd: spec.cwd.clone(),
        umask: spec.umask,
        terminal: spec.terminal,
        limits: limits(spec, ceilings),
        cpus: None,
        make_dirs: Vec::new(),
        writable_dirs: spec.output_dirs.clone(),
        outputs: spec.outputs.clone(),
    }
}

/// Has a job call the variant's own driver, which finds its programs where they are here and not where the client has its own.
fn call_variant(command: &mut Command, run_as: &RunAs, manifest: &Manifest) -> Result<(), Refusal> {
    let driver = manifest.compilers().get(&run_as.question.driver);
    let driver = driver.ok_or_else(|| {
        let message = format!("the variant has no compiler for {}", run_as.question.driver);
        refusal(RefusalKind::Unsupported, message)
    })?;
    command.program.clone_from(driver);
    if let Some(name) = command.argv.first_mut() {
        driver.as_os_str().clone_into(name);
    }
    command.argv.extend(own_words(run_as, manifest));
    command.env.retain(|(name, _)| name != "PATH");
    command.env.push(("PATH".into(), profile::program_path(manifest)));
    Ok(())
}

/// Adds to the environment the directories that a client's loader knows from a cache which the job's root lacks.
fn environment(env: &[(OsString, OsString)], library_path: &[PathBuf]) -> Vec<(OsString, OsString)> {
    const NAME: &str = "LD_LIBRARY_PATH";
    if library_path.is_empty() {
        return env.to_vec();
    }
    let given = env
        .iter()
        .find(|(name, _)| name == NAME)
        .map(|(_, value)| value.as_os_str());
    let parts: Vec<&OsStr> = given
        .into_iter()
        .chain(library_path.iter().map(|path| path.as_os_str()))
        .collect();
    let mut env: Vec<_> = env.iter().filter(|(name, _)| name != NAME).cloned().collect();
    env.push((NAME.into(), parts.join(OsStr::new(":"))));
    env
}

/// The lower of what the job asks for and what this worker allows.
fn limits(spec: &JobSpec, ceilings: &Ceilings) -> JobLimits {
    let asked = &spec.limits;
    JobLimits {
        memory_bytes: ceilings.memory_bytes.min(asked.memory_bytes.unwrap_or(u64::MAX)),
        cpu: asked.cpu.map_or(ceilings.cpu, |cpu| cpu.min(ceilings.cpu)),
        wall: asked.wall.map_or(ceilings.wall, |wall| wall.min(ceilings.wall)),
        processes: ceilings.processes.min(asked.processes.unwrap_or(u32::MAX)),
        output_bytes: ceilings.output_bytes.min(asked.output_bytes.unwrap_or(u64::MAX)),
        text_bytes: TEXT_BYTES_MAX,
    }
}

fn limit_refusal(limit: Limit) -> Refusal {
    let name = match limit {
        Limit::Writing => {
            let message = "without overlayfs this worker did not let it write somewhere".to_owned();
            return refusal(RefusalKind::ReadOnly, message);
        }
        Limit::Memory => "memory",
        Limit::Cpu => "CPU time",
        Limit::Wall => "running time",
        Limit::Processes => "processes",
        Limit::OutputBytes => "output",
        Limit::TextBytes => "standard output and error",
    };
    refusal(RefusalKind::Limit, format!("it ran into this worker's limit on {name}"))
}

fn refusal(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, message }
}

fn mirror_refusal(error: &MirrorError) -> Refusal {
    let kind = match error {
        MirrorError::Inputs(PlanStop::Full(_)) => RefusalKind::Busy,
        MirrorError::Inputs(_) => RefusalKind::Unsupported,
        MirrorError::Place(PlaceError::Store(StoreError::InUse { .. } | StoreError::TooLarge { .. })) => {
            RefusalKind::Busy
        }
        MirrorError::Place(_) | MirrorError::Directory { .. } => RefusalKind::Fault,
    };
    refusal(kind, with_causes(error))
}

fn sandbox_refusal(error: &SandboxError) -> Refusal {
    let kind = match error {
        SandboxError::BadCommand(_) | SandboxError::Program { .. } => RefusalKind::Unsupported,
        _ => RefusalKind::Fault,
    };
    refusal(kind, with_causes(error))
}

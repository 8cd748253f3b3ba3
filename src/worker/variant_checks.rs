//! Makes sure of a variant before a job of another toolchain runs on it here: golden objects, and the profile of its flags.
//!
//! The coordinator certified the variant by objects that were made on somebody else's machine. Here the same set is compiled in
//! this worker's own sandbox, and has to come out the same to the last byte: that is the same compiler. Then it is asked about
//! the job's flags, and has to answer as the job's own compiler did. Both are done once and remembered for as long as this
//! process lives, since an identity never changes; what failed for a passing reason is tried again.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::executor::{Pending, Ran, ReadyToolchain, Sandbox};
use super::mirror::Owner;
use super::sandbox::{Command, JobLimits};
use super::settings::Ceilings;
use super::stop::Stop;
use crate::digest::{Digest, Hasher};
use crate::ids::ToolchainId;
use crate::job::{Refusal, RefusalKind};
use crate::runtime::errors::with_causes;
use crate::runtime::tasks::Tasks;
use crate::toolchains::defaults::left_open;
use crate::toolchains::golden::{DIRECTORY, ENVIRONMENT, Golden, OBJECT, OBJECT_BYTES_MAX, SOURCES};
use crate::toolchains::manifest::Manifest;
use crate::toolchains::profile::{self, Answer, COMMANDS, RunAs};

/// Bytes that one of these runs may print: the list of all settings has 60 KB.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Profiles remembered, all toolchains together. A kernel build has some ten.
const PROFILES_MAX: usize = 4096;
/// Variants remembered. A farm has a few.
const GOLDEN_MAX: usize = 256;

/// Where golden objects come from: the coordinator.
pub trait Goldens: Send + Sync {
    /// Returns the objects that a toolchain was certified by; none when it was pushed without.
    fn golden(&self, toolchain: ToolchainId) -> Pending<'_, Result<Golden, Refusal>>;
}

type Verdict = Arc<OnceCell<Result<(), String>>>;
type Profile = Arc<OnceCell<Result<Digest, String>>>;

/// The checks, and what came out.
pub struct VariantChecks {
    goldens: Arc<dyn Goldens>,
    sandbox: Arc<dyn Sandbox>,
    ceilings: Ceilings,
    tasks: Tasks,
    sources: Sources,
    golden: Mutex<BTreeMap<ToolchainId, Verdict>>,
    profiles: Mutex<BTreeMap<(ToolchainId, Digest), Profile>>,
}

impl VariantChecks {
    /// Checks variants in `sandbox` by objects from `goldens`.
    pub fn new(
        goldens: Arc<dyn Goldens>,
        sandbox: Arc<dyn Sandbox>,
        ceilings: Ceilings,
        tasks: Tasks,
        sources: Sources,
    ) -> Self {
        Self {
            goldens,
            sandbox,
            ceilings,
            tasks,
            sources,
            golden: Mutex::default(),
            profiles: Mutex::default(),
        }
    }

    /// Returns when a job with this environment may run on the variant, or why it may not.
    pub async fn check(
        &self,
        toolchain: &ReadyToolchain,
        run_as: &RunAs,
        job_env: &[(OsString, OsString)],
        stop: &Stop,
    ) -> Result<(), Refusal> {
        let verdict = remembered(&self.golden, run_as.toolchain, GOLDEN_MAX);
        let checked = verdict.get_or_try_init(|| self.check_golden(toolchain, run_as.toolchain, stop));
        if let Err(why) = stop.unless_stopped(checked).await?? {
            return Err(refusal(RefusalKind::Uncertified, why.clone()));
        }
        let env = profile::environment(job_env, &profile::program_path(&toolchain.manifest));
        let known = remembered(&self.profiles, (run_as.toolchain, key(run_as, &env)), PROFILES_MAX);
        let asked = known.get_or_try_init(|| self.ask_profile(toolchain, run_as, &env, stop));
        match stop.unless_stopped(asked).await?? {
            Ok(profile) if *profile == run_as.profile => Ok(()),
            Ok(_) => {
                let message = "with this job's flags the variant has other macros, settings or programs".to_owned();
                Err(refusal(RefusalKind::Unlike, message))
            }
            Err(why) => Err(refusal(RefusalKind::Unlike, why.clone())),
        }
    }

    /// Compiles the golden set here and compares it with what the variant was certified by.
    async fn check_golden(
        &self,
        toolchain: &ReadyToolchain,
        id: ToolchainId,
        stop: &Stop,
    ) -> Result<Result<(), String>, Refusal> {
        let expected = self.goldens.golden(id).await?;
        self.make_sources().await?;
        let mut compiled = 0;
        for source in &SOURCES {
            let Some(driver) = source.driver(&toolchain.manifest) else {
                continue;
            };
            for flags in source.flags {
                let unit = source.unit(flags);
                let words = source.words(&toolchain.manifest, flags);
                let env = ENVIRONMENT.map(|(name, value)| (name.into(), value.into()));
                let ran = self.run(toolchain, driver, words, env.into(), stop).await?;
                if !ran.status.success() {
                    let said = last_line(&ran.stderr);
                    return Ok(Err(format!("the golden unit `{unit}` does not compile here: {said}")));
                }
                let object = self.object(ran).await?;
                if expected.objects().get(&unit) != Some(&object) {
                    return Ok(Err(format!("the golden unit `{unit}` comes out otherwise here")));
                }
                compiled += 1;
            }
        }
        if compiled != expected.objects().len() {
            return Ok(Err(
                "it was certified by other golden units than this worker knows".to_owned()
            ));
        }
        tracing::info!(
            toolchain = id.0.short(),
            units = compiled,
            "a variant makes the golden objects here"
        );
        Ok(Ok(()))
    }

    /// Asks a variant about a job's flags.
    async fn ask_profile(
        &self,
        toolchain: &ReadyToolchain,
        run_as: &RunAs,
        env: &[(OsString, OsString)],
        stop: &Stop,
    ) -> Result<Result<Digest, String>, Refusal> {
        let Some(driver) = toolchain.manifest.compilers().get(&run_as.question.driver) else {
            let language = run_as.question.driver;
            return Ok(Err(format!("the variant has no compiler for {language}")));
        };
        self.make_sources().await?;
        let mut answers: [Answer; COMMANDS] = Default::default();
        let mut question = run_as.question.clone();
        question.words.extend(own_words(run_as, &toolchain.manifest));
        for (answer, words) in answers.iter_mut().zip(question.commands()) {
            let ran = self.run(toolchain, driver, words, env.to_vec(), stop).await?;
            if !ran.status.success() {
                let said = last_line(&ran.stderr);
                return Ok(Err(format!("the variant does not take this job's flags: {said}")));
            }
            *answer = Answer {
                stdout: ran.stdout,
                stderr: ran.stderr,
            };
        }
        Ok(Ok(profile::profile(&answers)))
    }

    async fn run(
        &self,
        toolchain: &ReadyToolchain,
        driver: &Path,
        words: Vec<OsString>,
        mut env: Vec<(OsString, OsString)>,
        stop: &Stop,
    ) -> Result<Ran, Refusal> {
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".into(), profile::program_path(&toolchain.manifest)));
        }
        let library_path = toolchain.manifest.library_path().iter().map(|path| path.as_os_str());
        let library_path: Vec<&OsStr> = library_path.collect();
        if !library_path.is_empty() {
            env.push(("LD_LIBRARY_PATH".into(), library_path.join(OsStr::new(":"))));
        }
        let mut argv = vec![driver.as_os_str().to_owned()];
        argv.extend(words);
        let ceilings = &self.ceilings;
        let command = Command {
            lower: vec![self.sources.directory.clone(), toolchain.root.clone()],
            program: driver.to_owned(),
            argv,
            env,
            cwd: DIRECTORY.into(),
            umask: 0o022,
            terminal: None,
            limits: JobLimits {
                memory_bytes: ceilings.memory_bytes,
                cpu: ceilings.cpu,
                wall: ceilings.wall,
                processes: ceilings.processes,
                output_bytes: ceilings.output_bytes,
                text_bytes: TEXT_BYTES_MAX,
            },
            cpus: None,
            make_dirs: Vec::new(),
            writable_dirs: vec![DIRECTORY.into()],
            outputs: vec![Path::new(DIRECTORY).join(OBJECT)],
        };
        let ran = self.sandbox.run(command, stop.clone()).await;
        let ran = ran.map_err(|error| refusal(RefusalKind::Fault, with_causes(&error)))?;
        match (stop.reason(), ran.killed_by) {
            (Some(stopped), _) => Err(stopped),
            (None, Some(limit)) => {
                let message = format!("a check of a variant ran into this worker's limit: {limit:?}");
                Err(refusal(RefusalKind::Limit, message))
            }
            (None, None) => Ok(ran),
        }
    }

    /// Reads the object that a unit left.
    async fn object(&self, ran: Ran) -> Result<Vec<u8>, Refusal> {
        let read = self.tasks.blocking(move || {
            let mut object = Vec::new();
            let file = ran.left.open(&Path::new(DIRECTORY).join(OBJECT))?;
            file.take(OBJECT_BYTES_MAX as u64 + 1).read_to_end(&mut object)?;
            io::Result::Ok(object)
        });
        let object = read.await;
        object.map_err(|error| refusal(RefusalKind::Fault, format!("a golden object cannot be read: {error}")))
    }

    async fn make_sources(&self) -> Result<(), Refusal> {
        let sources = self.sources.clone();
        let made = self.tasks.blocking(move || sources.make()).await;
        made.map_err(|error| refusal(RefusalKind::Fault, format!("cannot write the golden sources: {error}")))
    }
}

/// Returns what has to stand behind the words of a job that runs on a variant.
pub(super) fn own_words(run_as: &RunAs, variant: &Manifest) -> Vec<OsString> {
    left_open(variant.defaults(), &run_as.question.words)
}

/// Where the golden sources stand for jobs: a lower directory of the sandbox, made when it is first needed.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Below the sandbox's base, and for this alone.
    pub directory: PathBuf,
    /// Who jobs run as, when that is not the worker's own user: the object is written beside the sources.
    pub owner: Option<Owner>,
}

impl Sources {
    fn make(&self) -> io::Result<()> {
        let within = Path::new(DIRECTORY).strip_prefix("/").map_err(io::Error::other)?;
        let directory = self.directory.join(within);
        fs::create_dir_all(&directory)?;
        for path in [&self.directory, &directory] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
            if let Some(owner) = self.owner {
                std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))?;
            }
        }
        write_sources(&self.directory, &directory)
    }
}

fn write_sources(root: &Path, directory: &Path) -> io::Result<()> {
    for source in &SOURCES {
        let path = directory.join(source.name);
        if fs::read(&path).is_ok_and(|text| text == source.text.as_bytes()) {
            continue;
        }
        let file = tempfile::NamedTempFile::new_in(root)?;
        fs::write(file.path(), source.text)?;
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644))?;
        file.persist(&path)?;
    }
    Ok(())
}

fn key(run_as: &RunAs, env: &[(OsString, OsString)]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(run_as.question.digest().as_bytes());
    for (name, value) in env {
        for part in [name, value] {
            hasher.update(part.as_encoded_bytes());
            hasher.update(b"\0");
        }
    }
    hasher.finish()
}

/// Returns the cell for a key; when there are too many, all are forgotten.
fn remembered<K: Ord, V: Default + Clone>(cells: &Mutex<BTreeMap<K, V>>, key: K, most: usize) -> V {
    let mut cells: MutexGuard<'_, BTreeMap<K, V>> = cells.lock().unwrap_or_else(PoisonError::into_inner);
    if cells.len() >= most && !cells.contains_key(&key) {
        cells.clear();
    }
    cells.entry(key).or_default().clone()
}

/// What a compiler said last, for people: the reason, mostly.
fn last_line(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    said.lines().last().unwrap_or("nothing").chars().take(200).collect()
}

fn refusal(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, message }
}

//! What the local compiler makes of a job's flags: asked once per toolchain and flags, for comparison with variants.
//!
//! Also remembers under which flags a variant turned out to be another compiler, so that the next job with these flags is not
//! sent in vain. Bounded; what is forgotten is asked again.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::closures::Unit;
use super::compiler_run::{CompilerRun, CompilerRunner};
use crate::digest::Digest;
use crate::ids::ToolchainId;
use crate::toolchains::profile::{self, Answer, COMMANDS, Question};

/// Answers kept. A kernel build has some ten sets of flags.
const KEPT_MAX: usize = 1024;
/// For one question to the compiler; milliseconds on an idle machine.
const ASK_WAIT: Duration = Duration::from_secs(60);

type Variable = (OsString, OsString);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    toolchain: u64,
    program: PathBuf,
    question: Digest,
    env: Vec<Variable>,
}

type Asked = Arc<OnceCell<Digest>>;

/// Profiles of local compilers.
#[derive(Debug)]
pub struct Profiles {
    runner: CompilerRunner,
    known: Mutex<HashMap<Key, Asked>>,
    unlike: Mutex<HashSet<(ToolchainId, Digest)>>,
}

impl Profiles {
    /// Asks compilers through `runner`.
    pub fn new(runner: CompilerRunner) -> Self {
        Self {
            runner,
            known: Mutex::default(),
            unlike: Mutex::default(),
        }
    }

    /// Returns the profile of a unit's compiler under the flags of a question, or why there is none.
    ///
    /// `job_env` is the environment of the job that is to run elsewhere.
    pub async fn ask(&self, unit: &Unit, question: &Question, job_env: &[Variable]) -> Result<Digest, String> {
        let path = job_env.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(OsStr::new(""), |(_, value)| value.as_os_str());
        let env = profile::environment(job_env, path);
        let key = Key {
            toolchain: unit.toolchain,
            program: unit.program.clone(),
            question: question.digest(),
            env,
        };
        let asked = {
            let mut known = lock(&self.known);
            if known.len() >= KEPT_MAX && !known.contains_key(&key) {
                known.clear();
            }
            known.entry(key.clone()).or_default().clone()
        };
        let answered = asked.get_or_try_init(|| self.put(unit, question, &key)).await;
        answered.copied()
    }

    async fn put(&self, unit: &Unit, question: &Question, key: &Key) -> Result<Digest, String> {
        let mut answers: [Answer; COMMANDS] = Default::default();
        for (answer, words) in answers.iter_mut().zip(question.commands()) {
            let run = CompilerRun {
                program: unit.program.clone(),
                argv0: unit.argv0.clone(),
                words,
                cwd: unit.cwd.clone(),
                env: key.env.clone(),
                stdin: Vec::new(),
            };
            let said = self
                .runner
                .run(run, ASK_WAIT)
                .await
                .map_err(|error| error.to_string())?;
            if !said.status.success() {
                let said = String::from_utf8_lossy(&said.stderr);
                let first = said.lines().next().unwrap_or("it failed silently");
                return Err(format!("the compiler does not tell what its flags mean: {first}"));
            }
            *answer = Answer {
                stdout: said.stdout,
                stderr: said.stderr,
            };
        }
        Ok(profile::profile(&answers))
    }

    /// Notes that a variant is another compiler than `toolchain` under the flags of a question.
    pub fn note_unlike(&self, toolchain: ToolchainId, question: &Question) {
        let mut unlike = lock(&self.unlike);
        if unlike.len() >= KEPT_MAX {
            unlike.clear();
        }
        unlike.insert((toolchain, question.digest()));
    }

    /// Tells whether that was noted. The question is only made when anything was.
    pub fn is_unlike(&self, toolchain: ToolchainId, question: impl FnOnce() -> Question) -> bool {
        let unlike = lock(&self.unlike);
        !unlike.is_empty() && unlike.contains(&(toolchain, question().digest()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every entry is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

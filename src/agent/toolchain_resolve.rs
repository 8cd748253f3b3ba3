//! Which toolchain a command means, what that toolchain is on this machine, and which program of it to run.
//!
//! A toolchain is named, or found by the compiler's content; its file stands in one of the directories for such files, or
//! comes from the coordinator. The installed compiler is captured once, by whoever needs it first while the others wait,
//! and checked by `lstat` before every job: a compiler that changed is another toolchain from that moment on. Decides
//! nothing about where a job runs. Invariant: a [`Resolved`] names the identity of the files that the local compiler
//! would be at this moment.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::fallback::Reason;
use crate::exchange::place::Place;
use crate::exchange::{CompileRequest, Compiler, Driver};
use crate::ids::{Name, ToolchainId};
use crate::runtime::errors::with_causes;
use crate::runtime::tasks::Tasks;
use crate::toolchains::capture::{CaptureError, Captured, Surroundings, find};
use crate::toolchains::captured::{CapturedError, KeyStamps, load_or_capture};
use crate::toolchains::definition::{Definition, Language};
use crate::toolchains::host::Host;

mod definitions;
mod own_words;
#[cfg(test)]
mod tests;
mod unresolved;

pub use definitions::Definitions;
use own_words::own_words;
pub use unresolved::Unresolved;
use unresolved::{no_answer, no_toolchain, unknown, with_local_compiler};

/// Captured toolchains kept in memory; a build uses one or two, each some megabytes.
const LOADED_MAX: usize = 16;
/// How often a toolchain that changes while it is read is read again; each reading takes about a second.
const CAPTURES_MAX: usize = 5;
/// How long a failed capture stands before it is tried again. A capture takes a second or two, and a thousand jobs may
/// be waiting for it.
const FAILURE_STANDS: Duration = Duration::from_secs(10);

/// A toolchain as it is installed here.
#[derive(Debug)]
pub struct Loaded {
    /// What its file says.
    pub definition: Arc<Definition>,
    /// Its files.
    pub captured: Captured,
    /// The digest of its manifest.
    pub id: ToolchainId,
    /// Tells it from every other that this process has loaded.
    pub number: u64,
    stamps: KeyStamps,
    /// The drivers with all links followed.
    real_compilers: Vec<(Language, PathBuf)>,
}

impl Loaded {
    /// Makes one of a capture; computes the identity.
    pub fn new(number: u64, definition: Arc<Definition>, captured: Captured) -> Self {
        let compilers = captured.manifest.compilers();
        Self {
            id: captured.manifest.id(),
            number,
            stamps: captured.key_stamps(),
            real_compilers: compilers
                .iter()
                .filter_map(|(language, path)| Some((*language, fs::canonicalize(path).ok()?)))
                .collect(),
            definition,
            captured,
        }
    }
}

/// A command's toolchain and compiler.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The toolchain.
    pub toolchain: Arc<Loaded>,
    /// The program to run, absolute, as the command names it or as the toolchain does.
    pub program: PathBuf,
    /// What the program compiles when nothing else says so.
    pub language: Language,
    /// Flags to put in front of the user's own.
    pub flags: Vec<OsString>,
}

/// What others say about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The text of its file.
    Text(String),
    /// Nobody knows it.
    Unknown,
    /// Nobody can be asked.
    NoAnswer,
}

/// Asks elsewhere for the text of a toolchain's file that is not on this machine.
pub trait DefinitionSource: Send + Sync {
    /// Returns what the coordinator says about `name`.
    fn definition(&self, name: &Name) -> impl Future<Output = Told> + Send;
}

/// Everything besides the files that decides what is captured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    name: Name,
    text: crate::digest::Digest,
    path: OsString,
    listed: Vec<(OsString, OsString)>,
}

type Attempt = Arc<OnceCell<Result<Arc<Loaded>, (Unresolved, Instant)>>>;

/// The toolchains of this machine.
#[derive(Debug)]
pub struct Toolchains {
    definitions: Definitions,
    records: PathBuf,
    host: Host,
    place: Place,
    own_program: Option<PathBuf>,
    loaded: AtomicU64,
    attempts: Mutex<HashMap<Key, Attempt>>,
}

impl Toolchains {
    /// Looks for toolchain files in `directories`, the first first, and keeps records of captures in `records`. `host` is what
    /// programs of this machine are made for.
    pub fn new(directories: Vec<PathBuf>, records: PathBuf, host: Host, place: Place) -> Self {
        Self {
            definitions: Definitions::new(directories),
            records,
            host,
            place,
            own_program: fs::read_link("/proc/self/exe").ok(),
            loaded: AtomicU64::new(0),
            attempts: Mutex::default(),
        }
    }

    /// Finds the toolchain and the compiler that `request` means.
    pub async fn resolve(
        self: &Arc<Self>,
        request: &Arc<CompileRequest>,
        elsewhere: &impl DefinitionSource,
        tasks: &Tasks,
    ) -> Result<Resolved, Unresolved> {
        let (this, wanted) = (self.clone(), request.clone());
        let mut found = tasks.blocking(move || this.look(&wanted)).await?;
        if let Look::Unknown(name) = &found {
            let told = elsewhere.definition(name).await;
            let (this, wanted, name) = (self.clone(), request.clone(), name.clone());
            found = tasks
                .blocking(move || match told {
                    Told::Text(text) => this.look_with(&wanted, this.definitions.take(&name, text)?),
                    Told::Unknown => Err(unknown(&name, &wanted)),
                    Told::NoAnswer => Err(no_answer(&name, &wanted)),
                })
                .await?;
        }
        let (key, definition) = match found {
            Look::Ready(resolved) => return Ok(resolved),
            Look::Capture(key, definition) => (key, definition),
            Look::Unknown(name) => return Err(unknown(&name, request)),
        };
        let attempt = self.attempt(&key);
        let (this, wanted) = (self.clone(), request.clone());
        let loaded = attempt
            .get_or_init(|| async move {
                tasks
                    .blocking(move || this.load(&wanted, definition))
                    .await
                    .map_err(|unresolved| (unresolved, Instant::now()))
            })
            .await
            .clone()
            .map_err(|(unresolved, _)| unresolved)?;
        self.chosen(&loaded, request)
    }

    /// Forgets what is in memory of a toolchain: its files are not as captured.
    pub fn forget(&self, loaded: &Arc<Loaded>) {
        let is_it = |attempt: &Attempt| matches!(attempt.get(), Some(Ok(other)) if Arc::ptr_eq(other, loaded));
        lock(&self.attempts).retain(|_, attempt| !is_it(attempt));
    }

    fn look(&self, request: &CompileRequest) -> Result<Look, Unresolved> {
        let definition = match &request.toolchain {
            Some(name) => self.definitions.named(name)?,
            None => Some(self.by_content(request)?),
        };
        match (definition, &request.toolchain) {
            (Some(definition), _) => self.look_with(request, definition),
            (None, Some(name)) => Ok(Look::Unknown(name.clone())),
            (None, None) => Err(no_toolchain(request)),
        }
    }

    fn look_with(&self, request: &CompileRequest, definition: definitions::Found) -> Result<Look, Unresolved> {
        let key = Key {
            name: definition.parsed.name.clone(),
            text: definition.text,
            path: request.variable("PATH").unwrap_or_default().to_owned(),
            listed: request
                .env
                .iter()
                .filter(|(name, _)| {
                    definition
                        .parsed
                        .environment
                        .iter()
                        .any(|listed| name == listed.as_str())
                })
                .cloned()
                .collect(),
        };
        let attempt = lock(&self.attempts).get(&key).cloned();
        let known = attempt.as_ref().and_then(|attempt| attempt.get());
        match known {
            Some(Ok(loaded)) if loaded.stamps.still_same() && loaded.captured.same_programs_by(&key.path) => {
                Ok(Look::Ready(self.chosen(loaded, request)?))
            }
            Some(Err((unresolved, at))) if at.elapsed() < FAILURE_STANDS => Err(unresolved.clone()),
            Some(_) => {
                // Only this very attempt: a newer one may have taken its place meanwhile.
                let stale = attempt.as_ref().expect("it was just looked into");
                let mut attempts = lock(&self.attempts);
                if attempts.get(&key).is_some_and(|now| Arc::ptr_eq(now, stale)) {
                    attempts.remove(&key);
                }
                Ok(Look::Capture(key, definition.parsed))
            }
            None => Ok(Look::Capture(key, definition.parsed)),
        }
    }

    fn attempt(&self, key: &Key) -> Attempt {
        let mut attempts = lock(&self.attempts);
        if attempts.len() >= LOADED_MAX && !attempts.contains_key(key) {
            attempts.retain(|_, attempt| attempt.get().is_none());
        }
        attempts.entry(key.clone()).or_default().clone()
    }

    fn load(&self, request: &CompileRequest, definition: Arc<Definition>) -> Result<Arc<Loaded>, Unresolved> {
        let surroundings = self.surroundings(request);
        let captured = self.capture(&definition, &surroundings).map_err(|error| {
            let name = &definition.name;
            let why = with_causes(&error);
            let message = format!("toolchain `{name}` cannot be used as it is installed here: {why}");
            let mut unresolved = with_local_compiler(
                Unresolved::new(Reason::CaptureFailed, message),
                &definition,
                self.host,
                request,
                &surroundings,
            );
            unresolved.hint = Some(format!("try `rdcc toolchain verify {name}`"));
            unresolved
        })?;
        let number = self.loaded.fetch_add(1, Ordering::Relaxed);
        let loaded = Arc::new(Loaded::new(number, definition, captured));
        self.link_compilers(&loaded);
        tracing::info!(toolchain = %loaded.definition.name, id = %loaded.id.0.short(), "toolchain is known");
        Ok(loaded)
    }

    /// Captures, and again when the toolchain changes meanwhile: an upgrade takes a while, a hard link made to one of its
    /// files (a worker on this machine makes some) only a moment.
    fn capture(&self, definition: &Definition, surroundings: &Surroundings) -> Result<Captured, CapturedError> {
        let mut attempt = 1;
        loop {
            let captured = load_or_capture(&self.records, definition, self.host, surroundings, &mut |_, _| {});
            match captured {
                Err(CapturedError::Capture(CaptureError::Changed { .. })) if attempt < CAPTURES_MAX => attempt += 1,
                captured => return captured,
            }
        }
    }

    /// Chooses the program: the one that the request names, if the toolchain has it, or the toolchain's own.
    fn chosen(&self, loaded: &Arc<Loaded>, request: &CompileRequest) -> Result<Resolved, Unresolved> {
        let name = &loaded.definition.name;
        match &request.compiler {
            Compiler::OfToolchain(driver) => {
                let language = language_of(*driver);
                match loaded.captured.manifest.compilers().get(&language) {
                    Some(program) => Ok(Resolved {
                        toolchain: loaded.clone(),
                        program: program.clone(),
                        language,
                        flags: own_words(&loaded.definition, loaded.captured.manifest.defaults(), request),
                    }),
                    None => Err(Unresolved::new(
                        Reason::ToolchainUnknown,
                        format!("toolchain `{name}` has no compiler for {language}"),
                    )),
                }
            }
            Compiler::At(path) => {
                let real = fs::canonicalize(path).ok();
                // A compiler that has to be told to be this toolchain's is another by itself.
                let is_by_itself = loaded.captured.manifest.defaults().is_empty();
                let ours = loaded
                    .real_compilers
                    .iter()
                    .find(|(_, compiler)| Some(compiler) == real.as_ref())
                    .filter(|_| is_by_itself);
                match ours {
                    Some((language, _)) => Ok(Resolved {
                        toolchain: loaded.clone(),
                        program: path.clone(),
                        language: *language,
                        flags: Vec::new(),
                    }),
                    None => {
                        let message = format!("`{}` is not the compiler of toolchain `{name}`", path.display());
                        let mut unresolved = Unresolved::new(Reason::CompilerNotInToolchain, message);
                        unresolved.program = Some(path.clone());
                        unresolved.hint = Some(match is_by_itself {
                            true => format!("see `rdcc toolchain show {name}`"),
                            false => format!(
                                "here it needs options: leave the compiler out, as in `rdcc --toolchain {name}`"
                            ),
                        });
                        Err(unresolved)
                    }
                }
            }
        }
    }

    /// Finds the toolchain file that names the compiler that the request names.
    fn by_content(&self, request: &CompileRequest) -> Result<definitions::Found, Unresolved> {
        let none = || no_toolchain(request);
        let Compiler::At(path) = &request.compiler else {
            return Err(none());
        };
        let real = fs::canonicalize(path).map_err(|_| none())?;
        let search_path = request.variable("PATH").unwrap_or_default();
        // Copied only when files have to be looked through, which is once per build.
        let surroundings = OnceLock::new();
        self.definitions
            .of_compiler(&real, search_path, |definition| {
                let surroundings = surroundings.get_or_init(|| self.surroundings(request));
                has_compiler(definition, self.host, &real, surroundings)
            })
            .ok_or_else(none)
    }

    fn surroundings(&self, request: &CompileRequest) -> Surroundings {
        Surroundings {
            path: split_path(request.variable("PATH").unwrap_or_default()),
            own_program: self.own_program.clone(),
            environment: request.env.clone(),
        }
    }

    /// Leaves links for wrappers that have no need to ask. A wrapper that finds none asks; so errors do not matter.
    fn link_compilers(&self, loaded: &Loaded) {
        for driver in [Driver::C, Driver::Cxx] {
            let link = self.place.compiler_link(&loaded.definition.name, driver);
            let compiler = loaded.captured.manifest.compilers().get(&language_of(driver));
            let as_it_is = loaded.definition.flags.is_empty() && loaded.captured.manifest.defaults().is_empty();
            let wanted = compiler.filter(|_| as_it_is);
            if fs::read_link(&link).ok().as_ref() == wanted {
                continue;
            }
            let _ = fs::remove_file(&link);
            if let (Some(compiler), Some(directory)) = (wanted, link.parent()) {
                let made = fs::create_dir_all(directory).and_then(|()| std::os::unix::fs::symlink(compiler, &link));
                if let Err(error) = made {
                    tracing::debug!(%error, link = %link.display(), "cannot leave a link to the compiler");
                }
            }
        }
    }
}

/// What a first look found.
#[derive(Debug)]
enum Look {
    Ready(Resolved),
    Capture(Key, Arc<Definition>),
    /// No file of that name here.
    Unknown(Name),
}

fn language_of(driver: Driver) -> Language {
    match driver {
        Driver::C => Language::C,
        Driver::Cxx => Language::Cxx,
    }
}

fn split_path(path: &OsStr) -> Vec<PathBuf> {
    path.as_bytes()
        .split(|byte| *byte == b':')
        .map(|directory| PathBuf::from(OsStr::from_bytes(directory)))
        .collect()
}

/// Tells whether one of the compilers that `definition` names for this machine is the program at `real`.
fn has_compiler(definition: &Definition, host: Host, real: &Path, surroundings: &Surroundings) -> bool {
    let Ok(variant) = definition.variant(host) else {
        return false;
    };
    // A compiler that has to be told to be this one is another by itself.
    if !variant.defaults.is_empty() {
        return false;
    }
    variant.compilers.values().any(|command| {
        let found = find(command, &variant.path, surroundings);
        found.is_ok_and(|found| fs::canonicalize(found).is_ok_and(|found| found == real))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Whatever panicked in between left whole entries.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

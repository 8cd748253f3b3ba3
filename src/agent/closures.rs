//! Which files a unit includes: by scan, with the compiler asked once about itself; or by the compiler's own list.
//!
//! What the compiler says of itself (predefined macros, search path, answers to `__has_attribute` and its like) is asked
//! once per toolchain and flags and kept in memory; closures themselves are remembered (`remembered`). Scans run on threads
//! that may block. What to do with a unit that cannot be scanned is decided elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::compiler_run::{CompilerRun, CompilerRunner, CompilerSaid};
use crate::compile::{
    CompileCommand, DependencyFile, DependencyKind, DependencyRequest, DependencyTarget, Language, Phony, Quoting,
    local_preprocess,
};
use crate::ids::ToolchainId;
use crate::includes::closure::{Closure, Listed, NoClosure, Origin};
use crate::includes::oracle::{Answers, Query, parse_answers, question_source};
use crate::includes::predefined::{Facts, PROBE_ARGUMENTS, probe_source};
use crate::includes::reduced::Facts as Mentions;
use crate::includes::request::{ScanRequest, probe_words};
use crate::includes::scan::scan;
use crate::includes::source_tree::disk::DiskTree;
use crate::includes::source_tree::{Found, SourceTree, TreeError};
use crate::runtime::tasks::Tasks;

mod book;
mod contents;
mod remembered;
#[cfg(test)]
mod tests;

pub use remembered::{Home, Remembered, keep_regularly};

/// Sets of flags whose facts are kept. A kernel build has some ten; each takes about 100 kB.
const FACTS_MAX: usize = 256;
/// How often one scan may come back with questions. Headers ask about an operator behind the answer to another.
const QUESTION_ROUNDS_MAX: usize = 8;
/// For the compiler to tell about itself; milliseconds on an idle machine.
const PROBE_WAIT: Duration = Duration::from_secs(60);
/// For the compiler to list a unit's files, as long as preprocessing may take.
const LIST_WAIT: Duration = Duration::from_secs(600);

/// A unit, and the compiler as it would be run here.
#[derive(Debug, Clone)]
pub struct Unit {
    /// The command.
    pub command: Arc<CompileCommand>,
    /// The compiler.
    pub program: PathBuf,
    /// What it is called as.
    pub argv0: OsString,
    /// Flags in front of the command's own.
    pub flags: Vec<OsString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment.
    pub env: Arc<Vec<(OsString, OsString)>>,
    /// Number of the toolchain.
    pub toolchain: u64,
    /// Its identity.
    pub toolchain_id: ToolchainId,
}

/// Why there is no closure.
#[derive(Debug, thiserror::Error)]
pub enum NoFiles {
    /// A header is missing: the compiler will say so.
    #[error("{0}")]
    MissingHeader(String),
    /// Something is included that is read once, or without end.
    #[error("{0}")]
    SpecialFile(String),
    /// The scanner cannot tell.
    #[error("{0}")]
    Undecidable(String),
    /// A file names others that only the assembler reads.
    #[error("`{}` names files for the assembler", .0.display())]
    AssemblerReads(PathBuf),
    /// The compiler gave no list.
    #[error("the compiler gives no list of files: {0}")]
    Compiler(String),
    /// A file cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FactsKey {
    toolchain: u64,
    program: PathBuf,
    language: Language,
    words: Vec<OsString>,
    cwd: Option<PathBuf>,
}

#[derive(Debug)]
struct Known {
    facts: Arc<Facts>,
    answers: Mutex<Answers>,
}

type Asked = Arc<OnceCell<Result<Arc<Known>, String>>>;

/// Finds closures.
#[derive(Debug)]
pub struct Closures {
    tree: Arc<DiskTree>,
    runner: CompilerRunner,
    tasks: Tasks,
    scratch: PathBuf,
    known: Mutex<HashMap<FactsKey, Asked>>,
    remembered: Arc<Remembered>,
}

impl Closures {
    /// Looks at files through `tree`; keeps short-lived files in the directory `scratch`.
    pub fn new(
        tree: Arc<DiskTree>,
        runner: CompilerRunner,
        tasks: Tasks,
        scratch: PathBuf,
        remembered: Arc<Remembered>,
    ) -> Self {
        Self {
            remembered,
            tree,
            runner,
            tasks,
            scratch,
            known: Mutex::default(),
        }
    }

    /// Returns the closures of earlier compiles.
    pub fn remembered(&self) -> &Arc<Remembered> {
        &self.remembered
    }

    /// Returns what the compiler says of itself under a unit's flags.
    pub async fn facts(&self, unit: &Unit) -> Result<Arc<Facts>, NoFiles> {
        Ok(self.known(unit).await?.facts.clone())
    }

    /// Finds the closure by scanning the files as they are now.
    pub async fn scan(&self, unit: &Unit) -> Result<Closure, NoFiles> {
        if !unit.command.language.is_preprocessed_here() {
            let (tree, unit) = (self.tree.clone(), unit.clone());
            return self.tasks.blocking(move || source_alone(&tree, &unit)).await;
        }
        let known = self.known(unit).await?;
        let request = ScanRequest::of(&unit.command, &unit.cwd, known.facts.clone())
            .ok_or_else(|| NoFiles::Undecidable("a language that is not scanned".to_owned()))?;
        let request = Arc::new(request);
        for _ in 0..QUESTION_ROUNDS_MAX {
            let (tree, of, by) = (self.tree.clone(), request.clone(), known.clone());
            let scanned = self
                .tasks
                .blocking(move || {
                    let answers = lock(&by.answers).clone();
                    scan(&of, &*tree, &answers)
                })
                .await;
            match scanned {
                Ok(closure) => return Ok(closure),
                Err(NoClosure::NeedsAnswers(queries)) => self.ask(unit, &known, &queries).await?,
                Err(missing @ NoClosure::MissingHeader { .. }) => {
                    return Err(NoFiles::MissingHeader(missing.to_string()));
                }
                Err(NoClosure::Undecidable { place, reason }) if reason.is_for_the_compiler_alone() => {
                    return Err(NoFiles::SpecialFile(format!("{place}: {reason}")));
                }
                Err(undecidable) => return Err(NoFiles::Undecidable(undecidable.to_string())),
            }
        }
        Err(NoFiles::Undecidable("too many questions to the compiler".to_owned()))
    }

    /// Has the compiler list the files.
    pub async fn list(&self, unit: &Unit) -> Result<Closure, NoFiles> {
        if !unit.command.language.is_preprocessed_here() {
            return Err(NoFiles::Compiler("the source is not preprocessed".to_owned()));
        }
        let all = self.listed_by_compiler(unit, DependencyKind::All).await?;
        // Two runs, since one list does not say which headers are the system's. A rare path.
        let own = match &unit.command.dependencies {
            Some(asked) if asked.kind == DependencyKind::User => {
                self.listed_by_compiler(unit, DependencyKind::User).await?
            }
            _ => all.clone(),
        };
        let (tree, unit) = (self.tree.clone(), unit.clone());
        self.tasks
            .blocking(move || closure_of_list(&tree, &unit, &all, &own))
            .await
    }

    async fn known(&self, unit: &Unit) -> Result<Arc<Known>, NoFiles> {
        let words = probe_words(&unit.command.preprocess);
        let relative = words.iter().any(|word| word.as_bytes().contains(&b'/'));
        let key = FactsKey {
            toolchain: unit.toolchain,
            program: unit.program.clone(),
            language: unit.command.language,
            // A sysroot may be relative; most words name no path at all.
            cwd: relative.then(|| unit.cwd.clone()),
            words,
        };
        let asked = {
            let mut known = lock(&self.known);
            if known.len() >= FACTS_MAX && !known.contains_key(&key) {
                known.clear();
            }
            known.entry(key.clone()).or_default().clone()
        };
        let answer = asked.get_or_init(|| self.probe(unit, &key.words)).await.clone();
        if answer.is_err() {
            // Not kept: the next job asks again, and the compiler may have been repaired.
            lock(&self.known).remove(&key);
        }
        answer.map_err(NoFiles::Undecidable)
    }

    async fn probe(&self, unit: &Unit, words: &[OsString]) -> Result<Arc<Known>, String> {
        let symbols = self.tree.symbols();
        let said = self
            .question(unit, words, &PROBE_ARGUMENTS, probe_source(&symbols))
            .await?;
        let facts = Facts::parse(&said.stdout, &said.stderr).map_err(|error| error.to_string())?;
        Ok(Arc::new(Known {
            facts: Arc::new(facts),
            answers: Mutex::default(),
        }))
    }

    async fn ask(&self, unit: &Unit, known: &Known, queries: &[Query]) -> Result<(), NoFiles> {
        let words = probe_words(&unit.command.preprocess);
        let source = question_source(queries, &self.tree.symbols());
        let said = self
            .question(unit, &words, &["-E"], source)
            .await
            .map_err(NoFiles::Undecidable)?;
        let answered = parse_answers(queries, &said.stdout);
        if answered.is_empty() {
            let what = "the compiler does not answer a question about itself";
            return Err(NoFiles::Undecidable(what.to_owned()));
        }
        let mut answers = lock(&known.answers);
        for (query, value) in answered {
            answers.add(query, value);
        }
        Ok(())
    }

    /// Asks the compiler about itself, in English and without the variables that name directories of the user's.
    async fn question(
        &self,
        unit: &Unit,
        words: &[OsString],
        arguments: &[&str],
        stdin: Vec<u8>,
    ) -> Result<CompilerSaid, String> {
        let mut argv = unit.flags.clone();
        argv.extend_from_slice(words);
        argv.extend(arguments.iter().map(OsString::from));
        argv.extend(["-x", unit.command.language.name(), "-"].map(OsString::from));
        const LEFT_OUT: [&str; 6] = [
            "CPATH",
            "C_INCLUDE_PATH",
            "CPLUS_INCLUDE_PATH",
            "OBJC_INCLUDE_PATH",
            "LANGUAGE",
            "LC_ALL",
        ];
        let taken = |name: &OsStr| !LEFT_OUT.iter().any(|left_out| name == *left_out);
        let mut env: Vec<_> = unit.env.iter().filter(|(name, _)| taken(name)).cloned().collect();
        env.push(("LC_ALL".into(), "C".into()));
        let run = CompilerRun {
            program: unit.program.clone(),
            argv0: unit.argv0.clone(),
            words: argv,
            cwd: unit.cwd.clone(),
            env,
            stdin,
        };
        self.runner
            .run(run, PROBE_WAIT)
            .await
            .map_err(|error| error.to_string())
    }

    async fn listed_by_compiler(&self, unit: &Unit, kind: DependencyKind) -> Result<Vec<PathBuf>, NoFiles> {
        let fail = |problem: String| NoFiles::Compiler(problem);
        let scratch = tempfile::Builder::new()
            .prefix("list-")
            .tempfile_in(&self.scratch)
            .map_err(|error| fail(error.to_string()))?;
        let mut command = (*unit.command).clone();
        command.dependencies = Some(DependencyRequest {
            kind,
            file: scratch.path().to_owned(),
            targets: vec![DependencyTarget {
                text: "list".into(),
                quoting: Quoting::Quoted,
            }],
            phony: Phony::No,
        });
        let mut words = unit.flags.clone();
        words.extend(local_preprocess(&command, Path::new("/dev/null")));
        let run = CompilerRun {
            program: unit.program.clone(),
            argv0: unit.argv0.clone(),
            words,
            cwd: unit.cwd.clone(),
            env: unit.env.to_vec(),
            stdin: Vec::new(),
        };
        let said = self
            .runner
            .run(run, LIST_WAIT)
            .await
            .map_err(|error| fail(error.to_string()))?;
        if !said.status.success() {
            let words = String::from_utf8_lossy(&said.stderr);
            return Err(fail(words.lines().next().unwrap_or("it failed silently").to_owned()));
        }
        let text = std::fs::read(scratch.path()).map_err(|error| fail(error.to_string()))?;
        let list = DependencyFile::parse(&text).map_err(|error| fail(error.to_string()))?;
        Ok(list.files().to_vec())
    }
}

/// The closure of a source that is not preprocessed.
fn source_alone(tree: &DiskTree, unit: &Unit) -> Result<Closure, NoFiles> {
    let source = unit.command.source.clone();
    let alone = std::slice::from_ref(&source);
    let closure = closure_of(tree, unit, alone, alone)?;
    match mentioned(&closure, &[b".incbin", b".include"])? {
        Some(path) => Err(NoFiles::AssemblerReads(path)),
        None => Ok(closure),
    }
}

/// The closure of a unit that the compiler listed. The files have not been reduced, so their plain text has to tell
/// what else matters in them.
fn closure_of_list(tree: &DiskTree, unit: &Unit, all: &[PathBuf], own: &[PathBuf]) -> Result<Closure, NoFiles> {
    let mut closure = closure_of(tree, unit, all, own)?;
    let assembler: &[&[u8]] = match unit.command.language {
        Language::AssemblerWithCpp => &[b".incbin", b".include"],
        _ => &[b".incbin"],
    };
    if let Some(path) = mentioned(&closure, assembler)? {
        return Err(NoFiles::AssemblerReads(path));
    }
    let times = mentioned(&closure, &[b"__DATE__", b"__TIME__", b"__TIMESTAMP__"])?;
    closure.facts.time = times.is_some();
    Ok(closure)
}

/// Returns the first file of a closure in whose text one of `words` stands.
fn mentioned(closure: &Closure, words: &[&[u8]]) -> Result<Option<PathBuf>, NoFiles> {
    for listed in &closure.listed {
        let path = &listed.file.route.path;
        let text = std::fs::read(path).map_err(|error| NoFiles::Undecidable(format!("{}: {error}", path.display())))?;
        if words.iter().any(|word| memchr::memmem::find(&text, word).is_some()) {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// The closure that a list of files describes. What was looked for in vain is not in such a list; a worker that holds
/// a file there shows in the compiler's own list.
fn closure_of(tree: &DiskTree, unit: &Unit, all: &[PathBuf], own: &[PathBuf]) -> Result<Closure, NoFiles> {
    let epoch = tree.begin();
    let own: BTreeSet<&Path> = own.iter().map(PathBuf::as_path).collect();
    let (mut links, mut directories) = (BTreeSet::new(), BTreeSet::new());
    let mut listed = Vec::with_capacity(all.len());
    for spelling in all {
        let path = unit.cwd.join(spelling);
        let bytes = path.as_os_str().as_bytes();
        let name_at = memchr::memrchr(b'/', bytes).map_or(0, |at| at + 1);
        let gone = || NoFiles::Undecidable(format!("`{}` is no regular file", spelling.display()));
        let directory = Path::new(OsStr::from_bytes(&bytes[..name_at]));
        let directory = tree.directory(directory, epoch)?.ok_or_else(gone)?;
        let Found::File(file) = tree.find(&directory, &bytes[name_at..], epoch)? else {
            return Err(gone());
        };
        let info = tree.describe(&directory);
        for route in [&info.route, &file.route] {
            links.extend(route.links.iter().cloned());
            directories.extend(route.crossed.iter().cloned());
        }
        listed.push(Listed {
            spelling: spelling.as_os_str().as_bytes().into(),
            file,
            system: !own.contains(spelling.as_path()),
        });
    }
    let options = &unit.command.preprocess;
    let searched = [
        &options.quote_dirs,
        &options.bracket_dirs,
        &options.system_dirs,
        &options.after_dirs,
    ];
    for search in searched.into_iter().flatten() {
        if let Some(directory) = tree.directory(&unit.cwd.join(&search.path), epoch)? {
            let info = tree.describe(&directory);
            links.extend(info.route.links.iter().cloned());
            directories.extend(info.route.crossed.iter().cloned());
            directories.insert(info.route.path.clone());
        }
    }
    Ok(Closure {
        listed,
        consulted: Vec::new(),
        assembled: Vec::new(),
        links: links.into_iter().collect(),
        directories: directories.into_iter().collect(),
        absent: Vec::new(),
        absent_directories: Vec::new(),
        facts: Mentions::default(),
        symbols: tree.symbols(),
        origin: Origin::Listed,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every entry is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

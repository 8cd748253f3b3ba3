//! Jobs through the driver: the machine's own gcc as the toolchain, and a farm that is played in this process.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::agent::broker::Stay;
use crate::agent::coordinator_link::{FarmView, StandIn};
use crate::agent::farm::{Ran, Slot, Want};
use crate::agent::forecast::Prediction;
use crate::agent::house::{Agent, ClientTree};
use crate::agent::placing::Choice;
use crate::agent::preparation::Prepared;
use crate::agent::socket::{Caller, Service};
use crate::agent::spec::LIST_FILE;
use crate::agent::toolchain_resolve::{DefinitionSource, Told};
use crate::exchange::place::{Place, Tree};
use crate::exchange::settings::{File, Given, Settings};
use crate::exchange::{Compiler, Connection, Counters, Reply, Zero};
use crate::job::{InputKind, Outcome, Output, OutputKind, Status, Usage};
use crate::toolchains::host::Host;

mod audits;
mod races;

/// Plays a farm: runs the compiler right here, in a copy of the job's files, and misbehaves as it is told to.
#[derive(Debug, Default)]
struct PlayedFarm {
    /// What goes wrong with the next runs.
    mishaps: Mutex<VecDeque<Mishap>>,
    runs: AtomicUsize,
    /// What was asked for.
    wants: Mutex<Vec<Want>>,
    /// Who was said to be wrong.
    accused: Mutex<Vec<String>>,
    together: tokio::sync::Notify,
}

#[derive(Debug, Clone)]
enum Mishap {
    Place(Reason),
    /// There is no place for whoever asks.
    Full,
    StaysHere(Choice),
    Run(Reason),
    /// The run never ends.
    Hangs,
    /// It ends when the next one does.
    EndsTogether,
    /// The object differs from what it should be.
    FlipsABit,
    /// The compiler's list has a file too many.
    ExtraName,
    /// The file changes while the job runs.
    Edits(PathBuf),
    /// A hard link to the file is made and removed while the job runs.
    Links(PathBuf),
    /// A file comes back that nobody asked for.
    ExtraOutput(PathBuf),
}

impl DefinitionSource for Arc<PlayedFarm> {
    async fn definition(&self, _name: &Name) -> Told {
        Told::Unknown
    }
}

impl Farm for Arc<PlayedFarm> {
    type Place = &'static str;

    async fn place(&self, want: Want) -> Result<Placed<&'static str>, Trouble> {
        let avoid = want.ask.avoid.clone();
        self.wants.lock().unwrap().push(want);
        let is_full = matches!(self.mishaps.lock().unwrap().front(), Some(Mishap::Full));
        if is_full {
            self.mishaps.lock().unwrap().pop_front();
            return std::future::pending().await;
        }
        let mut mishaps = self.mishaps.lock().unwrap();
        match mishaps.front() {
            Some(Mishap::Place(reason)) => {
                let reason = *reason;
                mishaps.pop_front();
                Err(Trouble::new(reason, "played"))
            }
            Some(Mishap::StaysHere(choice)) => {
                let choice = *choice;
                mishaps.pop_front();
                Ok(Placed::Here(choice, Stay::uncounted()))
            }
            _ => {
                let mut nodes = ["played", "second", "third"].into_iter();
                let node = nodes.find(|node| !avoid.iter().any(|avoided| avoided.as_str() == *node));
                node.map(Placed::There)
                    .ok_or_else(|| Trouble::new(Reason::NoWorker, "all are avoided"))
            }
        }
    }

    fn worker(place: &&'static str) -> &'static str {
        place
    }

    fn stand_in<'a>(_place: &'a &'static str) -> Option<&'a StandIn> {
        None
    }

    fn power(_place: &&'static str) -> f64 {
        1.0
    }

    fn accuse(&self, worker: &Name, what: &str) {
        assert!(what.contains(worker.as_str()), "{what}");
        self.accused.lock().unwrap().push(worker.to_string());
    }

    fn view(&self) -> Option<FarmView> {
        Some(FarmView {
            slots_total: 4,
            fastest_milli: 1000,
            ..FarmView::default()
        })
    }

    async fn run(
        &self,
        _place: &'static str,
        job: Arc<Prepared>,
        _foretold: impl Fn() -> Prediction + Send,
    ) -> Result<Ran, Trouble> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let mishap = self.mishaps.lock().unwrap().pop_front();
        if let Some(Mishap::Run(reason)) = mishap {
            return Err(Trouble::new(reason, "played"));
        }
        match mishap {
            Some(Mishap::Hangs) => std::future::pending().await,
            Some(Mishap::EndsTogether) => self.together.notified().await,
            _ => {}
        }
        let mut outcome = compile_at(&job);
        match mishap {
            Some(Mishap::FlipsABit) => {
                for output in &mut outcome.outputs {
                    if let OutputKind::File { content, .. } = &mut output.kind {
                        content[0] ^= 1;
                    }
                }
                self.together.notify_one();
            }
            Some(Mishap::ExtraName) => {
                let list = outcome.dependencies.take().unwrap();
                let text = String::from_utf8(list).unwrap();
                outcome.dependencies = Some(text.replacen(": ", ": extra.h ", 1).into_bytes());
            }
            Some(Mishap::Edits(path)) => fs::write(path, "int edited;").unwrap(),
            Some(Mishap::Links(path)) => {
                let link = path.with_extension("linked");
                fs::hard_link(&path, &link).unwrap();
                fs::remove_file(&link).unwrap();
            }
            Some(Mishap::ExtraOutput(path)) => outcome.outputs.push(Output {
                path,
                kind: OutputKind::File {
                    mode: 0o644,
                    content: Vec::new(),
                },
            }),
            _ => {}
        }
        Ok(Ran {
            outcome,
            slot: Slot::default(),
            bytes_sent: 10,
            bytes_received: 20,
        })
    }

    fn link(&self) -> String {
        "played".to_owned()
    }

    fn coordinator(&self) -> String {
        "http://127.0.0.1:1".to_owned()
    }
}

/// Runs a job with its outputs going elsewhere, and takes them back.
fn compile_at(job: &Prepared) -> Outcome {
    let away = tempfile::tempdir().unwrap();
    let list = away.path().join("list");
    let object = away.path().join("object");
    let mut command = std::process::Command::new(&job.spec.program);
    for word in &job.spec.argv[1..] {
        command.arg(match job.expected.object.ends_with(word) && word != "-c" {
            true => object.as_os_str().to_owned(),
            false => word.clone(),
        });
    }
    command.current_dir(&job.spec.cwd).env_clear();
    for (name, value) in &job.spec.env {
        let value = value.to_string_lossy().replace(LIST_FILE, list.to_str().unwrap());
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let outputs = fs::read(&object).map(|content| Output {
        path: job.expected.object.clone(),
        kind: OutputKind::File { mode: 0o644, content },
    });
    Outcome {
        status: Status::Exited(output.status.code().unwrap() as u8),
        stdout: output.stdout,
        stderr: output.stderr,
        outputs: outputs.into_iter().collect(),
        dependencies: fs::read(list).ok(),
        usage: Usage::default(),
    }
}

struct World {
    dir: tempfile::TempDir,
    farm: Arc<PlayedFarm>,
    agent: Agent<Arc<PlayedFarm>>,
}

impl World {
    fn new(mishaps: &[Mishap]) -> Self {
        Self::with_audits(0.0, mishaps)
    }

    /// Makes one that audits a share of its jobs.
    fn with_audits(audit: f64, mishaps: &[Mishap]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("src")).unwrap();
        fs::create_dir(at("toolchains")).unwrap();
        let target = std::process::Command::new("gcc")
            .arg("-dumpmachine")
            .output()
            .unwrap()
            .stdout;
        let target = String::from_utf8(target).unwrap();
        let text = format!(
            "name = \"here\"\ntarget = \"{}\"\ncompilers = {{ c = \"gcc\" }}\n",
            target.trim()
        );
        fs::write(at("toolchains/here.toml"), text).unwrap();
        let tree = Tree {
            uid: 0,
            mount_namespace: 0,
            root_device: 0,
            root_inode: 0,
            coordinator: None,
        };
        let place = Place::new(at("state"), &tree);
        fs::create_dir_all(place.own_dir()).unwrap();
        let file = File {
            toolchain_dirs: Some(vec![at("toolchains")]),
            audit: Some(audit),
            ..File::default()
        };
        let given = Given {
            processors: 2,
            ..Given::default()
        };
        let settings = Settings::new(given, file, File::default()).unwrap();
        let farm = Arc::new(PlayedFarm {
            mishaps: Mutex::new(mishaps.iter().cloned().collect()),
            ..PlayedFarm::default()
        });
        let client = ClientTree::open(&place).unwrap();
        let ledger = Arc::new(Ledger::new(place.state_dir()));
        let agent = Agent::new(
            &settings,
            &place,
            Host::current(),
            client,
            farm.clone(),
            ledger,
            &Tasks::default(),
        )
        .unwrap();
        Self { dir, farm, agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("src").join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    async fn compile_with(&self, words: &str, wish: Wish) -> Reply {
        let mut argv: Vec<OsString> = vec![OsString::new()];
        argv.extend(words.split(' ').map(OsString::from));
        let request = CompileRequest {
            toolchain: Some(Name::new("here").unwrap()),
            compiler: Compiler::OfToolchain(crate::exchange::Driver::C),
            argv,
            cwd: self.path(""),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            umask: 0o22,
            terminal: None,
            wish,
            worker: None,
        };
        let caller = Caller {
            pid: 0,
            gone: tokio_util::sync::CancellationToken::new(),
        };
        self.agent.compile(request, caller).await.reply
    }

    async fn compile(&self, words: &str) -> Reply {
        self.compile_with(words, Wish::Anywhere).await
    }

    async fn counters(&self) -> Counters {
        self.agent.stats(Zero::Keep).await.unwrap().counters
    }

    /// Compiles and asserts that it ended in a local run for `reason`, after `fallbacks`.
    async fn ends_here(&self, words: &str, reason: &str, fallbacks: &[&str]) {
        let reply = self.compile(words).await;
        assert!(matches!(reply, Reply::RunLocally(_)), "{reply:?}");
        let counters = self.counters().await;
        assert_eq!(counters.local_by_reason.keys().collect::<Vec<_>>(), [reason]);
        assert_eq!(counters.fallbacks_by_reason.keys().collect::<Vec<_>>(), fallbacks);
        assert!(!self.path("a.o").exists());
    }
}

fn succeeded(reply: &Reply) -> bool {
    matches!(reply, Reply::Finished(finished) if finished.status.success())
}

#[tokio::test]
async fn plain_compile_goes_to_the_farm_and_its_object_comes_back() {
    let world = World::new(&[]);
    world.write("a.c", "#include \"a.h\"\nint a = A;\n");
    world.write("a.h", "#define A 1\n");
    let reply = world.compile("-c a.c -o a.o").await;
    assert!(succeeded(&reply), "{reply:?}");
    let mode = fs::metadata(world.path("a.o")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let counters = world.counters().await;
    assert_eq!(
        (counters.remote, counters.remote_by_mode[&crate::exchange::Mode::A]),
        (1, 1)
    );
    assert_eq!((counters.bytes_sent, counters.bytes_received), (10, 20));
}

#[tokio::test]
async fn compile_error_is_passed_on_once() {
    let world = World::new(&[]);
    world.write("a.c", "int a = ;\n");
    let Reply::Finished(finished) = world.compile("-c a.c -o a.o").await else {
        panic!("not finished");
    };
    assert_eq!(finished.status, Status::Exited(1));
    assert!(String::from_utf8_lossy(&finished.stderr).contains("expected expression"));
    assert_eq!(world.farm.runs.load(Ordering::Relaxed), 1);
    assert_eq!(world.counters().await.failed, 1);
}

#[tokio::test]
async fn links_run_here_with_the_toolchains_own_compiler() {
    let world = World::new(&[]);
    let Reply::RunLocally(run) = world.compile("a.o -o a").await else {
        panic!("not local");
    };
    assert!(run.program.is_absolute() && run.program.ends_with("gcc"));
    assert_eq!(world.counters().await.local_by_reason["link"], 1);
}

#[tokio::test]
async fn lost_worker_costs_another_run_and_nothing_else() {
    let world = World::new(&[Mishap::Run(Reason::WorkerLost), Mishap::Run(Reason::WorkerFault)]);
    world.write("a.c", "int a;\n");
    assert!(succeeded(&world.compile("-c a.c -o a.o").await));
    let counters = world.counters().await;
    assert_eq!(counters.remote, 1);
    assert_eq!(counters.fallbacks_by_reason["worker_lost"], 1);
    assert_eq!(counters.fallbacks_by_reason["worker_fault"], 1);
}

#[tokio::test]
async fn difference_in_what_was_read_is_done_again_by_preprocessing_here() {
    let world = World::new(&[Mishap::ExtraName]);
    world.write("a.c", "int a;\n");
    assert!(succeeded(&world.compile("-O1 -c a.c -o a.o").await));
    let counters = world.counters().await;
    assert_eq!(counters.remote_by_mode[&crate::exchange::Mode::B], 1);
    assert_eq!(counters.fallbacks_by_reason["dependency_mismatch"], 1);
    let told = world.agent.why(world.path("a.o")).await.unwrap();
    assert!(told[0].notes.iter().any(|note| note.contains("extra.h")), "{told:?}");
}

#[tokio::test]
async fn file_that_changes_during_the_run_is_compiled_as_it_is_then() {
    let world = World::new(&[]);
    let source = world.write("a.c", "int a;\n");
    world.farm.mishaps.lock().unwrap().push_back(Mishap::Edits(source));
    assert!(succeeded(&world.compile("-c a.c -o a.o").await));
    let symbols = fs::read(world.path("a.o")).unwrap();
    assert!(memchr::memmem::find(&symbols, b"edited").is_some());
    assert_eq!(world.counters().await.fallbacks_by_reason["file_changed"], 1);
}

#[tokio::test]
async fn hard_link_made_during_the_run_is_no_change() {
    let world = World::new(&[]);
    let source = world.write("a.c", "int a;\n");
    world.farm.mishaps.lock().unwrap().push_back(Mishap::Links(source));
    assert!(succeeded(&world.compile("-c a.c -o a.o").await));
    assert_eq!(world.counters().await.fallbacks_by_reason.get("file_changed"), None);
}

#[tokio::test]
async fn preprocessed_text_with_debug_information_stays_here() {
    let world = World::new(&[Mishap::ExtraName]);
    world.write("a.c", "int a;\n");
    world
        .ends_here("-g -c a.c -o a.o", "not_splittable", &["dependency_mismatch"])
        .await;
}

#[tokio::test]
async fn what_cannot_be_put_in_place_is_left_to_the_local_compiler() {
    let world = World::new(&[]);
    world.write("a.c", "int a;\n");
    world
        .ends_here("-c a.c -o none/a.o", "output_directory_missing", &[])
        .await;
    let world = World::new(&[Mishap::ExtraOutput("/etc/passwd".into())]);
    world.write("a.c", "int a;\n");
    world.ends_here("-c a.c -o a.o", "output_unexpected", &[]).await;
}

#[tokio::test]
async fn what_only_the_local_compiler_can_tell_is_left_to_it() {
    let rows = [
        ("#include \"none.h\"\n", "missing_header"),
        ("char *t = __TIME__;\n", "time_macros"),
        ("#include __DATE__\n", "compiler_list_failed"),
    ];
    for (text, reason) in rows {
        let world = World::new(&[]);
        world.write("a.c", text);
        let reply = world.compile("-c a.c -o a.o").await;
        assert!(matches!(reply, Reply::RunLocally(_)), "{text}: {reply:?}");
        let counters = world.counters().await;
        let told: Vec<&String> = counters
            .local_by_reason
            .keys()
            .chain(counters.fallbacks_by_reason.keys())
            .collect();
        assert!(told.iter().any(|told| *told == reason), "{text}: {told:?}");
    }
}

#[tokio::test]
async fn farm_that_is_not_there_means_here_or_an_error_in_strict_mode() {
    let world = World::new(&[Mishap::Place(Reason::NoCoordinator)]);
    world.write("a.c", "int a;\n");
    world.ends_here("-c a.c -o a.o", "no_coordinator", &[]).await;
    let world = World::new(&[Mishap::Place(Reason::ToolchainNotOnFarm)]);
    world.write("a.c", "int a;\n");
    let Reply::Failed(complaint) = world.compile_with("-c a.c -o a.o", Wish::NoFallback).await else {
        panic!("not failed");
    };
    assert!(complaint.error.contains("`here`"), "{complaint}");
    assert!(complaint.hint.unwrap().contains("rdcc toolchain push"));
    assert!(world.agent.report().await.remarks[0].contains("`here`"));
}

#[tokio::test]
async fn job_that_ends_sooner_here_runs_here_and_is_counted_by_that() {
    for choice in [Choice::FasterHere, Choice::FarmFull] {
        let world = World::new(&[Mishap::StaysHere(choice)]);
        world.write("a.c", "int a;\n");
        let Reply::RunLocally(run) = world.compile("-c a.c -o a.o").await else {
            panic!("not local");
        };
        assert_eq!(run.connection, Connection::Inherit);
        assert_ne!(run.niceness, 0);
        assert_eq!(world.counters().await.local_by_reason[choice.name()], 1);
    }
}

#[tokio::test]
async fn what_a_compile_cost_is_what_the_next_is_predicted_to_cost() {
    let world = World::new(&[]);
    world.write("a.c", "int a;\n");
    world.compile("-c a.c -o a.o").await;
    world.compile_with("-c a.c -o a.o", Wish::NoFallback).await;
    let wants = world.farm.wants.lock().unwrap();
    assert!(!wants[0].ask.prediction.is_of_this_source());
    assert!(wants[1].ask.prediction.is_of_this_source());
    assert_eq!(
        [wants[0].ask.reach, wants[1].ask.reach],
        [Reach::Anywhere, Reach::Workers]
    );
}

#[tokio::test]
async fn worker_that_failed_a_job_does_not_get_it_again() {
    let world = World::new(&[Mishap::Run(Reason::WorkerFault)]);
    world.write("a.c", "int a;\n");
    world.compile("-c a.c -o a.o").await;
    let wants = world.farm.wants.lock().unwrap();
    assert!(wants[0].ask.avoid.is_empty());
    assert_eq!(wants[1].ask.avoid, [Name::new("played").unwrap()]);
}

#[tokio::test]
async fn inputs_are_what_the_unit_reads() {
    let world = World::new(&[]);
    let source = world.write("a.c", "#include \"a.h\"\n#include <stddef.h>\n");
    let header = world.write("a.h", "\n");
    let unit = {
        let request = Arc::new(CompileRequest {
            toolchain: Some(Name::new("here").unwrap()),
            compiler: Compiler::OfToolchain(crate::exchange::Driver::C),
            argv: ["", "-c", "a.c"].map(OsString::from).to_vec(),
            cwd: world.path(""),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            umask: 0o22,
            terminal: None,
            wish: Wish::Anywhere,
            worker: None,
        });
        let mut job: Job<&str> = Job::new((*request).clone());
        let driver = world.agent.driver();
        driver.analyse(&mut job).await.unwrap();
        driver.resolve(&mut job, &[]).await.unwrap();
        driver.gather(&mut job, Closure::Scanned).await.unwrap();
        job.prepared.unwrap()
    };
    let files: Vec<&Path> = unit
        .inputs
        .refs
        .iter()
        .filter(|input| matches!(input.kind, InputKind::File { .. }))
        .map(|input| input.path.as_path())
        .collect();
    assert!(
        files.contains(&source.as_path()) && files.contains(&header.as_path()),
        "{files:?}"
    );
    assert!(!files.iter().any(|path| path.ends_with("stddef.h")), "{files:?}");
}

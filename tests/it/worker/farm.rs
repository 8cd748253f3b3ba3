//! A worker in this process, an agent's link to it, and a source tree to compile.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rdcc::agent::worker_link::{
    Changed, Content, ContentSource, InputRef, InputTable, LinkError, LinkRun, LinkTarget, WorkerLink,
};
use rdcc::digest::Digest;
use rdcc::ids::{AgentSessionId, CoreGroupId, GrantId, ToolchainId};
use rdcc::job::{Input, InputKind, JobSpec, Limits, Outcome, Refusal};
use rdcc::protocol::token::{GrantKey, GrantedJob};
use rdcc::runtime::tasks::Tasks;
use rdcc::store::disk::DiskStore;
use rdcc::toolchains::bundle::BundleRef;
use rdcc::toolchains::capture::{Surroundings, capture, find};
use rdcc::toolchains::definition::{self, Definition};
use rdcc::toolchains::golden::Golden;
use rdcc::toolchains::host::Host;
use rdcc::toolchains::installed::ToolchainStore;
use rdcc::toolchains::manifest::Manifest;
use rdcc::worker::admission::Door;
use rdcc::worker::executor::{Executor, Pending};
use rdcc::worker::link_service::LinkService;
use rdcc::worker::mirror::{Mirrors, Owner};
use rdcc::worker::sandbox::{self, JobUser, Mode, SandboxSettings};
use rdcc::worker::session::Places;
use rdcc::worker::settings::Ceilings;
use rdcc::worker::toolchains::{BundleSource, BundleStream, Offer, SourceError, WorkerToolchains};
use rdcc::worker::variant_checks::{Goldens, Sources, VariantChecks};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;

const KEY: GrantKey = GrantKey([4; 32]);
const AGENT: AgentSessionId = AgentSessionId(2);
const COMPILER: &str = "arm-linux-gnueabi-gcc";

pub struct Farm {
    pub link: Arc<WorkerLink>,
    compiler: PathBuf,
    toolchain: ToolchainId,
    pub manifest: Arc<Manifest>,
    pub goldens: Arc<Given>,
    table: InputTable,
    next_grant: AtomicU64,
    tasks: Tasks,
    source: TempDir,
    _state: TempDir,
}

/// Knows the toolchain that is installed here, and has no bundle of it.
struct InstalledOnly(Arc<Manifest>);

impl BundleSource for InstalledOnly {
    async fn describe(&self, _: ToolchainId) -> Result<Offer, SourceError> {
        Ok(Offer {
            manifest: self.0.clone(),
            bundle: BundleRef {
                digest: Digest::of(b""),
                size: 0,
            },
        })
    }

    async fn fetch(&self, _: ToolchainId, _: u64) -> Result<BundleStream, SourceError> {
        Err(SourceError::Unknown)
    }
}

/// Gives the golden objects that a test puts here, and counts how often.
#[derive(Default)]
pub struct Given {
    pub golden: Mutex<Golden>,
    pub asked: AtomicU64,
}

impl Goldens for Given {
    fn golden(&self, _: ToolchainId) -> Pending<'_, Result<Golden, Refusal>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let golden = self.golden.lock().expect("whole").clone();
        Box::pin(std::future::ready(Ok(golden)))
    }
}

/// Reads content from the files themselves.
struct Files;

impl ContentSource for Files {
    fn open(&self, input: &Input) -> Result<Content, Changed> {
        File::open(&input.path).map(Content::File).map_err(|_| Changed)
    }
}

fn captured() -> Option<(PathBuf, Manifest)> {
    let surroundings = Surroundings {
        path: ["/usr/bin", "/bin"].map(PathBuf::from).into(),
        own_program: None,
        environment: Vec::new(),
    };
    let command = definition::Command::Named(COMPILER.to_owned());
    let Ok(path) = find(&command, &[], &surroundings) else {
        println!("skipped: no {COMPILER} here");
        return None;
    };
    let text = format!("name = \"x\"\ntarget = \"arm-linux-gnueabi\"\ncompilers.c = \"{COMPILER}\"\n");
    let definition = Definition::parse(&text).expect("a definition");
    let captured = capture(&definition, Host::current(), &surroundings, &mut |_, _| {}).expect("captures");
    Some((path, captured.manifest))
}

impl Farm {
    /// Starts a worker that isolates jobs in the best way.
    pub async fn start(slots: u32) -> Option<Self> {
        Self::start_with(slots, sandbox::modes()).await
    }

    /// Starts a worker that isolates jobs in the first of these ways that works.
    pub async fn start_with(slots: u32, modes: &[Mode]) -> Option<Self> {
        let (compiler, manifest) = captured()?;
        let toolchain = manifest.id();
        let state = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let roots = state.path().join("roots");
        let store = DiskStore::open(&state.path().join("blobs"), 1 << 30).expect("store");
        let toolchains = ToolchainStore::open(&roots.join("toolchains"), 4 << 30).expect("store");
        let settings = SandboxSettings {
            launcher_program: env!("CARGO_BIN_EXE_rdcc-worker").into(),
            lower_base: roots.clone(),
            job_user: JobUser::default(),
            niceness: 0,
        };
        let sandbox = sandbox::start_with(settings, modes).expect("this machine can isolate jobs");
        let owner = sandbox.report().job_user.map(|user| Owner {
            uid: user.uid,
            gid: user.gid,
        });
        let sandbox = Arc::new(sandbox);
        let goldens = Arc::new(Given::default());
        let manifest = Arc::new(manifest);
        let source = InstalledOnly(manifest.clone());
        let executor = Executor {
            door: Door::new(vec![slots]),
            toolchains: Arc::new(WorkerToolchains::new(
                toolchains,
                source,
                tasks.clone(),
                Box::new(|_| {}),
            )),
            mirrors: Mirrors::open(&roots.join("mirrors"), store.clone(), owner, 1 << 30).expect("mirrors"),
            variants: VariantChecks::new(
                goldens.clone(),
                sandbox.clone(),
                Ceilings::default(),
                tasks.clone(),
                Sources {
                    directory: roots.join("golden"),
                    owner,
                },
            ),
            sandbox,
            core_groups: Vec::new(),
            ceilings: Ceilings::default(),
            blob_quota_bytes: 1 << 30,
            tasks: tasks.clone(),
        };
        executor.door.welcome(KEY);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let service = LinkService::new(Arc::new(executor), store, tasks.clone()).into_server();
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), tasks.token().cancelled_owned());
        tasks.spawn(async move { serving.await.expect("serves") });
        let target = LinkTarget {
            address,
            worker: rdcc::ids::Name::new("n1").expect("a name"),
            trust: rdcc::trust::credentials::Trust::Plain,
            agent: AGENT,
            tree: Digest::of(b"tree"),
        };
        Some(Self {
            link: Arc::new(WorkerLink::new(target, &tasks)),
            compiler,
            toolchain,
            manifest,
            goldens,
            table: InputTable::default(),
            next_grant: AtomicU64::new(1),
            tasks,
            source: tempfile::tempdir().expect("temporary directory"),
            _state: state,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.source.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the source")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub fn set_time(&self, name: &str, seconds: u64) {
        let file = File::options().write(true).open(self.path(name)).expect("there");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_modified(time).expect("ours");
    }

    fn words(&self, source: &str, object: &str, flags: &[&str]) -> Vec<OsString> {
        let rest = ["-c", source, "-o", object].into_iter().chain(flags.iter().copied());
        std::iter::once(COMPILER).chain(rest).map(OsString::from).collect()
    }

    fn environment() -> Vec<(OsString, OsString)> {
        vec![("LC_ALL".into(), "C".into()), ("PATH".into(), "/usr/bin:/bin".into())]
    }

    pub fn compile_locally(&self, source: &str, object: &str, flags: &[&str]) -> Output {
        let words = self.words(source, object, flags);
        std::process::Command::new(&self.compiler)
            .args(&words[1..])
            .current_dir(self.source.path())
            .env_clear()
            .envs(Self::environment())
            .output()
            .expect("runs")
    }

    /// Makes a job of a compile; its inputs are what the compiler itself lists.
    pub fn job(&self, source: &str, object: &str, flags: &[&str]) -> LinkRun {
        let quiet = |flag: &&&str| !flag.starts_with("-M") && **flag != "a.d";
        let flags_for_list: Vec<&str> = flags.iter().filter(quiet).copied().collect();
        let words = self.words(source, object, &flags_for_list);
        let listed = std::process::Command::new(&self.compiler)
            .args(&words[2..3])
            .arg("-M")
            .args(words[5..].iter().filter(|word| *word != "-save-temps"))
            .current_dir(self.source.path())
            .env_clear()
            .envs(Self::environment())
            .output()
            .expect("runs");
        let text = String::from_utf8(listed.stdout).expect("plain names");
        let names = text.split_whitespace().skip(1).filter(|word| *word != "\\");
        let mut inputs: Vec<InputRef> = Vec::new();
        for name in names.chain([source]) {
            inputs.extend(self.inputs_at(&self.source.path().join(name)));
        }
        self.job_with(self.words(source, object, flags), inputs)
    }

    pub fn job_with(&self, argv: Vec<OsString>, inputs: Vec<InputRef>) -> LinkRun {
        let grant = GrantId(self.next_grant.fetch_add(1, Ordering::Relaxed));
        LinkRun {
            grant,
            token: KEY.token(grant, AGENT, self.toolchain).to_vec(),
            cores: CoreGroupId::default(),
            spec: JobSpec {
                toolchain: self.toolchain,
                program: self.compiler.clone(),
                argv,
                cwd: self.source.path().to_owned(),
                env: Self::environment(),
                inputs: Vec::new(),
                umask: 0o22,
                terminal: None,
                dependency_file: None,
                outputs: Vec::new(),
                output_dirs: Vec::new(),
                limits: Limits::default(),
            },
            inputs: inputs.into(),
            content: Arc::new(Files),
            output_bytes_max: 1 << 30,
            run_as: None,
        }
    }

    /// The toolchain that is here.
    pub fn toolchain(&self) -> ToolchainId {
        self.toolchain
    }

    pub fn token(&self, grant: GrantId, job: impl Into<GrantedJob>) -> Vec<u8> {
        KEY.token(grant, AGENT, job).to_vec()
    }

    /// Makes a job one of another toolchain, granted to run on the one that is here.
    pub fn grant_variant(&self, job: &mut LinkRun, toolchain: ToolchainId) {
        let pair = GrantedJob {
            toolchain,
            run_as: Some(self.toolchain),
        };
        job.token = self.token(job.grant, pair);
        job.spec.toolchain = toolchain;
    }

    pub fn add_input(&self, job: &mut LinkRun, name: &str) {
        let mut inputs = job.inputs.to_vec();
        inputs.extend(self.inputs_at(&self.path(name)));
        job.inputs = inputs.into();
    }

    /// The input at a path, and the links on the way to it.
    pub fn inputs_at(&self, path: &Path) -> Vec<InputRef> {
        let mut found = Vec::new();
        let mut at = PathBuf::from("/");
        for part in path.iter().skip(1) {
            at.push(part);
            let Ok(metadata) = fs::symlink_metadata(&at) else { break };
            if metadata.is_symlink() && !at.starts_with("/usr") {
                let kind = InputKind::Symlink(fs::read_link(&at).expect("a link").into());
                let path = at.clone();
                found.push(self.table.intern(Input { path, kind }));
            }
        }
        let metadata = fs::metadata(path).expect("there");
        if metadata.is_dir() {
            let (path, kind) = (path.to_owned(), InputKind::Directory);
            found.push(self.table.intern(Input { path, kind }));
            return found;
        }
        let content = fs::read(path).expect("readable");
        let kind = InputKind::File {
            digest: Digest::of(&content),
            size: metadata.len(),
            mode: metadata.mode() & 0o777,
            mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        };
        let path = path.to_owned();
        found.push(self.table.intern(Input { path, kind }));
        found
    }

    /// Starts a job; its end comes with what was expected of it.
    pub fn start_job(
        &self,
        job: LinkRun,
        expected: Vec<u8>,
    ) -> oneshot::Receiver<(Result<Outcome, LinkError>, Vec<u8>)> {
        let (sender, receiver) = oneshot::channel();
        let link = self.link.clone();
        self.tasks.spawn(async move {
            let ended = link.run(job).await;
            sender.send((ended, expected)).expect("somebody waits");
        });
        receiver
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

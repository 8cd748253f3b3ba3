//! A worker and its agents in one process. Its sandbox runs shell scripts in a merged copy of the job's root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

use super::super::*;
use crate::agent::worker_link::{Changed, Content, ContentSource, InputTable, LinkRun, LinkTarget, WorkerLink};
use crate::digest::Digest;
use crate::ids::{CoreGroupId, GrantId};
use crate::job::{Input, InputKind, Limits};
use crate::protocol::token::GrantKey;
use crate::protocol::wire;
use crate::store::disk::DiskStore;
use crate::toolchains::golden::Golden;
use crate::toolchains::manifest::tests::sample;
use crate::worker::link_service::LinkService;
use crate::worker::sandbox::{Change, ChangeKind};
use crate::worker::session::Places;
use crate::worker::variant_checks::{Goldens, Sources};

const KEY: GrantKey = GrantKey([9; 32]);
const AGENT: AgentSessionId = AgentSessionId(5);

pub(super) struct Farm {
    pub(super) executor: Arc<Executor>,
    pub(super) sandbox: Arc<Pretended>,
    /// Owns what the agents do.
    pub(super) agents: Tasks,
    worker: Tasks,
    address: String,
    table: InputTable,
    state: TempDir,
    next_grant: AtomicU64,
    slots: u32,
}

impl Farm {
    pub(super) async fn start(slots: u32) -> Self {
        Self::start_in(tempfile::tempdir().expect("temporary directory"), slots).await
    }

    async fn start_in(state: TempDir, slots: u32) -> Self {
        let worker = Tasks::default();
        let store = DiskStore::open(&state.path().join("blobs"), 64 << 20).expect("store");
        let mirrors = Mirrors::open(&state.path().join("mirrors"), store.clone(), None, 64 << 20).expect("mirrors");
        let sandbox = Arc::new(Pretended::default());
        let executor = Arc::new(Executor {
            door: Door::new(vec![slots]),
            toolchains: Arc::new(OneToolchain(state.path().join("toolchain"))),
            mirrors,
            sandbox: sandbox.clone(),
            variants: VariantChecks::new(
                Arc::new(NoGoldens),
                sandbox.clone(),
                Ceilings::default(),
                worker.clone(),
                Sources {
                    directory: state.path().join("golden"),
                    owner: None,
                },
            ),
            core_groups: Vec::new(),
            ceilings: Ceilings::default(),
            blob_quota_bytes: 64 << 20,
            tasks: worker.clone(),
        });
        executor.door.welcome(KEY);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let service = LinkService::new(executor.clone(), store, worker.clone()).into_server();
        let server = tonic::transport::Server::builder().add_service(service);
        let stopped = worker.token().cancelled_owned();
        worker.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            server
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .expect("serves");
        });
        Self {
            executor,
            sandbox,
            agents: Tasks::default(),
            worker,
            address,
            table: InputTable::default(),
            state,
            next_grant: AtomicU64::new(1),
            slots,
        }
    }

    /// Ends the worker and starts another in the same place.
    pub(super) async fn restart(self) -> Self {
        self.agents.shut_down(std::time::Duration::from_secs(60)).await;
        self.worker.shut_down(std::time::Duration::from_secs(60)).await;
        let next_grant = self.next_grant;
        Self {
            next_grant,
            ..Self::start_in(self.state, self.slots).await
        }
    }

    pub(super) fn link(&self) -> WorkerLink {
        self.link_as(b"tree")
    }

    pub(super) fn link_as(&self, tree: &[u8]) -> WorkerLink {
        let target = LinkTarget {
            address: self.address.clone(),
            worker: crate::ids::Name::new("n1").expect("a name"),
            trust: crate::trust::credentials::Trust::Plain,
            agent: AGENT,
            tree: Digest::of(tree),
        };
        WorkerLink::new(target, &self.agents)
    }

    pub(super) fn token(&self, grant: GrantId, toolchain: ToolchainId) -> Vec<u8> {
        KEY.token(grant, AGENT, toolchain).to_vec()
    }

    pub(super) fn job(&self, files: &[(&str, &str)], script: &str) -> LinkRun {
        let mut job = job_with(
            self,
            files.iter().map(|(path, content)| file(path, content)).collect(),
            script,
        );
        job.content = Arc::new(Source::of(files));
        job
    }

    pub(super) fn damage_blob(&self, content: &[u8], damaged: &[u8]) {
        let name = Digest::of(content).to_string();
        let blob = self
            .state
            .path()
            .join("blobs")
            .join(&name[..2])
            .join(format!("{}-{}", &name[2..], content.len()));
        fs::remove_file(&blob).expect("there");
        fs::write(&blob, damaged).expect("ours");
    }

    pub(super) fn wire_run(&self) -> wire::Run {
        wire::Run {
            job: 1,
            toolchain: sample().id().0.as_bytes().to_vec(),
            program: b"/bin/sh".to_vec(),
            argv: vec![b"sh".to_vec()],
            cwd: b"/src".to_vec(),
            ..Default::default()
        }
    }

    /// Says these things after a proper hello, and returns how the worker ends the link.
    pub(super) async fn speak(&self, requests: Vec<wire::link_request::Request>) -> Result<(), tonic::Status> {
        let hello = wire::LinkHello {
            protocol: crate::protocol::version::NEWEST,
            agent_session: AGENT.0,
            tree: vec![0; 32],
        };
        let channel = crate::runtime::channel::connect(&self.address).await.expect("listens");
        let (sender, stream) = mpsc::channel(8);
        for request in [wire::link_request::Request::Hello(hello)].into_iter().chain(requests) {
            let request = wire::LinkRequest { request: Some(request) };
            sender.send(request).await.expect("room");
        }
        let mut client = wire::worker_client::WorkerClient::new(channel);
        let mut replies = client.link(ReceiverStream::new(stream)).await?.into_inner();
        while replies.message().await?.is_some() {}
        Ok(())
    }
}

/// Knows of no golden objects.
struct NoGoldens;

impl Goldens for NoGoldens {
    fn golden(&self, _: ToolchainId) -> Pending<'_, Result<Golden, Refusal>> {
        Box::pin(std::future::ready(Ok(Golden::default())))
    }
}

pub(super) fn file(path: &str, content: &str) -> Input {
    let kind = InputKind::File {
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        mode: 0o644,
        mtime_ns: 1,
    };
    Input {
        path: path.into(),
        kind,
    }
}

pub(super) fn job_with(farm: &Farm, inputs: Vec<Input>, script: &str) -> LinkRun {
    let grant = GrantId(farm.next_grant.fetch_add(1, Ordering::Relaxed));
    let toolchain = sample().id();
    LinkRun {
        run_as: None,
        grant,
        token: farm.token(grant, toolchain),
        cores: CoreGroupId::default(),
        spec: JobSpec {
            toolchain,
            program: "/bin/sh".into(),
            argv: vec!["sh".into(), script.into()],
            cwd: "/src".into(),
            env: Vec::new(),
            inputs: Vec::new(),
            umask: 0o22,
            terminal: None,
            dependency_file: None,
            outputs: Vec::new(),
            output_dirs: Vec::new(),
            limits: Limits::default(),
        },
        inputs: inputs.into_iter().map(|input| farm.table.intern(input)).collect(),
        content: Arc::new(Source::of(&[("", "through a link")])),
        output_bytes_max: 64 << 20,
    }
}

/// Content by digest.
pub(super) struct Source {
    contents: BTreeMap<Digest, Arc<Vec<u8>>>,
    lie: Option<Arc<Vec<u8>>>,
    gate: Option<Gate>,
}

/// Makes a source wait when it is asked.
struct Gate {
    asked: Arc<Notify>,
    opened: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Source {
    fn of(files: &[(&str, &str)]) -> Self {
        let content = |(_, content): &(&str, &str)| {
            let content = content.as_bytes().to_vec();
            (Digest::of(&content), Arc::new(content))
        };
        Self {
            contents: files.iter().map(content).collect(),
            lie: None,
            gate: None,
        }
    }

    /// Has nothing, and says so only when the sender has sent. The notification tells that it was asked.
    pub(super) fn empty_behind_a_gate() -> (Self, Arc<Notify>, std::sync::mpsc::Sender<()>) {
        let (open, opened) = std::sync::mpsc::channel();
        let asked = Arc::new(Notify::new());
        let gate = Gate {
            asked: asked.clone(),
            opened: Mutex::new(opened),
        };
        let source = Self {
            gate: Some(gate),
            ..Self::empty()
        };
        (source, asked, open)
    }

    pub(super) fn empty() -> Self {
        Self::of(&[])
    }

    pub(super) fn lying(content: &[u8]) -> Self {
        Self {
            lie: Some(Arc::new(content.to_vec())),
            ..Self::empty()
        }
    }
}

impl ContentSource for Source {
    fn open(&self, input: &Input) -> Result<Content, Changed> {
        let InputKind::File { digest, .. } = &input.kind else {
            return Err(Changed);
        };
        if let Some(gate) = &self.gate {
            gate.asked.notify_one();
            let opened = gate.opened.lock().expect("never poisoned");
            opened.recv().expect("the test sends");
        }
        let content = self.lie.as_ref().or(self.contents.get(digest));
        content.cloned().map(Content::Held).ok_or(Changed)
    }
}

struct OneToolchain(PathBuf);

impl Toolchains for OneToolchain {
    fn ensure(&self, toolchain: ToolchainId) -> Pending<'_, Result<ReadyToolchain, Refusal>> {
        let ready = if toolchain == sample().id() {
            Ok(ReadyToolchain {
                root: self.0.clone(),
                manifest: Arc::new(sample()),
                pin: Box::new(()),
            })
        } else {
            Err(refusal(RefusalKind::NoToolchain, "unknown".to_owned()))
        };
        Box::pin(async { ready })
    }
}

/// Runs `argv[1]` as a shell script in a copy of the topmost directory. `wait` waits for [`Pretended::go_on`] first,
/// `limit` and `break` fail as a real sandbox would.
#[derive(Default)]
pub(super) struct Pretended {
    pub(super) started: Notify,
    pub(super) go_on: Notify,
    pub(super) killed: Notify,
}

impl Sandbox for Pretended {
    fn run(&self, command: Command, stop: Stop) -> Pending<'_, Result<Ran, SandboxError>> {
        Box::pin(async move {
            let script = command.argv[1].to_str().expect("a script").to_owned();
            let script = match script.strip_prefix("wait") {
                Some(rest) => {
                    self.started.notify_one();
                    if stop.unless_stopped(self.go_on.notified()).await.is_err() {
                        self.killed.notify_one();
                        return Ok(ended(TempDir::new().expect("made"), Vec::new(), Status::Signaled(9)));
                    }
                    rest.trim_start_matches(';').to_owned()
                }
                None => script,
            };
            match script.as_str() {
                "break" => Err(SandboxError::LauncherDied),
                "limit" => Ok(Ran {
                    killed_by: Some(Limit::Memory),
                    ..ended(TempDir::new().expect("made"), Vec::new(), Status::Signaled(9))
                }),
                "hindered" => Ok(Ran {
                    killed_by: Some(Limit::Writing),
                    ..ended(TempDir::new().expect("made"), Vec::new(), Status::Exited(1))
                }),
                script => Ok(run_script(&command, script)),
            }
        })
    }
}

fn run_script(command: &Command, script: &str) -> Ran {
    let root = TempDir::new().expect("made");
    copy(&command.lower[0], root.path());
    let cwd = root.path().join(command.cwd.strip_prefix("/").expect("absolute"));
    fs::create_dir_all(&cwd).expect("made");
    let before = list(root.path());
    let shell = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(&cwd)
        .output()
        .expect("a shell");
    let after = list(root.path());
    let mut changes: Vec<Change> = Vec::new();
    for (path, stamp) in &after {
        if before.get(path) != Some(stamp) {
            let at = root.path().join(path);
            let found = fs::symlink_metadata(&at).expect("listed");
            let kind = match found.is_file() {
                true => ChangeKind::File {
                    mode: 0o644,
                    size: found.len(),
                },
                false => ChangeKind::Symlink(fs::read_link(&at).expect("a link").into()),
            };
            changes.push(Change {
                path: Path::new("/").join(path),
                kind,
            });
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        changes.push(Change {
            path: Path::new("/").join(path),
            kind: ChangeKind::Removed,
        });
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let status = match shell.status.signal() {
        Some(signal) => Status::Signaled(signal as u8),
        None => Status::Exited(shell.status.code().unwrap_or(255) as u8),
    };
    ended(root, changes, status)
}

fn ended(root: TempDir, changes: Vec<Change>, status: Status) -> Ran {
    Ran {
        status,
        stdout: Vec::new(),
        stderr: Vec::new(),
        usage: Usage::default(),
        killed_by: None,
        left: Box::new(Scratch { root, changes }),
    }
}

struct Scratch {
    root: TempDir,
    changes: Vec<Change>,
}

impl Left for Scratch {
    fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(self.root.path().join(path.strip_prefix("/").expect("absolute")))
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("listed");
        if kind.is_dir() {
            fs::create_dir(&target).expect("made");
            copy(&source, &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source).expect("a link"), &target).expect("made");
        } else {
            fs::write(&target, fs::read(&source).expect("readable")).expect("written");
        }
    }
}

/// Every file and link below `root`, with what changes when it is written.
fn list(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(&directory).expect("readable").flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("listed");
            if kind.is_dir() {
                queue.push(path);
            } else {
                let content = if kind.is_file() {
                    fs::read(&path).expect("readable")
                } else {
                    Vec::new()
                };
                found.insert(path.strip_prefix(root).expect("below").to_owned(), content);
            }
        }
    }
    found
}

//! What a sandbox test lives in: a base directory with one layer, a probe program in it, and a launcher.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdcc::worker::sandbox::{
    Command, Finished, JobLimits, JobUser, Launcher, Mode, SandboxError, SandboxSettings, start_with,
};
use tempfile::TempDir;

use crate::support::copy_program;

/// Where the other identity finds the launcher and the probe: descriptors it inherits, since the directories that hold
/// them may be closed to it.
const LAUNCHER: &str = "RDCC_TEST_LAUNCHER";
const PROBE: &str = "RDCC_TEST_PROBE";

pub const EVERY_WAY: &[Mode] = &[Mode::UserOverlay, Mode::RootOverlay, Mode::UserBinds, Mode::RootBinds];
pub const OVERLAYS: &[Mode] = &[Mode::UserOverlay, Mode::RootOverlay];
pub const USER_SPACES: &[Mode] = &[Mode::UserOverlay, Mode::UserBinds];

pub struct World {
    pub mode: Mode,
    pub launcher: Launcher,
    /// The layer of every job, as the worker sees it.
    pub layer: PathBuf,
    pub base: TempDir,
}

/// Runs `body` once for each of `modes` that this identity can use, and then, when this is root, all of it again as an
/// ordinary user. `test` is the path of the calling test.
pub fn in_every<F: Future<Output = ()>>(test: &str, modes: &[Mode], body: impl Fn(World) -> F) {
    run_here(modes, body);
    if is_root() && modes.iter().any(|mode| USER_SPACES.contains(mode)) {
        run_again(test, Identity::OrdinaryUser);
    }
}

/// As [`in_every`], in processes that run nothing else meanwhile: for tests that look at their own process.
pub fn alone_in_every<F: Future<Output = ()>>(test: &str, modes: &[Mode], body: impl Fn(World) -> F) {
    if std::env::var_os(PROBE).is_some() {
        return run_here(modes, body);
    }
    run_again(test, Identity::Own);
    if is_root() {
        run_again(test, Identity::OrdinaryUser);
    }
}

fn run_here<F: Future<Output = ()>>(modes: &[Mode], body: impl Fn(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for mode in modes {
        if is_root() || USER_SPACES.contains(mode) {
            runtime.block_on(async { body(World::new(*mode)).await });
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `sandbox_test!(name, modes, |world| async move { … })` is a test in every one of the modes.
#[macro_export]
macro_rules! sandbox_test {
    ($name:ident, $modes:expr, $body:expr) => {
        #[test]
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            $crate::sandbox::world::in_every(path, $modes, $body);
        }
    };
    ($name:ident, alone, $modes:expr, $body:expr) => {
        #[test]
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            $crate::sandbox::world::alone_in_every(path, $modes, $body);
        }
    };
}

enum Identity {
    Own,
    OrdinaryUser,
}

/// Runs one test of this program in a process of its own.
fn run_again(test: &str, identity: Identity) {
    let test = test.split_once("::").map_or(test, |(_crate, rest)| rest);
    let open = |path: &Path| {
        let file = File::open(path).unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        (file, name)
    };
    let (_own, own_name) = open(&std::env::current_exe().unwrap());
    let (_launcher, launcher_name) = open(&launcher_program());
    let (_probe, probe_name) = open(&probe());
    let mut command = std::process::Command::new(own_name);
    if matches!(identity, Identity::OrdinaryUser) {
        command.uid(65534).gid(65534);
    }
    let output = command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(LAUNCHER, launcher_name)
        .env(PROBE, probe_name)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in a process of its own: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn launcher_program() -> PathBuf {
    std::env::var_os(LAUNCHER).map_or_else(|| env!("CARGO_BIN_EXE_rdcc-worker").into(), PathBuf::from)
}

/// Builds the probe once for all tests of this process.
fn probe() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(given) = std::env::var_os(PROBE) {
        return given.into();
    }
    let build = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sandbox/probe.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{}", std::process::id()));
        let status = std::process::Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .args([&program, &source])
            .status()
            .expect("a C compiler is there, since Rust links with it");
        assert!(status.success(), "the probe needs a static C library");
        // Into its final place at once: another process may be building the same.
        let finished = program.with_file_name("probe");
        fs::rename(program, &finished).unwrap();
        finished
    };
    BUILT.get_or_init(build).clone()
}

pub fn settings(base: &Path) -> SandboxSettings {
    SandboxSettings {
        launcher_program: launcher_program(),
        lower_base: base.to_owned(),
        job_user: JobUser::default(),
        niceness: 3,
    }
}

impl World {
    pub fn new(mode: Mode) -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), Permissions::from_mode(0o711)).unwrap();
        let launcher = start_with(settings(base.path()), &[mode]).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        let layer = base.path().join("layer");
        fs::create_dir(&layer).unwrap();
        fs::create_dir(layer.join("bin")).unwrap();
        let world = World {
            mode,
            launcher,
            layer,
            base,
        };
        world.put("work/input.h", "int x;\n");
        copy_program(&probe(), &world.layer.join("bin/probe"));
        fs::set_permissions(world.layer.join("bin/probe"), Permissions::from_mode(0o755)).unwrap();
        world.give_away();
        world
    }

    /// Puts a file into the layer.
    pub fn put(&self, path: &str, content: &str) {
        let path = self.layer.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.give_away();
    }

    /// Gives the layer to the job's user, as a worker that is root does with its mirrors.
    fn give_away(&self) {
        let Some(user) = self.launcher.report().job_user else {
            return;
        };
        let mut found = vec![self.layer.clone()];
        while let Some(path) = found.pop() {
            std::os::unix::fs::lchown(&path, Some(user.uid), Some(user.gid)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    /// A job that runs the probe with these arguments in `/work`.
    pub fn job(&self, arguments: &[&str]) -> Command {
        Command {
            lower: vec![self.layer.clone()],
            program: "/bin/probe".into(),
            argv: ["probe"].iter().chain(arguments).map(OsString::from).collect(),
            env: Vec::new(),
            cwd: "/work".into(),
            umask: 0o022,
            terminal: None,
            limits: JobLimits {
                memory_bytes: 1 << 30,
                cpu: Duration::from_secs(60),
                wall: Duration::from_secs(60),
                processes: 32,
                output_bytes: 16 << 20,
                text_bytes: 1 << 20,
            },
            cpus: None,
            make_dirs: Vec::new(),
            writable_dirs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    pub async fn run(&self, command: Command) -> Result<Finished, SandboxError> {
        self.launcher.run(command).await?.finished().await
    }

    /// Runs the probe and expects it to succeed. Returns what it printed.
    pub async fn probe(&self, arguments: &[&str]) -> String {
        let finished = self.run(self.job(arguments)).await.unwrap();
        let text = String::from_utf8(finished.stdout).unwrap();
        let errors = String::from_utf8_lossy(&finished.stderr);
        let status = finished.status;
        assert!(
            status.success(),
            "{:?} {arguments:?}: {status:?} {text}{errors}",
            self.mode
        );
        text
    }
}

/// Processes of the whole node that have `token` among their arguments.
pub fn processes_with(token: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == token.as_bytes())
        {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// Processes with the token once the kernel had time to end them.
pub fn left_with(token: &str) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let found = processes_with(token);
        if found.is_empty() || begun.elapsed() > Duration::from_secs(10) {
            return found;
        }
        std::thread::yield_now();
    }
}

/// A word that no other process of the node has among its arguments.
pub fn token(name: &str) -> String {
    format!("{name}-{}-{:?}", std::process::id(), Instant::now())
}

//! A coordinator, workers and a client on loopback: the real programs, a directory of their own, nothing left behind.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that is waited for here; a machine that builds other things too is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until `answer` has one.
pub fn wait_for<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program of ours that runs until it is told not to.
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("starts");
        Self { child }
    }

    /// Returns the address behind `listening on `, the first line of the program's output.
    fn address(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ");
        address.unwrap_or_else(|| panic!("unexpected `{line}`")).to_owned()
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn kill(mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A farm and one client.
pub struct TestFarm {
    dir: tempfile::TempDir,
    coordinator: Option<Daemon>,
    pub coordinator_address: String,
    workers: BTreeMap<String, Daemon>,
}

/// The compiler that the farm's tests use.
pub const COMPILER: &str = "arm-linux-gnueabi-gcc";

/// What make is given as `CC` to compile by the farm.
pub fn distributed_compiler() -> String {
    format!("{} --toolchain arm926 {COMPILER}", env!("CARGO_BIN_EXE_rdcc"))
}

/// Tells whether the cross compiler is here; the tests say that they were skipped when it is not.
pub fn has_compiler() -> bool {
    let found = Path::new("/usr/bin").join(COMPILER).exists();
    if !found {
        eprintln!("skipped: no {COMPILER} here");
    }
    found
}

impl TestFarm {
    /// Starts a coordinator and nothing else.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rdcc-farm-")
            .tempdir()
            .expect("a directory");
        for name in ["home", "client", "src"] {
            fs::create_dir(dir.path().join(name)).expect("created");
        }
        let mut farm = Self {
            dir,
            coordinator: None,
            coordinator_address: "127.0.0.1:0".to_owned(),
            workers: BTreeMap::new(),
        };
        farm.start_coordinator();
        farm
    }

    /// Starts a farm with workers of these names and slots, which has the toolchain `arm926`.
    pub fn with_workers(workers: &[(&str, u32)]) -> Self {
        let mut farm = Self::new();
        for (name, slots) in workers {
            farm.start_worker(name, *slots);
        }
        farm.push();
        farm
    }

    pub fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).expect("exists").join(name)
    }

    /// Where the tests' sources are.
    pub fn src(&self) -> PathBuf {
        self.path("src")
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.src().join(name);
        fs::create_dir_all(path.parent().expect("in the directory")).expect("created");
        fs::write(&path, text).expect("written");
        path
    }

    pub fn start_coordinator(&mut self) {
        let command = self.coordinator_command();
        self.run_coordinator(command);
    }

    pub fn coordinator_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdcc-coordinator"));
        command
            .args(["--listen", &self.coordinator_address, "--state-dir"])
            .arg(self.path("coordinator"))
            .env_clear()
            .env("RDCC_LOG", "info,rdcc=debug");
        command
    }

    /// Starts the coordinator by a command that was changed.
    pub fn run_coordinator(&mut self, mut command: Command) {
        let mut daemon = Daemon::start(&mut command, &self.path("coordinator.log"));
        self.coordinator_address = daemon.address();
        self.coordinator = Some(daemon);
    }

    pub fn kill_coordinator(&mut self) {
        if let Some(daemon) = self.coordinator.take() {
            daemon.kill();
        }
    }

    /// Tells the coordinator to end, and waits until it has ended well.
    pub fn end_coordinator(&mut self) {
        if let Some(mut daemon) = self.coordinator.take() {
            daemon.signal(Signal::TERM);
            let status = daemon.child.wait().expect("ends");
            assert!(status.success(), "{status}\n{}", self.logs());
        }
    }

    pub fn start_worker(&mut self, name: &str, slots: u32) {
        let state_dir = self.path(name);
        self.start_worker_in(name, slots, &state_dir);
    }

    /// Starts a worker that keeps its files in `state_dir`.
    pub fn start_worker_in(&mut self, name: &str, slots: u32, state_dir: &Path) {
        let command = self.worker_command(name, slots, state_dir);
        self.run_worker(name, command);
    }

    pub fn worker_command(&self, name: &str, slots: u32, state_dir: &Path) -> Command {
        let mut command = self.plain_worker_command(name, state_dir);
        command.args(["--power", "1", "--slots", &slots.to_string()]);
        command
    }

    /// A worker that is told nothing of this machine.
    pub fn plain_worker_command(&self, name: &str, state_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdcc-worker"));
        command
            .args(["--coordinator", &format!("http://{}", self.coordinator_address)])
            .args(["--listen", "127.0.0.1:0", "--name", name, "--state-dir"])
            .arg(state_dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("RDCC_LOG", "info,rdcc=debug");
        command
    }

    /// Starts a worker by a command that was changed.
    pub fn run_worker(&mut self, name: &str, mut command: Command) {
        let daemon = Daemon::start(&mut command, &self.path(&format!("{name}.log")));
        self.workers.insert(name.to_owned(), daemon);
    }

    pub fn kill_worker(&mut self, name: &str) {
        if let Some(daemon) = self.workers.remove(name) {
            daemon.kill();
        }
    }

    /// Waits until a worker that was told to end has ended well.
    pub fn wait_for_worker(&mut self, name: &str) {
        if let Some(mut daemon) = self.workers.remove(name) {
            let status = daemon.child.wait().expect("ends");
            let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
            // One that had not begun cannot have heard.
            let unheard = log.is_empty() && status.signal() == Some(Signal::TERM.as_raw());
            assert!(status.success() || unheard, "{name}: {status}\n{log}\n{}", self.logs());
        }
    }

    pub fn worker_pid(&self, name: &str) -> u32 {
        self.workers[name].child.id()
    }

    /// Sends a worker a signal.
    pub fn signal_worker(&self, name: &str, signal: Signal) {
        self.workers[name].signal(signal);
    }

    /// Gives the farm the toolchain `arm926`.
    pub fn push(&self) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("toolchains/arm926.toml");
        let output = self
            .rdcc()
            .args(["toolchain", "push"])
            .arg(file)
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts the toolchain's file where this client looks for it.
    pub fn remember_toolchain(&self) {
        let toolchains = self.path("home/.config/rdcc/toolchains");
        fs::create_dir_all(&toolchains).expect("created");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("toolchains/arm926.toml");
        fs::copy(file, toolchains.join("arm926.toml")).expect("copied");
    }

    /// `rdcc`, as this client runs it.
    pub fn rdcc(&self) -> Command {
        self.client(Path::new(env!("CARGO_BIN_EXE_rdcc")))
    }

    /// `program` in the source directory, with this client's environment and nothing else.
    pub fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("RDCC_STATE_DIR", self.path("client"))
            .env("RDCC_COORDINATOR", format!("http://{}", self.coordinator_address))
            .env("RDCC_LOG", "info,rdcc=debug")
            .current_dir(self.src())
            .stdin(Stdio::null());
        command
    }

    /// A compile through rdcc that must not fall back for want of infrastructure.
    pub fn compile(&self, words: &[&str]) -> Command {
        let mut command = self.rdcc();
        command
            .args(["--toolchain", "arm926", COMPILER])
            .args(words)
            .env("RDCC_STRICT", "1");
        command
    }

    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let output = self.rdcc().args(words).arg("--json").output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The counters.
    pub fn stats(&self) -> serde_json::Value {
        self.json(&["stats"])
    }

    /// The client's agent, if one runs.
    pub fn agent(&self) -> Option<Pid> {
        let pid = self.json(&["status"])["agent"]["pid"].as_i64()?;
        Pid::from_raw(pid.try_into().expect("a process"))
    }

    /// Waits until agents hold no place, nor have a job at one.
    pub fn wait_until_all_places_are_back(&self) {
        wait_for("the return of all places", || {
            let status = self.json(&["status"]);
            let agents = status["cluster"]["agents"].as_array()?;
            let holding = agents.iter().all(|agent| agent["holding"] == 0);
            (!agents.is_empty() && holding).then_some(())
        });
    }

    /// What the daemons said, for a failed assertion.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        let mut add = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            logs.push_str(&format!("--- {}\n{text}\n", path.display()));
        };
        for name in self.workers.keys().map(String::as_str).chain(["coordinator"]) {
            add(&self.path(&format!("{name}.log")));
        }
        for entry in fs::read_dir(self.path("client/agents")).into_iter().flatten().flatten() {
            add(&entry.path().join("agent.log"));
        }
        logs
    }

    /// Runs `rdcc` with these words and asserts that it succeeded.
    pub fn must_rdcc(&self, words: &[&str]) {
        let output = self.rdcc().args(words).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a command and asserts that it succeeded in silence.
    pub fn must(&self, mut command: Command) {
        let output = command.output().expect("runs");
        self.assert_success(&output);
    }

    pub fn assert_success(&self, output: &Output) {
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success() && stdout.is_empty() && stderr.is_empty(),
            "{:?}\n{stdout}{stderr}\n{}",
            output.status,
            self.logs()
        );
    }
}

impl Drop for TestFarm {
    fn drop(&mut self) {
        let _ = self.rdcc().args(["agent", "stop"]).output();
        for (_, daemon) in std::mem::take(&mut self.workers) {
            // In order, so that it takes its mounts and children along.
            daemon.signal(Signal::TERM);
            // A test that failed may have left it frozen.
            daemon.signal(Signal::CONT);
            let mut daemon = daemon;
            let _ = daemon.child.wait();
        }
        self.kill_coordinator();
        // Files of jobs belong to another user when the tests run as root; all can be removed then.
        let _ = fs::remove_dir_all(self.dir.path());
    }
}

/// Every regular file below `dir`, by relative path, with its content.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("below").to_owned();
                found.insert(name, fs::read(&path).expect("read"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

/// Asserts that two directories hold the same files, and names the first that differs.
pub fn assert_same_files(ours: &BTreeMap<PathBuf, Vec<u8>>, theirs: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs), "{what}: other files");
    for (name, content) in ours {
        assert!(
            content == &theirs[name],
            "{what}: `{}` differs ({} against {} bytes)",
            name.display(),
            content.len(),
            theirs[name].len()
        );
    }
}

/// Splits a table's words.
pub fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

//! A farm with certificates: the real programs, a directory of their own, each on a host of its own where that is wanted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that is waited for here.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const COMPILER: &str = "arm-linux-gnueabi-gcc";

pub fn has_compiler() -> bool {
    let found = Path::new("/usr/bin").join(COMPILER).exists();
    if !found {
        eprintln!("skipped: no {COMPILER} here");
    }
    found
}

/// A farm with certificates on loopback, and what belongs to it.
pub struct SecureFarm {
    dir: tempfile::TempDir,
    pub address: String,
    daemons: Vec<(String, Child)>,
    /// Where the network namespaces are of those that have one, by the names of workers and users.
    hosts: BTreeMap<String, String>,
}

/// A user: a home and a state directory.
pub struct User<'a> {
    farm: &'a SecureFarm,
    name: &'static str,
}

impl SecureFarm {
    /// Makes the farm and starts its coordinator, whose certificates are good for so long. Returns the first administrator's token.
    pub fn new(certificate_valid: &str) -> (Self, String) {
        Self::on_hosts(certificate_valid, "127.0.0.1:0", BTreeMap::new())
    }

    /// The same, on hosts of their own; the coordinator listens on `listen`.
    pub fn on_hosts(certificate_valid: &str, listen: &str, hosts: BTreeMap<String, String>) -> (Self, String) {
        let dir = tempfile::Builder::new()
            .prefix("rdcc-trust-")
            .tempdir()
            .expect("a directory");
        fs::create_dir(dir.path().join("src")).expect("created");
        let mut farm = Self {
            dir,
            address: listen.to_owned(),
            daemons: Vec::new(),
            hosts,
        };
        let config = format!("certificate_valid = \"{certificate_valid}\"\n");
        fs::write(farm.path("coordinator.toml"), config).expect("written");
        let made = farm.coordinator_command().arg("init").output().expect("runs");
        assert!(made.status.success(), "{}", said(&made));
        let text = said(&made);
        let token = text
            .split_whitespace()
            .find(|word| word.starts_with("rdcc-") && word.len() > 40);
        let token = token.unwrap_or_else(|| panic!("{text}")).to_owned();
        farm.start_coordinator();
        (farm, token)
    }

    /// `program`, run on the host of a worker or a user.
    fn program(&self, name: &str, program: &str) -> Command {
        match self.hosts.get(name) {
            Some(host) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={host}")).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).expect("there").join(name)
    }

    pub fn coordinator_command(&self) -> Command {
        let mut command = self.program("coordinator", env!("CARGO_BIN_EXE_rdcc-coordinator"));
        command
            .arg("--state-dir")
            .arg(self.path("coordinator"))
            .arg("--config")
            .arg(self.path("coordinator.toml"));
        command
            .env_clear()
            .env("RDCC_LOG", "info,rdcc=debug")
            .stdin(Stdio::null());
        command
    }

    pub fn start_coordinator(&mut self) {
        let mut command = self.coordinator_command();
        command.args(["--listen", &self.address]);
        let line = self.start("coordinator", command);
        self.address = line.strip_prefix("listening on ").expect("an address").to_owned();
    }

    /// Starts a daemon, and returns its first line.
    pub fn start(&mut self, name: &str, mut command: Command) -> String {
        let command = command.stdout(Stdio::piped()).stderr(self.open_log(name));
        let mut child = command.spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        self.daemons.push((name.to_owned(), child));
        assert!(!line.is_empty(), "{name} did not start: {}", self.log(name));
        line.trim().to_owned()
    }

    /// Starts the agent of `user` by a command that stays in the foreground, and waits until it can be spoken to.
    pub fn start_agent(&mut self, user: &'static str, mut command: Command) {
        let agent = command
            .stdout(Stdio::null())
            .stderr(self.open_log(&format!("{user}-agent")));
        let agent = agent.spawn().expect("starts");
        self.daemons.push((format!("{user}-agent"), agent));
        wait_for("the agent", || {
            let status = self.user(user).must(&["status", "--json"]);
            serde_json::from_str::<serde_json::Value>(&status).expect("JSON")["agent"]["pid"].is_u64()
        });
    }

    /// Kills a daemon, and returns which process it was.
    pub fn kill(&mut self, name: &str) -> u32 {
        let at = self
            .daemons
            .iter()
            .position(|(known, _)| known == name)
            .expect("it runs");
        let (_, mut child) = self.daemons.remove(at);
        let _ = child.kill();
        let _ = child.wait();
        child.id()
    }

    fn open_log(&self, name: &str) -> fs::File {
        let mut options = fs::File::options();
        let log = options.create(true).append(true);
        log.open(self.path(&format!("{name}.log"))).expect("opened")
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    pub fn worker_command(&self, name: &str) -> Command {
        let mut command = self.program(name, env!("CARGO_BIN_EXE_rdcc-worker"));
        command.arg("--state-dir").arg(self.path(name)).args(["--name", name]);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("RDCC_LOG", "info,rdcc=debug")
            .stdin(Stdio::null());
        command
    }

    pub fn join_worker(&self, name: &str, token: &str) -> Output {
        self.worker_command(name)
            .args(["join", &self.address, token])
            .output()
            .expect("runs")
    }

    /// Has a worker join by a token that the administrator makes for it.
    pub fn enrol_worker(&self, name: &str) {
        let token = self.user("boss").must(&["token", "create", "--role", "worker"]);
        let joined = self.join_worker(name, &token);
        assert!(joined.status.success(), "{}", said(&joined));
    }

    /// Starts a worker that has joined; it finds its coordinator by itself.
    pub fn start_worker(&mut self, name: &str) {
        self.start_worker_at(name, "127.0.0.1:0");
    }

    pub fn start_worker_at(&mut self, name: &str, listen: &str) {
        let mut command = self.worker_command(name);
        command.args(["--listen", listen, "--power", "1", "--slots", "2"]);
        self.start(name, command);
    }

    pub fn user(&self, name: &'static str) -> User<'_> {
        fs::create_dir_all(self.path(name)).expect("created");
        User { farm: self, name }
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path("src").join(name), text).expect("written");
    }
}

impl Drop for SecureFarm {
    fn drop(&mut self) {
        for user in ["boss", "pc", "other"] {
            if self.path(user).exists() {
                let _ = self.user(user_name(user)).rdcc(&["agent", "stop"]);
            }
        }
        for (name, mut child) in std::mem::take(&mut self.daemons) {
            let signal = if name == "coordinator" {
                Signal::KILL
            } else {
                Signal::TERM
            };
            let _ = kill_process(Pid::from_child(&child), signal);
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(self.dir.path());
    }
}

fn user_name(name: &str) -> &'static str {
    match name {
        "boss" => "boss",
        "pc" => "pc",
        _ => "other",
    }
}

impl User<'_> {
    pub fn command(&self) -> Command {
        let home = self.farm.path(self.name);
        let mut command = self.farm.program(self.name, env!("CARGO_BIN_EXE_rdcc"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &home)
            .env("RDCC_STATE_DIR", home.join("state"))
            .env("RDCC_LOG", "info,rdcc=debug")
            .current_dir(self.farm.path("src"))
            .stdin(Stdio::null());
        command
    }

    pub fn rdcc(&self, words: &[&str]) -> Output {
        self.command().args(words).output().expect("runs")
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub fn must(&self, words: &[&str]) -> String {
        let output = self.rdcc(words);
        assert!(
            output.status.success(),
            "{words:?}: {}\n{}",
            said(&output),
            self.farm.log("coordinator")
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a command that has to be refused, and returns why.
    pub fn refused(&self, words: &[&str]) -> String {
        let output = self.rdcc(words);
        assert!(
            !output.status.success(),
            "{words:?} should be refused: {}",
            said(&output)
        );
        said(&output)
    }

    pub fn join(&self, token: &str) -> String {
        self.must(&["join", &self.farm.address, token, "--name", self.name])
    }

    /// Joins by a token that the administrator makes for a client.
    pub fn enrol(&self) {
        let token = self.farm.user("boss").must(&["token", "create", "--role", "client"]);
        self.join(&token);
    }

    /// Compiles nothing by choice on this user's machine from now on.
    pub fn leave_to_workers(&self) {
        let directory = self.farm.path(self.name).join(".config/rdcc");
        fs::create_dir_all(&directory).expect("created");
        fs::write(directory.join("config.toml"), "local_share = false\n").expect("written");
    }

    /// The compiler by way of the farm.
    pub fn compiler(&self) -> Command {
        let mut command = self.command();
        command.args(["--toolchain", "arm926", COMPILER]);
        command
    }

    pub fn compile(&self) -> Output {
        let mut command = self.compiler();
        command.args(["-O2", "-c", "a.c", "-o", "a.o"]);
        command.env("RDCC_STRICT", "1").output().expect("runs")
    }
}

pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub const ARM926: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/toolchains/arm926.toml");

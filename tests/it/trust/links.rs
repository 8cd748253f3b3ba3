//! Hosts of their own, in network namespaces, and what happens when the links between them are slow or cut.
//!
//! Needs root, `ip`, `tc`, `unshare` and `nsenter`; says so and passes where they are not to be had.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::farm::{ARM926, COMPILER, PATIENCE, SecureFarm, has_compiler, said, wait_for};

/// Compiles for some seconds.
const LONG: &str = "#define F(n) int f##n(int *a, int b) { for (int i = 0; i < b; i++) for (int j = i; j < b; j++) \
    a[i] = a[j] * (a[j - i] + 1) ^ (a[i] >> (j & 7)); return a[b - 1]; }\n\
    #define T(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7)\n\
    #define S(n) T(n##0) T(n##1) T(n##2) T(n##3) T(n##4) T(n##5) T(n##6) T(n##7)\nS(1) S(2) S(3) S(4)\n";
const WORDS: [&str; 5] = ["-O3", "-c", "a.c", "-o", "a.o"];

/// A hub, where coordinator and user are, and two nodes, each on a link of its own.
struct Network {
    /// One that holds each namespace: nothing is mounted for them, which other tests would see.
    holders: Vec<Child>,
}

/// A command on a host.
fn command_on(host: &Child, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", place(host))).arg(program);
    command
}

/// Runs a command on a host.
fn on(host: &Child, words: &str) -> bool {
    let mut words = words.split(' ');
    let mut command = command_on(host, words.next().unwrap_or_default());
    command.args(words).output().is_ok_and(|output| output.status.success())
}

/// Where a host's namespace is.
fn place(host: &Child) -> String {
    format!("/proc/{}/ns/net", host.id())
}

impl Network {
    /// `None` where namespaces cannot be made.
    fn new() -> Option<Self> {
        let mut network = Self { holders: Vec::new() };
        for _ in 0..3 {
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", "echo made; exec sleep 1000"]);
            let Ok(mut holder) = command.stdout(Stdio::piped()).spawn() else {
                break;
            };
            let mut line = String::new();
            let read = BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut line);
            network.holders.push(holder);
            if read.is_err() || line != "made\n" {
                break;
            }
        }
        let made = network.holders.len() == 3 && network.holders.iter().all(|host| on(host, "ip link set lo up"));
        let linked = made && (1..=2).all(|node| network.link(node));
        if !linked {
            println!("skipped: no network namespaces here");
        }
        linked.then_some(network)
    }

    fn link(&self, node: usize) -> bool {
        let [hub, far] = [&self.holders[0], &self.holders[node]];
        on(
            hub,
            &format!("ip link add l{node} type veth peer name hub0 netns {}", far.id()),
        ) && on(hub, &format!("ip addr add 10.213.{node}.1/24 dev l{node}"))
            && on(hub, &format!("ip link set l{node} up"))
            && on(far, &format!("ip addr add 10.213.{node}.2/24 dev hub0"))
            && on(far, "ip link set hub0 up")
            && on(far, &format!("ip route add default via 10.213.{node}.1"))
    }

    fn hosts(&self) -> BTreeMap<String, String> {
        let host = |name: &str, at: usize| (name.to_owned(), place(&self.holders[at]));
        [host("coordinator", 0), host("boss", 0), host("n1", 1), host("n2", 2)].into()
    }

    /// Pulls a node's cable out, or puts it in again.
    fn cable(&self, node: usize, state: &str) {
        assert!(on(&self.holders[0], &format!("ip link set l{node} {state}")));
    }

    /// Loses all that goes to a node, or that comes from it, or no longer.
    fn deaf(&self, node: usize, direction: Direction, what: &str) {
        let done = match direction {
            Direction::ToNode => on(
                &self.holders[0],
                &format!("ip route {what} blackhole 10.213.{node}.2/32"),
            ),
            Direction::FromNode => on(
                &self.holders[node],
                &format!("ip route {what} blackhole 10.213.{node}.1/32"),
            ),
        };
        assert!(done, "{direction:?} {what}");
    }

    /// The two ends of a node's link.
    fn ends(&self, node: usize) -> [(&Child, String); 2] {
        [
            (&self.holders[0], format!("l{node}")),
            (&self.holders[node], "hub0".to_owned()),
        ]
    }

    /// Makes a node's link as slow as this, both ways.
    fn slow(&self, node: usize, rate: &str) -> bool {
        let slowed = |(host, device): &(&Child, String)| {
            on(
                host,
                &format!("tc qdisc replace dev {device} root tbf rate {rate} burst 16kb latency 400ms"),
            )
        };
        self.ends(node).iter().all(slowed)
    }

    fn fast(&self, node: usize) {
        for (host, device) in self.ends(node) {
            on(host, &format!("tc qdisc del dev {device} root"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    ToNode,
    FromNode,
}

#[test]
fn cut_and_slow_links_cost_time_and_nothing_else() {
    if !has_compiler() || !rustix::process::geteuid().is_root() {
        println!("skipped: needs root and {COMPILER}");
        return;
    }
    // Dropped last: the farm's processes are in it.
    let Some(network) = Network::new() else { return };
    let (mut farm, token) = SecureFarm::on_hosts("8760 h", "0.0.0.0:7420", network.hosts());
    farm.address = "10.213.1.1:7420".to_owned();
    farm.user("boss").join(&token);
    for (node, listen) in [("n1", "10.213.1.2:7431"), ("n2", "10.213.2.2:7431")] {
        let for_worker = farm.user("boss").must(&["token", "create", "--role", "worker"]);
        let joined = farm.join_worker(node, &for_worker);
        assert!(joined.status.success(), "{}", said(&joined));
        farm.start_worker_at(node, listen);
    }
    farm.user("boss").must(&["toolchain", "push", ARM926]);
    farm.write("a.c", LONG);
    let local = Command::new(COMPILER)
        .args(WORDS)
        .current_dir(farm.path("src"))
        .status();
    assert!(local.is_ok_and(|status| status.success()));
    let expected = fs::read(farm.path("src/a.o")).expect("made");
    fs::create_dir_all(farm.path("boss/.config/rdcc")).expect("created");
    fs::write(farm.path("boss/.config/rdcc/config.toml"), "local_share = false\n").expect("written");
    let ready = |farm: &SecureFarm| {
        let nodes = farm.user("boss").must(&["nodes", "--json"]);
        nodes.matches("\"ready\"").count() == 2 && nodes.matches("\"installed\"").count() == 2
    };
    wait_for("two nodes", || ready(&farm));

    /// What is done to the node that has the job.
    type Harm<'a> = (&'a str, Box<dyn Fn(usize) + 'a>, Box<dyn Fn(usize) + 'a>);
    let harms: [Harm<'_>; 3] = [
        (
            "cable out",
            Box::new(|node| network.cable(node, "down")),
            Box::new(|node| network.cable(node, "up")),
        ),
        (
            "nothing reaches the node",
            Box::new(|node| network.deaf(node, Direction::ToNode, "add")),
            Box::new(|node| network.deaf(node, Direction::ToNode, "del")),
        ),
        (
            "nothing comes from the node",
            Box::new(|node| network.deaf(node, Direction::FromNode, "add")),
            Box::new(|node| network.deaf(node, Direction::FromNode, "del")),
        ),
    ];
    for (what, harm, heal) in &harms {
        fs::remove_file(farm.path("src/a.o")).expect("there");
        let mut command = farm.user("boss").command();
        command.args(["--toolchain", "arm926", COMPILER]).args(WORDS);
        let mut compile = command.spawn().expect("starts");
        let mut victim = None;
        wait_for("the job's start", || {
            let status = farm.user("boss").must(&["status", "--json"]);
            victim = ["n1", "n2"]
                .iter()
                .position(|node| status.contains(&format!("running on {node}")));
            victim.is_some()
        });
        let victim = victim.expect("a node") + 1;
        harm(victim);
        let began = Instant::now();
        let status = compile.wait().expect("ends");
        heal(victim);
        assert!(status.success() && began.elapsed() < PATIENCE, "{what}");
        assert!(fs::read(farm.path("src/a.o")).expect("made") == expected, "{what}");
        // The node comes back by itself.
        wait_for("the node's return", || ready(&farm));
        println!("{what}: the job took {:.1?} from then on", began.elapsed());
    }

    if !(network.slow(1, "1mbit") && network.slow(2, "1mbit")) {
        println!("skipped: no slow links here");
        return;
    }
    fs::remove_file(farm.path("src/a.o")).expect("there");
    let mut command = farm.user("boss").command();
    let slow = command
        .args(["--toolchain", "arm926", COMPILER])
        .args(WORDS)
        .output()
        .expect("runs");
    (1..=2).for_each(|node| network.fast(node));
    assert!(slow.status.success(), "{}", said(&slow));
    assert!(fs::read(farm.path("src/a.o")).expect("made") == expected);
    let stats = farm.user("boss").must(&["stats"]);
    assert!(stats.contains("failed     0"), "{stats}");
    println!("{stats}");
}

#[test]
fn announced_coordinator_is_found_from_another_host_until_it_is_gone() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let Some(network) = Network::new() else { return };
    let state = tempfile::tempdir().expect("a directory");
    let find = || {
        let mut command = command_on(&network.holders[1], env!("CARGO_BIN_EXE_rdcc"));
        let output = command
            .args(["find", "--json", "--seconds", "2"])
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let start = |words: &[&str]| {
        let mut command = command_on(&network.holders[0], env!("CARGO_BIN_EXE_rdcc-coordinator"));
        command
            .args([
                "--listen",
                "10.213.1.1:7420",
                "--insecure-lan",
                "--allow",
                "10.213.0.0/16",
                "--state-dir",
            ])
            .arg(state.path())
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut coordinator = command.spawn().expect("starts");
        let mut line = String::new();
        let mut output = BufReader::new(coordinator.stdout.take().expect("piped"));
        output.read_line(&mut line).expect("read");
        assert!(line.contains("listening"), "{line}");
        coordinator
    };
    let stop = |mut coordinator: Child| {
        let pid = rustix::process::Pid::from_child(&coordinator);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("there");
        assert!(coordinator.wait().expect("ends").success());
    };
    let silent = start(&[]);
    assert_eq!(
        find(),
        serde_json::json!([]),
        "nothing is announced unless it is asked for"
    );
    stop(silent);
    let announced = start(&["--announce"]);
    let mut found = find();
    wait_for("the announcement", || {
        found = find();
        found.as_array().is_some_and(|found| !found.is_empty())
    });
    assert_eq!(
        found[0]["addresses"],
        serde_json::json!(["10.213.1.1:7420"]),
        "{found:#}"
    );
    assert_eq!(found[0]["certificates"], false, "{found:#}");
    stop(announced);
    assert_eq!(find(), serde_json::json!([]), "gone");
}

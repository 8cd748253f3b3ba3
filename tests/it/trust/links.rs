//! Hosts of their own, in network namespaces, and what happens when the links between them are slow or cut.
//!
//! Needs root, `ip`, `tc` and `nsenter`; says so and passes where they are not to be had.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
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
    names: [String; 3],
}

fn ip(words: &str) -> bool {
    let status = Command::new("ip").args(words.split(' ')).output();
    status.is_ok_and(|output| output.status.success())
}

impl Network {
    /// `None` where namespaces cannot be made.
    fn new() -> Option<Self> {
        let names = ["hub", "n1", "n2"].map(|name| format!("rdcc-{}-{name}", std::process::id()));
        let network = Self { names };
        let made = network
            .names
            .iter()
            .all(|name| ip(&format!("netns add {name}")) && ip(&format!("-n {name} link set lo up")));
        let linked = made && (1..=2).all(|node| network.link(node));
        if !linked {
            println!("skipped: no network namespaces here");
        }
        linked.then_some(network)
    }

    fn link(&self, node: usize) -> bool {
        let [hub, far] = [&self.names[0], &self.names[node]];
        ip(&format!(
            "-n {hub} link add l{node} type veth peer name hub0 netns {far}"
        )) && ip(&format!("-n {hub} addr add 10.213.{node}.1/24 dev l{node}"))
            && ip(&format!("-n {hub} link set l{node} up"))
            && ip(&format!("-n {far} addr add 10.213.{node}.2/24 dev hub0"))
            && ip(&format!("-n {far} link set hub0 up"))
            && ip(&format!("-n {far} route add default via 10.213.{node}.1"))
    }

    fn hosts(&self) -> BTreeMap<String, String> {
        let [hub, one, two] = self.names.clone();
        [("coordinator", hub.clone()), ("boss", hub), ("n1", one), ("n2", two)]
            .map(|(name, host)| (name.to_owned(), host))
            .into()
    }

    /// Pulls a node's cable out, or puts it in again.
    fn cable(&self, node: usize, state: &str) {
        assert!(ip(&format!("-n {} link set l{node} {state}", self.names[0])));
    }

    /// Loses all that goes to a node, or that comes from it, or no longer.
    fn deaf(&self, node: usize, direction: Direction, what: &str) {
        let done = match direction {
            Direction::ToNode => ip(&format!(
                "-n {} route {what} blackhole 10.213.{node}.2/32",
                self.names[0]
            )),
            Direction::FromNode => ip(&format!(
                "-n {} route {what} blackhole 10.213.{node}.1/32",
                self.names[node]
            )),
        };
        assert!(done, "{direction:?} {what}");
    }

    /// Makes a node's link as slow as this, both ways.
    fn slow(&self, node: usize, rate: &str) -> bool {
        [
            (&self.names[0], format!("l{node}")),
            (&self.names[node], "hub0".to_owned()),
        ]
        .iter()
        .all(|(host, device)| {
            let words = format!("-n {host} qdisc replace dev {device} root tbf rate {rate} burst 16kb latency 400ms");
            Command::new("tc")
                .args(words.split(' '))
                .output()
                .is_ok_and(|output| output.status.success())
        })
    }

    fn fast(&self, node: usize) {
        for (host, device) in [
            (&self.names[0], format!("l{node}")),
            (&self.names[node], "hub0".to_owned()),
        ] {
            let _ = Command::new("tc")
                .args(["-n", host, "qdisc", "del", "dev", &device, "root"])
                .output();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}"));
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

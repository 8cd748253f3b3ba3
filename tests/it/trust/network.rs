//! Hosts of their own, in network namespaces, on links of their own.
//!
//! Needs root, `ip`, `unshare` and `nsenter`; says so where they are not to be had.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A hub, where coordinator and user are, and two nodes, each on a link of its own.
pub struct Network {
    /// One that holds each namespace: nothing is mounted for them, which other tests would see.
    pub holders: Vec<Child>,
}

/// A command on a host.
pub fn command_on(host: &Child, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", place(host))).arg(program);
    command
}

/// Runs a command on a host.
pub fn on(host: &Child, words: &str) -> bool {
    let mut words = words.split(' ');
    let mut command = command_on(host, words.next().unwrap_or_default());
    command.args(words).output().is_ok_and(|output| output.status.success())
}

/// Where a host's namespace is.
pub fn place(host: &Child) -> String {
    format!("/proc/{}/ns/net", host.id())
}

impl Network {
    /// `None` where namespaces cannot be made.
    pub fn new() -> Option<Self> {
        let mut network = Self { holders: Vec::new() };
        let made = (0..3).all(|_| network.add_host());
        let linked = made && (1..=2).all(|node| network.link(node));
        if !linked {
            println!("skipped: no network namespaces here");
        }
        linked.then_some(network)
    }

    /// Makes a host that nothing leads to yet.
    pub fn add_host(&mut self) -> bool {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo made; exec sleep 1000"]);
        let Ok(mut holder) = command.stdout(Stdio::piped()).spawn() else {
            return false;
        };
        let mut line = String::new();
        let read = BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut line);
        self.holders.push(holder);
        read.is_ok() && line == "made\n" && self.holders.last().is_some_and(|host| on(host, "ip link set lo up"))
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

    pub fn hosts(&self) -> BTreeMap<String, String> {
        let host = |name: &str, at: usize| (name.to_owned(), place(&self.holders[at]));
        [host("coordinator", 0), host("boss", 0), host("n1", 1), host("n2", 2)].into()
    }

    /// Pulls a node's cable out, or puts it in again.
    pub fn cable(&self, node: usize, state: &str) {
        assert!(on(&self.holders[0], &format!("ip link set l{node} {state}")));
    }

    /// Loses all that goes to a node, or that comes from it, or no longer.
    pub fn deaf(&self, node: usize, direction: Direction, what: &str) {
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
    pub fn slow(&self, node: usize, rate: &str) -> bool {
        let slowed = |(host, device): &(&Child, String)| {
            on(
                host,
                &format!("tc qdisc replace dev {device} root tbf rate {rate} burst 16kb latency 400ms"),
            )
        };
        self.ends(node).iter().all(slowed)
    }

    pub fn fast(&self, node: usize) {
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
pub enum Direction {
    ToNode,
    FromNode,
}

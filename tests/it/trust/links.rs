//! What happens when the links between hosts are slow or cut, or lose some of what is sent.
//!
//! Needs root, `ip`, `tc`, `unshare`, `nsenter` and `/dev/net/tun`; says so and passes where they are not to be had.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::farm::{ARM926, COMPILER, PATIENCE, SecureFarm, has_compiler, said, wait_for};
use super::long_link::{Conditions, LongLink};
use super::network::{Direction, Network, command_on, place};

/// Compiles for some seconds.
const LONG: &str = "#define F(n) int f##n(int *a, int b) { for (int i = 0; i < b; i++) for (int j = i; j < b; j++) \
    a[i] = a[j] * (a[j - i] + 1) ^ (a[i] >> (j & 7)); return a[b - 1]; }\n\
    #define T(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7)\n\
    #define S(n) T(n##0) T(n##1) T(n##2) T(n##3) T(n##4) T(n##5) T(n##6) T(n##7)\nS(1) S(2) S(3) S(4)\n";
const WORDS: [&str; 5] = ["-O3", "-c", "a.c", "-o", "a.o"];

/// A farm of these hosts, whose two workers are ready.
fn farm_on(hosts: BTreeMap<String, String>) -> SecureFarm {
    let (mut farm, token) = SecureFarm::on_hosts("8760 h", "0.0.0.0:7420", hosts);
    farm.address = "10.213.1.1:7420".to_owned();
    farm.user("boss").join(&token);
    for (node, listen) in [("n1", "10.213.1.2:7431"), ("n2", "10.213.2.2:7431")] {
        farm.enrol_worker(node);
        farm.start_worker_at(node, listen);
    }
    farm.user("boss").must(&["toolchain", "push", ARM926]);
    wait_for("two nodes", || ready(&farm));
    farm
}

fn ready(farm: &SecureFarm) -> bool {
    let nodes = farm.user("boss").must(&["nodes", "--json"]);
    nodes.matches("\"ready\"").count() == 2 && nodes.matches("\"installed\"").count() == 2
}

#[test]
fn cut_and_slow_links_cost_time_and_nothing_else() {
    if !has_compiler() || !rustix::process::geteuid().is_root() {
        println!("skipped: needs root and {COMPILER}");
        return;
    }
    // Dropped last: the farm's processes are in it.
    let Some(network) = Network::new() else { return };
    let farm = farm_on(network.hosts());
    farm.write("a.c", LONG);
    let local = Command::new(COMPILER)
        .args(WORDS)
        .current_dir(farm.path("src"))
        .status();
    assert!(local.is_ok_and(|status| status.success()));
    let expected = fs::read(farm.path("src/a.o")).expect("made");
    farm.user("boss").leave_to_workers();
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
        let mut compile = farm.user("boss").compiler().args(WORDS).spawn().expect("starts");
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
    let slow = farm.user("boss").compiler().args(WORDS).output().expect("runs");
    (1..=2).for_each(|node| network.fast(node));
    assert!(slow.status.success(), "{}", said(&slow));
    assert!(fs::read(farm.path("src/a.o")).expect("made") == expected);
    let stats = farm.user("boss").must(&["stats"]);
    assert!(stats.contains("failed     0"), "{stats}");
    println!("{stats}");
}

/// Units of the build over a long link, and how many are compiled at once.
const UNITS: usize = 36;
const AT_ONCE: usize = 8;
/// A path on which the first session alone takes more than a second.
const FAR: Conditions = Conditions {
    delay: Duration::from_millis(200),
    lost_percent: 0,
};
/// A path to another continent, on a bad day.
const LOSSY: Conditions = Conditions {
    delay: Duration::from_millis(100),
    lost_percent: 5,
};

fn unit_words(unit: usize) -> [String; 5] {
    ["-O2", "-c", &format!("u{unit}.c"), "-o", &format!("u{unit}.o")].map(str::to_owned)
}

/// Compiles all units on the builder. Returns how many of them ran on workers, and how many here for a reason that counts.
fn build(farm: &SecureFarm) -> (u64, u64) {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let compile_some = || {
        while let Some(unit) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|unit| *unit < UNITS) {
            let compiled = farm.user("pc").compiler().args(unit_words(unit)).output();
            let compiled = compiled.expect("runs");
            assert!(compiled.status.success(), "unit {unit}: {}", said(&compiled));
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(compile_some))));
    let stats = farm.user("pc").must(&["stats", "--json", "--zero"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    let reasons = stats["local_by_reason"].as_object().expect("a table");
    let here = reasons.values().filter_map(serde_json::Value::as_u64).sum();
    let remote = stats["remote"].as_u64().expect("a number");
    println!("{:.1?}: {remote} on workers, here {reasons:?}", began.elapsed());
    (remote, here)
}

#[test]
fn long_and_lossy_link_costs_time_and_nothing_else() {
    if !has_compiler() || !rustix::process::geteuid().is_root() {
        println!("skipped: needs root and {COMPILER}");
        return;
    }
    let Some(mut network) = Network::new() else { return };
    assert!(network.add_host(), "one more of them");
    let link = match LongLink::between(&network.holders[0], &network.holders[3]) {
        Ok(link) => link,
        Err(error) => {
            println!("skipped: no TUN devices here: {error}");
            return;
        }
    };
    let mut hosts = network.hosts();
    hosts.insert("pc".to_owned(), place(&network.holders[3]));
    let farm = farm_on(hosts);
    farm.write(
        "shared.h",
        "static inline int mix(int a, int b) { return a * 31 ^ b; }\n",
    );
    let object = |unit: usize| fs::read(farm.path(&format!("src/u{unit}.o"))).expect("made");
    let compile_here = |unit: usize| {
        let text = format!("#include \"shared.h\"\nint u{unit}(int *a) {{ return mix(a[{unit}], {unit}); }}\n");
        farm.write(&format!("u{unit}.c"), &text);
        let mut local = Command::new(COMPILER);
        let local = local.args(unit_words(unit)).current_dir(farm.path("src")).status();
        assert!(local.is_ok_and(|status| status.success()));
        object(unit)
    };
    let expected: Vec<Vec<u8>> = (0..UNITS).map(compile_here).collect();
    let right_bits = || {
        assert!((0..UNITS).all(|unit| object(unit) == expected[unit]));
        (0..UNITS).for_each(|unit| fs::remove_file(farm.path(&format!("src/u{unit}.o"))).expect("there"));
    };
    right_bits();

    // The builder meets the farm over this link, and does not take a slow answer for none.
    link.set(FAR);
    farm.user("pc").enrol();
    farm.user("pc").leave_to_workers();
    farm.write("a.c", "int a;\n");
    let first = farm.user("pc").compile();
    assert!(first.status.success(), "{}", said(&first));
    farm.user("pc").must(&["stats", "--zero"]);

    link.set(LOSSY);
    let (carried, lost) = link.traffic();
    assert!(carried > 0 && lost == 0);
    let (remote, here) = build(&farm);
    println!("packets carried and lost: {:?}", link.traffic());
    right_bits();
    assert!(link.traffic().1 > 0, "something was lost");
    assert!(remote + here == UNITS as u64 && remote > here, "{remote} + {here}");

    link.set(Conditions::FINE);
    let again = build(&farm);
    right_bits();
    assert_eq!(again, (UNITS as u64, 0), "all are remote again");
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

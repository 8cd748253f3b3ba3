//! Where jobs run: on workers, here, or twice; and what is told of it afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

use rdcc::worker::cores::CpuList;

use super::farm::{COMPILER, TestFarm, has_compiler, wait_for};

/// Compiles for a second or two.
const LONG: &str = "#define F(n) int f##n(int *a, int b) { for (int i = 0; i < b; i++) \
    for (int j = i; j < b; j++) a[i] = a[j] * (a[j - i] + 7) ^ (a[i] >> (j & 7)); return a[b - 1]; }\n\
    #define T(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7)\n\
    #define S(n) T(n##0) T(n##1) T(n##2) T(n##3) T(n##4) T(n##5) T(n##6) T(n##7)\nS(1) S(2) S(3)\n";

/// A compile that may run wherever is best.
fn anywhere(farm: &TestFarm, words: &[&str]) -> Command {
    let mut command = farm.rdcc();
    command.args(["--toolchain", "arm926", COMPILER]).args(words);
    command
}

fn start(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// Gives this client more cores than any machine of tests keeps busy, so that one is always idle.
fn many_cores(farm: &TestFarm) {
    let dir = farm.path("home/.config/rdcc");
    fs::create_dir_all(&dir).expect("created");
    fs::write(dir.join("config.toml"), "local_slots = 256\n").expect("written");
}

#[test]
fn a_full_farm_means_that_an_idle_core_here_takes_a_job() {
    if !has_compiler() {
        return;
    }
    let mut farm = TestFarm::new();
    many_cores(&farm);
    farm.start_worker("n1", 1);
    farm.push();
    farm.write("long.c", LONG);
    farm.write("a.c", "int a;\n");
    let long = start(farm.compile(&["-O3", "-c", "long.c"]));
    wait_for("the long job's run", || {
        farm.json(&["status"])
            .to_string()
            .contains("running on n1")
            .then_some(())
    });
    farm.must(anywhere(&farm, &["-c", "a.c"]));
    let stats = farm.stats();
    assert_eq!(stats["local_by_reason"]["farm_full"], 1, "{stats:#}\n{}", farm.logs());
    farm.assert_success(&long.wait_with_output().expect("ends"));
    assert!(farm.src().join("a.o").exists() && farm.src().join("long.o").exists());
}

#[test]
fn what_is_known_to_end_sooner_here_runs_here_unless_that_is_switched_off() {
    if !has_compiler() {
        return;
    }
    for share in [true, false] {
        let mut farm = TestFarm::new();
        many_cores(&farm);
        if !share {
            let file = farm.path("home/.config/rdcc/config.toml");
            fs::write(file, "local_share = false\n").expect("written");
        }
        farm.start_worker("n1", 2);
        farm.push();
        farm.write("a.c", "int a;\n");
        let ends_sooner_here = || {
            farm.must(anywhere(&farm, &["-c", "a.c"]));
            let stats = farm.stats();
            stats["local_by_reason"].get("faster_here").is_some()
        };
        // Here or there, while the node gets its toolchain; not for a reason that would have to be known.
        assert!(
            !ends_sooner_here(),
            "nobody knows it: {:#} {}",
            farm.stats(),
            farm.logs()
        );
        if share {
            // Not at once where other programs keep this machine's cores: then it does not end sooner here.
            wait_for("a run here", || ends_sooner_here().then_some(()));
        } else {
            assert!(!(0..3).any(|_| ends_sooner_here()), "{:#}", farm.stats());
        }
    }
}

#[test]
fn tests_of_build_systems_run_here_and_start_no_agent() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::new();
    farm.write("conftest.c", "int main(void) { return 0; }\n");
    farm.must(anywhere(&farm, &["-c", "conftest.c"]));
    farm.must(anywhere(&farm, &["conftest.c", "-o", "conftest"]));
    assert!(!farm.path("client/agents").exists());
    let stats = farm.stats();
    assert_eq!(stats["local_by_reason"]["configure_probe"], 1, "{stats:#}");
    assert_eq!(stats["local_by_reason"]["link"], 1, "{stats:#}");
}

#[test]
fn links_are_let_in_by_an_agent_that_runs() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    farm.write("a.c", "int main(void) { return 0; }\n");
    farm.must(farm.compile(&["-c", "a.c"]));
    let links: Vec<Child> = (0..12)
        .map(|number| start(anywhere(&farm, &["a.o", "-o", &format!("a{number}")])))
        .collect();
    for link in links {
        farm.assert_success(&link.wait_with_output().expect("ends"));
    }
    let stats = farm.stats();
    assert_eq!(stats["local_by_reason"]["link"], 12, "{stats:#}");
    // Known one by one, each with its time, which only an agent can tell.
    let why = farm.json(&["why", "a7"]).to_string();
    assert!(why.contains("local_slot"), "{why}");
}

#[test]
fn last_build_is_told_with_its_bound_and_written_as_a_trace() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 2)]);
    let jobs: Vec<Child> = (0..6)
        .map(|number| {
            let source = format!("f{number}.c");
            farm.write(&source, format!("int f{number}(void) {{ return {number}; }}\n"));
            start(farm.compile(&["-O2", "-c", &source]))
        })
        .collect();
    for job in jobs {
        farm.assert_success(&job.wait_with_output().expect("ends"));
    }
    let build = farm.stats()["build"].clone();
    assert_eq!(
        (&build["build_jobs"], &build["build_remote"]),
        (&6.into(), &6.into()),
        "{build:#}"
    );
    for key in ["wall_us", "work_us", "wall_over_bound_milli"] {
        assert_ne!(build[key].as_u64(), Some(0), "{key}: {build:#}");
    }
    assert_ne!(build["bound"]["area_us"].as_u64(), Some(0), "{build:#}");
    let output = farm.rdcc().args(["trace", "build.json"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read(farm.src().join("build.json")).expect("written");
    let trace: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let runs = events.iter().filter(|event| event["cat"] == "run").count();
    assert_eq!(runs, 6);
    let tracks = events
        .iter()
        .filter(|event| event["cat"] == "run")
        .map(|event| event["tid"].as_u64());
    assert!(tracks.max().flatten() <= Some(2), "two slots are two tracks");
}

#[test]
fn places_that_were_held_ahead_go_back_when_a_build_is_over() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 4)]);
    for number in 0..5 {
        let source = format!("f{number}.c");
        farm.write(&source, format!("int f{number};\n"));
        farm.must(farm.compile(&["-c", &source]));
    }
    farm.wait_until_all_places_are_back();
    let stats = farm.stats();
    assert_eq!(stats["remote"], 5, "{stats:#}");
    assert_eq!(
        stats["fallbacks_by_reason"].as_object().map(serde_json::Map::len),
        Some(0),
        "{stats:#}"
    );
}

#[test]
fn second_copy_of_a_job_on_a_node_that_stands_still_wins() {
    use rustix::process::Signal;
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1), ("n2", 1)]);
    farm.write("long.c", LONG);
    let words = ["-O1", "-c", "long.c"];
    farm.must(farm.compile(&words));
    let expected = fs::read(farm.src().join("long.o")).expect("made");
    fs::remove_file(farm.src().join("long.o")).expect("removed");
    let job = start(farm.compile(&words));
    let slow = wait_for("the job's run", || {
        let report = farm.json(&["status"]).to_string();
        let (_, rest) = report.split_once("running on ")?;
        Some(rest.split('"').next().unwrap_or_default().to_owned())
    });
    farm.signal_worker(&slow, Signal::STOP);
    let output = job.wait_with_output();
    farm.signal_worker(&slow, Signal::CONT);
    farm.assert_success(&output.expect("ends"));
    assert!(fs::read(farm.src().join("long.o")).expect("made") == expected);
    let stats = farm.stats();
    assert_eq!(
        (&stats["raced"], &stats["races_won"]),
        (&1.into(), &1.into()),
        "{stats:#}"
    );
    assert_eq!(stats["results_differ"], 0, "{stats:#}");
    let why = farm.json(&["why", "long.o"]).to_string();
    assert!(why.contains("second copy"), "{why}");
}

#[test]
fn what_a_coordinator_learned_of_nodes_is_known_to_the_next_unless_its_file_is_damaged() {
    if !has_compiler() {
        return;
    }
    let mut farm = TestFarm::with_workers(&[("n1", 1)]);
    let learned = |farm: &TestFarm| {
        wait_for("the node", || {
            let output = farm.rdcc().args(["nodes", "--json"]).output().expect("runs");
            let nodes: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            let node = nodes.as_array()?.first()?.clone();
            (node["state"] == "ready").then(|| node["learned_power"].clone())
        })
    };
    assert!(learned(&farm).is_null());
    farm.write("a.c", "int a;\n");
    for _ in 0..3 {
        // What the first costs is what the others teach by.
        farm.must(farm.compile(&["-c", "a.c"]));
    }
    wait_for("the jobs' ends", || learned(&farm).is_number().then_some(()));
    farm.end_coordinator();
    farm.start_coordinator();
    assert!(learned(&farm).is_number(), "{}", farm.logs());
    farm.end_coordinator();
    let file = farm.path("coordinator/speeds");
    let mut kept = fs::read(&file).expect("written");
    kept[20] ^= 1;
    fs::write(&file, kept).expect("damaged");
    farm.start_coordinator();
    assert!(learned(&farm).is_null(), "{}", farm.logs());
    assert!(farm.logs().contains("cannot be read"), "{}", farm.logs());
}

/// Two processors of this machine; `None` where there is one.
fn two_processors() -> Option<[String; 2]> {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let all: CpuList = list.parse().expect("as the kernel writes it");
    let mut numbers = all.numbers().map(|number| number.to_string());
    Some([numbers.next()?, numbers.last()?])
}

/// On which processors the compilers below a process may run.
fn compilers_below(ancestor: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("readable").flatten();
    let statuses = processes.filter_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        Some((pid, fs::read_to_string(process.path().join("status")).ok()?))
    });
    let statuses: BTreeMap<u32, String> = statuses.collect();
    let field = |pid: u32, name: &str| {
        let lines = statuses.get(&pid)?.lines();
        lines
            .into_iter()
            .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let is_below = |pid: u32| {
        let parents = std::iter::successors(Some(pid), |pid| field(*pid, "PPid:")?.parse().ok());
        parents.into_iter().any(|parent| parent == ancestor)
    };
    let compiles = |pid: u32| field(pid, "Name:").is_some_and(|name| name.starts_with("cc1"));
    let compilers = statuses.keys().filter(|pid| compiles(**pid) && is_below(**pid));
    compilers.filter_map(|pid| field(*pid, "Cpus_allowed_list:")).collect()
}

#[test]
fn jobs_of_a_worker_with_fast_and_slow_cores_stay_on_those_they_are_given() {
    let Some([slow, fast]) = two_processors().filter(|_| has_compiler()) else {
        return;
    };
    let mut farm = TestFarm::new();
    let settings = format!("cores = [{{ cpus = '{slow}', power = 0.5 }}, {{ cpus = '{fast}', power = 4.0 }}]\n");
    let settings_file = farm.write("worker.toml", settings);
    let mut command = farm.plain_worker_command("board", &farm.path("board"));
    command.arg("--config").arg(settings_file);
    farm.run_worker("board", command);
    farm.push();
    farm.write("long.c", LONG);
    let long = start(farm.compile(&["-O3", "-c", "long.c"]));
    let pid = farm.worker_pid("board");
    wait_for("a compile on the fast core", || {
        (compilers_below(pid) == [fast.clone()]).then_some(())
    });
    farm.assert_success(&long.wait_with_output().expect("ends"));
    let node = &farm.json(&["nodes"])[0];
    let told = serde_json::json!([{ "slots": 1, "power": 4.0 }, { "slots": 1, "power": 0.5 }]);
    assert_eq!((&node["cores"], &node["slots"]), (&told, &2.into()), "{node:#}");
}

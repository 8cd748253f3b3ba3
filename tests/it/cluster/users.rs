//! Several people on one farm.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::farm::{COMPILER, TestFarm, has_compiler};

/// Makes a command that of another user of this machine: another home, other state, other agents.
fn of_other_user(farm: &TestFarm, mut command: Command) -> Command {
    for (variable, directory) in [("HOME", "other-home"), ("RDCC_STATE_DIR", "other-client")] {
        fs::create_dir_all(farm.path(directory)).expect("created");
        command.env(variable, farm.path(directory));
    }
    command
}

#[test]
fn two_users_with_different_toolchains_of_one_name_each_get_their_own() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 2)]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("toolchains/arm926.toml");
    let other = fs::read_to_string(file).expect("readable");
    let other = other.replacen("\nname =", "\nflags = [\"-mcpu=arm926ej-s\"]\nname =", 1);
    let other = farm.write("other.toml", other);
    let push = |words: &[&str]| {
        let mut command = of_other_user(&farm, farm.rdcc());
        command
            .args(["toolchain", "push"])
            .args(words)
            .arg(&other)
            .output()
            .expect("runs")
    };
    let refused = push(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("`arm926` is taken") && said.contains("--replace"),
        "{said}"
    );

    let units: Vec<String> = (0..8).map(|number| format!("u{number}")).collect();
    for unit in &units {
        let text = format!("int {unit}(int a, short *b) {{ return a * b[{}] + *b; }}\n", unit.len());
        farm.write(&format!("{unit}.c"), text);
    }
    let object_of = |words: &[&str], unit: &str| {
        let mut command = farm.client(&Path::new("/usr/bin").join(COMPILER));
        let status = command
            .args(words)
            .args(["-O2", "-c", &format!("{unit}.c"), "-o", "local.o"])
            .status();
        assert!(status.expect("runs").success());
        fs::read(farm.src().join("local.o")).expect("made")
    };
    let compile = |mut command: Command, unit: &str, object: &str| {
        command.args(["--toolchain", "arm926", "-O2", "-c", &format!("{unit}.c"), "-o", object]);
        command.env("RDCC_STRICT", "1").spawn().expect("starts")
    };
    // The first user's agent knows its toolchain before the name moves to the other one's.
    assert!(
        compile(farm.rdcc(), &units[0], "first.o")
            .wait()
            .expect("ends")
            .success()
    );
    let replaced = push(&["--replace"]);
    assert!(
        replaced.status.success(),
        "{}",
        String::from_utf8_lossy(&replaced.stderr)
    );
    let jobs = units.iter().flat_map(|unit| {
        let theirs = of_other_user(&farm, farm.rdcc());
        [
            compile(farm.rdcc(), unit, &format!("{unit}.mine.o")),
            compile(theirs, unit, &format!("{unit}.theirs.o")),
        ]
    });
    for mut job in jobs.collect::<Vec<_>>() {
        assert!(job.wait().expect("ends").success(), "{}", farm.logs());
    }
    for unit in &units {
        let made = |whose: &str| fs::read(farm.src().join(format!("{unit}.{whose}.o"))).expect("made");
        let (mine, theirs) = (object_of(&[], unit), object_of(&["-mcpu=arm926ej-s"], unit));
        assert!(mine != theirs, "{unit} should tell the two toolchains apart");
        assert!(
            made("mine") == mine && made("theirs") == theirs,
            "{unit}\n{}",
            farm.logs()
        );
    }
    assert_eq!(farm.stats()["remote"], 9, "{}", farm.logs());
    let mut stop = of_other_user(&farm, farm.rdcc());
    assert!(stop.args(["agent", "stop"]).status().expect("runs").success());
}

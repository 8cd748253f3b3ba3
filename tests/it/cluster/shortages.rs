//! Too little of something, or something swept away while it is used: builds go on, and it heals by itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use super::anywhere::{compile, compile_until_remote, farm_without_workers, rdcc, write_unit};
use super::farm::{COMPILER, TestFarm, distributed_compiler, has_compiler};

/// Makes a command one that may have so many files open.
fn with_descriptors(command: &Command, count: u32) -> Command {
    let mut limited = Command::new("/bin/sh");
    let script = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
    limited
        .args(["-c", &script])
        .arg(command.get_program())
        .args(command.get_args());
    limited.env_clear();
    for (name, value) in command.get_envs() {
        limited.env(name, value.expect("nothing was removed"));
    }
    if let Some(directory) = command.get_current_dir() {
        limited.current_dir(directory);
    }
    limited
}

const UNITS: usize = 24;

/// Writes a project of some units, and returns what the compiler itself makes of each.
fn write_project(farm: &TestFarm) -> Vec<Vec<u8>> {
    let mut makefile = String::from("all:");
    for number in 0..UNITS {
        let text = format!("#include <stdio.h>\nint f{number}(void) {{ return puts(\"{number}\"); }}\n");
        farm.write(&format!("f{number}.c"), text);
        makefile.push_str(&format!(" f{number}.o"));
    }
    makefile.push_str("\n%.o: %.c\n\t$(CC) -O2 -MMD -c $< -o $@\n");
    farm.write("Makefile", makefile);
    farm.must(make(farm, COMPILER));
    objects(farm)
}

fn make(farm: &TestFarm, compiler: &str) -> Command {
    let mut make = farm.client(Path::new("/usr/bin/make"));
    make.args(["-s", "-j8", &format!("CC={compiler}")]);
    make
}

/// Takes away the objects.
fn objects(farm: &TestFarm) -> Vec<Vec<u8>> {
    let take = |number: usize| {
        let path = farm.src().join(format!("f{number}.o"));
        let object = fs::read(&path).expect("made");
        fs::remove_file(path).expect("removed");
        object
    };
    (0..UNITS).map(take).collect()
}

fn build(farm: &TestFarm, descriptors: u32, expected: &[Vec<u8>]) {
    let cc = distributed_compiler();
    farm.must(with_descriptors(&make(farm, &cc), descriptors));
    assert!(objects(farm) == expected, "{}", farm.logs());
}

#[test]
fn programs_that_may_have_few_files_open_build_the_same() {
    if !has_compiler() {
        return;
    }
    let mut farm = farm_without_workers();
    let command = farm.worker_command("n1", 4, &farm.path("n1"));
    farm.run_worker("n1", with_descriptors(&command, 48));
    farm.push();
    farm.must_rdcc(&["agent", "stop"]);
    let expected = write_project(&farm);
    build(&farm, 32, &expected);
    build(&farm, 32, &expected);
    let remote = farm.stats()["remote"].as_u64().expect("a number");
    assert!(remote > UNITS as u64, "{:#}", farm.stats());
}

#[test]
fn directories_that_are_swept_away_are_made_again() {
    if !has_compiler() {
        return;
    }
    let mut farm = farm_without_workers();
    farm.start_worker("n1", 1);
    farm.push();
    compile_until_remote(&farm, &write_unit(&farm, "a"));
    for directory in ["n1/blobs", "n1/roots"] {
        sweep(&farm.path(directory));
    }
    for what in ["b", "c"] {
        let expected = write_unit(&farm, what);
        compile(&farm, rdcc(&farm), &expected);
    }
    compile_until_remote(&farm, &write_unit(&farm, "d"));
    // With the directory itself go the roots that launchers hold.
    for directory in ["n1/blobs", "n1/roots"] {
        fs::remove_dir_all(farm.path(directory)).expect("removed");
    }
    let expected = write_unit(&farm, "h");
    compile(&farm, rdcc(&farm), &expected);
    compile_until_remote(&farm, &write_unit(&farm, "i"));
    let swept = farm.agent().expect("an agent");
    sweep(&farm.path("client"));
    for what in ["e", "f"] {
        let expected = write_unit(&farm, what);
        compile(&farm, rdcc(&farm), &expected);
    }
    compile_until_remote(&farm, &write_unit(&farm, "g"));
    // Nobody finds this one's socket any more; it would end after some idle minutes.
    kill_process(swept, Signal::TERM).expect("signalled");
}

/// Removes what is in a directory, as a cleaner of temporary files does.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).expect("listed") {
        let path = entry.expect("an entry").path();
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        if let Err(error) = removed {
            println!("{}: {error}", path.display());
        }
    }
}

//! A compile that may run anywhere, and whose object must not tell where that was.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::farm::{COMPILER, TestFarm, wait_for};

/// A farm without workers, and a client that has nothing compiled here for being quick.
pub fn farm_without_workers() -> TestFarm {
    let farm = TestFarm::new();
    fs::create_dir_all(farm.path("home/.config/rdcc")).expect("created");
    fs::write(farm.path("home/.config/rdcc/config.toml"), "local_share = false\n").expect("written");
    farm
}

/// Writes another `a.c`, and returns what the compiler itself makes of it.
pub fn write_unit(farm: &TestFarm, what: &str) -> Vec<u8> {
    farm.write("a.c", format!("int {what}(int b) {{ return b + 1; }}\n"));
    let mut command = farm.client(&Path::new("/usr/bin").join(COMPILER));
    command.args(["-c", "a.c", "-o", "local.o"]);
    farm.must(command);
    fs::read(farm.src().join("local.o")).expect("made")
}

/// `rdcc`'s compile of `a.c`, wherever that can be done.
pub fn rdcc(farm: &TestFarm) -> Command {
    let mut command = farm.rdcc();
    command.args(["--toolchain", "arm926", COMPILER, "-c", "a.c"]);
    command
}

/// Compiles `a.c`, and asserts that nobody could tell where that was done.
pub fn compile(farm: &TestFarm, command: Command, expected: &[u8]) {
    farm.must(command);
    let object = farm.src().join("a.o");
    assert!(fs::read(&object).expect("made") == expected, "{}", farm.logs());
    fs::remove_file(object).expect("removed");
}

/// Compiles until that is done on the farm.
pub fn compile_until_remote(farm: &TestFarm, expected: &[u8]) {
    let before = farm.stats()["remote"].clone();
    wait_for("a remote compile", || {
        compile(farm, rdcc(farm), expected);
        (farm.stats()["remote"] != before).then_some(())
    });
}

//! Disks that fill up, or that can no longer be written, under each of the programs: builds go on, and it heals by itself.
//!
//! What is to suffer runs in a mount namespace with a small disk of its own. Needs root, `unshare` and `nsenter`; says so
//! and passes where that is not to be had.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::anywhere::{compile, compile_until_remote, farm_without_workers, rdcc, write_unit};
use super::farm::{COMPILER, has_compiler, wait_for};

/// A small disk that only those see who are let in.
struct Disk {
    /// Holds the namespace, in which all else is as outside.
    holder: Child,
    directory: PathBuf,
}

impl Disk {
    /// `None` where there can be no such thing. At `directory`, of so many kilobytes.
    fn new(directory: &Path, kilobytes: u32) -> Option<Self> {
        fs::create_dir_all(directory).expect("created");
        let script = "mount -t tmpfs -o mode=755,size=$1k none \"$0\" && echo made && exec sleep 1000";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(directory);
        command.arg(kilobytes.to_string()).stdout(Stdio::piped());
        let mut disk = Self {
            holder: command.spawn().ok()?,
            directory: directory.to_owned(),
        };
        let mut line = String::new();
        let stdout = disk.holder.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("readable");
        if line != "made\n" {
            println!("skipped: no mount namespaces here");
        }
        (line == "made\n" && has_compiler()).then_some(disk)
    }

    /// Lets a command in.
    fn with(&self, command: &Command) -> Command {
        let directory = command.get_current_dir().unwrap_or(Path::new("/"));
        let mut inside = Command::new("nsenter");
        inside
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .arg(format!("--wdns={}", directory.display()))
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        for (name, value) in command.get_envs() {
            inside.env(name, value.expect("nothing was removed"));
        }
        inside
    }

    fn try_to(&self, words: &[&str]) -> Option<()> {
        let mut command = Command::new(words[0]);
        let output = self
            .with(command.args(&words[1..]).env("PATH", "/usr/bin:/bin"))
            .output();
        output.is_ok_and(|output| output.status.success()).then_some(())
    }

    /// Mounts it with other options, once nobody has a file open that these forbid.
    fn remount(&self, options: &str) {
        let directory = self.directory.to_str().expect("text");
        let options = format!("remount,{options}");
        wait_for("another mount", || self.try_to(&["mount", "-o", &options, directory]));
    }

    /// Where a path is seen from outside.
    fn path(&self, path: &str) -> PathBuf {
        let inside = self.directory.strip_prefix("/").expect("absolute");
        Path::new(&format!("/proc/{}/root", self.holder.id()))
            .join(inside)
            .join(path)
    }

    /// Uses it up.
    fn fill(&self) {
        let mut ballast = File::create(self.path("ballast")).expect("created");
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.path("ballast")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn node_whose_disk_is_too_full_for_a_toolchain_says_so_and_gets_it_when_there_is_room() {
    let mut farm = farm_without_workers();
    let Some(disk) = Disk::new(&farm.path("n1"), 8 << 10) else {
        return;
    };
    let gcc = fs::canonicalize(Path::new("/usr/bin").join(COMPILER)).expect("found");
    let hidden = disk.try_to(&["mount", "--bind", "/dev/null", gcc.to_str().expect("text")]);
    assert_eq!(hidden, Some(()));
    let command = disk.with(&farm.worker_command("n1", 1, &farm.path("n1")));
    farm.run_worker("n1", command);
    farm.push();
    let expected = write_unit(&farm, "a");
    let nodes = || farm.json(&["nodes"]).to_string();
    wait_for("the failed fetch", || {
        compile(&farm, rdcc(&farm), &expected);
        nodes().contains("full").then_some(())
    });
    assert_eq!(farm.stats()["remote"], 0);
    disk.remount("size=1g");
    // Or a minute later by itself.
    farm.push();
    compile_until_remote(&farm, &expected);
    assert!(!nodes().contains("full"), "{}", nodes());
}

#[test]
fn node_whose_disk_fills_up_during_a_build_costs_time_and_nothing_else() {
    let mut farm = farm_without_workers();
    let Some(disk) = Disk::new(&farm.path("n1"), 256 << 10) else {
        return;
    };
    let command = disk.with(&farm.worker_command("n1", 1, &farm.path("n1")));
    farm.run_worker("n1", command);
    farm.push();
    compile_until_remote(&farm, &write_unit(&farm, "a"));
    disk.fill();
    for what in ["b", "c", "d"] {
        let expected = write_unit(&farm, what);
        compile(&farm, rdcc(&farm), &expected);
    }
    disk.make_room();
    compile_until_remote(&farm, &write_unit(&farm, "e"));
}

#[test]
fn coordinator_whose_disk_is_full_refuses_a_push_and_takes_it_when_there_is_room() {
    let mut farm = farm_without_workers();
    farm.kill_coordinator();
    let Some(disk) = Disk::new(&farm.path("coordinator"), 4 << 10) else {
        return;
    };
    farm.run_coordinator(disk.with(&farm.coordinator_command()));
    farm.start_worker("n1", 1);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("toolchains/arm926.toml");
    let mut push = farm.rdcc();
    let output = push.args(["toolchain", "push"]).arg(file).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("coordinator") && said.contains("full"), "{said}");
    let list = farm.rdcc().args(["toolchain", "list"]).output().expect("runs");
    assert!(!String::from_utf8_lossy(&list.stdout).contains("arm926"));
    disk.remount("size=1g");
    farm.push();
    compile_until_remote(&farm, &write_unit(&farm, "a"));
}

#[test]
fn agent_goes_on_when_its_disk_is_full_and_is_done_without_where_it_cannot_write() {
    let mut farm = farm_without_workers();
    farm.start_worker("n1", 1);
    farm.push();
    farm.must_rdcc(&["agent", "stop"]);
    let Some(disk) = Disk::new(&farm.path("client"), 4 << 10) else {
        return;
    };
    let count = |what: &str| {
        let mut command = farm.rdcc();
        let output = disk.with(command.args(["stats", "--json"])).output().expect("runs");
        let stats: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?} {}", farm.logs()));
        stats[what].as_u64().expect("a number")
    };
    let compile_inside = |what: &str| {
        let expected = write_unit(&farm, what);
        compile(&farm, disk.with(&rdcc(&farm)), &expected);
    };
    let compile_remotely = |what: &str| {
        let before = count("remote");
        compile_inside(what);
        count("remote") == before + 1
    };
    compile_inside("a");
    wait_for("a remote compile", || compile_remotely("b").then_some(()));
    disk.fill();
    assert!(compile_remotely("c"), "{}", farm.logs());
    disk.make_room();
    let stop = || {
        let mut command = farm.rdcc();
        let output = disk.with(command.args(["agent", "stop"])).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
    };
    stop();
    disk.fill();
    compile_inside("d");
    disk.make_room();
    stop();
    disk.remount("ro");
    compile_inside("e");
    let mut command = rdcc(&farm);
    let output = disk.with(command.env("RDCC_STRICT", "1")).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("Read-only file system"),
        "{said}"
    );
    disk.remount("rw");
    wait_for("a remote compile", || compile_remotely("f").then_some(()));
    stop();
}

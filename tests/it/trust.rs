//! Farms with certificates: who gets in, what members may do, that they compile, and what a bad network does to them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use self::farm::{ARM926, COMPILER, SecureFarm, has_compiler, said, wait_for};

mod clocks;
mod farm;
mod links;
mod long_link;
mod network;

#[test]
fn members_join_by_tokens_compile_and_are_thrown_out() {
    if !has_compiler() {
        return;
    }
    let (mut farm, token) = SecureFarm::new("8760 h");
    let joined = farm.user("boss").join(&token);
    assert!(joined.contains("as admin `boss`"), "{joined}");
    farm.enrol_worker("n1");
    let key = fs::metadata(farm.path("n1/trust/member.json")).expect("kept");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    farm.start_worker("n1");
    let for_client = farm
        .user("boss")
        .must(&["token", "create", "--role", "client", "--ttl", "1h"]);
    farm.user("pc").join(&for_client);

    // A client submits and looks; what changes the farm is the administrator's.
    let why = farm.user("pc").refused(&["toolchain", "push", ARM926]);
    assert!(
        why.contains("client `pc` may not do this (Push); it takes: admin"),
        "{why}"
    );
    farm.user("boss").must(&["toolchain", "push", ARM926]);
    for words in [
        &["drain", "n1"][..],
        &["token", "create", "--role", "admin"],
        &["node", "revoke", "n1"],
        &["toolchain", "rm", "arm926"],
    ] {
        assert!(farm.user("pc").refused(words).contains("it takes: admin"), "{words:?}");
    }
    farm.write("a.c", "int a(int x) { return x * 3; }\n");
    let compiled = farm.user("pc").compile();
    assert!(
        compiled.status.success(),
        "{}\n{}",
        said(&compiled),
        farm.log("coordinator")
    );
    let object = fs::read(farm.path("src/a.o")).expect("made");
    let local = Command::new(COMPILER)
        .args(["-O2", "-c", "a.c", "-o", "b.o"])
        .current_dir(farm.path("src"))
        .status();
    assert!(local.is_ok_and(|status| status.success()));
    assert!(object == fs::read(farm.path("src/b.o")).expect("made"));
    let stats = farm.user("pc").must(&["stats"]);
    assert!(stats.contains("remote     1 "), "{stats}");
    let members = farm.user("boss").must(&["node", "list"]);
    for member in ["boss", "n1", "pc"] {
        assert!(members.contains(member), "{members}");
    }

    // Out: sessions end, certificates are no good, and only a new token helps.
    farm.user("boss").must(&["node", "revoke", "pc"]);
    let why = farm.user("pc").refused(&["status"]);
    assert!(why.contains("no member of this farm any more"), "{why}");
    farm.user("boss").must(&["node", "revoke", "n1"]);
    wait_for("the worker's leaving", || {
        farm.user("boss")
            .must(&["nodes", "--json"])
            .replace(char::is_whitespace, "")
            == "[]"
            || { farm.user("boss").must(&["nodes"]).contains("lost") }
    });
    let audit = fs::read_to_string(farm.path("coordinator/audit.log")).expect("written");
    for line in ["\"joined\"", "\"toolchain pushed\"", "\"revoked\"", "\"admin `boss`\""] {
        assert!(audit.contains(line), "{line}: {audit}");
    }
}

#[test]
fn nobody_gets_in_without_the_right_token() {
    let (farm, token) = SecureFarm::new("8760 h");
    let (other, other_token) = SecureFarm::new("8760 h");
    // Each of these says nothing secret to the wrong side, and leaves nothing behind.
    let stranger = farm.user("other");
    let why = stranger.refused(&["join", &farm.address, &other_token]);
    assert!(
        why.contains("cannot reach the farm's coordinator"),
        "another farm's token: {why}"
    );
    let mut wrong = token.clone();
    wrong.replace_range(5..7, if &token[5..7] == "00" { "11" } else { "00" });
    let why = stranger.refused(&["join", &farm.address, &wrong]);
    assert!(why.contains("this token is not good"), "{why}");
    let why = stranger.refused(&["join", &farm.address, &token[..token.len() - 1]]);
    assert!(why.contains("no join string, or not all of it"), "{why}");
    assert!(!farm.path("other/state/trust").exists());
    // An administrator's token makes no worker, and is used up by the try.
    let as_worker = farm.join_worker("n1", &token);
    assert!(
        said(&as_worker).contains("token is for a admin") && !as_worker.status.success(),
        "{}",
        said(&as_worker)
    );
    let why = stranger.refused(&["join", &farm.address, &token]);
    assert!(why.contains("this token is not good"), "used up: {why}");
    // Neither plain connections nor members of another farm are spoken to.
    let mut plain = stranger.command();
    plain.env("RDCC_COORDINATOR", format!("http://{}", farm.address));
    let plain = plain.arg("nodes").output().expect("runs");
    assert!(!plain.status.success(), "{}", said(&plain));
    other.user("boss").join(&other_token);
    let mut foreign = other.user("boss").command();
    foreign.env("RDCC_COORDINATOR", format!("https://{}", farm.address));
    let foreign = foreign.arg("nodes").output().expect("runs");
    assert!(
        !foreign.status.success() && said(&foreign).contains("cannot reach"),
        "{}",
        said(&foreign)
    );
    let mut unjoined = stranger.command();
    unjoined.env("RDCC_COORDINATOR", format!("https://{}", farm.address));
    let unjoined = said(&unjoined.arg("nodes").output().expect("runs"));
    assert!(
        unjoined.contains("has not joined the farm") && unjoined.contains("rdcc join HOST TOKEN"),
        "{unjoined}"
    );
}

#[test]
fn compiles_of_who_has_not_joined_run_here() {
    if !has_compiler() {
        return;
    }
    let (farm, _) = SecureFarm::new("8760 h");
    farm.write("a.c", "int a;\n");
    let outside = farm.user("other");
    let rdcc = |words: &[&str]| {
        let mut command = outside.command();
        command.env("RDCC_COORDINATOR", format!("https://{}", farm.address));
        command.args(words).output().expect("runs")
    };
    let compiled = rdcc(&["--toolchain", "arm926", COMPILER, "-c", "a.c", "-o", "a.o"]);
    assert!(
        compiled.status.success() && said(&compiled).is_empty(),
        "{}",
        said(&compiled)
    );
    let stats = said(&rdcc(&["stats"]));
    assert!(stats.contains("no_coordinator"), "{stats}");
    assert!(said(&rdcc(&["status"])).contains("has not joined the farm"));
    let _ = rdcc(&["agent", "stop"]);
}

#[test]
fn certificates_are_renewed_and_members_survive_restarts() {
    if !has_compiler() {
        return;
    }
    let (mut farm, token) = SecureFarm::new("30 s");
    farm.user("boss").join(&token);
    farm.enrol_worker("n1");
    farm.start_worker("n1");
    farm.user("boss").must(&["toolchain", "push", ARM926]);
    farm.write("a.c", "int a;\n");
    let kept = |name: &str| fs::read(farm.path(name)).expect("kept");
    let (worker, boss) = (kept("n1/trust/member.json"), kept("boss/state/trust/member.json"));
    assert!(farm.user("boss").compile().status.success());
    // The worker and the agent that the compile has started see to their certificates themselves.
    wait_for("the worker's renewal", || kept("n1/trust/member.json") != worker);
    wait_for("the user's renewal", || kept("boss/state/trust/member.json") != boss);
    farm.kill("coordinator");
    farm.start_coordinator();
    wait_for("everybody's return", || farm.user("boss").compile().status.success());
    let again = farm.coordinator_command().arg("init").output().expect("runs");
    assert!(said(&again).contains("there is a farm in"), "{}", said(&again));
}

#[test]
fn off_loopback_takes_certificates_or_an_explicit_list() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdcc-coordinator"));
        command
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .args(words)
            .env_clear();
        command.stdin(Stdio::null()).output().expect("runs")
    };
    let refused = start(&["--listen", "192.0.2.1:7420"]);
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("without certificates") && said(&refused).contains("rdcc-coordinator init"),
        "{}",
        said(&refused)
    );
    let refused = start(&["--listen", "192.0.2.1:7420", "--insecure-lan"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("--allow 192.168.1.0/24"), "{}", said(&refused));
    let refused = start(&["--listen", "192.0.2.1:7420", "--allow", "192.0.2.0/24"]);
    assert!(
        said(&refused).contains("`--allow` goes with `--insecure-lan`"),
        "{}",
        said(&refused)
    );
    let made = start(&["init"]);
    assert!(made.status.success(), "{}", said(&made));
    let refused = start(&["--listen", "127.0.0.1:0", "--insecure-lan", "--allow", "192.0.2.0/24"]);
    assert!(
        said(&refused).contains("has a farm with certificates"),
        "{}",
        said(&refused)
    );
}

#[test]
fn insecure_lan_is_said_in_every_status() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rdcc-coordinator"));
    command
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .env_clear()
        .stdin(Stdio::null());
    command.args(["--listen", "127.0.0.1:0", "--insecure-lan", "--allow", "192.0.2.0/24"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    let address = line
        .trim()
        .strip_prefix("listening on ")
        .expect("an address")
        .to_owned();
    let status = Command::new(env!("CARGO_BIN_EXE_rdcc"))
        .arg("status")
        .env_clear()
        .env("RDCC_STATE_DIR", dir.path().join("client"))
        .env("RDCC_COORDINATOR", format!("http://{address}"))
        .output()
        .expect("runs");
    let _ = child.kill();
    let _ = child.wait();
    assert!(
        said(&status).contains("INSECURE: --insecure-lan is set"),
        "{}",
        said(&status)
    );
}

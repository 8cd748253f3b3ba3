//! The coordinator's program: what it prints, and with which status it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rdcc-coordinator"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = command(arguments).output().expect("it runs");
    (
        status.code().expect("an exit"),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

/// Kills what a failing test leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_says_where_it_listens_and_ends_in_order_upon_a_signal() {
    let state = tempfile::tempdir().expect("a directory");
    let dir = state.path().to_str().expect("plain");
    let child = command(&["--listen", "127.0.0.1:0", "--state-dir", dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut running = Running(child.expect("it starts"));
    let mut line = String::new();
    let stdout = running.0.stdout.take().expect("it was asked for");
    BufReader::new(stdout).read_line(&mut line).expect("one line");
    let address = line.strip_prefix("listening on ").expect("the line").trim();
    std::net::TcpStream::connect(address).expect("it listens there");

    let other = tempfile::tempdir().expect("a directory");
    let other = other.path().to_str().expect("plain");
    let (status, stderr) = run(&["--listen", address, "--state-dir", other]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("error: cannot listen on") && stderr.contains("hint: another coordinator"),
        "{stderr}"
    );
    let (status, stderr) = run(&["--listen", "127.0.0.1:0", "--state-dir", dir]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("error: another coordinator uses the state directory") && stderr.contains("hint: stop it"),
        "{stderr}"
    );

    let pid = Pid::from_raw(running.0.id().try_into().expect("a pid")).expect("not 0");
    kill_process(pid, Signal::TERM).expect("it is there");
    assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
}

#[test]
fn wrong_settings_are_named_and_end_with_their_own_status() {
    let state = tempfile::tempdir().expect("a directory");
    let dir = state.path().to_str().expect("plain");
    let config = state.path().join("c.toml");
    std::fs::write(&config, "listen = '127.0.0.1:0'\nlisten_too = 1\n").expect("written");
    let config = config.to_str().expect("plain");
    let cases = [
        (
            vec!["--listen", "0.0.0.0:7420", "--state-dir", dir],
            1,
            vec!["without certificates", "hint: "],
        ),
        (vec!["--listen", "nowhere", "--state-dir", dir], 1, vec!["`nowhere`"]),
        (vec!["--listen", "127.0.0.1:0"], 2, vec!["`--state-dir`", "hint: "]),
        (
            vec!["--state-dir", dir, "--config", config],
            2,
            vec!["line 2", "listen_too"],
        ),
        (
            vec!["--state-dir", dir, "--config", "/nonexistent"],
            2,
            vec!["`/nonexistent`"],
        ),
        (vec!["--no-such-option"], 2, vec!["--no-such-option"]),
    ];
    for (arguments, status, named) in cases {
        let (found, stderr) = run(&arguments);
        assert_eq!(found, status, "{stderr}");
        assert!(named.iter().all(|text| stderr.contains(text)), "{stderr}");
    }
}

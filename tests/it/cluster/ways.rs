//! All the ways in, many at a time, and on a terminal.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::farm::{COMPILER, TestFarm, distributed_compiler, has_compiler};

#[test]
fn every_way_in_leads_to_the_same_object() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    farm.write("a.c", "#include <string.h>\nint a(char *s) { return strlen(s); }\n");
    let bin = farm.path("bin");
    fs::create_dir(&bin).expect("created");
    let rdcc = Path::new(env!("CARGO_BIN_EXE_rdcc"));
    symlink(rdcc, bin.join(COMPILER)).expect("linked");
    symlink(rdcc, bin.join("ccache")).expect("linked");
    let mut expected = farm.client(Path::new("/usr/bin/arm-linux-gnueabi-gcc"));
    assert!(
        expected
            .args(["-c", "a.c", "-o", "expected.o"])
            .status()
            .expect("runs")
            .success()
    );
    let expected = fs::read(farm.src().join("expected.o")).expect("made");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let ways: [(&str, Command, &[&str]); 5] = [
        ("compiler named", farm.rdcc(), &["--toolchain", "arm926", COMPILER]),
        ("toolchain's own", farm.rdcc(), &["--toolchain", "arm926"]),
        ("masquerade", farm.client(&bin.join(COMPILER)), &[]),
        (
            "in ccache's place",
            farm.client(&bin.join("ccache")),
            &["/usr/bin/arm-linux-gnueabi-gcc"],
        ),
        ("below ccache", below_ccache(&farm), &["/usr/bin/arm-linux-gnueabi-gcc"]),
    ];
    let count = ways.len();
    for (what, mut command, words) in ways {
        command.args(words).args(["-c", "a.c", "-o", "a.o"]);
        command.env("RDCC_STRICT", "1").env("PATH", &path);
        farm.assert_success(&command.output().expect("runs"));
        let object = farm.src().join("a.o");
        assert!(fs::read(&object).expect("made") == expected, "{what}");
        fs::remove_file(object).expect("removed");
    }
    let stats = farm.stats();
    assert_eq!(stats["remote"], count, "{stats:#}\n{}", farm.logs());
}

/// ccache with a cache of its own, or what it would run if it is not installed.
fn below_ccache(farm: &TestFarm) -> Command {
    let rdcc = env!("CARGO_BIN_EXE_rdcc");
    let ccache = Path::new("/usr/bin/ccache");
    let mut command = farm.client(if ccache.exists() { ccache } else { Path::new(rdcc) });
    command
        .env("CCACHE_PREFIX", rdcc)
        .env("CCACHE_DIR", farm.path("ccache"));
    command.env("RDCC_TOOLCHAIN", "arm926");
    command
}

#[test]
fn many_compiles_at_once_share_the_workers() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 2), ("n2", 1)]);
    let count = 24;
    let mut makefile = String::from("all:");
    for number in 0..count {
        let text = format!("#include <stdio.h>\nint f{number}(void) {{ return puts(\"{number}\"); }}\n");
        farm.write(&format!("f{number}.c"), text);
        makefile.push_str(&format!(" f{number}.o"));
    }
    makefile.push_str("\n%.o: %.c\n\t$(CC) -O2 -MMD -c $< -o $@\n");
    farm.write("Makefile", makefile);
    let cc = distributed_compiler();
    let mut make = farm.client(Path::new("/usr/bin/make"));
    let output = make
        .args(["-s", "-j8", &format!("CC={cc}")])
        .env("RDCC_STRICT", "1")
        .output()
        .expect("make runs");
    farm.assert_success(&output);
    let stats = farm.stats();
    assert_eq!(stats["remote_by_mode"]["A"], count, "{stats:#}");
    let by_worker = stats["remote_by_worker"].as_object().expect("a table");
    assert_eq!(by_worker.len(), 2, "{stats:#}");
    for number in 0..count {
        let (source, object) = (format!("f{number}.c"), format!("f{number}.o"));
        let mut local = farm.client(Path::new("/usr/bin/arm-linux-gnueabi-gcc"));
        assert!(
            local
                .args(["-O2", "-c", &source, "-o", "local.o"])
                .status()
                .expect("runs")
                .success()
        );
        let read = |name: &str| fs::read(farm.src().join(name)).expect("made");
        assert!(read(&object) == read("local.o"), "{object}");
    }
}

/// Runs a command with a terminal for its stderr and returns what came there, and how the command ended.
pub fn on_a_terminal(mut command: Command, columns: u16) -> (Vec<u8>, ExitStatus) {
    let host = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&host).expect("granted");
    unlockpt(&host).expect("unlocked");
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&host, size).expect("sized");
    let name = ptsname(&host, Vec::new()).expect("named");
    let terminal = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new(name.to_str().expect("plain")))
        .expect("opened");
    command
        .env("TERM", "xterm-256color")
        .stderr(Stdio::from(OwnedFd::from(terminal)));
    let mut child = command.spawn().expect("starts");
    // The command holds the last copies of the terminal, so that its end is the end of the text.
    drop(command);
    let mut text = Vec::new();
    let mut host = fs::File::from(host);
    let mut piece = [0; 4096];
    // The kernel says EIO at the end.
    while let Ok(count @ 1..) = host.read(&mut piece) {
        text.extend_from_slice(&piece[..count]);
    }
    let status = child.wait().expect("ends");
    (text, status)
}

#[test]
fn diagnostics_on_a_terminal_have_the_same_colours_and_the_same_width() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    farm.write(
        "a.c",
        "#include <stdio.h>\nint f(void) { return undeclared_name_that_is_rather_long + another_one_of_them_here; }\n",
    );
    for columns in [80, 40] {
        let (remote, _) = on_a_terminal(farm.compile(&["-Wall", "-c", "a.c"]), columns);
        let mut local = farm.client(Path::new("/usr/bin/arm-linux-gnueabi-gcc"));
        local.args(["-Wall", "-c", "a.c"]);
        let (local, _) = on_a_terminal(local, columns);
        assert!(local.windows(2).any(|two| two == b"\x1b["), "no colours to compare");
        assert_eq!(String::from_utf8_lossy(&remote), String::from_utf8_lossy(&local));
    }
    assert_eq!(farm.stats()["remote"], 2, "{:#}", farm.stats());
}

//! Wall clocks that jump by a day, either way, in the middle of a build.
//!
//! Coordinator, worker and agent have a clock each that the test sets: libfaketime stands between them and the C library. The
//! clock that is never set, the machine's own and the compilers' stay as they are. Says so and passes where it is not to be had.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

use super::farm::{ARM926, COMPILER, SecureFarm, has_compiler, said, wait_for};

/// Compiles that go on at once. Each has a unit of its own, which is changed before every compile.
const AT_ONCE: usize = 2;
/// Compiles that have to go well after a clock was set.
const ENOUGH: usize = 6;

fn library() -> Option<PathBuf> {
    let found = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let libraries = found.map(|architecture| architecture.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

/// One program's clock.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(library: &Path, file: PathBuf) -> Self {
        let clock = Self {
            library: library.to_owned(),
            file,
        };
        clock.set(0);
        clock
    }

    /// Sets it so many days ahead of the machine's.
    fn set(&self, days: i64) {
        let written = self.file.with_extension("new");
        fs::write(&written, format!("{days:+}d\n")).expect("written");
        fs::rename(&written, &self.file).expect("in place");
    }

    /// Has a program go by it.
    fn govern(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        command
    }
}

/// A farm that builds, and its clocks.
struct Building {
    /// Locked for writing while the coordinator is not there.
    farm: RwLock<SecureFarm>,
    clocks: BTreeMap<&'static str, Clock>,
    done: AtomicUsize,
    over: AtomicBool,
}

/// The daemons, which have a clock each.
const DAEMONS: [&str; 3] = ["n1", "coordinator", "pc-agent"];

impl Building {
    fn farm(&self) -> RwLockReadGuard<'_, SecureFarm> {
        self.farm.read().expect("no panic")
    }

    /// Starts a daemon by its clock.
    fn start(&self, farm: &mut SecureFarm, daemon: &str) {
        let clock = &self.clocks[daemon];
        match daemon {
            "coordinator" => {
                let mut command = clock.govern(farm.coordinator_command());
                command.args(["--listen", &farm.address]);
                farm.start(daemon, command);
            }
            "n1" => {
                let mut command = clock.govern(farm.worker_command(daemon));
                command.args(["--listen", "127.0.0.1:0", "--power", "1", "--slots", "2"]);
                farm.start(daemon, command);
            }
            _ => {
                let mut command = clock.govern(farm.user("pc").command());
                command.args(["agent", "--foreground"]);
                farm.start_agent("pc", command);
            }
        }
    }

    /// Kills a daemon, with what libfaketime leaves behind of one that is killed.
    fn kill(&self, farm: &mut SecureFarm, daemon: &str) {
        let pid = farm.kill(daemon);
        for name in ["faketime_shm", "sem.faketime_sem"] {
            let _ = fs::remove_file(format!("/dev/shm/{name}_{pid}"));
        }
    }

    /// Starts a daemon anew, and waits until all have found each other without anybody's help.
    fn restart(&self, daemon: &str, what: &str) {
        let mut farm = self.farm.write().expect("no panic");
        self.kill(&mut farm, daemon);
        self.start(&mut farm, daemon);
        self.meet(&farm, what);
    }

    fn meet(&self, farm: &SecureFarm, what: &str) {
        wait_for(what, || farm.user("pc").compile().status.success());
    }

    /// Compiles until it is over, each time something else, which must give what it gives here.
    fn compile_on(&self, unit: usize) {
        let words = |output: &str| ["-O2", "-c", &format!("u{unit}.c"), "-o", output].map(str::to_owned);
        let [remote, local] = [format!("u{unit}.o"), format!("here{unit}.o")];
        for round in 1000.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let farm = self.farm();
            farm.write(&format!("u{unit}.h"), &format!("#define ROUND {round}\n"));
            let mut command = farm.user("pc").compiler();
            let compiled = command.args(words(&remote)).env("RDCC_STRICT", "1").output();
            let compiled = compiled.expect("runs");
            assert!(compiled.status.success(), "{}", said(&compiled));
            let mut command = Command::new(COMPILER);
            let here = command.args(words(&local)).current_dir(farm.path("src")).status();
            assert!(here.is_ok_and(|status| status.success()));
            let object = |name: &str| fs::read(farm.path("src").join(name)).expect("made");
            assert!(object(&remote) == object(&local), "round {round}");
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn go_on(&self, what: &str) {
        let before = self.done.load(Ordering::Relaxed);
        wait_for(what, || {
            assert!(!self.over.load(Ordering::Relaxed), "a compile has failed");
            self.done.load(Ordering::Relaxed) >= before + ENOUGH
        });
    }

    fn jump(&self) {
        for daemon in DAEMONS {
            let clock = &self.clocks[daemon];
            for days in [1, -1, 0] {
                let what = format!("going on with the clock of {daemon} off by {days} days");
                clock.set(days);
                self.go_on(&what);
                self.restart(daemon, &what);
                self.go_on(&what);
            }
        }
        // Everybody else takes the certificate of a coordinator that is so far behind for one that has ended.
        let mut farm = self.farm.write().expect("no panic");
        let clock = &self.clocks["coordinator"];
        clock.set(-3);
        self.kill(&mut farm, "coordinator");
        self.start(&mut farm, "coordinator");
        assert!(!farm.user("boss").rdcc(&["nodes"]).status.success());
        clock.set(0);
        self.meet(&farm, "the coordinator's new certificate");
        drop(farm);
        self.go_on("going on with a clock that was three days behind");
    }
}

#[test]
fn builds_go_on_when_clocks_jump_by_a_day() {
    let Some(library) = library() else {
        println!("skipped: no libfaketime here");
        return;
    };
    if !has_compiler() {
        return;
    }
    // A day is more than two thirds of this, so certificates are renewed for it, and less than all of it.
    let (mut farm, token) = SecureFarm::new("30 h");
    farm.user("boss").join(&token);
    farm.enrol_worker("n1");
    farm.user("pc").enrol();
    farm.write("a.c", "int a;\n");
    for unit in 0..AT_ONCE {
        farm.write(
            &format!("u{unit}.c"),
            &format!("#include \"u{unit}.h\"\nint a(int x) {{ return x * ROUND; }}\n"),
        );
    }
    let clock = |daemon| (daemon, Clock::new(&library, farm.path(&format!("{daemon}.clock"))));
    let clocks = DAEMONS.map(clock).into();
    farm.kill("coordinator");
    let building = Building {
        farm: RwLock::new(farm),
        clocks,
        done: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    let mut farm = building.farm.write().expect("no panic");
    for daemon in ["coordinator", "n1", "pc-agent"] {
        building.start(&mut farm, daemon);
    }
    farm.user("boss").must(&["toolchain", "push", ARM926]);
    building.meet(&farm, "the first compile");
    drop(farm);

    std::thread::scope(|scope| {
        let building = &building;
        for unit in 0..AT_ONCE {
            scope.spawn(move || {
                let _over = Over(building);
                building.compile_on(unit);
            });
        }
        let _over = Over(building);
        building.jump();
    });
    let mut farm = building.farm.write().expect("no panic");
    for daemon in DAEMONS {
        let log = farm.log(daemon);
        let days: BTreeSet<&str> = log.lines().filter_map(|line| line.get(..10)).collect();
        assert!(days.len() >= 3, "{daemon} went by the clock: {days:?}");
    }
    let audit = fs::read_to_string(farm.path("coordinator/audit.log")).expect("written");
    let renewals = audit.matches("certificate renewed").count();
    println!(
        "{} compiles, {renewals} renewals",
        building.done.load(Ordering::Relaxed)
    );
    assert!((1..20).contains(&renewals), "{audit}");
    for daemon in DAEMONS {
        building.kill(&mut farm, daemon);
    }
}

/// Ends the build when dropped, also by a panic.
struct Over<'a>(&'a Building);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

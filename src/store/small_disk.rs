//! For tests: a file system that is full after a few kilobytes.
//!
//! The test starts itself once more in a mount namespace of its own, where a small tmpfs is mounted; needs no rights
//! where user namespaces are allowed, and says so and passes where they are not.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Tells the second run where the small file system is.
const VARIABLE: &str = "RDCC_TEST_SMALL_DISK";

/// Runs `test`, which has to be the body of the test called `name` (with its modules), on a disk of `bytes`.
pub(crate) fn on_small_disk(name: &str, bytes: u64, test: impl FnOnce(&Path)) {
    if let Some(directory) = std::env::var_os(VARIABLE) {
        return test(&PathBuf::from(directory));
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={bytes} tmpfs \"$1\" || exit 99; exec \"$0\" --exact {name}");
    let run = Command::new("unshare")
        .args(["-Urm", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(dir.path())
        .env(VARIABLE, dir.path())
        .output();
    match run {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("1 passed"), "no such test as {name}: {said}");
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stdout));
        }
        other => println!("skipped: no small file system here ({other:?})"),
    }
}

//! What a trial job looks at from inside its root: whether the promises of the sandbox hold on this kernel.

use rustix::fs::{AtFlags, CWD, Mode as Bits, OFlags};
use rustix::io::Errno;

use super::super::Mode;
use super::{At, Failure};

/// A file that the launcher puts into a lower layer while the trial runs, as it sees it.
pub(super) const LOWER_FILE: &str = "/skeleton/tmp/lower";

/// The same as the trial job sees it.
const SEEN_FILE: &str = "/tmp/lower";

/// Fails at the first promise that does not hold. Runs as the program would: same user, limits, root.
pub(super) fn look_around(mode: Mode) -> Result<(), Failure> {
    promise(!rustix::process::geteuid().is_root(), "not being root in the job")?;
    let held = rustix::thread::capabilities(None).at("asking for capabilities")?;
    promise(held.permitted.is_empty(), "having no capability in the job")?;
    for hidden in ["/base", "/job", "/root", "/skeleton"] {
        promise(
            rustix::fs::stat(hidden).err() == Some(Errno::NOENT),
            "not seeing the launcher's template in the job",
        )?;
    }
    promise(
        rustix::process::getpid().as_raw_pid() == 2,
        "seeing no process but the job's",
    )?;
    let own = rustix::fs::readlink("/proc/self", Vec::new()).at("reading the job's `/proc`")?;
    promise(own.as_bytes() == b"2", "seeing the job's own `/proc`")?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open("file", flags, Bits::from_raw_mode(0o666)).at("writing a file in the job")?;
    rustix::io::write(&file, b"x").at("writing a file in the job")?;
    rustix::fs::renameat(CWD, "file", CWD, "renamed").at("renaming a file in the job")?;
    rustix::fs::unlink("renamed").at("removing a file in the job")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Bits::empty());
    rustix::io::write(&null.at("opening `/dev/null` in the job")?, b"x").at("writing to `/dev/null` in the job")?;
    if matches!(mode, Mode::UserOverlay | Mode::RootOverlay) {
        removes_a_lower_file()?;
    }
    Ok(())
}

/// Replaces a file of a lower layer, which needs a whiteout on the way.
fn removes_a_lower_file() -> Result<(), Failure> {
    rustix::fs::statat(CWD, SEEN_FILE, AtFlags::SYMLINK_NOFOLLOW).at("seeing a lower file in the job")?;
    rustix::fs::unlink(SEEN_FILE).at("removing a lower file in the job")
}

fn promise(kept: bool, what: &str) -> Result<(), Failure> {
    if kept { Ok(()) } else { Err(Errno::PERM).at(what) }
}

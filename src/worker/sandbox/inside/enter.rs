//! Takes a launcher out of the node: identity, name spaces, and the *template*, a root of its own that holds nothing but
//! what jobs are built from.
//!
//! The template is small on purpose: every job's mount name space begins as a copy of it.
//!
//! ```text
//! /base      the worker's lower directories, read-only
//! /dev       the devices a job may have
//! /proc      the launcher's; the kernel gives a job its own only if one is in sight
//! /skeleton  topmost layer of every job: mount points, and an empty /tmp
//! /job       where a job's writable layer is mounted
//! /root      where a job's root is mounted
//! ```

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Access, CWD, Mode as Bits, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Gid, Uid};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::super::landlock::landlock_version;
use super::super::wire::Setup;
use super::super::{JobUser, Mode};
use super::calls::{self, Signals};
use super::{At, Failure};

/// The devices that a job may have.
pub(super) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// Names in `/dev` that lead to a process's own descriptors.
pub(super) const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Where the template is put together. Nearly every system has it, and nothing in it is needed meanwhile: the base is
/// reached through the working directory.
const WORKPLACE: &str = "/tmp";

/// What a launcher has ready for its jobs.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) mode: Mode,
    /// Who the job becomes, when the launcher is still root.
    pub(super) job_user: Option<JobUser>,
    /// Options for a job's own `/proc`.
    pub(super) proc_options: Option<&'static CStr>,
    /// Whether a limit on processes counts this launcher's job alone.
    pub(super) process_count: ProcessCount,
    /// Version of the kernel's Landlock interface; 0 without.
    pub(super) landlock: u32,
    /// `/dev/null`.
    pub(super) null: OwnedFd,
    /// Readable when a child has ended.
    pub(super) ended: OwnedFd,
    /// How a job's first process sees that the launcher is there.
    pub(super) lifeline: Lifeline,
}

/// A pipe whose writing end only the launcher holds.
#[derive(Debug)]
pub(super) struct Lifeline {
    pub(super) watched: OwnedFd,
    /// Let go of by each forked child.
    pub(super) held: Option<OwnedFd>,
}

/// Whom the kernel counts against a limit on processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessCount {
    /// The launcher and its job.
    OwnSpace,
    /// Everything of the same user on the node.
    WholeNode,
}

/// Sets the calling process up. It must have one thread, and is not fit for anything else afterwards.
pub(super) fn enter(setup: &Setup) -> Result<Template, Failure> {
    // Off the terminal's process group, so that an interrupt reaches the worker alone and it decides about its jobs.
    rustix::process::setsid().ok();
    calls::close_others_on_execute();
    calls::set_signals(Signals::Blocked);
    calls::reset_signal_effects();
    rustix::process::umask(Bits::empty());
    rustix::process::nice(i32::from(setup.niceness)).at("setting the priority")?;
    rustix::process::chdir(&setup.base).at("entering the base directory")?;
    let user_space = matches!(setup.mode, Mode::UserOverlay | Mode::UserBinds);
    let root = rustix::process::geteuid().is_root();
    if user_space && root {
        become_user(setup.job_user).at("becoming the job's user")?;
        // Without this, files in /proc that describe us belong to root, and the maps could not be written.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).at("becoming readable")?;
    }
    if user_space {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        unshare(UnshareFlags::NEWUSER).at("making a user name space")?;
        map_user(uid, gid)?;
    }
    unshare(UnshareFlags::NEWNS).at("making a mount name space")?;
    unshare(UnshareFlags::NEWNET).at("making a network name space")?;
    unshare(UnshareFlags::NEWIPC).at("making an IPC name space")?;
    rustix::fs::access(".", Access::EXEC_OK).at("searching the base directory as the job's user")?;
    build()?;
    if user_space {
        forbid_nested_spaces();
    }
    drop_bounding_set();
    rustix::thread::set_no_new_privs(true).at("giving up new privileges")?;
    let kernel = kernel_version();
    let (watched, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at("making a pipe")?;
    Ok(Template {
        mode: setup.mode,
        job_user: (!user_space).then_some(setup.job_user),
        proc_options: (kernel >= (5, 8)).then_some(c"subset=pid"),
        process_count: if user_space && kernel >= (5, 14) {
            ProcessCount::OwnSpace
        } else {
            ProcessCount::WholeNode
        },
        landlock: landlock_version().unwrap_or(0),
        null: rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Bits::empty())
            .at("opening `/dev/null`")?,
        ended: calls::child_signal().at("watching for the end of jobs")?,
        lifeline: Lifeline {
            watched,
            held: Some(held),
        },
    })
}

/// Gives up root for good.
pub(super) fn become_user(user: JobUser) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[expect(unsafe_code, reason = "unshare may take resources from code that relies on them")]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: these flags leave descriptors and memory alone.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Maps the one user and group to themselves: inside, nobody is root, not even in name.
fn map_user(uid: Uid, gid: Gid) -> Result<(), Failure> {
    let write = |file: &str, text: String| {
        rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Bits::empty())
            .and_then(|file| rustix::io::write(&file, text.as_bytes()))
            .map(drop)
    };
    match write("/proc/self/setgroups", "deny".to_owned()) {
        // Before Linux 3.19 there is no such file, and no need of it.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).at("giving up groups"),
    }
    write("/proc/self/uid_map", format!("{uid} {uid} 1")).at("mapping the user")?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1")).at("mapping the group")
}

/// Puts the template together and makes it the root. The base is the working directory.
fn build() -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).at("making mounts private")?;
    let tmpfs = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("template", WORKPLACE, "tmpfs", tmpfs, c"mode=0755").at("mounting a tmpfs")?;
    let place = |name: &str| format!("{WORKPLACE}/{name}");
    for name in ["base", "dev", "proc", "skeleton", "job", "root"] {
        rustix::fs::mkdir(place(name), Bits::from_raw_mode(0o755)).at("making the template")?;
    }
    for name in ["skeleton/dev", "skeleton/proc", "skeleton/tmp"] {
        rustix::fs::mkdir(place(name), Bits::from_raw_mode(0o755)).at("making the skeleton")?;
    }
    rustix::fs::chmod(place("skeleton/tmp"), Bits::from_raw_mode(0o1777)).at("making the skeleton")?;
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlink(*target, place(&format!("skeleton/dev/{name}"))).at("making the skeleton")?;
    }
    for name in DEVICES {
        touch(&place(&format!("skeleton/dev/{name}"))).at("making the skeleton")?;
        let device = place(&format!("dev/{name}"));
        touch(&device).at("making the template")?;
        rustix::mount::mount_bind(format!("/dev/{name}"), &device).at(format!("binding `/dev/{name}`"))?;
    }
    rustix::mount::mount_bind_recursive("/proc", place("proc")).at("binding `/proc`")?;
    let base = place("base");
    rustix::mount::mount_bind_recursive(".", &base).at("binding the base directory")?;
    make_read_only(&base).at("making the base directory read-only")?;
    rustix::process::chdir(WORKPLACE).at("entering the template")?;
    change_root().at("making the template the root")
}

/// Makes the working directory, which has to be a mount, the root, and lets go of the old one.
pub(super) fn change_root() -> Result<(), Errno> {
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Makes an empty file.
pub(super) fn touch(path: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Bits::from_raw_mode(0o644)).map(drop)
}

/// Makes a bind mount read-only. In a user name space the flags it came with may not be taken off, so they are named again.
fn make_read_only(path: &str) -> Result<(), Errno> {
    let current = rustix::fs::statvfs(path)?.f_flag;
    let flags = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = flags
        .into_iter()
        .filter(|(flag, _)| current.contains(*flag))
        .fold(MountFlags::empty(), |kept, (_, flag)| kept | flag);
    rustix::mount::mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | kept, "")
}

/// Keeps jobs from making user name spaces, in which they would be root. Kernels before 4.9 lack the switch.
fn forbid_nested_spaces() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(CWD, "/proc/sys/user/max_user_namespaces", flags, Bits::empty()) {
        rustix::io::write(&file, b"0").ok();
    }
}

/// Empties the set of capabilities that a program may ever get. Numbers that the kernel does not know are refused.
fn drop_bounding_set() {
    for number in 0..64 {
        rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)).ok();
    }
}

/// Returns major and minor version of the running kernel, (0, 0) when it does not say.
pub(super) fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    }
}

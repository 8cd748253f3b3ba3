//! Landlock, a second wall behind the name spaces: a job that got out of its root would still reach no file of the node.
//!
//! The kernel ties a job to the files below its root, whatever mounts it may come to see; it forbids it to make device nodes
//! (those with which an overlay marks removed files, too), and to signal or reach by abstract sockets anybody who is not
//! of the job. Calls beyond version 2 of the interface are asked for where the kernel has them. Invariant: what a compiler may
//! do at home below its root, it may do here.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The first version under which files can be renamed from one directory to another, as they can at home.
const VERSION_LEAST: u32 = 2;

/// From the kernel's `landlock.h`: all that can be done with files in version 2.
const FILES_2: u64 = (1 << 14) - 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
/// Cutting files short, which version 3 tells apart.
const TRUNCATE: u64 = 1 << 14;
/// Making nodes for character and block devices.
const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;
/// Abstract sockets and signals of others, from version 6 on.
const SCOPES: u64 = 1 | 1 << 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Handled {
    files: u64,
    network: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// Returns the version of the kernel's Landlock interface, 1 or more.
pub fn landlock_version() -> io::Result<u32> {
    /// Asks for the version and makes nothing.
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    let version = create_ruleset(std::ptr::null(), 0, CREATE_RULESET_VERSION)?;
    Ok(u32::try_from(version).unwrap_or_default())
}

/// Tells whether an interface of this version does for jobs.
pub fn is_enough(version: u32) -> bool {
    version >= VERSION_LEAST
}

/// Ties this process, and all that it starts, to what is below `root` and to its three streams, for good. `version` is the kernel's; with one that
/// is not enough nothing happens.
pub(super) fn confine(version: u32, root: &CStr) -> Result<(), Errno> {
    if !is_enough(version) {
        return Ok(());
    }
    let files = if version >= 3 { FILES_2 | TRUNCATE } else { FILES_2 };
    let handled = Handled {
        files,
        network: 0,
        scopes: if version >= 6 { SCOPES } else { 0 },
    };
    // Older kernels know the beginning only.
    let size = match version {
        ..4 => 8,
        4..6 => 16,
        _ => size_of::<Handled>(),
    };
    let ruleset = create_ruleset(&raw const handled, size, 0).map_err(errno)?;
    let ruleset = own(ruleset)?;
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    add_rule(
        &ruleset,
        &Beneath {
            allowed: files & !MAKE_DEVICES,
            parent: root.as_raw_fd(),
        },
    )?;
    // What the streams lead to was opened elsewhere, and `/dev/stdin` and its like open it again.
    for stream in 0..3 {
        let allowed = files & (WRITE_FILE | READ_FILE | TRUNCATE);
        match add_rule(
            &ruleset,
            &Beneath {
                allowed,
                parent: stream,
            },
        ) {
            // A pipe is in no directory, and free for whoever has it.
            Ok(()) | Err(Errno::BADFD) => {}
            Err(error) => return Err(error),
        }
    }
    restrict_self(&ruleset)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn succeeded(result: libc::c_long) -> Result<libc::c_long, io::Error> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[expect(unsafe_code, reason = "no safe form in the given crates")]
fn create_ruleset(handled: *const Handled, size: usize, flags: libc::c_ulong) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size` bytes, none of them or the beginning of a `Handled`, during the call.
    succeeded(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled, size, flags) })
}

#[expect(unsafe_code, reason = "the number comes from a system call that has no safe form")]
fn own(descriptor: libc::c_long) -> Result<OwnedFd, Errno> {
    let descriptor = i32::try_from(descriptor).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[expect(unsafe_code, reason = "no safe form in the given crates")]
fn add_rule(ruleset: &OwnedFd, rule: &Beneath) -> Result<(), Errno> {
    const PATH_BENEATH: libc::c_ulong = 1;
    let (ruleset, rule, no_flags) = (ruleset.as_raw_fd(), &raw const *rule, 0 as libc::c_ulong);
    // SAFETY: the kernel reads a rule of this kind during the call.
    let added = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, PATH_BENEATH, rule, no_flags) };
    succeeded(added).map(drop).map_err(errno)
}

#[expect(unsafe_code, reason = "no safe form in the given crates")]
fn restrict_self(ruleset: &OwnedFd) -> Result<(), Errno> {
    let no_flags: libc::c_ulong = 0;
    // SAFETY: the call takes numbers only.
    let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), no_flags) };
    succeeded(restricted).map(drop).map_err(errno)
}

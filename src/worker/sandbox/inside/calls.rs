//! System calls that rustix does not offer, each behind the smallest safe face it can have.
//!
//! The launcher has one thread and no signal handlers: that is what makes forking safe here, and why these functions stay
//! private to it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::Pid;

use super::super::filter::Instruction;
use super::super::wire::Cost;
use crate::job::Status;

/// Stack of a child that shares our memory until it executes a program. It makes shallow system calls only.
const CHILD_STACK_BYTES: usize = 64 << 10;

/// Highest signal number on Linux, real-time signals included (MIPS has more, and compilers do not use them).
const SIGNAL_MAX: i32 = 64;

/// Forks into new mount and process name spaces. Returns the child, or `None` in the child, which is process 1 there.
#[expect(unsafe_code, reason = "fork has no safe form")]
pub(super) fn fork_into_new_spaces() -> io::Result<Option<Pid>> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack this is fork: the child gets a copy of everything. The process has one
    // thread, so no lock of the allocator or of the library is held by a thread that the child lacks.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match i32::try_from(child) {
        Ok(0) => Ok(None),
        Ok(child) if child > 0 => Ok(Pid::from_raw(child)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs `body` in a child that shares our memory, and waits until it has executed a program or ended. `body` should
/// only make system calls; what it returns becomes the child's exit status.
#[expect(unsafe_code, reason = "a child that shares memory costs a quarter of a fork")]
pub(super) fn spawn_sharing_memory(mut body: &mut dyn FnMut() -> i32) -> io::Result<Pid> {
    extern "C" fn enter(body: *mut libc::c_void) -> i32 {
        // SAFETY: the pointer is to the `body` below, which its owner does not touch while the child runs.
        let body = unsafe { &mut *body.cast::<&mut dyn FnMut() -> i32>() };
        body()
    }
    let mut stack = vec![0u128; CHILD_STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned to 16 bytes, used by nothing else, and lives until the child has left our memory,
    // because CLONE_VFORK holds us until then. For the same reason `body` is not used twice at a time.
    let child = unsafe { libc::clone(enter, top.cast(), flags, (&raw mut body).cast()) };
    drop(stack);
    Pid::from_raw(child.max(0)).ok_or_else(io::Error::last_os_error)
}

/// A list of strings as `execve` takes it.
pub(super) struct Strings {
    pointers: Vec<*const libc::c_char>,
    // Owns what the pointers point to.
    _strings: Vec<CString>,
}

impl Strings {
    /// Takes the strings in order.
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<*const libc::c_char> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self {
            pointers,
            _strings: strings,
        }
    }
}

/// Executes a program in place of this process. Returns only when that fails.
#[expect(unsafe_code, reason = "the standard library offers no execve of its own")]
pub(super) fn execute(program: &CString, argv: &Strings, env: &Strings) -> Errno {
    // SAFETY: all three point to NUL-terminated strings, the lists end with a null pointer, and all live until the call
    // returns or the process is replaced.
    unsafe { libc::execve(program.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Marks every descriptor but 0, 1 and 2 to be closed when a program is executed, whatever the worker left open. The
/// kernel does it at once since 5.11; else one by one.
#[expect(unsafe_code, reason = "no safe form in the given crates")]
pub(super) fn close_others_on_execute() {
    let (first, last) = (3u32, u32::MAX);
    // SAFETY: changes a flag of descriptors and touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return;
    }
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for descriptor in names.filter(|descriptor| *descriptor > 2) {
        // SAFETY: as above; a number that is no descriptor any more is refused.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Puts a filter in front of this process's system calls, and of all that it starts, for good. A kernel without filters is
/// no error: the name spaces stand by themselves.
#[expect(unsafe_code, reason = "no safe form in the given crates")]
pub(super) fn filter_calls(program: &[Instruction]) -> Result<(), Errno> {
    /// From the kernel's `seccomp.h`: without it kernels before 5.16 also slow the processor down, by guarding against
    /// guesses about memory that only a program which runs foreign code has to fear.
    const SPEC_ALLOW: libc::c_ulong = 1 << 2;
    const SET_MODE_FILTER: libc::c_ulong = 1;
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        length: libc::c_ushort,
        instructions: *const Instruction,
    }
    let program = Program {
        length: libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        instructions: program.as_ptr(),
    };
    if program.length == 0 {
        return Ok(());
    }
    // Kernels before 4.17 do not know the flag.
    for flags in [SPEC_ALLOW, 0] {
        // SAFETY: the kernel reads as many instructions as `length` says, which are those of the slice, during the call.
        let set = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
        if set == 0 {
            return Ok(());
        }
    }
    match Errno::from_io_error(&io::Error::last_os_error()) {
        Some(Errno::NOSYS | Errno::INVAL) => Ok(()),
        error => Err(error.unwrap_or(Errno::IO)),
    }
}

/// Which signals are held back.
pub(super) enum Signals {
    /// All that can be.
    Blocked,
    /// None.
    Open,
}

/// Sets which signals are held back from now on. A program inherits this.
#[expect(unsafe_code, reason = "no safe form in the given crates")]
pub(super) fn set_signals(signals: Signals) {
    // SAFETY: the set is initialised by the first call, and all pointers are to locals.
    unsafe {
        let mut set = std::mem::zeroed();
        match signals {
            Signals::Blocked => libc::sigfillset(&raw mut set),
            Signals::Open => libc::sigemptyset(&raw mut set),
        };
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Gives every signal its default effect, so that programs inherit none that is ignored. Those that have only one effect
/// refuse, which is as well.
#[expect(unsafe_code, reason = "no safe form in the given crates")]
pub(super) fn reset_signal_effects() {
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: no handler is installed, only removed.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Opens a descriptor that becomes readable when a child has ended. The signal has to be blocked.
#[expect(unsafe_code, reason = "no safe form in the given crates")]
pub(super) fn child_signal() -> io::Result<OwnedFd> {
    // SAFETY: the set is a local, initialised by the first call; the descriptor is new and ours alone.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// Takes the notices that [`child_signal`] holds.
pub(super) fn clear_child_signal(signal: &OwnedFd) {
    let mut notice = [0; size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(signal, &mut notice).is_ok() {}
}

/// Makes descriptor `to` a copy of `from` that programs inherit.
#[expect(
    unsafe_code,
    reason = "the safe form wants to own the target, which no one owns in a child about to execute"
)]
pub(super) fn put(from: impl AsFd, to: i32) -> Result<(), Errno> {
    // SAFETY: dup2 touches no memory; the caller is a child whose descriptor table is its own.
    match unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) } {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

/// Takes a child that has ended, if there is one: `child`, or any when `None`. The cost is that of the child and of all
/// that it, or the kernel for it, has waited for.
#[expect(unsafe_code, reason = "the safe forms do not tell the cost")]
pub(super) fn wait(child: Option<Pid>, options: i32) -> io::Result<Option<(Pid, Status, Cost)>> {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let wanted = child.map_or(-1, Pid::as_raw_pid);
    // SAFETY: both pointers are to locals.
    let found = unsafe { libc::wait4(wanted, &raw mut status, options, &raw mut usage) };
    if found < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(found).map(|pid| (pid, ended(status), cost(&usage))))
}

fn ended(status: i32) -> Status {
    if libc::WIFEXITED(status) {
        Status::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    } else {
        Status::Signaled(u8::try_from(libc::WTERMSIG(status)).unwrap_or(u8::MAX))
    }
}

fn cost(usage: &libc::rusage) -> Cost {
    let time = |value: libc::timeval| {
        let seconds = u64::try_from(value.tv_sec).unwrap_or(0);
        let micros = u64::try_from(value.tv_usec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    };
    Cost {
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        // Kibibytes on Linux.
        memory_peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
        major_faults: u64::try_from(usage.ru_majflt).unwrap_or(0),
    }
}

//! The step between a wrapper and the agent it starts: a process that belongs to nobody.
//!
//! Descriptors of the build are closed first: an agent that kept make's job server, or the pipe into somebody's `tee`,
//! would hang the build that started it. Then a session of its own, and the agent as an orphan: a wrapper that becomes the
//! compiler has no child that the compiler does not know.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Closes every descriptor but the standard ones, leaves the session, and starts this program again with `args`.
/// The caller ends right after.
pub fn launch(args: &[&str]) -> io::Result<()> {
    close_inherited();
    // Fails only for a process group leader, which a child just started is not.
    let _ = rustix::process::setsid();
    Command::new(std::env::current_exe()?)
        .arg0("rdcc")
        .args(args)
        .stdin(Stdio::null())
        .spawn()
        .map(drop)
}

/// Closes every descriptor from 3 on.
pub fn close_inherited() {
    if close_range() {
        return;
    }
    // Kernels before 5.9, as boards have them: one by one. The list is complete before the first is closed.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        close(descriptor);
    }
}

#[expect(unsafe_code, reason = "no safe call closes descriptors that nobody owns")]
fn close_range() -> bool {
    // SAFETY: called before this process has opened anything: no object of ours owns a descriptor from 3 on.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    result == 0
}

#[expect(unsafe_code, reason = "no safe call closes a descriptor that nobody owns")]
fn close(descriptor: i32) {
    // SAFETY: as above; the descriptor of the listing itself is closed already, and closing it again is refused.
    unsafe { libc::close(descriptor) };
}

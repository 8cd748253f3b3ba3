//! Becoming the real compiler.
//!
//! The process is replaced, so that signals, status, descriptors (make's job server among them) and output are the
//! compiler's own. Invariant: rdcc that calls itself in a circle, through whatever scripts, ends with an error.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::exchange::{Complaint, DEPTH};

/// Compiler wrappers around compiler wrappers are two or three deep.
const DEPTH_MAX: u32 = 10;

/// Executes `program` in this process's place; returns only when that fails, with the exit status to use.
pub fn become_compiler(program: &Path, argv0: &OsStr, args: &[&[OsString]]) -> (Complaint, u8) {
    let shown = program.display();
    let depth = std::env::var(DEPTH)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if depth >= DEPTH_MAX {
        let complaint = Complaint::new(format!("`{shown}` leads back to rdcc"))
            .because(format!("rdcc has started a compiler {depth} times on the way here"))
            .hint("check what this compiler executes, and the directories on PATH");
        return (complaint, 1);
    }
    set_depth(depth + 1);
    let mut command = Command::new(program);
    command.arg0(argv0);
    for words in args {
        command.args(*words);
    }
    let error = command.exec();
    // As a shell would have it.
    let status = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    let complaint = Complaint::new(format!("cannot run the compiler `{shown}`")).because(error.to_string());
    (complaint, status)
}

#[expect(
    unsafe_code,
    reason = "the environment is passed on in its own order only if it is changed in place"
)]
fn set_depth(depth: u32) {
    // SAFETY: the wrapper has one thread, and this is its last act.
    unsafe { std::env::set_var(DEPTH, depth.to_string()) };
}

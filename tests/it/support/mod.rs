//! What several integration tests need.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub mod gcc;

/// Writes a program that a test is to run.
///
/// Another process writes it: were this one to hold it open for writing, a child that another test forks at that moment
/// would keep it open too, and starting it would fail as "text file busy".
pub fn write_program(path: &Path, content: impl AsRef<[u8]>) {
    let mut written = Command::new("sh")
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = written.stdin.take().expect("its input");
    input.write_all(content.as_ref()).expect("written");
    drop(input);
    assert!(written.wait().expect("a status").success(), "{}", path.display());
}

/// Lets programs that are started from now on hear interrupts, even where whoever started the tests does not: a shell's job in
/// the background ignores them, and hands that on.
#[expect(unsafe_code, reason = "no safe call sets what becomes of a signal")]
pub fn hear_interrupts() {
    // SAFETY: the usual disposition is set, and no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// Copies a program that a test is to run, as [`write_program`] writes one.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--").arg(from).arg(to).status();
    assert!(copied.expect("cp").success(), "{}", to.display());
}

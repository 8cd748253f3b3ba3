//! Which ceiling a job ran into, judged from how it ended.
//!
//! The kernel tells the process that hit a ceiling, and a compiler driver turns that into a message and status 1. Such a
//! failure says nothing about the source, so it has to be told apart from the compiler's own answer. Where the kernel's
//! own account (CPU time, the signal) is not there, the words that gcc, binutils and libc print in that case decide; a job
//! that failed for another reason and prints them is run elsewhere once more for nothing. Pure.

use std::time::Duration;

use super::{JobLimits, Limit};
use crate::job::Status;

/// What the driver or the failing program itself prints, and the ceiling that makes it do so.
///
/// The driver's own words are "fatal error: SIGNAL-NAME signal terminated program cc1", with the C library's names.
const WORDS: &[(&str, Limit)] = &[
    ("CPU time limit exceeded signal terminated", Limit::Cpu),
    ("File size limit exceeded signal terminated", Limit::OutputBytes),
    ("No space left on device", Limit::OutputBytes),
    // The kernel's own way out when the node has no memory left.
    ("Killed signal terminated", Limit::Memory),
    ("out of memory allocating", Limit::Memory),
    ("virtual memory exhausted", Limit::Memory),
    ("memory exhausted", Limit::Memory),
    ("Cannot allocate memory", Limit::Memory),
    ("std::bad_alloc", Limit::Memory),
    ("Resource temporarily unavailable", Limit::Processes),
];

/// What the C library calls the errors that a root of bind mounts answers with where a real one would not: a read-only
/// mount, a file that is mounted upon, a directory of ours.
const HINDRANCES: &[&str] = &["Read-only file system", "Device or resource busy", "Permission denied"];

/// Signals by which the kernel itself ends a process at a ceiling.
const SIGKILL: u8 = 9;
const SIGXCPU: u8 = 24;
const SIGXFSZ: u8 = 25;

/// Returns the ceiling that made a job fail, if one evidently did. `cpu` is the time of all its processes together.
pub(super) fn hit(status: Status, stderr: &[u8], cpu: Duration, limits: &JobLimits) -> Option<Limit> {
    match status {
        Status::Exited(0) => return None,
        Status::Signaled(SIGXCPU) => return Some(Limit::Cpu),
        Status::Signaled(SIGXFSZ) => return Some(Limit::OutputBytes),
        _ => {}
    }
    if cpu >= limits.cpu {
        return Some(Limit::Cpu);
    }
    if status == Status::Signaled(SIGKILL) {
        return Some(Limit::Memory);
    }
    let said = |words: &str| memchr::memmem::find(stderr, words.as_bytes()).is_some();
    WORDS.iter().find(|(words, _)| said(words)).map(|(_, limit)| *limit)
}

/// Tells whether a job in a root of bind mounts says that it could not write. It may have gone on and succeeded.
///
/// That a message is in the C library's own words is the client's care: it does not take diagnostics in another language.
pub(super) fn hindered(stderr: &[u8]) -> bool {
    HINDRANCES
        .iter()
        .any(|words| memchr::memmem::find(stderr, words.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> JobLimits {
        JobLimits {
            memory_bytes: 1 << 30,
            cpu: Duration::from_secs(60),
            wall: Duration::from_secs(600),
            processes: 64,
            output_bytes: 1 << 20,
            text_bytes: 1 << 20,
        }
    }

    #[track_caller]
    fn check(status: Status, stderr: &str, cpu_seconds: u64, expected: Option<Limit>) {
        let cpu = Duration::from_secs(cpu_seconds);
        assert_eq!(hit(status, stderr.as_bytes(), cpu, &limits()), expected, "{stderr}");
    }

    #[test]
    fn a_compiler_that_answers_hit_nothing() {
        check(Status::Exited(0), "warning: No space left on device", 0, None);
        check(Status::Exited(0), "", 100, None);
        check(Status::Exited(1), "a.c:1:1: error: unknown type name 'x'", 1, None);
        check(
            Status::Exited(4),
            "internal compiler error: Segmentation fault signal terminated program cc1",
            1,
            None,
        );
        check(Status::Signaled(11), "", 1, None);
    }

    #[test]
    fn words_about_places_that_cannot_be_written_are_known() {
        assert!(hindered(
            b"Assembler messages:\nFatal error: can't create /o/a.o: Read-only file system\n"
        ));
        assert!(hindered(
            b"as: Warning: can't open list file: /l/a.lst: Permission denied\n"
        ));
        assert!(!hindered(b"a.c:1:1: error: unknown type name 'x'\n"));
    }

    #[test]
    fn failures_that_ceilings_cause_are_told_apart() {
        let failed = Status::Exited(1);
        check(failed, "", 60, Some(Limit::Cpu));
        check(Status::Signaled(24), "", 3, Some(Limit::Cpu));
        check(Status::Signaled(25), "", 0, Some(Limit::OutputBytes));
        check(Status::Signaled(9), "", 0, Some(Limit::Memory));
        check(
            failed,
            "gcc: fatal error: Killed signal terminated program cc1\ncompilation terminated.",
            0,
            Some(Limit::Memory),
        );
        check(
            failed,
            "cc1plus: out of memory allocating 65536 bytes after a total of 9 bytes",
            0,
            Some(Limit::Memory),
        );
        check(
            failed,
            "as: Fatal error: a.o: No space left on device",
            0,
            Some(Limit::OutputBytes),
        );
        check(
            failed,
            "gcc: fatal error: cannot execute 'cc1': vfork: Resource temporarily unavailable",
            0,
            Some(Limit::Processes),
        );
    }
}

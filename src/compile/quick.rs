//! The wrapper's own answer, for commands that are plainly not for the farm.
//!
//! Walks the words once, allocates nothing, reads nothing. Invariant (tested): where it answers, [`super::parse()`] answers
//! the same; it is silent where it would have to read a response file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::language::Driver;
use super::reason::LocalReason;
use super::survey::Survey;
use super::words::Words;

/// Returns why `argv` (without the driver's name) has to run here, when that is certain without any look elsewhere.
pub fn quick_local(argv: &[OsString], driver: Driver) -> Option<LocalReason> {
    if argv.iter().any(|word| word.as_bytes().starts_with(b"@")) {
        return None;
    }
    let mut survey = Survey::new(driver);
    for word in Words::new(argv) {
        survey.take(&word);
    }
    survey.finish().err().map(|(reason, _)| reason)
}

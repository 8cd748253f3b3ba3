//! What is under way, and what keeps jobs here, for people who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::flow::Action;
use crate::exchange::escape::escape;
use crate::exchange::{CompileRequest, ReportedJob};

/// Sentences kept; each is about another thing that is wrong, and few things are wrong at once.
const REMARKS_MAX: usize = 20;

/// Jobs and remarks; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    next: u64,
    jobs: BTreeMap<u64, Shown>,
    remarks: Vec<String>,
}

#[derive(Debug)]
struct Shown {
    words: Arc<[std::ffi::OsString]>,
    began: Instant,
    action: Action,
    worker: String,
}

/// One job in the list, until this is dropped.
#[derive(Debug)]
pub struct Entry {
    shared: Arc<Mutex<Shared>>,
    number: u64,
}

impl Watch {
    /// Adds a job.
    pub fn enter(&self, request: &CompileRequest) -> Entry {
        let mut shared = lock(&self.shared);
        let number = shared.next;
        shared.next += 1;
        let shown = Shown {
            words: request.argv.as_slice().into(),
            began: Instant::now(),
            action: Action::Analyse,
            worker: String::new(),
        };
        shared.jobs.insert(number, shown);
        Entry {
            shared: self.shared.clone(),
            number,
        }
    }

    /// Keeps a sentence about what keeps jobs here.
    pub fn remark(&self, remark: &str, hint: Option<&str>) {
        let remark = match hint {
            Some(hint) => format!("{remark}; {hint}"),
            None => remark.to_owned(),
        };
        let mut shared = lock(&self.shared);
        if !shared.remarks.contains(&remark) {
            tracing::warn!("{remark}");
            if shared.remarks.len() == REMARKS_MAX {
                shared.remarks.remove(0);
            }
            shared.remarks.push(remark);
        }
    }

    /// Forgets the remarks: what they are about may have been put right.
    pub fn forget_remarks(&self) {
        lock(&self.shared).remarks.clear();
    }

    /// Tells everything.
    pub fn report(&self) -> (Vec<ReportedJob>, Vec<String>) {
        let shared = lock(&self.shared);
        let jobs = shared.jobs.iter().map(|(number, shown)| ReportedJob {
            job: *number,
            source: source(&shown.words),
            phase: phase(shown.action, &shown.worker),
            age_ms: u64::try_from(shown.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        (jobs.collect(), shared.remarks.clone())
    }
}

impl Entry {
    /// Says what the job is in the middle of.
    pub fn phase(&mut self, action: Action, worker: &str) {
        if let Some(shown) = lock(&self.shared).jobs.get_mut(&self.number) {
            shown.action = action;
            if shown.worker != worker {
                worker.clone_into(&mut shown.worker);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.shared).jobs.remove(&self.number);
    }
}

/// Shows the last word that is no option and no option's value as far as one can see: the source, mostly.
pub fn source(words: &[std::ffi::OsString]) -> String {
    let plain = |word: &&std::ffi::OsString| !word.as_encoded_bytes().starts_with(b"-");
    let is_source = |word: &&std::ffi::OsString| {
        let name = std::path::Path::new(word);
        let end = name.extension().unwrap_or_default().as_encoded_bytes();
        matches!(end.first(), Some(b'c' | b'C' | b's' | b'S' | b'i')) && end != b"so"
    };
    let words = || words.iter().skip(1).filter(plain);
    let shown = words().find(is_source).or_else(|| words().next_back());
    shown.map_or_else(String::new, |word| escape(word.as_encoded_bytes()))
}

fn phase(action: Action, worker: &str) -> String {
    match action {
        Action::Analyse => "reading the command".to_owned(),
        Action::Resolve => "looking for the toolchain".to_owned(),
        Action::Gather(_) => "finding included files".to_owned(),
        Action::Preprocess => "preprocessing here".to_owned(),
        Action::Place | Action::Adapt => "waiting for a place".to_owned(),
        Action::Run => format!("running on {worker}"),
        Action::Check => "checking the answer".to_owned(),
        Action::Deliver => "putting files in place".to_owned(),
        Action::Finish | Action::Fail(_) => "ending".to_owned(),
        Action::RunHere(_) => "waiting for a local slot".to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Lists of whole entries only.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Compiler, Wish};

    fn request(words: &str) -> CompileRequest {
        CompileRequest {
            toolchain: None,
            compiler: Compiler::At("/usr/bin/gcc".into()),
            argv: words.split(' ').map(Into::into).collect(),
            cwd: "/".into(),
            env: Vec::new(),
            umask: 0o22,
            terminal: None,
            wish: Wish::Anywhere,
            worker: None,
        }
    }

    #[test]
    fn jobs_are_listed_while_they_live() {
        let watch = Watch::default();
        let mut first = watch.enter(&request("gcc -c src/a.c -o a.o"));
        let second = watch.enter(&request("gcc x y"));
        first.phase(Action::Run, "n1");
        let (jobs, _) = watch.report();
        let shown: Vec<(&str, &str)> = jobs
            .iter()
            .map(|job| (job.source.as_str(), job.phase.as_str()))
            .collect();
        assert_eq!(shown, [("src/a.c", "running on n1"), ("y", "reading the command")]);
        drop((first, second));
        assert!(watch.report().0.is_empty());
    }

    #[test]
    fn remarks_are_kept_once_and_bounded() {
        let watch = Watch::default();
        for number in 0..50 {
            watch.remark(&format!("remark {number}"), Some("do something"));
            watch.remark(&format!("remark {number}"), Some("do something"));
        }
        let remarks = watch.report().1;
        assert_eq!(remarks.len(), REMARKS_MAX);
        assert_eq!(remarks.last().map(String::as_str), Some("remark 49; do something"));
    }
}

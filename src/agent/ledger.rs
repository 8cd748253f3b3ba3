//! What the agent remembers of the jobs it has seen: counters for `rdcc stats`, records for `rdcc why`.
//!
//! [`Ledger::record`] only touches memory; files are written by [`Ledger::flush`], every few seconds and at the end.
//! All agents of a user share the files, so each adds what it counted since its last flush, under a lock
//! (`ledger/files.rs`). What was recorded and not flushed is lost in a crash, no more. Invariant: after a flush that failed
//! nothing is lost but records beyond a bound; their counts stay.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exchange::{AuditNote, AuditReport, Complaint, Counters, JobRecord, Zero};
use crate::runtime::tasks::Tasks;

mod files;
#[cfg(test)]
mod tests;

pub use files::LedgerError;
use files::News;

/// How often counts go to disk while jobs run.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Most records that wait for a disk that takes none. A kernel has some 3,000 units.
const WAITING_RECORDS_MAX: usize = 10_000;
/// Most records that `rdcc why` is told about one file.
const ANSWERS_MAX: usize = 10;

/// Counters and records of all jobs.
#[derive(Debug)]
pub struct Ledger {
    files: files::Files,
    /// What is not on disk yet.
    waiting: Mutex<News>,
}

impl Ledger {
    /// Uses the files in `state_dir`, which exists.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            files: files::Files::new(state_dir),
            waiting: Mutex::default(),
        }
    }

    /// Counts and remembers a job. Does not wait for the disk.
    pub fn record(&self, record: JobRecord) {
        let mut waiting = self.waiting();
        waiting.counters.count(&record);
        if waiting.records.len() < WAITING_RECORDS_MAX {
            waiting.records.push(record);
        }
    }

    /// Adds counts that are of no one job's end. Does not wait for the disk.
    pub fn add(&self, counters: &Counters) {
        self.waiting().counters.add(counters);
    }

    /// Remembers what an audit found. Does not wait for the disk.
    pub fn note_audit(&self, note: AuditNote) {
        let mut waiting = self.waiting();
        if waiting.audits.len() < WAITING_RECORDS_MAX {
            waiting.audits.push(note);
        }
    }

    /// Returns what audits have found, with the files that wrong nodes made; the findings may be forgotten after that.
    /// Blocks on the disk.
    pub fn audits(&self, zero: Zero) -> Result<AuditReport, LedgerError> {
        self.flush()?;
        let audits = self.files.audits(zero)?;
        let mut suspects = audits.suspects();
        if !audits.findings.is_empty() {
            self.files.each_record(|_| true, |record| suspects.see(record))?;
        }
        Ok(AuditReport {
            findings: suspects.finish(),
            nodes: audits.nodes,
        })
    }

    /// Writes what is waiting, takes in the wrappers' journal, and returns the counters of all agents. Blocks on the disk.
    pub fn flush(&self) -> Result<Counters, LedgerError> {
        self.update(Zero::Keep)
    }

    /// Returns the counters of all agents; they may start again from nothing after that. Blocks on the disk.
    ///
    /// A disk that takes nothing keeps nobody from reading them; only starting again needs it.
    pub fn stats(&self, zero: Zero) -> Result<Counters, LedgerError> {
        match self.update(zero) {
            Err(error) if zero == Zero::Keep => {
                not_saved(&error);
                let waiting = self.waiting().counters.clone();
                self.files.sums_with(&waiting)
            }
            told => told,
        }
    }

    /// Returns what is known of the jobs that wrote `path` (absolute), newest first. Blocks on the disk.
    ///
    /// Names count as equal when their directories are the same, through whatever links they are reached.
    pub fn why(&self, path: &Path) -> Result<Vec<JobRecord>, LedgerError> {
        if let Err(error) = self.flush() {
            not_saved(&error);
        }
        let mut directories = Directories::default();
        let aim: Vec<PathBuf> = [Some(path.to_owned()), std::fs::canonicalize(path).ok()]
            .into_iter()
            .flatten()
            .collect();
        let names: Vec<&OsStr> = aim.iter().filter_map(|path| path.file_name()).collect();
        let mut same = |output: &Path| {
            let named = output.file_name().is_some_and(|name| names.contains(&name));
            named && aim.iter().any(|path| directories.same_file(path, output))
        };
        let mut wanted = |record: &JobRecord| record.outputs.iter().any(|output| same(output));
        let mut found = self.files.records(&names, &mut wanted)?;
        let waiting = self.waiting();
        found.extend(waiting.records.iter().filter(|record| wanted(record)).cloned());
        drop(waiting);
        found.reverse();
        found.truncate(ANSWERS_MAX);
        Ok(found)
    }

    fn update(&self, zero: Zero) -> Result<Counters, LedgerError> {
        let waiting = std::mem::take(&mut *self.waiting());
        let added = self.files.add(&waiting, zero);
        added.inspect_err(|_| {
            let mut newer = self.waiting();
            newer.counters.add(&waiting.counters);
            let room = WAITING_RECORDS_MAX.saturating_sub(newer.records.len());
            newer.records.splice(0..0, waiting.records.into_iter().take(room));
            let room = WAITING_RECORDS_MAX.saturating_sub(newer.audits.len());
            newer.audits.splice(0..0, waiting.audits.into_iter().take(room));
        })
    }

    fn waiting(&self) -> MutexGuard<'_, News> {
        // Each holder leaves it whole at every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flushes `ledger` every few seconds while there is something to flush, until `tasks` end.
pub async fn flush_regularly(ledger: Arc<Ledger>, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tasks.cancelled() => return,
            () = tokio::time::sleep(FLUSH_EVERY) => {}
        }
        if ledger.waiting().is_empty() {
            continue;
        }
        let flushing = Arc::clone(&ledger);
        if let Err(error) = tasks.blocking(move || flushing.flush()).await {
            not_saved(&error);
        }
    }
}

fn not_saved(error: &LedgerError) {
    tracing::warn!(error = %Complaint::from_error(error), "statistics are not saved");
}

/// Directories by their resolved paths, each looked up once per question.
#[derive(Default)]
struct Directories(BTreeMap<PathBuf, Option<PathBuf>>);

impl Directories {
    fn same_file(&mut self, one: &Path, other: &Path) -> bool {
        one == other
            || one.file_name() == other.file_name()
                && match (self.resolve(one), self.resolve(other)) {
                    (Some(one), Some(other)) => one == other,
                    _ => false,
                }
    }

    fn resolve(&mut self, file: &Path) -> Option<PathBuf> {
        let directory = file.parent()?;
        if let Some(known) = self.0.get(directory) {
            return known.clone();
        }
        let resolved = std::fs::canonicalize(directory).ok();
        self.0.insert(directory.to_owned(), resolved.clone());
        resolved
    }
}

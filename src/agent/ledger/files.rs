//! The ledger's files: `stats.json`, replaced as a whole, and `jobs.log`, one JSON record per line.
//!
//! Several agents may share them; whoever changes them holds `ledger.lock`, for the time of a few file operations. A damaged
//! `stats.json` starts again from nothing, a damaged line of the log is passed over: statistics are never a reason to
//! fail a build. Invariant: `jobs.log` and `jobs.old` together stay below twice [`LOG_BYTES_MAX`] and one flush.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memchr::memmem;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::agent::journal::{self, Cursor};
use crate::exchange::escape::escape;
use crate::exchange::place;
use crate::exchange::{AuditNote, Audits, Complaint, Counters, JobRecord, Zero};

/// Size beyond which the log is moved aside, bytes: some 20,000 jobs, several kernels.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// A file of the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} `{}`", path.display())]
pub struct LedgerError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Adds what was done, and to what, to an I/O error.
fn fail(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError { what, path, source }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    counters: Counters,
    audits: Audits,
    journal: Cursor,
}

/// What an agent has to add to the files.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    pub(super) counters: Counters,
    pub(super) records: Vec<JobRecord>,
    pub(super) audits: Vec<AuditNote>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.counters == Counters::default() && self.audits.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Files {
    lock: PathBuf,
    stats: PathBuf,
    log: PathBuf,
    old_log: PathBuf,
    journal: PathBuf,
}

impl Files {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            lock: state_dir.join("ledger.lock"),
            stats: state_dir.join("stats.json"),
            log: state_dir.join("jobs.log"),
            old_log: state_dir.join("jobs.old"),
            journal: place::journal(state_dir),
        }
    }

    /// Adds counts, notes and records, and what the journal holds, and returns the sums.
    pub(super) fn add(&self, news: &News, zero: Zero) -> Result<Counters, LedgerError> {
        let _lock = self.lock()?;
        let (mut kept, noted) = self.read()?;
        kept.counters.add(&news.counters);
        news.audits.iter().for_each(|note| kept.audits.note(note));
        let told = match zero {
            Zero::Keep => kept.counters.clone(),
            Zero::Reset => std::mem::take(&mut kept.counters),
        };
        if !noted.is_empty() || !news.is_empty() || zero == Zero::Reset {
            self.save(&kept)?;
        }
        // The counts are safe: an error now would have them added again. A lost record is missed by `rdcc why` only.
        if let Err(error) = self.append(noted.iter().chain(&news.records)) {
            tracing::warn!(error = %Complaint::from_error(&error), "jobs are not remembered");
        }
        Ok(told)
    }

    /// Returns what audits have found, as far as it is on disk, and forgets the findings then if asked to.
    pub(super) fn audits(&self, zero: Zero) -> Result<Audits, LedgerError> {
        let _lock = self.lock()?;
        let mut kept = self.load()?;
        let told = kept.audits.clone();
        if zero == Zero::Reset {
            kept.audits.findings.clear();
            self.save(&kept)?;
        }
        Ok(told)
    }

    /// Returns what [`Files::add`] would, for a disk that takes nothing; without the lock, so that what others add at this
    /// moment may be missing.
    pub(super) fn sums_with(&self, counters: &Counters) -> Result<Counters, LedgerError> {
        let (mut kept, _) = self.read()?;
        kept.counters.add(counters);
        Ok(kept.counters)
    }

    /// Returns what is kept, with what the journal adds to it.
    fn read(&self) -> Result<(Kept, Vec<JobRecord>), LedgerError> {
        let mut kept = self.load()?;
        let noted = journal::read_new(&self.journal, &mut kept.journal).map_err(fail("read", &self.journal))?;
        for record in &noted {
            kept.counters.count(record);
        }
        Ok((kept, noted))
    }

    /// Returns the records, oldest first, whose line mentions one of `names` and that `wanted` wants.
    pub(super) fn records(
        &self,
        names: &[&OsStr],
        wanted: &mut dyn FnMut(&JobRecord) -> bool,
    ) -> Result<Vec<JobRecord>, LedgerError> {
        // As the names stand within a JSON string within the line.
        let mentions: Vec<String> = names
            .iter()
            .map(|name| escape(name.as_bytes()))
            .filter_map(|name| serde_json::to_string(&name).ok())
            .map(|quoted| quoted.trim_matches('"').to_owned())
            .collect();
        let finders: Vec<memmem::Finder<'_>> = mentions.iter().map(memmem::Finder::new).collect();
        let mentioned = |line: &[u8]| finders.iter().any(|finder| finder.find(line).is_some());
        let mut found = Vec::new();
        self.each_record(mentioned, |record| {
            if wanted(&record) {
                found.push(record);
            }
        })?;
        Ok(found)
    }

    /// Shows all records whose line is `of_interest`, oldest first.
    pub(super) fn each_record(
        &self,
        of_interest: impl Fn(&[u8]) -> bool,
        mut show: impl FnMut(JobRecord),
    ) -> Result<(), LedgerError> {
        for path in [&self.old_log, &self.log] {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(fail("read", path)(error)),
            };
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).map_err(fail("read", path))? != 0 {
                if of_interest(&line)
                    && let Ok(record) = serde_json::from_slice(&line)
                {
                    show(record);
                }
                line.clear();
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, LedgerError> {
        let file = private(File::options().write(true)).open(&self.lock);
        let file = file.map_err(fail("open", &self.lock))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(io::Error::from)
            .map_err(fail("lock", &self.lock))?;
        Ok(file)
    }

    fn load(&self) -> Result<Kept, LedgerError> {
        match std::fs::read(&self.stats) {
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %self.stats.display(), "statistics start again");
                Kept::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(error) => Err(fail("read", &self.stats)(error)),
        }
    }

    fn save(&self, kept: &Kept) -> Result<(), LedgerError> {
        let text = serde_json::to_vec(kept).expect("counters are plain data with text keys");
        let fresh = self.stats.with_extension("new");
        let write = || {
            let mut file = private(File::options().write(true).truncate(true)).open(&fresh)?;
            file.write_all(&text)?;
            std::fs::rename(&fresh, &self.stats)
        };
        write().map_err(fail("write", &self.stats))
    }

    fn append<'a>(&self, records: impl Iterator<Item = &'a JobRecord>) -> Result<(), LedgerError> {
        let mut text = Vec::new();
        for record in records.filter(|record| !record.outputs.is_empty()) {
            serde_json::to_writer(&mut text, record).expect("records are plain data with text keys");
            text.push(b'\n');
        }
        if text.is_empty() {
            return Ok(());
        }
        let write = || {
            let mut file = private(File::options().append(true)).open(&self.log)?;
            let length = file.metadata()?.len();
            if length > LOG_BYTES_MAX {
                std::fs::rename(&self.log, &self.old_log)?;
                file = private(File::options().append(true)).open(&self.log)?;
            }
            file.write_all(&text)
        };
        write().map_err(fail("write", &self.log))
    }
}

/// Paths of a build are its owner's business.
fn private(options: &mut std::fs::OpenOptions) -> &mut std::fs::OpenOptions {
    options.create(true).mode(0o600)
}

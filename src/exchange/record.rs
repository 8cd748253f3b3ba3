//! One finished job, as `rdcc why` tells it and as the counters count it.
//!
//! Plain data; `agent/ledger.rs` keeps it. Reasons are short words with underscores (`link`, `no_coordinator`): they are keys of
//! `rdcc stats --json`, so they are stable and few. Anything longer belongs into [`JobRecord::notes`].

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::escape::{escape, unescape};

/// Where and how a job ran, and why so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The files it wrote, absolute; the object first. Empty when unknown.
    #[serde(with = "paths")]
    pub outputs: Vec<PathBuf>,
    /// The toolchain, by name where it has one, else the start of its identity; empty when none was found.
    pub toolchain: String,
    /// Where it ran.
    pub ran: Ran,
    /// What was tried before that and did not work, a reason each.
    pub fallbacks: Vec<String>,
    /// Whether the compiler reported success. Local runs are not waited for, and count as success.
    pub success: bool,
    /// When it ended, milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// How long each phase took, in order: `scan`, `preprocess`, `place`, `transfer`, `run`, ….
    pub phases: Vec<Phase>,
    /// CPU time of the compiler where it ran remotely, microseconds.
    pub cpu_us: u64,
    /// Bytes that went to workers for this job.
    pub bytes_sent: u64,
    /// Bytes that came back.
    pub bytes_received: u64,
    /// Whether the result came out of a cache without running the compiler.
    pub cached: bool,
    /// Set when it took so long that a second copy of it was started elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub race: Option<Race>,
    /// The variant of its toolchain that it ran on, or was last tried on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// Why it kept to its own toolchain although that has variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_only: Option<String>,
    /// More for `rdcc why`: why a fallback happened, both lists of a differing include closure, ….
    pub notes: Vec<String>,
}

/// A variant of a toolchain, which stands in for it on another kind of host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The start of its identity.
    pub toolchain: String,
    /// What it runs on.
    pub host: String,
    /// How equal its objects are to the toolchain's own.
    pub level: String,
}

/// One phase of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// How long it took, microseconds.
    pub took_us: u64,
}

/// Where a job ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "where")]
pub enum Ran {
    /// On a worker.
    Remote {
        /// How its inputs got there.
        mode: Mode,
        /// The worker's name.
        worker: String,
    },
    /// Here.
    Local {
        /// Why.
        reason: String,
    },
}

impl Ran {
    /// Tells whether the job ran here for this reason.
    pub fn is_for(&self, reason: &str) -> bool {
        matches!(self, Ran::Local { reason: told } if told == reason)
    }
}

/// How a second copy of a job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Race {
    /// The first copy ended first after all.
    Lost,
    /// The second copy ended first.
    Won,
}

/// Who preprocesses a remote job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The worker: the agent sends the files that the unit includes.
    A,
    /// The agent: the preprocessed unit is sent.
    B,
}

impl Mode {
    /// Returns the letter.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::A => "A",
            Mode::B => "B",
        }
    }
}

impl JobRecord {
    /// Starts a record of a job that ran at `ran`; everything else is empty.
    pub fn new(ran: Ran) -> Self {
        Self {
            outputs: Vec::new(),
            toolchain: String::new(),
            ran,
            fallbacks: Vec::new(),
            success: true,
            ended_unix_ms: 0,
            phases: Vec::new(),
            cpu_us: 0,
            bytes_sent: 0,
            bytes_received: 0,
            cached: false,
            race: None,
            variant: None,
            own_only: None,
            notes: Vec::new(),
        }
    }

    /// Adds a phase.
    pub fn phase(&mut self, name: &str, took: Duration) {
        self.phases.push(Phase {
            name: name.to_owned(),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        });
    }
}

/// Paths of any bytes as JSON strings.
pub(super) mod paths {
    use super::{PathBuf, escape, unescape};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    pub(in crate::exchange) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| escape(path.as_os_str().as_bytes())))
    }

    pub(in crate::exchange) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| match unescape(text) {
                Some(bytes) => Ok(PathBuf::from(OsString::from_vec(bytes))),
                None => Err(D::Error::custom("path with a broken escape")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn record_with_a_name_that_is_not_utf8_survives_json() {
        let mut record = JobRecord::new(Ran::Remote {
            mode: Mode::B,
            worker: "n1".into(),
        });
        record.outputs = vec![PathBuf::from(OsStr::from_bytes(b"/t/\xff\n.o"))];
        record.phase("run", Duration::from_millis(7));
        let text = serde_json::to_string(&record).expect("plain data");
        assert_eq!(serde_json::from_str::<JobRecord>(&text).expect("as written"), record);
    }
}

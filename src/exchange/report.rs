//! What an agent tells about itself: `rdcc status` and `rdcc jobs`.
//!
//! Plain data. The field names are keys of the commands' `--json` output, a contract.

use serde::{Deserialize, Serialize};

/// An agent's present state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentReport {
    /// Process id.
    pub pid: u32,
    /// rdcc's version.
    pub version: String,
    /// Time since its start, seconds.
    pub uptime_s: u64,
    /// The coordinator's address.
    pub coordinator: String,
    /// How it stands with the coordinator, for people: `connected`, `connecting since 12 s: connection refused`, ….
    pub link: String,
    /// Jobs it is busy with.
    pub jobs: Vec<ReportedJob>,
    /// What keeps jobs here that could run elsewhere, one clear sentence each.
    pub remarks: Vec<String>,
}

/// A job that an agent is busy with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedJob {
    /// The agent's number for it.
    pub job: u64,
    /// What is compiled, made printable.
    pub source: String,
    /// What it is in the middle of: `waiting for a place`, `running on n1`, ….
    pub phase: String,
    /// Time since it came, milliseconds.
    pub age_ms: u64,
}

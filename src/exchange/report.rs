//! What an agent tells about itself: `rdcc status`, `rdcc jobs` and `rdcc stats`.
//!
//! Plain data. The field names are keys of the commands' `--json` output, a contract.

use serde::{Deserialize, Serialize};

use super::build::BuildSummary;
use super::counters::Counters;

/// What `rdcc stats` tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Counts of all jobs.
    #[serde(flatten)]
    pub counters: Counters,
    /// The last build that the agent has seen.
    pub build: Option<BuildSummary>,
}

/// How full the farm is, as the agent was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportedFarm {
    /// Slots of workers that take jobs.
    pub slots: u32,
    /// Those in use.
    pub busy: u32,
    /// Slots for this agent while all that want the farm share it.
    pub my_share: u64,
}

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
    /// The farm, when the coordinator has told.
    #[serde(default)]
    pub farm: Option<ReportedFarm>,
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

//! The cluster as the coordinator tells it, in words of our own.
//!
//! Plain data; the field names are keys of `rdcc status --json`, `nodes --json`, `jobs --json` and `toolchain list --json`.

use serde::Serialize;

use crate::ids::ToolchainId;

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// The coordinator's version.
    pub version: String,
    /// What everybody should know about it; empty: nothing.
    pub warning: String,
    /// Since its start, seconds.
    pub uptime_s: u64,
    /// Jobs that wait for a slot.
    pub queued: u64,
    /// Jobs that have one.
    pub running: u64,
    /// Nodes, by name.
    pub nodes: Vec<Node>,
    /// Agents that are connected.
    pub agents: Vec<ConnectedAgent>,
    /// Jobs that have a slot, oldest first.
    pub jobs: Vec<Job>,
}

/// Cores of one speed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cores {
    /// Jobs on them at one time.
    pub slots: u32,
    /// Speed of one of these slots.
    pub power: f64,
}

/// A machine with a worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where agents reach it.
    pub address: String,
    /// `ready`, `draining`, `quarantined` or `lost`.
    pub state: String,
    /// Jobs it takes at one time.
    pub slots: u32,
    /// Jobs it has.
    pub busy: u32,
    /// Speed of one slot; 1.0 is a reference core.
    pub power: f64,
    /// The same as learned from jobs that ran there, with all slots in use; absent until some did.
    pub learned_power: Option<f64>,
    /// Its cores where they are of different speed, the fastest first; `power` is then the mean of their slots.
    pub cores: Vec<Cores>,
    /// What its toolchains must run on.
    pub host_kind: String,
    /// What isolates its jobs.
    pub sandbox: String,
    /// What it knows of toolchains.
    pub toolchains: Vec<NodeToolchain>,
    /// Jobs it has done.
    pub jobs_done: u64,
    /// Times it broke.
    pub faults: u64,
    /// Memory it has left, bytes.
    pub memory_available_bytes: u64,
    /// Its version.
    pub version: String,
    /// Why it gets less than it could; may be empty.
    pub note: String,
}

/// A toolchain on a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeToolchain {
    /// Which.
    #[serde(serialize_with = "as_text")]
    pub toolchain: ToolchainId,
    /// `installed`, `bundle`, `fetchable` or `failed`.
    pub state: &'static str,
    /// Why it failed; may be empty.
    pub message: String,
}

/// An agent that is connected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectedAgent {
    /// Its machine.
    pub host: String,
    /// Its user.
    pub user: String,
    /// Its process.
    pub pid: u32,
    /// Jobs that wait.
    pub waiting: u32,
    /// Slots it holds.
    pub holding: u32,
}

/// A job that has a slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// The slot's grant.
    pub grant: u64,
    /// The node.
    pub node: String,
    /// The agent's machine.
    pub host: String,
    /// The toolchain; unknown while only the node has told of the job, after a session with it was lost.
    #[serde(serialize_with = "as_text_or_null")]
    pub toolchain: Option<ToolchainId>,
    /// Since it got the slot, milliseconds.
    pub age_ms: u64,
}

/// One toolchain that the coordinator has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Toolchain {
    /// Its name.
    pub name: String,
    /// Its identity.
    #[serde(serialize_with = "as_text")]
    pub identity: ToolchainId,
    /// Whether the name stands for this one.
    pub current: bool,
    /// What it runs on.
    pub host_kind: String,
    /// What it makes code for.
    pub target: String,
    /// Digest of its bundle, hexadecimal.
    pub bundle_digest: String,
    /// Bytes of its bundle.
    pub bundle_bytes: u64,
    /// Its files.
    pub files: u64,
    /// Bytes of its files.
    pub unpacked_bytes: u64,
    /// When it was pushed, milliseconds since 1970.
    pub pushed_unix_ms: u64,
    /// How its objects compare with those of the name's reference variant, in words.
    pub certification: String,
}

fn as_text<S: serde::Serializer>(toolchain: &ToolchainId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(toolchain)
}

fn as_text_or_null<S: serde::Serializer>(toolchain: &Option<ToolchainId>, serializer: S) -> Result<S::Ok, S::Error> {
    match toolchain {
        Some(toolchain) => as_text(toolchain, serializer),
        None => serializer.serialize_none(),
    }
}

impl Cluster {
    /// Counts the slots of nodes that take jobs, of those that may get `toolchain` where one is given.
    pub fn usable_slots(&self, toolchains: Option<&[ToolchainId]>) -> u32 {
        let suits = |node: &&Node| {
            node.state == "ready"
                && toolchains.is_none_or(|wanted| {
                    // A node that was not asked yet says nothing, and may well fetch it.
                    !node
                        .toolchains
                        .iter()
                        .any(|known| known.state == "failed" && wanted.contains(&known.toolchain))
                })
        };
        self.nodes.iter().filter(suits).map(|node| node.slots).sum()
    }
}

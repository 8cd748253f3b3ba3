//! A simulated worker, as strict as the protocol asks: it proves the scheduler wrong rather than covering for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdcc::coordinator::events::{CoreGroup, Drain, HostKind, LoadReport, ToolchainNews, WorkerHello};
use rdcc::ids::{GrantId, Name, ToolchainId, WorkerSessionId};
use rdcc::job::Variants;

/// One worker.
#[derive(Debug)]
pub struct SimWorker {
    pub name: Name,
    pub host_kind: HostKind,
    pub slots: u32,
    pub power_milli: u32,
    /// Those of different speed.
    pub cores: Vec<CoreGroup>,
    pub alive: bool,
    /// The connection, from hello on.
    pub session: Option<WorkerSessionId>,
    /// The session whose grants count; set by welcome.
    pub key: Option<WorkerSessionId>,
    /// Between hello and welcome no job starts.
    pub shaking_hands: bool,
    pub hung_until: Duration,
    pub report: u64,
    /// Which run each belongs to: a job of an earlier life does not end in this one.
    pub running: BTreeMap<GrantId, usize>,
    pub used: BTreeSet<GrantId>,
    pub voided: BTreeSet<GrantId>,
    pub to_acknowledge: BTreeSet<GrantId>,
    pub toolchains: BTreeMap<ToolchainId, Have>,
    pub drain: Drain,
}

/// How a worker really stands with a toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    Ready,
    /// After a fetch of this length; with so many failures before.
    AfterFetch(Duration, u32),
    Never,
}

/// What becomes of a grant shown to a worker.
#[derive(Debug, PartialEq, Eq)]
pub enum Shown {
    /// The job starts.
    Starts,
    /// Declined as the protocol asks.
    Refused,
    /// Declined for want of the toolchain.
    NoToolchain,
    /// Genuine, never used, and there is no slot for it: the coordinator sold the slot twice.
    Oversold,
}

impl SimWorker {
    pub fn hello(&self) -> WorkerHello {
        let ready = self.toolchains.iter();
        let ready = ready.filter(|(_, have)| **have == Have::Ready);
        WorkerHello {
            name: self.name.clone(),
            address: "127.0.0.1:1".into(),
            slots: self.slots,
            power_milli: self.power_milli,
            cores: self.cores.clone(),
            host_kind: self.host_kind.clone(),
            memory_bytes: 1 << 30,
            sandbox: "none".into(),
            version: "0".into(),
            variants: Variants::Certified,
            ready: ready.map(|(id, _)| *id).collect(),
            running: self.running.keys().copied().collect(),
            drain: self.drain,
        }
    }

    /// An agent shows a grant that the coordinator gave for the session `of`.
    pub fn show(&mut self, grant: GrantId, of: WorkerSessionId, toolchain: ToolchainId, job: usize) -> Shown {
        let genuine = self.key == Some(of) && !self.shaking_hands;
        if !genuine || self.voided.contains(&grant) || !self.used.insert(grant) {
            return Shown::Refused;
        }
        if self.toolchains.get(&toolchain) != Some(&Have::Ready) {
            return Shown::NoToolchain;
        }
        if self.running.len() >= self.slots as usize {
            return Shown::Oversold;
        }
        self.running.insert(grant, job);
        Shown::Starts
    }

    pub fn void(&mut self, grant: GrantId) {
        self.voided.insert(grant);
        self.to_acknowledge.insert(grant);
    }

    pub fn report(&mut self) -> LoadReport {
        self.report += 1;
        let acknowledged = std::mem::take(&mut self.to_acknowledge).into_iter();
        LoadReport {
            number: self.report,
            running: self.running.keys().copied().collect(),
            voided: acknowledged.filter(|grant| !self.running.contains_key(grant)).collect(),
            memory_available_bytes: 1 << 29,
            ..LoadReport::default()
        }
    }

    pub fn news(&self, toolchain: ToolchainId) -> ToolchainNews {
        match self.toolchains.get(&toolchain) {
            Some(Have::Ready) => ToolchainNews::Bundle,
            Some(Have::AfterFetch(..)) => ToolchainNews::Fetchable,
            Some(Have::Never) | None => ToolchainNews::Failed("not for this machine".into()),
        }
    }

    /// The machine loses power; its disk stays.
    pub fn crash(&mut self) {
        self.alive = false;
        self.session = None;
        self.key = None;
        self.shaking_hands = false;
        self.running.clear();
        self.voided.clear();
        self.to_acknowledge.clear();
    }
}

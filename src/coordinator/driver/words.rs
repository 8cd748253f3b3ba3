//! What sessions are told, before it is encoded.

use std::time::Duration;

use crate::coordinator::events::{Drain, Effort, FarmView, HostKind, Purpose, StandIn, VoidReason};
use crate::ids::{CoreGroupId, GrantId, Name, RequestId, ToolchainId};
use crate::job::Refusal;

/// What an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentWord {
    /// It has a place.
    Granted(Place),
    /// It gets none.
    Refused(RequestId, Refusal),
    /// A grant must not be shown any more.
    Void(GrantId, VoidReason),
    /// The farm has changed.
    Farm(FarmView),
    /// The session ends, and why.
    Ended(String),
}

/// A place, with all that is needed to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// For which want.
    pub request: RequestId,
    /// Its number.
    pub grant: GrantId,
    /// The worker's name.
    pub worker: Name,
    /// Where the worker is reached.
    pub address: String,
    /// Shown to the worker.
    pub token: [u8; 32],
    /// To be used within this time of arrival.
    pub valid: Duration,
    /// Speed of the slot, thousandths of a reference core.
    pub power_milli: u32,
    /// What it was wanted for.
    pub purpose: Purpose,
    /// What it is to be run with instead of the toolchain that was wanted.
    pub run_as: Option<RunAs>,
    /// On which of the worker's cores.
    pub cores: CoreGroupId,
}

/// A variant to run a job on, with what people want to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The variant, and how equal its objects are.
    pub stand_in: StandIn,
    /// What it runs on.
    pub host_kind: HostKind,
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerWord {
    /// See to a toolchain.
    Prepare(ToolchainId, Effort),
    /// It is drained, or no more.
    Drain(Drain),
    /// A grant must not be honoured any more.
    Void(GrantId, VoidReason),
    /// The session ends, and why.
    Ended(String),
}

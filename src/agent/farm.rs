//! What the driver needs of the rest of the farm: a place for a job, its run there, and toolchain files.

use std::sync::Arc;

use super::preparation::{Prepared, Trouble};
use super::toolchain_resolve::DefinitionSource;
use crate::ids::ToolchainId;
use crate::job::Outcome;

/// What a job asks a place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The toolchain that the worker has to have.
    pub toolchain: ToolchainId,
    /// Sum of the sizes of all files that the job reads, bytes.
    pub closure_bytes: u64,
}

/// What a run brought.
#[derive(Debug)]
pub struct Ran {
    /// The compiler's answer.
    pub outcome: Outcome,
    /// Bytes sent to the worker for it; what other jobs sent at the same time is in it too.
    pub bytes_sent: u64,
    /// Bytes that came back.
    pub bytes_received: u64,
}

/// Places and workers.
pub trait Farm: DefinitionSource + Send + Sync + 'static {
    /// Permission to run one job on one worker. Dropping it unused gives it back.
    type Place: Send + Sync + 'static;

    /// Waits for a place. Dropping the future takes the wish back.
    fn place(&self, want: Want) -> impl Future<Output = Result<Self::Place, Trouble>> + Send;

    /// Returns the name of the place's worker.
    fn worker(place: &Self::Place) -> &str;

    /// Runs a job. Dropping the future cancels it.
    fn run(&self, place: Self::Place, job: Arc<Prepared>) -> impl Future<Output = Result<Ran, Trouble>> + Send;

    /// Tells how it stands with the coordinator, for people.
    fn link(&self) -> String;

    /// Tells the coordinator's address, for people.
    fn coordinator(&self) -> String;
}

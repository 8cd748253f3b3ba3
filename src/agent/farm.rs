//! What the driver needs of the rest of the farm: where a job runs, its run there, and toolchain files.

use std::sync::Arc;
use std::time::Duration;

use super::broker::Stay;
use super::coordinator_link::{FarmView, StandIn};
use super::forecast::Prediction;
use super::placing::{Ask, Choice};
use super::preparation::{Prepared, Trouble};
use super::toolchain_resolve::DefinitionSource;
use crate::ids::{CoreGroupId, Name};
use crate::job::Outcome;

/// What a job asks a place for.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// What decides where it runs.
    pub ask: Ask,
    /// Sum of the sizes of all files that the job reads, bytes.
    pub closure_bytes: u64,
}

impl Want {
    /// Returns the same want, with no worker to be avoided.
    pub fn with_any_worker(&self) -> Self {
        let mut want = self.clone();
        want.ask.avoid.clear();
        want
    }
}

/// Where a job runs.
#[derive(Debug)]
pub enum Placed<P> {
    /// At a worker.
    There(P),
    /// Here, by choice; to be held for as long as the compiler runs.
    Here(Choice, Stay),
}

/// Which kind of a worker's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Slot {
    /// The cores that it is on.
    pub cores: CoreGroupId,
    /// Whether they are this very machine's.
    pub on_this_machine: bool,
}

/// What a run brought.
#[derive(Debug)]
pub struct Ran {
    /// The compiler's answer.
    pub outcome: Outcome,
    /// Where it ran.
    pub slot: Slot,
    /// Bytes sent to the worker for it; what other jobs sent at the same time is in it too.
    pub bytes_sent: u64,
    /// Bytes that came back.
    pub bytes_received: u64,
}

/// Places and workers.
pub trait Farm: DefinitionSource + Send + Sync + 'static {
    /// Permission to run one job on one worker. Dropping it unused gives it back.
    type Place: Send + Sync + 'static;

    /// Finds where a job runs. Dropping the future takes the wish back.
    fn place(&self, want: Want) -> impl Future<Output = Result<Placed<Self::Place>, Trouble>> + Send;

    /// Returns the name of the place's worker.
    fn worker(place: &Self::Place) -> &str;

    /// Returns the variant that a job has to run on at the place, if it is not the toolchain itself.
    fn stand_in(place: &Self::Place) -> Option<&StandIn>;

    /// Returns the place's power: work per second of running time.
    fn power(place: &Self::Place) -> f64;

    /// Runs a job. Dropping the future cancels it. `foretold` tells what it was to cost, as far as is known when it has ended:
    /// guesses of different times say nothing of how fast one worker is beside another.
    fn run(
        &self,
        place: Self::Place,
        job: Arc<Prepared>,
        foretold: impl Fn() -> Prediction + Send,
    ) -> impl Future<Output = Result<Ran, Trouble>> + Send;

    /// Says that a worker's results were found wrong.
    fn accuse(&self, worker: &Name, what: &str);

    /// Returns how full the farm is, as far as that is known.
    fn view(&self) -> Option<FarmView>;

    /// Tells how it stands with the coordinator, for people.
    fn link(&self) -> String;

    /// Tells the coordinator's address, for people.
    fn coordinator(&self) -> String;
}

/// Time that a job spent on its way rather than in the compiler, where it was sent anything worth naming.
pub fn transfer_time(elapsed: Duration, wall: Duration, bytes_sent: u64) -> Duration {
    /// Below that a transfer is round trips, which say nothing about the link.
    const BYTES_LEAST: u64 = 64 << 10;
    match bytes_sent >= BYTES_LEAST {
        true => elapsed.saturating_sub(wall),
        false => Duration::ZERO,
    }
}

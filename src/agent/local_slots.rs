//! Room for commands that run on this machine, so that links and local compiles do not trample on each other.
//!
//! A place is held until the command's connection ends. A command may wait for others of its own making (a script that
//! calls the compiler, `-flto` that calls make), so nobody waits for ever: after a while it runs without a place.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longer than most links, short enough that commands that wait for one another are a delay and not a hang.
const WAIT: Duration = Duration::from_secs(20);

/// The places of this machine.
#[derive(Debug)]
pub struct LocalSlots {
    places: Arc<Semaphore>,
}

impl LocalSlots {
    /// Makes room for `count` commands.
    pub fn new(count: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(count as usize)),
        }
    }

    /// Waits for a place; `None` when that took too long.
    pub async fn take(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().acquire_owned();
        tokio::time::timeout(WAIT, place).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_run_out_come_back_and_are_not_waited_for_for_ever() {
        let slots = LocalSlots::new(1);
        let first = slots.take().await;
        assert!(first.is_some());
        assert!(slots.take().await.is_none());
        drop(first);
        assert!(slots.take().await.is_some());
    }
}

//! Slots as jobs meet them: a job is admitted, waits if it must, and its place is free again when it is dropped.
//!
//! The decisions are in `slots`; this holds the lock, the waiting and the way to jobs whose grant is taken back.
//! Invariant: every ticket that was given out is finished exactly once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::slots::{Admission, Claim, Slots, Ticket};
use super::stop::Stop;
use crate::ids::GrantId;
use crate::job::{Refusal, RefusalKind};
use crate::protocol::token::GrantKey;

/// How long a job waits for its predecessor to be cleaned up. That takes milliseconds; on a board that writes back its
/// card, a second.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The worker's door. Clones share it.
#[derive(Debug, Clone)]
pub struct Door {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// How many jobs have a slot.
    running: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    slots: Slots,
    jobs: BTreeMap<Ticket, Job>,
}

#[derive(Debug)]
struct Job {
    stop: Stop,
    /// Tells a waiting job that it has a slot.
    start: Option<oneshot::Sender<()>>,
}

/// A job's place. Dropping it frees the slot.
#[derive(Debug)]
pub struct Place {
    door: Door,
    ticket: Ticket,
}

impl Door {
    /// Starts with `slots` free ones.
    pub fn new(slots: u32) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    slots: Slots::new(slots),
                    jobs: BTreeMap::new(),
                }),
                running: watch::Sender::new(0),
            }),
        }
    }

    /// Admits a job and returns when it has a slot.
    pub async fn admit(&self, claim: &Claim, stop: &Stop) -> Result<Place, Refusal> {
        let (place, wait) = self.enter(claim, stop)?;
        let Some(wait) = wait else { return Ok(place) };
        let waited = stop.unless_stopped(tokio::time::timeout(WAIT_MAX, wait)).await?;
        match waited {
            Ok(Ok(())) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Refusal {
                kind: RefusalKind::Busy,
                message: "no slot became free in time".to_owned(),
            }),
        }
    }

    fn enter(&self, claim: &Claim, stop: &Stop) -> Result<(Place, Option<oneshot::Receiver<()>>), Refusal> {
        let mut state = self.lock();
        let (ticket, start, wait) = match state.slots.admit(claim)? {
            Admission::Start(ticket) => (ticket, None, None),
            Admission::Wait(ticket) => {
                let (start, wait) = oneshot::channel();
                (ticket, Some(start), Some(wait))
            }
        };
        let stop = stop.clone();
        state.jobs.insert(ticket, Job { stop, start });
        self.shared.running.send_replace(state.slots.running());
        let door = self.clone();
        Ok((Place { door, ticket }, wait))
    }

    /// Takes the key of a new session with the coordinator.
    pub fn new_session(&self, key: GrantKey) {
        self.lock().slots.new_session(key);
    }

    /// Takes a grant back, stopping the job that uses it.
    pub fn void(&self, grant: GrantId) {
        let mut state = self.lock();
        for ticket in state.slots.void(grant) {
            if let Some(job) = state.jobs.get(&ticket) {
                job.stop.stop(RefusalKind::Busy, "the coordinator took the place back");
            }
        }
    }

    /// Refuses every job from now on.
    pub fn close(&self) {
        self.lock().slots.close();
    }

    /// Returns the grants in use.
    pub fn grants(&self) -> Vec<GrantId> {
        self.lock().slots.grants()
    }

    /// Returns when no job has a slot.
    pub async fn idle(&self) {
        let mut running = self.shared.running.subscribe();
        // The sender lives as long as this door.
        let _ = running.wait_for(|running| *running == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.jobs.remove(&self.ticket);
        let next = state.slots.finished(self.ticket);
        if let Some(start) = next.and_then(|next| state.jobs.get_mut(&next)?.start.take()) {
            // When it has just given up, dropping its own place passes the slot on.
            let _ = start.send(());
        }
        self.door.shared.running.send_replace(state.slots.running());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::ids::{AgentSessionId, ToolchainId};

    const KEY: GrantKey = GrantKey([3; 32]);

    fn claim(grant: u64) -> Claim {
        let (grant, agent) = (GrantId(grant), AgentSessionId(1));
        let toolchain = ToolchainId(Digest::of(b"toolchain"));
        Claim {
            grant,
            agent,
            toolchain,
            token: KEY.token(grant, agent, toolchain).to_vec(),
        }
    }

    fn door() -> Door {
        let door = Door::new(1);
        door.new_session(KEY);
        door
    }

    #[tokio::test(start_paused = true)]
    async fn successor_starts_when_its_predecessor_is_gone_or_gives_up() {
        let door = door();
        let stop = Stop::default();
        let first = door.admit(&claim(1), &stop).await.expect("free");
        let (second, ()) = tokio::join!(async { door.admit(&claim(2), &stop).await.expect("freed") }, async {
            tokio::task::yield_now().await;
            drop(first);
        });
        let refusal = door.admit(&claim(3), &stop).await.expect_err("in use for long");
        assert_eq!(refusal.kind, RefusalKind::Busy);
        assert_eq!(door.grants(), [GrantId(2)]);
        drop(second);
        door.idle().await;
    }

    #[tokio::test]
    async fn void_stops_running_and_waiting_jobs() {
        let door = door();
        let (running, waiting) = (Stop::default(), Stop::default());
        let place = door.admit(&claim(1), &running).await.expect("free");
        let second = claim(2);
        let (refused, ()) = tokio::join!(door.admit(&second, &waiting), async {
            tokio::task::yield_now().await;
            door.void(GrantId(2));
            door.void(GrantId(1));
        });
        assert!(refused.is_err());
        assert!(running.reason().is_some());
        drop(place);
    }
}

//! Slots as jobs meet them: a job is admitted, waits if it must, and its place is free again when it is dropped.
//!
//! The decisions are in `slots`; this holds the lock and the waiting. While the worker joins its coordinator, no job is
//! admitted, so that what `hello` says of running jobs stays true. Invariant: every ticket that was given out is finished
//! exactly once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::session::{Places, Reuse};
use super::slots::{Admission, Claim, Slots, Ticket};
use super::stop::Stop;
use crate::ids::{CoreGroupId, GrantId};
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
    /// Whether jobs are admitted.
    open: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    slots: Slots,
    /// Tells waiting jobs that they have a slot.
    starts: BTreeMap<Ticket, oneshot::Sender<()>>,
    leaving: bool,
}

/// A job's place. Dropping it frees the slot.
#[derive(Debug)]
pub struct Place {
    door: Door,
    ticket: Ticket,
    /// Tells when a waiting job has its slot.
    wait: Option<oneshot::Receiver<()>>,
}

impl Door {
    /// Starts with so many free slots on each group of cores.
    pub fn new(slots: Vec<u32>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    slots: Slots::new(slots),
                    starts: BTreeMap::new(),
                    leaving: false,
                }),
                running: watch::Sender::new(0),
                open: watch::Sender::new(true),
            }),
        }
    }

    /// Admits a job and returns when it has a slot.
    pub async fn admit(&self, claim: &Claim, stop: &Stop) -> Result<Place, Refusal> {
        stop.unless_stopped(tokio::time::timeout(WAIT_MAX, self.admitted(claim)))
            .await?
            .unwrap_or_else(|_| {
                Err(Refusal {
                    kind: RefusalKind::Busy,
                    message: "no slot became free in time".to_owned(),
                })
            })
    }

    async fn admitted(&self, claim: &Claim) -> Result<Place, Refusal> {
        let mut open = self.shared.open.subscribe();
        let mut place = loop {
            // The sender lives as long as this door.
            let _ = open.wait_for(|open| *open).await;
            if let Some(place) = self.enter(claim)? {
                break place;
            }
        };
        match place.wait.take() {
            // Its sender is dropped only after it has sent, or with this very place.
            Some(wait) => wait.await.map(|()| place).map_err(|_| Refusal {
                kind: RefusalKind::Fault,
                message: "the slot was lost".to_owned(),
            }),
            None => Ok(place),
        }
    }

    /// Decides on a claim; nothing when the door has just been shut.
    fn enter(&self, claim: &Claim) -> Result<Option<Place>, Refusal> {
        let mut state = self.lock();
        if !*self.shared.open.borrow() {
            return Ok(None);
        }
        let (ticket, wait) = match state.slots.admit(claim, Instant::now())? {
            Admission::Start(ticket) => (ticket, None),
            Admission::Wait(ticket) => {
                let (start, wait) = oneshot::channel();
                state.starts.insert(ticket, start);
                (ticket, Some(wait))
            }
        };
        self.shared.running.send_replace(state.slots.running());
        let door = self.clone();
        Ok(Some(Place { door, ticket, wait }))
    }

    /// Refuses every job from now on.
    pub fn close(&self) {
        let mut state = self.lock();
        state.leaving = true;
        state.slots.close();
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

impl Place {
    /// Returns the cores that the job is on.
    pub fn cores(&self) -> CoreGroupId {
        // A place that was handed out has its slot.
        self.door.lock().slots.cores(self.ticket).unwrap_or_default()
    }
}

impl Places for Door {
    fn hello(&self) -> Vec<GrantId> {
        let state = self.lock();
        self.shared.open.send_replace(false);
        state.slots.grants()
    }

    fn welcome(&self, key: GrantKey) {
        self.lock().slots.new_session(key);
        self.shared.open.send_replace(true);
    }

    fn parted(&self, reuse: Reuse) {
        if reuse == Reuse::Yes {
            self.lock().slots.parted(Instant::now());
        }
        self.shared.open.send_replace(true);
    }

    fn void(&self, grant: GrantId) {
        self.lock().slots.void(grant);
    }

    fn report(&self) -> (Vec<GrantId>, Vec<GrantId>) {
        let mut state = self.lock();
        (state.slots.grants(), state.slots.take_voided())
    }

    fn leaving(&self) -> bool {
        self.lock().leaving
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.starts.remove(&self.ticket);
        let next = state.slots.finished(self.ticket);
        if let Some(start) = next.and_then(|next| state.starts.remove(&next)) {
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
            cores: CoreGroupId::default(),
            job: toolchain.into(),
            holder: Arc::from(""),
            token: KEY.token(grant, agent, toolchain).to_vec(),
        }
    }

    fn door() -> Door {
        let door = Door::new(vec![1]);
        door.welcome(KEY);
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
        assert_eq!(door.report().0, [GrantId(2)]);
        drop(second);
        door.idle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_starts_while_the_worker_joins() {
        let door = door();
        let stop = Stop::default();
        assert_eq!(door.hello(), []);
        let first = claim(1);
        let (place, ()) = tokio::join!(door.admit(&first, &stop), async {
            tokio::task::yield_now().await;
            assert_eq!(door.report().0, []);
            door.parted(Reuse::Yes);
        });
        assert!(place.is_ok(), "the last session's grants stay good");
        door.hello();
        let refused = door.admit(&claim(2), &stop).await.expect_err("never opened");
        assert_eq!(refused.kind, RefusalKind::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_coordinator_a_place_serves_the_next_job_unless_its_node_is_drained() {
        for (reuse, refused) in [(Reuse::Yes, false), (Reuse::No, true)] {
            let door = door();
            let stop = Stop::default();
            drop(door.admit(&claim(1), &stop).await.expect("free"));
            door.parted(reuse);
            assert_eq!(door.admit(&claim(1), &stop).await.is_err(), refused);
            assert!(door.admit(&claim(2), &stop).await.is_ok(), "given before");
        }
    }

    #[tokio::test]
    async fn stopped_job_does_not_wait_any_longer() {
        let door = door();
        let stop = Stop::default();
        let _place = door.admit(&claim(1), &stop).await.expect("free");
        let second = claim(2);
        let (refused, ()) = tokio::join!(door.admit(&second, &stop), async {
            tokio::task::yield_now().await;
            stop.stop(RefusalKind::Unsupported, "changed");
        });
        assert_eq!(refused.expect_err("stopped").kind, RefusalKind::Unsupported);
        assert_eq!(door.report().0, [GrantId(1)]);
    }
}

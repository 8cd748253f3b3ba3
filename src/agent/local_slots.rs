//! Room for commands that run on this machine, so that links and local compiles do not trample on each other.
//!
//! Who may start is decided in [`LocalRoom`]; this wakes those who wait, looks at the machine's memory when something
//! happens, and once a second while somebody waits. A place is held until the command's connection ends. The memory that
//! a command was seen to take is remembered for its next run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::local_room::{CommandNumber, LocalRoom};
use super::machine;

/// How often memory is looked at while somebody waits for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Commands whose memory is remembered; beyond, all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// The places of this machine; clones are the same places.
#[derive(Debug, Clone)]
pub struct LocalSlots {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    room: LocalRoom,
    next: CommandNumber,
    waiting: HashMap<CommandNumber, oneshot::Sender<()>>,
    running: HashMap<CommandNumber, Command>,
    /// Peak memory by what the command writes, bytes.
    peaks: HashMap<u64, u64>,
}

/// A command that wants to run here.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// The process that will become it, or run it.
    pub pid: u32,
    /// What it is known by from one build to the next.
    pub key: u64,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct LocalPlace {
    shared: Arc<Mutex<Shared>>,
    number: CommandNumber,
}

impl LocalSlots {
    /// Makes room for `count` commands.
    pub fn new(count: u32) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                room: LocalRoom::new(count),
                next: 1,
                waiting: HashMap::new(),
                running: HashMap::new(),
                peaks: HashMap::new(),
            })),
        }
    }

    /// Waits for a place. `guess` says how much memory the command may take, where that was not seen before, bytes.
    pub async fn take(&self, command: Command, guess: impl FnOnce() -> u64) -> LocalPlace {
        let (start, mut started) = oneshot::channel();
        let known = lock(&self.shared).peaks.get(&command.key).copied();
        let peak = known.unwrap_or_else(guess);
        let place = {
            let mut shared = lock(&self.shared);
            let number = shared.next;
            shared.next += 1;
            shared.room.handle_asked(number, peak, Instant::now());
            shared.waiting.insert(number, start);
            shared.running.insert(number, command);
            LocalPlace {
                shared: Arc::clone(&self.shared),
                number,
            }
        };
        loop {
            let due = lock(&self.shared).pump();
            let look = Instant::now() + LOOK_EVERY;
            tokio::select! {
                _ = &mut started => return place,
                () = tokio::time::sleep_until(due.map_or(look, |due| due.min(look)).into()) => {}
            }
        }
    }
}

impl Shared {
    /// Lets in who may start, and returns when to look again.
    fn pump(&mut self) -> Option<Instant> {
        if self.running.len() > 1 {
            self.look();
        }
        let now = Instant::now();
        while let Some(number) = self.room.poll_start(now) {
            if let Some(start) = self.waiting.remove(&number) {
                // Whoever has gone away says so by the drop of its place.
                let _ = start.send(());
            }
        }
        self.room.next_deadline()
    }

    fn look(&mut self) {
        if let Some(memory) = machine::memory() {
            self.room.handle_memory(memory);
        }
        for (number, command) in &self.running {
            if self.waiting.contains_key(number) {
                continue;
            }
            let seen = machine::memory_of_tree(command.pid);
            self.room.handle_seen(*number, seen);
            if self.peaks.len() >= REMEMBERED_MAX {
                self.peaks.clear();
            }
            let peak = self.peaks.entry(command.key).or_default();
            *peak = seen.max(*peak);
        }
    }
}

impl Drop for LocalPlace {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.waiting.remove(&self.number);
        shared.running.remove(&self.number);
        shared.room.handle_ended(self.number, Instant::now());
        if shared.room.is_waited_for() {
            shared.pump();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Tables of whole entries only.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command {
            pid: std::process::id(),
            key: 1,
        }
    }

    #[tokio::test]
    async fn places_run_out_and_come_back() {
        let slots = LocalSlots::new(1);
        let first = slots.take(command(), || 0).await;
        let second = slots.clone();
        let mut second = Box::pin(async move { second.take(command(), || 0).await });
        let waits = tokio::select! {
            biased;
            _ = &mut second => false,
            () = std::future::ready(()) => true,
        };
        assert!(waits);
        drop(first);
        drop(second.await);
        // What the first was seen to take is known.
        assert!(lock(&slots.shared).peaks[&1] > 1 << 20);
    }

    #[tokio::test]
    async fn whoever_goes_away_while_waiting_leaves_nothing_behind() {
        let slots = LocalSlots::new(1);
        let first = slots.take(command(), || 0).await;
        let mut second = Box::pin(slots.take(command(), || 0));
        tokio::select! {
            biased;
            _ = &mut second => panic!("no place was free"),
            () = std::future::ready(()) => {}
        }
        drop(second);
        drop(first);
        let shared = lock(&slots.shared);
        assert!(shared.waiting.is_empty() && shared.running.is_empty() && !shared.room.is_waited_for());
    }
}

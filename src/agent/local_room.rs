//! Who of the commands that run on this machine may start: as many as there are slots, and as fit into memory.
//!
//! Pure. Links are what this is for: a hundred of them, started by one `make -j100`, take more memory than a machine has.
//! A command is let in, in the order of asking, while a slot is free and its predicted peak fits into the memory that is
//! available, less what those that run are still to take. One always runs. Commands may wait for one another (a script
//! that calls the compiler and is itself run by one): when nothing has started or ended for [`PATIENCE`], the one that has
//! waited longest starts regardless, so nobody waits for ever and a hundred do not start at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Longer than most links, short enough that commands that wait for one another are a delay and not a hang.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The part of all memory that is left alone, as a divisor.
const SPARED: u64 = 16;

/// The room's number for a command.
pub type CommandNumber = u64;

/// Memory of this machine, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What can be had without swapping.
    pub available: u64,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    /// Predicted peak, bytes.
    peak: u64,
    /// Seen so far, bytes.
    seen: u64,
}

/// The state machine.
#[derive(Debug)]
pub struct LocalRoom {
    slots: usize,
    memory: Option<Memory>,
    running: BTreeMap<CommandNumber, Running>,
    waiting: VecDeque<(CommandNumber, u64)>,
    /// When something has started or ended.
    moved: Option<Instant>,
}

impl LocalRoom {
    /// Makes room for `slots` commands, at least one.
    pub fn new(slots: u32) -> Self {
        Self {
            slots: slots.max(1) as usize,
            memory: None,
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            moved: None,
        }
    }

    /// Lets a command ask for room; `peak` is its predicted memory in bytes.
    pub fn handle_asked(&mut self, command: CommandNumber, peak: u64, now: Instant) {
        if self.waiting.is_empty() {
            self.moved = Some(now);
        }
        self.waiting.push_back((command, peak));
    }

    /// Takes note that a command has ended, or does not wait any more.
    pub fn handle_ended(&mut self, command: CommandNumber, now: Instant) {
        self.waiting.retain(|(waiting, _)| *waiting != command);
        if self.running.remove(&command).is_some() {
            self.moved = Some(now);
        }
    }

    /// Takes in how much memory there is.
    pub fn handle_memory(&mut self, memory: Memory) {
        self.memory = Some(memory);
    }

    /// Takes in how much memory a running command has.
    pub fn handle_seen(&mut self, command: CommandNumber, bytes: u64) {
        if let Some(running) = self.running.get_mut(&command) {
            running.seen = running.seen.max(bytes);
        }
    }

    /// Returns the next command that may start, which counts as running from now on.
    pub fn poll_start(&mut self, now: Instant) -> Option<CommandNumber> {
        let (command, peak) = *self.waiting.front()?;
        let stuck = self.moved.is_none_or(|moved| now >= moved + PATIENCE);
        if !stuck && !self.fits(peak) {
            return None;
        }
        self.waiting.pop_front();
        self.running.insert(command, Running { peak, seen: 0 });
        self.moved = Some(now);
        Some(command)
    }

    /// Returns when to ask [`LocalRoom::poll_start`] again even if nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.waiting.is_empty() {
            true => None,
            false => self.moved.map(|moved| moved + PATIENCE),
        }
    }

    /// Tells whether somebody waits.
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn fits(&self, peak: u64) -> bool {
        if self.running.is_empty() {
            return true;
        }
        if self.running.len() >= self.slots {
            return false;
        }
        let Some(memory) = self.memory else { return true };
        let to_come: u64 = self
            .running
            .values()
            .map(|running| running.peak.saturating_sub(running.seen))
            .sum();
        to_come.saturating_add(peak) <= memory.available.saturating_sub(memory.total / SPARED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn started(room: &mut LocalRoom, now: Instant) -> Vec<CommandNumber> {
        std::iter::from_fn(|| room.poll_start(now)).collect()
    }

    fn memory(available_mb: u64) -> Memory {
        Memory {
            total: 1600 * MB,
            available: available_mb * MB,
        }
    }

    #[test]
    fn as_many_start_as_there_are_slots_and_as_fit() {
        // (slots, available MB, peaks in MB) -> how many start at once
        let rows: [(u32, u64, &[u64], usize); 6] = [
            (2, 1000, &[10, 10, 10], 2),
            (4, 1000, &[400, 400, 400], 2),
            (4, 1000, &[900, 1, 1], 1),
            (4, 90, &[900, 900], 1),
            (4, 1000, &[5000, 1], 1),
            (0, 1000, &[1, 1], 1),
        ];
        for (slots, available, peaks, count) in rows {
            let (mut room, now) = (LocalRoom::new(slots), Instant::now());
            room.handle_memory(memory(available));
            for (number, peak) in peaks.iter().enumerate() {
                room.handle_asked(number as u64, peak * MB, now);
            }
            assert_eq!(started(&mut room, now).len(), count, "{slots} {available} {peaks:?}");
        }
    }

    #[test]
    fn memory_that_a_command_has_already_is_not_counted_twice() {
        let (mut room, now) = (LocalRoom::new(4), Instant::now());
        room.handle_memory(memory(1000));
        room.handle_asked(1, 600 * MB, now);
        room.handle_asked(2, 300 * MB, now);
        room.handle_asked(3, 100 * MB, now);
        assert_eq!(started(&mut room, now), [1, 2]);
        room.handle_memory(memory(500));
        assert!(started(&mut room, now).is_empty());
        room.handle_seen(1, 500 * MB);
        room.handle_seen(2, 250 * MB);
        assert_eq!(started(&mut room, now), [3]);
    }

    #[test]
    fn room_that_comes_back_is_given_in_the_order_of_asking() {
        let (mut room, now) = (LocalRoom::new(1), Instant::now());
        for number in 1..=3 {
            room.handle_asked(number, MB, now);
        }
        assert_eq!(started(&mut room, now), [1]);
        room.handle_ended(2, now);
        room.handle_ended(1, now);
        assert_eq!(started(&mut room, now), [3]);
        room.handle_ended(3, now);
        assert_eq!(room.next_deadline(), None);
    }

    #[test]
    fn commands_that_wait_for_one_another_go_on_one_by_one() {
        let (mut room, mut now) = (LocalRoom::new(1), Instant::now());
        for number in 1..=100 {
            room.handle_asked(number, 500 * MB, now);
        }
        assert_eq!(started(&mut room, now), [1]);
        for number in 2..=100 {
            let due = room.next_deadline().expect("somebody waits");
            assert_eq!(due, now + PATIENCE);
            assert!(started(&mut room, due - Duration::from_millis(1)).is_empty());
            now = due;
            assert_eq!(started(&mut room, now), [number]);
        }
        assert!(!room.is_waited_for());
    }
}

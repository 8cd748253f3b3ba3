//! How much of this machine is left for compiles that a worker could run as well.
//!
//! The submitting machine is a node too, minus what make, wrappers, preprocessing, links and whatever else runs here
//! need right now. Pure: readings of the kernel's counters in, a number of cores out. Compiles that run here by choice
//! run at [`NICENESS`], so that a wrong guess costs them and never the build's own work.
//!
//! Invariant: compiles that run here by choice do not count as a need of this machine, whatever else is niced.

use std::time::{Duration, Instant};

/// What compiles that run here by choice are made nicer by: against a process that is not niced they get a thirtieth.
pub const NICENESS: u8 = 15;
/// How long a reading has to be old for the next to say anything: the kernel counts in steps of 10 ms or less.
pub const READING_LEAST: Duration = Duration::from_millis(200);
/// How quickly what was read before loses its weight: by two thirds within this time, seconds.
const MEMORY_S: f64 = 0.3;
/// Memory that stays free, bytes: what make, the agent and a link's beginning need.
const MEMORY_SPARED: u64 = 128 << 20;
/// What a compile is taken to need when nothing is known, bytes: the larger units of a kernel need 100 MB.
const MEMORY_USUAL: u64 = 128 << 20;

/// What the kernel has counted since it booted, all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Time spent on processes that are not niced, in the kernel and on interrupts.
    pub busy: Duration,
    /// Time spent on niced processes.
    pub niced: Duration,
    /// Memory that can be had without swapping, bytes; `None` when the kernel does not tell.
    pub memory_available: Option<u64>,
}

/// What this machine has left.
#[derive(Debug, Clone)]
pub struct LocalShare {
    cores: f64,
    last: Option<(Reading, Instant)>,
    needs: f64,
    /// Compiles that run here by choice, and the core-seconds that they may have used since the last reading.
    helping: u32,
    helped: f64,
    helping_since: Option<Instant>,
}

impl LocalShare {
    /// Starts with all of `cores` free: nothing was read yet.
    pub fn new(cores: u32) -> Self {
        Self {
            cores: f64::from(cores),
            last: None,
            needs: 0.0,
            helping: 0,
            helped: 0.0,
            helping_since: None,
        }
    }

    /// Tells whether a reading would be worth its price.
    pub fn wants_reading(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|(_, at)| now.saturating_duration_since(at) >= READING_LEAST)
    }

    /// Takes in a reading.
    pub fn handle_reading(&mut self, reading: Reading, now: Instant) {
        self.add_helped(now);
        if let Some((before, at)) = self.last {
            let passed = now.saturating_duration_since(at).as_secs_f64();
            if passed <= 0.0 {
                return;
            }
            let busy = reading.busy.saturating_sub(before.busy).as_secs_f64();
            let niced = reading.niced.saturating_sub(before.niced).as_secs_f64();
            let needs = (busy + (niced - self.helped).max(0.0)) / passed;
            let weight = 1.0 - (-passed / MEMORY_S).exp();
            self.needs += weight * (needs.min(self.cores) - self.needs);
        }
        self.helped = 0.0;
        self.last = Some((reading, now));
    }

    /// Counts a compile that begins here by choice.
    pub fn handle_began(&mut self, now: Instant) {
        self.add_helped(now);
        self.helping += 1;
    }

    /// Counts the end of one.
    pub fn handle_ended(&mut self, now: Instant) {
        self.add_helped(now);
        self.helping = self.helping.saturating_sub(1);
    }

    fn add_helped(&mut self, now: Instant) {
        if let Some(since) = self.helping_since {
            let passed = now.saturating_duration_since(since).as_secs_f64();
            self.helped += passed * f64::from(self.helping).min(self.cores);
        }
        self.helping_since = Some(now);
    }

    /// Returns which part of a core one more compile would get here, at most 1; `None` when it would get too little,
    /// or when memory is short for `memory_bytes` (0: unknown).
    pub fn for_one_more(&self, memory_bytes: u64) -> Option<f64> {
        let free = self.cores - self.needs - f64::from(self.helping);
        let memory = match memory_bytes {
            0 => MEMORY_USUAL,
            known => known,
        };
        let room = match self.last.and_then(|(reading, _)| reading.memory_available) {
            Some(available) => available >= memory.saturating_add(MEMORY_SPARED),
            None => true,
        };
        (room && free >= 0.5).then_some(free.min(1.0))
    }

    /// Tells whether a compile that runs here has a core to itself, so that its time says something.
    pub fn is_undisturbed(&self) -> bool {
        self.needs + f64::from(self.helping) <= self.cores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        share: LocalShare,
        now: Instant,
        reading: Reading,
    }

    impl World {
        fn new(cores: u32) -> Self {
            let mut world = Self {
                share: LocalShare::new(cores),
                now: Instant::now(),
                reading: Reading::default(),
            };
            world.pass(0.0, 0.0);
            world
        }

        /// Lets a second pass in which so many cores were busy.
        fn pass(&mut self, busy: f64, niced: f64) {
            self.now += Duration::from_secs(1);
            self.reading.busy += Duration::from_secs_f64(busy);
            self.reading.niced += Duration::from_secs_f64(niced);
            self.share.handle_reading(self.reading, self.now);
        }
    }

    #[test]
    fn what_the_build_needs_is_not_there_for_compiles() {
        // (cores, busy, compiles here) -> part of a core for one more
        let rows = [
            (2, 0.0, 0, Some(1.0)),
            (2, 0.0, 2, None),
            (2, 1.2, 0, Some(0.8)),
            (2, 1.2, 1, None),
            (2, 1.8, 0, None),
            (8, 1.8, 5, Some(1.0)),
            (1, 0.3, 0, Some(0.7)),
        ];
        for (cores, busy, here, expected) in rows {
            let mut world = World::new(cores);
            for _ in 0..12 {
                world.pass(busy, 0.0);
            }
            for _ in 0..here {
                world.share.handle_began(world.now);
            }
            let found = world.share.for_one_more(1);
            let close = |(found, expected): (f64, f64)| (found - expected).abs() < 0.01;
            assert!(
                found.is_some() == expected.is_some() && found.zip(expected).is_none_or(close),
                "{cores} {busy} {here}: {found:?}"
            );
        }
    }

    #[test]
    fn compiles_by_choice_are_no_need_and_other_niced_work_is() {
        let mut world = World::new(4);
        world.share.handle_began(world.now);
        for _ in 0..12 {
            world.pass(0.5, 1.0);
        }
        world.share.handle_ended(world.now);
        assert!((world.share.needs - 0.5).abs() < 0.01, "{}", world.share.needs);
        for _ in 0..12 {
            world.pass(0.5, 2.0);
        }
        assert!((world.share.needs - 2.5).abs() < 0.01, "{}", world.share.needs);
    }

    #[test]
    fn a_burst_does_not_outlive_a_pause() {
        let mut world = World::new(2);
        for _ in 0..12 {
            world.pass(2.0, 0.0);
        }
        world.now += Duration::from_secs(60);
        world.pass(0.0, 0.0);
        assert!(world.share.needs < 0.01 && world.share.for_one_more(1) == Some(1.0));
    }

    #[test]
    fn short_memory_means_no_help() {
        let mut world = World::new(4);
        world.reading.memory_available = Some(300 << 20);
        world.pass(0.0, 0.0);
        assert!(world.share.for_one_more(100 << 20).is_some());
        assert!(world.share.for_one_more(200 << 20).is_none());
        assert!(world.share.for_one_more(0).is_some());
    }

    #[test]
    fn readings_are_not_asked_for_too_often() {
        let world = World::new(1);
        assert!(!world.share.wants_reading(world.now + READING_LEAST / 2));
        assert!(world.share.wants_reading(world.now + READING_LEAST));
    }
}

//! Places that are held ahead of need: how many, for whom, and until when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Action, AheadNumber, Job, JobNumber, PAUSE, Placing, Reach, SPARES_MAX, Spare, State};
use crate::ids::{GrantId, ToolchainId};
use crate::job::Variants;

/// Without a job that long, and none under way, a build has paused or ended.
pub(super) const PAUSE_IDLE: Duration = Duration::from_millis(300);
/// How far back the number of jobs under way is looked at.
const PEAK_AGE: Duration = Duration::from_secs(2);
/// A held place is given up this long before it becomes void by itself.
const VALID_MARGIN: Duration = Duration::from_secs(2);

/// What is held for one toolchain.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) spares: BTreeMap<GrantId, (Spare, Instant)>,
    pub(super) asked: Vec<AheadNumber>,
    /// The most jobs under way lately, and when that was.
    pub(super) peak: (usize, Instant),
    /// When a job asked or ended.
    pub(super) last_seen: Instant,
    /// Whether the job that asked last would run on a variant.
    pub(super) variants: Variants,
    /// Not asked for ahead of need before that: there was none.
    pub(super) refused_until: Option<Instant>,
}

impl Pool {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            spares: BTreeMap::new(),
            asked: Vec::new(),
            peak: (0, now),
            last_seen: now,
            variants: Variants::Never,
            refused_until: None,
        }
    }

    /// Forgets a place that was asked for; tells whether it was.
    pub(super) fn forget_asked(&mut self, number: AheadNumber) -> bool {
        let found = self.asked.iter().position(|known| *known == number);
        found.map(|at| self.asked.swap_remove(at)).is_some()
    }
}

impl Placing {
    /// Holds a place that has just come free, for the next job. Without a coordinator it does not become void.
    pub(super) fn keep(&mut self, toolchain: ToolchainId, grant: GrantId, spare: Spare, now: Instant) {
        let pool = self.pools.entry(toolchain).or_insert_with(|| Pool::new(now));
        pool.spares.insert(grant, (spare, now));
    }

    pub(super) fn spare(&mut self, ahead: AheadNumber, grant: GrantId, spare: Spare, now: Instant) {
        for pool in self.pools.values_mut() {
            if pool.forget_asked(ahead) {
                let until = now + spare.valid.saturating_sub(VALID_MARGIN);
                pool.spares.insert(grant, (spare, until));
                return;
            }
        }
        self.actions.push(Action::Return(grant));
    }

    /// Gives held places to jobs that wait, the longest first.
    pub(super) fn use_spares(&mut self) {
        if self.pools.values().all(|pool| pool.spares.is_empty()) {
            return;
        }
        for number in self.waiting_longest_first() {
            let job = &self.jobs[&number];
            if let Some((grant, power)) = self.best_spare(job)
                && !self.is_worth_a_wait(job, power)
            {
                self.take_back(number);
                self.use_spare(number, grant);
            }
        }
    }

    /// Asks for as many spare places as the build may need next, and gives back what it does not need any more.
    pub(super) fn keep_spares(&mut self, now: Instant) {
        if self.outage.is_some() {
            return;
        }
        let toolchains: Vec<ToolchainId> = self.pools.keys().copied().collect();
        for toolchain in toolchains {
            let (under_way, queues) = self.count(toolchain, now);
            let pause = self.pause(toolchain);
            let free = self.view.map_or(0, |view| {
                let share = usize::try_from(view.my_share_slots).unwrap_or(usize::MAX);
                let free = view.slots_total.saturating_sub(view.slots_busy) as usize;
                free.min(share.saturating_sub(under_way))
            });
            let pool = self.pools.get_mut(&toolchain).expect("a key");
            if under_way >= pool.peak.0 || now >= pool.peak.1 + PEAK_AGE {
                pool.peak = (under_way, now);
            }
            let paused = now >= pool.last_seen + pause;
            let spent = |until: Instant| paused || now >= until;
            let back: Vec<GrantId> = pool
                .spares
                .iter()
                .filter(|(_, (_, until))| spent(*until))
                .map(|(grant, _)| *grant)
                .collect();
            for grant in back {
                pool.spares.remove(&grant);
                self.actions.push(Action::Return(grant));
            }
            if paused {
                self.actions.extend(pool.asked.drain(..).map(Action::TakeBackAhead));
            }
            if pool.refused_until.is_some_and(|until| now >= until) {
                pool.refused_until = None;
            }
            if paused || queues || pool.refused_until.is_some() {
                if paused && under_way == 0 {
                    self.pools.remove(&toolchain);
                }
                continue;
            }
            let have = pool.spares.len() + pool.asked.len();
            let wanted = (pool.peak.0 - under_way + 1).min(SPARES_MAX).min(free);
            for _ in have..wanted {
                pool.asked.push(self.next_ahead);
                let action = Action::WantAhead(self.next_ahead, toolchain, pool.variants);
                self.actions.push(action);
                self.next_ahead += 1;
            }
        }
    }

    /// Returns how many jobs of a toolchain are under way, and whether some of them wait for a slot.
    fn count(&self, toolchain: ToolchainId, now: Instant) -> (usize, bool) {
        let of_it = || self.jobs.values().filter(|job| job.ask.toolchain == toolchain);
        let queues = of_it().any(|job| job.waits_for_a_slot(now));
        (of_it().count(), queues)
    }

    pub(super) fn pause(&self, toolchain: ToolchainId) -> Duration {
        let busy = self.jobs.values().any(|job| job.ask.toolchain == toolchain);
        if busy { PAUSE } else { PAUSE_IDLE }
    }

    fn waiting_longest_first(&self) -> Vec<JobNumber> {
        let mut waiting: Vec<(f64, JobNumber)> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.state.waits_since().is_some())
            .map(|(number, job)| (job.work_s(), *number))
            .collect();
        waiting.sort_by(|one, other| other.0.total_cmp(&one.0));
        waiting.into_iter().map(|(_, number)| number).collect()
    }

    /// Returns the fastest held place that the job may use.
    pub(super) fn best_spare(&self, job: &Job) -> Option<(GrantId, f64)> {
        if job.ask.reach == Reach::Chosen {
            return None;
        }
        let pool = self.pools.get(&job.ask.toolchain)?;
        let usable = pool.spares.iter().filter(|(_, (spare, _))| job.may_use(spare));
        usable
            .map(|(grant, (spare, _))| (*grant, spare.power))
            .max_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// Gives a held place to a job of its toolchain.
    pub(super) fn use_spare(&mut self, number: JobNumber, grant: GrantId) {
        let pool = self.pools.get_mut(&self.jobs[&number].ask.toolchain);
        if let Some((spare, _)) = pool.and_then(|pool| pool.spares.remove(&grant)) {
            self.set(number, State::There(spare));
            self.actions.push(Action::Use(number, grant));
        }
    }
}

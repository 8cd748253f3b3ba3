//! How fast a worker's slots are for one toolchain, learned from how long jobs of known work took there.
//!
//! Speed is work per second of wall time, so that a node that is throttled, swapping or busy with something else shows
//! as slow, whatever its CPU time says. Everything is in logarithms, where a node that is twice as fast and one that is
//! half as fast err alike. Each observation `ln(work / wall)` is the sum of four things that are learned together, each
//! in proportion to its own uncertainty (a Kalman filter with the off-diagonal terms left out): a bias common to all
//! workers (the agents' unit of work), the worker's level, what running fewer jobs than slots brings it, and how far the
//! job's cores are from the worker's mean, where a worker has cores of different speed. Only
//! ratios between workers can be learned, so levels are told as if their mean over all slots were that of the
//! configured powers. Invariant: whatever is fed in, all numbers stay finite and within bounds.

use std::time::Duration;

use super::cores::Cores;
use super::kept_speeds::{Usual, from_kept, to_kept};
use super::moment::Moment;
use crate::ids::CoreGroupId;

/// Uncertainty of a configured power, as variance of its logarithm: wrong by a factor of 1.7 is nothing unusual.
const CONFIGURED_VARIANCE: f64 = 0.3;
/// Uncertainty of what an earlier life of the coordinator learned, likewise: a quarter more or less. The common bias, about
/// which nothing is kept, is far less certain, so that first jobs move that and not the levels.
const KEPT_VARIANCE: f64 = 0.05;
/// Uncertainty of the common bias at the start: agents begin with guesses.
const BIAS_VARIANCE: f64 = 1.0;
/// What the bias may wander with each observation: the project changes.
const BIAS_WANDER: f64 = 0.001;
/// What a level may wander with each observation.
const LEVEL_WANDER: f64 = 0.002;
/// What no prediction explains: caches, neighbours, the disk.
const NOISE_VARIANCE: f64 = 0.02;
/// Spread of a prediction that does not tell it: `ln 2`, as the spread of compiles within one directory is.
const UNKNOWN_SPREAD: f64 = 0.7;
/// Weight of the newest surprise in their running mean.
const DRIFT_WEIGHT: f64 = 0.5;
/// What surprises have in common by chance, as a part of the variance that one has anyhow; the rest is a change.
const CHANCE: f64 = 0.25;
/// No observation moves anything by more than so many standard deviations: one odd job is not a throttled node.
const CLIP: f64 = 3.0;
/// Extra variance of the word of a job that still runs: it says only "slower than that".
const RUNNING_VARIANCE: f64 = 0.1;
/// Without news a level goes back to what is usual for the worker, by half in this time, so that a node that was slow
/// is tried again.
const REST_HALF_LIFE: f64 = 30.0;
/// How sure it is that a worker with fewer jobs than slots is as fast as a full one.
const BAND_VARIANCE: f64 = 0.01;
/// What a nearly idle worker is assumed to be faster by, in logarithm: enough that equal workers are filled evenly.
const IDLE_GAIN: f64 = 0.06;
/// Uncertainty of how much faster some of a worker's cores are than others, which was configured or measured.
const CORES_VARIANCE: f64 = 0.1;
/// Weight of the newest lesson in the mean over lessons of how far levels are from what was configured, and what of that
/// mean is given to the bias at each lesson.
const ANCHOR_WEIGHT: f64 = 1.0 / 64.0;
/// How far a level may get from what was configured, in logarithm: a hundred times. What says more than that is mistaken.
const LEVEL_AWAY: f64 = 4.6;
/// Bounds of everything: a millionth of a reference core to a million of them.
const LOG_BOUND: f64 = 14.0;

/// The longest work that is reckoned with; longer is as good as for ever.
pub(super) const WORK_MOST: Duration = Duration::from_secs(24 * 3600);

/// Jobs that what an earlier life learned counts as: a machine that was replaced under its name is not to fall back to its
/// predecessor's speed whenever it is idle.
const KEPT_JOBS: u32 = 4;

/// Bands of occupancy below "all slots in use".
pub(super) const BANDS: usize = 3;

/// A quantity with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    mean: f64,
    variance: f64,
}

/// Zero, and nothing to learn about it.
const CERTAIN: Estimate = Estimate {
    mean: 0.0,
    variance: 0.0,
};

impl Estimate {
    /// Takes its part of a surprise; `total` is the variance of the sum it belongs to.
    fn correct(&mut self, surprise: f64, total: f64) {
        let gain = self.variance / total;
        self.mean = (self.mean + gain * surprise).clamp(-LOG_BOUND, LOG_BOUND);
        self.variance *= 1.0 - gain;
    }
}

/// What all workers of one toolchain have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    bias: Estimate,
    /// Mean, over the last lessons, of how far their workers' levels are from what was configured.
    away: f64,
    /// Sum over all slots of how far levels are from the configured powers, and the number of slots.
    excess: f64,
    slots: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            bias: Estimate {
                mean: 0.0,
                variance: BIAS_VARIANCE,
            },
            away: 0.0,
            excess: 0.0,
            slots: 0.0,
        }
    }
}

/// What is known of one worker's speed for one toolchain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    configured: f64,
    slots: u32,
    level: Estimate,
    usual: f64,
    drift: f64,
    bands: [Estimate; BANDS],
    /// How much faster than the mean each group of cores was configured, and how wrong that is; certain where there is
    /// one.
    steps: [f64; CoreGroupId::GROUPS_MAX],
    cores: [Estimate; CoreGroupId::GROUPS_MAX],
    heard: Moment,
    jobs: u32,
    /// Work per second of all slots together.
    full_rate: f64,
}

/// What of a worker decides how fast a job is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spot {
    /// Jobs that it runs, this one included.
    pub occupancy: u32,
    /// Where this one is.
    pub cores: CoreGroupId,
}

/// A job that ran, or runs, for the learning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lesson {
    /// Its predicted work.
    pub work: Duration,
    /// Standard deviation of the logarithm of that prediction, thousandths.
    pub spread_milli: Option<u32>,
    /// Its run on the worker so far.
    pub wall: Duration,
    /// Where it ran, beside how many others.
    pub spot: Spot,
}

impl Lesson {
    fn log(&self) -> f64 {
        let micros = |time: Duration| (time.as_micros().max(1) as f64).ln();
        (micros(self.work) - micros(self.wall)).clamp(-LOG_BOUND, LOG_BOUND)
    }

    fn variance(&self) -> f64 {
        spread_of(self.spread_milli).powi(2) + NOISE_VARIANCE
    }
}

/// Returns the standard deviation of the logarithm of a predicted work.
pub(super) fn spread_of(told_milli: Option<u32>) -> f64 {
    told_milli.map_or(UNKNOWN_SPREAD, |milli| f64::from(milli.min(10_000)) / 1000.0)
}

fn log_of(power_milli: u32) -> f64 {
    (f64::from(power_milli.max(1)) / 1000.0).ln()
}

impl Pace {
    /// Returns how long a job takes at a speed, with what is common to all taken into account.
    pub fn wall(&self, work: Duration, log_speed: f64) -> Duration {
        work.min(WORK_MOST).div_f64(self.rate(log_speed))
    }

    /// Returns the work per second at a speed, with what is common to all taken into account.
    pub fn rate(&self, log_speed: f64) -> f64 {
        (log_speed + self.bias.mean).clamp(-LOG_BOUND, LOG_BOUND).exp()
    }

    /// The same for a sum of speeds.
    pub fn rate_of(&self, speeds: f64) -> f64 {
        speeds * self.bias.mean.exp()
    }

    fn mean_excess(&self) -> f64 {
        if self.slots > 0.0 {
            self.excess / self.slots
        } else {
            0.0
        }
    }

    /// Returns a speed in thousandths of a reference core, so that the mean over all slots is what was configured.
    pub fn told_milli(&self, log_speed: f64) -> u32 {
        let milli = (log_speed - self.mean_excess()).clamp(-LOG_BOUND, LOG_BOUND).exp() * 1000.0;
        (milli.round() as u32).max(1)
    }

    /// Returns the slots that are counted in.
    pub fn slots(&self) -> f64 {
        self.slots
    }

    /// Counts a worker in.
    pub fn add(&mut self, speed: &Speed) {
        self.slots += f64::from(speed.slots);
        self.excess += f64::from(speed.slots) * (speed.level.mean - speed.configured);
    }

    /// Counts a worker out that will not be remembered.
    pub fn remove(&mut self, speed: &Speed) {
        self.slots = (self.slots - f64::from(speed.slots)).max(0.0);
        self.excess -= f64::from(speed.slots) * (speed.level.mean - speed.configured);
    }
}

impl Speed {
    /// Starts from what was configured, corrected by what the worker showed with another toolchain.
    pub fn new(power_milli: u32, slots: u32, other: Option<&Speed>, now: Moment) -> Self {
        let configured = log_of(power_milli);
        let shown = other.map_or(0.0, |other| other.usual - other.configured);
        let band = |number: usize| Estimate {
            mean: IDLE_GAIN * (BANDS - number) as f64 / BANDS as f64,
            variance: BAND_VARIANCE,
        };
        let mut speed = Self {
            configured,
            slots,
            level: Estimate {
                mean: configured + shown,
                variance: CONFIGURED_VARIANCE,
            },
            usual: configured + shown,
            drift: 0.0,
            bands: std::array::from_fn(band),
            steps: [0.0; CoreGroupId::GROUPS_MAX],
            cores: [CERTAIN; CoreGroupId::GROUPS_MAX],
            heard: now,
            jobs: 0,
            full_rate: 0.0,
        };
        speed.note_level();
        speed
    }

    /// Takes up what an earlier life of the coordinator learned.
    pub fn recalled(usual: Usual, now: Moment) -> Self {
        let mut speed = Self::new(usual.power_milli, usual.slots, None, now);
        speed.usual = from_kept(usual.level).clamp(-LOG_BOUND, LOG_BOUND);
        speed.level = Estimate {
            mean: speed.usual,
            variance: KEPT_VARIANCE,
        };
        for (band, kept) in speed.bands.iter_mut().zip(usual.bands) {
            band.mean = from_kept(kept).clamp(-LOG_BOUND, LOG_BOUND);
        }
        speed.jobs = usual.jobs.min(KEPT_JOBS);
        speed.note_level();
        speed
    }

    /// The same on a worker with these cores. What was learned of others stands as a first guess.
    pub fn on(mut self, cores: &Cores) -> Self {
        if !cores.are_alike() {
            let of_groups = self.steps.iter_mut().zip(&mut self.cores);
            for ((step, learned), told) in of_groups.zip(cores.steps()) {
                *step = told.clamp(-LOG_BOUND, LOG_BOUND);
                learned.variance = CORES_VARIANCE;
            }
        }
        self
    }

    /// Returns what is to be kept of it; `None` when nothing has been learned.
    pub fn usual(&self) -> Option<Usual> {
        (self.jobs > 0).then(|| Usual {
            power_milli: (self.configured.exp() * 1000.0).round() as u32,
            slots: self.slots,
            jobs: self.jobs,
            level: to_kept(self.usual),
            bands: self.bands.map(|band| to_kept(band.mean)),
        })
    }

    /// Whether it is about a worker that is set up like this.
    pub fn is_of(&self, power_milli: u32, slots: u32) -> bool {
        self.slots == slots && (self.configured - log_of(power_milli)).abs() < 0.01
    }

    /// Returns the band of an occupancy; none for a full worker.
    fn band(&self, occupancy: u32) -> Option<usize> {
        let slots = self.slots.max(1) as usize;
        let taken = (occupancy.max(1) as usize).min(slots);
        (taken < slots).then(|| (taken - 1) * BANDS / slots)
    }

    /// Returns the logarithm of the speed of a job there. Comparable between workers of one toolchain only.
    pub fn log(&self, spot: Spot) -> f64 {
        let few = self.band(spot.occupancy).map_or(0.0, |band| self.bands[band].mean);
        let cores = usize::from(spot.cores.0);
        let step = self.steps.get(cores).zip(self.cores.get(cores));
        self.level.mean + few + step.map_or(0.0, |(told, learned)| told + learned.mean)
    }

    /// Returns the logarithm of the mean speed of its slots when all are in use.
    pub fn log_when_full(&self) -> f64 {
        self.level.mean
    }

    /// Returns the work per second of all slots together.
    pub fn full_rate(&self) -> f64 {
        self.full_rate
    }

    fn note_level(&mut self) {
        self.full_rate = self.level.mean.clamp(-LOG_BOUND, LOG_BOUND).exp() * f64::from(self.slots);
    }

    /// Returns when something was heard of it last.
    pub fn heard(&self) -> Moment {
        self.heard
    }

    /// Returns how many jobs it was learned from.
    pub fn jobs(&self) -> u32 {
        self.jobs
    }

    /// Learns from a job that has ended.
    pub fn learn(&mut self, pace: &mut Pace, lesson: &Lesson, now: Moment) {
        let band = self.band(lesson.spot.occupancy);
        let cores = usize::from(lesson.spot.cores.0);
        let surprise = lesson.log() - pace.bias.mean - self.log(lesson.spot);
        self.wander();
        pace.bias.variance = (pace.bias.variance + BIAS_WANDER).min(BIAS_VARIANCE);
        let few = band.map_or(0.0, |band| self.bands[band].variance);
        let step = self.cores.get(cores).map_or(0.0, |learned| learned.variance);
        let others = few + step + pace.bias.variance + lesson.variance();
        let most = CLIP * (self.level.variance + others).sqrt();
        let surprise = surprise.clamp(-most, most);
        // How far this surprise and those before go the same way. One alone, however large, is no change of level: most
        // are a bad prediction.
        let agreed = match surprise * self.drift > 0.0 {
            true => surprise.abs().min(self.drift.abs()),
            false => 0.0,
        };
        let change = agreed * agreed - CHANCE * (self.level.variance + others);
        self.level.variance = self.level.variance.max(change);
        let total = self.level.variance + others;
        // What the level makes up for is no surprise any more.
        let left = 1.0 - self.level.variance / total;
        self.drift = left * (self.drift + DRIFT_WEIGHT * (surprise - self.drift));
        pace.bias.correct(surprise, total);
        if let Some(band) = band {
            self.bands[band].correct(surprise, total);
            self.bands[band].variance = self.bands[band].variance.max(BAND_VARIANCE / 10.0);
        }
        if let Some(learned) = self.cores.get_mut(cores) {
            learned.correct(surprise, total);
            learned.variance = learned.variance.max(step / 10.0).min(CORES_VARIANCE);
        }
        self.move_level(pace, surprise, total);
        self.anchor(pace);
        self.jobs = self.jobs.saturating_add(1);
        self.usual += (self.level.mean - self.usual) / f64::from(self.jobs.min(30));
        self.heard = now;
    }

    /// Learns from a job that still runs and should long have ended.
    pub fn learn_overdue(&mut self, pace: &mut Pace, lesson: &Lesson, now: Moment) {
        let surprise = lesson.log() - pace.bias.mean - self.log(lesson.spot);
        let variance = lesson.variance() + RUNNING_VARIANCE;
        if surprise >= -variance.sqrt() {
            return;
        }
        self.wander();
        let total = self.level.variance + variance;
        let surprise = surprise.max(-CLIP * total.sqrt());
        self.move_level(pace, surprise, total);
        self.heard = now;
    }

    /// Goes back towards what is usual while nothing is heard. Returns whether that changed anything.
    pub fn rest(&mut self, pace: &mut Pace, now: Moment) -> bool {
        let silent = now.since(self.heard).as_secs_f64();
        let away = self.usual - self.level.mean;
        if silent < 1.0 || away.abs() < 1e-3 {
            return false;
        }
        let step = away * (1.0 - 0.5_f64.powf(silent / REST_HALF_LIFE));
        self.set_level(pace, self.level.mean + step);
        self.level.variance = (self.level.variance + step * step).min(CONFIGURED_VARIANCE);
        self.heard = now;
        true
    }

    /// Gives the bias what the levels of those that work have in common.
    ///
    /// A step of their levels up and of the bias down changes no expectation of theirs, so nothing they do would ever take
    /// it back; and workers that have no jobs just then would not go along: they would seem ever slower, and get none because
    /// of that.
    fn anchor(&mut self, pace: &mut Pace) {
        pace.away += ANCHOR_WEIGHT * (self.level.mean - self.configured - pace.away);
        let common = ANCHOR_WEIGHT * pace.away;
        pace.bias.mean = (pace.bias.mean + common).clamp(-LOG_BOUND, LOG_BOUND);
        self.set_level(pace, self.level.mean - common);
    }

    fn wander(&mut self) {
        self.level.variance = (self.level.variance + LEVEL_WANDER).min(1.0);
    }

    fn move_level(&mut self, pace: &mut Pace, surprise: f64, total: f64) {
        let mut level = self.level;
        level.correct(surprise, total);
        self.level.variance = level.variance;
        self.set_level(pace, level.mean);
    }

    fn set_level(&mut self, pace: &mut Pace, mean: f64) {
        let before = self.level.mean;
        self.level.mean = mean.clamp(self.configured - LEVEL_AWAY, self.configured + LEVEL_AWAY);
        self.note_level();
        pace.excess += f64::from(self.slots) * (self.level.mean - before);
    }
}

#[cfg(test)]
mod tests;

//! How much work a compile will be, learned from earlier ones.
//!
//! Work is CPU time on the reference core, so that flags and nodes do not bias it: an observation is CPU time times the
//! power of the node that ran it, or its running time where the CPU time cannot be meant ([`spent_of`]). A prediction comes from the best evidence there is, in this order: the same source with
//! the same class of flags, the same source with other flags, a regression on the size of the closure within its
//! directory's level, the regression alone, nothing. Pure: no clock, no disk; [`Forecast::encode`] is what the agent
//! keeps across builds. Invariant: at most [`ENTRIES_MAX`] remembered keys, whatever is fed in.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::digest::Digest;
use crate::ids::ToolchainId;
use crate::job;

/// Most keys kept. A kernel has some 3,000 units in a configuration; three keys each leaves room for several projects
/// in about 3 MB on disk.
pub const ENTRIES_MAX: usize = 48 * 1024;
/// Weight of the newest observation in a running mean: edits change a file's cost, noise should not.
const NEWEST_WEIGHT: f64 = 0.4;
/// What the regression forgets with each observation, so that it follows the project being built.
const REGRESSION_DECAY: f64 = 0.999;
/// Observations that a regression needs before it is believed.
const REGRESSION_LEAST: f64 = 8.0;
/// Weight of the newest compile in what is known of this machine's power, and what that is kept between.
const POWER_WEIGHT: f64 = 0.2;
const POWER_LEAST: f64 = 0.02;
const POWER_MOST: f64 = 50.0;
/// Standard deviations of ln(work), guessed: nothing is more certain than a few percent; what was seen once; what was
/// seen with other flags; what the directory and the size say; what the size alone says, which is wrong by a factor of
/// two as often as not.
const SPREAD_LEAST: f32 = 0.05;
const SPREAD_SAME: f32 = 0.25;
const SPREAD_SOURCE: f32 = 0.4;
const SPREAD_DIRECTORY: f32 = 0.6;
const SPREAD_SIZE: f32 = 0.8;
/// A CPU time below this part of the running time is not what the job cost: the node replays, or accounts badly.
const CPU_PLAUSIBLE: f64 = 0.25;
/// Work assumed when nothing at all is known: the mean of 1,371 target compiles of a Buildroot, 197 ms.
const UNKNOWN_WORK: Duration = Duration::from_millis(200);

/// What is known of a compile before it runs.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    /// The toolchain.
    pub toolchain: ToolchainId,
    /// Absolute path of the source.
    pub source: &'a Path,
    /// Digest of the flags that decide how long a compile takes (optimisation, debug level, language …).
    pub flags_class: u64,
    /// Sum of the sizes of all files of the closure, bytes.
    pub closure_bytes: u64,
}

/// Returns what counts of a compile that used `cpu` of CPU time and took `wall`.
///
/// CPU time says more where it can be meant: a node that is busy with something else takes longer and does no more.
pub fn spent_of(cpu: Duration, wall: Duration) -> Duration {
    match is_meant(cpu, wall) {
        true => cpu,
        false => wall,
    }
}

/// Tells whether a compile that took `wall` can be meant by `cpu`, the CPU time that its node says.
pub fn is_meant(cpu: Duration, wall: Duration) -> bool {
    cpu.as_secs_f64() >= wall.as_secs_f64() * CPU_PLAUSIBLE
}

/// Returns the work that is done in `spent` on a slot of this power: work per second of its running time.
pub fn work_at(power: f64, spent: Duration) -> Duration {
    // A power is a few thousandths at least; the bound keeps a damaged one harmless.
    spent.mul_f64(power.clamp(0.001, 1000.0))
}

/// What a compile turned out to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// What [`work_at`] says.
    pub work: Duration,
    /// Peak resident memory, bytes.
    pub memory_bytes: u64,
}

/// Where a prediction comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// This source, this class of flags.
    SameJob,
    /// This source with other flags.
    SameSource,
    /// Size of the closure, corrected by what is usual in the directory.
    Directory,
    /// Size of the closure.
    ClosureSize,
    /// A guess.
    Nothing,
}

/// What a compile will probably cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// CPU time on the reference core.
    pub work: Duration,
    /// Peak resident memory, bytes; 0 when nothing is known.
    pub memory_bytes: u64,
    /// The evidence.
    pub basis: Basis,
    /// How uncertain `work` is: standard deviation of ln(work), thousandths; 0 when nothing is known.
    pub spread_milli: u32,
}

impl Prediction {
    /// Returns the work that it will not exceed in 19 of 20 cases, as far as the spread is right.
    pub fn work_at_most(&self) -> Duration {
        self.work.mul_f64(job::at_most(f64::from(self.spread_milli) / 1000.0))
    }

    /// Tells whether it rests on earlier compiles of the same source.
    pub fn is_of_this_source(&self) -> bool {
        self.basis <= Basis::SameSource
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Level {
    /// For jobs and sources: mean of ln(work in µs). For directories: mean of ln(work) minus the regression's value.
    log_work: f64,
    /// Mean square of what predictions were off by, in ln(work).
    variance: f32,
    memory_bytes: u64,
    /// Counts up with every use; the entries with the lowest are dropped first.
    used: u32,
}

/// Weighted least squares of ln(work) on ln(closure bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Regression {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Regression {
    fn add(&mut self, x: f64, y: f64) {
        for sum in [&mut self.weight, &mut self.x, &mut self.y, &mut self.xx, &mut self.xy] {
            *sum *= REGRESSION_DECAY;
        }
        self.weight += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    fn value(&self, x: f64) -> Option<f64> {
        if self.weight < REGRESSION_LEAST {
            return None;
        }
        let (mean_x, mean_y) = (self.x / self.weight, self.y / self.weight);
        let spread = self.xx / self.weight - mean_x * mean_x;
        let together = self.xy / self.weight - mean_x * mean_y;
        // Closures all of one size say nothing about a slope. A slope outside 0..2 is noise: no compiler gets
        // faster with more text, or cubic in it.
        let slope = if spread > 1e-3 {
            (together / spread).clamp(0.0, 2.0)
        } else {
            0.0
        };
        Some(mean_y + slope * (x - mean_x))
    }
}

/// The memory of earlier compiles.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    levels: HashMap<u64, Level>,
    regression: Regression,
    uses: u32,
    /// ln of the power of a core of this machine.
    log_power_here: f64,
}

/// A stored forecast that cannot be read; it is then begun anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored forecast is not of this version, or damaged")]
pub struct Unreadable;

const MAGIC: &[u8; 8] = b"rdccfc2\n";
const HEAD_BYTES: usize = 52;
const ENTRY_BYTES: usize = 32;

struct Keys {
    job: u64,
    source: u64,
    directory: u64,
}

fn key(kind: u8, toolchain: ToolchainId, path: &Path, flags: u64) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let mut text = vec![kind];
    text.extend_from_slice(toolchain.0.as_bytes());
    text.extend_from_slice(&flags.to_le_bytes());
    text.extend_from_slice(path.as_os_str().as_bytes());
    let digest = Digest::of(&text);
    u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
}

impl Features<'_> {
    fn keys(&self) -> Keys {
        let directory = self.source.parent().unwrap_or(Path::new("/"));
        Keys {
            job: key(b'j', self.toolchain, self.source, self.flags_class),
            source: key(b's', self.toolchain, self.source, 0),
            directory: key(b'd', self.toolchain, directory, self.flags_class),
        }
    }

    fn log_size(&self) -> f64 {
        (self.closure_bytes.max(1) as f64).ln()
    }
}

fn milli(spread: f32) -> u32 {
    (spread * 1000.0) as u32
}

fn from_log(log_work: f64) -> Duration {
    // An hour: no single compile known takes longer, and a bound keeps a damaged mean harmless.
    Duration::from_micros(log_work.exp().clamp(1.0, 3.6e9) as u64)
}

impl Forecast {
    /// Predicts a compile.
    pub fn predict(&self, features: Features<'_>) -> Prediction {
        let keys = features.keys();
        let line = self.regression.value(features.log_size());
        let known = |key: u64, basis: Basis, least: f32| {
            self.levels.get(&key).map(|level| Prediction {
                work: from_log(level.log_work),
                memory_bytes: level.memory_bytes,
                basis,
                spread_milli: milli(level.variance.sqrt().max(least)),
            })
        };
        let directory = || {
            let (level, line) = (self.levels.get(&keys.directory)?, line?);
            Some(Prediction {
                work: from_log(line + level.log_work),
                memory_bytes: level.memory_bytes,
                basis: Basis::Directory,
                spread_milli: milli(SPREAD_DIRECTORY),
            })
        };
        let size = || {
            Some(Prediction {
                work: from_log(line?),
                memory_bytes: 0,
                basis: Basis::ClosureSize,
                spread_milli: milli(SPREAD_SIZE),
            })
        };
        known(keys.job, Basis::SameJob, SPREAD_LEAST)
            .or_else(|| known(keys.source, Basis::SameSource, SPREAD_SOURCE))
            .or_else(directory)
            .or_else(size)
            .unwrap_or(Prediction {
                work: UNKNOWN_WORK,
                memory_bytes: 0,
                basis: Basis::Nothing,
                spread_milli: 0,
            })
    }

    /// Learns from a compile that ran.
    pub fn observe(&mut self, features: Features<'_>, seen: Observation) {
        let log_work = (seen.work.as_micros().max(1) as f64).ln();
        let keys = features.keys();
        let usual = self.regression.value(features.log_size());
        self.regression.add(features.log_size(), log_work);
        self.uses = self.uses.saturating_add(1);
        self.learn(keys.job, log_work, seen.memory_bytes);
        self.learn(keys.source, log_work, seen.memory_bytes);
        if let Some(usual) = usual {
            self.learn(keys.directory, log_work - usual, seen.memory_bytes);
        }
        if self.levels.len() > ENTRIES_MAX {
            self.drop_least_used();
        }
    }

    /// Returns the power of a core of this machine, as far as it is known; 1.0 at first.
    pub fn power_here(&self) -> f64 {
        self.log_power_here.exp()
    }

    /// Learns from a compile that had a core of this machine to itself for `wall`.
    ///
    /// What is known of the source tells how fast this machine is; otherwise the machine tells what the source costs.
    pub fn observe_here(&mut self, features: Features<'_>, wall: Duration) {
        let known = self.predict(features);
        if known.basis == Basis::SameJob {
            let seen = (known.work.as_secs_f64() / wall.as_secs_f64().max(1e-6)).ln();
            let moved = self.log_power_here + POWER_WEIGHT * (seen - self.log_power_here);
            self.log_power_here = moved.clamp(POWER_LEAST.ln(), POWER_MOST.ln());
        } else {
            let work = wall.mul_f64(self.power_here());
            self.observe(features, Observation { work, memory_bytes: 0 });
        }
    }

    fn learn(&mut self, key: u64, log_work: f64, memory_bytes: u64) {
        let used = self.uses;
        let level = self.levels.entry(key).or_insert(Level {
            log_work,
            variance: SPREAD_SAME * SPREAD_SAME,
            memory_bytes,
            used,
        });
        let off = log_work - level.log_work;
        level.variance += NEWEST_WEIGHT as f32 * ((off * off) as f32 - level.variance);
        level.log_work += NEWEST_WEIGHT * off;
        // Memory decides admission, where too little hurts more than too much: up at once, down slowly.
        level.memory_bytes = memory_bytes.max(level.memory_bytes - level.memory_bytes / 8);
        level.used = used;
    }

    /// Drops the quarter that was used longest ago, so that dropping is rare.
    fn drop_least_used(&mut self) {
        let mut uses: Vec<u32> = self.levels.values().map(|level| level.used).collect();
        uses.sort_unstable();
        let oldest_kept = uses[uses.len() / 4];
        self.levels.retain(|_, level| level.used > oldest_kept);
    }

    /// Writes everything down: a header, the regression, this machine's power, 32 bytes an entry, and a digest of it all.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let line = &self.regression;
        for sum in [line.weight, line.x, line.y, line.xx, line.xy] {
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        bytes.extend_from_slice(&self.log_power_here.to_le_bytes());
        bytes.extend_from_slice(&self.uses.to_le_bytes());
        let mut levels: Vec<_> = self.levels.iter().collect();
        levels.sort_unstable_by_key(|(key, _)| **key);
        for (key, level) in levels {
            bytes.extend_from_slice(&key.to_le_bytes());
            bytes.extend_from_slice(&level.log_work.to_le_bytes());
            bytes.extend_from_slice(&level.variance.to_le_bytes());
            bytes.extend_from_slice(&level.memory_bytes.to_le_bytes());
            bytes.extend_from_slice(&level.used.to_le_bytes());
        }
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// Reads what [`Forecast::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (body, digest) = bytes.split_last_chunk::<32>().ok_or(Unreadable)?;
        let body_after_magic = body.strip_prefix(MAGIC).ok_or(Unreadable)?;
        if Digest::of(body).as_bytes() != digest {
            return Err(Unreadable);
        }
        let (head, entries) = body_after_magic.split_at_checked(HEAD_BYTES).ok_or(Unreadable)?;
        if entries.len() % ENTRY_BYTES != 0 || entries.len() / ENTRY_BYTES > ENTRIES_MAX {
            return Err(Unreadable);
        }
        let eight = |bytes: &[u8], at: usize| -> [u8; 8] { bytes[at..at + 8].try_into().expect("eight bytes") };
        let four = |bytes: &[u8], at: usize| -> [u8; 4] { bytes[at..at + 4].try_into().expect("four bytes") };
        let sum = |index: usize| f64::from_le_bytes(eight(head, index * 8));
        let levels = entries
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| {
                let level = Level {
                    log_work: f64::from_le_bytes(eight(entry, 8)),
                    variance: f32::from_le_bytes(four(entry, 16)),
                    memory_bytes: u64::from_le_bytes(eight(entry, 20)),
                    used: u32::from_le_bytes(four(entry, 28)),
                };
                (u64::from_le_bytes(eight(entry, 0)), level)
            })
            .collect();
        Ok(Self {
            levels,
            regression: Regression {
                weight: sum(0),
                x: sum(1),
                y: sum(2),
                xx: sum(3),
                xy: sum(4),
            },
            log_power_here: sum(5),
            uses: u32::from_le_bytes(four(head, 48)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(source: &str, flags_class: u64, closure_bytes: u64) -> Features<'_> {
        Features {
            toolchain: ToolchainId(Digest::of(b"arm926")),
            source: Path::new(source),
            flags_class,
            closure_bytes,
        }
    }

    fn took(ms: u64) -> Observation {
        Observation {
            work: Duration::from_millis(ms),
            memory_bytes: ms << 20,
        }
    }

    fn close(found: Duration, wanted_ms: f64) -> bool {
        (found.as_secs_f64() * 1e3 / wanted_ms - 1.0).abs() < 0.1
    }

    #[test]
    fn best_evidence_wins_and_is_named() {
        let mut forecast = Forecast::default();
        assert_eq!(forecast.predict(features("/a/x.c", 1, 1000)).basis, Basis::Nothing);
        for number in 1..=20 {
            let source = format!("/a/{number}.c");
            forecast.observe(features(&source, 1, number * 1000), took(number * 10));
        }
        let same = forecast.predict(features("/a/7.c", 1, 1));
        assert_eq!(same.basis, Basis::SameJob);
        assert!(close(same.work, 70.0), "{same:?}");
        assert_eq!(forecast.predict(features("/a/7.c", 2, 1)).basis, Basis::SameSource);
        let neighbour = forecast.predict(features("/a/new.c", 1, 30_000));
        assert_eq!(neighbour.basis, Basis::Directory);
        assert!(close(neighbour.work, 300.0), "{neighbour:?}");
        assert_eq!(
            forecast.predict(features("/b/new.c", 1, 30_000)).basis,
            Basis::ClosureSize
        );
    }

    #[test]
    fn a_changed_cost_is_followed_within_a_few_builds() {
        let mut forecast = Forecast::default();
        forecast.observe(features("/a/x.c", 1, 1000), took(100));
        for _ in 0..6 {
            forecast.observe(features("/a/x.c", 1, 1000), took(1000));
        }
        assert!(close(forecast.predict(features("/a/x.c", 1, 1000)).work, 950.0));
    }

    #[test]
    fn steady_costs_make_certain_and_changing_ones_uncertain() {
        let mut forecast = Forecast::default();
        for round in 0..8 {
            forecast.observe(features("/a/steady.c", 1, 1000), took(100));
            forecast.observe(features("/a/wild.c", 1, 1000), took([50, 400][round % 2]));
        }
        let steady = forecast.predict(features("/a/steady.c", 1, 1000));
        let wild = forecast.predict(features("/a/wild.c", 1, 1000));
        assert!(
            steady.spread_milli <= 50 && wild.spread_milli >= 500,
            "{steady:?} {wild:?}"
        );
        assert!(steady.work_at_most() < steady.work * 11 / 10);
        assert!(wild.work_at_most() > wild.work * 2);
    }

    #[test]
    fn local_runs_tell_the_power_of_this_machine_or_the_work_of_a_source() {
        let mut forecast = Forecast::default();
        for _ in 0..30 {
            forecast.observe(features("/a/x.c", 1, 1000), took(800));
            forecast.observe_here(features("/a/x.c", 1, 1000), Duration::from_millis(200));
        }
        assert!(
            (forecast.power_here() / 4.0 - 1.0).abs() < 0.05,
            "{}",
            forecast.power_here()
        );
        forecast.observe_here(features("/a/new.c", 1, 1000), Duration::from_millis(100));
        let learned = forecast.predict(features("/a/new.c", 1, 1000));
        assert!(close(learned.work, 400.0), "{learned:?}");
    }

    #[test]
    fn work_comes_from_cpu_time_where_that_can_be_meant() {
        let ms = Duration::from_millis;
        // (cpu, wall, power) -> work
        let rows = [
            (100, 110, 1.0, 100),
            (100, 400, 2.0, 200),
            // A replayed compile sleeps.
            (2, 800, 0.5, 400),
            // Two processes at once.
            (180, 100, 1.0, 180),
        ];
        for (cpu, wall, power, work) in rows {
            assert_eq!(
                work_at(power, spent_of(ms(cpu), ms(wall))),
                ms(work),
                "{cpu} {wall} {power}"
            );
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut forecast = Forecast::default();
        for number in 0..(ENTRIES_MAX as u64) {
            let source = format!("/{number}/x.c");
            forecast.observe(features(&source, number, 1000), took(5));
        }
        assert!(forecast.levels.len() <= ENTRIES_MAX);
        let newest = format!("/{}/x.c", ENTRIES_MAX - 1);
        let prediction = forecast.predict(features(&newest, ENTRIES_MAX as u64 - 1, 1));
        assert_eq!(prediction.basis, Basis::SameJob);
    }

    #[test]
    fn it_survives_the_disk_and_damage_is_noticed() {
        let mut forecast = Forecast::default();
        for number in 1..=20 {
            forecast.observe(features(&format!("/a/{number}.c"), 1, number * 1000), took(number));
        }
        forecast.observe_here(features("/a/1.c", 1, 1000), Duration::from_millis(9));
        let bytes = forecast.encode();
        assert_eq!(Forecast::decode(&bytes), Ok(forecast));
        for at in (0..bytes.len()).step_by(37) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(Forecast::decode(&damaged), Err(Unreadable));
            assert_eq!(Forecast::decode(&bytes[..at]), Err(Unreadable));
        }
    }
}

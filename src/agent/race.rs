//! When a job that takes far too long is started a second time elsewhere, and what its two results mean.
//!
//! Pure. A node that is throttled, swaps or hangs keeps a whole build waiting for one object at its end, and so does a slow
//! node with a long job that nobody knew to be long. A running job is looked at now and then with what is known by then. It
//! gets a second copy when it is far beyond its prediction, or when a faster slot is idle and would be through long before
//! it; either way only while nothing else waits for that slot. At most [`BUDGET`] of the work of all jobs goes into copies.
//! The first result wins and the other copy is cancelled; where both are there, they have to be equal.

use std::time::Duration;

use super::coordinator_link::FarmView;
use super::forecast::Prediction;
use crate::compile::{Feature, Features};
use crate::job::Outcome;

/// Share of all work that may go into second copies.
pub const BUDGET: f64 = 0.03;
/// Copies that a build may start before it has done much: the first one must not wait for a thousand jobs.
const BUDGET_FIRST: Duration = Duration::from_secs(2);
/// Beyond the time that 19 of 20 such jobs take, this much longer still is no sign of trouble.
const OVERDUE: f64 = 1.5;
/// A job is left alone for that long whatever was predicted: a second copy would hardly end sooner.
const OVERDUE_LEAST: Duration = Duration::from_secs(1);
/// Without any evidence nothing is overdue before that.
const OVERDUE_UNKNOWN: Duration = Duration::from_secs(60);
/// How long a job that runs longer than predicted will go on, as part of its time so far; as the coordinator has it.
const GOES_ON: f64 = 0.3;
/// An idle slot has to be through by this many times sooner than the job would be, and by so much more, for a copy that
/// nothing but hope speaks for: predictions are no better, and the copy's inputs have to get there.
const SOONER: f64 = 2.0;
const SOONER_LEAST: Duration = Duration::from_millis(500);
/// A job is looked at after so long for the first time, and then after a quarter of its time so far, within bounds.
pub const FIRST_LOOK: Duration = OVERDUE_LEAST;
const LOOK_AGAIN: f64 = 0.25;
const LOOK_LEAST: Duration = Duration::from_millis(500);
const LOOK_MOST: Duration = Duration::from_secs(5);

/// What a look at a running job says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It had better have a second copy.
    Copy,
    /// It is to be looked at again after that.
    Again(Duration),
}

/// Looks at a job that has run for `elapsed` at a place of `power`, with what is known of it and of the farm now.
pub fn look(elapsed: Duration, prediction: &Prediction, power: f64, farm: Option<FarmView>) -> Look {
    let late = is_late(elapsed, prediction, power);
    let wanted = match farm {
        // Without a word about the farm the coordinator decides alone: it serves a race last.
        None => late,
        Some(farm) => {
            let fastest = f64::from(farm.fastest_milli) / 1000.0;
            let idle = farm.slots_busy < farm.slots_total && farm.queued == 0;
            let known = prediction.spread_milli != 0 && fastest > 0.0;
            idle && ((late && fastest >= power) || (known && is_left_behind(elapsed, prediction, power, fastest)))
        }
    };
    match wanted {
        true => Look::Copy,
        false => Look::Again(elapsed.mul_f64(LOOK_AGAIN).clamp(LOOK_LEAST, LOOK_MOST)),
    }
}

/// Tells whether a job is far beyond its prediction.
pub fn is_late(elapsed: Duration, prediction: &Prediction, power: f64) -> bool {
    elapsed >= overdue_after(prediction, power)
}

/// Returns how much longer a job is expected to run.
pub fn left(elapsed: Duration, prediction: &Prediction, power: f64) -> Duration {
    let usual = prediction.work.div_f64(power.max(0.001));
    usual.saturating_sub(elapsed).max(elapsed.mul_f64(GOES_ON))
}

fn is_left_behind(elapsed: Duration, prediction: &Prediction, power: f64, fastest: f64) -> bool {
    let copy = prediction.work.div_f64(fastest);
    left(elapsed, prediction, power) > copy.mul_f64(SOONER) + SOONER_LEAST
}

/// Returns how long a job may take at a place of `power` before it is overdue.
pub fn overdue_after(prediction: &Prediction, power: f64) -> Duration {
    if prediction.spread_milli == 0 {
        return OVERDUE_UNKNOWN;
    }
    let usual = prediction.work_at_most().div_f64(power.max(0.001));
    usual.mul_f64(OVERDUE).max(OVERDUE_LEAST)
}

/// What went into second copies.
#[derive(Debug, Default)]
pub struct RaceBudget {
    done_s: f64,
    copies_s: f64,
}

impl RaceBudget {
    /// Counts the work of a job that has ended.
    pub fn handle_done(&mut self, work: Duration) {
        self.done_s += work.as_secs_f64();
    }

    /// Takes the work of a second copy, as far as there is so much.
    pub fn take(&mut self, work: Duration) -> bool {
        let work_s = work.as_secs_f64();
        let allowed = BUDGET_FIRST.as_secs_f64() + BUDGET * self.done_s;
        let fits = self.copies_s + work_s <= allowed || self.copies_s == 0.0;
        if fits {
            self.copies_s += work_s;
        }
        fits
    }

    /// Gives it back: the copy did not run.
    pub fn give_back(&mut self, work: Duration) {
        self.copies_s = (self.copies_s - work.as_secs_f64()).max(0.0);
    }
}

/// Tells whether two runs of a command with these features have to leave the same bytes.
pub fn is_repeatable(features: Features) -> bool {
    let random = [Feature::Lto, Feature::Coverage, Feature::ProfileGenerate]
        .iter()
        .any(|feature| features.has(*feature));
    // With a seed even these repeat, but for the time of day in coverage notes.
    !random || (features.has(Feature::RandomSeed) && !features.has(Feature::Coverage))
}

/// Compares the results of two copies, and names the first difference.
pub fn difference(one: &Outcome, other: &Outcome) -> Option<String> {
    if one.status != other.status {
        return Some(format!("status {:?} and {:?}", one.status, other.status));
    }
    if (&one.stdout, &one.stderr) != (&other.stdout, &other.stderr) {
        return Some("other words".to_owned());
    }
    if one.dependencies != other.dependencies {
        return Some("other lists of dependencies".to_owned());
    }
    if one.outputs.len() != other.outputs.len() {
        return Some(format!("{} and {} files", one.outputs.len(), other.outputs.len()));
    }
    let pairs = one.outputs.iter().zip(&other.outputs);
    let mut differing = pairs.filter(|(one, other)| one != other);
    differing
        .next()
        .map(|(one, _)| format!("`{}` differs", one.path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::forecast::Basis;
    use crate::job::{Output, OutputKind, Status, Usage};

    fn prediction(ms: u64, spread_milli: u32) -> Prediction {
        Prediction {
            work: Duration::from_millis(ms),
            memory_bytes: 0,
            basis: Basis::SameJob,
            spread_milli,
        }
    }

    fn farm(total: u32, busy: u32, fastest_milli: u32) -> FarmView {
        FarmView {
            slots_total: total,
            slots_busy: busy,
            fastest_milli,
            queued: 0,
            my_share_slots: 1,
        }
    }

    #[test]
    fn the_uncertain_get_more_time_and_so_do_slow_places() {
        let ms = Duration::from_millis;
        let rows = [
            (prediction(4000, 50), 1.0, 6500, 6520),
            (prediction(4000, 50), 0.25, 26_000, 26_100),
            (prediction(4000, 600), 1.0, 16_000, 16_200),
            (prediction(10, 50), 1.0, 1000, 1000),
            (prediction(10, 0), 1.0, 60_000, 60_000),
        ];
        for (prediction, power, least, most) in rows {
            let found = overdue_after(&prediction, power);
            assert!(
                (ms(least)..=ms(most)).contains(&found),
                "{prediction:?} {power}: {found:?}"
            );
        }
    }

    #[test]
    fn copies_go_to_idle_places_that_are_faster_or_as_fast_when_the_job_is_late() {
        let second = Duration::from_secs(1);
        let known = prediction(1000, 100);
        let busy = FarmView {
            queued: 1,
            ..farm(4, 3, 1000)
        };
        // (prediction, elapsed, power, farm) -> whether it gets a copy
        let rows = [
            (known, 3, 1.0, Some(farm(4, 3, 1000)), true),
            (known, 1, 1.0, Some(farm(4, 3, 1000)), false),
            (known, 3, 1.0, Some(farm(4, 4, 1000)), false),
            (known, 3, 1.0, Some(farm(4, 3, 500)), false),
            (known, 3, 1.0, Some(busy), false),
            (known, 3, 1.0, None, true),
            (known, 1, 1.0, None, false),
            // Not late on such a slow place, but an idle one would be through in a second, this one takes fifteen more.
            (known, 1, 0.0625, Some(farm(4, 3, 1000)), true),
            (known, 1, 0.0625, Some(farm(4, 4, 1000)), false),
            (known, 14, 0.0625, Some(farm(4, 3, 1000)), true),
            (known, 1, 0.5, Some(farm(4, 3, 1000)), false),
            (prediction(1000, 0), 59, 0.0625, Some(farm(4, 3, 1000)), false),
            (prediction(1000, 0), 60, 0.0625, Some(farm(4, 3, 1000)), true),
        ];
        for (prediction, elapsed, power, view, expected) in rows {
            let found = look(elapsed * second, &prediction, power, view) == Look::Copy;
            assert_eq!(found, expected, "{prediction:?} {elapsed} s at {power}: {view:?}");
        }
        let again = |elapsed| look(elapsed, &known, 1.0, Some(busy));
        assert_eq!(again(FIRST_LOOK), Look::Again(LOOK_LEAST));
        assert_eq!(again(1000 * second), Look::Again(LOOK_MOST));
    }

    #[test]
    fn copies_are_few() {
        let second = Duration::from_secs(1);
        let (mut budget, mut copies) = (RaceBudget::default(), 0);
        for _ in 0..1000 {
            budget.handle_done(second);
            copies += u32::from(budget.take(second));
        }
        assert!((30..=33).contains(&copies), "{copies}");
        assert!(!budget.take(second));
        budget.give_back(second);
        assert!(budget.take(second));
    }

    #[test]
    fn differing_results_are_named() {
        let outcome = |status, stderr: &str, object: &[u8]| Outcome {
            status: Status::Exited(status),
            stdout: Vec::new(),
            stderr: stderr.into(),
            outputs: vec![Output {
                path: "/a.o".into(),
                kind: OutputKind::File {
                    mode: 0o644,
                    content: object.to_vec(),
                },
            }],
            dependencies: None,
            usage: Usage::default(),
        };
        let first = outcome(0, "", b"x");
        assert_eq!(difference(&first, &outcome(0, "", b"x")), None);
        let rows = [
            (outcome(1, "", b"x"), "status"),
            (outcome(0, "warning", b"x"), "words"),
            (outcome(0, "", b"y"), "`/a.o`"),
        ];
        for (second, expected) in rows {
            let found = difference(&first, &second).unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }
}

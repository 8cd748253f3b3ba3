//! When a job that takes far too long is started a second time elsewhere, and what its two results mean.
//!
//! Pure. A node that is throttled, swaps or hangs keeps a whole build waiting for one object at its end. A second copy of
//! such a job costs little, as long as it is rare: at most [`BUDGET`] of the work of all jobs goes into copies. The first
//! result wins and the other copy is cancelled; where both are there, they have to be equal.

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

    /// Decides whether an overdue job of that much work, at a place of `power`, gets a second copy; if so, it counts.
    pub fn may_race(&mut self, work: Duration, power: f64, farm: Option<FarmView>) -> bool {
        // Without a word about the farm the coordinator decides alone: it serves a race last.
        let has_place = farm.is_none_or(|farm| {
            let as_fast = f64::from(farm.fastest_milli) / 1000.0 >= power;
            as_fast && farm.slots_busy < farm.slots_total && farm.queued == 0
        });
        let work_s = work.as_secs_f64();
        let allowed = BUDGET_FIRST.as_secs_f64() + BUDGET * self.done_s;
        let fits = self.copies_s + work_s <= allowed || self.copies_s == 0.0;
        let may = has_place && fits;
        if may {
            self.copies_s += work_s;
        }
        may
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
    fn copies_are_few_and_go_to_free_places_that_are_as_fast() {
        let second = Duration::from_secs(1);
        let rows = [
            (Some(farm(4, 3, 1000)), 1.0, true),
            (Some(farm(4, 4, 1000)), 1.0, false),
            (Some(farm(4, 3, 500)), 1.0, false),
            (
                Some(FarmView {
                    queued: 1,
                    ..farm(4, 3, 1000)
                }),
                1.0,
                false,
            ),
            (None, 1.0, true),
        ];
        for (view, power, expected) in rows {
            assert_eq!(
                RaceBudget::default().may_race(second, power, view),
                expected,
                "{view:?}"
            );
        }
        let (mut budget, mut copies) = (RaceBudget::default(), 0);
        for _ in 0..1000 {
            budget.handle_done(second);
            copies += u32::from(budget.may_race(second, 1.0, Some(farm(4, 0, 1000))));
        }
        assert!((30..=33).contains(&copies), "{copies}");
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

//! Which worker gets a job, among those that have its toolchain ready and a slot free.
//!
//! Two functions, and nothing else in the coordinator knows the rule. [`rank`] orders the workers of a toolchain once
//! per change of a worker, so that a want need not look at all of them; [`choose`] then looks at the first few with
//! the job in mind. Today's rule is power × free slots. A rule by predicted finish replaces these two functions: the
//! job's predicted work is at hand in [`Demand`], and `choose` may return `None` to let a job wait for a faster slot
//! (its want is looked at again whenever a slot anywhere becomes free).

use super::events::Demand;

/// How many of the best workers are looked at for one job.
const LOOK_MAX: usize = 16;

/// What a rule may know of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// One slot against one reference core, in thousandths.
    pub power_milli: u32,
    /// Slots that may be given out now.
    pub open_slots: u32,
    /// CPU busy with something else, in thousandths of a core.
    pub foreign_load_milli: u32,
    /// Memory that the next job could have, bytes; `None` when it is not known or the worker is idle, where whatever
    /// it has must do.
    pub memory_available_bytes: Option<u64>,
}

/// Order of preference: the highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

/// Ranks a worker by what its open slots could do together.
///
/// CPU that something else uses there counts like slots in use, but down to a quarter of a slot only: a worker that
/// looks busy is last, not out.
pub fn rank(standing: &Standing) -> Rank {
    let open_milli = u64::from(standing.open_slots) * 1000;
    let effective = open_milli.saturating_sub(standing.foreign_load_milli.into()).max(250);
    Rank(u64::from(standing.power_milli) * effective)
}

/// Chooses among candidates in order of rank, the best first; all have an open slot.
///
/// Memory is a preference: a job goes to the best worker that has enough for it, but if none of the first few has, it
/// goes to the best all the same, as the prediction may be wrong and the job has to end somewhere.
pub fn choose<K>(demand: &Demand, candidates: impl Iterator<Item = (K, Standing)>) -> Option<K> {
    let mut best = None;
    for (key, standing) in candidates.take(LOOK_MAX) {
        let fits = match (demand.memory_bytes, standing.memory_available_bytes) {
            (Some(needed), Some(available)) => needed <= available,
            _ => true,
        };
        if fits {
            return Some(key);
        }
        best.get_or_insert(key);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(power_milli: u32, open_slots: u32) -> Standing {
        Standing {
            power_milli,
            open_slots,
            foreign_load_milli: 0,
            memory_available_bytes: None,
        }
    }

    #[test]
    fn power_times_open_slots_decides() {
        assert!(rank(&standing(1000, 3)) > rank(&standing(2000, 1)));
        assert!(rank(&standing(2000, 2)) > rank(&standing(1000, 3)));
    }

    #[test]
    fn foreign_load_counts_like_used_slots_and_never_to_nothing() {
        let busy = Standing {
            foreign_load_milli: 2000,
            ..standing(1000, 3)
        };
        assert_eq!(rank(&busy), rank(&standing(1000, 1)));
        let swamped = Standing {
            foreign_load_milli: u32::MAX,
            ..standing(1000, 3)
        };
        assert!(rank(&swamped) > rank(&standing(1, 1)));
    }

    #[test]
    fn job_goes_where_its_memory_is_or_else_to_the_best() {
        let with = |bytes| Standing {
            memory_available_bytes: Some(bytes),
            ..standing(1000, 1)
        };
        let pick = |needed, offers: &[u64]| {
            let demand = Demand {
                memory_bytes: Some(needed),
                ..Demand::default()
            };
            choose(&demand, offers.iter().map(|bytes| (*bytes, with(*bytes))))
        };
        assert_eq!(pick(50, &[10, 60, 90]), Some(60));
        assert_eq!(pick(50, &[10, 20]), Some(10));
        assert_eq!(pick(50, &[]), None);
    }
}

//! Which place a job gets: the one where it is predicted to end first.
//!
//! Pure arithmetic over a few [`Seat`]s, in seconds from now. A job's end at a worker is when a place comes free there,
//! plus what has to be sent, plus work over speed. So a long job waits for a fast slot when it ends earlier there, and
//! takes an idle slow one when it does not; what waits is counted as taking its place, so that the next job sees it.
//! That is right when all that is to be done is in sight. While more is coming than the farm can do (`horizon`) every
//! slot is worth using, and a job may take any where it ends in all likelihood before the work in sight is through: so the
//! short ones end up on the slow workers, and those of which little is known do not keep the build waiting there. What a
//! worker is worth is in `speed`, who is served first in `fairness` and `queue`.

/// How long a place that an agent holds ahead of need takes to come back, seconds: there and back on a slow network.
const RECALL: f64 = 0.005;
/// A job waits for another place only when it is predicted to end earlier there by this part of its time, and by so many
/// seconds: predictions are not better than that.
const WAIT_GAIN: f64 = 0.05;
const WAIT_GAIN_LEAST: f64 = 0.01;
/// A job waits no longer for a better place than this many times what it would have taken at once, or so many seconds.
const WAIT_TIMES: f64 = 2.0;
const WAIT_LEAST: f64 = 1.0;
/// Added to the time of a place with too little memory: the last resort, since the prediction may be wrong and the job
/// has to end somewhere.
const TOO_SMALL: f64 = 1e6;
/// How long a job that runs longer than predicted will go on, as part of its time so far: compile times are spread over
/// decades, so what has taken long will take long.
const OVERDUE_PART: f64 = 0.3;

/// A worker, as a place for jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Seat<K> {
    /// The worker.
    pub key: K,
    /// Work per second in the next of its slots.
    pub rate: f64,
    /// Slots that may be given out at once.
    pub open: usize,
    /// Slots that agents hold ahead of need.
    pub spare: usize,
    /// When slots come free, seconds from now, ascending: first those open or spare, then those in use.
    pub places: Places,
    /// Memory that the next job could have now; `None` when that is not known or the worker is idle, where whatever it
    /// has must do.
    pub memory_now: Option<u64>,
    /// Memory that it has at all.
    pub memory_most: u64,
}

/// The next few places of a worker, by when they come free.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Places {
    at: [f64; PLACES_MAX],
    count: usize,
}

/// How many places of one worker are told apart; what is beyond comes later than all of them.
pub const PLACES_MAX: usize = 8;

impl Places {
    /// Adds a place. One that would come after all that there is room for is left out.
    pub fn add(&mut self, at: f64) {
        let index = self.at[..self.count].partition_point(|place| *place <= at);
        if index == PLACES_MAX {
            return;
        }
        self.count = (self.count + 1).min(PLACES_MAX);
        self.at[index..self.count].rotate_right(1);
        self.at[index] = at;
    }

    /// Returns when the place of this number comes free, seconds from now.
    fn get(&self, number: usize) -> Option<f64> {
        self.at[..self.count].get(number).copied()
    }

    /// Takes the first place, which comes free again at `at`.
    fn take_first(&mut self, at: f64) {
        if self.count > 0 {
            self.at[..self.count].rotate_left(1);
            self.count -= 1;
            self.add(at);
        }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.count == PLACES_MAX
    }
}

impl FromIterator<f64> for Places {
    fn from_iter<I: IntoIterator<Item = f64>>(places: I) -> Self {
        let mut all = Self::default();
        places.into_iter().for_each(|place| all.add(place));
        all
    }
}

/// A job, as placement sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// Work, seconds of a reference core.
    pub work: f64,
    /// Work that it will not exceed, as far as can be told; no less than `work`.
    pub work_at_most: f64,
    /// Memory, bytes; 0 when nothing is known.
    pub memory: u64,
    /// How long it has waited, seconds.
    pub waited: f64,
    /// How long the farm takes for what waits before it and is not counted in the seats, seconds.
    pub behind: f64,
}

/// What a job is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// Take this seat.
    Now(usize),
    /// Wait for this seat, which an agent holds ahead of need and has to give back.
    Recall(usize),
    /// Wait for this seat, which comes free in so many seconds.
    Wait(usize, f64),
    /// There is no seat for it.
    Nowhere,
}

/// Estimates how much longer a job will run that was to end `late` seconds ago and has taken `elapsed`.
pub fn overdue(elapsed: f64) -> f64 {
    (OVERDUE_PART * elapsed).max(0.02)
}

impl<K> Seat<K> {
    fn has_memory_for(&self, need: &Need) -> bool {
        self.memory_now.is_none_or(|available| need.memory <= available)
    }

    /// Returns when the job could start here.
    fn start(&self, need: &Need) -> f64 {
        let ready = self.open + self.spare;
        let first = if ready > 0 && !self.has_memory_for(need) {
            self.places.get(ready)
        } else {
            self.places.get(0)
        };
        let start = first.unwrap_or(f64::INFINITY);
        let small = need.memory > self.memory_most;
        let extra = match (self.open, self.spare) {
            (0, 0) => need.behind,
            (0, _) => RECALL,
            _ => 0.0,
        };
        start + extra + if small { TOO_SMALL } else { 0.0 }
    }

    fn end(&self, need: &Need, transfer: f64) -> f64 {
        self.start(need) + transfer + need.work / self.rate
    }

    /// Returns when a job that is predicted to end here at `end` will have ended at the latest, as far as can be told.
    pub fn at_most(&self, end: f64, need: &Need) -> f64 {
        end + (need.work_at_most - need.work) / self.rate
    }

    fn is_open_for(&self, need: &Need) -> bool {
        self.open > 0 && self.has_memory_for(need)
    }

    /// Counts the job as placed here.
    pub fn assign(&mut self, need: &Need, transfer: f64) {
        let end = self.end(need, transfer).min(TOO_SMALL);
        self.places.take_first(end);
        if self.open > 0 {
            self.open -= 1;
        } else {
            self.spare = self.spare.saturating_sub(1);
        }
    }
}

fn first_to_end<'s, K: 's>(
    seats: impl Iterator<Item = (usize, &'s Seat<K>)>,
    need: &Need,
    transfer: impl Fn(&K) -> Option<f64>,
) -> Option<(usize, f64)> {
    let ends = seats.filter_map(|(index, seat)| Some((index, seat.end(need, transfer(&seat.key)?))));
    ends.min_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// Returns the best of the open seats, and when the job would end there. `transfer` tells how long sending takes, and
/// nothing for a worker that must not be used.
pub fn best_open<K>(seats: &[Seat<K>], need: &Need, transfer: impl Fn(&K) -> Option<f64>) -> Option<(usize, f64)> {
    let open = seats.iter().enumerate().filter(|(_, seat)| seat.is_open_for(need));
    first_to_end(open, need, transfer)
}

/// Chooses among all seats that are looked at.
pub fn choose<K>(seats: &[Seat<K>], need: &Need, transfer: impl Fn(&K) -> Option<f64>) -> Choice {
    let now = best_open(seats, need, &transfer);
    let Some((best, end)) = first_to_end(seats.iter().enumerate(), need, &transfer) else {
        return Choice::Nowhere;
    };
    if let Some((open, open_end)) = now {
        let patience = (WAIT_TIMES * open_end).max(WAIT_LEAST);
        let worth_it = end + WAIT_GAIN_LEAST.max(WAIT_GAIN * open_end) < open_end && need.waited < patience;
        if !worth_it {
            return Choice::Now(open);
        }
    }
    let seat = &seats[best];
    match end.is_finite() {
        false => Choice::Nowhere,
        true if seat.open == 0 && seat.spare > 0 => Choice::Recall(best),
        true => Choice::Wait(best, seat.start(need)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: fn(&u32) -> Option<f64> = |_| Some(0.0);

    fn seat(key: u32, rate: f64, open: usize, ends: &[f64]) -> Seat<u32> {
        Seat {
            key,
            rate,
            open,
            spare: 0,
            places: std::iter::repeat_n(0.0, open).chain(ends.iter().copied()).collect(),
            memory_now: None,
            memory_most: u64::MAX,
        }
    }

    fn need(work: f64) -> Need {
        Need {
            work,
            work_at_most: work,
            memory: 0,
            waited: 0.0,
            behind: 0.0,
        }
    }

    #[test]
    fn long_job_waits_for_a_fast_slot_and_a_short_one_does_not() {
        let seats = [seat(0, 0.25, 1, &[]), seat(1, 4.0, 0, &[1.0, 3.0])];
        assert_eq!(choose(&seats, &need(4.0), FREE), Choice::Wait(1, 1.0));
        assert_eq!(choose(&seats, &need(0.2), FREE), Choice::Now(0));
        let tired = Need {
            waited: 40.0,
            ..need(4.0)
        };
        assert_eq!(choose(&seats, &tired, FREE), Choice::Now(0), "its wait is bounded");
    }

    #[test]
    fn job_of_which_little_is_known_may_end_later_than_it_is_predicted_to() {
        let slow = seat(0, 0.25, 1, &[]);
        let guessed = Need {
            work_at_most: 3.0,
            ..need(1.0)
        };
        assert_eq!(slow.at_most(4.5, &need(1.0)), 4.5);
        assert_eq!(slow.at_most(4.5, &guessed), 12.5);
    }

    #[test]
    fn what_waits_counts_as_taking_its_place() {
        let mut seats = [seat(0, 0.5, 1, &[]), seat(1, 4.0, 0, &[0.1])];
        let mut waits = 0;
        while let Choice::Wait(1, _) = choose(&seats, &need(1.0), FREE) {
            seats[1].assign(&need(1.0), 0.0);
            waits += 1;
        }
        assert_eq!(waits, 7, "of jobs of 0.25 s there, seven end before 2 s");
    }

    #[test]
    fn what_has_to_be_sent_counts_and_what_must_not_be_used_is_not() {
        let seats = [seat(0, 1.0, 1, &[]), seat(1, 1.1, 1, &[])];
        let cold = |key: &u32| Some(if *key == 1 { 0.5 } else { 0.0 });
        assert_eq!(choose(&seats, &need(1.0), cold), Choice::Now(0));
        let avoided = |key: &u32| (*key == 1).then_some(0.0);
        assert_eq!(choose(&seats, &need(1.0), avoided), Choice::Now(1));
        assert_eq!(choose(&seats, &need(1.0), |_| None), Choice::Nowhere);
    }

    #[test]
    fn job_goes_where_its_memory_is_or_waits_for_it_or_else_to_any_that_is_idle() {
        let with = |key, now, most, ends: &[f64]| Seat {
            memory_now: now,
            memory_most: most,
            ..seat(key, 1.0, 1, ends)
        };
        let big = Need {
            memory: 50,
            ..need(1.0)
        };
        let seats = [with(0, Some(10), 100, &[0.1]), with(1, Some(60), 100, &[])];
        assert_eq!(choose(&seats, &big, FREE), Choice::Now(1));
        assert_eq!(choose(&seats[..1], &big, FREE), Choice::Wait(0, 0.1));
        assert_eq!(choose(&[with(0, None, 20, &[])], &big, FREE), Choice::Now(0));
    }

    #[test]
    fn place_held_ahead_of_need_is_taken_back_when_that_is_sooner() {
        let held = Seat {
            spare: 1,
            places: Places::from_iter([0.0]),
            ..seat(1, 2.0, 0, &[])
        };
        let seats = [seat(0, 0.5, 1, &[]), held, seat(2, 2.0, 0, &[3.0])];
        assert_eq!(choose(&seats, &need(1.0), FREE), Choice::Recall(1));
        let equal = [seat(0, 2.0, 1, &[]), seats[1].clone()];
        assert_eq!(choose(&equal, &need(1.0), FREE), Choice::Now(0));
    }
}

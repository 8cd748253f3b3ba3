//! Time as the coordinator's decisions see it: how long since the coordinator started.
//!
//! Nothing here reads a clock; the driver does and hands moments in. A type of its own, so that a length of time and a
//! point in time are never taken for each other.

use std::time::Duration;

/// A point in time, counted from the coordinator's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The start.
    pub const START: Moment = Moment(Duration::ZERO);

    /// The moment this long after the start.
    pub fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The moment this much later.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// Time that has passed since `earlier`; zero when that is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Microseconds since the start, as a signed number that differences can be taken of.
    pub fn micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

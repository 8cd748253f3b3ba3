//! Delays between attempts: exponential, bounded, and jittered so that many nodes do not return in step.
//!
//! Pure: randomness comes in as a number. "Equal jitter": half of the delay is fixed, half is random, so that a first
//! retry is never immediate.

use std::time::Duration;

/// A growing series of delays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// Starts a series that grows from `first` to `most`, doubling.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most: most.max(first),
            attempt: 0,
        }
    }

    /// Returns the next delay. `random` picks a point in its jitter: 0 is the shortest, `u32::MAX` the longest.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.attempt.min(20));
        self.attempt = self.attempt.saturating_add(1);
        let half = doubled.min(self.most) / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Starts the series again after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let delays: Vec<u128> = (0..4).map(|_| backoff.next_delay(u32::MAX).as_millis()).collect();
        assert_eq!(delays, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next_delay(0).as_millis(), 50);
    }

    #[test]
    fn thousands_of_attempts_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..5000 {
            assert!(backoff.next_delay(u32::MAX) <= Duration::from_secs(30));
        }
    }
}

//! What the network of a build can do at least, seen from what it did.

use std::time::Duration;

/// The second in which most was carried: a network that did that once can do it all the time.
///
/// A job's bytes count where the job ends, which makes that second busier than it was, and the bound lower.
#[derive(Debug, Default)]
pub(super) struct BusiestSecond {
    second: u64,
    bytes: u64,
    most: u64,
}

impl BusiestSecond {
    /// Counts what a job carried that has ended.
    pub(super) fn add(&mut self, since_begin: Duration, bytes: u64) {
        if since_begin.as_secs() != self.second {
            (self.second, self.bytes) = (since_begin.as_secs(), 0);
        }
        self.bytes += bytes;
        self.most = self.most.max(self.bytes);
    }

    /// Returns the least time in which `bytes` were carried: the last second need not have been a whole one.
    pub(super) fn least_time(&self, bytes: u64) -> Duration {
        let seconds = bytes.div_ceil(self.most.max(1));
        Duration::from_secs(seconds.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_is_said_to_take_no_longer_than_it_took() {
        let mut carried = BusiestSecond::default();
        assert_eq!(carried.least_time(0), Duration::ZERO);
        // A megabyte at the beginning, and 50 kB in every half second of the ten that follow.
        carried.add(Duration::from_millis(100), 1_000_000);
        (2..22).for_each(|half| carried.add(Duration::from_millis(half * 500), 50_000));
        assert_eq!(carried.least_time(2_000_000), Duration::from_secs(1));
        // A link that is full all the time.
        let mut full = BusiestSecond::default();
        (0..100).for_each(|tenth| full.add(Duration::from_millis(tenth * 100), 1_000_000));
        assert_eq!(full.least_time(100_000_000), Duration::from_secs(9));
    }
}

//! How long it takes to send a job's inputs, per agent and worker, learned from what was sent before.
//!
//! A worker that has run jobs of a tree has most of what the next one needs, so what counts is the part of a job's input
//! bytes that had to be sent lately, and the bandwidth that was seen. Pure.

use std::time::Duration;

/// Part of its input bytes that the first job at a worker is assumed to send: text compresses to a quarter.
const COLD_PART: f64 = 0.25;
/// Bandwidth assumed before anything was sent, bytes a second: 100 Mbit/s.
const BANDWIDTH: f64 = 11e6;
/// Weight of the newest observation.
const NEWEST: f64 = 0.5;
/// A transfer says something about bandwidth from this many bytes on; below, it is latency.
const TELLING_BYTES: u64 = 64 << 10;
/// The longest that a transfer is predicted to take, seconds: an odd figure must not rule a worker out.
const LONGEST: f64 = 30.0;

/// What is known of one agent's way to one worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Route {
    part: f64,
    bandwidth: f64,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            part: COLD_PART,
            bandwidth: BANDWIDTH,
        }
    }
}

impl Route {
    /// Predicts how long it takes to send what is missing of a job's inputs, seconds.
    pub fn seconds(&self, input_bytes: u64) -> f64 {
        (input_bytes as f64 * self.part / self.bandwidth).min(LONGEST)
    }

    /// Learns from a job that needed `input_bytes`, of which `sent_bytes` were sent in `transfer`.
    pub fn learn(&mut self, input_bytes: u64, sent_bytes: u64, transfer: Duration) {
        if input_bytes > 0 {
            let part = (sent_bytes as f64 / input_bytes as f64).min(1.0);
            self.part += NEWEST * (part - self.part);
        }
        if sent_bytes >= TELLING_BYTES && !transfer.is_zero() {
            let seen = (sent_bytes as f64 / transfer.as_secs_f64()).clamp(1e3, 1e11);
            // Of logarithms: bandwidths differ by factors.
            self.bandwidth = (self.bandwidth.ln() * (1.0 - NEWEST) + seen.ln() * NEWEST).exp();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_that_has_the_tree_costs_little_and_a_slow_link_much() {
        let (mut near, mut far) = (Route::default(), Route::default());
        let cold = near.seconds(8 << 20);
        for sent in [2 << 20, 100 << 10, 10 << 10, 0] {
            near.learn(8 << 20, sent, Duration::from_millis(sent / 10_000));
        }
        assert!(near.seconds(8 << 20) < cold / 4.0);
        for _ in 0..4 {
            far.learn(8 << 20, 8 << 20, Duration::from_secs(80));
        }
        assert!(far.seconds(8 << 20) > 10.0 * cold && far.seconds(u64::MAX) <= LONGEST);
    }
}

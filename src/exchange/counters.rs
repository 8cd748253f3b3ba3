//! The counters behind `rdcc stats`.
//!
//! Pure arithmetic; `agent/ledger.rs` keeps them on disk. The field names are the keys of `rdcc stats --json`, a contract.
//! Invariant: `jobs == remote + local`, `remote` is the sum of `remote_by_mode`, and `local` of `local_by_reason`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::{JobRecord, Mode, Race, Ran};

/// How many jobs ran where, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Commands that came through rdcc.
    pub jobs: u64,
    /// Those that a worker ran.
    pub remote: u64,
    /// Those that ran here.
    pub local: u64,
    /// Remote ones, by who preprocessed.
    pub remote_by_mode: BTreeMap<Mode, u64>,
    /// Local ones, by reason.
    pub local_by_reason: BTreeMap<String, u64>,
    /// Remote ones, by worker.
    pub remote_by_worker: BTreeMap<String, u64>,
    /// Remote ones that ran on a variant of their toolchain, by the variant's kind of host.
    pub remote_by_variant: BTreeMap<String, u64>,
    /// Jobs that may not run on the variants of their toolchain, by reason.
    pub own_only_by_reason: BTreeMap<String, u64>,
    /// Attempts that did not work and were followed by another, by reason.
    pub fallbacks_by_reason: BTreeMap<String, u64>,
    /// Jobs answered from a cache.
    pub cache_hits: u64,
    /// Jobs that the compiler ended with an error, where rdcc waited for it.
    pub failed: u64,
    /// Jobs that took so long that a second copy was started.
    pub raced: u64,
    /// Those of them whose second copy ended first.
    pub races_won: u64,
    /// Jobs of which two workers made different results.
    pub results_differ: u64,
    /// Jobs that were run again on a second worker, to check the first.
    pub audited: u64,
    /// Those of them whose results differed.
    pub audit_differed: u64,
    /// Jobs that were to be audited and could not be: no second worker had a place, or a file had changed meanwhile.
    pub audit_skipped: u64,
    /// Bytes sent to workers.
    pub bytes_sent: u64,
    /// Bytes received from workers.
    pub bytes_received: u64,
    /// CPU time of compilers on workers, microseconds.
    pub remote_cpu_us: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            jobs: 0,
            remote: 0,
            local: 0,
            // Both modes are always told, so that a reader of the JSON needs no special case.
            remote_by_mode: BTreeMap::from([(Mode::A, 0), (Mode::B, 0)]),
            local_by_reason: BTreeMap::new(),
            remote_by_worker: BTreeMap::new(),
            remote_by_variant: BTreeMap::new(),
            own_only_by_reason: BTreeMap::new(),
            fallbacks_by_reason: BTreeMap::new(),
            cache_hits: 0,
            failed: 0,
            raced: 0,
            races_won: 0,
            results_differ: 0,
            audited: 0,
            audit_differed: 0,
            audit_skipped: 0,
            bytes_sent: 0,
            bytes_received: 0,
            remote_cpu_us: 0,
        }
    }
}

impl Counters {
    /// Counts one job.
    pub fn count(&mut self, record: &JobRecord) {
        self.jobs += 1;
        match &record.ran {
            Ran::Remote { mode, worker } => {
                self.remote += 1;
                *self.remote_by_mode.entry(*mode).or_default() += 1;
                *self.remote_by_worker.entry(worker.clone()).or_default() += 1;
                if let Some(variant) = &record.variant {
                    *self.remote_by_variant.entry(variant.host.clone()).or_default() += 1;
                }
            }
            Ran::Local { reason } => {
                self.local += 1;
                *self.local_by_reason.entry(reason.clone()).or_default() += 1;
            }
        }
        if let Some(reason) = &record.own_only {
            *self.own_only_by_reason.entry(reason.clone()).or_default() += 1;
        }
        for reason in &record.fallbacks {
            *self.fallbacks_by_reason.entry(reason.clone()).or_default() += 1;
        }
        self.cache_hits += u64::from(record.cached);
        self.failed += u64::from(!record.success);
        self.raced += u64::from(record.race.is_some());
        self.races_won += u64::from(record.race == Some(Race::Won));
        self.results_differ += u64::from(record.ran.is_for("results_differ"));
        self.bytes_sent += record.bytes_sent;
        self.bytes_received += record.bytes_received;
        self.remote_cpu_us += record.cpu_us;
    }

    /// Adds what another set has counted.
    pub fn add(&mut self, other: &Counters) {
        self.jobs += other.jobs;
        self.remote += other.remote;
        self.local += other.local;
        add_map(&mut self.remote_by_mode, &other.remote_by_mode);
        add_map(&mut self.local_by_reason, &other.local_by_reason);
        add_map(&mut self.remote_by_worker, &other.remote_by_worker);
        add_map(&mut self.remote_by_variant, &other.remote_by_variant);
        add_map(&mut self.own_only_by_reason, &other.own_only_by_reason);
        add_map(&mut self.fallbacks_by_reason, &other.fallbacks_by_reason);
        self.cache_hits += other.cache_hits;
        self.failed += other.failed;
        self.raced += other.raced;
        self.races_won += other.races_won;
        self.results_differ += other.results_differ;
        self.audited += other.audited;
        self.audit_differed += other.audit_differed;
        self.audit_skipped += other.audit_skipped;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.remote_cpu_us += other.remote_cpu_us;
    }
}

fn add_map<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(worker: &str) -> JobRecord {
        let mut record = JobRecord::new(Ran::Remote {
            mode: Mode::B,
            worker: worker.into(),
        });
        record.fallbacks = vec!["worker_fault".into()];
        record.bytes_sent = 10;
        record
    }

    #[test]
    fn every_job_is_counted_once_by_place_and_reason() {
        let mut counters = Counters::default();
        counters.count(&remote("n1"));
        counters.count(&remote("n2"));
        counters.count(&JobRecord::new(Ran::Local { reason: "link".into() }));
        assert_eq!((counters.jobs, counters.remote, counters.local), (3, 2, 1));
        assert_eq!(counters.remote_by_mode, BTreeMap::from([(Mode::A, 0), (Mode::B, 2)]));
        assert_eq!(counters.local_by_reason, BTreeMap::from([("link".to_owned(), 1)]));
        assert_eq!(counters.fallbacks_by_reason["worker_fault"], 2);
        assert_eq!(counters.bytes_sent, 20);
    }

    #[test]
    fn sums_hold_what_both_counted() {
        let mut one = Counters::default();
        one.count(&remote("n1"));
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!((sum.jobs, sum.remote_by_worker["n1"]), (2, 2));
    }

    #[test]
    fn json_has_the_promised_keys_and_old_files_without_some_are_read() {
        let json = serde_json::to_value(Counters::default()).expect("plain data");
        for key in "jobs remote local remote_by_mode local_by_reason remote_by_worker fallbacks_by_reason cache_hits \
                    bytes_sent bytes_received"
            .split_whitespace()
        {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json["remote_by_mode"]["A"], 0);
        let old: Counters = serde_json::from_str(r#"{"jobs": 3}"#).expect("other keys are optional");
        assert_eq!(old.jobs, 3);
    }
}

//! What audits have found, by node: for `rdcc audit`, and for the list of files that a wrong node made.
//!
//! Pure; `agent/ledger.rs` keeps it. A node counts as good up to the last of its results that another node confirmed:
//! what it made after that is not known to be right once it is found wrong. Invariant: at most [`NODES_MAX`] nodes and
//! [`FINDINGS_MAX`] findings, whatever is noted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record::{JobRecord, Ran};

/// Most nodes that are told apart; beyond, new ones are not taken.
const NODES_MAX: usize = 4096;
/// Most findings that are kept; the oldest go first.
const FINDINGS_MAX: usize = 64;

/// What one audit says of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditNote {
    /// A result was confirmed.
    Good {
        /// The node.
        node: String,
        /// When it made the result, milliseconds since 1970.
        made_unix_ms: u64,
    },
    /// A result is wrong.
    Wrong {
        /// The node.
        node: String,
        /// When it made the result, milliseconds since 1970.
        made_unix_ms: u64,
        /// When that was found, likewise.
        found_unix_ms: u64,
        /// What was found, for people.
        what: String,
    },
}

/// All that audits have found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audits {
    /// By node.
    pub nodes: BTreeMap<String, NodeAudits>,
    /// Nodes that were found wrong, oldest first.
    pub findings: Vec<Finding>,
}

/// What audits have found of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAudits {
    /// Results that another node confirmed.
    pub confirmed: u64,
    /// When it made the newest of these, milliseconds since 1970; 0 when there is none.
    pub good_unix_ms: u64,
    /// Results that two other nodes contradicted.
    pub wrong: u64,
}

/// A node that was found wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The node.
    pub node: String,
    /// When it was last known to be right, milliseconds since 1970; 0 when it never was.
    pub since_unix_ms: u64,
    /// When it was found wrong.
    pub found_unix_ms: u64,
    /// What was found.
    pub what: String,
}

/// A finding with the files that the node made since it was last known to be right, and that nothing has made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
    /// The files, as they are named in the records of jobs.
    #[serde(with = "super::record::paths")]
    pub files: Vec<PathBuf>,
}

/// The answer to `rdcc audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// By node.
    pub nodes: BTreeMap<String, NodeAudits>,
    /// Nodes that were found wrong, oldest first.
    pub findings: Vec<Suspicion>,
}

impl Audits {
    /// Takes a note in.
    pub fn note(&mut self, note: &AuditNote) {
        let (AuditNote::Good { node: name, .. } | AuditNote::Wrong { node: name, .. }) = note;
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(name) {
            return;
        }
        let node = self.nodes.entry(name.clone()).or_default();
        match note {
            AuditNote::Good { made_unix_ms, .. } => {
                node.confirmed += 1;
                node.good_unix_ms = node.good_unix_ms.max(*made_unix_ms);
            }
            AuditNote::Wrong {
                made_unix_ms,
                found_unix_ms,
                what,
                ..
            } => {
                node.wrong += 1;
                // A clock that was set back says nothing of what came before what: then all that the node made counts.
                let was_set_back = node.good_unix_ms.max(*made_unix_ms) > *found_unix_ms;
                let finding = Finding {
                    node: name.clone(),
                    since_unix_ms: match was_set_back {
                        true => 0,
                        false => node.good_unix_ms.min(*made_unix_ms),
                    },
                    found_unix_ms: node.good_unix_ms.max(*made_unix_ms).max(*found_unix_ms),
                    what: what.clone(),
                };
                if self.findings.len() >= FINDINGS_MAX {
                    self.findings.remove(0);
                }
                self.findings.push(finding);
            }
        }
    }

    /// Begins to look for the files that wrong nodes made.
    pub fn suspects(&self) -> Suspects<'_> {
        Suspects {
            findings: &self.findings,
            files: BTreeMap::new(),
        }
    }
}

/// Finds the files that wrong nodes made. Is shown all jobs, oldest first.
#[derive(Debug)]
pub struct Suspects<'a> {
    findings: &'a [Finding],
    /// The finding of each file.
    files: BTreeMap<PathBuf, usize>,
}

impl Suspects<'_> {
    /// Takes in a job.
    pub fn see(&mut self, record: JobRecord) {
        let finding = match &record.ran {
            Ran::Remote { worker, .. } => self.findings.iter().position(|finding| {
                let while_wrong = finding.since_unix_ms..=finding.found_unix_ms;
                finding.node == *worker && while_wrong.contains(&record.ended_unix_ms)
            }),
            Ran::Local { .. } => None,
        };
        for output in record.outputs {
            match finding {
                Some(finding) => self.files.insert(output, finding),
                // It has been made anew.
                None => self.files.remove(&output),
            };
        }
    }

    /// Returns what is left of them, by finding.
    pub fn finish(self) -> Vec<Suspicion> {
        let mut all: Vec<Suspicion> = self
            .findings
            .iter()
            .map(|finding| Suspicion {
                finding: finding.clone(),
                files: Vec::new(),
            })
            .collect();
        for (file, finding) in self.files {
            all[finding].files.push(file);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Mode;

    fn job(worker: Option<&str>, ended_unix_ms: u64, output: &str) -> JobRecord {
        let mut record = JobRecord::new(match worker {
            Some(worker) => Ran::Remote {
                mode: Mode::A,
                worker: worker.into(),
            },
            None => Ran::Local { reason: "link".into() },
        });
        record.ended_unix_ms = ended_unix_ms;
        record.outputs = vec![output.into()];
        record
    }

    fn good(node: &str, made_unix_ms: u64) -> AuditNote {
        let node = node.to_owned();
        AuditNote::Good { node, made_unix_ms }
    }

    fn wrong(node: &str, made_unix_ms: u64, found_unix_ms: u64) -> AuditNote {
        AuditNote::Wrong {
            node: node.to_owned(),
            made_unix_ms,
            found_unix_ms,
            what: "x".to_owned(),
        }
    }

    #[test]
    fn what_a_wrong_node_made_since_it_was_good_is_suspect_until_it_is_made_anew() {
        let mut audits = Audits::default();
        [good("bad", 300), good("bad", 200), wrong("bad", 650, 700)]
            .iter()
            .for_each(|note| audits.note(note));
        let mut suspects = audits.suspects();
        for record in [
            job(Some("bad"), 299, "before"),
            job(Some("bad"), 400, "anew"),
            job(Some("bad"), 500, "here"),
            job(Some("bad"), 600, "suspect"),
            job(Some("good"), 600, "elsewhere"),
            job(Some("bad"), 700, "found"),
            job(Some("bad"), 701, "after its release"),
            job(Some("good"), 800, "anew"),
            job(None, 800, "here"),
        ] {
            suspects.see(record);
        }
        let [Suspicion { finding, files }] = &suspects.finish()[..] else {
            panic!("one finding")
        };
        assert_eq!((finding.since_unix_ms, finding.found_unix_ms), (300, 700));
        assert_eq!(files, &[PathBuf::from("found"), PathBuf::from("suspect")]);
    }

    #[test]
    fn all_that_a_wrong_node_made_is_suspect_when_the_clock_was_set_back() {
        let mut audits = Audits::default();
        for note in [good("bad", 300), good("bad", 86_700), wrong("bad", 650, 700)] {
            audits.note(&note);
        }
        let mut suspects = audits.suspects();
        for (ended, output) in [(299, "before"), (86_650, "ahead"), (600, "after")] {
            suspects.see(job(Some("bad"), ended, output));
        }
        let found = suspects.finish();
        assert_eq!(found[0].files, ["after", "ahead", "before"].map(PathBuf::from));
    }

    #[test]
    fn findings_and_nodes_are_bounded() {
        let mut audits = Audits::default();
        for number in 0..2 * NODES_MAX as u64 {
            audits.note(&good(&format!("n{number}"), number));
            audits.note(&wrong("n0", number, number));
        }
        assert_eq!((audits.nodes.len(), audits.findings.len()), (NODES_MAX, FINDINGS_MAX));
        assert_eq!(
            audits.findings.last().map(|finding| finding.found_unix_ms),
            Some(2 * NODES_MAX as u64 - 1)
        );
    }
}

//! Which identity may stand in for which other one: the certified pairs of everything that names stand for now; and the
//! objects by which workers make sure of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Record, Registry, Standing};
use crate::ids::ToolchainId;
use crate::toolchains::certification::{Certification, foreign_header, level_between};
use crate::toolchains::definition::Certify;
use crate::toolchains::golden::Golden;
use crate::toolchains::host::Host;

/// Who may stand in for a toolchain, by kind of host, and how equal its objects are.
pub type Pairs = BTreeMap<ToolchainId, BTreeMap<Host, (ToolchainId, Certify)>>;

impl Registry {
    /// Returns the golden objects of an identity, under whichever name it was pushed with some.
    pub fn golden(&self, id: ToolchainId) -> Option<Arc<Golden>> {
        let kept = self.list();
        let of_it = kept
            .iter()
            .filter(|record| record.id == id)
            .map(|record| &record.golden);
        of_it.max_by_key(|golden| golden.objects().len()).cloned()
    }

    /// Works out who may stand in for whom. Made anew out of what is stored, so that it cannot be out of date.
    ///
    /// An identity with several names may have several candidates for one kind of host: the most equal one counts, and
    /// among equals the one with the least digest.
    pub fn pairs(&self) -> Pairs {
        let mut current = self.list();
        current.retain(|record| record.standing == Standing::Current);
        let certified = current.iter().map(|record| (record, self.certification(record)));
        let certified: Vec<(&Record, Certification)> = certified.collect();
        let mut pairs = Pairs::new();
        for (own, by_own) in &certified {
            for (other, by_other) in &certified {
                let (host, kind) = (own.manifest.host(), other.manifest.host());
                if own.name != other.name || host == kind {
                    continue;
                }
                let Some(level) = level_between((own.id, by_own), (other.id, by_other)) else {
                    continue;
                };
                if let Some(path) = foreign_header(&own.manifest, &other.manifest) {
                    let (own, other) = (own.id.0.short(), other.id.0.short());
                    let path = path.display();
                    tracing::warn!(%path, "toolchain {other} does not stand in for {own}: it has another header there");
                    continue;
                }
                let of_host = pairs.entry(own.id).or_default().entry(kind);
                let candidate = (other.id, level);
                let best = of_host.or_insert(candidate);
                if (candidate.1, candidate.0) < (best.1, best.0) {
                    *best = candidate;
                }
            }
        }
        pairs
    }
}

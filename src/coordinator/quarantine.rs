//! Quarantine: nodes whose results were found wrong get no jobs until an administrator lets them work again.
//!
//! It is agents that compare results (`audit` in their settings), and they say so: two other nodes agreed against this
//! one. Its jobs under way are void at once, since nobody should use what they make, and what it would have got goes to
//! others. An agent that lies could take nodes out of the farm; so a quarter of the connected nodes at most, and one at
//! least, are in quarantine, and what an accusation beyond that says is shown beside its node and no more. Invariant: a
//! node in quarantine is not usable, however often it, or the coordinator, comes back.

use std::collections::BTreeMap;

use super::events::{Action, VoidReason};
use super::scheduler::Scheduler;
use crate::ids::{AgentSessionId, GrantId, Name};
use crate::store::packed::{Packer, Unpacker};

/// Of so many connected nodes one may be in quarantine.
const NODES_FOR_EACH: usize = 4;
/// Nodes in quarantine that are kept.
const ENTRIES_MAX: usize = 4096;
/// Longest text of an accusation, bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 500;
/// Most bytes that [`Quarantine::pack`] makes.
pub const BYTES_MAX: usize = ENTRIES_MAX * 2048;

/// Why a node is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accusation {
    /// Who found it, for people.
    pub by: String,
    /// What was found, for people.
    pub what: String,
}

impl Accusation {
    fn new(by: String, what: &str) -> Self {
        let mut what = what.to_owned();
        while what.len() > TEXT_BYTES_MAX {
            what.pop();
        }
        Self { by, what }
    }
}

/// The nodes in quarantine, with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine(BTreeMap<Name, Accusation>);

impl Quarantine {
    /// Returns why a node is in it.
    pub fn of(&self, name: &Name) -> Option<&Accusation> {
        self.0.get(name)
    }

    /// Writes it down.
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = Packer::default();
        packer.number(self.0.len() as u64);
        for (name, accusation) in &self.0 {
            for text in [name.as_str(), &accusation.by, &accusation.what] {
                packer.bytes(text.as_bytes());
            }
        }
        packer.finish()
    }

    /// Reads what [`Quarantine::pack`] wrote. `None` for anything else.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Unpacker::new(bytes);
        let count = bytes.count().filter(|count| *count <= ENTRIES_MAX)?;
        let mut text = || Some(std::str::from_utf8(bytes.bytes()?).ok()?.to_owned());
        let mut entry = |_| {
            let name = Name::new(&text()?).ok()?;
            let (by, what) = (text()?, text()?);
            Some((name, Accusation { by, what }))
        };
        let entries = (0..count).map(&mut entry).collect::<Option<_>>()?;
        bytes.is_empty().then_some(Self(entries))
    }
}

impl Scheduler {
    /// Returns the nodes in quarantine.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Takes what an earlier life of the coordinator knew.
    pub(super) fn handle_quarantine_kept(&mut self, kept: Quarantine) {
        self.quarantine = kept;
    }

    pub(super) fn handle_accused(&mut self, id: AgentSessionId, name: &Name, what: &str) {
        let Some(agent) = self.agents.get(&id) else { return };
        let accusation = Accusation::new(format!("{}@{}", agent.hello.user, agent.hello.host), what);
        let Some(worker_id) = self.names.get(name).copied() else {
            return;
        };
        if self.quarantine.0.contains_key(name) {
            return;
        }
        let connected = self.quarantine.0.keys().filter(|name| self.names.contains_key(*name));
        let room = connected.count() < (self.names.len() / NODES_FOR_EACH).max(1);
        let Some(worker) = self.workers.get_mut(&worker_id) else {
            return;
        };
        if !room || self.quarantine.0.len() >= ENTRIES_MAX {
            worker.accused = Some(accusation);
            return;
        }
        worker.quarantined = true;
        let grants: Vec<GrantId> = worker.grants.iter().copied().collect();
        self.quarantine.0.insert(name.clone(), accusation);
        self.act(Action::KeepQuarantine);
        for grant in grants {
            self.tell_agent_void(grant, VoidReason::Distrusted);
            self.abandon_grant(grant);
        }
        self.relist(worker_id);
    }

    /// An administrator lets a node work again. Returns whether it was in quarantine.
    pub(super) fn release_from_quarantine(&mut self, name: &Name) -> bool {
        let released = self.quarantine.0.remove(name).is_some();
        if released {
            self.act(Action::KeepQuarantine);
        }
        let id = self.names.get(name).copied();
        if let Some(worker) = id.and_then(|id| self.workers.get_mut(&id)) {
            worker.quarantined = false;
            worker.accused = None;
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again_and_nothing_else_does() {
        let name = Name::new("board").expect("a name");
        let accusation = Accusation::new("u@h".into(), &"ä".repeat(TEXT_BYTES_MAX));
        assert!(accusation.what.len() <= TEXT_BYTES_MAX);
        let kept = Quarantine([(name.clone(), accusation)].into());
        let bytes = kept.pack();
        assert_eq!(Quarantine::unpack(&bytes).as_ref(), Some(&kept));
        assert!(kept.of(&name).is_some());
        for end in 0..bytes.len() {
            assert_eq!(Quarantine::unpack(&bytes[..end]), None, "{end} bytes");
        }
        let longer = [bytes, vec![0]].concat();
        assert_eq!(Quarantine::unpack(&longer), None);
    }
}

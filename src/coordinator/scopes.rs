//! What a want may be served by: just its own toolchain, or also the variants that are certified to make the same objects.
//!
//! A table of who stands in for whom, and on which kind of host; it comes from the registry as a whole, whenever that
//! changes. Invariants: a toolchain is run for another one only while the table says so; for each scope a kind of host has
//! at most one toolchain.

use std::collections::{BTreeMap, BTreeSet};

use super::events::{HostKind, StandIn};
use crate::ids::ToolchainId;

/// What the jobs of one supply may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scope {
    /// The toolchain itself.
    Own(ToolchainId),
    /// The toolchain, and its certified variants on other kinds of host.
    Variants(ToolchainId),
}

impl Scope {
    /// Returns the toolchain that the jobs are of.
    pub fn toolchain(self) -> ToolchainId {
        let (Scope::Own(toolchain) | Scope::Variants(toolchain)) = self;
        toolchain
    }
}

/// Who stands in for whom.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    hosts: BTreeMap<ToolchainId, HostKind>,
    stand_ins: BTreeMap<ToolchainId, BTreeMap<HostKind, StandIn>>,
    /// The toolchains that each one is run for, besides itself.
    serves: BTreeMap<ToolchainId, BTreeSet<ToolchainId>>,
}

impl Scopes {
    /// Takes a toolchain into the catalogue.
    pub fn add(&mut self, toolchain: ToolchainId, host: HostKind) {
        self.hosts.entry(toolchain).or_insert(host);
    }

    /// Takes a toolchain out of the catalogue. Nobody stands in for it by then, nor it for anybody.
    pub fn remove(&mut self, toolchain: ToolchainId) {
        self.hosts.remove(&toolchain);
    }

    /// Iterates over all toolchains of the catalogue.
    pub fn catalogue(&self) -> impl Iterator<Item = (ToolchainId, &HostKind)> {
        self.hosts.iter().map(|(toolchain, host)| (*toolchain, host))
    }

    /// Returns the kind of host that a toolchain runs on.
    pub fn host_of(&self, toolchain: ToolchainId) -> Option<&HostKind> {
        self.hosts.get(&toolchain)
    }

    /// Returns the toolchains that have stand-ins.
    pub fn with_stand_ins(&self) -> BTreeSet<ToolchainId> {
        self.stand_ins.keys().copied().collect()
    }

    /// Returns the toolchains that `toolchain` stands in for.
    pub fn served_by(&self, toolchain: ToolchainId) -> Vec<ToolchainId> {
        self.serves.get(&toolchain).into_iter().flatten().copied().collect()
    }

    /// Returns who stands in for a toolchain, by kind of host.
    pub fn stand_ins_of(&self, toolchain: ToolchainId) -> BTreeMap<HostKind, StandIn> {
        self.stand_ins.get(&toolchain).cloned().unwrap_or_default()
    }

    /// Replaces those who stand in for a toolchain. What is not in the catalogue, or runs on the toolchain's own kind of host
    /// or on another one than it is said to, is left out.
    pub fn set(&mut self, toolchain: ToolchainId, stand_ins: BTreeMap<HostKind, StandIn>) {
        for before in self.stand_ins.remove(&toolchain).into_iter().flatten() {
            if let Some(served) = self.serves.get_mut(&before.1.toolchain) {
                served.remove(&toolchain);
                if served.is_empty() {
                    self.serves.remove(&before.1.toolchain);
                }
            }
        }
        let Some(own) = self.hosts.get(&toolchain) else { return };
        let kept = stand_ins.into_iter().filter(|(host, stand_in)| {
            host != own && stand_in.toolchain != toolchain && self.hosts.get(&stand_in.toolchain) == Some(host)
        });
        let kept: BTreeMap<HostKind, StandIn> = kept.collect();
        for stand_in in kept.values() {
            self.serves.entry(stand_in.toolchain).or_default().insert(toolchain);
        }
        if !kept.is_empty() {
            self.stand_ins.insert(toolchain, kept);
        }
    }

    /// Returns the toolchain that a worker of kind `host` runs for the jobs of `scope`.
    pub fn tool(&self, scope: Scope, host: &HostKind) -> Option<ToolchainId> {
        match scope {
            Scope::Own(toolchain) => Some(toolchain),
            Scope::Variants(toolchain) if self.hosts.get(&toolchain) == Some(host) => Some(toolchain),
            Scope::Variants(toolchain) => Some(self.stand_ins.get(&toolchain)?.get(host)?.toolchain),
        }
    }

    /// Returns who stands in for the jobs of `scope` on workers of kind `host`; nobody where it is the toolchain itself.
    pub fn stand_in(&self, scope: Scope, host: &HostKind) -> Option<&StandIn> {
        let Scope::Variants(toolchain) = scope else { return None };
        self.stand_ins.get(&toolchain)?.get(host)
    }

    /// Returns the scopes whose jobs a worker of kind `host` runs with `toolchain`.
    pub fn of_tool(&self, toolchain: ToolchainId, host: &HostKind) -> Vec<Scope> {
        let mut scopes = vec![Scope::Own(toolchain)];
        let served = self.serves.get(&toolchain).into_iter().flatten();
        let served = std::iter::once(&toolchain).chain(served);
        let variants = served.map(|served| Scope::Variants(*served));
        scopes.extend(variants.filter(|scope| self.tool(*scope, host) == Some(toolchain)));
        scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::toolchains::definition::Certify;

    fn tool(name: &str) -> ToolchainId {
        ToolchainId(Digest::of(name.as_bytes()))
    }

    fn host(name: &str) -> HostKind {
        HostKind(name.to_owned())
    }

    fn stand_ins(of: &[(&str, &str)]) -> BTreeMap<HostKind, StandIn> {
        let stand_in = |name: &str| StandIn {
            toolchain: tool(name),
            level: Certify::Identical,
        };
        of.iter().map(|(kind, name)| (host(kind), stand_in(name))).collect()
    }

    #[test]
    fn a_stand_in_runs_only_where_the_table_says() {
        let mut scopes = Scopes::default();
        for (name, kind) in [("board", "arm"), ("pc", "x86"), ("other", "x86")] {
            scopes.add(tool(name), host(kind));
        }
        let wanted = Scope::Variants(tool("board"));
        assert_eq!(scopes.tool(wanted, &host("x86")), None);
        scopes.set(tool("board"), stand_ins(&[("x86", "pc")]));
        assert_eq!(scopes.tool(wanted, &host("x86")), Some(tool("pc")));
        assert_eq!(scopes.tool(wanted, &host("arm")), Some(tool("board")));
        assert_eq!(scopes.tool(wanted, &host("riscv")), None);
        assert_eq!(
            scopes.tool(Scope::Variants(tool("pc")), &host("arm")),
            None,
            "not the other way"
        );
        assert_eq!(scopes.of_tool(tool("pc"), &host("x86")).len(), 3);
        assert_eq!(scopes.of_tool(tool("other"), &host("x86")).len(), 2);
        assert_eq!(scopes.served_by(tool("pc")), [tool("board")]);
        scopes.set(tool("board"), BTreeMap::new());
        assert_eq!(scopes.tool(wanted, &host("x86")), None);
        assert!(scopes.served_by(tool("pc")).is_empty() && scopes.with_stand_ins().is_empty());
    }

    #[test]
    fn what_cannot_be_is_left_out_of_the_table() {
        let mut scopes = Scopes::default();
        for (name, kind) in [("board", "arm"), ("pc", "x86")] {
            scopes.add(tool(name), host(kind));
        }
        for wrong in [("arm", "board"), ("arm", "pc"), ("riscv", "pc"), ("x86", "unknown")] {
            scopes.set(tool("board"), stand_ins(&[wrong]));
            assert!(scopes.stand_ins_of(tool("board")).is_empty(), "{wrong:?}");
        }
        scopes.set(tool("unknown"), stand_ins(&[("x86", "pc")]));
        assert!(scopes.with_stand_ins().is_empty());
    }
}

//! `rdcc status`, `rdcc nodes`, `rdcc jobs`: how the cluster and this machine's agent are doing.
//!
//! Pure: reports in, text out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::cluster::{Cluster, Cores, Node, Toolchain};
use super::table::{Side, Table, bytes, span};
use crate::exchange::AgentReport;
use crate::ids::ToolchainId;

/// What identities are called.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<ToolchainId, String>);

impl Names {
    pub(super) fn new(toolchains: &[Toolchain]) -> Self {
        let current = toolchains.iter().filter(|toolchain| toolchain.current);
        Self(
            current
                .map(|toolchain| (toolchain.identity, toolchain.name.clone()))
                .collect(),
        )
    }

    /// Returns the name, or the beginning of the identity.
    fn of(&self, toolchain: ToolchainId) -> String {
        self.0.get(&toolchain).cloned().unwrap_or_else(|| toolchain.0.short())
    }
}

pub(super) fn status(cluster: Option<&Cluster>, address: &str, agent: Option<&AgentReport>) -> String {
    let mut text = String::new();
    if let Some(cluster) = cluster {
        let ready = cluster.nodes.iter().filter(|node| node.state == "ready").count();
        let slots: u32 = cluster.nodes.iter().map(|node| node.slots).sum();
        let busy: u32 = cluster.nodes.iter().map(|node| node.busy).sum();
        let _ = write!(
            text,
            "coordinator  {address}, version {}, up {}\n\
             nodes        {}, {ready} ready; {slots} slots, {busy} busy\n\
             jobs         {} running, {} waiting\n\
             agents       {}\n",
            cluster.version,
            span(cluster.uptime_s * 1000),
            cluster.nodes.len(),
            cluster.running,
            cluster.queued,
            cluster.agents.len(),
        );
        if !cluster.warning.is_empty() {
            let _ = writeln!(text, "  {}", cluster.warning);
        }
        for node in cluster
            .nodes
            .iter()
            .filter(|node| node.state != "ready" || !node.note.is_empty())
        {
            let _ = writeln!(text, "  {}: {}{}", node.name, node.state, after_comma(&node.note));
        }
    }
    match agent {
        Some(agent) => {
            let _ = writeln!(
                text,
                "this agent   process {}, version {}, up {}, {} jobs; {}",
                agent.pid,
                agent.version,
                span(agent.uptime_s * 1000),
                agent.jobs.len(),
                agent.link
            );
            for remark in &agent.remarks {
                let _ = writeln!(text, "  {remark}");
            }
        }
        None => text.push_str("this agent   not running; it starts with the next compile\n"),
    }
    text
}

fn after_comma(note: &str) -> String {
    if note.is_empty() {
        String::new()
    } else {
        format!(", {note}")
    }
}

/// Writes something about each group of a node's cores; `None` when they are alike.
fn of_each(node: &Node, between: &str, write: impl Fn(&Cores) -> String) -> Option<String> {
    let written: Vec<String> = node.cores.iter().map(write).collect();
    (!written.is_empty()).then(|| written.join(between))
}

pub(super) fn nodes(cluster: &Cluster, names: &Names) -> String {
    use Side::{Left, Right};
    let mut table = Table::new(&[
        ("NODE", Left),
        ("STATE", Left),
        ("BUSY", Right),
        ("SLOTS", Right),
        ("POWER", Right),
        ("LEARNED", Right),
        ("HOST", Left),
        ("FREE", Right),
        ("DONE", Right),
        ("FAULTS", Right),
        ("SANDBOX", Left),
        ("TOOLCHAINS", Left),
        ("NOTE", Left),
    ]);
    for node in &cluster.nodes {
        let toolchains: Vec<String> = node
            .toolchains
            .iter()
            .map(|known| format!("{} ({})", names.of(known.toolchain), known.state))
            .collect();
        table.row([
            node.name.clone(),
            node.state.clone(),
            node.busy.to_string(),
            of_each(node, "+", |cores| cores.slots.to_string()).unwrap_or_else(|| node.slots.to_string()),
            of_each(node, "/", |cores| format!("{:.2}", cores.power)).unwrap_or_else(|| format!("{:.2}", node.power)),
            node.learned_power
                .map(|power| format!("{power:.2}"))
                .unwrap_or_default(),
            node.host_kind.clone(),
            bytes(node.memory_available_bytes),
            node.jobs_done.to_string(),
            node.faults.to_string(),
            node.sandbox.clone(),
            toolchains.join(", "),
            node.note.clone(),
        ]);
    }
    table.render()
}

pub(super) fn jobs(cluster: Option<&Cluster>, names: &Names, agent: Option<&AgentReport>) -> String {
    use Side::{Left, Right};
    let mut text = String::new();
    if let Some(cluster) = cluster {
        let mut table = Table::new(&[
            ("GRANT", Right),
            ("NODE", Left),
            ("FROM", Left),
            ("TOOLCHAIN", Left),
            ("AGE", Right),
        ]);
        for job in &cluster.jobs {
            table.row([
                job.grant.to_string(),
                job.node.clone(),
                job.host.clone(),
                job.toolchain
                    .map_or_else(|| "?".to_owned(), |toolchain| names.of(toolchain)),
                span(job.age_ms),
            ]);
        }
        text.push_str(&table.render());
    }
    if let Some(agent) = agent.filter(|agent| !agent.jobs.is_empty()) {
        text.push('\n');
        let mut table = Table::new(&[("JOB", Right), ("PHASE", Left), ("AGE", Right), ("SOURCE", Left)]);
        for job in &agent.jobs {
            table.row([
                job.job.to_string(),
                job.phase.clone(),
                span(job.age_ms),
                job.source.clone(),
            ]);
        }
        text.push_str(&table.render());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::cluster::{Job, NodeToolchain};
    use crate::digest::Digest;

    fn cluster() -> Cluster {
        let toolchain = ToolchainId(Digest::of(b"t"));
        let node = |name: &str, state: &str, known: &'static str| Node {
            name: name.into(),
            address: "127.0.0.1:1".into(),
            state: state.into(),
            slots: 2,
            busy: 1,
            power: 0.25,
            cores: Vec::new(),
            learned_power: Some(0.31),
            host_kind: "armv7-linux".into(),
            sandbox: "namespaces".into(),
            toolchains: vec![NodeToolchain {
                toolchain,
                state: known,
                message: String::new(),
            }],
            jobs_done: 12,
            faults: 0,
            memory_available_bytes: 900_000_000,
            version: "0.1.0".into(),
            note: String::new(),
        };
        Cluster {
            version: "0.1.0".into(),
            warning: String::new(),
            uptime_s: 90,
            queued: 3,
            running: 1,
            nodes: vec![
                node("n1", "ready", "bundle"),
                node("n2", "ready", "failed"),
                node("n3", "draining", "installed"),
            ],
            agents: Vec::new(),
            jobs: vec![Job {
                grant: 7,
                node: "n1".into(),
                host: "pc".into(),
                toolchain: Some(toolchain),
                age_ms: 1500,
            }],
        }
    }

    #[test]
    fn slots_are_those_of_nodes_that_can_take_the_toolchain() {
        let toolchain = ToolchainId(Digest::of(b"t"));
        assert_eq!(cluster().usable_slots(None), 4);
        assert_eq!(cluster().usable_slots(Some(&[toolchain])), 2);
        assert_eq!(cluster().usable_slots(Some(&[ToolchainId(Digest::of(b"u"))])), 4);
    }

    #[test]
    fn status_names_what_is_not_as_it_should_be() {
        let text = status(Some(&cluster()), "http://c:1", None);
        assert!(text.contains("nodes        3, 2 ready; 6 slots, 3 busy\n"), "{text}");
        assert!(text.contains("  n3: draining\n"), "{text}");
        assert!(text.contains("not running"), "{text}");
        let report = AgentReport {
            remarks: vec!["toolchain `x` is not known".into()],
            ..AgentReport::default()
        };
        assert!(status(None, "", Some(&report)).contains("  toolchain `x` is not known\n"));
    }

    #[test]
    fn known_toolchains_are_named() {
        let named = Names(BTreeMap::from([(ToolchainId(Digest::of(b"t")), "arm926".to_owned())]));
        let text = nodes(&cluster(), &named);
        assert!(text.contains("arm926 (bundle)"), "{text}");
        assert!(text.contains(" 0.25 ") && text.contains(" 0.31 "), "{text}");
        assert!(jobs(Some(&cluster()), &named, None).contains("arm926"));
        let nameless = jobs(Some(&cluster()), &Names::default(), None);
        assert!(nameless.contains(&Digest::of(b"t").short()), "{nameless}");
    }
}

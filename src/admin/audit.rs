//! `rdcc audit`: what audits have found, and which files wrong nodes made.
//!
//! Pure.

use std::fmt::Write as _;

use super::table::{Side, Table, span};
use crate::exchange::AuditReport;

/// Says what is known. Files are one to a line, so that they can be passed on.
pub(super) fn render(report: &AuditReport, now_unix_ms: u64) -> String {
    let age = |at: u64| format!("{} ago", span(now_unix_ms.saturating_sub(at)));
    if report.nodes.is_empty() {
        return "nothing has been audited; `audit = 0.01` in the settings has one job of a hundred done twice\n"
            .to_owned();
    }
    let mut table = Table::new(&[
        ("NODE", Side::Left),
        ("CONFIRMED", Side::Right),
        ("LAST GOOD", Side::Left),
        ("WRONG", Side::Right),
    ]);
    for (name, node) in &report.nodes {
        let good = match node.good_unix_ms {
            0 => "never".to_owned(),
            at => age(at),
        };
        table.row([name.clone(), node.confirmed.to_string(), good, node.wrong.to_string()]);
    }
    let mut text = table.render();
    for suspicion in &report.findings {
        let finding = &suspicion.finding;
        let _ = writeln!(
            text,
            "\n{} was found wrong {}: {}",
            finding.node,
            age(finding.found_unix_ms),
            finding.what
        );
        let since = match finding.since_unix_ms {
            0 => "it was never known to be right".to_owned(),
            at => format!("it was last known to be right {}", age(at)),
        };
        match suspicion.files.len() {
            0 => _ = writeln!(text, "  {since}; nothing that is known to be its work is left"),
            count => _ = writeln!(text, "  {since}; compile again what it made since ({count} files):"),
        }
        for file in &suspicion.files {
            let _ = writeln!(text, "  {}", file.display());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::audits::{Finding, NodeAudits, Suspicion};

    #[test]
    fn files_of_a_wrong_node_are_listed() {
        let node = |confirmed, good_unix_ms, wrong| NodeAudits {
            confirmed,
            good_unix_ms,
            wrong,
        };
        let finding = |since_unix_ms, files: &[&str]| Suspicion {
            finding: Finding {
                node: "bad".into(),
                since_unix_ms,
                found_unix_ms: 90_000,
                what: "other bits".into(),
            },
            files: files.iter().map(Into::into).collect(),
        };
        let report = AuditReport {
            nodes: [("bad".into(), node(3, 40_000, 1)), ("n1".into(), node(0, 0, 0))].into(),
            findings: vec![finding(40_000, &["/b/a.o", "/b/c.o"]), finding(0, &[])],
        };
        let text = render(&report, 100_000);
        for expected in [
            "bad           3  60 s ago       1",
            "n1            0  never          0",
            "bad was found wrong 10 s ago: other bits",
            "last known to be right 60 s ago; compile again what it made since (2 files):\n  /b/a.o\n  /b/c.o\n",
            "never known to be right; nothing",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(render(&AuditReport::default(), 0).contains("audit = 0.01"));
    }
}

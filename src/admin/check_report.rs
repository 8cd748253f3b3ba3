//! What `rdcc check` found, and how it is said.
//!
//! Pure. The field names are keys of `rdcc check --json`.

use serde::Serialize;

use super::table::{Side, Table};
use crate::toolchains::definition::{Certify, Language};
use crate::toolchains::objects::{Agreement, compare};

/// What became of one node's compiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "why")]
pub(super) enum Finding {
    /// Every object is this machine's, byte for byte.
    Same,
    /// Every object is this machine's but for the compiler's name in `.comment`, as the toolchain file allows.
    SameCode,
    /// It was not asked, and need not be.
    NotAsked(String),
    /// It failed, or made something else.
    Wrong(String),
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct NodeFinding {
    pub(super) node: String,
    #[serde(flatten)]
    pub(super) finding: Finding,
    /// From asking to the object's arrival, all languages; with the toolchain's fetch, where the node had to.
    pub(super) took_ms: u64,
    /// `installed` or `bundle`, or why neither; empty when the node was never told of it.
    pub(super) toolchain: &'static str,
}

/// Compares the object that came from a node with the one made here. `allowed` is how equal they have to be.
pub(super) fn compared(language: Language, here: &[u8], there: Result<Vec<u8>, String>, allowed: Certify) -> Finding {
    let there = match there {
        Ok(there) => there,
        Err(why) => return Finding::Wrong(format!("{language}: {why}")),
    };
    match compare(here, &there) {
        Agreement::Identical => Finding::Same,
        Agreement::SameCode if allowed == Certify::SameCode => Finding::SameCode,
        Agreement::SameCode => Finding::Wrong(format!("{language}: the object differs in `.comment`")),
        Agreement::Different(difference) => Finding::Wrong(format!("{language}: the object differs: {difference}")),
    }
}

/// Says it as a table.
pub(super) fn render(findings: &[NodeFinding]) -> String {
    let mut table = Table::new(&[
        ("NODE", Side::Left),
        ("TOOLCHAIN", Side::Left),
        ("TIME", Side::Right),
        ("RESULT", Side::Left),
    ]);
    for found in findings {
        let time = match found.finding {
            Finding::NotAsked(_) => String::new(),
            _ => format!("{}.{:02} s", found.took_ms / 1000, found.took_ms % 1000 / 10),
        };
        let result = match &found.finding {
            Finding::Same => "ok, the same objects as here".to_owned(),
            Finding::SameCode => "ok, the same code as here".to_owned(),
            Finding::NotAsked(why) => format!("not asked: {why}"),
            Finding::Wrong(why) => format!("WRONG: {why}"),
        };
        table.row([found.node.clone(), found.toolchain.to_owned(), time, result]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_objects_are_the_same() {
        let failed = compared(Language::C, b"a", Err("disk full".to_owned()), Certify::SameCode);
        assert_eq!(failed, Finding::Wrong("c: disk full".to_owned()));
        assert_eq!(
            compared(Language::Cxx, b"a", Ok(b"a".to_vec()), Certify::Identical),
            Finding::Same
        );
        let Finding::Wrong(why) = compared(Language::Cxx, b"a", Ok(b"b".to_vec()), Certify::SameCode) else {
            panic!("different bytes")
        };
        assert!(why.starts_with("c++: the object differs"), "{why}");
    }

    #[test]
    fn every_node_has_its_line_and_the_wrong_one_shows() {
        let row = |node: &str, finding| NodeFinding {
            node: node.to_owned(),
            finding,
            took_ms: 1234,
            toolchain: "bundle",
        };
        let text = render(&[
            row("n1", Finding::Same),
            row("n2", Finding::NotAsked("it is drained".to_owned())),
            row("n3", Finding::Wrong("c: no".to_owned())),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].contains("1.23 s") && lines[1].ends_with("same objects as here"),
            "{text}"
        );
        assert!(lines[2].contains(" -  not asked: it is drained"), "{text}");
        assert!(lines[3].contains("WRONG: c: no"), "{text}");
    }
}

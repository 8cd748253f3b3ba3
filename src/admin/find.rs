//! `rdcc find`: coordinators that announce themselves on this machine's networks.
//!
//! Pure: what was found in, text out.

use std::fmt::Write as _;

use serde::Serialize;

use super::table::{Side, Table};
use crate::runtime::discovery::Found;

/// One coordinator, for `--json`.
#[derive(Debug, Serialize)]
pub(super) struct FoundFarm<'a> {
    name: &'a str,
    addresses: Vec<String>,
    version: &'a str,
    certificates: bool,
}

impl<'a> From<&'a Found> for FoundFarm<'a> {
    fn from(found: &'a Found) -> Self {
        Self {
            name: &found.name,
            addresses: found.addresses.iter().map(ToString::to_string).collect(),
            version: &found.version,
            certificates: found.certificates,
        }
    }
}

/// Lists what was found, and says what to do with it.
pub(super) fn render(found: &[Found]) -> String {
    if found.is_empty() {
        return "no coordinator announces itself here; `announce = true` in a coordinator's settings, or --announce, has it do so\n"
            .to_owned();
    }
    let mut table = Table::new(&[
        ("COORDINATOR", Side::Left),
        ("ADDRESS", Side::Left),
        ("VERSION", Side::Left),
        ("CERTIFICATES", Side::Left),
    ]);
    for farm in found.iter().map(FoundFarm::from) {
        let certificates = if farm.certificates { "yes" } else { "no" };
        table.row([
            farm.name.to_owned(),
            farm.addresses.join(" "),
            farm.version.to_owned(),
            certificates.to_owned(),
        ]);
    }
    let mut text = table.render();
    let _ = writeln!(
        text,
        "\nAnybody on this network can announce such names. Join by a token from the farm's administrator, who made it with\n\
         `rdcc token create --role client`: `rdcc join HOST TOKEN`, or `rdcc-worker join HOST TOKEN`; the token says which farm it is."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn farms_are_listed_with_a_warning() {
        let found = Found {
            name: "pc".into(),
            addresses: vec!["192.168.1.2:7420".parse().unwrap()],
            version: "0.1.0".into(),
            certificates: true,
        };
        let text = render(&[found]);
        assert!(text.contains("pc           192.168.1.2:7420  0.1.0    yes\n"), "{text}");
        assert!(text.contains("rdcc join HOST TOKEN"), "{text}");
        assert!(render(&[]).contains("announce = true"));
    }
}

//! `rdcc stats`: the counters for people.
//!
//! Pure.

use std::fmt::{Display, Write as _};

use super::table::{Side, Table, bytes, span};
use crate::exchange::Counters;

/// Says the counters for people; the parts come largest first.
pub(super) fn render(counters: &Counters) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "jobs       {}", counters.jobs);
    let _ = writeln!(
        text,
        "remote     {}{}",
        counters.remote,
        share(counters.remote, counters.jobs)
    );
    let _ = writeln!(
        text,
        "local      {}{}",
        counters.local,
        share(counters.local, counters.jobs)
    );
    let _ = writeln!(text, "failed     {} (the compiler's own errors)", counters.failed);
    let _ = writeln!(text, "cached     {}", counters.cache_hits);
    let _ = writeln!(text, "sent       {}", bytes(counters.bytes_sent));
    let _ = writeln!(text, "received   {}", bytes(counters.bytes_received));
    let _ = writeln!(text, "remote CPU {}", span(counters.remote_cpu_us / 1000));
    let modes = counters
        .remote_by_mode
        .iter()
        .map(|(mode, count)| (mode.as_str(), *count));
    section(&mut text, "REMOTE BY MODE", modes);
    section(&mut text, "REMOTE BY NODE", pairs(&counters.remote_by_worker));
    section(&mut text, "LOCAL BECAUSE", pairs(&counters.local_by_reason));
    section(&mut text, "DONE AGAIN BECAUSE", pairs(&counters.fallbacks_by_reason));
    text
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    format!(" ({} %)", part.saturating_mul(100) / whole)
}

fn pairs(map: &std::collections::BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
    map.iter().map(|(key, count)| (key.as_str(), *count))
}

fn section<K: Display + Ord>(text: &mut String, heading: &str, counts: impl Iterator<Item = (K, u64)>) {
    let mut counts: Vec<(K, u64)> = counts.filter(|(_, count)| *count != 0).collect();
    if counts.is_empty() {
        return;
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut table = Table::new(&[(heading, Side::Left), ("JOBS", Side::Right)]);
    for (key, count) in counts {
        table.row([key.to_string(), count.to_string()]);
    }
    text.push('\n');
    text.push_str(&table.render());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{JobRecord, Mode, Ran};

    #[test]
    fn largest_part_comes_first_and_empty_parts_are_left_out() {
        let mut counters = Counters::default();
        for worker in ["n1", "n2", "n2"] {
            let worker = worker.to_owned();
            counters.count(&JobRecord::new(Ran::Remote { mode: Mode::B, worker }));
        }
        let text = render(&counters);
        assert!(text.contains("remote     3 (100 %)"), "{text}");
        assert!(text.contains("REMOTE BY MODE  JOBS\nB                  3\n"), "{text}");
        assert!(text.contains("n2                 2\nn1                 1\n"), "{text}");
        assert!(!text.contains("LOCAL BECAUSE"), "{text}");
    }
}

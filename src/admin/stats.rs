//! `rdcc stats`: the counters for people.
//!
//! Pure.

use std::fmt::{Display, Write as _};

use super::table::{Side, Table, bytes, span};
use crate::exchange::{BuildSummary, Statistics};

/// Says the counters for people, the parts largest first, and how the last build did.
pub(super) fn render(statistics: &Statistics) -> String {
    let counters = &statistics.counters;
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
    if counters.raced != 0 {
        let (raced, won) = (counters.raced, counters.races_won);
        let _ = writeln!(text, "raced      {raced} ({won} won by the second copy)");
    }
    if counters.results_differ != 0 {
        let _ = writeln!(
            text,
            "DIFFERING  {} (results of two workers; see `rdcc status`)",
            counters.results_differ
        );
    }
    if counters.audited + counters.audit_skipped != 0 {
        let (audited, skipped) = (counters.audited, counters.audit_skipped);
        let _ = writeln!(text, "audited    {audited} ({skipped} more could not be)");
    }
    if counters.audit_differed != 0 {
        let differed = counters.audit_differed;
        let _ = writeln!(text, "DIFFERING  {differed} (of the audited; see `rdcc status`)");
    }
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
    section(&mut text, "REMOTE ON VARIANTS FOR", pairs(&counters.remote_by_variant));
    section(&mut text, "NO VARIANTS BECAUSE", pairs(&counters.own_only_by_reason));
    section(&mut text, "LOCAL BECAUSE", pairs(&counters.local_by_reason));
    section(&mut text, "DONE AGAIN BECAUSE", pairs(&counters.fallbacks_by_reason));
    if let Some(build) = &statistics.build {
        text.push('\n');
        text.push_str(&last_build(build));
    }
    text
}

/// Says how close the last build came to the least time that it could have taken.
fn last_build(build: &BuildSummary) -> String {
    let mut text = String::from("LAST BUILD\n");
    let _ = writeln!(text, "jobs       {}, {} of them on workers", build.jobs, build.remote);
    let _ = writeln!(text, "work       {} on a reference core", seconds(build.work_us));
    let _ = writeln!(text, "here       {} of CPU besides", seconds(build.client_cpu_us));
    let _ = writeln!(text, "took       {}", seconds(build.wall_us));
    let (name, bound) = build.bound.greatest();
    if bound != 0 {
        let _ = writeln!(text, "at least   {} ({name})", seconds(bound));
        let ratio = build.wall_over_bound_milli;
        let _ = writeln!(text, "ratio      {}.{:02}", ratio / 1000, ratio % 1000 / 10);
    }
    text
}

fn seconds(us: u64) -> String {
    format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000)
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
    use crate::exchange::build::{Bound, BuildSummary};
    use crate::exchange::{Counters, JobRecord, Mode, Ran};

    #[test]
    fn largest_part_comes_first_and_empty_parts_are_left_out() {
        let mut counters = Counters::default();
        for worker in ["n1", "n2", "n2"] {
            let worker = worker.to_owned();
            counters.count(&JobRecord::new(Ran::Remote { mode: Mode::B, worker }));
        }
        let text = render(&Statistics { counters, build: None });
        assert!(text.contains("remote     3 (100 %)"), "{text}");
        assert!(text.contains("REMOTE BY MODE  JOBS\nB                  3\n"), "{text}");
        assert!(text.contains("n2                 2\nn1                 1\n"), "{text}");
        assert!(!text.contains("LOCAL BECAUSE"), "{text}");
    }
    #[test]
    fn last_build_is_told_with_its_bound() {
        let build = BuildSummary {
            jobs: 260,
            remote: 240,
            work_us: 302_000_000,
            client_cpu_us: 18_250_000,
            wall_us: 20_000_000,
            bound: Bound {
                area_us: 17_800_000,
                ..Bound::default()
            },
            wall_over_bound_milli: 1123,
            ..BuildSummary::default()
        };
        let text = last_build(&build);
        assert!(text.contains("jobs       260, 240 of them on workers\n"), "{text}");
        assert!(
            text.contains("at least   17.80 s (work over all slots)\nratio      1.12\n"),
            "{text}"
        );
        assert!(!last_build(&BuildSummary::default()).contains("ratio"));
    }
}

//! `rdcc why FILE`: where a file was compiled, and why there.
//!
//! Pure.

use std::fmt::Write as _;
use std::path::Path;

use super::table::{bytes, span};
use crate::exchange::{Complaint, JobRecord, Ran, Variant};

/// Says what is known of `file`, newest first.
pub(super) fn render(records: &[JobRecord], now_unix_ms: u64) -> String {
    let mut text = String::new();
    for (index, record) in records.iter().enumerate() {
        if index != 0 {
            text.push('\n');
        }
        describe(&mut text, record, now_unix_ms);
    }
    text
}

fn describe(text: &mut String, record: &JobRecord, now_unix_ms: u64) {
    let age = span(now_unix_ms.saturating_sub(record.ended_unix_ms));
    let ran = match &record.ran {
        Ran::Remote { mode, worker } => format!("on {worker}, mode {}", mode.as_str()),
        Ran::Local { reason } => format!("here, because: {reason}"),
    };
    let ending = if record.success { "" } else { ", with an error" };
    let _ = writeln!(text, "{age} ago: ran {ran}{ending}");
    for output in &record.outputs {
        let _ = writeln!(text, "  wrote      {}", output.display());
    }
    if !record.toolchain.is_empty() {
        let _ = writeln!(text, "  toolchain  {}", record.toolchain);
    }
    if let Some(variant) = &record.variant
        && matches!(record.ran, Ran::Remote { .. })
    {
        let Variant { toolchain, host, level } = variant;
        let _ = writeln!(text, "  variant    {toolchain} for {host}, certified {level}");
    }
    if let Some(reason) = &record.own_only {
        let _ = writeln!(text, "  variants   none for this command: {reason}");
    }
    if record.cached {
        text.push_str("  result     out of the cache\n");
    }
    if !record.fallbacks.is_empty() {
        let _ = writeln!(text, "  before     {}", record.fallbacks.join(", then "));
    }
    if !record.phases.is_empty() {
        let phases = record.phases.iter().map(|phase| {
            let tenths = phase.took_us / 100;
            format!("{} {}.{} ms", phase.name, tenths / 10, tenths % 10)
        });
        let _ = writeln!(text, "  took       {}", phases.collect::<Vec<_>>().join(", "));
    }
    if record.bytes_sent != 0 || record.bytes_received != 0 {
        let (sent, received) = (bytes(record.bytes_sent), bytes(record.bytes_received));
        let _ = writeln!(text, "  network    {sent} sent, {received} received");
    }
    for note in &record.notes {
        let _ = writeln!(text, "  {}", note.replace('\n', "\n  "));
    }
}

/// Says that nothing is known of `file`, and what may be the reason.
pub(super) fn unknown(file: &Path) -> Complaint {
    let complaint = Complaint::new(format!("no job is known that wrote `{}`", file.display()));
    let suffix = file.extension().and_then(|suffix| suffix.to_str());
    complaint.hint(match suffix {
        Some("c" | "cc" | "cpp" | "cxx" | "C" | "S" | "s" | "h" | "hpp") => {
            "this is a source: ask for the object that was made from it"
        }
        _ => "was it compiled through rdcc, by this user, as one of the last 20,000 jobs?",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Mode;
    use std::time::Duration;

    #[test]
    fn record_tells_place_reason_and_times() {
        let mut record = JobRecord::new(Ran::Remote {
            mode: Mode::B,
            worker: "n1".into(),
        });
        record.outputs = vec!["/b/a.o".into()];
        record.toolchain = "arm926".into();
        record.variant = Some(Variant {
            toolchain: "1a2b".into(),
            host: "armv7-linux".into(),
            level: "identical".into(),
        });
        record.fallbacks = vec!["worker_lost".into(), "worker_busy".into()];
        record.ended_unix_ms = 1_000;
        record.phase("run", Duration::from_micros(12_345));
        record.notes = vec!["n2: connection reset\nagain".into()];
        let mut local = JobRecord::new(Ran::Local { reason: "link".into() });
        local.own_only = Some("own_only_lto".into());
        assert_eq!(
            render(&[record, local], 5_000),
            "4 s ago: ran on n1, mode B\n  wrote      /b/a.o\n  toolchain  arm926\n  \
             variant    1a2b for armv7-linux, certified identical\n  \
             before     worker_lost, then worker_busy\n  took       run 12.3 ms\n  \
             n2: connection reset\n  again\n\n5 s ago: ran here, because: link\n  \
             variants   none for this command: own_only_lto\n"
        );
    }

    #[test]
    fn unknown_file_comes_with_a_guess() {
        assert!(unknown(Path::new("/b/a.c")).hint.unwrap_or_default().contains("source"));
        assert!(
            unknown(Path::new("/b/a.o"))
                .hint
                .unwrap_or_default()
                .contains("through rdcc")
        );
    }
}

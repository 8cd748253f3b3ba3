//! `rdcc trace`: a build in the form that Chrome's and Perfetto's trace viewers read.
//!
//! Pure. Each worker is a process with one track per slot that was busy at once; this machine is another, with a track
//! per compile that ran here and one per job that was being prepared. Times are those since the build's beginning.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::exchange::build::TracedJob;
use crate::exchange::{BuildTrace, Ran};

/// Process number of this machine; workers follow.
const HERE: usize = 1;
/// Process number of jobs on their way.
const ON_THE_WAY: usize = 2;
const FIRST_WORKER: usize = 3;

/// A length of time on a track.
struct Span<'a> {
    process: usize,
    begin: u64,
    took: u64,
    name: &'a str,
    job: &'a TracedJob,
}

/// Says a build as a trace.
pub(super) fn render(trace: &BuildTrace) -> String {
    let mut workers: BTreeMap<&str, usize> = BTreeMap::new();
    for job in &trace.jobs {
        if let Ran::Remote { worker, .. } = &job.ran {
            workers.entry(worker).or_default();
        }
    }
    for (number, process) in workers.values_mut().enumerate() {
        *process = FIRST_WORKER + number;
    }
    let mut spans: Vec<Span<'_>> = trace.jobs.iter().flat_map(|job| spans(job, &workers)).collect();
    spans.sort_by_key(|span| span.begin);
    let mut events = vec![process(HERE, "this machine"), process(ON_THE_WAY, "jobs on their way")];
    events.extend(workers.iter().map(|(name, number)| process(*number, name)));
    let mut tracks: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for span in &spans {
        let track = track(tracks.entry(span.process).or_default(), span);
        events.push(event(span, track));
    }
    let value = json!({
        "displayTimeUnit": "ms",
        "otherData": { "summary": trace.summary, "left_out": trace.left_out },
        "traceEvents": events,
    });
    value.to_string()
}

/// Cuts a job into its run, on the track of a slot, and what was before and after it.
fn spans<'a>(job: &'a TracedJob, workers: &BTreeMap<&str, usize>) -> Vec<Span<'a>> {
    let mut begin = job.began_us;
    let mut spans = Vec::new();
    for phase in &job.phases {
        let process = match (&job.ran, phase.name.as_str()) {
            (Ran::Remote { worker, .. }, "run") => workers[worker.as_str()],
            (_, "local_run") => HERE,
            _ => ON_THE_WAY,
        };
        let name = match process {
            ON_THE_WAY => phase.name.as_str(),
            _ => job.source.as_str(),
        };
        spans.push(Span {
            process,
            begin,
            took: phase.took_us,
            name,
            job,
        });
        begin += phase.took_us;
    }
    // One bar for what stands together on the way, so that a job's phases share a track.
    let mut joined: Vec<Span<'a>> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.process == ON_THE_WAY && span.process == ON_THE_WAY => {
                last.took += span.took;
                last.name = &job.source;
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// Returns the first track that is free at the span's beginning, and takes it.
fn track(ends: &mut Vec<u64>, span: &Span<'_>) -> usize {
    let end = span.begin + span.took;
    match ends.iter().position(|taken| *taken <= span.begin) {
        Some(free) => {
            ends[free] = end;
            free
        }
        None => {
            ends.push(end);
            ends.len() - 1
        }
    }
}

fn event(span: &Span<'_>, track: usize) -> Value {
    let phases: BTreeMap<&str, u64> = span
        .job
        .phases
        .iter()
        .map(|phase| (phase.name.as_str(), phase.took_us))
        .collect();
    json!({
        "ph": "X",
        "pid": span.process,
        "tid": track + 1,
        "ts": span.begin,
        "dur": span.took,
        "name": span.name,
        "cat": if span.process == ON_THE_WAY { "way" } else { "run" },
        "args": {
            "source": span.job.source,
            "ran": span.job.ran,
            "success": span.job.success,
            "phases_us": phases,
        },
    })
}

fn process(number: usize, name: &str) -> Value {
    json!({ "ph": "M", "pid": number, "name": "process_name", "args": { "name": name } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Mode, Phase};

    fn job(source: &str, began_us: u64, phases: &[(&str, u64)], worker: Option<&str>) -> TracedJob {
        TracedJob {
            source: source.into(),
            began_us,
            phases: phases
                .iter()
                .map(|(name, took_us)| Phase {
                    name: (*name).into(),
                    took_us: *took_us,
                })
                .collect(),
            ran: match worker {
                Some(worker) => Ran::Remote {
                    mode: Mode::A,
                    worker: worker.into(),
                },
                None => Ran::Local { reason: "link".into() },
            },
            success: true,
        }
    }

    #[test]
    fn slots_are_tracks_and_nothing_overlaps_on_one() {
        let trace = BuildTrace {
            jobs: vec![
                job("a.c", 0, &[("scan", 10), ("run", 100), ("check", 5)], Some("n1")),
                job("b.c", 5, &[("scan", 10), ("run", 100)], Some("n1")),
                job("c.c", 120, &[("run", 50)], Some("n1")),
                job("d.c", 0, &[("run", 50)], Some("n2")),
                job("prog", 200, &[("local_slot", 1), ("local_run", 30)], None),
            ],
            ..BuildTrace::default()
        };
        let value: Value = serde_json::from_str(&render(&trace)).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        let runs: Vec<(u64, u64, u64, &str)> = events
            .iter()
            .filter(|event| event["cat"] == "run")
            .map(|event| {
                let number = |key: &str| event[key].as_u64().unwrap();
                (
                    number("pid"),
                    number("tid"),
                    number("ts"),
                    event["name"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            runs,
            [
                (4, 1, 0, "d.c"),
                (3, 1, 10, "a.c"),
                (3, 2, 15, "b.c"),
                (3, 1, 120, "c.c"),
                (1, 1, 201, "prog")
            ]
        );
        let names: Vec<&str> = events
            .iter()
            .filter(|event| event["ph"] == "M")
            .map(|event| event["args"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["this machine", "jobs on their way", "n1", "n2"]);
        let way = events.iter().filter(|event| event["cat"] == "way").count();
        assert_eq!(way, 4);
    }
}

//! Which jobs make one build, what it cost, and how soon it could have been done.
//!
//! Pure: `now` and readings are handed in. A build begins with the first job after [`PAUSE`] without any and goes on until
//! the next begins. Only the last is kept, with at most [`JOBS_MAX`] of its jobs one by one; its sums count all.
//!
//! What slots can do is learned while the build goes on, so a job's work is its time by what is known of its slot in
//! the end: work and slots have to be of one measure for the bound to be one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::busiest_second::BusiestSecond;
use super::farm::Slot;
use super::forecast::work_at;
use crate::exchange::build::{BuildSummary, BuildTrace, LONGEST_MAX, Means, TracedJob};
use crate::exchange::{Phase, Ran};

mod busiest_second;

/// Without a job that long, the next one begins another build.
pub const PAUSE: Duration = Duration::from_secs(10);
/// Jobs kept one by one: some 4 MB.
pub const JOBS_MAX: usize = 10_000;
/// How often the kernel's counter of CPU time is worth a look.
const CPU_EVERY: Duration = Duration::from_secs(1);
/// A power is a few thousandths at least; the bound keeps a damaged one harmless.
const POWER_LEAST: f64 = 0.001;

/// A job that has ended.
#[derive(Debug)]
pub struct EndedJob {
    /// What was compiled, made printable.
    pub source: String,
    /// When it came.
    pub began: Instant,
    /// What it went through.
    pub phases: Vec<Phase>,
    /// Where it ran.
    pub ran: Ran,
    /// Whether it succeeded.
    pub success: bool,
    /// The time that it took of its slot, when it ran at a worker, or here by choice: CPU time, where that can be meant.
    pub spent: Option<Duration>,
    /// Power of the worker's slot that ran it, if one did: work per second.
    pub power: f64,
    /// The worker's slot that ran it, if one did.
    pub slot: Slot,
    /// Bytes sent and received.
    pub bytes: u64,
}

/// What is known of this machine and of the farm at the end of a job.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings {
    /// CPU time that this machine has spent since it booted.
    pub cpu: Option<Duration>,
    /// Slots of the farm; 0 when that is not known.
    pub slots: u32,
    /// Power of a core here.
    pub power_here: f64,
}

#[derive(Debug)]
struct Build {
    began: Instant,
    began_unix_ms: u64,
    last_end: Instant,
    jobs: Vec<TracedJob>,
    sums: BuildSummary,
    /// What this machine ran by choice.
    helped: Spent,
    cpu_at_begin: Option<Duration>,
    cpu_now: Option<(Duration, Instant)>,
    /// By worker and kind of slot.
    sites: BTreeMap<(String, Slot), Site>,
    carried: BusiestSecond,
    around: Surroundings,
}

/// What jobs took at one place.
#[derive(Debug, Default)]
struct Spent {
    sum: Duration,
    /// The longest, longest first; at most [`LONGEST_MAX`].
    longest: Vec<Duration>,
}

/// Slots of one worker that are alike.
#[derive(Debug, Default)]
struct Site {
    power: f64,
    taken: Spent,
    running: Vec<(Instant, Instant)>,
    /// How many were seen busy at once.
    at_once: usize,
}

/// What this machine itself can do for a build.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Its cores.
    pub cores: u32,
    /// Whether jobs run on them by choice.
    pub compiles: bool,
}

/// The last build.
#[derive(Debug)]
pub struct Builds {
    own: Own,
    under_way: usize,
    build: Option<Build>,
}

impl Builds {
    /// Starts without a build.
    pub fn new(own: Own) -> Self {
        Self {
            own,
            under_way: 0,
            build: None,
        }
    }

    /// Tells whether a job that comes now begins a build, for which a reading of the CPU time is wanted.
    pub fn begins(&self, now: Instant) -> bool {
        let paused = |build: &Build| now >= build.last_end + PAUSE;
        self.under_way == 0 && self.build.as_ref().is_none_or(paused)
    }

    /// Counts a job that comes.
    pub fn handle_began(&mut self, now: Instant, unix_ms: u64, cpu: Option<Duration>) {
        if self.begins(now) {
            self.build = Some(Build {
                began: now,
                began_unix_ms: unix_ms,
                last_end: now,
                jobs: Vec::new(),
                sums: BuildSummary::default(),
                helped: Spent::default(),
                cpu_at_begin: cpu,
                cpu_now: None,
                sites: BTreeMap::new(),
                carried: BusiestSecond::default(),
                around: Surroundings::default(),
            });
        }
        self.under_way += 1;
    }

    /// Tells whether a reading of the CPU time is wanted at the end of a job.
    pub fn wants_cpu(&self, now: Instant) -> bool {
        let last = self.build.as_ref().and_then(|build| build.cpu_now);
        self.under_way <= 1 || last.is_none_or(|(_, at)| now >= at + CPU_EVERY)
    }

    /// Counts a job that has gone away without an end.
    pub fn handle_left(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Counts a job that has ended.
    pub fn handle_ended(&mut self, job: EndedJob, around: Surroundings, now: Instant) {
        self.handle_left();
        if let Some(build) = &mut self.build {
            build.add(job, around, now);
        }
    }

    /// Returns the last build's summary, if there was a build.
    pub fn summary(&self) -> Option<BuildSummary> {
        self.build.as_ref().map(|build| build.summary(self.own))
    }

    /// Returns the last build, job by job.
    pub fn trace(&self) -> Option<BuildTrace> {
        let build = self.build.as_ref()?;
        let jobs = build.jobs.clone();
        Some(BuildTrace {
            left_out: build.sums.jobs - jobs.len() as u64,
            summary: build.summary(self.own),
            jobs,
        })
    }
}

impl Build {
    fn add(&mut self, job: EndedJob, around: Surroundings, now: Instant) {
        self.last_end = now;
        self.sums.jobs += 1;
        self.sums.bytes += job.bytes;
        if let Some(cpu) = around.cpu {
            self.cpu_now = Some((cpu, now));
        }
        self.around = Surroundings {
            slots: around.slots.max(self.around.slots),
            ..around
        };
        if let Ran::Remote { worker, .. } = &job.ran {
            self.sums.remote += 1;
            let run = job.phases.iter().find(|phase| phase.name == "run");
            let run = Duration::from_micros(run.map_or(0, |phase| phase.took_us));
            let site = self.sites.entry((worker.clone(), job.slot)).or_default();
            site.power = job.power;
            site.see_busy(now.checked_sub(run).unwrap_or(now), now);
            site.taken.add(job.spent);
            self.carried.add(now.saturating_duration_since(self.began), job.bytes);
        } else {
            self.helped.add(job.spent);
        }
        if self.jobs.len() < JOBS_MAX {
            self.jobs.push(TracedJob {
                source: job.source,
                began_us: micros(job.began.saturating_duration_since(self.began)),
                phases: job.phases,
                ran: job.ran,
                success: job.success,
            });
        }
    }

    fn summary(&self, own: Own) -> BuildSummary {
        let mut summary = self.sums.clone();
        summary.began_unix_ms = self.began_unix_ms;
        summary.wall_us = micros(self.last_end.saturating_duration_since(self.began));
        // A worker on this machine has no slots besides this machine's cores, and knows best what they can do.
        let here = || self.sites.iter().filter(|((_, slot), _)| slot.on_this_machine);
        let there = || self.sites.iter().filter(|((_, slot), _)| !slot.on_this_machine);
        if let (Some(begin), Some((now, _))) = (self.cpu_at_begin, self.cpu_now) {
            let jobs_here: Duration = here().map(|(_, site)| site.taken.sum).sum();
            let spent = now.saturating_sub(begin).saturating_sub(self.helped.sum + jobs_here);
            summary.client_cpu_us = micros(spent);
        }
        let power_here = here()
            .max_by_key(|(_, site)| site.taken.sum)
            .map_or(self.around.power_here, |(_, site)| site.power)
            .max(POWER_LEAST);

        let taken = self.sites.values().map(|site| (&site.taken, site.power));
        let mut longest = Vec::new();
        for (taken, power) in taken.chain([(&self.helped, power_here)]) {
            summary.work_us += micros(work_at(power, taken.sum));
            longest.extend(taken.longest.iter().map(|time| micros(work_at(power, *time))));
        }
        longest.sort_unstable_by(|one, other| other.cmp(one));
        longest.truncate(LONGEST_MAX);

        let mut slots: Vec<f64> = Vec::new();
        for (_, site) in there() {
            slots.extend(std::iter::repeat_n(site.power, site.at_once));
        }
        // Slots that were never busy at once with others, or not at all: as strong as the others are in the mean.
        let seen_here: usize = here().map(|(_, site)| site.at_once).sum();
        let unseen = (self.around.slots as usize).saturating_sub(slots.len() + seen_here);
        if !self.sites.is_empty() {
            let mean = match slots.is_empty() {
                true => power_here,
                false => slots.iter().sum::<f64>() / slots.len() as f64,
            };
            slots.extend(std::iter::repeat_n(mean, unseen));
        }
        let here_too = own.compiles || here().next().is_some();
        if here_too {
            slots.extend(std::iter::repeat_n(power_here, own.cores as usize));
        }
        summary.set_bound(&Means {
            longest_us: &longest,
            slots: &slots,
            cores: own.cores,
            power_here: here_too.then_some(power_here),
            network_us: micros(self.carried.least_time(self.sums.bytes)),
        });
        summary
    }
}

impl Spent {
    fn add(&mut self, time: Option<Duration>) {
        let Some(time) = time else { return };
        self.sum += time;
        let at = self.longest.partition_point(|longer| *longer >= time);
        self.longest.insert(at, time);
        self.longest.truncate(LONGEST_MAX);
    }
}

impl Site {
    /// Counts how many jobs were running at once.
    fn see_busy(&mut self, began: Instant, ended: Instant) {
        // Ends come in order, so what ended before this one began can be forgotten by the next that begins later.
        self.running.retain(|(_, end)| *end > began);
        self.running.push((began, ended));
        self.at_once = self.at_once.max(self.running.len());
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Mode;
    use crate::ids::CoreGroupId;

    const OWN: Own = Own {
        cores: 2,
        compiles: true,
    };

    fn remote(worker: &str, began: Instant, run_ms: u64) -> EndedJob {
        EndedJob {
            source: "a.c".into(),
            began,
            phases: vec![Phase {
                name: "run".into(),
                took_us: run_ms * 1000,
            }],
            ran: Ran::Remote {
                mode: Mode::A,
                worker: worker.into(),
            },
            success: true,
            spent: Some(Duration::from_millis(run_ms)),
            power: 1.0,
            slot: Slot::default(),
            bytes: 10,
        }
    }

    fn around(cpu_s: u64) -> Surroundings {
        Surroundings {
            cpu: Some(Duration::from_secs(cpu_s)),
            slots: 2,
            power_here: 1.0,
        }
    }

    #[test]
    fn a_build_is_what_comes_without_a_long_pause() {
        let (mut builds, start) = (Builds::new(OWN), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for (began, ended) in [(0, 1000), (9000, 10_000), (19_000, 40_000), (50_000, 51_000)] {
            builds.handle_began(at(began), began, None);
            builds.handle_ended(remote("n1", at(began), 1000), around(0), at(ended));
        }
        let summary = builds.summary().unwrap();
        assert_eq!((summary.jobs, summary.began_unix_ms), (1, 50_000));
        builds.handle_began(at(60_999), 1, None);
        assert_eq!(builds.summary().unwrap().began_unix_ms, 50_000);
        builds.handle_left();
        builds.handle_began(at(61_000), 61_000, None);
        assert_eq!(builds.summary().unwrap().jobs, 0);
    }

    #[test]
    fn sums_and_bound_of_a_build() {
        let (mut builds, start) = (Builds::new(OWN), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..4 {
            builds.handle_began(start, 0, Some(Duration::from_secs(100)));
        }
        builds.handle_ended(remote("n1", start, 4000), around(102), at(4000));
        builds.handle_ended(remote("n1", start, 4000), around(102), at(4000));
        builds.handle_ended(remote("n1", start, 4000), around(104), at(8000));
        let here = EndedJob {
            ran: Ran::Local {
                reason: "farm_full".into(),
            },
            phases: Vec::new(),
            ..remote("", start, 2000)
        };
        builds.handle_ended(here, around(104), at(8000));
        let summary = builds.summary().unwrap();
        assert_eq!((summary.jobs, summary.remote, summary.wall_us), (4, 3, 8_000_000));
        assert_eq!((summary.work_us, summary.client_cpu_us), (14_000_000, 2_000_000));
        // Two slots there, two cores here.
        assert_eq!(summary.bound.area_us, 4_000_000);
        assert_eq!(summary.bound.longest_us, 4_000_000);
        assert_eq!(summary.wall_over_bound_milli, 2000);
    }

    /// Ends jobs of `run_ms` each, one after the other, and returns what is told of the build then.
    fn after(jobs: impl IntoIterator<Item = EndedJob>, cpu_s: u64) -> BuildSummary {
        let (mut builds, start) = (Builds::new(OWN), Instant::now());
        for (number, job) in jobs.into_iter().enumerate() {
            builds.handle_began(start, 0, Some(Duration::from_secs(100)));
            let now = start + Duration::from_secs(number as u64 + 1);
            builds.handle_ended(job, around(100 + cpu_s), now);
        }
        builds.summary().unwrap()
    }

    #[test]
    fn what_was_learned_late_holds_for_the_whole_build() {
        let job = |power: f64| EndedJob {
            power,
            spent: Some(Duration::from_secs(1)),
            ..remote("n1", Instant::now(), 1000)
        };
        let told = after([job(1.0), job(0.7), job(0.5), job(0.5)], 0);
        assert_eq!(told.work_us, 2_000_000);
        assert_eq!(told.bound.longest_us, 666_666);
        // Two slots of 0.5 there, and this machine's two of 1.0.
        assert_eq!(told.bound.area_us, 666_666);
    }

    #[test]
    fn slots_of_one_worker_differ() {
        let job = |group, power: f64| EndedJob {
            power,
            spent: Some(Duration::from_secs(1)),
            slot: Slot {
                cores: CoreGroupId(group),
                on_this_machine: false,
            },
            ..remote("n1", Instant::now(), 1000)
        };
        let told = after([job(0, 2.0), job(1, 0.5)], 0);
        assert_eq!(told.work_us, 2_500_000);
    }

    #[test]
    fn a_worker_on_this_machine_is_this_machine() {
        let job = || EndedJob {
            power: 0.5,
            spent: Some(Duration::from_secs(2)),
            slot: Slot {
                on_this_machine: true,
                ..Slot::default()
            },
            ..remote("n1", Instant::now(), 2000)
        };
        let told = after([job(), job(), job(), job()], 10);
        // Eight of the ten seconds were the jobs.
        assert_eq!((told.work_us, told.client_cpu_us), (4_000_000, 2_000_000));
        // Its slots are the two cores, and no other.
        assert_eq!(told.bound.area_us, 5_000_000);
    }

    #[test]
    fn a_machine_that_sends_everything_away_has_its_own_work_for_itself() {
        let own = Own { compiles: false, ..OWN };
        let (mut builds, start) = (Builds::new(own), Instant::now());
        builds.handle_began(start, 0, Some(Duration::from_secs(100)));
        let now = start + Duration::from_secs(30);
        builds.handle_ended(remote("n1", start, 20_000), around(120), now);
        let told = builds.summary().unwrap();
        assert_eq!((told.work_us, told.client_cpu_us), (20_000_000, 20_000_000));
        // Two slots there; and two cores here.
        assert_eq!((told.bound.area_us, told.bound.client_us), (10_000_000, 10_000_000));
    }

    #[test]
    fn jobs_beyond_the_bound_are_counted_only() {
        let (mut builds, now) = (Builds::new(OWN), Instant::now());
        for _ in 0..JOBS_MAX + 5 {
            builds.handle_began(now, 0, None);
            builds.handle_ended(remote("n1", now, 1), around(0), now);
        }
        let trace = builds.trace().unwrap();
        assert_eq!((trace.jobs.len(), trace.left_out), (JOBS_MAX, 5));
    }
}

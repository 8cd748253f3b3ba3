//! The real scheduler as a rule of placement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdcc::agent::forecast::{Features, Forecast, Observation, work_at};
use rdcc::coordinator::events::{
    Action, AgentHello, CoreGroup, Demand, Drain, Ending, Event, Grant, HostKind, LoadReport, Purpose, Want,
    WorkerHello,
};
use rdcc::coordinator::kept_speeds::KeptSpeeds;
use rdcc::coordinator::moment::Moment;
use rdcc::coordinator::rules::Rules;
use rdcc::coordinator::scheduler::Scheduler;
use rdcc::digest::Digest;
use rdcc::ids::{AgentSessionId, GrantId, Name, RequestId, ToolchainId, WorkerSessionId};
use rdcc::job::{RunReport, Usage, Variants};

use super::engine::{Job, Placed, Placer};
use super::{Build, Node};

/// The scheduler, with sessions for everybody.
#[derive(Debug)]
pub struct Ours {
    scheduler: Scheduler,
    nodes: Vec<Node>,
    builds: Vec<Build>,
    /// What each build's agent has learned.
    forecasts: Vec<Forecast>,
    next_request: u64,
    wanted: BTreeMap<RequestId, Job>,
    granted: BTreeMap<Job, Grant>,
    there: Vec<bool>,
    reports: u64,
    told: u64,
}

/// Events between audits, which take far longer than the events.
const AUDIT_EVERY: u64 = 16;

fn toolchain() -> ToolchainId {
    ToolchainId(Digest::of(b"toolchain"))
}

fn moment(now: f64) -> Moment {
    Moment::at(Duration::from_secs_f64(now))
}

impl Ours {
    pub fn new(nodes: &[Node], builds: &[Build]) -> Self {
        let mut ours = Self {
            scheduler: Scheduler::new(Rules::default(), 1, 1, Moment::START),
            nodes: nodes.to_vec(),
            builds: builds.to_vec(),
            forecasts: builds.iter().map(|_| forecast_of_another_project()).collect(),
            next_request: 1,
            wanted: BTreeMap::new(),
            granted: BTreeMap::new(),
            there: vec![false; nodes.len()],
            reports: 0,
            told: 0,
        };
        ours.tell(Event::ToolchainAdded(toolchain(), HostKind("x".into())), 0.0);
        for number in 0..builds.len() as u64 {
            let hello = AgentHello {
                host: format!("h{number}"),
                user: "u".into(),
                pid: 1,
            };
            ours.tell(Event::AgentJoined(AgentSessionId(number), hello), 0.0);
        }
        ours
    }

    /// What the farm has taught so far, as a coordinator writes it down when it ends.
    pub fn learned(&self) -> Vec<u8> {
        self.scheduler.kept_speeds().pack()
    }

    /// Starts with what an earlier life wrote down.
    pub fn recall(mut self, learned: &[u8]) -> Self {
        let kept = KeptSpeeds::unpack(learned).expect("whole");
        self.tell(Event::SpeedsKept(kept), 0.0);
        self
    }

    fn tell(&mut self, event: Event, now: f64) -> Placed {
        let mut placed = Vec::new();
        let actions = self.scheduler.handle(event, moment(now));
        self.told += 1;
        if self.told.is_multiple_of(AUDIT_EVERY) {
            debug_assert_eq!(self.scheduler.audit(), Ok(()), "at {now}");
        }
        for action in actions {
            if let Action::Grant(grant) = action
                && let Some(job) = self.wanted.remove(&grant.request)
            {
                self.granted.insert(job, grant);
                placed.push((job, grant.worker.0 as usize + usize::from(grant.cores.0)));
            }
        }
        placed
    }

    /// What the agent says of a job, as far as it knows now.
    fn demand(&self, job: Job) -> Demand {
        let build = &self.builds[job.0];
        if build.learns {
            let foretold = self.forecasts[job.0].predict(features(&self.builds, job, &source(job)));
            let known = foretold.spread_milli != 0;
            return Demand {
                work: known.then_some(foretold.work),
                spread_milli: known.then_some(foretold.spread_milli),
                ..Demand::default()
            };
        }
        Demand {
            work: Some(Duration::from_secs_f64(build.predicted[job.1])),
            spread_milli: Some((build.spread * 1000.0) as u32),
            ..Demand::default()
        }
    }

    fn report(&mut self, node: usize, now: f64) -> Placed {
        let running = self.granted.values().filter(|grant| grant.worker.0 as usize == node);
        let report = LoadReport {
            number: self.reports,
            running: running.map(|grant| grant.grant).collect::<Vec<GrantId>>(),
            memory_available_bytes: 1 << 30,
            ..LoadReport::default()
        };
        self.tell(Event::WorkerLoad(WorkerSessionId(node as u64), report), now)
    }
}

impl Placer for Ours {
    fn want(&mut self, job: Job, lost_on: Option<usize>, now: f64) -> Placed {
        let agent = AgentSessionId(job.0 as u64);
        let mut placed = Vec::new();
        if let Some(grant) = self.granted.remove(&job) {
            placed.extend(self.tell(Event::GrantDone(agent, grant.grant, Ending::Fault), now));
        }
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.wanted.insert(request, job);
        let want = Want {
            request,
            toolchain: toolchain(),
            variants: Variants::Never,
            build: "b".into(),
            purpose: Purpose::Job,
            demand: self.demand(job),
            avoid: lost_on.map(name).into_iter().collect(),
            only: None,
        };
        placed.extend(self.tell(Event::Want(agent, want), now));
        placed
    }

    fn ended(&mut self, job: Job, _: usize, wall: f64, now: f64) -> Placed {
        let Some(grant) = self.granted.remove(&job) else {
            return Vec::new();
        };
        let demand = self.demand(job);
        if self.builds[job.0].learns {
            let seen = Observation {
                work: work_at(f64::from(grant.power_milli) / 1000.0, Duration::from_secs_f64(wall)),
                memory_bytes: 0,
            };
            self.forecasts[job.0].observe(features(&self.builds, job, &source(job)), seen);
        }
        let report = RunReport {
            usage: Usage {
                wall: Duration::from_secs_f64(wall),
                ..Usage::default()
            },
            work: demand.work,
            spread_milli: demand.spread_milli,
            ..RunReport::default()
        };
        let done = Event::GrantDone(AgentSessionId(job.0 as u64), grant.grant, Ending::Ran(report));
        self.tell(done, now)
    }

    fn joined(&mut self, node: usize, now: f64) -> Placed {
        if self.nodes[node].with_previous {
            return Vec::new();
        }
        self.there[node] = true;
        let others = self.nodes[node + 1..].iter().take_while(|other| other.with_previous);
        let groups: Vec<CoreGroup> = std::iter::once(&self.nodes[node])
            .chain(others)
            .map(core_group)
            .collect();
        let slots: u32 = groups.iter().map(|group| group.slots).sum();
        let power: u32 = groups.iter().map(|group| group.slots * group.power_milli).sum();
        let hello = WorkerHello {
            name: name(node),
            address: "127.0.0.1:1".into(),
            slots,
            power_milli: power / slots,
            cores: if groups.len() > 1 { groups } else { Vec::new() },
            host_kind: HostKind("x".into()),
            memory_bytes: 1 << 32,
            sandbox: String::new(),
            version: String::new(),
            variants: Variants::Certified,
            ready: vec![toolchain()],
            running: Vec::new(),
            drain: Drain::Off,
        };
        self.tell(Event::WorkerJoined(WorkerSessionId(node as u64), hello), now)
    }

    fn left(&mut self, node: usize, now: f64) -> Placed {
        if self.nodes[node].with_previous {
            return Vec::new();
        }
        self.there[node] = false;
        self.tell(Event::WorkerLeft(WorkerSessionId(node as u64)), now)
    }

    /// Its own deadline, or the workers' next reports, once a second.
    fn next(&self) -> Option<f64> {
        let report = self.reports as f64 + 0.5;
        let deadline = self.scheduler.next_deadline();
        let deadline = deadline.map(|at| at.since(Moment::START).as_secs_f64());
        Some(deadline.map_or(report, |deadline| deadline.min(report)))
    }

    fn tick(&mut self, now: f64) -> Placed {
        let mut placed = self.tell(Event::Tick, now);
        if now >= self.reports as f64 + 0.5 {
            self.reports += 1;
            for node in 0..self.nodes.len() {
                if self.there[node] {
                    placed.extend(self.report(node, now));
                }
            }
        }
        placed
    }
}

fn name(node: usize) -> Name {
    Name::new(&format!("n{node}")).expect("a name")
}

/// Jobs of one directory, which have what they cost in common.
const DIRECTORY_JOBS: usize = 20;

fn source(job: Job) -> PathBuf {
    format!("/{}/{}/{}.c", job.0, job.1 / DIRECTORY_JOBS, job.1).into()
}

fn features<'a>(builds: &[Build], job: Job, source: &'a Path) -> Features<'a> {
    Features {
        toolchain: toolchain(),
        source,
        flags_class: 1,
        closure_bytes: builds[job.0].closures[job.1],
    }
}

/// What an agent knows after a small project: files of a hundred lines, 50 ms each.
fn forecast_of_another_project() -> Forecast {
    let mut forecast = Forecast::default();
    for number in 0..20 {
        let source = PathBuf::from(format!("/small/{number}.c"));
        let features = Features {
            toolchain: toolchain(),
            source: &source,
            flags_class: 1,
            closure_bytes: 100_000 + 1_000 * number,
        };
        let seen = Observation {
            work: Duration::from_millis(50),
            memory_bytes: 0,
        };
        forecast.observe(features, seen);
    }
    forecast
}

fn core_group(node: &Node) -> CoreGroup {
    CoreGroup {
        slots: node.slots as u32,
        power_milli: (node.told * 1000.0) as u32,
    }
}

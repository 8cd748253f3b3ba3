//! How many grants a second the scheduler hands out on one core, and how long one want takes it.
//!
//! `cargo bench --bench schedule`, or with figures of your own: `cargo bench --bench schedule -- WORKERS AGENTS SECONDS`.
//! A thousand workers that report every second, two hundred agents with a hundred wants outstanding each, jobs of
//! about a second: all slots are taken and most wants wait, which is the dear case. A second figure is for a farm with
//! free slots, where each want is granted at once. Grants are counted per second of CPU time, the making up of events
//! included, so that other work on the machine does not show; single wants are timed by the wall clock, so there it does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdcc::coordinator::events::{
    Action, AgentHello, Demand, Drain, Ending, Event, Grant, HostKind, LoadReport, Purpose, Want, WorkerHello,
};
use rdcc::coordinator::moment::Moment;
use rdcc::coordinator::rules::Rules;
use rdcc::coordinator::scheduler::Scheduler;
use rdcc::digest::Digest;
use rdcc::ids::{AgentSessionId, GrantId, Name, RequestId, ToolchainId, WorkerSessionId};
use rdcc::job::{RunReport, Variants};

/// Toolchains of the farm; every worker has three of them.
const TOOLCHAINS: u64 = 8;

fn toolchain(number: u64) -> ToolchainId {
    ToolchainId(Digest::of(&number.to_le_bytes()))
}

struct Farm {
    scheduler: Scheduler,
    now: Duration,
    agents: u64,
    workers: u64,
    next_request: u64,
    granted: VecDeque<Grant>,
    running: Vec<Vec<GrantId>>,
    reports: u64,
    grants: u64,
    cpu: Duration,
    waits: Vec<Duration>,
}

impl Farm {
    fn new(workers: u64, agents: u64) -> Self {
        let mut farm = Self {
            scheduler: Scheduler::new(Rules::default(), 1, 1, Moment::START),
            now: Duration::ZERO,
            agents,
            workers,
            next_request: 0,
            granted: VecDeque::new(),
            running: vec![Vec::new(); workers as usize],
            reports: 0,
            grants: 0,
            cpu: Duration::ZERO,
            waits: Vec::new(),
        };
        for number in 0..TOOLCHAINS {
            farm.tell(Event::ToolchainAdded(toolchain(number), HostKind("x".into())));
        }
        for number in 0..workers {
            let hello = WorkerHello {
                name: Name::new(&format!("w{number}")).expect("a name"),
                address: "127.0.0.1:1".into(),
                slots: 2 + (number % 7) as u32,
                power_milli: 250 * (1 + (number % 13) as u32),
                cores: Vec::new(),
                host_kind: HostKind("x".into()),
                memory_bytes: 1 << 30,
                sandbox: String::new(),
                version: String::new(),
                variants: Variants::Certified,
                ready: (0..3).map(|t| toolchain((number + t) % TOOLCHAINS)).collect(),
                running: Vec::new(),
                drain: Drain::Off,
            };
            farm.tell(Event::WorkerJoined(WorkerSessionId(number), hello));
        }
        for number in 0..agents {
            let hello = AgentHello {
                host: format!("h{number}"),
                user: "u".into(),
                pid: 1,
            };
            farm.tell(Event::AgentJoined(AgentSessionId(number), hello));
        }
        farm
    }

    fn tell(&mut self, event: Event) {
        let actions = self.scheduler.handle(event, Moment::at(self.now));
        for action in actions {
            if let Action::Grant(grant) = action {
                self.grants += 1;
                self.running[grant.worker.0 as usize].push(grant.grant);
                self.granted.push_back(grant);
            }
        }
    }

    fn want(&mut self) {
        let number = self.next_request;
        self.next_request += 1;
        let want = Want {
            request: RequestId(number),
            toolchain: toolchain(number % TOOLCHAINS),
            variants: Variants::Never,
            build: format!("build {}", number % 3),
            purpose: Purpose::Job,
            avoid: Vec::new(),
            only: None,
            demand: Demand {
                work: Some(Duration::from_millis(100 + number % 1900)),
                memory_bytes: Some(100 << 20),
                ..Demand::default()
            },
        };
        let start = Instant::now();
        self.tell(Event::Want(AgentSessionId(number % self.agents), want));
        self.waits.push(start.elapsed());
    }

    fn end_oldest(&mut self) {
        let Some(grant) = self.granted.pop_front() else { return };
        let running = &mut self.running[grant.worker.0 as usize];
        running.retain(|other| *other != grant.grant);
        self.tell(Event::GrantDone(
            grant.agent,
            grant.grant,
            Ending::Ran(RunReport::default()),
        ));
    }

    /// One worker's report, in turn; so many a second that each reports once.
    fn report(&mut self) {
        let worker = self.reports % self.workers;
        let report = LoadReport {
            number: 1 + self.reports / self.workers,
            running: self.running[worker as usize].clone(),
            memory_available_bytes: 1 << 29,
            ..LoadReport::default()
        };
        self.reports += 1;
        self.tell(Event::WorkerLoad(WorkerSessionId(worker), report));
    }

    /// Each job that ends makes its agent want another one. `outstanding` wants are there from the start.
    fn run(&mut self, outstanding: u64, length: Duration) {
        for _ in 0..outstanding {
            self.want();
        }
        (self.grants, self.reports) = (0, 0);
        self.waits.clear();
        let start = cpu_time();
        let rate = 20_000.0;
        while cpu_time().saturating_sub(start) < length {
            self.cycle(rate);
        }
        self.cpu = cpu_time().saturating_sub(start);
    }

    /// A thousand jobs end, and as many are wanted.
    fn cycle(&mut self, rate: f64) {
        for _ in 0..1000 {
            self.now += Duration::from_secs_f64(1.0 / rate);
            self.end_oldest();
            self.want();
            let due = self.waits.len() as f64 / rate * self.workers as f64;
            while (self.reports as f64) < due {
                self.report();
            }
        }
    }

    fn print(&mut self, what: &str) {
        self.waits.sort_unstable();
        let part = |share: f64| self.waits[((self.waits.len() - 1) as f64 * share) as usize];
        println!(
            "{what}: {:.0} grants/s; handle_want p50 {:?}, p99 {:?}, max {:?}",
            self.grants as f64 / self.cpu.as_secs_f64(),
            part(0.5),
            part(0.99),
            part(1.0),
        );
    }
}

/// CPU time of this thread so far, as Linux counts it.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.expect("Linux tells a thread's CPU time in its schedstat"))
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let number = |index: usize, usual: u64| numbers.get(index).copied().unwrap_or(usual).max(1);
    let (workers, agents) = (number(0, 1000), number(1, 200));
    let length = Duration::from_secs(number(2, 3));
    println!("{workers} workers, {agents} agents, {TOOLCHAINS} toolchains");
    let mut full = Farm::new(workers, agents);
    full.run(100 * agents, length);
    full.print("all slots taken, wants wait");
    let mut roomy = Farm::new(workers, agents);
    roomy.run(2 * workers, length);
    roomy.print("slots free");
}

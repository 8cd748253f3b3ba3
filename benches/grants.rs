//! How long an agent waits for a place that it does not hold yet: from its want to the coordinator's grant, over real
//! connections on loopback.
//!
//! `cargo bench --bench grants`, or with figures of your own: `cargo bench --bench grants -- WORKERS AGENTS JOBS SECONDS`. A whole
//! coordinator; a thousand made-up workers of two slots that report every second; two hundred agents' links as they are, each
//! with five jobs of a second at a time, so that half of the slots are free. All of it shares this machine's cores, which a real
//! farm does not: what is printed is the most that the coordinator can take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdcc::agent::coordinator_link::{CoordinatorLink, Cost, Ending, GrantHeld, Identity, Purpose, WantError, Wish};
use rdcc::coordinator::events::{Event, HostKind};
use rdcc::coordinator::server;
use rdcc::coordinator::settings::{File, Given, Settings};
use rdcc::digest::Digest;
use rdcc::ids::ToolchainId;
use rdcc::job::{RunReport, Usage, Variants};
use rdcc::protocol::wire::{self, worker_event};
use rdcc::runtime::channel;
use rdcc::runtime::tasks::Tasks;
use rdcc::trust::credentials::Trust;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How long a job holds its place.
const JOB: Duration = Duration::from_secs(1);
/// What is left out at the start: all agents begin at once, which none do in life.
const WARM_UP: Duration = Duration::from_secs(3);
const REPORT_EVERY: Duration = Duration::from_secs(1);

fn tool() -> ToolchainId {
    ToolchainId(Digest::of(b"toolchain"))
}

/// A worker that does nothing but report.
async fn worker(url: String, number: u64) {
    let (events, outgoing) = mpsc::channel(64);
    let hello = wire::WorkerHello {
        protocol: 1,
        name: format!("w{number}"),
        address: "127.0.0.1:7431".into(),
        slots: 2,
        power_milli: 1000,
        host_kind: "x".into(),
        toolchains: vec![tool().0.as_bytes().to_vec()],
        ..Default::default()
    };
    let tell = async |event| {
        let event = wire::WorkerEvent { event: Some(event) };
        events.send(event).await.expect("the session is open");
    };
    tell(worker_event::Event::Hello(hello)).await;
    let connection = channel::connect(&url).await.expect("it listens");
    let mut client = wire::coordinator_client::CoordinatorClient::new(connection);
    let session = client.worker_session(ReceiverStream::new(outgoing)).await;
    let mut orders = session.expect("it is welcome").into_inner();
    // Not all in the same moment.
    let mut ticks = tokio::time::interval_at(
        tokio::time::Instant::now() + REPORT_EVERY.mul_f64(number as f64 % 97.0 / 97.0),
        REPORT_EVERY,
    );
    let mut report = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                report += 1;
                tell(worker_event::Event::Load(wire::WorkerLoad { report, ..Default::default() })).await;
            }
            order = orders.message() => if !matches!(order, Ok(Some(_))) { return },
        }
    }
}

async fn want(link: &CoordinatorLink, work: Duration) -> Result<GrantHeld, WantError> {
    let wish = Wish {
        variants: Variants::Never,
        toolchain: tool(),
        work: Some(work),
        memory_bytes: None,
        build: "b".into(),
        purpose: Purpose::Job,
        spread_milli: Some(50),
        input_bytes: 100_000,
        avoid: Vec::new(),
        only: None,
    };
    let (told, answer) = tokio::sync::oneshot::channel();
    let ticket = link.want(wish, |said| {
        let _ = told.send(said);
    });
    let said = answer.await.expect("the link answers");
    ticket.answered();
    said
}

/// One job after another, until `end`. Returns what each waited for its place from `begin` on.
async fn jobs(link: Arc<CoordinatorLink>, seed: u64, begin: Instant, end: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    // Jobs of one agent do not march in step.
    tokio::time::sleep(JOB.mul_f64(seed as f64 * 0.618 % 1.0)).await;
    for number in seed.. {
        let asked = Instant::now();
        if asked >= end {
            break;
        }
        // As predicted, on workers that are all alike: a job that waits by choice for a faster one would be counted, too.
        let wall = JOB.mul_f64(0.7 + (number * 31 % 60) as f64 / 100.0);
        let mut grant = want(&link, wall).await.expect("slots are free");
        if asked >= begin {
            waits.push(asked.elapsed());
        }
        grant.show(Cost::default());
        tokio::time::sleep(wall).await;
        let usage = Usage {
            wall,
            ..Usage::default()
        };
        grant.end(Ending::Ran(RunReport {
            usage,
            work: Some(wall),
            spread_milli: Some(50),
            ..RunReport::default()
        }));
    }
    waits
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

fn main() {
    let figures: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let figure = |index: usize, usual| figures.get(index).copied().unwrap_or(usual);
    let (workers, agents, at_once, seconds) = (figure(0, 1000), figure(1, 200), figure(2, 5), figure(3, 15));
    // Both ends of every connection are in this process.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).expect("up to what is allowed");

    let state_dir = tempfile::tempdir().expect("a directory");
    let given = Given {
        listen: Some("127.0.0.1:0".to_owned()),
        state_dir: Some(state_dir.path().to_owned()),
        ..Given::default()
    };
    let settings = Settings::new(given, File::parse("").expect("valid")).expect("complete");
    let (serving, tasks) = (runtime(), Tasks::default());
    let coordinator = serving.block_on(server::start(&settings, &tasks)).expect("it starts");
    let added = Event::ToolchainAdded(tool(), HostKind("x".into()));
    serving.block_on(coordinator.driver.tell(added)).expect("it runs");
    let url = format!("http://{}", coordinator.address);

    let mut waits = runtime().block_on(async {
        let mut farm = tokio::task::JoinSet::new();
        for number in 0..workers {
            farm.spawn(worker(url.clone(), number));
        }
        while coordinator.driver.view().await.expect("it runs").cluster.workers.len() < workers as usize {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let begin = Instant::now() + WARM_UP;
        let end = begin + Duration::from_secs(seconds);
        let mut builds = tokio::task::JoinSet::new();
        for agent in 0..agents {
            let identity = Identity {
                host: format!("h{agent}"),
                user: "u".into(),
                pid: 1,
            };
            let link = CoordinatorLink::start(&tasks, &url, Trust::Plain, identity, |_| {});
            let link = Arc::new(link);
            for job in 0..at_once {
                builds.spawn(jobs(link.clone(), agent * at_once + job, begin, end));
            }
        }
        builds.join_all().await.concat()
    });
    serving.block_on(tasks.shut_down(Duration::from_secs(5)));
    waits.sort_unstable();
    let part = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{workers} workers, {agents} agents with {at_once} jobs each, {:.0} grants a second",
        waits.len() as f64 / seconds as f64
    );
    println!(
        "a want waits {:.2} ms (median), {:.2} ms (p99), {:.2} ms (most)",
        part(0.5),
        part(0.99),
        part(1.0)
    );
}

//! A whole coordinator in this process, over real connections: agents' links as they are, workers made up.

use std::time::Duration;

use rdcc::agent::coordinator_link::{
    CoordinatorLink, Cost, Ending, GrantHeld, Identity, LinkState, Purpose, Void, WantError, Wish,
};
use rdcc::coordinator::events::{Event, HostKind};
use rdcc::coordinator::server::{self, Coordinator};
use rdcc::coordinator::settings::{File, Given, Settings};
use rdcc::coordinator::view::ClusterView;
use rdcc::digest::Digest;
use rdcc::ids::ToolchainId;
use rdcc::job::{RefusalKind, RunReport, Variants};
use rdcc::protocol::token::{GrantKey, TokenCheck};
use rdcc::protocol::wire::{self, worker_event, worker_order::Order};
use rdcc::runtime::channel;
use rdcc::runtime::tasks::{Ended, Tasks};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

mod binary;

/// Far more than anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Short waits, so that what has to run out does so at once.
const QUICK: &str = "[scheduling]\ngrant_valid = '200 ms'\nreport_every = '100 ms'\nsettle = '100 ms'\n";

fn tool() -> ToolchainId {
    ToolchainId(Digest::of(b"toolchain"))
}

struct Farm {
    coordinator: Coordinator,
    tasks: Tasks,
    state_dir: tempfile::TempDir,
}

impl Farm {
    async fn start(settings: &str) -> Self {
        Self::start_at("127.0.0.1:0", settings).await
    }

    async fn start_at(listen: &str, settings: &str) -> Self {
        let state_dir = tempfile::tempdir().expect("a directory");
        let given = Given {
            listen: Some(listen.to_owned()),
            state_dir: Some(state_dir.path().to_owned()),
            ..Given::default()
        };
        let settings = Settings::new(given, File::parse(settings).expect("valid")).expect("complete");
        let tasks = Tasks::default();
        let coordinator = server::start(&settings, &tasks).await.expect("it starts");
        let added = Event::ToolchainAdded(tool(), HostKind("x86_64-linux".into()));
        coordinator.driver.tell(added).await.expect("it runs");
        Self {
            coordinator,
            tasks,
            state_dir,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.coordinator.address)
    }

    fn link(&self) -> CoordinatorLink {
        link_to(&self.tasks, &self.url())
    }

    async fn client(&self) -> wire::coordinator_client::CoordinatorClient<tonic::transport::Channel> {
        let connection = channel::connect(&self.url()).await.expect("it listens");
        wire::coordinator_client::CoordinatorClient::new(connection)
    }

    /// Waits until the cluster looks as it should.
    async fn until(&self, what: &str, fits: impl Fn(&ClusterView) -> bool) {
        let seen = async {
            loop {
                let view = self.coordinator.driver.view().await.expect("it runs").cluster;
                if fits(&view) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect(what);
    }

    async fn stop(self) {
        assert_eq!(self.tasks.shut_down(PATIENCE).await, Ended::Cleanly);
        drop(self.state_dir);
    }
}

fn link_to(tasks: &Tasks, url: &str) -> CoordinatorLink {
    let identity = Identity {
        host: "here".into(),
        user: "me".into(),
        pid: 1,
    };
    CoordinatorLink::start(tasks, url, rdcc::trust::credentials::Trust::Plain, identity, |_| {})
}

async fn want(link: &CoordinatorLink, wish: Wish) -> Result<GrantHeld, WantError> {
    let (told, answer) = tokio::sync::oneshot::channel();
    let _ticket = link.want(wish, |said| {
        let _ = told.send(said);
    });
    answer.await.expect("the link answers")
}

fn wish() -> Wish {
    Wish {
        variants: Variants::Never,
        toolchain: tool(),
        work: Some(Duration::from_millis(300)),
        memory_bytes: None,
        build: "b".into(),
        purpose: Purpose::Job,
        spread_milli: None,
        input_bytes: 0,
        avoid: Vec::new(),
        only: None,
    }
}

/// A worker that says only what the test makes it say.
struct FakeWorker {
    events: mpsc::Sender<wire::WorkerEvent>,
    orders: Streaming<wire::WorkerOrder>,
    key: GrantKey,
}

fn hello(name: &str, slots: u32) -> wire::WorkerHello {
    wire::WorkerHello {
        protocol: 1,
        name: name.into(),
        address: "127.0.0.1:7431".into(),
        slots,
        power_milli: 1000,
        host_kind: "x86_64-linux".into(),
        toolchains: vec![tool().0.as_bytes().to_vec()],
        ..Default::default()
    }
}

impl FakeWorker {
    async fn join(farm: &Farm, hello: wire::WorkerHello) -> Result<Self, Status> {
        let (events, outgoing) = mpsc::channel(64);
        send(&events, worker_event::Event::Hello(hello)).await;
        let mut client = farm.client().await;
        let mut orders = client.worker_session(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = orders.message().await?.and_then(|order| order.order);
        let Some(Order::Welcome(welcome)) = first else {
            panic!("{first:?} instead of a welcome")
        };
        let key = GrantKey(welcome.grant_key.try_into().expect("32 bytes"));
        Ok(Self { events, orders, key })
    }

    async fn report(&self, number: u64, running: Vec<u64>, voided: Vec<u64>) {
        let load = wire::WorkerLoad {
            report: number,
            running,
            voided,
            ..Default::default()
        };
        send(&self.events, worker_event::Event::Load(load)).await;
    }

    /// The next order, or how the session ended.
    async fn order(&mut self) -> Result<Order, Status> {
        let order = tokio::time::timeout(PATIENCE, self.orders.message()).await;
        let order = order.expect("an order comes")?;
        let order = order.ok_or_else(|| Status::unavailable("the session was closed"))?;
        Ok(order.order.expect("an order that is known"))
    }
}

async fn send(events: &mpsc::Sender<wire::WorkerEvent>, event: worker_event::Event) {
    let event = wire::WorkerEvent { event: Some(event) };
    events.send(event).await.expect("the session is open");
}

#[tokio::test]
async fn want_is_granted_with_a_genuine_token_and_its_end_frees_the_slot() {
    let farm = Farm::start("").await;
    let worker = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let link = farm.link();
    let mut grant = want(&link, wish()).await.expect("a place is free");
    assert_eq!((grant.worker.as_str(), grant.address.as_str()), ("w", "127.0.0.1:7431"));
    let (id, session) = (grant.grant, grant.agent_session);
    let check = worker.key.verify(id, session, tool(), grant.show(Cost::default()));
    assert_eq!(check, TokenCheck::Genuine);

    let second = want(&link, wish());
    farm.until("the first takes the slot", |view| view.workers[0].busy == 1)
        .await;
    grant.end(Ending::Ran(RunReport::default()));
    drop(grant);
    let second = second.await.expect("the slot is free again");
    let status = farm.client().await.status(wire::StatusRequest {}).await;
    let status = status.expect("it answers").into_inner();
    assert_eq!((status.workers[0].jobs_done, status.running), (1, 1));
    assert_eq!((status.agents[0].host.as_str(), status.agents[0].holding), ("here", 1));
    drop(second);
    farm.until("what is dropped is given back", |view| view.workers[0].busy == 0)
        .await;
    farm.stop().await;
}

#[tokio::test]
async fn want_that_is_dropped_is_taken_back() {
    let farm = Farm::start("").await;
    let _worker = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let link = farm.link();
    let held = want(&link, wish()).await.expect("a place is free");
    {
        let waiting = want(&link, wish());
        tokio::pin!(waiting);
        let queued = farm.until("it waits", |view| view.queued == 1);
        tokio::select! {
            _ = &mut waiting => panic!("there is no second slot"),
            () = queued => {}
        }
    }
    farm.until("nobody waits", |view| view.queued == 0).await;
    drop(held);
    farm.until("nothing is held", |view| view.jobs.is_empty()).await;
    farm.stop().await;
}

#[tokio::test]
async fn refusal_comes_with_its_reason() {
    let farm = Farm::start(QUICK).await;
    let refused = want(&farm.link(), wish()).await.expect_err("no worker is there");
    let WantError::Refused(refusal) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.kind, RefusalKind::NoToolchain);
    assert!(refusal.message.contains("`x86_64-linux`"), "{}", refusal.message);
    farm.stop().await;
}

#[tokio::test]
async fn without_a_coordinator_a_want_fails_at_once() {
    let tasks = Tasks::default();
    // Bound and not listened on: nobody else gets the port meanwhile.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let link = link_to(&tasks, &format!("http://{}", port.expect("a free port")));
    let failed = want(&link, wish()).await.expect_err("nobody listens");
    assert!(
        matches!(&failed, WantError::Unreachable(why) if why.contains("refused")),
        "{failed}"
    );
    assert!(matches!(link.settled().await, LinkState::Down(_)));
    tasks.shut_down(PATIENCE).await;
}

#[tokio::test]
async fn everybody_comes_back_to_a_coordinator_that_restarts() {
    let farm = Farm::start("").await;
    let mut worker = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let agent_tasks = Tasks::default();
    let link = link_to(&agent_tasks, &farm.url());
    let held = want(&link, wish()).await.expect("a place is free");
    let address = farm.coordinator.address.to_string();
    let (failed, ()) = tokio::join!(want(&link, wish()), async {
        farm.until("it waits", |view| view.queued == 1).await;
        farm.stop().await;
    });
    let failed = failed.expect_err("the session is gone");
    assert!(matches!(failed, WantError::Unreachable(_)), "{failed}");
    assert_eq!(held.void(), None, "what was granted stays good");
    while worker.order().await.is_ok() {}

    let farm = Farm::start_at(&address, "").await;
    let again = wire::WorkerHello {
        running: vec![held.grant.0],
        ..hello("w", 2)
    };
    let _worker = FakeWorker::join(&farm, again).await.expect("it is welcome");
    farm.until("the agent is back", |view| view.agents.len() == 1).await;
    let next = want(&link, wish()).await.expect("the second slot is free");
    assert_eq!(
        farm.coordinator.driver.view().await.expect("it runs").cluster.workers[0].busy,
        2
    );
    drop((held, next));
    agent_tasks.shut_down(PATIENCE).await;
    farm.stop().await;
}

#[tokio::test]
async fn grant_that_is_not_used_is_void_on_both_sides() {
    let farm = Farm::start(QUICK).await;
    let mut worker = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let link = farm.link();
    let held = want(&link, wish()).await.expect("a place is free");
    assert_eq!(held.voided().await, Void::Expired);
    let grant = held.grant.0;
    loop {
        if let Order::Void(void) = worker.order().await.expect("the session goes on") {
            assert_eq!((void.grant, void.reason()), (grant, wire::grant_void::Reason::Expired));
            break;
        }
    }
    worker.report(1, Vec::new(), vec![grant]).await;
    farm.until("its slot is free", |view| view.workers[0].busy == 0).await;
    farm.stop().await;
}

#[tokio::test]
async fn silent_worker_is_lost_and_who_holds_its_grants_is_told() {
    let farm = Farm::start(&format!("{QUICK}silent_reports = 2\n").replace("200 ms", "20 s")).await;
    let mut worker = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let held = want(&farm.link(), wish()).await.expect("a place is free");
    assert_eq!(held.voided().await, Void::WorkerLost);
    let ended = loop {
        if let Err(status) = worker.order().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Aborted);
    assert!(ended.message().contains("nothing was heard"), "{ended}");
    farm.stop().await;
}

#[tokio::test]
async fn drained_worker_is_told_and_gets_nothing() {
    let farm = Farm::start(QUICK).await;
    let mut worker = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let drain = |worker: &str, on| wire::SetDrainRequest {
        worker: worker.into(),
        on,
    };
    let mut client = farm.client().await;
    let unknown = client
        .set_drain(drain("nobody", true))
        .await
        .expect_err("no such worker");
    assert_eq!(unknown.code(), Code::NotFound);
    client.set_drain(drain("w", true)).await.expect("it is there");
    while !matches!(worker.order().await.expect("the session goes on"), Order::Drain(drain) if drain.on) {}
    farm.until("workers had time to come", |view| view.workers[0].busy == 0)
        .await;
    let status = client
        .status(wire::StatusRequest {})
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(status.workers[0].state, "draining");
    client.set_drain(drain("w", false)).await.expect("it is there");
    want(&farm.link(), wish()).await.expect("it takes jobs again");
    farm.stop().await;
}

#[tokio::test]
async fn second_worker_of_a_name_ends_the_session_of_the_first() {
    let farm = Farm::start("").await;
    let mut first = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let _second = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let ended = loop {
        if let Err(status) = first.order().await {
            break status;
        }
    };
    assert!(
        ended.message().contains("another session came under the name `w`"),
        "{ended}"
    );
    farm.until("one is left", |view| view.workers.len() == 1).await;
    farm.stop().await;
}

#[tokio::test]
async fn new_toolchain_makes_workers_of_its_kind_look() {
    let farm = Farm::start("").await;
    let mut worker = FakeWorker::join(&farm, hello("w", 1)).await.expect("it is welcome");
    let other = ToolchainId(Digest::of(b"other"));
    let added = Event::ToolchainAdded(other, HostKind("x86_64-linux".into()));
    farm.coordinator.driver.tell(added).await.expect("it runs");
    let look = wire::Prepare {
        toolchain: other.0.as_bytes().to_vec(),
        effort: wire::prepare::Effort::Look.into(),
    };
    while worker.order().await.expect("the session goes on") != Order::Prepare(look.clone()) {}
    farm.stop().await;
}

#[tokio::test]
async fn peers_that_cannot_be_understood_are_told_why() {
    let farm = Farm::start("").await;
    let code = |hello| async {
        let refused = FakeWorker::join(&farm, hello).await.err();
        refused.map(|status| (status.code(), status.message().to_owned()))
    };
    let unnamed = wire::WorkerHello {
        name: "no name".into(),
        ..hello("w", 1)
    };
    assert_eq!(
        code(unnamed).await.map(|refused| refused.0),
        Some(Code::InvalidArgument)
    );
    let old = wire::WorkerHello {
        protocol: 0,
        ..hello("w", 1)
    };
    let (code, message) = code(old).await.expect("protocol 0 is refused");
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("update `worker `w``"), "{message}");

    let (events, outgoing) = mpsc::channel(1);
    events.send(wire::WorkerEvent::default()).await.expect("there is room");
    let refused = farm.client().await.worker_session(ReceiverStream::new(outgoing)).await;
    assert_eq!(
        refused.map(drop).map_err(|status| status.code()),
        Err(Code::InvalidArgument)
    );
    farm.until("nobody joined", |view| view.workers.is_empty()).await;
    farm.stop().await;
}

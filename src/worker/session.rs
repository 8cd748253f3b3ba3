//! The worker's session with its coordinator: states what this node is, reports, obeys, and comes back for ever.
//!
//! One task owns the session. Jobs do not pass through here and survive its end: while the coordinator is away, running
//! jobs go on and grants of the last session stay good, on a node that is not drained for one job after another. What the
//! orders mean for slots and toolchains is decided behind [`Places`] and [`Toolchains`]. The contract is the comment of
//! `WorkerSession` in `proto/rdcc/v1/coordinator.proto`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::cores::Group;
use crate::ids::{GrantId, Name, ToolchainId};
use crate::protocol::token::GrantKey;
use crate::protocol::wire::{self, worker_event::Event, worker_order::Order};
use crate::protocol::{MESSAGE_BYTES_MAX, convert, version};
use crate::runtime::backoff::Backoff;
use crate::runtime::tasks::Tasks;
use crate::trust::credentials::Trust;

/// First and longest pause between attempts to reach the coordinator: a restart is noticed within a second, and a
/// hundred nodes of a dead coordinator cost next to nothing.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(2);
/// Events that may wait for the coordinator. It takes them far faster than they arise; when it does not, the session
/// is dead.
const EVENTS_MAX: usize = 256;
/// Toolchains prepared at one time: fetching is bound by the link and the disk, not by how many run.
const PREPARING_MAX: usize = 64;

/// What this node is, as `hello` states it.
#[derive(Debug, Clone)]
pub struct WorkerIdentity {
    /// The node's name.
    pub name: Name,
    /// Where agents reach it.
    pub address: String,
    /// Jobs at one time.
    pub slots: u32,
    /// One slot against one reference core; their mean where cores are of different speed.
    pub power: f64,
    /// Such cores, the fastest first; empty: all are alike.
    pub cores: Vec<Group>,
    /// What its toolchains must run on.
    pub host_kind: String,
    /// Main memory, bytes.
    pub memory_bytes: u64,
    /// What isolates jobs, for people.
    pub sandbox: String,
}

/// What becomes of a place once its job has ended, while the coordinator is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It serves the next job.
    Yes,
    /// Nothing: the coordinator has drained this node.
    No,
}

/// The slots, as the session needs them.
pub trait Places: Send + Sync + 'static {
    /// Names the running grants for `hello`, and starts no job until `welcome` or `parted`.
    fn hello(&self) -> Vec<GrantId>;
    /// Takes the key of the session that begins.
    fn welcome(&self, key: GrantKey);
    /// The session has ended or did not come about; the last one's grants stay good, for one job each or more.
    fn parted(&self, reuse: Reuse);
    /// No job may start under this grant any more.
    fn void(&self, grant: GrantId);
    /// Names the grants in use, and those voided since the last call that run nothing.
    fn report(&self) -> (Vec<GrantId>, Vec<GrantId>);
    /// True once the worker takes no more jobs.
    fn leaving(&self) -> bool;
}

/// How a toolchain stands here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// This machine's own files, verified.
    Installed,
    /// Unpacked from a bundle, verified.
    Bundle,
    /// Not here; could be fetched.
    Fetchable,
    /// Cannot be had, and why.
    Failed(String),
}

/// The toolchain store, as the session needs it.
pub trait Toolchains: Send + Sync + 'static {
    /// Names what is ready.
    fn ready(&self) -> Vec<ToolchainId>;
    /// Looks whether the toolchain is installed or cached; fetches nothing.
    fn look(&self, id: ToolchainId) -> impl Future<Output = Standing> + Send;
    /// Gets the toolchain.
    fn fetch(&self, id: ToolchainId) -> impl Future<Output = Standing> + Send;
}

/// What a session is made of.
pub struct Session<P, T> {
    /// `http://HOST:PORT` of the coordinator.
    pub coordinator: String,
    /// What this node is.
    pub identity: WorkerIdentity,
    /// How the coordinator is spoken to.
    pub trust: Trust,
    /// Its slots.
    pub places: Arc<P>,
    /// Its toolchains.
    pub toolchains: Arc<T>,
    /// Owner of what this starts.
    pub tasks: Tasks,
    /// Whether the last word on it was to drain this node: told to a coordinator that has forgotten.
    pub drained: AtomicBool,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Parted {
    #[error("cannot reach the coordinator: {0}")]
    Unreachable(#[from] tonic::transport::Error),
    #[error("the coordinator ended the session: {0}")]
    Status(#[from] tonic::Status),
    #[error("the coordinator closed the session")]
    Closed,
    #[error("the coordinator did not begin with `welcome`")]
    NoWelcome,
    #[error(transparent)]
    Skew(#[from] version::VersionSkew),
    #[error("the coordinator sent a message that cannot be taken: {0}")]
    Malformed(#[from] convert::WireError),
    #[error("the coordinator does not take events any more")]
    Stuck,
}

/// A session that has begun.
struct Opened {
    events: mpsc::Sender<wire::WorkerEvent>,
    orders: tonic::Streaming<wire::WorkerOrder>,
    welcome: wire::WorkerWelcome,
}

fn send(events: &mpsc::Sender<wire::WorkerEvent>, event: Event) -> Result<(), Parted> {
    let event = wire::WorkerEvent { event: Some(event) };
    events.try_send(event).map_err(|_| Parted::Stuck)
}

impl<P: Places, T: Toolchains> Session<P, T> {
    /// Joins, and joins again whenever the session ends, until cancelled. `joined` is called at each `welcome`.
    pub async fn run(self, mut joined: impl FnMut() + Send) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let session = Arc::new(self);
        loop {
            let mut welcomed = false;
            let ended = session
                .once(&mut || {
                    welcomed = true;
                    joined();
                })
                .await;
            session.places.parted(match session.drained.load(Ordering::Relaxed) {
                true => Reuse::No,
                false => Reuse::Yes,
            });
            let Err(parted) = ended else { return };
            if welcomed {
                backoff.reset();
            }
            let pause = backoff.next_delay(rand::random());
            tracing::warn!(coordinator = session.coordinator, "{parted}; next attempt in {pause:?}");
            tokio::select! {
                () = session.tasks.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Connects and is welcomed.
    async fn open(&self) -> Result<Opened, Parted> {
        let connection = self.trust.coordinator(&self.coordinator).await?;
        let mut client = wire::coordinator_client::CoordinatorClient::new(connection)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (events, outgoing) = mpsc::channel(EVENTS_MAX);
        send(&events, Event::Hello(self.hello()))?;
        let mut orders = client.worker_session(ReceiverStream::new(outgoing)).await?.into_inner();
        let Some(Order::Welcome(welcome)) = orders.message().await?.and_then(|order| order.order) else {
            return Err(Parted::NoWelcome);
        };
        version::accept("the coordinator", welcome.protocol)?;
        Ok(Opened {
            events,
            orders,
            welcome,
        })
    }

    /// One session, from connecting to its end. Returns only when cancelled.
    async fn once(self: &Arc<Self>, joined: &mut (dyn FnMut() + Send)) -> Result<(), Parted> {
        // A coordinator that is not there, or says nothing, keeps nobody from stopping.
        let Some(opened) = self.tasks.token().run_until_cancelled(self.open()).await else {
            return Ok(());
        };
        let Opened {
            events,
            mut orders,
            welcome,
        } = opened?;
        let send = |event| send(&events, event);
        let key = welcome
            .grant_key
            .try_into()
            .map_err(|_| convert::WireError::Range("grant key"))?;
        self.places.welcome(GrantKey(key));
        joined();

        let pace = Duration::from_millis(welcome.report_every_ms.clamp(50, 60_000).into());
        let mut tick = tokio::time::interval(pace);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut report = 0;
        let (standings, mut prepared) = mpsc::channel::<(ToolchainId, Standing)>(PREPARING_MAX);
        let mut preparing = HashSet::new();
        loop {
            tokio::select! {
                () = self.tasks.cancelled() => {
                    report += 1;
                    let last = wire::WorkerLoad { leaving: true, ..self.load(report) };
                    // The coordinator learns of the end either way; said, it learns at once.
                    let _ = send(Event::Load(last));
                    return Ok(());
                }
                _ = tick.tick() => {
                    report += 1;
                    send(Event::Load(self.load(report)))?;
                }
                Some((id, standing)) = prepared.recv() => {
                    preparing.remove(&id);
                    send(Event::Toolchain(standing_to_wire(id, standing)))?;
                }
                order = orders.message() => match order?.ok_or(Parted::Closed)?.order {
                    Some(Order::Void(void)) => {
                        self.places.void(GrantId(void.grant));
                        report += 1;
                        send(Event::Load(self.load(report)))?;
                    }
                    Some(Order::Prepare(prepare)) => {
                        let id = convert::toolchain_from_wire(&prepare.toolchain)?;
                        // A repeated order finds its work under way, and is answered when that is done.
                        if preparing.len() < PREPARING_MAX && preparing.insert(id) {
                            self.prepare(id, prepare.effort(), standings.clone());
                        }
                    }
                    Some(Order::Drain(drain)) => {
                        tracing::info!(on = drain.on, "the coordinator drains this node");
                        self.drained.store(drain.on, Ordering::Relaxed);
                    }
                    // A later coordinator may know orders that this worker does not.
                    Some(Order::Welcome(_)) | None => {}
                },
            }
        }
    }

    fn prepare(
        self: &Arc<Self>,
        id: ToolchainId,
        effort: wire::prepare::Effort,
        standings: mpsc::Sender<(ToolchainId, Standing)>,
    ) {
        let session = self.clone();
        self.tasks.spawn_until_cancelled(async move {
            let standing = match effort {
                wire::prepare::Effort::Fetch => session.toolchains.fetch(id).await,
                wire::prepare::Effort::Look | wire::prepare::Effort::Unspecified => session.toolchains.look(id).await,
            };
            // The session may have ended meanwhile; the next hello states what is ready.
            let _ = standings.send((id, standing)).await;
        });
    }

    fn hello(&self) -> wire::WorkerHello {
        let identity = &self.identity;
        let ids = self.toolchains.ready();
        wire::WorkerHello {
            protocol: version::NEWEST,
            name: identity.name.to_string(),
            address: identity.address.clone(),
            slots: identity.slots,
            power_milli: milli(identity.power),
            host_kind: identity.host_kind.clone(),
            memory_bytes: identity.memory_bytes,
            sandbox: identity.sandbox.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            toolchains: ids.iter().map(|id| id.0.as_bytes().to_vec()).collect(),
            running: self.places.hello().iter().map(|grant| grant.0).collect(),
            draining: self.drained.load(Ordering::Relaxed),
            variants: true,
            cores: identity.cores.iter().map(cores_to_wire).collect(),
        }
    }

    fn load(&self, report: u64) -> wire::WorkerLoad {
        let (running, voided) = self.places.report();
        let numbers = |grants: Vec<GrantId>| grants.iter().map(|grant| grant.0).collect();
        wire::WorkerLoad {
            running: numbers(running),
            memory_available_bytes: memory_available_bytes(),
            memory_pressure_milli: memory_pressure_milli(),
            report,
            voided: numbers(voided),
            leaving: self.places.leaving(),
        }
    }
}

fn milli(power: f64) -> u32 {
    (power * 1000.0).round() as u32
}

fn cores_to_wire(group: &Group) -> wire::CoreGroup {
    wire::CoreGroup {
        slots: group.slots,
        power_milli: milli(group.power),
    }
}

fn standing_to_wire(id: ToolchainId, standing: Standing) -> wire::ToolchainState {
    use wire::toolchain_state::State;
    let (state, message) = match standing {
        Standing::Installed => (State::Installed, String::new()),
        Standing::Bundle => (State::Bundle, String::new()),
        Standing::Fetchable => (State::Fetchable, String::new()),
        Standing::Failed(message) => (State::Failed, message),
    };
    wire::ToolchainState {
        toolchain: id.0.as_bytes().to_vec(),
        state: state.into(),
        message,
    }
}

/// Memory that new work could use, bytes; 0 when the kernel does not say.
fn memory_available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    memory_field(&text, "MemAvailable:")
}

/// Part of the last ten seconds in which all tasks stood still for want of memory, thousandths; 0 when the kernel does
/// not say.
fn memory_pressure_milli() -> u32 {
    let text = std::fs::read_to_string("/proc/pressure/memory").unwrap_or_default();
    full_pressure_milli(&text)
}

/// Reads `full avg10` of a pressure file, which is a percentage, as thousandths.
fn full_pressure_milli(pressure: &str) -> u32 {
    let full = pressure.lines().find_map(|line| line.strip_prefix("full avg10="));
    let percent = full.and_then(|rest| rest.split_whitespace().next());
    let percent = percent.and_then(|percent| percent.parse::<f64>().ok());
    (percent.unwrap_or(0.0).clamp(0.0, 100.0) * 10.0) as u32
}

/// Reads one field of `/proc/meminfo`, bytes.
pub fn memory_field(meminfo: &str, field: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tasks::Ended;

    struct Nothing;

    impl Places for Nothing {
        fn hello(&self) -> Vec<GrantId> {
            Vec::new()
        }
        fn welcome(&self, _: GrantKey) {}
        fn parted(&self, _: Reuse) {}
        fn void(&self, _: GrantId) {}
        fn report(&self) -> (Vec<GrantId>, Vec<GrantId>) {
            (Vec::new(), Vec::new())
        }
        fn leaving(&self) -> bool {
            false
        }
    }

    impl Toolchains for Nothing {
        fn ready(&self) -> Vec<ToolchainId> {
            Vec::new()
        }
        async fn look(&self, _: ToolchainId) -> Standing {
            Standing::Fetchable
        }
        async fn fetch(&self, _: ToolchainId) -> Standing {
            Standing::Fetchable
        }
    }

    #[tokio::test]
    async fn a_coordinator_that_says_nothing_keeps_no_worker_from_stopping() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let tasks = Tasks::default();
        let session = Session {
            coordinator: format!("http://{}", silent.local_addr().expect("its address")),
            identity: WorkerIdentity {
                name: "node".parse().expect("a name"),
                address: "127.0.0.1:1".to_owned(),
                slots: 1,
                power: 1.0,
                cores: Vec::new(),
                host_kind: "x86_64-linux".to_owned(),
                memory_bytes: 1 << 30,
                sandbox: String::new(),
            },
            trust: Trust::Plain,
            places: Arc::new(Nothing),
            toolchains: Arc::new(Nothing),
            tasks: tasks.clone(),
            drained: AtomicBool::new(false),
        };
        tasks.spawn(session.run(|| panic!("nobody has welcomed it")));
        let connection = silent.accept().await.expect("a worker that connects");
        assert_eq!(tasks.shut_down(Duration::from_secs(5)).await, Ended::Cleanly);
        drop(connection);
    }

    #[test]
    fn memory_is_read_from_the_kernels_own_lines() {
        let text = "MemTotal:  1024 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\n";
        assert_eq!(memory_field(text, "MemAvailable:"), 512 << 10);
        assert_eq!(memory_field(text, "MemTotal:"), 1 << 20);
        assert_eq!(memory_field("", "MemTotal:"), 0);
    }

    #[test]
    fn pressure_is_read_where_the_kernel_tells_it() {
        let text = "some avg10=12.00 avg60=1.00 avg300=0.00 total=7\nfull avg10=3.45 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(full_pressure_milli(text), 34);
        assert_eq!(full_pressure_milli(""), 0);
        assert_eq!(full_pressure_milli("full avg10=x"), 0);
    }
}

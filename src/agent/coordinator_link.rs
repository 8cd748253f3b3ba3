//! The agent's side of its session with the coordinator: asks for places, holds them, gives them back.
//!
//! One task owns the session and comes back for ever when it breaks. Nobody waits for a coordinator that is not there:
//! while there is no session a want fails at once, so that the job runs locally. Grants outlive the session they came
//! by. Decides neither what to want nor what to do instead. Invariant: every want that was sent is answered or taken
//! back, and every grant is given back exactly once, also when a caller just drops what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::toolchain_resolve::{DefinitionSource, Told};
use crate::ids::{AgentSessionId, CoreGroupId, GrantId, Name, RequestId, ToolchainId};
use crate::job::{Refusal, RefusalKind, RunReport, Variants};
use crate::protocol::{MESSAGE_BYTES_MAX, wire};
use crate::runtime::tasks::Tasks;
use crate::toolchains::definition::Certify;
use crate::toolchains::host::Host;
use crate::trust::{self, credentials::Trust};

mod session;

/// How long a build waits for the text of a toolchain's file.
const DEFINITION_WAIT: Duration = Duration::from_secs(3);

/// Who this agent is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// This machine.
    pub host: String,
    /// This user.
    pub user: String,
    /// This process.
    pub pid: u32,
}

/// What the job is expected to cost that is put into a place held ahead of need; 0 where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// CPU time on the reference core.
    pub work: Duration,
    /// Standard deviation of ln(work), thousandths.
    pub spread_milli: u32,
    /// Peak memory, bytes.
    pub memory_bytes: u64,
}

/// What a place is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What the job needs.
    pub toolchain: ToolchainId,
    /// Expected CPU time on the reference core, if known.
    pub work: Option<Duration>,
    /// Expected peak memory in bytes, if known.
    pub memory_bytes: Option<u64>,
    /// What fairness is counted by, below the agent; may be empty.
    pub build: String,
    /// What the place is for.
    pub purpose: Purpose,
    /// Standard deviation of ln(work), thousandths, if known.
    pub spread_milli: Option<u32>,
    /// What a worker that has seen nothing of this tree would have to be sent, bytes.
    pub input_bytes: u64,
    /// Workers that must not be used.
    pub avoid: Vec<Name>,
    /// The only worker that may be used, where there is one.
    pub only: Option<Name>,
    /// Whether a certified variant of the toolchain will do.
    pub variants: Variants,
}

/// What a place is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// A job that waits for it.
    #[default]
    Job,
    /// A second copy of a job that is far beyond its prediction.
    Race,
    /// No job yet: to be ready for the next one of this toolchain. The coordinator may recall it.
    Ahead,
}

/// A variant of a job's toolchain, certified by the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandIn {
    /// Its identity.
    pub toolchain: ToolchainId,
    /// What it runs on.
    pub host: Host,
    /// How equal its objects are.
    pub level: Certify,
}

/// The farm as the coordinator last told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FarmView {
    /// Slots of workers that take jobs.
    pub slots_total: u32,
    /// Of those, slots with a job; a place held ahead of need counts as free.
    pub slots_busy: u32,
    /// Speed of the fastest worker's slots when it is full, thousandths of a reference core.
    pub fastest_milli: u32,
    /// Wants with a job that wait, of all agents.
    pub queued: u64,
    /// Slots that this agent may hold while all that want the farm share it equally.
    pub my_share_slots: u64,
}

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantError {
    /// The coordinator says why.
    #[error("the coordinator has no place for this job: {}", .0.message)]
    Refused(Refusal),
    /// There is no session, or it broke while the want waited.
    #[error("the coordinator cannot be reached: {0}")]
    Unreachable(String),
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The compiler ran there, whatever it said.
    Ran(RunReport),
    /// It was not used.
    Unused,
    /// The worker declined without fault.
    Refused(RefusalKind),
    /// The worker broke or could not be reached.
    Fault,
}

/// Why a grant became void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Void {
    /// It was not used in time. A job that runs under it already goes on.
    Expired,
    /// The coordinator lost the worker. The agent's own link to it may still work.
    WorkerLost,
    /// It was held ahead of need and somebody's job wants the place: to be dropped at once, unless a job is in it.
    Recalled,
    /// Its worker's results were found wrong: what comes from there is not to be used.
    Distrusted,
}

/// What the coordinator says by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// There is a session.
    Joined,
    /// There is none any more.
    Parted,
    /// The farm is like this now.
    Farm(FarmView),
    /// A grant is void.
    Voided(GrantId, Void),
}

/// How the session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt is under way.
    Connecting,
    /// There is one.
    Up,
    /// There is none, and why; attempts go on.
    Down(String),
}

impl LinkState {
    /// Returns why nothing can be asked now, as far as that is known.
    pub fn why_not(&self) -> &str {
        match self {
            LinkState::Down(why) => why,
            LinkState::Connecting | LinkState::Up => "there is no session with it",
        }
    }
}

/// The link; clones are the same link.
#[derive(Debug, Clone)]
pub struct CoordinatorLink {
    notes: Notes,
    next_request: Arc<AtomicU64>,
    state: watch::Receiver<LinkState>,
    coordinator: Arc<str>,
    trust: Trust,
}

/// What callers tell the task. Not bounded by its type, since it has to work from `drop`; bounded in fact, since each
/// want causes at most four notes and how many wants there are is for the caller to bound.
type Notes = mpsc::UnboundedSender<Note>;

/// Takes what the coordinator says to a want.
type Answer = Box<dyn FnOnce(Result<GrantHeld, WantError>) + Send>;

enum Note {
    Want(RequestId, Wish, Answer),
    Cancel(RequestId),
    Used(AgentSessionId, GrantId, Cost),
    Done(AgentSessionId, GrantId, Ending),
    Accuse(Name, String),
    Hurry,
}

impl CoordinatorLink {
    /// Starts the link to `coordinator`, `http://HOST:PORT`, as one of `tasks`. Returns at once. What the coordinator says
    /// by itself goes to `news`.
    pub fn start(
        tasks: &Tasks,
        coordinator: &str,
        trust: Trust,
        identity: Identity,
        news: impl Fn(News) + Send + Sync + 'static,
    ) -> Self {
        let (notes, received) = mpsc::unbounded_channel();
        let (told, state) = watch::channel(LinkState::Connecting);
        let link = session::Owner::new(
            coordinator,
            trust.clone(),
            identity,
            notes.clone(),
            told,
            Box::new(news),
        );
        tasks.spawn_until_cancelled(link.run(received));
        Self {
            notes,
            next_request: Arc::new(AtomicU64::new(1)),
            state,
            coordinator: coordinator.into(),
            trust,
        }
    }

    /// Asks for a place; `answer` is called once, unless the ticket is dropped before. It must not block.
    ///
    /// Without a session it fails at once, except that the very first attempt to reach the coordinator is awaited for
    /// some seconds.
    pub fn want(&self, wish: Wish, answer: impl FnOnce(Result<GrantHeld, WantError>) + Send + 'static) -> Ticket {
        let request = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let note = Note::Want(request, wish, Box::new(answer));
        if let Err(mpsc::error::SendError(Note::Want(_, _, answer))) = self.notes.send(note) {
            answer(Err(WantError::Unreachable("the agent is stopping".to_owned())));
        }
        Ticket {
            notes: self.notes.clone(),
            request: Some(request),
        }
    }

    /// Says that a worker's results are wrong, and what was found. Without a session nobody hears it.
    pub fn accuse(&self, worker: Name, what: String) {
        // When the task is gone, so is this agent.
        let _ = self.notes.send(Note::Accuse(worker, what));
    }

    /// Looks soon whether the coordinator is back, if there is no session.
    pub fn hurry(&self) {
        // When the task is gone, so is this agent.
        let _ = self.notes.send(Note::Hurry);
    }

    /// Returns how the session stands.
    pub fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    /// Returns when there is a session, or the attempt that was under way has failed.
    pub async fn settled(&self) -> LinkState {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| *state != LinkState::Connecting).await;
        settled.map_or_else(
            |_| LinkState::Down("the agent is stopping".to_owned()),
            |state| state.clone(),
        )
    }
}

impl DefinitionSource for CoordinatorLink {
    /// Asks the coordinator, when there is a session with it.
    async fn definition(&self, name: &Name) -> Told {
        if self.settled().await != LinkState::Up {
            return Told::NoAnswer;
        }
        let Ok(endpoint) = self
            .trust
            .endpoint(&self.coordinator, &trust::identity::Identity::coordinator())
        else {
            return Told::NoAnswer;
        };
        let mut client = wire::toolchains_client::ToolchainsClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = wire::ShowRequest {
            which: Some(wire::show_request::Which::Name(name.to_string())),
        };
        let answer = tokio::time::timeout(DEFINITION_WAIT, client.show(request)).await;
        match answer {
            Ok(Ok(record)) => String::from_utf8(record.into_inner().definition).map_or(Told::Unknown, Told::Text),
            Ok(Err(status)) if status.code() == tonic::Code::NotFound => Told::Unknown,
            Ok(Err(status)) => {
                tracing::debug!(toolchain = %name, %status, "the coordinator does not tell the toolchain's file");
                Told::NoAnswer
            }
            Err(_) => Told::NoAnswer,
        }
    }
}

/// A want that was sent; to drop the ticket is to take it back.
#[derive(Debug)]
pub struct Ticket {
    notes: Notes,
    request: Option<RequestId>,
}

impl Ticket {
    /// Takes note that the want was answered, so that there is nothing to take back.
    pub fn answered(mut self) {
        self.request = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            // When the task is gone, so is the session, and the want with it.
            let _ = self.notes.send(Note::Cancel(request));
        }
    }
}

/// A place on a worker, until it is dropped.
///
/// Dropped, it is given back: with the ending that was told, else as unused when its token was never taken, as a fault when it
/// was.
#[derive(Debug)]
pub struct GrantHeld {
    /// The worker's name.
    pub worker: Name,
    /// Where the worker is reached, `HOST:PORT`.
    pub address: String,
    /// The grant's number.
    pub grant: GrantId,
    /// What the coordinator calls this agent; the worker has to be told for the token to be good.
    pub agent_session: AgentSessionId,
    /// The toolchain that the token is good for.
    pub toolchain: ToolchainId,
    /// To be used within this time of its arrival.
    pub valid: Duration,
    /// Speed of the slot for this toolchain, thousandths of a reference core, as the coordinator has learned it; 0 when
    /// it does not say.
    pub power_milli: u32,
    /// What it was wanted for.
    pub purpose: Purpose,
    /// The variant that a job has to run on here; none when it is the toolchain itself.
    pub stand_in: Option<StandIn>,
    /// The cores of the worker that it is for.
    pub cores: CoreGroupId,
    token: Vec<u8>,
    void: watch::Receiver<Option<Void>>,
    ending: Ending,
    notes: Notes,
}

impl GrantHeld {
    /// Returns the token, to be shown to the worker. From now on the grant counts as used; a coordinator that gave it
    /// ahead of need is told what for.
    pub fn show(&mut self, cost: Cost) -> &[u8] {
        self.ending = Ending::Fault;
        if self.purpose == Purpose::Ahead {
            // When the task is gone, so is the session.
            let _ = self.notes.send(Note::Used(self.agent_session, self.grant, cost));
        }
        &self.token
    }

    /// Returns the slot's power: work per second of running time; 1.0 when the coordinator does not say.
    pub fn power(&self) -> f64 {
        match self.power_milli {
            0 => 1.0,
            milli => f64::from(milli) / 1000.0,
        }
    }

    /// Returns why the grant is void, if it is.
    pub fn void(&self) -> Option<Void> {
        *self.void.borrow()
    }

    /// Returns when the grant becomes void; never, if that does not happen.
    pub async fn voided(&self) -> Void {
        let mut void = self.void.clone();
        let voided = void.wait_for(Option::is_some).await.ok().and_then(|void| *void);
        match voided {
            Some(void) => void,
            None => std::future::pending().await,
        }
    }

    /// Takes note of how it went; said when the grant is given back.
    pub fn end(&mut self, ending: Ending) {
        self.ending = ending;
    }

    /// Returns how it went, or counts if nobody says more.
    pub fn ending(&self) -> Ending {
        self.ending
    }
}

impl Drop for GrantHeld {
    fn drop(&mut self) {
        // When the task is gone, so is the session, and the coordinator has voided the grant.
        let _ = self.notes.send(Note::Done(self.agent_session, self.grant, self.ending));
    }
}

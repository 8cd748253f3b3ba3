//! The task behind a link: connects, says hello, passes wants up and grants down, and starts again.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Answer, Ending, FarmView, GrantHeld, Identity, LinkState, News, Note, Notes, Purpose, StandIn, Void, WantError,
    Wish,
};
use crate::ids::{AgentSessionId, GrantId, Name, RequestId, ToolchainId};
use crate::job::Variants;
use crate::protocol::wire::{self, agent_event::Event, agent_order::Order};
use crate::protocol::{MESSAGE_BYTES_MAX, convert, version};
use crate::runtime::backoff::Backoff;
use crate::toolchains::definition::Certify;
use crate::trust::credentials::Trust;

/// First and longest pause between attempts: a coordinator that restarts is back within a second, and an agent that
/// has none costs nothing worth naming.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(2);
/// How long wants wait for the first attempt: a coordinator that is there answers in milliseconds, and the first job
/// of a build should not run locally for that. On a long link it takes three round trips, of 200 ms and more, and a lost
/// packet of the first ones another second.
const FIRST_ATTEMPT_WAIT: Duration = Duration::from_secs(3);
/// Time for the handshake after the connection stands.
const WELCOME_WAIT: Duration = Duration::from_secs(5);
/// Events that may wait for the coordinator, which takes them far faster than they arise; when it does not, the
/// session is dead.
const EVENTS_MAX: usize = 8192;

/// Why a session ended, or did not come about.
#[derive(Debug, thiserror::Error)]
enum Parted {
    #[error("{}", root_cause(.0))]
    Unreachable(#[from] tonic::transport::Error),
    #[error("it ended the session: {}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("it closed the session")]
    Closed,
    #[error("it did not begin with `welcome`")]
    NoWelcome,
    #[error(transparent)]
    Skew(#[from] version::VersionSkew),
    #[error("it does not take events any more")]
    Stuck,
    #[error("it sent what cannot be taken: {0}")]
    Malformed(#[from] convert::WireError),
}

/// The last of an error's causes, which says what the system said.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// An open session.
struct Session {
    id: AgentSessionId,
    events: mpsc::Sender<wire::AgentEvent>,
    orders: Streaming<wire::AgentOrder>,
}

/// The task's state.
pub(super) struct Owner {
    coordinator: String,
    trust: Trust,
    identity: Identity,
    notes: Notes,
    state: watch::Sender<LinkState>,
    news: Box<dyn Fn(News) + Send + Sync>,
    waiting: HashMap<RequestId, (ToolchainId, Purpose, Answer)>,
    held: HashMap<GrantId, watch::Sender<Option<Void>>>,
}

impl Owner {
    pub(super) fn new(
        coordinator: &str,
        trust: Trust,
        identity: Identity,
        notes: Notes,
        state: watch::Sender<LinkState>,
        news: Box<dyn Fn(News) + Send + Sync>,
    ) -> Self {
        Self {
            coordinator: coordinator.to_owned(),
            trust,
            identity,
            notes,
            state,
            news,
            waiting: HashMap::new(),
            held: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut notes: mpsc::UnboundedReceiver<Note>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let parted = match self.connect(&mut notes).await {
                Ok((session, early)) => {
                    backoff.reset();
                    tracing::info!(coordinator = self.coordinator, session = %session.id, "session with the coordinator");
                    self.state.send_replace(LinkState::Up);
                    (self.news)(News::Joined);
                    self.attend(session, early, &mut notes).await
                }
                Err(parted) => parted,
            };
            self.be_down(&parted);
            let pause = backoff.next_delay(rand::random());
            tracing::info!(
                coordinator = self.coordinator,
                "no session: {parted}; next attempt in {pause:?}"
            );
            let mut pause = pin!(tokio::time::sleep(pause));
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(note) = notes.recv() => match note {
                        Note::Hurry => {
                            let soon = Instant::now() + RETRY_FIRST;
                            if soon < pause.deadline() {
                                pause.as_mut().reset(soon);
                            }
                        }
                        note => self.answer_without_session(note),
                    },
                }
            }
        }
    }

    /// Tries once. Wants that come during the very first attempt are kept for a moment, and handed out with the session.
    async fn connect(&mut self, notes: &mut mpsc::UnboundedReceiver<Note>) -> Result<(Session, Vec<Note>), Parted> {
        let mut attempt = pin!(open(&self.coordinator, &self.trust, &self.identity));
        let mut early = Vec::new();
        let mut patience = pin!(tokio::time::sleep(FIRST_ATTEMPT_WAIT));
        loop {
            let first = *self.state.borrow() == LinkState::Connecting;
            tokio::select! {
                opened = &mut attempt => {
                    return match opened {
                        Ok(session) => Ok((session, early)),
                        Err(parted) => {
                            fail_all(early, &parted.to_string());
                            Err(parted)
                        }
                    };
                }
                () = &mut patience, if first => {
                    let reason = "it has not answered yet".to_owned();
                    fail_all(early.drain(..), &reason);
                    self.state.send_replace(LinkState::Down(reason));
                }
                Some(note) = notes.recv() => match note {
                    Note::Want(..) if first => early.push(note),
                    Note::Cancel(request) => {
                        early.retain(|note| !matches!(note, Note::Want(wanted, ..) if *wanted == request));
                    }
                    Note::Want(..) | Note::Used(..) | Note::Done(..) | Note::Accuse(..) | Note::Hurry => fail_all([note], "there is no session with it"),
                },
            }
        }
    }

    fn answer_without_session(&self, note: Note) {
        fail_all([note], self.state.borrow().why_not());
    }

    /// Tells everybody who waits that there is no session; what is held stays good.
    fn be_down(&mut self, parted: &Parted) {
        let reason = parted.to_string();
        let before = self.state.send_replace(LinkState::Down(reason.clone()));
        // Before the answers: whoever gets them should know why.
        if before == LinkState::Up {
            (self.news)(News::Parted);
        }
        for (_, (_, _, answer)) in self.waiting.drain() {
            answer(Err(WantError::Unreachable(reason.clone())));
        }
        self.held.clear();
    }

    async fn attend(
        &mut self,
        mut session: Session,
        early: Vec<Note>,
        notes: &mut mpsc::UnboundedReceiver<Note>,
    ) -> Parted {
        for note in early {
            if let Err(parted) = self.pass_up(&session, note) {
                return parted;
            }
        }
        loop {
            let done = tokio::select! {
                Some(note) = notes.recv() => self.pass_up(&session, note),
                order = session.orders.message() => match order {
                    Ok(Some(order)) => self.obey(&session, order),
                    Ok(None) => Err(Parted::Closed),
                    Err(status) => Err(status.into()),
                },
            };
            if let Err(parted) = done {
                return parted;
            }
        }
    }

    fn pass_up(&mut self, session: &Session, note: Note) -> Result<(), Parted> {
        let event = match note {
            Note::Want(request, wish, answer) => {
                let event = Event::Want(want(request, &wish));
                self.waiting.insert(request, (wish.toolchain, wish.purpose, answer));
                event
            }
            // One that was answered meanwhile is given back by what it was answered with.
            Note::Cancel(request) if self.waiting.remove(&request).is_none() => return Ok(()),
            Note::Cancel(request) => Event::Cancel(wire::CancelWant { request: request.0 }),
            Note::Accuse(worker, what) => Event::Accuse(wire::Accusation {
                worker: worker.to_string(),
                what,
            }),
            Note::Hurry => return Ok(()),
            Note::Used(of, ..) if of != session.id => return Ok(()),
            Note::Used(_, grant, cost) => Event::Used(wire::GrantUsed {
                grant: grant.0,
                work_us: u64::try_from(cost.work.as_micros()).unwrap_or(u64::MAX),
                spread_milli: cost.spread_milli,
                memory_bytes: cost.memory_bytes,
                input_bytes: 0,
            }),
            Note::Done(of, grant, ending) => {
                self.held.remove(&grant);
                if of != session.id {
                    return Ok(());
                }
                Event::Done(done(grant, ending))
            }
        };
        let event = wire::AgentEvent { event: Some(event) };
        session.events.try_send(event).map_err(|_| Parted::Stuck)
    }

    fn obey(&mut self, session: &Session, order: wire::AgentOrder) -> Result<(), Parted> {
        match order.order {
            Some(Order::Grant(grant)) => self.take_grant(session, grant)?,
            Some(Order::Refused(refused)) => {
                if let Some((_, _, answer)) = self.waiting.remove(&RequestId(refused.request)) {
                    let refusal = convert::refusal_from_wire(refused.kind, refused.message);
                    answer(Err(WantError::Refused(refusal)));
                }
            }
            Some(Order::Void(void)) => {
                if let Some(told) = self.held.get(&GrantId(void.grant)) {
                    let reason = match void.reason() {
                        wire::grant_void::Reason::WorkerLost => Void::WorkerLost,
                        wire::grant_void::Reason::Recalled => Void::Recalled,
                        wire::grant_void::Reason::Distrusted => Void::Distrusted,
                        _ => Void::Expired,
                    };
                    told.send_replace(Some(reason));
                    (self.news)(News::Voided(GrantId(void.grant), reason));
                }
            }
            Some(Order::Farm(view)) => {
                (self.news)(News::Farm(FarmView {
                    slots_total: view.slots_total,
                    slots_busy: view.slots_busy,
                    fastest_milli: view.fastest_milli,
                    queued: view.queued,
                    my_share_slots: view.my_share_slots,
                }));
            }
            // A later coordinator may know orders that this agent does not.
            Some(Order::Welcome(_)) | None => {}
        }
        Ok(())
    }

    fn take_grant(&mut self, session: &Session, grant: wire::Grant) -> Result<(), Parted> {
        let worker = Name::new(&grant.worker).map_err(|_| convert::WireError::Range("worker"))?;
        let stand_in = grant.run_as.map(stand_in).transpose()?;
        // One that crossed its cancellation is given back by the coordinator itself.
        let Some((toolchain, purpose, answer)) = self.waiting.remove(&RequestId(grant.request)) else {
            return Ok(());
        };
        let (told, void) = watch::channel(None);
        self.held.insert(GrantId(grant.grant), told);
        let held = GrantHeld {
            worker,
            address: grant.address,
            grant: GrantId(grant.grant),
            agent_session: session.id,
            toolchain,
            valid: Duration::from_millis(grant.valid_ms.into()),
            power_milli: grant.power_milli,
            purpose,
            stand_in,
            cores: convert::core_group_from_wire(grant.cores),
            token: grant.token,
            void,
            ending: Ending::Unused,
            notes: self.notes.clone(),
        };
        // When nobody takes it, its drop gives it back.
        answer(Ok(held));
        Ok(())
    }
}

fn stand_in(run_as: wire::RunAs) -> Result<StandIn, convert::WireError> {
    Ok(StandIn {
        toolchain: convert::toolchain_from_wire(&run_as.toolchain)?,
        host: run_as
            .host_kind
            .parse()
            .map_err(|_| convert::WireError::Range("kind of host"))?,
        // A level that this build does not know is no better than the weakest.
        level: match run_as.level == Certify::Identical.as_str() {
            true => Certify::Identical,
            false => Certify::SameCode,
        },
    })
}

/// Fails wants; other notes need no answer.
fn fail_all(notes: impl IntoIterator<Item = Note>, reason: &str) {
    for note in notes {
        if let Note::Want(_, _, answer) = note {
            answer(Err(WantError::Unreachable(reason.to_owned())));
        }
    }
}

async fn open(coordinator: &str, trust: &Trust, identity: &Identity) -> Result<Session, Parted> {
    let connection = trust.coordinator(coordinator).await?;
    let mut client = wire::coordinator_client::CoordinatorClient::new(connection)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (events, outgoing) = mpsc::channel(EVENTS_MAX);
    let hello = wire::AgentHello {
        protocol: version::NEWEST,
        host: identity.host.clone(),
        user: identity.user.clone(),
        pid: identity.pid,
    };
    let hello = wire::AgentEvent {
        event: Some(Event::Hello(hello)),
    };
    events.try_send(hello).map_err(|_| Parted::Stuck)?;
    let handshake = async {
        let mut orders = client.agent_session(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = orders.message().await?;
        Ok::<_, Parted>((orders, first))
    };
    let handshake = tokio::time::timeout(WELCOME_WAIT, handshake).await;
    let (orders, first) = handshake.map_err(|_| Parted::NoWelcome)??;
    let Some(Order::Welcome(welcome)) = first.and_then(|order| order.order) else {
        return Err(Parted::NoWelcome);
    };
    version::accept("the coordinator", welcome.protocol)?;
    Ok(Session {
        id: AgentSessionId(welcome.session),
        events,
        orders,
    })
}

fn want(request: RequestId, wish: &Wish) -> wire::Want {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    wire::Want {
        request: request.0,
        toolchain: wish.toolchain.0.as_bytes().to_vec(),
        work_us: wish.work.map_or(0, micros),
        memory_bytes: wish.memory_bytes.unwrap_or(0),
        build: wish.build.clone(),
        ahead: wish.purpose == Purpose::Ahead,
        race: wish.purpose == Purpose::Race,
        avoid: wish.avoid.iter().map(Name::to_string).collect(),
        only: wish.only.as_ref().map(Name::to_string).unwrap_or_default(),
        input_bytes: wish.input_bytes,
        spread_milli: wish.spread_milli.unwrap_or(0),
        variants: wish.variants == Variants::Certified,
    }
}

fn done(grant: GrantId, ending: Ending) -> wire::GrantDone {
    use wire::grant_done::Ending as Wire;
    let base = wire::GrantDone {
        grant: grant.0,
        ..Default::default()
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    match ending {
        Ending::Ran(report) => wire::GrantDone {
            ending: Wire::Ran.into(),
            cpu_us: micros(report.usage.user + report.usage.system),
            wall_us: micros(report.usage.wall),
            memory_peak_bytes: report.usage.memory_peak_bytes,
            work_us: report.work.map_or(0, micros),
            spread_milli: report.spread_milli.unwrap_or(0),
            sent_bytes: report.sent_bytes,
            transfer_us: micros(report.transfer),
            ..base
        },
        Ending::Unused => wire::GrantDone {
            ending: Wire::Unused.into(),
            ..base
        },
        Ending::Refused(kind) => wire::GrantDone {
            ending: Wire::Refused.into(),
            refusal: convert::refusal_kind_to_wire(kind),
            ..base
        },
        Ending::Fault => wire::GrantDone {
            ending: Wire::Fault.into(),
            ..base
        },
    }
}

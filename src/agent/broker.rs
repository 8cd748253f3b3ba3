//! The task behind [`Placing`]: it owns the state, asks the coordinator, and tells jobs where they run.
//!
//! Translates and decides nothing. Whoever got an answer holds something whose drop says that the job has left, so that
//! no job is counted for ever. Invariant: every job that asks is answered once, unless it goes away first or the agent
//! ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::coordinator_link::{
    CoordinatorLink, Ending, FarmView, GrantHeld, News, Purpose, Ticket, Void, WantError, Wish,
};
use super::machine;
use super::placing::{Action, Again, AheadNumber, Ask, Choice, Event, JobNumber, Placing, Reach, Spare};
use crate::ids::{GrantId, ToolchainId};
use crate::job::{RefusalKind, Variants};
use crate::runtime::tasks::Tasks;

/// What the task is told. Its queue is bounded by the jobs: each causes a handful of messages.
enum Message {
    Ask(JobNumber, Ask, Wish, oneshot::Sender<Result<Found, WantError>>),
    Left(JobNumber, Option<Box<GrantHeld>>),
    Answered(JobNumber, Result<GrantHeld, WantError>),
    Ahead(AheadNumber, Result<GrantHeld, WantError>),
    News(News),
}

type Inbox = mpsc::UnboundedSender<Message>;

/// What was found for a job.
#[derive(Debug)]
pub enum Found {
    /// A place at a worker.
    There(Box<GrantHeld>, Stay),
    /// It runs here.
    Here(Choice, Stay),
}

/// A job that has its place; dropped when it has ended.
#[derive(Debug)]
pub struct Stay {
    number: JobNumber,
    /// The place that it leaves.
    place: Option<Box<GrantHeld>>,
    inbox: Option<Inbox>,
    undisturbed: Arc<AtomicBool>,
}

impl Stay {
    /// Makes one that nobody counts, for farms that are played.
    #[cfg(test)]
    pub fn uncounted() -> Self {
        Self {
            number: 0,
            place: None,
            inbox: None,
            undisturbed: Arc::default(),
        }
    }

    /// Tells whether a compile that runs here has a core to itself just now.
    pub fn is_undisturbed(&self) -> bool {
        self.undisturbed.load(Ordering::Relaxed)
    }

    /// Hands over the place that the job leaves, whose ending is known.
    pub fn vacate(&mut self, place: GrantHeld) {
        self.place = Some(Box::new(place));
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some(inbox) = &self.inbox {
            // When the task is gone, so is the count, and the place goes back by its drop.
            let _ = inbox.send(Message::Left(self.number, self.place.take()));
        }
    }
}

/// The way to the task.
#[derive(Debug, Clone)]
pub struct Broker {
    inbox: Inbox,
    next_job: Arc<AtomicU64>,
    undisturbed: Arc<AtomicBool>,
    farm: Arc<std::sync::Mutex<Option<FarmView>>>,
}

impl Broker {
    /// Starts the task and, by `connect`, the link that it uses. `cores` is what this machine has for compiles.
    pub fn start(
        tasks: &Tasks,
        cores: u32,
        connect: impl FnOnce(Box<dyn Fn(News) + Send + Sync>) -> CoordinatorLink,
    ) -> (Self, CoordinatorLink) {
        let (inbox, messages) = mpsc::unbounded_channel();
        let farm = Arc::new(std::sync::Mutex::new(None));
        let (told, seen) = (inbox.clone(), Arc::clone(&farm));
        let link = connect(Box::new(move |news| {
            let see = |view| *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = view;
            match news {
                News::Farm(view) => see(Some(view)),
                News::Parted => see(None),
                News::Joined | News::Voided(..) => {}
            }
            let _ = told.send(Message::News(news));
        }));
        let undisturbed = Arc::new(AtomicBool::new(true));
        let owner = Owner {
            placing: Placing::new(cores),
            link: link.clone(),
            inbox: inbox.clone(),
            undisturbed: Arc::clone(&undisturbed),
            askers: HashMap::new(),
            asked_ahead: HashMap::new(),
            held: HashMap::new(),
        };
        tasks.spawn_until_cancelled(owner.run(messages));
        let broker = Self {
            inbox,
            next_job: Arc::new(AtomicU64::new(1)),
            undisturbed,
            farm,
        };
        (broker, link)
    }

    /// Finds where a job runs. To drop the future is to stop looking.
    pub async fn find(&self, ask: Ask, wish: Wish) -> Result<Found, WantError> {
        let number = self.next_job.fetch_add(1, Ordering::Relaxed);
        let stopping = || WantError::Unreachable("the agent is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        let message = Message::Ask(number, ask, wish, reply);
        self.inbox.send(message).map_err(|_| stopping())?;
        // Says that the job has left if we are dropped before there is an answer.
        let looking = Stay {
            number,
            place: None,
            inbox: Some(self.inbox.clone()),
            undisturbed: Arc::clone(&self.undisturbed),
        };
        let mut found = answer.await.map_err(|_| stopping())??;
        match &mut found {
            Found::There(_, stay) | Found::Here(_, stay) => *stay = looking,
        }
        Ok(found)
    }

    /// Returns the farm as the coordinator last told of it.
    pub fn farm(&self) -> Option<FarmView> {
        *self.farm.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Asker {
    wish: Wish,
    reply: oneshot::Sender<Result<Found, WantError>>,
    ticket: Option<Ticket>,
}

/// The task's state.
struct Owner {
    placing: Placing,
    link: CoordinatorLink,
    inbox: Inbox,
    undisturbed: Arc<AtomicBool>,
    askers: HashMap<JobNumber, Asker>,
    asked_ahead: HashMap<AheadNumber, Ticket>,
    held: HashMap<GrantId, GrantHeld>,
}

impl Owner {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            let due = self.placing.next_deadline();
            let event = tokio::select! {
                Some(message) = messages.recv() => self.receive(message),
                () = until(due) => Some(Event::Time),
            };
            let now = Instant::now();
            if self.placing.wants_reading(now)
                && let Some(reading) = machine::reading()
            {
                self.handle(Event::Reading(reading), now);
            }
            if let Some(event) = event {
                self.handle(event, now);
            }
            self.undisturbed.store(self.placing.is_undisturbed(), Ordering::Relaxed);
        }
    }

    /// Turns a message into an event, where it is one.
    fn receive(&mut self, message: Message) -> Option<Event> {
        match message {
            Message::Ask(number, ask, wish, reply) => {
                let ticket = None;
                self.askers.insert(number, Asker { wish, reply, ticket });
                Some(Event::Asked(number, ask))
            }
            Message::Left(number, place) => {
                self.askers.remove(&number);
                let Some(grant) = place else {
                    return Some(Event::Left(number));
                };
                let (id, again) = (grant.grant, again(&grant));
                self.held.insert(id, *grant);
                Some(Event::Vacated(number, id, again))
            }
            Message::Answered(number, answer) => self.answered(number, answer),
            Message::Ahead(number, answer) => {
                self.asked_ahead.remove(&number)?.answered();
                let Ok(grant) = answer else {
                    return Some(Event::NoSpare(number));
                };
                let (id, spare) = (grant.grant, spare(&grant));
                if grant.void().is_some() {
                    return Some(Event::NoSpare(number));
                }
                self.held.insert(id, grant);
                Some(Event::Spare(number, id, spare))
            }
            Message::News(News::Joined) => Some(Event::Joined),
            Message::News(News::Parted) => Some(Event::Parted),
            Message::News(News::Farm(view)) => Some(Event::View(view)),
            Message::News(News::Voided(grant, _)) => Some(Event::Voided(grant)),
        }
    }

    fn answered(&mut self, number: JobNumber, answer: Result<GrantHeld, WantError>) -> Option<Event> {
        // One that was taken back, or whose job has left, goes back by its drop.
        let asker = self.askers.get_mut(&number)?;
        asker.ticket.take()?.answered();
        if let Err(WantError::Unreachable(_)) = answer {
            return Some(Event::Unheard(number));
        }
        let asker = self.askers.remove(&number)?;
        match answer {
            Ok(grant) => {
                let spare = spare(&grant);
                let stay = self.stay(number);
                let _ = asker.reply.send(Ok(Found::There(Box::new(grant), stay)));
                Some(Event::Granted(number, spare))
            }
            Err(error) => {
                let _ = asker.reply.send(Err(error));
                Some(Event::Left(number))
            }
        }
    }

    fn handle(&mut self, event: Event, now: Instant) {
        for action in self.placing.handle(event, now) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Want(number) => {
                let Some(asker) = self.askers.get_mut(&number) else {
                    return;
                };
                let inbox = self.inbox.clone();
                let answer = move |answer| {
                    let _ = inbox.send(Message::Answered(number, answer));
                };
                asker.ticket = Some(self.link.want(asker.wish.clone(), answer));
            }
            Action::TakeBack(number) => {
                if let Some(asker) = self.askers.get_mut(&number) {
                    asker.ticket = None;
                }
            }
            Action::Use(number, grant) => {
                let Some(grant) = self.held.remove(&grant) else { return };
                if let Some(asker) = self.askers.remove(&number) {
                    let _ = asker.reply.send(Ok(Found::There(Box::new(grant), self.stay(number))));
                }
            }
            Action::RunHere(number, choice) => {
                if let Some(asker) = self.askers.remove(&number) {
                    let _ = asker.reply.send(Ok(Found::Here(choice, self.stay(number))));
                }
            }
            Action::GiveUp(number) => {
                if let Some(asker) = self.askers.remove(&number) {
                    let why = self.link.state().why_not().to_owned();
                    let _ = asker.reply.send(Err(WantError::Unreachable(why)));
                }
            }
            Action::Reconnect => self.link.hurry(),
            Action::WantAhead(number, toolchain, variants) => {
                let inbox = self.inbox.clone();
                let answer = move |answer| {
                    let _ = inbox.send(Message::Ahead(number, answer));
                };
                let ticket = self.link.want(ahead(toolchain, variants), answer);
                self.asked_ahead.insert(number, ticket);
            }
            Action::TakeBackAhead(number) => {
                self.asked_ahead.remove(&number);
            }
            Action::Return(grant) => {
                self.held.remove(&grant);
            }
        }
    }

    /// What the job gets until it puts its own in place: that nobody counts twice.
    fn stay(&self, number: JobNumber) -> Stay {
        Stay {
            number,
            place: None,
            inbox: None,
            undisturbed: Arc::clone(&self.undisturbed),
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn spare(grant: &GrantHeld) -> Spare {
    Spare {
        worker: grant.worker.clone(),
        power: grant.power(),
        valid: grant.valid,
        runs_on: match grant.stand_in {
            Some(_) => Variants::Certified,
            None => Variants::Never,
        },
    }
}

/// What a place is good for without a coordinator, by how its job ended.
fn again(grant: &GrantHeld) -> Again {
    if !matches!(grant.void(), None | Some(Void::Recalled)) {
        return Again::Never;
    }
    match grant.ending() {
        Ending::Ran(_) | Ending::Unused => Again::AtOnce,
        Ending::Fault => Again::Never,
        Ending::Refused(kind) => match kind {
            RefusalKind::Busy => Again::Later,
            RefusalKind::Fault | RefusalKind::NoToolchain | RefusalKind::Uncertified => Again::Never,
            RefusalKind::Unsupported
            | RefusalKind::Unlike
            | RefusalKind::Limit
            | RefusalKind::Changed
            | RefusalKind::ReadOnly => Again::AtOnce,
        },
    }
}

fn ahead(toolchain: ToolchainId, variants: Variants) -> Wish {
    Wish {
        toolchain,
        work: None,
        memory_bytes: None,
        build: String::new(),
        purpose: Purpose::Ahead,
        spread_milli: None,
        input_bytes: 0,
        avoid: Vec::new(),
        only: None,
        variants,
    }
}

/// Makes the wish that goes with an ask.
pub fn wish(ask: &Ask, input_bytes: u64) -> Wish {
    let prediction = &ask.prediction;
    let known = prediction.spread_milli != 0;
    Wish {
        toolchain: ask.toolchain,
        work: known.then_some(prediction.work),
        memory_bytes: Some(prediction.memory_bytes).filter(|bytes| *bytes != 0),
        build: String::new(),
        purpose: match ask.reach {
            Reach::Chosen => Purpose::Race,
            Reach::Anywhere | Reach::Workers => Purpose::Job,
        },
        spread_milli: known.then_some(prediction.spread_milli),
        input_bytes,
        avoid: ask.avoid.clone(),
        only: ask.only.clone(),
        variants: ask.variants,
    }
}

//! Where a distributable job runs: at a place that is held, at one that is asked for, or here.
//!
//! One state machine for all jobs of an agent: [`Event`]s and `now` in, [`Action`]s out, no clock and no I/O. A job takes
//! the place with the earliest predicted finish among those that are held; else it asks for one. It runs here where that
//! is predicted to end sooner: at once when earlier compiles of the same source say so, or taken back from the queue
//! while the farm has no place and a core here is idle. Places are held ahead of need while a build is active, so
//! that an ordinary job waits for no round trip, and given back when it pauses. While the coordinator is away, jobs take
//! turns in the places that the agent has (`outage`).
//!
//! Invariants: a job gets one place or runs here, once; while there is a coordinator, at most [`SPARES_MAX`] places are held
//! or asked for ahead of need per toolchain, and nothing for one that no job has asked for within [`PAUSE`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::coordinator_link::FarmView;
use super::forecast::Prediction;
use super::local_share::{LocalShare, Reading};
use crate::ids::{GrantId, Name, ToolchainId};
use crate::job::Variants;

mod estimates;
mod outage;
mod spares;
#[cfg(test)]
mod tests;

pub use outage::Again;
use outage::Outage;
use spares::{PAUSE_IDLE, Pool};

/// Most places held or asked for ahead of need, per toolchain.
pub const SPARES_MAX: usize = 8;
/// Without a new job that long, spare places are of no use even while others run.
pub const PAUSE: Duration = Duration::from_secs(2);
/// A want that is unanswered for longer waits for a slot, not for the network: a grant takes a millisecond or two.
const ROUND_TRIP: Duration = Duration::from_millis(30);
/// How often this machine is looked at while jobs wait and nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The agent's number for a job that looks for a place.
pub type JobNumber = u64;
/// The agent's number for a place that is asked for ahead of need.
pub type AheadNumber = u64;

/// A job that looks for a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// What it needs.
    pub toolchain: ToolchainId,
    /// What it will cost.
    pub prediction: Prediction,
    /// How fast a core of this machine is, as far as is known now.
    pub power_here: f64,
    /// Workers that must not get it.
    pub avoid: Vec<Name>,
    /// The only worker that may get it, where there is one.
    pub only: Option<Name>,
    /// Where it may go.
    pub reach: Reach,
    /// Whether a certified variant of the toolchain will do.
    pub variants: Variants,
}

/// Where a job may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To a worker, or it runs here.
    Anywhere,
    /// To a worker, at any place.
    Workers,
    /// To the worker that the coordinator chooses: the second copy of a race.
    Chosen,
}

/// A place at a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Spare {
    /// Where it is.
    pub worker: Name,
    /// Work per second of running time there.
    pub power: f64,
    /// How long it is good for.
    pub valid: Duration,
    /// Whether a job runs on a variant there.
    pub runs_on: Variants,
}

/// Why a distributable job runs here by choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is predicted to end sooner here than at any place that can be had.
    FasterHere,
    /// The farm has no place, and a core here is idle.
    FarmFull,
}

impl Choice {
    /// Returns the stable name, as it stands in `rdcc stats --json`.
    pub fn name(self) -> &'static str {
        match self {
            Choice::FasterHere => "faster_here",
            Choice::FarmFull => "farm_full",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A job looks for a place.
    Asked(JobNumber, Ask),
    /// The coordinator granted what the job wanted.
    Granted(JobNumber, Spare),
    /// The want could not be sent, or was lost with the session.
    Unheard(JobNumber),
    /// The job has ended, or does not look any more, or the coordinator refused it.
    Left(JobNumber),
    /// The job has ended, and has left its place, which is this grant's.
    Vacated(JobNumber, GrantId, Again),
    /// A place that was asked for ahead of need is there.
    Spare(AheadNumber, GrantId, Spare),
    /// It will not come.
    NoSpare(AheadNumber),
    /// A place is void, or wanted back.
    Voided(GrantId),
    /// There is a session with the coordinator.
    Joined,
    /// There is none any more.
    Parted,
    /// The farm is like this now.
    View(FarmView),
    /// This machine is like this now.
    Reading(Reading),
    /// Time has passed.
    Time,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the coordinator for a place for this job.
    Want(JobNumber),
    /// Take that back.
    TakeBack(JobNumber),
    /// Run the job at this held place.
    Use(JobNumber, GrantId),
    /// Run the job here.
    RunHere(JobNumber, Choice),
    /// Tell the job that there is no place, since there is no coordinator.
    GiveUp(JobNumber),
    /// Ask for a place ahead of need, on a variant too or not.
    WantAhead(AheadNumber, ToolchainId, Variants),
    /// Take that back.
    TakeBackAhead(AheadNumber),
    /// Give a held place back.
    Return(GrantId),
    /// Look soon whether the coordinator is back.
    Reconnect,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    /// Wanted since then.
    Waits(Instant),
    /// Waits since then for one of the places that this agent has, without a coordinator.
    Holds(Instant),
    /// Runs there.
    There(Spare),
    Here,
}

impl State {
    /// Returns since when a job waits for a place at a worker.
    fn waits_since(&self) -> Option<Instant> {
        match self {
            State::Waits(since) | State::Holds(since) => Some(*since),
            State::New | State::There(_) | State::Here => None,
        }
    }
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    state: State,
}

impl Job {
    /// Tells whether it may run there.
    fn may_use(&self, spare: &Spare) -> bool {
        let ask = &self.ask;
        let may_go = ask.only.as_ref().is_none_or(|only| *only == spare.worker) && !ask.avoid.contains(&spare.worker);
        may_go && spare.runs_on <= ask.variants
    }

    /// Tells whether it has waited for longer than the network takes.
    fn waits_for_a_slot(&self, now: Instant) -> bool {
        let since = self.state.waits_since();
        since.is_some_and(|since| now >= since + ROUND_TRIP)
    }

    fn work_s(&self) -> f64 {
        self.ask.prediction.work.as_secs_f64()
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Placing {
    share: LocalShare,
    power_here: f64,
    jobs: BTreeMap<JobNumber, Job>,
    pools: BTreeMap<ToolchainId, Pool>,
    view: Option<FarmView>,
    outage: Option<Outage>,
    next_ahead: AheadNumber,
    actions: Vec<Action>,
    /// When something happened last; `None` before anything has.
    handled: Option<Instant>,
}

impl Placing {
    /// Starts with no jobs, on a machine of so many cores.
    pub fn new(cores: u32) -> Self {
        Self {
            share: LocalShare::new(cores),
            power_here: 1.0,
            jobs: BTreeMap::new(),
            pools: BTreeMap::new(),
            view: None,
            outage: None,
            next_ahead: 1,
            actions: Vec::new(),
            handled: None,
        }
    }

    /// Tells whether a reading of this machine is worth its price now.
    pub fn wants_reading(&self, now: Instant) -> bool {
        self.share.wants_reading(now)
    }

    /// Tells whether a compile that runs here now has a core to itself.
    pub fn is_undisturbed(&self) -> bool {
        self.share.is_undisturbed()
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Asked(number, ask) => self.asked(number, ask, now),
            Event::Granted(number, spare) => self.set(number, State::There(spare)),
            Event::Unheard(number) => self.unheard(number),
            Event::Left(number) => {
                self.left(number, now);
            }
            Event::Vacated(number, grant, again) => {
                let left = self.left(number, now);
                self.vacated(left, grant, again, now);
            }
            Event::Spare(ahead, grant, spare) => self.spare(ahead, grant, spare, now),
            Event::NoSpare(ahead) => {
                for pool in self.pools.values_mut() {
                    if pool.forget_asked(ahead) {
                        pool.refused_until = Some(now + PAUSE);
                    }
                }
            }
            Event::Voided(grant) => {
                for pool in self.pools.values_mut() {
                    if pool.spares.remove(&grant).is_some() {
                        self.actions.push(Action::Return(grant));
                        // Somebody else needs it more; asked for again at once it would only go to and fro.
                        pool.refused_until = Some(now + PAUSE_IDLE);
                    }
                }
            }
            Event::Joined => self.find_coordinator(),
            Event::Parted => self.lose_coordinator(now),
            Event::View(view) => self.view = Some(view),
            Event::Reading(reading) => self.share.handle_reading(reading, now),
            Event::Time => {}
        }
        self.settle(now);
        self.handled = Some(now);
        std::mem::take(&mut self.actions)
    }

    /// Returns when [`Event::Time`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let outage = self.outage.as_ref().map(Outage::next_deadline);
        // Without a coordinator nothing becomes void, nor does anybody else want what is held.
        let pools = self.pools.iter().filter(|_| outage.is_none());
        let spares = pools.flat_map(|(toolchain, pool)| {
            let pause =
                (!pool.spares.is_empty() || !pool.asked.is_empty()).then(|| pool.last_seen + self.pause(*toolchain));
            pool.spares.values().map(|(_, until)| *until).chain(pause)
        });
        let handled = self.handled?;
        let queued = self.jobs.values().filter(|job| job.ask.reach == Reach::Anywhere);
        let queued = queued.filter_map(|job| job.state.waits_since()).map(|since| {
            let soon = since + ROUND_TRIP;
            // Later it is time for another look at this machine, which may have become idle in silence.
            if soon > handled { soon } else { handled + LOOK_AGAIN }
        });
        spares.chain(queued).chain(outage).min()
    }

    fn left(&mut self, number: JobNumber, now: Instant) -> Option<Job> {
        let job = self.jobs.remove(&number)?;
        if job.state == State::Here {
            self.share.handle_ended(now);
        }
        if let Some(pool) = self.pools.get_mut(&job.ask.toolchain) {
            pool.last_seen = now;
        }
        Some(job)
    }

    fn asked(&mut self, number: JobNumber, ask: Ask, now: Instant) {
        let pool = self.pools.entry(ask.toolchain).or_insert_with(|| Pool::new(now));
        pool.last_seen = now;
        // The next job is taken to be like this one.
        pool.variants = ask.variants;
        self.power_here = ask.power_here.max(0.001);
        self.jobs.insert(number, Job { ask, state: State::New });
    }

    fn settle(&mut self, now: Instant) {
        self.place_new(now);
        self.go_on_alone(now);
        self.use_spares();
        self.help_out(now);
        self.keep_spares(now);
    }

    fn place_new(&mut self, now: Instant) {
        let new: Vec<JobNumber> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.state == State::New)
            .map(|(number, _)| *number)
            .collect();
        for number in new {
            let job = &self.jobs[&number];
            let spare = self.best_spare(job);
            let there = match spare {
                None if self.outage.is_some() => self.finish_in_queue(number, job),
                _ => self.finish_there(job, spare.map(|(_, power)| power)),
            };
            let here = self
                .share_for(job)
                .map(|share| job.work_s() / (self.power_here * share));
            let believed = job.ask.prediction.is_of_this_source();
            if believed && here.is_some_and(|here| here <= there) {
                self.run_here(number, Choice::FasterHere, now);
            } else if let Some((grant, power)) = spare
                && !self.is_worth_a_wait(job, power)
            {
                self.use_spare(number, grant);
            } else if self.may_hold_on(job) {
                self.set(number, State::Holds(now));
            } else {
                self.set(number, State::Waits(now));
                self.actions.push(Action::Want(number));
            }
        }
    }

    /// Takes back from the queue what ends sooner here, the shortest first, as long as a core is idle. Where the shortest
    /// does not, longer ones hardly do: they are sooner served there, and take longer here.
    fn help_out(&mut self, now: Instant) {
        loop {
            let waiting = self
                .jobs
                .iter()
                .filter(|(_, job)| job.waits_for_a_slot(now))
                .filter_map(|(number, job)| Some((*number, job.work_s() / (self.power_here * self.share_for(job)?))));
            let soonest = waiting.min_by(|(_, one), (_, other)| one.total_cmp(other));
            let Some((number, here)) = soonest else { return };
            if here >= self.finish_in_queue(number, &self.jobs[&number]) {
                return;
            }
            self.take_back(number);
            self.run_here(number, Choice::FarmFull, now);
        }
    }

    /// Takes a want back, where a job has one.
    fn take_back(&mut self, number: JobNumber) {
        if matches!(self.jobs[&number].state, State::Waits(_)) {
            self.actions.push(Action::TakeBack(number));
        }
    }

    fn run_here(&mut self, number: JobNumber, choice: Choice, now: Instant) {
        self.set(number, State::Here);
        self.share.handle_began(now);
        self.actions.push(Action::RunHere(number, choice));
    }

    fn set(&mut self, number: JobNumber, state: State) {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.state = state;
        }
    }
}

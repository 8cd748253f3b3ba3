//! Brings wants and slots together: whose turn it is, which job, and where.
//!
//! `fairness` says who is served first, `queue` in which order, `placement` where a job ends first; here they are asked.
//! Jobs come before second copies of late jobs, and those before places held ahead of need. A job that had better wait
//! for another slot lets the next one have a try, and is looked at again whenever anything changes, or at the latest
//! when what it waits for should have come. Invariant: what is looked at for one slot is bounded.

use std::time::Duration;

use super::agents::{Agent, Waiting};
use super::events::Purpose;
use super::placement::{self, Choice, Need, PLACES_MAX, Places, Seat};
use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::speed::{Spot, spread_of};
use super::supplies::{Class, Supply};
use super::timers::Timer;
use crate::ids::{AgentSessionId, CoreGroupId, GrantId, Name, RequestId, WorkerSessionId};
use crate::job::at_most;

/// How many workers of each class are looked at, the fastest first, while few wants wait and else: with many, any slot is
/// as good as its speed.
const SEATS_LOOK_FEW: usize = 8;
const SEATS_LOOK_MANY: usize = 2;
/// How many agents are looked at in one go.
const AGENTS_LOOK_MAX: usize = 8;
/// How many wants are looked at in one go, while few wait and else.
const WANTS_LOOK_FEW: usize = 32;
const WANTS_LOOK_MANY: usize = 8;
/// Few wants are so many at most.
const FEW_WANTS: usize = 64;
/// More work is coming than the farm can do while so many wants wait per slot: `make -jN` holds back what it has beyond
/// N, so this is evidence of more.
const PLENTY_PER_SLOT: f64 = 0.2;
/// A build is assumed to go on for this part of the time it has been going on, while nothing says otherwise.
const GOES_ON: f64 = 0.1;
/// The longest that a build is assumed to go on.
const GOES_ON_MOST: Duration = Duration::from_secs(20);
/// A look at what waits beside open slots comes no sooner than this, and no later.
const LOOK_LEAST: Duration = Duration::from_millis(20);
const LOOK_MOST: Duration = Duration::from_millis(500);

/// What is known in the course of serving one toolchain.
#[derive(Debug, Default)]
struct Plan {
    /// The only worker whose open slots are given out; all when there is none. Beside which slots what waits had better
    /// wait for others was found when those became open.
    only: Option<WorkerSessionId>,
    seats: Vec<Seat<Chair>>,
    /// Whether `seats` has the workers that are not open too.
    complete: bool,
    /// Wants that had better wait.
    held: Vec<(AgentSessionId, RequestId)>,
    /// How long the farm has work in sight for, seconds; once it was asked for.
    backlog: Option<f64>,
    /// How long the farm takes for the wants that wait and are not looked at, seconds.
    behind: f64,
    /// When to look at them again, seconds from now.
    again: Option<f64>,
}

impl Plan {
    fn of(worker: WorkerSessionId) -> Self {
        Self {
            only: Some(worker),
            ..Self::default()
        }
    }
}

/// The slots of a worker that are on cores of one speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chair {
    worker: WorkerSessionId,
    cores: CoreGroupId,
}

enum Step {
    Give(AgentSessionId, RequestId, Chair),
    Recall(Chair),
}

impl Scheduler {
    /// Serves what waits for `toolchain` while there is room.
    pub(super) fn serve_scope(&mut self, scope: Scope) {
        let mut plan = Plan::default();
        while self.serve_one(scope, &mut plan) {}
        self.time_look(scope, &plan);
    }

    /// Serves a want that has just come. Those that wait already were looked at when the slots beside which they wait
    /// became open, so only this one is.
    pub(super) fn serve_arrival(&mut self, scope: Scope, id: AgentSessionId, request: RequestId) {
        let Some(supply) = self.supplies.get(&scope) else {
            return;
        };
        let waiting = self
            .agents
            .get(&id)
            .and_then(|agent| Some((agent, agent.waiting.get(&request)?)));
        match waiting {
            Some((agent, waiting))
                if waiting.purpose == Purpose::Job && supply.jobs_waiting() > 1 && supply.has(Class::Open) =>
            {
                let mut plan = Plan {
                    seats: self.seats(scope, supply, Class::Open),
                    behind: supply.backlog_before(waiting),
                    ..Plan::default()
                };
                match self.try_job(scope, supply, (id, agent, waiting), &mut plan) {
                    Some(Step::Give(id, request, chair)) => self.give(id, request, chair.worker, chair.cores),
                    Some(Step::Recall(chair)) => drop(self.recall_from(chair.worker, chair.cores)),
                    None => {}
                }
            }
            _ => self.serve_scope(scope),
        }
    }

    /// Gives a worker's open slots to what waits for any of its toolchains.
    pub(super) fn serve_worker(&mut self, id: WorkerSessionId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let waits = |scope: &Scope| self.supplies.get(scope).is_some_and(Supply::has_waiting);
        let mut plans: Vec<(Scope, Plan)> = worker
            .listed
            .keys()
            .filter(|scope| waits(scope))
            .map(|scope| (*scope, Plan::of(id)))
            .collect();
        let mut served = Vec::new();
        while !plans.is_empty() {
            // Across toolchains as within one: whoever holds least comes first.
            let head = |scope: &Scope| self.supplies.get(scope).and_then(Supply::head);
            let key = |index: &usize| head(&plans[*index].0).map_or((true, None), |head| (false, Some(head)));
            let Some(index) = (0..plans.len()).min_by_key(key) else {
                break;
            };
            let (scope, plan) = &mut plans[index];
            let scope = *scope;
            if !self.serve_one(scope, plan) {
                served.push(plans.swap_remove(index));
            } else if plans.len() > 1 {
                // Seats are shared between toolchains; the others' pictures of them are stale.
                for (other, plan) in &mut plans {
                    if *other != scope {
                        (plan.seats, plan.complete) = (Vec::new(), false);
                    }
                }
            }
        }
        for (scope, plan) in served {
            self.time_look(scope, &plan);
        }
    }

    fn time_look(&mut self, scope: Scope, plan: &Plan) {
        let Some(supply) = self.supplies.get(&scope) else {
            return;
        };
        if supply.jobs_waiting() > 0 && supply.has(Class::Open) {
            let again = plan
                .again
                .map_or(LOOK_MOST, |again| Duration::from_secs_f64(again.clamp(0.0, 1.0)));
            let at = self.now.after(again.clamp(LOOK_LEAST, LOOK_MOST));
            self.timers.set(Timer::Look(scope), at);
        } else {
            self.timers.clear(Timer::Look(scope));
        }
    }

    fn serve_one(&mut self, scope: Scope, plan: &mut Plan) -> bool {
        let Some(supply) = self.supplies.get(&scope) else {
            return false;
        };
        let open = match plan.only {
            Some(id) => self
                .workers
                .get(&id)
                .is_some_and(|worker| worker.open_slots(self.now) > 0),
            None => supply.has(Class::Open),
        };
        if !open && (plan.only.is_some() || !supply.has(Class::Spare)) {
            return false;
        }
        let step = match supply.jobs_waiting() {
            0 if open => self.next_beside_jobs(supply),
            0 => None,
            _ => self.next_job(scope, supply, plan),
        };
        match step {
            Some(Step::Give(agent, request, chair)) => {
                self.give(agent, request, chair.worker, chair.cores);
                true
            }
            Some(Step::Recall(chair)) => self.recall_from(chair.worker, chair.cores),
            None => false,
        }
    }

    /// Finds a second copy of a late job, or a place to hold ahead of need, for the fastest open slot.
    fn next_beside_jobs(&self, supply: &Supply) -> Option<Step> {
        let fastest = supply.of_class(Class::Open).take(SEATS_LOOK_FEW);
        let fastest: Vec<WorkerSessionId> = fastest.collect();
        for purpose in [Purpose::Race, Purpose::Ahead] {
            let queue = supply.queue(purpose);
            for id in queue.agents().take(AGENTS_LOOK_MAX) {
                let Some(agent) = self.agents.get(&id) else { continue };
                for ticket in queue.window(id, |build| agent.share_of(build)) {
                    let Some(waiting) = agent.waiting.get(&ticket.request) else {
                        continue;
                    };
                    let allowed = fastest.iter().find(|worker| !self.is_avoided(waiting, worker));
                    if let Some(chair) = allowed.and_then(|worker| self.next_chair(*worker)) {
                        return Some(Step::Give(id, ticket.request, chair));
                    }
                }
            }
        }
        None
    }

    fn is_avoided(&self, waiting: &Waiting, worker: &WorkerSessionId) -> bool {
        let is = |name: &Name| self.names.get(name) == Some(worker);
        waiting.avoid.iter().any(is) || waiting.only.as_ref().is_some_and(|only| !is(only))
    }

    /// Finds the next job that had better start now, in order of whose turn it is.
    fn next_job(&self, scope: Scope, supply: &Supply, plan: &mut Plan) -> Option<Step> {
        let queue = supply.queue(Purpose::Job);
        if plan.seats.is_empty() {
            plan.seats = match plan.only {
                Some(id) => self.seats_of(scope, supply, id),
                None => self.seats(scope, supply, Class::Open),
            };
        }
        let few = queue.len() <= FEW_WANTS;
        let look_max = if few { WANTS_LOOK_FEW } else { WANTS_LOOK_MANY };
        for id in queue.agents().take(AGENTS_LOOK_MAX) {
            let Some(agent) = self.agents.get(&id) else { continue };
            for ticket in queue.window(id, |build| agent.share_of(build)) {
                let Some(waiting) = agent.waiting.get(&ticket.request) else {
                    continue;
                };
                if plan.held.contains(&(id, ticket.request)) {
                    continue;
                }
                if plan.held.len() >= look_max {
                    return None;
                }
                if let Some(step) = self.try_job(scope, supply, (id, agent, waiting), plan) {
                    return Some(step);
                }
            }
        }
        None
    }

    /// Decides for one job, given what those before it do.
    fn try_job(
        &self,
        scope: Scope,
        supply: &Supply,
        (id, agent, waiting): (AgentSessionId, &Agent, &Waiting),
        plan: &mut Plan,
    ) -> Option<Step> {
        let request = waiting.ticket.request;
        if let Some(only) = &waiting.only {
            plan.held.push((id, request));
            let (worker, class) = self.bound_worker(waiting, only)?;
            if plan.only.is_some_and(|only| only != worker) {
                return None;
            }
            // What was worked out for other jobs did not reckon with this one.
            (plan.seats, plan.complete) = (Vec::new(), false);
            return match class {
                Class::Open => Some(Step::Give(id, request, self.next_chair(worker)?)),
                Class::Spare => Some(Step::Recall(self.spare_chair(worker)?)),
                Class::Taken => None,
            };
        }
        let need = self.need(waiting, plan.behind);
        let transfer = |Chair { worker, .. }: &Chair| {
            if self.is_avoided(waiting, worker) {
                return None;
            }
            match waiting.demand.input_bytes {
                0 => Some(0.0),
                bytes => Some(agent.routes.get(worker).copied().unwrap_or_default().seconds(bytes)),
            }
        };
        let backlog = *plan.backlog.get_or_insert_with(|| supply.backlog());
        let horizon = self.horizon(supply, backlog, agent, waiting);
        let choice = match placement::best_open(&plan.seats, &need, transfer) {
            Some((seat, end)) if plan.seats[seat].at_most(end, &need) <= horizon => Choice::Now(seat),
            _ => {
                if !plan.complete {
                    let more = [Class::Spare, Class::Taken];
                    let more = more.map(|class| self.seats(scope, supply, class));
                    plan.seats.extend(more.into_iter().flatten());
                    plan.complete = true;
                }
                placement::choose(&plan.seats, &need, transfer)
            }
        };
        let (Choice::Now(seat) | Choice::Recall(seat) | Choice::Wait(seat, _)) = choice else {
            plan.held.push((id, request));
            return None;
        };
        let chair = plan.seats[seat].key;
        let sending = transfer(&chair).unwrap_or(0.0);
        plan.seats[seat].assign(&need, sending);
        match choice {
            Choice::Now(_) => return Some(Step::Give(id, request, chair)),
            Choice::Recall(_) => {
                plan.held.push((id, request));
                return Some(Step::Recall(chair));
            }
            Choice::Wait(_, until) => {
                plan.held.push((id, request));
                // A little later than it should have come: its coming is an event of its own.
                let again = until * 1.25;
                plan.again = Some(plan.again.map_or(again, |other: f64| other.min(again)));
            }
            Choice::Nowhere => {}
        }
        None
    }

    fn need(&self, waiting: &Waiting, behind: f64) -> Need {
        let work = waiting.work.as_secs_f64();
        Need {
            work,
            work_at_most: work * at_most(spread_of(waiting.demand.spread_milli)),
            memory: waiting.demand.memory_bytes.unwrap_or(0),
            waited: self.now.since(waiting.since).as_secs_f64(),
            behind,
        }
    }

    /// Returns how long the farm will have work for, seconds, as far as there is more than it can do.
    fn horizon(&self, supply: &Supply, backlog: f64, agent: &Agent, waiting: &Waiting) -> f64 {
        let slots = supply.pace.slots().max(1.0);
        if (supply.jobs_waiting() as f64) < (PLENTY_PER_SLOT * slots).max(2.0) {
            return 0.0;
        }
        let build = agent.builds.get(&waiting.build);
        let goes_on = build.filter(|build| !build.is_running_out(self.now)).map(|build| {
            let age = self.now.since(build.began);
            age.min(GOES_ON_MOST).as_secs_f64() * GOES_ON
        });
        backlog + goes_on.unwrap_or(0.0)
    }

    fn seats(&self, scope: Scope, supply: &Supply, class: Class) -> Vec<Seat<Chair>> {
        let look_max = match supply.jobs_waiting() {
            // Enough to prefer a worker that has the tree.
            1 if class == Class::Open => SEATS_LOOK_FEW / 2,
            ..=FEW_WANTS => SEATS_LOOK_FEW,
            _ => SEATS_LOOK_MANY,
        };
        let listed = supply.of_class(class).take(look_max);
        listed.flat_map(|id| self.seats_of(scope, supply, id)).collect()
    }

    /// Returns where the next job of a worker goes that may go to any of its cores.
    fn next_chair(&self, worker: WorkerSessionId) -> Option<Chair> {
        let cores = self.workers.get(&worker)?.cores.next();
        Some(Chair { worker, cores })
    }

    /// Returns where on a worker a place is held ahead of need.
    fn spare_chair(&self, worker: WorkerSessionId) -> Option<Chair> {
        let spare = self.workers.get(&worker)?.spares.first()?;
        let cores = self.grants.get(spare)?.cores;
        Some(Chair { worker, cores })
    }

    /// Describes a worker's slots, those on cores of each speed for themselves.
    fn seats_of(&self, scope: Scope, supply: &Supply, id: WorkerSessionId) -> Vec<Seat<Chair>> {
        let Some(worker) = self.workers.get(&id) else {
            return Vec::new();
        };
        let Some(speed) = worker.speeds.get(&scope) else {
            return Vec::new();
        };
        let mut open_left = worker.open_slots(self.now);
        let seat = |cores| {
            let is_there = |grant: &GrantId| {
                worker.cores.are_alike() || self.grants.get(grant).is_some_and(|record| record.cores == cores)
            };
            let open = worker.cores.free(cores).min(open_left);
            open_left -= open;
            let spare = worker.spares.iter().filter(|grant| is_there(grant)).count();
            let ready = (open as usize + spare).min(PLACES_MAX);
            let mut places: Places = std::iter::repeat_n(0.0, ready).collect();
            for (end, grant) in worker.ends.iter().filter(|(_, grant)| is_there(grant)) {
                if places.is_full() {
                    break;
                }
                let left = end.since(self.now).as_secs_f64();
                let begun = || self.grants.get(grant).map_or(self.now, |record| record.begun);
                let late = || placement::overdue(self.now.since(begun()).as_secs_f64());
                places.add(if left > 0.0 { left } else { late() });
            }
            let occupancy = worker.jobs() + 1;
            Seat {
                key: Chair { worker: id, cores },
                rate: supply.pace.rate(speed.log(Spot { occupancy, cores })),
                open: open as usize,
                spare,
                places,
                memory_now: worker.memory_for_next(),
                memory_most: worker.hello.memory_bytes,
            }
        };
        worker.cores.ids().map(seat).collect()
    }
}

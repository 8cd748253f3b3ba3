//! The coordinator goes away and comes back, as stories and as random lives.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::protocol::token::REUSED_FOR;

/// A farm of so many slots, all with a job of ours; no core is idle here.
fn busy_farm(slots: u64) -> World {
    let mut world = World::new(1);
    world.busy(1.0);
    world.handle(Event::Joined);
    world.handle(view(slots as u32, slots as u32));
    for number in 1..=slots {
        world.handle(Event::Asked(number, unknown(1000)));
        world.handle(Event::Granted(number, place(&format!("n{number}"), 1.0)));
    }
    world
}

fn vacated(number: JobNumber, again: Again) -> Event {
    Event::Vacated(number, GrantId(number), again)
}

#[test]
fn jobs_take_turns_in_the_places_that_are_left() {
    let mut world = busy_farm(2);
    assert_eq!(world.handle(Event::Asked(3, unknown(500))), [Action::Want(3)]);
    assert_eq!(world.handle(Event::Parted), []);
    assert_eq!(world.handle(Event::Unheard(3)), [], "it waits for a place of ours");
    assert_eq!(
        world.handle(Event::Asked(4, unknown(2000))),
        [],
        "so does who comes now"
    );
    let longest_first = world.handle(vacated(1, Again::AtOnce));
    assert_eq!(longest_first, [Action::Use(4, GrantId(1))]);
    assert_eq!(world.handle(vacated(2, Again::AtOnce)), [Action::Use(3, GrantId(2))]);
    // Kept for whoever comes next, however long that takes.
    assert_eq!(world.handle(vacated(4, Again::AtOnce)), []);
    assert_eq!(world.pass(10_000), []);
    assert_eq!(world.handle(Event::Asked(5, unknown(10))), [Action::Use(5, GrantId(4))]);
    world.handle(Event::Asked(6, unknown(10)));
    // Back: what waits is asked for; a place of the session before goes back when its job has ended.
    assert_eq!(world.handle(Event::Joined), [Action::Want(6)]);
    assert_eq!(world.handle(vacated(5, Again::AtOnce)), [Action::Return(GrantId(5))]);
}

#[test]
fn held_places_stay_when_the_coordinator_goes_and_go_back_when_it_comes() {
    let mut world = World::new(1);
    world.busy(1.0);
    world.handle(Event::Joined);
    world.handle(view(8, 0));
    let actions = world.handle(Event::Asked(1, unknown(100)));
    world.handle(Event::Granted(1, place("n", 1.0)));
    world.grant_spares(actions, 1.0);
    assert_eq!(world.handle(Event::Parted), []);
    world.pass(60_000);
    assert_eq!(
        world.handle(Event::Asked(2, unknown(100))),
        [Action::Use(2, GrantId(1))]
    );
    world.handle(Event::Vacated(2, GrantId(1), Again::AtOnce));
    assert_eq!(world.handle(Event::Joined), [Action::Return(GrantId(1))]);
}

#[test]
fn job_that_none_of_the_places_could_take_is_given_up_at_once() {
    let never = |ask: Ask| Ask {
        reach: Reach::Chosen,
        ..ask
    };
    let other = |ask: Ask| Ask {
        toolchain: ToolchainId(Digest::of(b"another")),
        ..ask
    };
    let avoids = |ask: Ask| Ask {
        avoid: vec![Name::new("n1").unwrap()],
        ..ask
    };
    let bound = |ask: Ask| Ask {
        only: Some(Name::new("n9").unwrap()),
        ..ask
    };
    for ask in [
        never(unknown(9)),
        other(unknown(9)),
        avoids(unknown(9)),
        bound(unknown(9)),
    ] {
        let mut world = busy_farm(1);
        world.handle(Event::Parted);
        assert_eq!(world.handle(Event::Asked(2, ask.clone())), [Action::Want(2)], "{ask:?}");
        assert_eq!(world.handle(Event::Unheard(2)), [Action::GiveUp(2)], "{ask:?}");
    }
    // So are those that wait, when the last place is gone.
    let mut world = busy_farm(1);
    world.handle(Event::Parted);
    assert_eq!(world.handle(Event::Asked(2, unknown(9))), []);
    assert_eq!(
        world.handle(vacated(1, Again::Never)),
        [Action::Return(GrantId(1)), Action::GiveUp(2)]
    );
    // Where there has never been a coordinator, nobody waits.
    let mut world = World::new(1);
    world.busy(1.0);
    assert_eq!(world.handle(Event::Asked(1, unknown(9))), [Action::Want(1)]);
    assert_eq!(world.handle(Event::Unheard(1)), [Action::GiveUp(1)]);
}

#[test]
fn idle_core_takes_what_would_wait_longer() {
    let mut world = World::new(2);
    world.busy(1.0);
    world.handle(Event::Joined);
    world.handle(view(1, 1));
    world.handle(Event::Asked(1, unknown(10_000)));
    world.handle(Event::Granted(1, place("n1", 1.0)));
    world.handle(Event::Parted);
    assert_eq!(world.handle(Event::Asked(2, unknown(500))), []);
    assert_eq!(world.placing.next_deadline(), Some(world.now + ROUND_TRIP));
    assert_eq!(world.pass(30), [Action::RunHere(2, Choice::FarmFull)]);
}

#[test]
fn refused_place_rests_ever_longer_and_is_given_up_in_the_end() {
    let mut world = busy_farm(1);
    world.handle(Event::Parted);
    let mut number = 1;
    for rest in [1, 2, 4, 8] {
        let refused = Event::Vacated(number, GrantId(1), Again::Later);
        assert_eq!(world.handle(refused), [Action::Reconnect]);
        number += 1;
        assert_eq!(world.handle(Event::Asked(number, unknown(9))), [], "it rests");
        assert_eq!(world.pass(rest * 1000 - 1), []);
        assert_eq!(world.pass(1), [Action::Use(number, GrantId(1))]);
    }
    let refused = Event::Vacated(number, GrantId(1), Again::Later);
    assert_eq!(world.handle(refused), [Action::Reconnect, Action::Return(GrantId(1))]);
}

#[test]
fn outage_that_lasts_ends_all_waiting() {
    let mut world = busy_farm(1);
    world.handle(Event::Parted);
    world.handle(Event::Asked(2, unknown(9)));
    let due = world.now + REUSED_FOR;
    while world.placing.next_deadline().is_some_and(|next| next < due) {
        assert_eq!(world.pass(1000), []);
    }
    world.now = due;
    assert_eq!(world.handle(Event::Time), [Action::GiveUp(2)]);
    assert_eq!(world.handle(vacated(1, Again::AtOnce)), [Action::Return(GrantId(1))]);
    assert_eq!(world.placing.next_deadline(), None);
}

/// An agent whose coordinator comes and goes.
struct Life {
    world: World,
    random: ChaCha8Rng,
    up: bool,
    wanted: BTreeSet<JobNumber>,
    /// Jobs without an answer, those that are wanted among them.
    looking: BTreeSet<JobNumber>,
    here: BTreeSet<JobNumber>,
    there: BTreeMap<JobNumber, GrantId>,
    held: BTreeSet<GrantId>,
    ahead: BTreeSet<AheadNumber>,
    next: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Self {
            world: World::new(random.random_range(1..3)),
            random,
            up: false,
            wanted: BTreeSet::new(),
            looking: BTreeSet::new(),
            here: BTreeSet::new(),
            there: BTreeMap::new(),
            held: BTreeSet::new(),
            ahead: BTreeSet::new(),
            next: 1,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn one_of<T: Copy>(&mut self, all: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = all.into_iter().collect();
        (!all.is_empty()).then(|| all[self.random.next_u32() as usize % all.len()])
    }

    fn event(&mut self, new_jobs: bool) -> Event {
        let what = self.random.random_range(0..12);
        let event = match what {
            0..4 if new_jobs => {
                let number = self.number();
                self.looking.insert(number);
                Some(Event::Asked(number, unknown(self.random.random_range(1..2000))))
            }
            4 | 5 if self.up => self.one_of(self.wanted.clone()).map(|number| {
                let grant = self.number();
                self.wanted.remove(&number);
                self.looking.remove(&number);
                self.there.insert(number, GrantId(grant));
                Event::Granted(number, place("n1", 1.0))
            }),
            6 | 7 => self.one_of(self.there.clone()).map(|(number, grant)| {
                self.there.remove(&number);
                self.held.insert(grant);
                let again = [Again::AtOnce, Again::AtOnce, Again::Later, Again::Never][self.random.random_range(0..4)];
                Event::Vacated(number, grant, again)
            }),
            8 => self.one_of(self.here.clone()).map(|number| {
                self.here.remove(&number);
                Event::Left(number)
            }),
            9 if self.up => self.one_of(self.ahead.clone()).map(|ahead| {
                let grant = GrantId(self.number());
                self.ahead.remove(&ahead);
                self.held.insert(grant);
                Event::Spare(ahead, grant, place("n2", 1.0))
            }),
            10 if self.up => Some(view(16, self.random.random_range(0..17))),
            11 if self.random.random_range(0..8) == 0 => {
                self.up = !self.up;
                Some(if self.up { Event::Joined } else { Event::Parted })
            }
            _ => None,
        };
        event.unwrap_or(Event::Time)
    }

    fn handle(&mut self, event: Event) {
        for action in self.world.handle(event) {
            match action {
                Action::Want(number) => assert!(self.wanted.insert(number)),
                Action::TakeBack(number) => assert!(self.wanted.remove(&number)),
                Action::Use(number, grant) => {
                    assert!(self.held.remove(&grant), "{grant} is not held");
                    assert!(self.looking.remove(&number));
                    self.there.insert(number, grant);
                }
                Action::RunHere(number, _) => {
                    assert!(self.looking.remove(&number));
                    self.here.insert(number);
                }
                Action::GiveUp(number) => {
                    assert!(!self.up && self.looking.remove(&number));
                }
                Action::WantAhead(number, ..) => assert!(self.up && self.ahead.insert(number)),
                Action::TakeBackAhead(number) => assert!(self.ahead.remove(&number)),
                Action::Return(grant) => assert!(self.held.remove(&grant), "{grant} is not held"),
                Action::Reconnect => assert!(!self.up),
            }
        }
        // Without a session, wants fail.
        while !self.up
            && let Some(number) = self.wanted.pop_first()
        {
            self.handle(Event::Unheard(number));
        }
    }
}

#[test]
fn invariants_hold_while_the_coordinator_comes_and_goes() {
    for seed in 0..300 {
        let mut life = Life::new(seed);
        life.handle(Event::Time);
        for step in 0..600 {
            life.world.now += Duration::from_millis(life.random.random_range(0..200));
            let event = life.event(step < 500);
            life.handle(event);
            if life.up {
                assert_eq!(life.wanted, life.looking, "seed {seed}: all that look are wanted");
            }
        }
        // Every job that runs ends, and so does the outage: nobody is left waiting, and nothing is held.
        life.up = false;
        life.handle(Event::Parted);
        life.world.now += REUSED_FOR;
        life.handle(Event::Time);
        assert_eq!(life.looking, BTreeSet::new(), "seed {seed}");
        assert_eq!(life.held, BTreeSet::new(), "seed {seed}");
    }
}

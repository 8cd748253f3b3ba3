//! Jobs, grants and the state of the machine as tables and short stories, in time that is ours.

use super::*;
use crate::agent::forecast::Basis;
use crate::digest::Digest;

mod outage;

struct World {
    placing: Placing,
    now: Instant,
    busy: Duration,
    next_grant: u64,
}

fn toolchain() -> ToolchainId {
    ToolchainId(Digest::of(b"arm926"))
}

fn ask(ms: u64, basis: Basis, reach: Reach) -> Ask {
    Ask {
        toolchain: toolchain(),
        prediction: Prediction {
            work: Duration::from_millis(ms),
            memory_bytes: 1,
            basis,
            spread_milli: 100,
        },
        power_here: 1.0,
        avoid: Vec::new(),
        only: None,
        reach,
        variants: Variants::Never,
    }
}

fn known(ms: u64) -> Ask {
    ask(ms, Basis::SameJob, Reach::Anywhere)
}

fn unknown(ms: u64) -> Ask {
    ask(ms, Basis::ClosureSize, Reach::Anywhere)
}

fn view(total: u32, busy: u32) -> Event {
    Event::View(FarmView {
        slots_total: total,
        slots_busy: busy,
        fastest_milli: 1000,
        queued: 0,
        my_share_slots: total.into(),
    })
}

fn place(worker: &str, power: f64) -> Spare {
    Spare {
        worker: Name::new(worker).unwrap(),
        power,
        valid: Duration::from_secs(30),
        runs_on: Variants::Never,
    }
}

impl World {
    fn new(cores: u32) -> Self {
        Self {
            placing: Placing::new(cores),
            now: Instant::now(),
            busy: Duration::ZERO,
            next_grant: 1,
        }
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        self.placing.handle(event, self.now)
    }

    fn pass(&mut self, ms: u64) -> Vec<Action> {
        self.now += Duration::from_millis(ms);
        self.handle(Event::Time)
    }

    /// Makes all cores but `free` busy with something else.
    fn busy(&mut self, cores: f64) {
        for _ in 0..12 {
            self.now += Duration::from_secs(1);
            self.busy += Duration::from_secs_f64(cores);
            let reading = Reading {
                busy: self.busy,
                ..Reading::default()
            };
            self.handle(Event::Reading(reading));
        }
    }

    /// Answers every want ahead of need with a place of that power, and returns the other actions.
    fn grant_spares(&mut self, actions: Vec<Action>, power: f64) -> Vec<Action> {
        let mut rest = Vec::new();
        for action in actions {
            let Action::WantAhead(ahead, ..) = action else {
                rest.push(action);
                continue;
            };
            let grant = GrantId(self.next_grant);
            self.next_grant += 1;
            let spare = place(&format!("n{}", grant.0), power);
            let more = self.handle(Event::Spare(ahead, grant, spare));
            rest.extend(self.grant_spares(more, power));
        }
        rest
    }
}

#[test]
fn a_lone_job_runs_where_it_ends_first() {
    use Action::{RunHere, Want};
    // (busy cores of two, ask, power here) -> where
    let rows = [
        (0.0, known(1000), 1.0, RunHere(1, Choice::FasterHere)),
        (0.0, known(10), 1.0, RunHere(1, Choice::FasterHere)),
        // Nobody knows what it costs: the farm is for that.
        (0.0, unknown(1000), 1.0, Want(1)),
        // No whole core is idle.
        (1.4, known(1000), 1.0, Want(1)),
        (1.4, known(5), 1.0, RunHere(1, Choice::FasterHere)),
        (2.0, known(5), 1.0, Want(1)),
        // A slow board beside fast workers, and the reverse.
        (0.0, known(1000), 0.25, Want(1)),
        (1.4, known(1000), 4.0, RunHere(1, Choice::FasterHere)),
        (0.0, ask(10, Basis::SameJob, Reach::Workers), 1.0, Want(1)),
    ];
    for (busy, mut ask, power, expected) in rows {
        let mut world = World::new(2);
        world.busy(busy);
        world.handle(view(16, 16));
        ask.power_here = power;
        let actions = world.handle(Event::Asked(1, ask.clone()));
        assert_eq!(actions, [expected], "{busy} {ask:?} {power}");
    }
}

#[test]
fn a_small_build_uses_both_this_machine_and_the_farm() {
    let mut world = World::new(2);
    world.handle(view(16, 16));
    let mut here = 0;
    for number in 1..=10 {
        let actions = world.handle(Event::Asked(number, known(500)));
        here += usize::from(matches!(actions[..], [Action::RunHere(..)]));
    }
    assert_eq!(here, 2);
}

#[test]
fn while_the_farm_is_full_an_idle_core_takes_the_soonest_done() {
    let mut world = World::new(2);
    world.busy(1.0);
    world.handle(view(4, 4));
    for number in 1..=4 {
        world.handle(Event::Asked(number, unknown(1000)));
        world.handle(Event::Granted(number, place("n", 1.0)));
    }
    for (number, ms) in [(5, 3000), (6, 800), (7, 2000)] {
        assert_eq!(world.handle(Event::Asked(number, unknown(ms))), [Action::Want(number)]);
    }
    assert_eq!(world.pass(10), []);
    let due = world.placing.next_deadline().unwrap();
    assert_eq!(due, world.now + Duration::from_millis(20));
    assert_eq!(
        world.pass(20),
        [Action::TakeBack(6), Action::RunHere(6, Choice::FarmFull)]
    );
    // The core is taken now; when it is free again, the next one comes.
    assert_eq!(world.pass(500), []);
    assert_eq!(
        world.handle(Event::Left(6)),
        [Action::TakeBack(7), Action::RunHere(7, Choice::FarmFull)]
    );
}

#[test]
fn near_the_end_a_long_job_waits_for_a_fast_place_rather_than_run_on_a_slow_machine() {
    let mut world = World::new(2);
    world.handle(view(4, 4));
    let slowly = |ms| Ask {
        power_here: 0.25,
        ..unknown(ms)
    };
    for number in 1..=4 {
        world.handle(Event::Asked(number, slowly(1000)));
        world.handle(Event::Granted(number, place("n", 1.0)));
    }
    world.handle(Event::Asked(5, slowly(2000)));
    assert_eq!(world.pass(1000), []);
    // With others in line in front of it, it would.
    let mut actions = Vec::new();
    for number in 6..40 {
        actions.extend(world.handle(Event::Asked(number, slowly(2001))));
    }
    let first = actions.iter().find(|action| !matches!(action, Action::Want(_)));
    assert_eq!(first, Some(&Action::TakeBack(5)));
}

#[test]
fn an_ordinary_job_finds_a_place_that_was_asked_for_ahead() {
    let mut world = World::new(1);
    world.busy(1.0);
    world.handle(view(8, 0));
    let actions = world.handle(Event::Asked(1, unknown(100)));
    assert_eq!(
        actions,
        [Action::Want(1), Action::WantAhead(1, toolchain(), Variants::Never)]
    );
    world.handle(Event::Granted(1, place("n", 1.0)));
    world.grant_spares(actions, 1.0);
    for number in 2..=7 {
        let actions = world.handle(Event::Asked(number, unknown(100)));
        assert_eq!(actions[0], Action::Use(number, GrantId(number - 1)));
        assert!(
            actions.len() == 2 && matches!(actions[1], Action::WantAhead(..)),
            "{actions:?}"
        );
        world.grant_spares(actions, 1.0);
    }
    // As many as the build has lately had under way, and one more, are kept for what comes next.
    let mut asked = 0;
    for number in 1..=4 {
        let actions = world.handle(Event::Left(number));
        asked += actions.len();
        assert_eq!(world.grant_spares(actions, 1.0), []);
    }
    assert_eq!(asked, 4);
}

#[test]
fn spare_places_go_back_when_a_build_pauses_and_at_once_when_recalled() {
    let mut world = World::new(1);
    world.busy(1.0);
    world.handle(view(8, 0));
    let actions = world.handle(Event::Asked(1, unknown(100)));
    world.handle(Event::Granted(1, place("n", 1.0)));
    world.grant_spares(actions, 1.0);
    assert_eq!(world.handle(Event::Voided(GrantId(1))), [Action::Return(GrantId(1))]);
    // Not asked for again at once: somebody needs it.
    assert_eq!(world.pass(100), []);
    let actions = world.pass(300);
    assert_eq!(actions, [Action::WantAhead(2, toolchain(), Variants::Never)]);
    world.grant_spares(actions, 1.0);
    let actions = world.handle(Event::Left(1));
    world.grant_spares(actions, 1.0);
    let due = world.placing.next_deadline().unwrap();
    assert_eq!(due, world.now + PAUSE_IDLE);
    let mut back = world.pass(300);
    back.sort_by_key(|action| format!("{action:?}"));
    assert_eq!(back, [Action::Return(GrantId(2)), Action::Return(GrantId(3))]);
    assert_eq!(world.placing.next_deadline(), None);
    assert!(world.placing.pools.is_empty());
    // One that comes late is not kept.
    assert_eq!(
        world.handle(Event::Spare(9, GrantId(9), place("n9", 1.0))),
        [Action::Return(GrantId(9))]
    );
}

#[test]
fn a_place_on_a_variant_is_for_jobs_that_may_run_there() {
    let mut world = World::new(1);
    world.handle(view(8, 0));
    let may = Ask {
        variants: Variants::Certified,
        ..ask(1000, Basis::SameJob, Reach::Workers)
    };
    let actions = world.handle(Event::Asked(1, may.clone()));
    assert_eq!(
        actions,
        [Action::Want(1), Action::WantAhead(1, toolchain(), Variants::Certified)],
        "the next job is taken to be like this one"
    );
    let spare = Spare {
        runs_on: Variants::Certified,
        ..place("pc", 1.0)
    };
    world.handle(Event::Granted(1, place("n", 1.0)));
    world.handle(Event::Spare(1, GrantId(7), spare));
    let not = world.handle(Event::Asked(2, ask(1000, Basis::SameJob, Reach::Workers)));
    assert!(not.contains(&Action::Want(2)), "{not:?}");
    let used = world.handle(Event::Asked(3, may));
    assert!(used.contains(&Action::Use(3, GrantId(7))), "{used:?}");
}

#[test]
fn nothing_is_held_ahead_while_jobs_wait_for_slots() {
    let mut world = World::new(1);
    world.busy(1.0);
    world.handle(view(4, 4));
    for number in 1..=6 {
        assert_eq!(world.handle(Event::Asked(number, unknown(100))), [Action::Want(number)]);
    }
    world.pass(100);
    assert_eq!(world.handle(view(4, 3)), []);
    for number in 1..=6 {
        world.handle(Event::Granted(number, place("n", 1.0)));
    }
    let actions = world.handle(view(12, 6));
    assert!(matches!(actions[..], [Action::WantAhead(..)]), "{actions:?}");
}

#[test]
fn a_long_job_asks_for_a_faster_place_than_the_one_that_is_held() {
    // (work, power of the held place, busy of eight slots) -> whether it takes the held one
    let rows = [
        (100, 0.25, 2, false),
        (4, 0.25, 2, true),
        (1000, 0.9, 2, true),
        (1000, 0.25, 8, true),
    ];
    for (ms, power, busy, takes) in rows {
        let mut world = World::new(1);
        world.busy(1.0);
        world.handle(view(8, 0));
        let actions = world.handle(Event::Asked(1, unknown(100)));
        world.handle(Event::Granted(1, place("n", 1.0)));
        world.grant_spares(actions, power);
        world.handle(view(8, busy));
        let actions = world.handle(Event::Asked(2, unknown(ms)));
        let expected = if takes {
            Action::Use(2, GrantId(1))
        } else {
            Action::Want(2)
        };
        assert_eq!(actions[0], expected, "{ms} {power} {busy}");
    }
}

#[test]
fn avoided_workers_and_races_take_no_held_place() {
    for (avoid, reach) in [
        (vec![Name::new("n1").unwrap()], Reach::Anywhere),
        (Vec::new(), Reach::Chosen),
    ] {
        let mut world = World::new(1);
        world.busy(1.0);
        world.handle(view(8, 0));
        let actions = world.handle(Event::Asked(1, unknown(100)));
        world.handle(Event::Granted(1, place("n", 1.0)));
        world.grant_spares(actions, 1.0);
        let ask = Ask {
            avoid,
            ..ask(100, Basis::SameJob, reach)
        };
        assert_eq!(world.handle(Event::Asked(2, ask))[0], Action::Want(2));
    }
}

#[test]
fn job_for_one_worker_takes_a_held_place_there_and_no_other() {
    for (only, expected) in [("n1", None), ("n2", Some(Action::Want(2)))] {
        let mut world = World::new(1);
        world.busy(1.0);
        world.handle(view(8, 0));
        let actions = world.handle(Event::Asked(1, unknown(100)));
        world.handle(Event::Granted(1, place("n", 1.0)));
        world.grant_spares(actions, 1.0);
        let ask = Ask {
            only: Some(Name::new(only).unwrap()),
            ..ask(100, Basis::SameJob, Reach::Workers)
        };
        let first = world.handle(Event::Asked(2, ask))[0];
        match expected {
            Some(expected) => assert_eq!(first, expected),
            None => assert!(matches!(first, Action::Use(2, _)), "{first:?}"),
        }
    }
}

/// Whatever happens in whatever order: one place per job, bounded spares, nothing left over at the end.
#[test]
fn invariants_hold_for_random_lives() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..200 {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(random.random_range(1..5));
        let (mut wanted, mut placed, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let mut ahead = Vec::new();
        let mut next = 1;
        for step in 0..400 {
            world.now += Duration::from_millis(random.random_range(0..60));
            let event = match random.random_range(0..9) {
                0..3 if step < 300 => {
                    next += 1;
                    Event::Asked(
                        next,
                        [known, unknown][random.random_range(0..2)](random.random_range(1..2000)),
                    )
                }
                3 if !wanted.is_empty() => {
                    let number = wanted.swap_remove(random.random_range(0..wanted.len()));
                    placed.push(number);
                    Event::Granted(number, place("n1", random.random_range(1..40) as f64 / 10.0))
                }
                4 | 5 if !placed.is_empty() => Event::Left(placed.swap_remove(random.random_range(0..placed.len()))),
                6 if !ahead.is_empty() => {
                    let number = ahead.swap_remove(random.random_range(0..ahead.len()));
                    let grant = GrantId(1000 + number);
                    held.push(grant);
                    Event::Spare(number, grant, place("n1", 1.0))
                }
                7 if !held.is_empty() => Event::Voided(held[random.random_range(0..held.len())]),
                8 => view(16, random.random_range(0..17)),
                _ => Event::Time,
            };
            for action in world.handle(event) {
                match action {
                    Action::Want(number) => wanted.push(number),
                    Action::TakeBack(number) => {
                        let at = wanted.iter().position(|known| *known == number);
                        wanted.swap_remove(at.unwrap_or_else(|| panic!("seed {seed}: {number} was not wanted")));
                    }
                    Action::RunHere(number, _) => placed.push(number),
                    Action::Use(number, grant) => {
                        placed.push(number);
                        let at = held.iter().position(|known| *known == grant);
                        held.swap_remove(at.unwrap_or_else(|| panic!("seed {seed}: {grant:?} was not held")));
                    }
                    Action::WantAhead(number, ..) => ahead.push(number),
                    Action::TakeBackAhead(number) => ahead.retain(|known| *known != number),
                    Action::Return(grant) => held.retain(|known| *known != grant),
                    Action::GiveUp(_) | Action::Reconnect => panic!("seed {seed}: the coordinator is there"),
                }
            }
            let mut once = placed.clone();
            once.extend(&wanted);
            once.sort_unstable();
            let count = once.len();
            once.dedup();
            assert_eq!(once.len(), count, "seed {seed}: a job has two places");
            assert!(
                ahead.len() + held.len() <= SPARES_MAX,
                "seed {seed}: {ahead:?} {held:?}"
            );
        }
        for number in wanted.drain(..).chain(placed.drain(..)) {
            world.handle(Event::Left(number));
        }
        for number in ahead {
            world.handle(Event::NoSpare(number));
        }
        world.pass(60_000);
        assert!(
            world.placing.jobs.is_empty() && world.placing.pools.is_empty(),
            "seed {seed}"
        );
    }
}

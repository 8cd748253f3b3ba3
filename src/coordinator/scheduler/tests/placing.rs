//! Where jobs go, what waits for better, and places held ahead of need.

use super::*;

/// Wants a place for a job of so many milliseconds of work.
fn want_job(farm: &mut Farm, millis: u64, purpose: Purpose, avoid: &[&str]) -> Vec<Action> {
    let want = Want {
        request: RequestId(farm.next_request),
        toolchain: tool("a"),
        variants: Variants::Never,
        build: "b".into(),
        purpose,
        demand: Demand {
            work: Some(Duration::from_millis(millis)),
            spread_milli: Some(200),
            ..Demand::default()
        },
        avoid: avoid.iter().map(|name| Name::new(name).expect("a name")).collect(),
        only: None,
    };
    farm.next_request += 1;
    farm.tell(Event::Want(AGENT, want))
}

/// The workers of what was granted.
fn workers(actions: &[Action]) -> Vec<u64> {
    let granted = actions.iter().filter_map(|action| match action {
        Action::Grant(grant) => Some(grant.worker.0),
        _ => None,
    });
    granted.collect()
}

fn grant_of(actions: &[Action]) -> GrantId {
    match actions {
        [Action::Grant(grant)] => grant.grant,
        other => panic!("{other:?}"),
    }
}

fn ran_for(millis: u64) -> Ending {
    let usage = Usage {
        wall: Duration::from_millis(millis),
        ..Usage::default()
    };
    Ending::Ran(RunReport {
        usage,
        ..RunReport::default()
    })
}

#[test]
fn jobs_go_where_they_end_first_and_long_ones_wait_for_the_fast_worker() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("slow", 1, 250, &["a"]));
    farm.join(2, Farm::hello("fast", 1, 2000, &["a"]));
    let first = want_job(&mut farm, 1000, Purpose::Job, &[]);
    assert_eq!(workers(&first), [2]);
    assert_eq!(want_job(&mut farm, 1000, Purpose::Job, &[]), [], "4 s here, 1 s there");
    let short = want_job(&mut farm, 50, Purpose::Job, &[]);
    assert_eq!(workers(&short), [1], "it would wait longer than it takes");
    farm.now += Duration::from_millis(500);
    let next = farm.done(grant_of(&first), ran_for(500));
    assert_eq!(workers(&next), [2]);
}

/// The groups of cores of what was granted.
fn cores(actions: &[Action]) -> Vec<u8> {
    let granted = actions.iter().filter_map(|action| match action {
        Action::Grant(grant) => Some(grant.cores.0),
        _ => None,
    });
    granted.collect()
}

fn board(name: &str) -> WorkerHello {
    let group = |slots, power_milli| CoreGroup { slots, power_milli };
    WorkerHello {
        cores: vec![group(1, 2000), group(2, 250)],
        ..Farm::hello(name, 3, 833, &["a"])
    }
}

#[test]
fn fast_and_slow_cores_of_one_machine_are_places_of_their_own() {
    let mut farm = Farm::new();
    farm.join(1, board("board"));
    let first = want_job(&mut farm, 1000, Purpose::Job, &[]);
    assert_eq!(cores(&first), [0]);
    assert_eq!(
        want_job(&mut farm, 1000, Purpose::Job, &[]),
        [],
        "4 s on a slow core, 1 s on the fast one"
    );
    let short = want_job(&mut farm, 50, Purpose::Job, &[]);
    assert_eq!(cores(&short), [1], "it would wait longer than it takes");
    farm.now += Duration::from_millis(500);
    let next = farm.done(grant_of(&first), ran_for(500));
    assert_eq!(cores(&next), [0]);
    assert_eq!(farm.scheduler.view().workers[0].hello.cores.len(), 2);
}

#[test]
fn job_that_goes_on_elsewhere_keeps_its_cores_when_its_worker_comes_back() {
    let mut farm = Farm::new();
    farm.join(1, board("board"));
    let first = grant_of(&want_job(&mut farm, 1000, Purpose::Job, &[]));
    farm.report(1, 1, &[first], &[]);
    let again = WorkerHello {
        running: vec![first, GrantId(99)],
        ..board("board")
    };
    farm.join(2, again);
    assert_eq!(
        cores(&want_job(&mut farm, 50, Purpose::Job, &[])),
        [1],
        "one that nobody knows took the other"
    );
}

#[test]
fn groups_of_cores_that_do_not_add_up_are_not_believed() {
    let mut farm = Farm::new();
    let wrong = WorkerHello {
        slots: 9,
        ..board("board")
    };
    farm.join(1, wrong);
    assert_eq!(farm.scheduler.view().workers[0].hello.cores, []);
}

#[test]
fn how_far_cores_are_apart_is_learned() {
    let mut farm = Farm::new();
    // Said to be eight times as fast; it is twice.
    farm.join(1, board("board"));
    farm.join(2, Farm::hello("other", 1, 500, &["a"]));
    for round in 1..=12 {
        farm.report(1, round, &[], &[]);
        farm.report(2, round, &[], &[]);
        let fast = want_job(&mut farm, 1000, Purpose::Job, &["other"]);
        let slow = want_job(&mut farm, 10, Purpose::Job, &["other"]);
        assert_eq!((cores(&fast), cores(&slow)), (vec![0], vec![1]));
        let other = want_job(&mut farm, 1000, Purpose::Job, &["board"]);
        farm.now += Duration::from_secs(3);
        farm.done(grant_of(&fast), ran_for(1000));
        farm.done(grant_of(&slow), ran_for(20));
        farm.done(grant_of(&other), ran_for(2000));
    }
    let powers = |actions: &[Action]| match actions {
        [Action::Grant(grant)] => f64::from(grant.power_milli),
        other => panic!("{other:?}"),
    };
    let fast = powers(&want_job(&mut farm, 1000, Purpose::Job, &["other"]));
    let slow = powers(&want_job(&mut farm, 10, Purpose::Job, &["other"]));
    assert!((1.5..3.0).contains(&(fast / slow)), "{fast} and {slow}");
}

#[test]
fn job_that_waits_for_a_fast_worker_takes_the_slow_one_when_that_does_not_come() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("slow", 1, 250, &["a"]));
    farm.join(2, Farm::hello("fast", 1, 2000, &["a"]));
    let first = grant_of(&want_job(&mut farm, 1000, Purpose::Job, &[]));
    assert_eq!(want_job(&mut farm, 1000, Purpose::Job, &[]), []);
    let mut given = Vec::new();
    for number in 1..200 {
        given.extend(workers(&farm.pass(100)));
        for worker in [1, 2] {
            let running: &[GrantId] = if worker == 2 { &[first] } else { &[] };
            given.extend(workers(&farm.report(worker, number, running, &[])));
        }
        if !given.is_empty() {
            assert_eq!(given, [1]);
            assert!(farm.now < Duration::from_secs(6 + 12), "it waited until {:?}", farm.now);
            return;
        }
    }
    panic!("it waits for ever");
}

#[test]
fn plenty_of_work_leaves_no_slot_idle() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("slow", 2, 500, &["a"]));
    farm.join(2, Farm::hello("fast", 2, 2000, &["a"]));
    for _ in 0..12 {
        want_job(&mut farm, 1000, Purpose::Job, &[]);
    }
    assert_eq!(farm.busy(), [2, 2]);
}

#[test]
fn learned_speed_decides_and_is_told() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("good", 1, 1000, &["a"]));
    farm.join(2, Farm::hello("bad", 1, 1100, &["a"]));
    for round in 1..=6 {
        farm.report(1, round, &[], &[]);
        farm.report(2, round, &[], &[]);
        let first = want_job(&mut farm, 1000, Purpose::Job, &["bad"]);
        let second = want_job(&mut farm, 1000, Purpose::Job, &["good"]);
        farm.now += Duration::from_secs(3);
        farm.done(grant_of(&first), ran_for(1000));
        farm.done(grant_of(&second), ran_for(3000));
    }
    let first = want_job(&mut farm, 1000, Purpose::Job, &[]);
    assert_eq!(workers(&first), [1]);
    let learned: Vec<u32> = farm
        .scheduler
        .view()
        .workers
        .iter()
        .filter_map(|worker| worker.learned_milli)
        .collect();
    let ratio = f64::from(learned[1]) / f64::from(learned[0]);
    assert!((2.3..3.5).contains(&ratio), "{learned:?} (bad, good)");
}

#[test]
fn worker_to_be_avoided_is_and_a_job_without_another_is_refused() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 2, 1000, &["a"]));
    assert_eq!(
        refused(&want_job(&mut farm, 10, Purpose::Job, &["w"])).0,
        RefusalKind::Busy
    );
    farm.join(2, Farm::hello("v", 1, 100, &["a"]));
    assert_eq!(workers(&want_job(&mut farm, 10, Purpose::Job, &["w"])), [2]);
}

#[test]
fn places_ahead_of_need_and_second_copies_come_after_every_job() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let first = grant_of(&want_job(&mut farm, 100, Purpose::Job, &[]));
    for purpose in [Purpose::Ahead, Purpose::Race, Purpose::Job] {
        assert_eq!(want_job(&mut farm, 100, purpose, &[]), []);
    }
    let mut grant = first;
    for expected in [Purpose::Job, Purpose::Race, Purpose::Ahead] {
        let actions = farm.done(grant, ran_for(100));
        let [Action::Grant(next)] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert_eq!(next.purpose, expected);
        grant = next.grant;
    }
}

#[test]
fn place_held_ahead_of_need_is_called_back_for_a_job() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let held = grant_of(&want_job(&mut farm, 0, Purpose::Ahead, &[]));
    let recall = Action::VoidAtAgent(AGENT, held, VoidReason::Recalled);
    assert_eq!(want_job(&mut farm, 1000, Purpose::Job, &[]), [recall]);
    assert_eq!(
        want_job(&mut farm, 1000, Purpose::Job, &[]),
        [],
        "it is called back once"
    );
    let actions = farm.done(held, Ending::Unused);
    assert_eq!(workers(&actions), [1]);
}

#[test]
fn place_that_was_called_back_and_is_not_given_back_is_void_within_a_moment() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let held = grant_of(&want_job(&mut farm, 0, Purpose::Ahead, &[]));
    want_job(&mut farm, 1000, Purpose::Job, &[]);
    let actions = farm.pass(500);
    let void = Action::VoidAtWorker(WorkerSessionId(1), held, VoidReason::Expired);
    assert!(actions.contains(&void), "{actions:?}");
    assert_eq!(workers(&farm.report(1, 1, &[], &[held])), [1]);
}

#[test]
fn place_held_ahead_of_need_that_has_a_job_is_not_called_back() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let held = grant_of(&want_job(&mut farm, 0, Purpose::Ahead, &[]));
    farm.tell(Event::GrantUsed(AGENT, held, Demand::default()));
    assert_eq!(want_job(&mut farm, 1000, Purpose::Job, &[]), []);
    assert_eq!(workers(&farm.done(held, ran_for(900))), [1]);
}

#[test]
fn worker_short_of_memory_gets_no_job_beside_what_it_has() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 2, 1000, &["a"]));
    let first = grant_of(&want_job(&mut farm, 1000, Purpose::Job, &[]));
    let report = LoadReport {
        number: 1,
        running: vec![first],
        memory_available_bytes: 1 << 29,
        memory_pressure_milli: 400,
        ..LoadReport::default()
    };
    farm.tell(Event::WorkerLoad(WorkerSessionId(1), report));
    let big = Want {
        request: RequestId(99),
        toolchain: tool("a"),
        variants: Variants::Never,
        build: "b".into(),
        purpose: Purpose::Job,
        demand: Demand {
            work: Some(Duration::from_secs(1)),
            memory_bytes: Some(1 << 20),
            ..Demand::default()
        },
        avoid: Vec::new(),
        only: None,
    };
    assert_eq!(farm.tell(Event::Want(AGENT, big)), []);
    assert_eq!(workers(&farm.done(first, ran_for(1000))), [1]);
}

#[test]
fn agents_are_told_of_the_farm_when_it_changes_and_not_otherwise() {
    let mut farm = Farm::new();
    let told = |actions: Vec<Action>| -> Vec<(u32, u32, u64)> {
        let views = actions.into_iter().filter_map(|action| match action {
            Action::TellFarm(_, view) => Some((view.slots_total, view.slots_busy, view.my_share_slots)),
            _ => None,
        });
        views.collect()
    };
    let at = |farm: &mut Farm, millis| {
        farm.now += Duration::from_millis(millis);
        told(farm.scheduler.handle(Event::Tick, Moment::at(farm.now)))
    };
    farm.join(1, Farm::hello("w", 4, 1000, &["a"]));
    assert_eq!(at(&mut farm, 250), [(4, 0, 4)]);
    want_job(&mut farm, 1000, Purpose::Job, &[]);
    assert_eq!(at(&mut farm, 249), []);
    assert_eq!(at(&mut farm, 1), [(4, 1, 4)]);
    assert_eq!(at(&mut farm, 5_000), []);
    farm.join_agent(AgentSessionId(2));
    farm.want_for(AgentSessionId(2), "", "a");
    assert_eq!(at(&mut farm, 250), [(4, 2, 2), (4, 2, 2)]);
}

#[test]
fn of_workers_that_are_gone_the_one_longest_silent_is_forgotten_first() {
    let mut farm = Farm::new();
    farm.scheduler.rules.workers_max = 2;
    let learned = |farm: &Farm| farm.scheduler.view().workers[0].learned_milli.is_some();
    let names = ["z", "m", "a"];
    for (number, name) in names.iter().enumerate() {
        farm.join(number as u64, Farm::hello(name, 1, 1000, &["a"]));
        let grant = grant_of(&want_job(&mut farm, 1000, Purpose::Job, &[]));
        farm.done(grant, ran_for(1000));
        farm.tell(Event::WorkerLeft(WorkerSessionId(number as u64)));
        farm.pass(60_000);
    }
    for (number, (name, known)) in [("m", true), ("a", true), ("z", false)].into_iter().enumerate() {
        let id = 10 + number as u64;
        farm.join(id, Farm::hello(name, 1, 1000, &["a"]));
        assert_eq!(learned(&farm), known, "{name}");
        farm.tell(Event::WorkerLeft(WorkerSessionId(id)));
        farm.pass(60_000);
    }
}

//! What is learned, how fast, and what is not believed.

use super::*;

fn at(seconds: u64) -> Moment {
    Moment::at(Duration::from_secs(seconds))
}

fn spot(occupancy: u32) -> Spot {
    Spot {
        occupancy,
        cores: CoreGroupId::default(),
    }
}

/// Workers of one toolchain whose true speeds are known.
struct Farm {
    pace: Pace,
    workers: Vec<(f64, Speed)>,
    jobs: u64,
}

impl Farm {
    /// One worker for each (configured, true) pair, of two slots.
    fn new(powers: &[(u32, f64)]) -> Self {
        let mut pace = Pace::default();
        let workers = powers.iter().map(|(configured, real)| {
            let speed = Speed::new(*configured, 2, None, at(0));
            pace.add(&speed);
            (*real, speed)
        });
        let workers = workers.collect();
        Self { pace, workers, jobs: 0 }
    }

    /// One job on a worker; predictions are off by up to `error`, in logarithm, and by the factor `unit` all of them.
    fn run(&mut self, worker: usize, error: f64, unit: f64) {
        let (real, speed) = &mut self.workers[worker];
        self.jobs += 1;
        let off = error * (((self.jobs * 7919) % 201) as f64 / 100.0 - 1.0);
        let lesson = Lesson {
            work: Duration::from_secs_f64(unit * off.exp()),
            spread_milli: Some((error * 577.0) as u32),
            wall: Duration::from_secs_f64(1.0 / *real),
            spot: spot(2),
        };
        speed.learn(&mut self.pace, &lesson, at(self.jobs));
    }

    fn told(&self, worker: usize) -> f64 {
        f64::from(self.pace.told_milli(self.workers[worker].1.log(spot(2)))) / 1000.0
    }
}

fn close(found: f64, wanted: f64, tolerance: f64) {
    assert!((found / wanted).ln().abs() < tolerance, "{found}, not {wanted}");
}

#[test]
fn wrong_powers_are_learned_up_to_their_common_factor() {
    let mut farm = Farm::new(&[(1000, 4.0), (1000, 1.0), (1000, 0.25)]);
    for _ in 0..12 {
        (0..3).for_each(|worker| farm.run(worker, 0.3, 1.0));
    }
    for (worker, real) in [(0, 4.0), (1, 1.0), (2, 0.25)] {
        close(farm.told(worker), real, 0.2);
    }
}

#[test]
fn predictions_that_are_all_wrong_alike_change_no_speed() {
    let mut farm = Farm::new(&[(2000, 2.0), (500, 0.5)]);
    for _ in 0..20 {
        (0..2).for_each(|worker| farm.run(worker, 0.2, 5.0));
    }
    close(farm.told(0), 2.0, 0.1);
    close(farm.told(1), 0.5, 0.1);
    let (_, speed) = farm.workers[0];
    close(
        farm.pace.wall(Duration::from_secs(5), speed.log(spot(2))).as_secs_f64(),
        0.5,
        0.2,
    );
}

#[test]
fn throttled_worker_is_noticed_within_three_jobs_and_believed_again_as_fast() {
    let mut farm = Farm::new(&[(1000, 1.0), (1000, 1.0), (1000, 1.0), (1000, 1.0)]);
    for _ in 0..15 {
        (0..4).for_each(|worker| farm.run(worker, 0.3, 1.0));
    }
    farm.workers[0].0 = 1.0 / 3.0;
    (0..3).for_each(|_| farm.run(0, 0.3, 1.0));
    assert!(farm.told(0) / farm.told(1) < 0.5, "{}", farm.told(0));
    farm.workers[0].0 = 1.0;
    (0..3).for_each(|_| farm.run(0, 0.3, 1.0));
    assert!(farm.told(0) / farm.told(1) > 0.75, "{}", farm.told(0));
}

#[test]
fn one_odd_job_is_no_throttled_worker() {
    let mut farm = Farm::new(&[(1000, 1.0), (1000, 1.0)]);
    for _ in 0..15 {
        (0..2).for_each(|worker| farm.run(worker, 0.3, 1.0));
    }
    farm.workers[0].0 = 0.1;
    farm.run(0, 0.3, 1.0);
    assert!(farm.told(0) > 0.5, "{}", farm.told(0));
}

#[test]
fn guesses_that_are_far_off_make_no_difference_between_equal_workers() {
    let mut farm = Farm::new(&[(1000, 1.0); 8]);
    // Uniform errors of this size are as wide as those of a first build's guesses, 0.6 in standard deviation.
    for _ in 0..30 {
        (0..8).for_each(|worker| farm.run(worker, 1.04, 1.0));
    }
    // One source is a generated table, which nobody can know.
    let before = farm.told(0);
    let (real, speed) = &mut farm.workers[0];
    let lesson = Lesson {
        work: Duration::from_secs(8),
        spread_milli: Some(600),
        wall: Duration::from_secs_f64(1.0 / *real),
        spot: spot(2),
    };
    speed.learn(&mut farm.pace, &lesson, at(farm.jobs));
    close(farm.told(0), before, 0.3);
    (0..8).for_each(|worker| close(farm.told(worker), 1.0, 0.4));
}

#[test]
fn any_number_of_jobs_on_some_workers_leaves_the_others_as_fast_as_they_are() {
    let mut farm = Farm::new(&[(1000, 1.0), (500, 0.5), (250, 0.25)]);
    for _ in 0..30 {
        (0..3).for_each(|worker| farm.run(worker, 0.3, 1.0));
    }
    // As agents do: what a source costs is the time it took, by the power that was told; every tenth job is held up.
    let mut known = [1.0; 64];
    for job in 0..20_000_usize {
        let worker = usize::from(job % 16 == 0);
        let power = farm.told(worker);
        let (real, speed) = &mut farm.workers[worker];
        let time = (1.0 + (job * 7919 % 101) as f64 / 500.0) / *real;
        let held_up = if job % 10 == 3 { 2.5 } else { 1.0 };
        let lesson = Lesson {
            work: Duration::from_secs_f64(known[job % 64]),
            spread_milli: Some(200),
            wall: Duration::from_secs_f64(time * held_up),
            spot: spot(2),
        };
        speed.learn(&mut farm.pace, &lesson, at(job as u64));
        known[job % 64] = time * power;
    }
    close(farm.told(2) / farm.told(0), 0.25, 0.5);
    assert!(farm.pace.bias.mean.abs() < 2.0, "{:?}", farm.pace.bias);
}

#[test]
fn job_that_should_have_ended_long_ago_slows_its_worker_while_it_runs() {
    let mut farm = Farm::new(&[(1000, 1.0), (1000, 1.0)]);
    for _ in 0..15 {
        (0..2).for_each(|worker| farm.run(worker, 0.2, 1.0));
    }
    let lesson = |seconds| Lesson {
        work: Duration::from_secs(1),
        spread_milli: Some(200),
        wall: Duration::from_secs(seconds),
        spot: spot(2),
    };
    let (_, mut speed) = farm.workers[0];
    let before = speed.log(spot(2));
    speed.learn_overdue(&mut farm.pace, &lesson(1), at(40));
    assert_eq!(speed.log(spot(2)), before, "it is not late");
    for seconds in [3, 5, 8] {
        speed.learn_overdue(&mut farm.pace, &lesson(seconds), at(40 + seconds));
    }
    assert!(speed.log(spot(2)) < before - 0.2, "{}", speed.log(spot(2)));
}

#[test]
fn worker_without_news_goes_back_to_what_is_usual() {
    let mut farm = Farm::new(&[(1000, 1.0), (1000, 1.0)]);
    for _ in 0..30 {
        (0..2).for_each(|worker| farm.run(worker, 0.2, 1.0));
    }
    farm.workers[0].0 = 0.25;
    (0..4).for_each(|_| farm.run(0, 0.2, 1.0));
    let slow = farm.told(0) / farm.told(1);
    let (_, speed) = &mut farm.workers[0];
    for seconds in 0..120 {
        speed.rest(&mut farm.pace, at(farm.jobs + seconds));
    }
    assert!(slow < 0.5 && farm.told(0) > 0.65, "{slow} then {}", farm.told(0));
}

#[test]
fn numbers_stay_finite_whatever_is_fed_in() {
    let mut pace = Pace::default();
    let mut speed = Speed::new(0, 0, None, at(0));
    pace.add(&speed);
    for round in 0..1000_u64 {
        let lesson = Lesson {
            work: Duration::from_micros(if round % 3 == 0 { 0 } else { u64::MAX / 4 }),
            spread_milli: [None, Some(0), Some(u32::MAX)][(round % 3) as usize],
            wall: Duration::from_micros(if round % 2 == 0 { 0 } else { u64::MAX / 4 }),
            spot: Spot {
                occupancy: (round % 5) as u32,
                cores: CoreGroupId((round % 11) as u8),
            },
        };
        speed.learn(&mut pace, &lesson, at(round));
        speed.learn_overdue(&mut pace, &lesson, at(round));
        speed.rest(&mut pace, at(2 * round));
        assert!(speed.log(spot(1)).abs() <= 3.0 * LOG_BOUND && pace.told_milli(speed.log(spot(1))) > 0);
        assert!(pace.wall(Duration::from_secs(1), speed.log(spot(1))) > Duration::ZERO);
    }
}

impl Farm {
    /// The same workers in the coordinator's next life.
    fn restarted(self) -> Self {
        let mut pace = Pace::default();
        let recalled = self.workers.into_iter().map(|(real, speed)| {
            let speed = Speed::recalled(speed.usual().expect("it was learned"), at(0));
            pace.add(&speed);
            (real, speed)
        });
        let workers = recalled.collect();
        Self { pace, workers, jobs: 0 }
    }
}

#[test]
fn what_is_recalled_is_believed_and_soon_corrected_for_a_machine_that_was_replaced() {
    let mut farm = Farm::new(&[(1000, 4.0), (1000, 1.0), (1000, 1.0)]);
    for _ in 0..100 {
        (0..3).for_each(|worker| farm.run(worker, 0.3, 1.0));
    }
    let before = farm.told(0) / farm.told(1);
    let mut farm = farm.restarted();
    close(farm.told(0) / farm.told(1), before, 0.1);

    farm.workers[0].0 = 0.5;
    for _ in 0..10 {
        (0..3).for_each(|worker| farm.run(worker, 0.3, 1.0));
    }
    close(farm.told(0) / farm.told(1), 0.5, 0.2);
    for (_, speed) in &mut farm.workers {
        speed.rest(&mut farm.pace, at(farm.jobs + 300));
    }
    let idle = farm.told(0) / farm.told(1);
    assert!(idle < 1.1, "{idle}: as fast as its predecessor after a rest");
}

//! The histories that are simulated.

use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::{Config, Loose};
use super::invariants::{check_end, check_step};
use super::world::World;

/// Time by which everything must have ended, however bad it was before: calm begins after a minute at most, 75 jobs
/// of six seconds take half an hour on one slot of power 1/4, and each may be tried a dozen times.
const END: Duration = Duration::from_secs(3 * 3600);
/// Time in which a calm farm settles after its last job: twice the silence after which a worker is lost, and some.
const QUIET: Duration = Duration::from_secs(60);

fn seeds(usual: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("RDCC_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RDCC_SIM_SEEDS").unwrap_or(usual)).collect(),
    }
}

/// Runs a world to its end. `also` is checked after every step besides the invariants.
fn run(world: &mut World, also: impl Fn(&World) -> Result<(), String>) -> Result<(), String> {
    let mut through_since = None;
    while world.advance() {
        check_step(world)?;
        also(world)?;
        if world.agents.iter().all(|agent| agent.is_through()) && world.now >= world.config.calm_after {
            let since = *through_since.get_or_insert(world.now);
            if world.now > since + QUIET {
                return check_end(world);
            }
        }
        if world.now > END {
            return Err(format!("jobs were left: {:#?}", world.agents));
        }
    }
    Err("nothing was left to come".to_owned())
}

fn simulate(
    test: &str,
    usual: u64,
    config: impl Fn(&mut ChaCha8Rng) -> Config,
    also: impl Fn(&World) -> Result<(), String>,
) {
    let mut ran = 0;
    for seed in seeds(usual) {
        let config = config(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut world = World::new(config, seed);
        if let Err(broken) = run(&mut world, &also) {
            panic!(
                "seed {seed} at {:?}: {broken}\nreplay: RDCC_SIM_SEED={seed} cargo test --test sim {test}",
                world.now
            );
        }
        ran += world.agents.iter().map(|agent| agent.ran).sum::<usize>();
    }
    assert!(ran > 0, "no job ever ran remotely, so nothing was tested");
}

#[test]
fn rough_farm_on_streams_keeps_every_promise() {
    let config = |random: &mut ChaCha8Rng| Config::rough(random, Loose::No);
    simulate("rough_farm_on_streams", 120, config, |_| Ok(()));
}

#[test]
fn rough_farm_that_loses_doubles_and_reorders_messages_keeps_every_promise() {
    let config = |random: &mut ChaCha8Rng| Config::rough(random, Loose::Yes);
    simulate("rough_farm_that_loses", 120, config, |_| Ok(()));
}

/// Variants come and go while everything else goes wrong: what is granted is certified at that moment, always.
#[test]
fn rough_farm_with_variants_grants_certified_pairs_only() {
    let config = |random: &mut ChaCha8Rng| Config {
        kinds: 2,
        toolchains: 4,
        odd_agents: 0.1,
        workers: 4,
        ..Config::rough(random, Loose::No)
    };
    simulate("rough_farm_with_variants", 120, config, |_| Ok(()));
}

/// Boards and a PC: the PC helps with the boards' jobs as soon as its variant is certified, and not before.
#[test]
fn variants_help_from_certification_to_revocation() {
    let config = |_: &mut ChaCha8Rng| Config {
        kinds: 2,
        toolchains: 2,
        workers: 2,
        jobs_per_agent: 60,
        calm_after: Duration::from_secs(40),
        ..Config::orderly()
    };
    let mut on_variants = 0;
    for seed in seeds(5) {
        let mut world = World::new(config(&mut ChaCha8Rng::seed_from_u64(seed)), seed);
        run(&mut world, |_| Ok(())).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        on_variants += world.ran_on_variants;
    }
    assert!(on_variants > 0, "no job ran on a variant, so nothing was tested");
}

#[test]
fn every_job_of_an_orderly_farm_runs_remotely() {
    let config = |_: &mut ChaCha8Rng| Config::orderly();
    simulate("every_job_of_an_orderly_farm", 5, config, |world| {
        let local: usize = world.agents.iter().map(|agent| agent.local).sum();
        if local > 0 {
            return Err(format!("{local} jobs were given up"));
        }
        Ok(())
    });
}

/// Two agents that both have more jobs than slots hold the same number of slots, give or take one.
#[test]
fn equal_agents_hold_equal_parts_while_both_wait() {
    let config = |_: &mut ChaCha8Rng| Config {
        jobs_per_agent: 120,
        parallel: 16,
        ..Config::orderly()
    };
    simulate("equal_agents_hold_equal_parts", 5, config, |world| {
        let Some(scheduler) = &world.scheduler else {
            return Ok(());
        };
        let agents = scheduler.view().agents;
        let both_wait = agents.len() == 2 && agents.iter().all(|agent| agent.waiting > 0);
        let apart = || agents[0].holding.abs_diff(agents[1].holding);
        // The agents join within 100 ms; who came first had all slots, and needs a job's length to lose them.
        if both_wait && world.now > Duration::from_secs(5) && apart() > 1 {
            return Err(format!("{agents:?}"));
        }
        Ok(())
    });
}

/// A small build beside a flood of jobs gets the next slot that becomes free.
#[test]
fn lone_job_beside_a_flood_waits_no_longer_than_one_job_takes() {
    let config = |_: &mut ChaCha8Rng| Config {
        predicted: true,
        ..Config::orderly()
    };
    for seed in seeds(10) {
        let mut world = World::new(config(&mut ChaCha8Rng::seed_from_u64(seed)), seed);
        // The second agent has few jobs and asks for one at a time, with the flood's own kind of work.
        let rest = world.agents[1].todo.split_off(5);
        world.agents[0].todo.extend(rest);
        world.lone_agent = Some(1);
        let mut steps = 0;
        while world.advance() && !world.agents.iter().all(|agent| agent.is_through()) && steps < 1_000_000 {
            steps += 1;
            check_step(&world).expect("invariants hold");
        }
        let longest = world.agents[1].longest_wait;
        let bound = Duration::from_millis(world.config.work_ms.1 + 100);
        assert!(
            world.agents[1].ran == 5 && longest <= bound,
            "seed {seed}: the lone job waited {longest:?}\nreplay: RDCC_SIM_SEED={seed} cargo test --test sim lone_job"
        );
    }
}

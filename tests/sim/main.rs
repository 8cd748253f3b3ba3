//! Seeded simulation of a farm around the coordinator's scheduler.
//!
//! Agents, workers, links and a clock, all made up; the scheduler is the real one. After every step the invariants are
//! checked (`invariants.rs`); a seed that breaks one is printed with the command that replays it. Nothing sleeps.
//!
//! `RDCC_SIM_SEEDS=5000` runs that many seeds per scenario, `RDCC_SIM_SEED=17` only that one.

mod agent;
mod bouts;
mod building;
mod config;
mod invariants;
mod reactions;
mod scenarios;
mod variants;
mod worker;
mod world;

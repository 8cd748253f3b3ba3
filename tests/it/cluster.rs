//! Compiles through a whole farm: coordinator, workers, agent and wrapper, with the real cross compiler.

mod anywhere;
mod audit;
mod bits;
mod chaos;
mod disks;
mod failures;
mod farm;
mod makes;
mod matrix;
mod placing;
mod setup;
mod shortages;
mod users;
mod variants;
mod ways;

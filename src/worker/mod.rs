//! The worker: a node's share of the farm's compiles.
//!
//! It stages what a job reads, runs the unmodified compiler in a private root, and hands back everything it wrote.

pub mod admission;
pub mod coordinator_rpc;
pub mod cores;
pub mod doctor;
pub mod executor;
pub mod isolated;
pub mod link;
pub mod link_service;
pub mod mirror;
pub mod mirror_plan;
pub mod node;
pub mod outputs;
pub mod power;
mod process;
pub mod receiver;
pub mod sandbox;
pub mod session;
pub mod settings;
pub mod slots;
pub mod stop;
pub mod toolchains;
pub mod transfers;
pub mod variant_checks;

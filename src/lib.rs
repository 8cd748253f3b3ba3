//! rdcc: a compile farm for cross builds, with named toolchains, verified workers, and the same bits as a local build.
//!
//! ARCHITECTURE.md is the map. In short: *decisions* (`compile`, `includes`, `coordinator::scheduler`, …) take values
//! and return values; *plumbing* (sockets, files, processes, clocks) carries them out; `bin/` ties them together.

// A function fits on a screen; how many lines that is, is in `clippy.toml`. Tests may tell longer stories.
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

pub mod admin;
pub mod agent;
pub mod client;
pub mod compile;
pub mod coordinator;
pub mod digest;
pub mod exchange;
pub mod ids;
pub mod includes;
pub mod job;
pub mod protocol;
pub mod quantity;
pub mod runtime;
pub mod store;
pub mod telemetry;
pub mod toolchains;
pub mod trust;
pub mod worker;

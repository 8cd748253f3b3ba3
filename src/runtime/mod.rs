//! What every long-running part needs: owned tasks, signals, back-off, connections.
//!
//! No policy lives here. Invariant: `tasks.rs` holds the only spawn in the crate.

pub mod backoff;
pub mod channel;
pub mod clock;
pub mod discovery;
pub mod errors;
mod math;
pub mod signals;
pub mod tasks;
pub mod unix_socket;

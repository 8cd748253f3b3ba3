//! The agent: one per user and mount namespace, through which every compile of that user goes.
//!
//! *Decisions* are in `flow`, `fallback`, `placing`, `local_share`, `local_room`, `race`, `audit`, `forecast`, `policy` and `verify`;
//! the rest is plumbing around them.

pub mod audit;
pub mod broker;
pub mod build_log;
pub mod builds;
pub mod check;
pub mod closures;
pub mod cluster;
pub mod compiler_run;
pub mod coordinator_link;
pub mod driver;
pub mod fallback;
pub mod farm;
pub mod flags_class;
pub mod flow;
pub mod forecast;
pub mod house;
pub mod inputs;
pub mod job;
pub mod journal;
pub mod learned;
pub mod ledger;
pub mod local_room;
pub mod local_share;
pub mod local_slots;
pub mod locale_probe;
pub mod machine;
pub mod outputs;
pub mod placing;
pub mod policy;
pub mod preparation;
pub mod profiles;
pub mod race;
pub mod recheck;
pub mod socket;
pub mod spec;
pub mod toolchain_resolve;
pub mod verify;
pub mod watch;
pub mod worker_link;

//! The coordinator: who works, who waits, and who gets which place.
//!
//! The decisions are [`scheduler`] and the files it is made of: a state machine that takes events and moments and
//! returns actions, and knows neither sockets nor clocks. A job never passes through here; only places do.

pub mod driver;
pub mod enrolment_service;
pub mod events;
pub mod fairness;
pub mod farm;
pub mod guard_service;
pub mod kept_files;
pub mod kept_speeds;
pub mod members;
pub mod moment;
pub mod placement;
pub mod quarantine;
pub mod registry;
pub mod rules;
pub mod scheduler;
pub mod server;
pub mod service;
pub mod settings;
pub mod toolchain_service;
pub mod view;

mod access;
mod agents;
mod ahead;
mod audit;
mod bound;
mod cores;
mod grants;
mod health;
mod holdings;
mod learning;
mod outlook;
mod queue;
mod refusals;
mod scopes;
mod serving;
mod speed;
mod supplies;
mod timers;
mod transfer;
mod variants;
mod workers;

//! The process that make starts, thousands of times: from its argv to the agent's answer or the real compiler.
//!
//! No async runtime and no configuration files here; a wrapper's whole life is a handful of system calls.
//! `invocation`, `compiler_name` and `state_dir` decide; the rest does.

pub mod compiler_name;
pub mod detach;
pub mod find;
pub mod invocation;
pub mod link;
pub mod local;
pub mod start;
pub mod state_dir;
pub mod surroundings;
pub mod wrapper;

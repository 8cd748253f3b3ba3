//! Integration tests: one binary, real processes, hermetic environments.

mod commands;
mod coordinator;
mod real_gcc;
mod sandbox;
mod tidy;
mod worker;
mod wrapper;

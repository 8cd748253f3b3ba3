//! Integration tests: one binary, real processes, hermetic environments.

mod cluster;
mod commands;
mod coordinator;
mod corpus;
mod fuzz;
mod golden;
mod includes;
mod real_gcc;
mod sandbox;
mod support;
mod tidy;
mod trust;
mod wire;
mod worker;
mod wrapper;

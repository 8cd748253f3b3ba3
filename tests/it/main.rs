//! Integration tests: one binary, real processes, hermetic environments.

mod real_gcc;
mod sandbox;
mod tidy;
mod wrapper;

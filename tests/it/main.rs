//! Integration tests: one binary, real processes, hermetic environments.

mod tidy;
mod wrapper;

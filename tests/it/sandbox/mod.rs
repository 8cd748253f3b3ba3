//! The sandbox, with real jobs: each test in every way that a root can be built, as whoever runs the tests, and when that
//! is root as an ordinary user too.

mod isolation;
mod limits;
mod outputs;
mod robustness;
mod world;

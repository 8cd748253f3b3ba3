//! Simulations of the scheduler.

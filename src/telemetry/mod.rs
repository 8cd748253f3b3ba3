//! What rdcc says about itself: logs.

pub mod logging;

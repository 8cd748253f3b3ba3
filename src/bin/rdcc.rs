//! Placeholder until the parts land.
fn main() {}

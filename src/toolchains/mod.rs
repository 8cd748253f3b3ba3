//! What a toolchain is, and who has it.
//!
//! [`definition`] reads the file a person writes; [`manifest`] is the exact list of files that makes a toolchain's
//! identity. Both are pure. Nothing here decides where a job runs.

pub mod bundle;
pub mod capture;
pub mod captured;
pub mod certification;
pub mod defaults;
pub mod definition;
pub mod elf;
pub mod golden;
pub mod host;
pub mod installed;
pub mod manifest;
pub mod objects;
pub mod profile;

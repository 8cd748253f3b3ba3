//! The wire: generated messages, their conversion to domain values, versions and tokens.
//!
//! [`wire`] holds the generated code. Only this module, and the handler files of the roles (`service.rs`,
//! `session.rs`, `*_link.rs`), may name its types, and they convert on their first and last line. Nothing that came
//! from a peer is asserted on: every conversion from the wire ends in a value or a [`convert::WireError`].

pub mod convert;
pub mod pieces;
pub mod token;
pub mod version;

/// Generated from `proto/rdcc/v1/*.proto`; the comments there are the specification.
#[allow(clippy::all, clippy::too_many_lines, missing_docs, rustdoc::all)]
pub mod wire {
    tonic::include_proto!("rdcc.v1");
}

/// Largest message either side takes, bytes. Pieces of content are at most [`PIECE_BYTES_MAX`]; the largest other
/// message is a `define` of some thousand paths, or a manifest.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Largest piece of a blob, output or bundle, bytes: large enough that the per-message cost vanishes, small enough
/// that a slow link shares fairly.
pub const PIECE_BYTES_MAX: usize = 256 << 10;

/// Most inputs that one link numbers. When they have run out, the agent connects anew and numbers from the start.
pub const LINK_ENTRIES_MAX: u32 = 1_000_000;

/// Largest single input, bytes. A job that reads a larger file is not worth moving.
pub const BLOB_BYTES_MAX: u64 = 1 << 30;

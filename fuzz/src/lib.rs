//! What has to hold for any bytes at all that rdcc reads from somebody else, one module for each reader.
//!
//! Each `check` takes bytes and panics when something does not hold. libFuzzer calls them (`make fuzz`), and so does
//! `tests/it/corpus.rs` with the files of `fuzz/corpus/NAME`, which includes this file: it names nothing of libFuzzer.
//! Invariant: a check reads no file, clock or environment, so the same bytes always give the same answer.

pub mod archive;
pub mod argv;
pub mod dependencies;
pub mod exchange;
pub mod join_string;
pub mod manifest;
pub mod protocol;
pub mod reducer;
pub mod response_file;
pub mod scan;
pub mod toolchain_file;

/// A property of any bytes.
pub type Check = fn(&[u8]);

/// Every check under the name of its corpus.
pub const ALL: [(&str, Check); 11] = [
    ("archive", archive::check),
    ("argv", argv::check),
    ("dependencies", dependencies::check),
    ("exchange", exchange::check),
    ("join_string", join_string::check),
    ("manifest", manifest::check),
    ("protocol", protocol::check),
    ("reducer", reducer::check),
    ("response_file", response_file::check),
    ("scan", scan::check),
    ("toolchain_file", toolchain_file::check),
];

//! libFuzzer on [`rdcc_fuzz::protocol`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::protocol::check(bytes));

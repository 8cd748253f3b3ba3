//! libFuzzer on [`rdcc_fuzz::join_string`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::join_string::check(bytes));

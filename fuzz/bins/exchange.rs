//! libFuzzer on [`rdcc_fuzz::exchange`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::exchange::check(bytes));

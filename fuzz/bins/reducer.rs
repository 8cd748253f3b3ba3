//! libFuzzer on [`rdcc_fuzz::reducer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::reducer::check(bytes));

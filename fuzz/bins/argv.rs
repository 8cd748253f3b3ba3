//! libFuzzer on [`rdcc_fuzz::argv`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::argv::check(bytes));

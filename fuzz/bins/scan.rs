//! libFuzzer on [`rdcc_fuzz::scan`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::scan::check(bytes));

//! libFuzzer on [`rdcc_fuzz::manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::manifest::check(bytes));

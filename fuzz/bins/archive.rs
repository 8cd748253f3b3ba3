//! libFuzzer on [`rdcc_fuzz::archive`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::archive::check(bytes));

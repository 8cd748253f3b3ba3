//! libFuzzer on [`rdcc_fuzz::dependencies`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::dependencies::check(bytes));

//! libFuzzer on [`rdcc_fuzz::response_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::response_file::check(bytes));

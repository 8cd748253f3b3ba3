//! libFuzzer on [`rdcc_fuzz::toolchain_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rdcc_fuzz::toolchain_file::check(bytes));

//! The three functions of the C library's libm that the programs use, from a Rust library instead.
//!
//! `rdcc` is started for every compile, and the two shared libraries that it did not need were a twentieth
//! of what it costs (this one and gcc's unwinder; 121 page faults against 113). tokio calls `pow`
//! by this name, so names are what has to be taken; the linker then finds nothing in libm that is wanted.

#![expect(unsafe_code, reason = "these names are the C library's; the functions are the same")]

#[unsafe(no_mangle)]
extern "C" fn exp(x: f64) -> f64 {
    libm::exp(x)
}

#[unsafe(no_mangle)]
extern "C" fn log(x: f64) -> f64 {
    libm::log(x)
}

#[unsafe(no_mangle)]
extern "C" fn pow(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}

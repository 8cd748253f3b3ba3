//! Generates the protocol code from `proto/` without a system `protoc`.

use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "rdcc/v1/coordinator.proto",
        "rdcc/v1/worker.proto",
        "rdcc/v1/trust.proto",
    ];
    println!("cargo::rerun-if-changed=proto");
    // make starts `rdcc` thousands of times: at a fixed address it has nothing to relocate, which was a third of its start.
    // A static one (`make static`) relocates itself: its linker is told `-static-pie`, and both together make no program.
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if !features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bin=rdcc=-no-pie");
        // And unwinding from an archive is a shared library less to load.
        if has_archive("libgcc_eh.a") {
            println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        }
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

/// Tells whether the compiler that links has an archive among its own.
fn has_archive(name: &str) -> bool {
    let linker = std::env::var("RUSTC_LINKER").unwrap_or_else(|_| "cc".to_owned());
    let asked = Command::new(linker).arg(format!("-print-file-name={name}")).output();
    // It prints the bare name of what it does not have.
    asked.is_ok_and(|answer| Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_absolute())
}

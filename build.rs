//! Generates the protocol code from `proto/` without a system `protoc`.

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
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

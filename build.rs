//! Generates the protocol code from `proto/` without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["rdcc/v1/coordinator.proto", "rdcc/v1/worker.proto"];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

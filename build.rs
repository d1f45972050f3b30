//! Compiles `proto/` with a protobuf compiler written in Rust, so that no `protoc` need be
//! installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/filbert.proto");
    let descriptors = protox::compile(["proto/filbert.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

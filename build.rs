//! Makes Rust of `proto/filbert.proto`, from the descriptors that `tests/proto.rs` has made of it: so no build needs a
//! protobuf compiler, installed or compiled.

use prost::Message as _;
use prost_types::FileDescriptorSet;

const DESCRIPTORS: &str = "proto/filbert.binpb";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTORS}");
    let descriptors = FileDescriptorSet::decode(&*std::fs::read(DESCRIPTORS)?)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

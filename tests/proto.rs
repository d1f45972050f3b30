//! `proto/filbert.binpb`, of which `build.rs` makes Rust, says what `proto/filbert.proto` says.

use std::fs;
use std::path::Path;

use prost::Message as _;

/// If not, `FILBERT_WRITE_DESCRIPTORS=1` makes it anew: build again, and commit both.
#[test]
fn the_descriptors_are_those_of_the_source() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let made = protox::compile(["filbert.proto"], [&folder]).expect("filbert.proto is right").encode_to_vec();
    let kept = folder.join("filbert.binpb");
    if fs::read(&kept).ok().as_ref() != Some(&made) {
        if std::env::var_os("FILBERT_WRITE_DESCRIPTORS").is_some() {
            fs::write(&kept, &made).expect("proto can be written");
        }
        panic!(
            "proto/filbert.binpb is not that of proto/filbert.proto: run this test with \
             FILBERT_WRITE_DESCRIPTORS=1, build again, and commit both"
        );
    }
}

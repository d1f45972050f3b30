//! Generated from `proto/filbert.proto`: what nodes say to each other. Nothing speaks it yet;
//! it is here so that the build is whole.

#![expect(missing_docs, reason = "generated; the comments are in the proto file")]

tonic::include_proto!("filbert.v1");

#![expect(missing_docs, clippy::all, reason = "generated; the comments are in the proto file")]

tonic::include_proto!("filbert.v1");

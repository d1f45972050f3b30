//! Reading the body of an answer, up to a bound.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::origin::http::cause::Cause;

/// All of it. Stops at the first byte over `max`, and before the first one where the length is announced. What it
/// returns keeps no buffer of the connection.
///
/// # Errors
///
/// It is larger, or ends before its announced length or its last chunk. Without either, its end is the connection's,
/// and over plain HTTP nobody can tell whether that came too early.
pub async fn read(body: &mut Incoming, max: usize) -> Result<Bytes, Cause> {
    // Zero where the length is not announced.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        return Err(Cause::TooLarge(max));
    }
    let mut all = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        // Trailers say nothing here.
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > max - all.len() {
            return Err(Cause::TooLarge(max));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

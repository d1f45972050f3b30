//! `/api/v1/keys`: some of the keys in this node's memory.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::events::write_uri_encoded;
use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;

/// Keys that are listed unless told otherwise, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

/// Items after which the walk ends: about a tenth of a second.
const EXAMINED_MAX: u64 = 1_000_000;

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    prefix: String,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Listing {
    keys: Vec<Entry>,
    /// Whether there may be more.
    truncated: bool,
    /// Items that were looked at.
    examined: u64,
}

#[derive(Serialize)]
struct Entry {
    /// For people: what is not UTF-8 is replaced.
    key: String,
    /// As it stands in a path.
    path: String,
    size_bytes: usize,
    ttl_seconds: Option<u32>,
    idle_seconds: u32,
    flags: u32,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Listing>, Problem> {
    let Query(Wanted { prefix, limit }) =
        wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit={limit}: needs a number from 1 to {LIMIT_MAX}")));
    }
    if !admin.door.options.dump_allowed {
        return Err(Problem::new(StatusCode::FORBIDDEN, "listing keys is not allowed here (-X)"));
    }
    let store = &admin.door.store;
    let mut listing = Listing { keys: Vec::new(), truncated: false, examined: 0 };
    for shard in 0..store.shard_count() {
        if listing.truncated || listing.examined >= EXAMINED_MAX {
            listing.truncated = true;
            break;
        }
        store.walk(&admin.caller(), shard, |item| {
            listing.examined += 1;
            if !item.key.starts_with(prefix.as_bytes()) {
                return;
            }
            if listing.keys.len() >= limit {
                listing.truncated = true;
                return;
            }
            let mut path = String::new();
            write_uri_encoded(&mut path, item.key);
            listing.keys.push(Entry {
                key: String::from_utf8_lossy(item.key).into_owned(),
                path,
                size_bytes: item.value_len,
                ttl_seconds: item.ttl_seconds,
                idle_seconds: item.idle_seconds,
                flags: item.flags,
            });
        });
        // Other requests have their turn.
        tokio::task::yield_now().await;
    }
    Ok(Json(listing))
}

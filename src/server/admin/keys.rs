//! `/api/v1/keys`: some of the keys in this node's memory.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use crate::events::write_uri_encoded;
use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;

/// How many keys are listed by default, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

/// Items after which the walk ends: about a tenth of a second.
const EXAMINED_MAX: u64 = 1_000_000;

/// The query. A prefix may have any byte.
struct Wanted {
    prefix: Vec<u8>,
    limit: usize,
}

impl Wanted {
    /// Reads `prefix=...&limit=...`, where a plus is a blank, as in forms.
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut wanted = Self { prefix: Vec::new(), limit: LIMIT_DEFAULT };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value: Vec<u8> = percent_decode_str(&value.replace('+', " ")).collect();
            match name {
                "prefix" => wanted.prefix = value,
                "limit" => {
                    let limit = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                    let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    wanted.limit = limit.ok_or_else(|| {
                        let given = value.escape_ascii();
                        Problem::bad_request(format!("limit={given}: needs a number from 1 to {LIMIT_MAX}"))
                    })?;
                }
                _ => return Err(Problem::bad_request(format!("{name}: known are prefix and limit"))),
            }
        }
        Ok(wanted)
    }
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
    RawQuery(query): RawQuery,
) -> Result<Json<Listing>, Problem> {
    let Wanted { prefix, limit } = Wanted::parse(query.as_deref().unwrap_or_default())?;
    if !admin.context.options.dump_allowed {
        return Err(Problem::new(StatusCode::FORBIDDEN, "listing keys is not allowed here (-X)"));
    }
    let store = &admin.context.store;
    let mut listing = Listing { keys: Vec::new(), truncated: false, examined: 0 };
    for part in 0..store.part_count() {
        if listing.truncated || listing.examined >= EXAMINED_MAX {
            listing.truncated = true;
            break;
        }
        store.walk(&admin.caller(), part, |item| {
            listing.examined += 1;
            if !item.key.starts_with(&prefix) {
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
        // Lets other requests run.
        tokio::task::yield_now().await;
    }
    Ok(Json(listing))
}

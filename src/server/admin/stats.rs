//! `/api/v1/stats`: memcached's statistics as JSON, of this node or of every member.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;
use crate::server::statistics;
use crate::stats::histogram::Distribution;
use crate::stats::{Ending, Kind, Route};

/// How long members may take to answer.
const PATIENCE: Duration = Duration::from_millis(1_000);

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    scope: Scope,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    #[default]
    Node,
    Cluster,
}

#[derive(Serialize)]
pub(super) struct Statistics {
    node: String,
    /// When they were taken, by this node's clock.
    time: f64,
    stats: Map<String, Value>,
    durations: Vec<Durations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<MemberStats>>,
}

#[derive(Serialize)]
struct Durations {
    command: &'static str,
    route: &'static str,
    result: &'static str,
    #[serde(flatten)]
    buckets: Buckets,
}

#[derive(Serialize)]
struct MemberStats {
    id: String,
    /// `null` for a member that has not answered.
    stats: Option<Map<String, Value>>,
}

/// A distribution since the start.
#[derive(Serialize)]
pub(super) struct Buckets {
    /// Upper bounds, in seconds.
    bounds: Vec<f64>,
    /// How many fell into each bucket, without those in lower buckets; the last bucket has no bound.
    counts: Vec<u64>,
    sum: f64,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Statistics>, Problem> {
    let Query(Wanted { scope }) = wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let own = values(statistics::general_stats(&admin.context));
    let members = match scope {
        Scope::Node => None,
        Scope::Cluster => Some(admin.members_stats(&own).await),
    };
    let durations = admin.context.registry.durations();
    let kinds = Kind::ALL.iter().zip(&durations);
    let durations = kinds.flat_map(|(kind, by_route)| {
        Route::ALL.iter().zip(by_route).flat_map(|(route, by_ending)| {
            Ending::ALL.iter().zip(by_ending).map(|(ending, distribution)| Durations {
                command: kind.name(),
                route: route.name(),
                result: ending.name(),
                buckets: distribution.into(),
            })
        })
    });
    Ok(Json(Statistics {
        node: admin.name.clone(),
        time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        stats: own,
        durations: durations.collect(),
        members,
    }))
}

impl Admin {
    async fn members_stats(&self, own: &Map<String, Value>) -> Vec<MemberStats> {
        let Some(shared) = self.cluster() else {
            return vec![MemberStats { id: self.name.clone(), stats: Some(own.clone()) }];
        };
        let answers = shared.pings.stats(PATIENCE).await.into_iter();
        answers
            .map(|(id, stats)| MemberStats {
                id,
                stats: stats.map(|stats| values(stats.into_iter().map(|stat| (stat.name, stat.value)))),
            })
            .collect()
    }
}

impl From<&Distribution> for Buckets {
    fn from(distribution: &Distribution) -> Self {
        Self {
            bounds: distribution.scale().shown().collect(),
            counts: distribution.tallies().iter().map(|tally| tally.count).collect(),
            sum: distribution.sum(),
        }
    }
}

/// Numbers as numbers, everything else as text.
fn values(stats: impl IntoIterator<Item = (String, String)>) -> Map<String, Value> {
    let value = |text: String| match (text.parse::<u64>(), text.parse::<f64>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(number)) => Number::from_f64(number).map_or(Value::String(text), Value::Number),
        _ => Value::String(text),
    };
    stats.into_iter().map(|(name, text)| (name, value(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_numbers() {
        let stats =
            [("a", "17"), ("b", "1.500000"), ("c", "1.6.45"), ("d", "18446744073709551615"), ("e", "NaN")];
        let stats = values(stats.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let json = serde_json::to_string(&stats).expect("JSON");
        assert_eq!(json, r#"{"a":17,"b":1.5,"c":"1.6.45","d":18446744073709551615,"e":"NaN"}"#);
    }
}

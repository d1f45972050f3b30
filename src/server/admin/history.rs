//! `/api/v1/history`: the last five minutes, of this node and of all members together, and what
//! happened in them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::unix_seconds;
use crate::server::admin::Admin;
use crate::server::admin::incidents::{self, Look};
use crate::server::admin::problem::Problem;
use crate::server::admin::stats::Scope;
use crate::server::history::{INTERVAL, Reading, SAMPLES_MAX, Sample, Told, together};

/// How long members may take to answer.
const PATIENCE: Duration = Duration::from_millis(1_000);

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    scope: Scope,
    seconds: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Past {
    node: String,
    /// This node's time, in seconds of Unix time.
    time: u64,
    /// This node's, oldest first.
    samples: Vec<Sample>,
    /// Those of all members added up.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Vec<Sample>>,
    /// The members whose samples are missing in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered: Option<Vec<String>>,
    #[serde(flatten)]
    incidents: incidents::Told,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Past>, Problem> {
    let Query(Wanted { scope, seconds }) =
        wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let seconds = seconds.unwrap_or(SAMPLES_MAX as u32).min(SAMPLES_MAX as u32);
    let mut unanswered = Vec::new();
    let cluster = match scope {
        Scope::Node => None,
        Scope::Cluster => Some(admin.all_members(seconds, &mut unanswered).await),
    };
    Ok(Json(Past {
        node: admin.name.clone(),
        time: unix_seconds(),
        samples: admin.context.history.last(seconds as usize),
        unanswered: cluster.is_some().then_some(unanswered),
        cluster,
        incidents: admin.incidents.told(),
    }))
}

impl Admin {
    async fn all_members(&self, seconds: u32, unanswered: &mut Vec<String>) -> Vec<Sample> {
        let Some(shared) = self.cluster() else {
            return together(vec![Told::of(&self.context.history, seconds as usize)], unix_seconds());
        };
        let mut members = Vec::new();
        for (id, told) in shared.pings.history(seconds, PATIENCE).await {
            match told.and_then(|json| serde_json::from_slice(&json).ok()) {
                Some(told) => members.push(told),
                None => unanswered.push(id),
            }
        }
        together(members, unix_seconds())
    }
}

/// Looks at this node once a second, for as long as it is polled.
pub(super) async fn watch(admin: Arc<Admin>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let context = &admin.context;
        let reading = Reading::of(&context.registry, &context.store, &context.connections);
        admin.incidents.look(Look::of(&admin.name, admin.cluster(), &reading));
        context.history.record(reading);
    }
}

//! The options of warm restarts.

use std::time::Duration;

use crate::config::option_specs::{SNAPSHOT, SNAPSHOT_MAX_AGE};
use crate::config::settings::Settings;
use crate::config::{ConfigError, values};
use crate::snapshot;

/// Long enough for an update of the system, and short enough that what the values were made of has hardly changed.
const DEFAULT_MAX_AGE_SECONDS: u32 = 3600;

/// Where items are kept while the node is down, if they are to be.
pub(super) fn options(
    settings: &Settings,
    has_cluster: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<snapshot::Options>, ConfigError> {
    let max_age = settings.value(SNAPSHOT_MAX_AGE, values::number(1..=i32::MAX as u32))?;
    let Some(path) = settings.path(SNAPSHOT)? else {
        if let Some(age) = settings.of(SNAPSHOT_MAX_AGE) {
            warnings.push(format!("{} has no effect without --snapshot", age.said()));
        }
        return Ok(None);
    };
    if let Some(given) = settings.of(SNAPSHOT).filter(|_| has_cluster) {
        let why =
            "is for a node that is alone: in a cluster other nodes change meanwhile what the file holds";
        return Err(given.refuse(why));
    }
    let max_age = Duration::from_secs(max_age.unwrap_or(DEFAULT_MAX_AGE_SECONDS).into());
    Ok(Some(snapshot::Options { path, max_age }))
}

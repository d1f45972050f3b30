//! `/api/v1/drain`: ends this node as TERM does.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;

/// Has the node leave its cluster, hand over what it holds, and end.
pub(super) async fn begin(State(admin): State<Arc<Admin>>) -> Result<StatusCode, Problem> {
    if admin.token.is_none() && !admin.context.options.shutdown_allowed {
        let why = "stopping needs a token (--http-token-file), or -A, which allows it to everybody";
        return Err(Problem::new(StatusCode::FORBIDDEN, why));
    }
    admin.context.leave.cancel();
    Ok(StatusCode::ACCEPTED)
}

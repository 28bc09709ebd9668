//! A new configuration, asked for over HTTP.

use ductile_config::Family;
use ductile_model::format_wire;
use serde_json::json;

use crate::actor::ReloadFailure;
use crate::context::Context;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::state::Api;

/// Who may reload, to be checked before the body is read.
pub(crate) fn admit(api: &Api, context: &Context) -> Result<String, ApiError> {
    Ok(api.require(context, Family::SystemWrite)?.label.clone())
}

/// `POST /system/reload`.
pub(crate) async fn reload(api: &Api, actor: String) -> Result<Reply, ApiError> {
    let report = api.control.reload(actor).await.map_err(|failure| match failure {
        ReloadFailure::Refused { outcome, stage, error } => ApiError::reload_failed(error, &stage, outcome.as_str()),
        ReloadFailure::InProgress => ApiError::reload_in_progress(),
        ReloadFailure::Stopping => ApiError::stopping(),
    })?;
    Reply::ok(&json!({
        "status": "ok",
        "reloaded_at": format_wire(report.reloaded_at),
        "message": "Configuration reloaded successfully.",
        "generation": report.generation,
        "config_snapshot_id": report.snapshot_id,
        "posture": report.posture,
        "duration_ms": report.duration_ms,
        "warnings": report.warnings,
    }))
}

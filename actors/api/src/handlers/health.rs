//! Who we are and how we are: the routes without a credential.

use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::state::Api;

/// `GET /`: what there is to find.
pub(crate) fn root(api: &Api) -> Result<Reply, ApiError> {
    Reply::ok(&json!({
        "name": "Ductile Gateway",
        "description": "Runs plugins from authenticated HTTP requests through a durable queue.",
        "uptime_seconds": uptime_seconds(api),
        "discovery": { "health": "/healthz", "plugins": "/plugins" },
    }))
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    uptime_seconds: i64,
    queue_depth: u64,
    plugins_loaded: usize,
    plugins_circuit_open: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    config_path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    binary_path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    posture: &'static str,
    generation: u64,
}

/// `GET /healthz`: alive, and able to read the database.
pub(crate) async fn health(api: &Api, context: &Context) -> Result<Reply, ApiError> {
    // The proof that the database can be read, at a price that does not grow with the queue: anybody may ask.
    let circuits_open = api.queue.circuits_open().await.map_err(ApiError::unhealthy)?;
    let process = api.control.process();
    let config_path = api.plan.source.config_dir.to_string_lossy();
    // Where files lie is not for strangers.
    let is_trusted = context.is_local() || api.token(context).is_some();
    Reply::ok(&Health {
        status: "ok",
        uptime_seconds: uptime_seconds(api),
        queue_depth: api.queue.depth(),
        plugins_loaded: api.plan.registry.iter().count(),
        plugins_circuit_open: circuits_open,
        config_path: if is_trusted { &config_path } else { "" },
        binary_path: if is_trusted { &process.binary_path } else { "" },
        version: &process.version,
        posture: api.plan.posture.as_str(),
        generation: process.generation,
    })
}

/// `GET /readyz`: whether work is taken.
pub(crate) async fn ready(api: &Api) -> Result<Reply, ApiError> {
    let mut reasons = api.control.process().not_ready;
    if !api.queue.is_writable().await {
        reasons.push("db-unwritable");
    }
    if reasons.is_empty() {
        Reply::ok(&json!({ "ready": true }))
    } else {
        Reply::with_status(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reasons": reasons }))
    }
}

fn uptime_seconds(api: &Api) -> i64 {
    (api.clock.now() - api.control.process().started_at).num_seconds().max(0)
}

//! Starting a pipeline by name.

use std::time::Instant;

use bytes::{Buf, Bytes};
use ductile_config::{ApiToken, ExecutionMode, Pipeline};
use ductile_model::{JobId, JobStatus, Producer, untrusted_json};
use ductile_queue::{Begun, QueueError};
use ductile_router::{BaggageError, CONTEXT_LIMIT, StartError, StartKey, Starter};
use futures_util::Stream;
use serde_json::{Map, Value};

use super::started::{FAILED_TO_ENQUEUE, Mode, Noun, Repeat, Started, accepted, admit, sync_slot, wait};
use crate::body;
use crate::context::Context;
use crate::envelope::{Envelope, Keys};
use crate::error::ApiError;
use crate::query::Query;
use crate::reply::Reply;
use crate::state::Api;

/// What stands for the plugin of a started pipeline in answers and keys.
const PIPELINE: &str = "pipeline";

/// `POST /pipeline/{pipeline}`.
pub(crate) async fn start<S, B, E>(api: &Api, context: &Context, name: &str, stream: S) -> Result<Reply, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let begun = Instant::now();
    let token = api.authenticate(context)?;
    if !token.scopes.allows_some_pipeline() {
        return Err(ApiError::scope(&["pipeline:rw", "plugin:rw", "pipeline:allow:<name>", "*"]));
    }
    let bytes: Bytes = body::read(context, api.plan.config.api.max_body_size, stream).await?;
    let envelope = Envelope::parse(&bytes, Keys::Trigger)?;
    let pipeline = api.plan.pipelines.get(name).ok_or_else(|| ApiError::not_found("pipeline not found"))?;
    let mode = mode(api, context, &envelope, pipeline)?;
    let repeat = Repeat::of(context, &envelope)?;
    if !token.scopes.allows_pipeline(name) {
        let allow = format!("pipeline:allow:{name}");
        return Err(ApiError::scope(&["pipeline:rw", "plugin:rw", &allow, "*"]));
    }
    let entries = api.router.entry_count(name).unwrap_or(0);
    if matches!(mode, Mode::Synchronous { .. }) && entries > 1 {
        return Err(ApiError::sync_fanout());
    }
    admit(api)?;
    // Taken before anything is written, and given back when the answer is sent or the client is gone.
    let slot = match mode {
        Mode::Asynchronous => None,
        Mode::Synchronous { limit } => Some((limit, sync_slot(api)?)),
    };
    let started = enqueue(api, name, envelope.payload, &repeat, token).await?;
    match slot {
        None => accepted(&started, PIPELINE, name),
        Some((limit, _slot)) => wait(api, &started, limit, begun).await,
    }
}

/// What the caller asks for, else what the pipeline says.
fn mode(api: &Api, context: &Context, envelope: &Envelope<'_>, pipeline: &Pipeline) -> Result<Mode, ApiError> {
    let longest = api.plan.config.api.max_sync_timeout;
    let query = Query::parse(context.query());
    let own = envelope.timeout.unwrap_or(pipeline.timeout).min(longest);
    match Mode::of(envelope, &query, longest)? {
        Mode::Synchronous { .. } => Ok(Mode::Synchronous { limit: own }),
        Mode::Asynchronous => {
            let is_asked = envelope.asynchronous | query.flag("async")?;
            let waits = pipeline.mode == ExecutionMode::Synchronous && !is_asked;
            Ok(if waits { Mode::Synchronous { limit: own } } else { Mode::Asynchronous })
        }
    }
}

async fn enqueue(
    api: &Api,
    name: &str,
    payload: Option<&str>,
    repeat: &Repeat,
    token: &ApiToken,
) -> Result<Started, ApiError> {
    let fields = match payload {
        Some(text) => untrusted_json::object(text).map_err(|_| ApiError::invalid_payload())?,
        None => Map::new(),
    };
    let key = match repeat {
        Repeat::Free => StartKey::None,
        Repeat::Deduplicated(key) => StartKey::Event(key.clone()),
        Repeat::Idempotent(_) => match repeat.dedupe_key(token, PIPELINE, name) {
            Some(key) => StartKey::Request(key),
            None => StartKey::None,
        },
    };
    let starter = Starter { submitted_by: Producer::Api, source: "api", key };
    let start = api.router.start(name, fields.clone(), &starter, api.clock.now()).map_err(refusal)?;
    let failed = |error: QueueError| ApiError::queue(FAILED_TO_ENQUEUE, error);
    let (jobs, is_replay) = match api.queue.start(start).await.map_err(failed)? {
        Begun::Queued(jobs) => (jobs.into_iter().map(|id| (id, JobStatus::Queued)).collect(), false),
        Begun::Duplicate(earlier) => (earlier, true),
    };
    let others = if jobs.len() > 1 { jobs.iter().map(|(id, _)| id.clone()).collect() } else { Vec::new() };
    let Some((id, status)) = jobs.into_iter().next() else { return Err(ApiError::internal(FAILED_TO_ENQUEUE)) };
    if is_replay && matches!(repeat, Repeat::Idempotent(_)) {
        compare(api, &id, &fields).await?;
    }
    Ok(Started { id, status, is_replay, others, noun: Noun::Pipeline })
}

/// The same key must come with the same payload. One that is no longer stored can not be told from this one.
async fn compare(api: &Api, existing: &JobId, fields: &Map<String, Value>) -> Result<(), ApiError> {
    let earlier = api.queue.job(existing).await.map_err(|error| ApiError::queue(FAILED_TO_ENQUEUE, error))?;
    let Some(stored) = earlier.and_then(|job| job.payload) else { return Ok(()) };
    let stored = untrusted_json::value(&stored).unwrap_or_default();
    // A step that takes an event has it stored as a whole; others have its payload.
    let is_event = stored.get("event_id").is_some() && stored.get("type").is_some();
    let payload = if is_event { stored.get("payload").unwrap_or(&Value::Null) } else { &stored };
    let is_same = payload.as_object().is_some_and(|payload| payload == fields);
    if is_same { Ok(()) } else { Err(ApiError::idempotency_conflict(existing.as_str())) }
}

fn refusal(error: StartError) -> ApiError {
    match error {
        StartError::Unknown => ApiError::not_found("pipeline not found"),
        StartError::Baggage(BaggageError::TooLarge { bytes }) => ApiError::baggage_too_large(bytes, CONTEXT_LIMIT),
        StartError::Baggage(error) => ApiError::baggage_claims(error.to_string()),
    }
}

//! The data of the events that the queue publishes after a commit.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_model::{FailureReason, JobId, JobStatus, Producer, format_wire};
use ductile_timetable::Entry;
use serde_json::{Map, Value};

use crate::breaker::Target;
use crate::breaker_rows::BreakerState;
use crate::rows::JobRow;
use crate::{NewContext, NewJob};

type Data = Map<String, Value>;

fn data<const N: usize>(entries: [(&str, Value); N]) -> Data {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn millis(duration: Duration) -> Value {
    Value::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// `job.enqueued`, for the producers that it is published for.
pub(crate) fn enqueued(id: &JobId, job: &NewJob, submitted_by: &str) -> Option<Data> {
    let told = match job.submitted_by {
        Producer::Api | Producer::Mcp | Producer::Cli => job.direct,
        Producer::Webhook(_) | Producer::Relay(_) | Producer::Hook | Producer::Core => true,
        // Their own events tell of these.
        Producer::Scheduler(_) | Producer::Route => false,
    };
    told.then(|| {
        data([
            ("job_id", id.as_str().into()),
            ("plugin", job.plugin.as_str().into()),
            ("command", job.command.as_str().into()),
            ("submitted_by", submitted_by.into()),
            ("direct", job.direct.into()),
        ])
    })
}

/// `job.enqueued` of a job that a caller of the API asked for.
pub(crate) fn enqueued_by_api(id: &JobId, plugin: &str, command: &str) -> Data {
    data([
        ("job_id", id.as_str().into()),
        ("plugin", plugin.into()),
        ("command", command.into()),
        ("submitted_by", Producer::Api.to_string().into()),
        ("direct", true.into()),
    ])
}

/// `pipeline.enqueued`.
pub(crate) fn pipeline_enqueued(jobs: &[JobId], pipeline: &str, submitted_by: &Producer) -> Data {
    data([
        ("job_id", jobs.first().map_or("", |id| id.as_str()).into()),
        ("job_ids", jobs.iter().map(|id| Value::from(id.as_str())).collect()),
        ("job_count", jobs.len().into()),
        ("pipeline", pipeline.into()),
        ("submitted_by", submitted_by.to_string().into()),
    ])
}

/// `router.enqueued`.
pub(crate) fn router_enqueued(id: &JobId, job: &NewJob, context: &NewContext) -> Data {
    let mut data = data([("job_id", id.as_str().into())]);
    data.extend(routed(job, context));
    data.insert("event_context_id".to_owned(), context.id.as_str().into());
    data
}

/// `router.deduplicated`.
pub(crate) fn router_deduplicated(existing: &JobId, job: &NewJob, context: &NewContext) -> Data {
    let mut data = routed(job, context);
    data.insert("existing_job_id".to_owned(), existing.as_str().into());
    data
}

fn routed(job: &NewJob, context: &NewContext) -> Data {
    data([
        ("parent_job_id", job.parent_job_id.as_ref().map_or("", |id| id.as_str()).into()),
        ("plugin", job.plugin.as_str().into()),
        ("command", job.command.as_str().into()),
        ("pipeline", context.pipeline.as_str().into()),
        ("step_id", context.step_id.as_str().into()),
    ])
}

pub(crate) fn skipped(job: &JobRow, reason: &str) -> Data {
    data([
        ("job_id", job.id.as_str().into()),
        ("plugin", (*job.plugin).into()),
        ("command", job.command.as_str().into()),
        ("reason", reason.into()),
    ])
}

pub(crate) fn completed(job: &JobRow, duration: Duration) -> Data {
    data([
        ("job_id", job.id.as_str().into()),
        ("plugin", (*job.plugin).into()),
        ("command", job.command.as_str().into()),
        ("status", JobStatus::Succeeded.as_str().into()),
        ("duration_ms", millis(duration)),
    ])
}

/// Marks of a `job.failed` that is no verdict of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailedMark {
    None,
    Recovery,
    Cancelled,
}

/// `job.failed` or `job.timed_out`, by the status.
pub(crate) fn ended_badly(
    job: &JobRow,
    status: JobStatus,
    error: &str,
    duration: Duration,
    mark: FailedMark,
) -> (&'static str, Data) {
    let (kind, message) = if status == JobStatus::TimedOut {
        ("job.timed_out", format!("Job timed out [{}]", job.plugin))
    } else {
        ("job.failed", format!("Job failed [{}]: {error}", job.plugin))
    };
    let mut data = data([
        ("job_id", job.id.as_str().into()),
        ("plugin", (*job.plugin).into()),
        ("command", job.command.as_str().into()),
        ("status", status.as_str().into()),
        ("duration_ms", millis(duration)),
        ("error", error.into()),
        ("message", message.as_str().into()),
        ("text", message.as_str().into()),
    ]);
    match mark {
        FailedMark::None => {}
        FailedMark::Recovery => drop(data.insert("recovery".to_owned(), true.into())),
        FailedMark::Cancelled => drop(data.insert("cancelled".to_owned(), true.into())),
    }
    (kind, data)
}

/// `plugin.init_failed`, for the gateway's own `init` jobs.
pub(crate) fn init_failed(job: &JobRow, error: &str) -> Option<Data> {
    let ours = job.command == "init" && job.submitted_by == Producer::Core.to_string();
    ours.then(|| data([("plugin", (*job.plugin).into()), ("job_id", job.id.as_str().into()), ("error", error.into())]))
}

pub(crate) fn retry_scheduled(
    job: &JobRow,
    reason: FailureReason,
    delay: Duration,
    next_retry_at: DateTime<Utc>,
) -> Data {
    let mut data = data([
        ("job_id", job.id.as_str().into()),
        ("plugin", (*job.plugin).into()),
        ("command", job.command.as_str().into()),
        ("attempt", job.attempt.into()),
        ("max_attempts", job.max_attempts.into()),
        ("retry_count", job.attempt.into()),
        ("max_retries", job.max_attempts.into()),
    ]);
    add_policy(&mut data);
    data.insert("backoff_ms".to_owned(), millis(delay));
    data.insert("backoff_schedule".to_owned(), Value::Array(vec![millis(delay)]));
    data.insert("next_retry_at".to_owned(), format_wire(next_retry_at).into());
    data.insert("reason".to_owned(), reason.as_str().into());
    data
}

pub(crate) fn retry_exhausted(job: &JobRow, reason: FailureReason, exhausted: bool, error: &str) -> Data {
    let mut data =
        data([("job_id", job.id.as_str().into()), ("attempts", job.attempt.into()), ("final_error", error.into())]);
    if exhausted {
        data.insert("reason".to_owned(), "attempts_exhausted".into());
        data.insert("retry_decision_reason".to_owned(), reason.as_str().into());
    } else {
        data.insert("reason".to_owned(), reason.as_str().into());
    }
    add_policy(&mut data);
    data
}

fn add_policy(data: &mut Data) {
    data.insert("retry_policy_owner".to_owned(), "core".into());
    data.insert("plugin_retry_field".to_owned(), "v2_boundary_compatibility_signal".into());
}

/// `poll.completed`, for a poll that the scheduler asked for.
pub(crate) fn poll_completed(job: &JobRow, status: JobStatus, duration: Duration, error: Option<&str>) -> Data {
    let mut data = data([
        ("job_id", job.id.as_str().into()),
        ("plugin", (*job.plugin).into()),
        ("command", job.command.as_str().into()),
        ("schedule_id", job.schedule_id().unwrap_or_default().into()),
        ("submitted_by", job.submitted_by.as_str().into()),
        ("attempt", job.attempt.into()),
        ("status", status.as_str().into()),
        ("outcome", status.as_str().into()),
        ("duration_ms", millis(duration)),
    ]);
    if let Some(error) = error {
        data.insert("error".to_owned(), error.into());
    }
    data
}

/// `scheduler.circuit_state_changed`.
pub(crate) fn circuit_changed(target: &Target<'_>, from: BreakerState, to: BreakerState, failures: u32) -> Data {
    data([
        ("plugin", target.plugin.into()),
        ("command", target.command.into()),
        ("previous_state", from.as_str().into()),
        ("state", to.as_str().into()),
        ("failure_count", failures.into()),
    ])
}

/// `scheduler.circuit_half_open`.
pub(crate) fn circuit_half_open(target: &Target<'_>) -> Data {
    data([("plugin", target.plugin.into()), ("command", target.command.into())])
}

/// `scheduler.scheduled`.
pub(crate) fn scheduled(id: &JobId, entry: &Entry, submitted_by: &str, schedule_id: &str) -> Data {
    data([
        ("job_id", id.as_str().into()),
        ("plugin", entry.plugin.as_str().into()),
        ("command", entry.command.as_str().into()),
        ("schedule_id", schedule_id.into()),
        ("submitted_by", submitted_by.into()),
    ])
}

/// The same for a run that is made up for.
pub(crate) fn caught_up(id: &JobId, entry: &Entry, submitted_by: &str, schedule_id: &str) -> Data {
    let mut data = scheduled(id, entry, submitted_by, schedule_id);
    data.insert("source_schedule_id".to_owned(), entry.id.as_str().into());
    data
}

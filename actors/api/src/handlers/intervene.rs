//! Changing what becomes of jobs: cancelling them, and queueing failed ones again.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_config::Family;
use ductile_model::{JobId, JobStatus, format_wire, parse_duration};
use ductile_queue::{
    Attempts, CancelTarget, Cancelled, Retried, RetryFilter, RetryReport, RetryRequest, RetryScope, RetrySelection,
    RetrySkip,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::ApiError;
use crate::query::Query;
use crate::reply::Reply;
use crate::state::Api;

/// Characters of a reason that are stored.
const LONGEST_REASON: usize = 500;
/// Jobs of one request that are queued again, unless it says otherwise, and at most.
const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 10_000;
/// How many of them come due within a second, unless the request says otherwise, and at most.
const DEFAULT_RATE: u32 = 10;
const MAX_RATE: u32 = 1000;

const FAILED_TO_CANCEL: &str = "failed to cancel the job";
const FAILED_TO_RETRY: &str = "failed to queue the job again";

/// Who may intervene, to be checked before the body is read.
pub(crate) fn admit(api: &Api, context: &Context) -> Result<(), ApiError> {
    api.require(context, Family::JobWrite).map(drop)
}

#[derive(Debug, Default, Deserialize)]
struct CancelBody {
    reason: Option<String>,
}

/// `POST /job/{id}/cancel`.
pub(crate) async fn cancel(api: &Api, context: &Context, id: &str, body: &[u8]) -> Result<Reply, ApiError> {
    let body: CancelBody = optional(body)?;
    let is_tree = Query::parse(context.query()).flag("tree")?;
    let text = match body.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()) {
        Some(reason) => {
            format!("cancelled by api: {}", reason.chars().take(LONGEST_REASON).collect::<String>())
        }
        None => "cancelled by api".to_owned(),
    };
    let job = JobId::from(id);
    let target = if is_tree { CancelTarget::Tree(job.clone()) } else { CancelTarget::Job(job.clone()) };
    let cancelled = api.queue.store().cancel(target, text).await;
    match cancelled.map_err(|error| ApiError::queue(FAILED_TO_CANCEL, error))? {
        Cancelled::Done { queued, running } => {
            let is_over = running.is_empty();
            let status = if is_over { StatusCode::OK } else { StatusCode::ACCEPTED };
            if !queued.contains(&job) && !running.contains(&job) {
                return Reply::with_status(status, &below(api, &job, &[queued, running].concat()).await);
            }
            let word = if is_over { JobStatus::Dead.as_str() } else { "cancelling" };
            Reply::with_status(status, &json!({"job_id": id, "status": word}))
        }
        Cancelled::NotActive(status) => Err(ApiError::not_active(status)),
        Cancelled::Unknown => Err(ApiError::not_found("job not found")),
    }
}

/// Of a tree whose root was over before. That its state can not be read now does not undo what was cancelled.
async fn below(api: &Api, root: &JobId, cancelled: &[JobId]) -> Value {
    let root_job = api.queue.job(root).await.ok().flatten();
    json!({"job_id": root, "status": root_job.map(|job| job.status.as_str()), "cancelled": cancelled})
}

/// `POST /job/{id}/retry`.
pub(crate) async fn retry(api: &Api, context: &Context, id: &str) -> Result<Reply, ApiError> {
    let force = Query::parse(context.query()).flag("force")?;
    super::started::admit(api)?;
    let request = RetryRequest {
        selection: RetrySelection::Jobs(vec![JobId::from(id)]),
        scope: if force { RetryScope::Any } else { RetryScope::Failed },
        per_second: DEFAULT_RATE,
        limit: 1,
        attempts: attempts(api),
    };
    let mut report = api.queue.store().retry(request).await.map_err(|error| ApiError::queue(FAILED_TO_RETRY, error))?;
    match (report.retried.pop(), report.skipped.pop()) {
        (Some(Retried { job: Some(job), plugin, command, .. }), _) => Reply::with_status(
            StatusCode::ACCEPTED,
            &json!({
                "job_id": job, "status": JobStatus::Queued.as_str(), "plugin": plugin, "command": command,
                "retry_of": id,
            }),
        ),
        (_, Some((_, RetrySkip::NotFound))) => Err(ApiError::not_found("job not found")),
        (_, Some((_, RetrySkip::PayloadGone))) => Err(ApiError::payload_gone()),
        (_, Some((_, why))) => Err(ApiError::not_retryable(&why)),
        _ => Err(ApiError::internal(FAILED_TO_RETRY)),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BulkBody {
    job_ids: Option<Vec<String>>,
    filter: Option<Filter>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
    rate: Option<u32>,
    limit: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    plugin: Option<String>,
    command: Option<String>,
    status: Option<Vec<String>>,
    since: Option<String>,
    pipeline: Option<String>,
}

/// `POST /jobs/retry`.
pub(crate) async fn retry_many(api: &Api, body: &[u8]) -> Result<Reply, ApiError> {
    let body: BulkBody = optional(body)?;
    let now = api.clock.now();
    let (per_second, limit) = (rate(body.rate)?, most(body.limit)?);
    let request = RetryRequest {
        selection: selection(body.job_ids, body.filter, now)?,
        scope: if body.force { RetryScope::Any } else { RetryScope::Unresolved },
        per_second,
        limit: limit.min(room(api)?),
        attempts: attempts(api),
    };
    let store = api.queue.store();
    let report = if body.dry_run { store.plan_retry(request, now).await } else { store.retry(request).await };
    let report = report.map_err(|error| ApiError::queue(FAILED_TO_RETRY, error))?;
    let status = if body.dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
    Reply::with_status(status, &document(&report, body.dry_run, per_second))
}

fn document(report: &RetryReport, dry_run: bool, rate: u32) -> Value {
    json!({
        "dry_run": dry_run,
        "retried": report.retried.iter().map(retried).collect::<Vec<_>>(),
        "skipped": report.skipped.iter().map(|(job, why)| skipped(job, why)).collect::<Vec<_>>(),
        "more": report.more,
        "rate": rate,
    })
}

fn retried(row: &Retried) -> Value {
    let mut entry = Map::new();
    if let Some(job) = &row.job {
        entry.insert("job_id".to_owned(), json!(job));
    }
    entry.insert("retry_of".to_owned(), json!(row.original));
    entry.insert("plugin".to_owned(), json!(row.plugin));
    entry.insert("command".to_owned(), json!(row.command));
    entry.insert("due_at".to_owned(), format_wire(row.due_at).into());
    Value::Object(entry)
}

fn skipped(job: &JobId, why: &RetrySkip) -> Value {
    json!({"job_id": job, "reason": why.as_str(), "message": why.to_string()})
}

/// A body that may be empty.
fn optional<'a, T: Default + Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::parameter("body", format!("body: {error}")),
        _ => ApiError::invalid_json(),
    })
}

fn selection(ids: Option<Vec<String>>, filter: Option<Filter>, now: DateTime<Utc>) -> Result<RetrySelection, ApiError> {
    match (ids, filter) {
        (Some(ids), None) if !ids.is_empty() => Ok(RetrySelection::Jobs(ids.into_iter().map(JobId::from).collect())),
        (None, Some(filter)) => self::filter(filter, now).map(RetrySelection::Matching),
        _ => Err(ApiError::parameter("job_ids", "say which jobs: job_ids or filter, one of them and not empty")),
    }
}

fn filter(filter: Filter, now: DateTime<Utc>) -> Result<RetryFilter, ApiError> {
    let Filter { plugin, command, status, since, pipeline } = filter;
    if plugin.is_none() && command.is_none() && status.is_none() && since.is_none() && pipeline.is_none() {
        return Err(ApiError::parameter("filter", "filter must name plugin, command, status, since or pipeline"));
    }
    let statuses = status.unwrap_or_default().iter().map(|word| terminal(word)).collect::<Result<_, _>>()?;
    let since = since.map(|text| instant(&text, now)).transpose()?;
    Ok(RetryFilter { plugin, command, statuses, since, pipeline })
}

fn terminal(word: &str) -> Result<JobStatus, ApiError> {
    JobStatus::parse_filter(word)
        .filter(|status| status.is_terminal())
        .ok_or_else(|| ApiError::parameter("status", "invalid status filter"))
}

/// A time, or how long ago.
fn instant(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, ApiError> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let ago = parse_duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    let since = ago.and_then(|ago| now.checked_sub_signed(ago));
    since.ok_or_else(|| ApiError::parameter("since", "since must be a duration such as 6h, or an RFC 3339 time"))
}

fn rate(asked: Option<u32>) -> Result<u32, ApiError> {
    let rate = asked.unwrap_or(DEFAULT_RATE);
    if (1..=MAX_RATE).contains(&rate) { Ok(rate) } else { Err(ApiError::parameter("rate", "rate must be 1 to 1000")) }
}

fn most(asked: Option<u32>) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(ApiError::parameter("limit", "limit must be 1 to 10000"))
    }
}

/// Jobs that the queue still takes.
fn room(api: &Api) -> Result<u32, ApiError> {
    super::started::admit(api)?;
    let most = api.plan.config.api.max_queue_depth;
    if most == 0 {
        return Ok(MAX_LIMIT);
    }
    Ok(u32::try_from(most.saturating_sub(api.queue.depth())).unwrap_or(MAX_LIMIT))
}

/// What the configuration gives a job, if it can run.
fn attempts(api: &Api) -> Attempts {
    let plan = api.plan.clone();
    Arc::new(move |plugin, command| {
        if plugin.starts_with("core.") {
            return Some(4);
        }
        let (_, config, _) = plan.runnable(plugin, command).ok()?;
        Some(if matches!(command, "init" | "health") { 1 } else { config.retry.max_attempts })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-01-02T12:00:00Z").unwrap().to_utc()
    }

    fn read(body: &str) -> Result<RetrySelection, String> {
        let body: BulkBody = optional(body.as_bytes()).map_err(|error| error.message.into_owned())?;
        selection(body.job_ids, body.filter, now()).map_err(|error| error.message.into_owned())
    }

    #[test]
    fn jobs_are_named_or_filtered_and_never_all_by_accident() {
        assert_eq!(read(r#"{"job_ids":["a","b"]}"#), Ok(RetrySelection::Jobs(vec!["a".into(), "b".into()])));
        let Ok(RetrySelection::Matching(filter)) =
            read(r#"{"filter":{"plugin":"p","status":["TIMED_OUT","error"],"since":"6h"}}"#)
        else {
            panic!("a filter");
        };
        assert_eq!(filter.plugin.as_deref(), Some("p"));
        assert_eq!(filter.statuses, [JobStatus::TimedOut, JobStatus::Failed]);
        assert_eq!(filter.since.unwrap().to_rfc3339(), "2026-01-02T06:00:00+00:00");
        for wrong in [
            "",
            "{}",
            r#"{"job_ids":[]}"#,
            r#"{"filter":{}}"#,
            r#"{"job_ids":["a"],"filter":{"plugin":"p"}}"#,
            r#"{"filter":{"plugins":"p"}}"#,
            r#"{"filter":{"status":["queued"]}}"#,
            r#"{"filter":{"since":"yesterday"}}"#,
            r#"{"filter":"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_and_limits_have_a_range() {
        assert_eq!((rate(None).unwrap(), most(None).unwrap()), (10, 1000));
        assert!(rate(Some(0)).is_err() && rate(Some(1001)).is_err() && most(Some(0)).is_err());
        assert_eq!((rate(Some(1000)).unwrap(), most(Some(10_000)).unwrap()), (1000, 10_000));
        assert!(most(Some(10_001)).is_err());
    }
}

//! Enqueue: checks before the writer, dedupe and insert inside its transaction.

use std::time::Duration;

use ductile_model::{JobId, JobStatus, format_db, format_duration};
use rusqlite::{OptionalExtension, params};
use tracing::info;

use crate::breaker::{self, Target};
use crate::rows::{insert_transition, nanos, required_text};
use crate::scope::{Change, Scope};
use crate::{DuplicateReason, Enqueued, NewJob, QueueError};

/// Attempts of a job whose producer names none.
const DEFAULT_MAX_ATTEMPTS: u32 = 4;

/// A job that passed all checks that need no database.
#[derive(Debug)]
pub(crate) struct CheckedJob {
    job: NewJob,
    submitted_by: String,
    dedupe_key: Option<String>,
    max_attempts: u32,
}

impl CheckedJob {
    /// Refuses what can not be a job, and settles what follows from the request alone.
    pub(crate) fn new(job: NewJob) -> Result<Self, QueueError> {
        let submitted_by = job.submitted_by.to_string();
        for (field, value) in [("plugin", &job.plugin), ("command", &job.command), ("submitted_by", &submitted_by)] {
            if value.trim().is_empty() {
                return Err(QueueError::Invalid { field, message: "must not be empty".to_owned() });
            }
        }
        if let Some(payload) = &job.payload {
            serde_json::from_str::<serde::de::IgnoredAny>(payload).map_err(|error| QueueError::Invalid {
                field: "payload",
                message: format!("is not valid JSON: {error}"),
            })?;
        }
        let dedupe_key = job.dedupe_key.as_deref().map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned);
        let max_attempts = match (job.command.as_str(), job.max_attempts) {
            ("init" | "health", _) => 1,
            (_, 0) => DEFAULT_MAX_ATTEMPTS,
            (_, attempts) => attempts,
        };
        Ok(Self { job, submitted_by, dedupe_key, max_attempts })
    }
}

/// Dedupe checks, the row and its first transition.
pub(crate) fn enqueue(scope: &Scope<'_>, checked: &CheckedJob) -> Result<Enqueued, QueueError> {
    enqueue_with(scope, checked, |_| Ok(()))
}

/// The same with what belongs to the job: written before it, and not at all for a duplicate.
pub(crate) fn enqueue_with(
    scope: &Scope<'_>,
    checked: &CheckedJob,
    belongings: impl FnOnce(&Scope<'_>) -> rusqlite::Result<()>,
) -> Result<Enqueued, QueueError> {
    if let Some(duplicate) = duplicate_of(scope, checked)? {
        return Ok(duplicate);
    }
    belongings(scope)?;
    let id = insert(scope, checked)?;
    if let Some(data) = crate::events::enqueued(&id, &checked.job, &checked.submitted_by) {
        scope.publish("job.enqueued", data);
    }
    Ok(Enqueued::Queued(id))
}

/// The same for a job of the scheduler. `None`: the breaker of its command does not let it through.
pub(crate) fn enqueue_scheduled(scope: &Scope<'_>, checked: &CheckedJob) -> Result<Option<Enqueued>, QueueError> {
    let target = Target { plugin: &checked.job.plugin, command: &checked.job.command };
    if breaker::admits(scope, &target)? { enqueue(scope, checked).map(Some) } else { Ok(None) }
}

fn insert(scope: &Scope<'_>, checked: &CheckedJob) -> rusqlite::Result<JobId> {
    let id = JobId::generate();
    let job = &checked.job;
    scope
        .connection()
        .prepare_cached(
            "INSERT INTO job_queue
                 (id, plugin, command, payload, status, attempt, max_attempts, submitted_by, dedupe_key, created_at,
                  parent_job_id, source_event_id, event_context_id, enqueued_config_snapshot_id)
             VALUES (?1, ?2, ?3, ?4, 'queued', 1, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            id.as_str(),
            job.plugin,
            job.command,
            job.payload,
            checked.max_attempts,
            checked.submitted_by,
            checked.dedupe_key,
            scope.now_text(),
            job.parent_job_id.as_ref().map(JobId::as_str),
            job.source_event_id,
            job.event_context_id,
            scope.snapshot().map(|id| id.as_str()),
        ])?;
    let rowid = scope.connection().last_insert_rowid();
    insert_transition(scope, &id, None, JobStatus::Queued, None)?;
    let created = scope.now().timestamp_nanos_opt().unwrap_or_else(|| nanos(scope.now_text()));
    scope.changed(Change::Queued { rowid, plugin: job.plugin.as_str().into(), created, not_before: None });
    Ok(id)
}

fn duplicate_of(scope: &Scope<'_>, checked: &CheckedJob) -> Result<Option<Enqueued>, QueueError> {
    if let Some((existing, status)) = redelivered(scope, checked)? {
        info!(
            plugin = checked.job.plugin,
            command = checked.job.command,
            source_event_id = checked.job.source_event_id,
            existing_job_id = existing.as_str(),
            "source-event conflict: the event has made this job before"
        );
        return Ok(Some(Enqueued::Duplicate { existing, status, reason: DuplicateReason::SourceEvent }));
    }
    let Some(key) = &checked.dedupe_key else { return Ok(None) };
    let window = checked.job.dedupe_ttl.unwrap_or_else(|| scope.policy().dedupe_ttl);
    let hit = match outstanding(scope, checked, key)? {
        Some((existing, status)) => Some((existing, status, DuplicateReason::Outstanding, "outstanding")),
        None => recent_success(scope, checked, key, window)?
            .map(|existing| (existing, JobStatus::Succeeded, DuplicateReason::RecentSuccess, "recent_success")),
    };
    Ok(hit.map(|(existing, status, reason, word)| {
        info!(
            dedupe_key = key,
            existing_job_id = existing.as_str(),
            reason = word,
            dedupe_ttl = format_duration(window),
            plugin = checked.job.plugin,
            command = checked.job.command,
            "job deduplicated"
        );
        Enqueued::Duplicate { existing, status, reason }
    }))
}

/// The job that the same event already made for the same target.
fn redelivered(scope: &Scope<'_>, checked: &CheckedJob) -> rusqlite::Result<Option<(JobId, JobStatus)>> {
    let (Some(parent), Some(event)) = (&checked.job.parent_job_id, &checked.job.source_event_id) else {
        return Ok(None);
    };
    scope
        .connection()
        .prepare_cached(
            "SELECT id, status FROM job_queue
             WHERE parent_job_id = ?1 AND source_event_id = ?2 AND plugin = ?3 AND command = ?4",
        )?
        .query_row(params![parent.as_str(), event, checked.job.plugin, checked.job.command], |row| {
            Ok((JobId::from(required_text(row, 0)?), status_of(&required_text(row, 1)?)))
        })
        .optional()
}

fn status_of(word: &str) -> JobStatus {
    JobStatus::parse(word).unwrap_or(JobStatus::Dead)
}

/// The event that makes a job, as it stands in the rows of all jobs that it makes: they carry its id as the first part
/// of theirs. Those are no duplicates of each other. An event from outside has no parent; of its jobs only those that are
/// made together are meant.
struct MadeBy<'a> {
    parent: Option<&'a str>,
    event: Option<&'a str>,
}

impl<'a> MadeBy<'a> {
    fn of(job: &'a NewJob) -> Self {
        let parent = job.parent_job_id.as_ref().map(JobId::as_str);
        let event = job.source_event_id.as_deref().map(|event| event.split('/').next().unwrap_or(event));
        Self { parent, event }
    }
}

/// A macro, so that statements are made of it when this is compiled. The index is named because the planner would rather
/// look at every job of the target.
macro_rules! earlier_job {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM job_queue INDEXED BY job_queue_dedupe_status_completed_idx
             WHERE dedupe_key = ?1 AND plugin = ?2 AND command = ?3
               AND NOT (?5 IS NOT NULL AND parent_job_id IS ?4 AND (?4 IS NOT NULL OR rowid > ?6)
                        AND source_event_id IS NOT NULL
                        AND (source_event_id = ?5 OR substr(source_event_id, 1, length(?5) + 1) = ?5 || '/'))"
        )
    };
}

fn outstanding(scope: &Scope<'_>, checked: &CheckedJob, key: &str) -> rusqlite::Result<Option<(JobId, JobStatus)>> {
    let made_by = MadeBy::of(&checked.job);
    scope
        .connection()
        .prepare_cached(concat!(
            earlier_job!("id, status"),
            " AND status IN ('queued', 'running') ORDER BY created_at LIMIT 1"
        ))?
        .query_row(
            params![key, checked.job.plugin, checked.job.command, made_by.parent, made_by.event, scope.made_after()],
            |row| Ok((JobId::from(required_text(row, 0)?), status_of(&required_text(row, 1)?))),
        )
        .optional()
}

fn recent_success(
    scope: &Scope<'_>,
    checked: &CheckedJob,
    key: &str,
    window: Duration,
) -> rusqlite::Result<Option<JobId>> {
    if window.is_zero() {
        return Ok(None);
    }
    // A window that reaches back before all time takes in every success.
    let since = chrono::TimeDelta::from_std(window)
        .ok()
        .and_then(|window| scope.now().checked_sub_signed(window))
        .map_or_else(String::new, format_db);
    let made_by = MadeBy::of(&checked.job);
    scope
        .connection()
        .prepare_cached(concat!(
            earlier_job!("id"),
            " AND status = 'succeeded' AND replace(completed_at, 'T', ' ') >= ?7 ORDER BY completed_at DESC LIMIT 1"
        ))?
        .query_row(
            params![
                key,
                checked.job.plugin,
                checked.job.command,
                made_by.parent,
                made_by.event,
                scope.now_text(),
                since
            ],
            |row| Ok(JobId::from(required_text(row, 0)?)),
        )
        .optional()
}

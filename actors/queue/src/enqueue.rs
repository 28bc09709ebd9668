//! Enqueue: checks before the writer, dedupe and insert inside its transaction.

use std::time::Duration;

use ductile_model::{JobId, JobStatus, format_db, format_duration};
use rusqlite::{OptionalExtension, Row, Rows, params};
use tracing::info;

use crate::rows::{insert_transition, nanos, required_text, text};
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

    /// The job as it was asked for.
    pub(crate) fn job(&self) -> &NewJob {
        &self.job
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
    Ok(Enqueued::Queued(insert_new(scope, checked)?))
}

/// The row of a job that is no duplicate, and the word of it.
pub(crate) fn insert_new(scope: &Scope<'_>, checked: &CheckedJob) -> rusqlite::Result<JobId> {
    let id = insert(scope, checked)?;
    if let Some(data) = crate::events::enqueued(&id, &checked.job, &checked.submitted_by) {
        scope.publish("job.enqueued", data);
    }
    Ok(id)
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

/// The earlier job that stands for this one, if there is one.
pub(crate) fn duplicate_of(scope: &Scope<'_>, checked: &CheckedJob) -> Result<Option<Enqueued>, QueueError> {
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
            .map(|(existing, status)| (existing, status, DuplicateReason::RecentSuccess, "recent_success")),
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

/// Where a job of the same identity was found.
type Earlier = (JobId, JobStatus);

/// A macro, so that statements are made of it when this is compiled. The index is named because the planner would rather
/// look at every job of the target.
macro_rules! earlier_jobs {
    ($rest:literal) => {
        concat!(
            "SELECT q.id, q.status, q.parent_job_id, q.created_at, q.source_event_id, c.pipeline_name, c.step_id
             FROM job_queue q INDEXED BY job_queue_dedupe_status_completed_idx
             LEFT JOIN event_context c ON c.id = q.event_context_id
             WHERE q.dedupe_key = ?1 AND q.plugin = ?2 AND q.command = ?3",
            $rest
        )
    };
}

fn outstanding(scope: &Scope<'_>, checked: &CheckedJob, key: &str) -> rusqlite::Result<Option<Earlier>> {
    let mut statement = scope
        .connection()
        .prepare_cached(earlier_jobs!(" AND q.status IN ('queued', 'running') ORDER BY q.created_at"))?;
    let rows = statement.query(params![key, checked.job.plugin, checked.job.command])?;
    first_of_another_event(scope, checked, rows)
}

fn recent_success(
    scope: &Scope<'_>,
    checked: &CheckedJob,
    key: &str,
    window: Duration,
) -> rusqlite::Result<Option<Earlier>> {
    if window.is_zero() {
        return Ok(None);
    }
    // A window that reaches back before all time takes in every success.
    let since = chrono::TimeDelta::from_std(window)
        .ok()
        .and_then(|window| scope.now().checked_sub_signed(window))
        .map_or_else(String::new, format_db);
    let mut statement = scope.connection().prepare_cached(earlier_jobs!(
        " AND q.status = 'succeeded' AND replace(q.completed_at, 'T', ' ') >= ?4 ORDER BY q.completed_at DESC"
    ))?;
    let rows = statement.query(params![key, checked.job.plugin, checked.job.command, since])?;
    first_of_another_event(scope, checked, rows)
}

/// The first of these jobs that counts: those that the same event makes are no duplicates of each other.
fn first_of_another_event(
    scope: &Scope<'_>,
    checked: &CheckedJob,
    mut rows: Rows<'_>,
) -> rusqlite::Result<Option<Earlier>> {
    while let Some(row) = rows.next()? {
        if !is_sibling(scope, checked, row)? {
            return Ok(Some((JobId::from(required_text(row, 0)?), status_of(&required_text(row, 1)?))));
        }
    }
    Ok(None)
}

/// Whether an earlier job was made by the same event: the same id, said by the same job, or from outside at the same
/// instant.
fn is_sibling(scope: &Scope<'_>, checked: &CheckedJob, row: &Row<'_>) -> rusqlite::Result<bool> {
    // Jobs of a start from outside are compared before any of them is there.
    let (Some(parent), Some(event)) = (&checked.job.parent_job_id, &checked.job.event_id) else { return Ok(false) };
    let Some(its_event) = text(row, 4)? else { return Ok(false) };
    // Further jobs have their step behind it, which is not told any more when the context is pruned.
    let is_its_event = its_event.strip_prefix(event.as_str()).is_some_and(|rest| match (text(row, 5), text(row, 6)) {
        _ if rest.is_empty() => true,
        (Ok(Some(pipeline)), Ok(Some(step))) => {
            let further = rest.strip_prefix(&format!("/{pipeline}/{step}"));
            further.is_some_and(|further| further.is_empty() || further.starts_with('/'))
        }
        _ => rest.starts_with('/'),
    });
    if !is_its_event {
        return Ok(false);
    }
    let own = Emitter::of(scope, Some(parent.clone()), scope.now_text().to_owned())?;
    let its = Emitter::of(scope, text(row, 2)?.map(JobId::from), required_text(row, 3)?)?;
    Ok(own == its)
}

/// Who said an event.
#[derive(Debug, PartialEq, Eq)]
enum Emitter {
    Job(JobId),
    /// Somebody outside, by the instant at which the jobs of the event were made.
    Outside(String),
}

impl Emitter {
    /// Of a job with this parent, made at that instant. Switches pass an event on that another job has said.
    fn of(scope: &Scope<'_>, parent: Option<JobId>, created_at: String) -> rusqlite::Result<Self> {
        let (mut parent, mut created_at) = (parent, created_at);
        while let Some(job) = parent {
            let row = scope
                .connection()
                .prepare_cached(
                    "SELECT parent_job_id, created_at FROM job_queue WHERE id = ?1 AND plugin = 'core.switch'",
                )?
                .query_row([job.as_str()], |row| Ok((text(row, 0)?, required_text(row, 1)?)))
                .optional()?;
            let Some((above, created)) = row else { return Ok(Self::Job(job)) };
            (parent, created_at) = (above.map(JobId::from), created);
        }
        Ok(Self::Outside(created_at))
    }
}

//! Jobs that failed, queued again by hand: new jobs with the same input and the same place in their pipeline. The
//! database tells what a job is a retry of: its `source_event_id` is `retry:<original>/<own id>`.
//!
//! Many at once are queued in one go and come due one after the other, so that a flood of them neither overruns what
//! they failed at nor is lost with the process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::{JobId, JobStatus, Producer, format_db};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use tracing::info;

use crate::events;
use crate::read::Conditions;
use crate::rows::{insert_transition, nanos, required_text};
use crate::scope::{Change, Scope};
use crate::{QueueError, Store};

/// Jobs looked at in one transaction.
const STEP: usize = 100;

/// Attempts that a job of this plugin and command gets; `None`: it can not run.
pub type Attempts = Arc<dyn Fn(&str, &str) -> Option<u32> + Send + Sync>;

/// What is to be retried, and how.
#[derive(Clone)]
pub struct RetryRequest {
    /// Which jobs.
    pub selection: RetrySelection,
    /// What is retried although there is no need.
    pub scope: RetryScope,
    /// How many of them come due within a second, at least 1.
    pub per_second: u32,
    /// Jobs at most.
    pub limit: u32,
    /// What can run.
    pub attempts: Attempts,
}

/// Which jobs are to be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetrySelection {
    /// These, in this order.
    Jobs(Vec<JobId>),
    /// Those that match, oldest first.
    Matching(RetryFilter),
}

/// Filters over terminal jobs; absent = all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryFilter {
    /// Exact plugin.
    pub plugin: Option<String>,
    /// Exact command.
    pub command: Option<String>,
    /// States; empty: those that went wrong.
    pub statuses: Vec<JobStatus>,
    /// Ended at or after.
    pub since: Option<DateTime<Utc>>,
    /// Pipeline of its context.
    pub pipeline: Option<String>,
}

/// How far a retry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryScope {
    /// Jobs that went wrong and were not retried yet.
    Unresolved,
    /// Jobs that went wrong, also when they were retried before.
    Failed,
    /// Whatever is over.
    Any,
}

/// A job that is, or would be, queued again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// The job that went wrong.
    pub original: JobId,
    /// The new one; `None` where nothing was to be done yet.
    pub job: Option<JobId>,
    /// Plugin of both.
    pub plugin: String,
    /// Command of both.
    pub command: String,
    /// When the new one may run.
    pub due_at: DateTime<Utc>,
}

/// Why a job is not retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetrySkip {
    /// Nobody knows it.
    NotFound,
    /// It left the queue, and its input with it.
    PayloadGone,
    /// It waits or runs.
    Active(JobStatus),
    /// It did not go wrong.
    NotFailed(JobStatus),
    /// This job is a retry of it.
    AlreadyRetried(JobId),
    /// Its plugin or command is not there, or not enabled.
    PluginUnavailable,
}

impl RetrySkip {
    /// Word for programs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::PayloadGone => "payload_gone",
            Self::Active(_) => "active",
            Self::NotFailed(_) => "not_failed",
            Self::AlreadyRetried(_) => "already_retried",
            Self::PluginUnavailable => "plugin_unavailable",
        }
    }
}

impl fmt::Display for RetrySkip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such job"),
            Self::PayloadGone => f.write_str("its input is no longer stored"),
            Self::Active(status) => write!(f, "it is {status}"),
            Self::NotFailed(status) => write!(f, "it {status}"),
            Self::AlreadyRetried(job) => write!(f, "it was retried as {job}"),
            Self::PluginUnavailable => f.write_str("its plugin or command is not available"),
        }
    }
}

/// What a retry did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryReport {
    /// Queued again, in the order in which they come due.
    pub retried: Vec<Retried>,
    /// Left alone.
    pub skipped: Vec<(JobId, RetrySkip)>,
    /// Whether more jobs match than the limit lets through.
    pub more: bool,
}

impl Store {
    /// What [`Store::retry`] would do now. Writes nothing.
    ///
    /// # Errors
    /// The database failed.
    pub async fn plan_retry(&self, request: RetryRequest, now: DateTime<Utc>) -> Result<RetryReport, QueueError> {
        let (ids, more) = self.select(&request).await?;
        self.read(move |connection| {
            let mut report = RetryReport { more, ..RetryReport::default() };
            for id in ids {
                judge(connection, id, &request, now, &mut report)?;
            }
            Ok(report)
        })
        .await
    }

    /// Queues jobs again. `Ok` means committed.
    ///
    /// # Errors
    /// The database failed. Of many jobs some may have been queued: asking again skips those.
    pub async fn retry(&self, request: RetryRequest) -> Result<RetryReport, QueueError> {
        let (ids, more) = self.select(&request).await?;
        let mut report = RetryReport { more, ..RetryReport::default() };
        for step in ids.chunks(STEP) {
            let (step, request, so_far) = (step.to_vec(), request.clone(), report);
            report = self.write(move |scope| retry_step(scope, &step, &request, so_far.clone())).await?;
        }
        info!(retried = report.retried.len(), skipped = report.skipped.len(), "jobs queued again by hand");
        Ok(report)
    }

    async fn select(&self, request: &RetryRequest) -> Result<(Vec<JobId>, bool), QueueError> {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let mut ids = match &request.selection {
            RetrySelection::Jobs(ids) => ids.clone(),
            RetrySelection::Matching(filter) => {
                let (filter, most) = (filter.clone(), i64::from(request.limit) + 1);
                self.read(move |connection| matching(connection, &filter, most)).await?
            }
        };
        let more = ids.len() > limit;
        ids.truncate(limit);
        Ok((ids, more))
    }
}

fn retry_step(
    scope: &Scope<'_>,
    ids: &[JobId],
    request: &RetryRequest,
    mut report: RetryReport,
) -> Result<RetryReport, QueueError> {
    for id in ids {
        let before = report.retried.len();
        judge(scope.connection(), id.clone(), request, scope.now(), &mut report)?;
        // A second mention of a job finds the retry that the first one made.
        if let Some(retried) = report.retried.get_mut(before) {
            insert(scope, request, retried)?;
        }
    }
    Ok(report)
}

/// Puts the job where it belongs in the report.
fn judge(
    connection: &Connection,
    id: JobId,
    request: &RetryRequest,
    now: DateTime<Utc>,
    report: &mut RetryReport,
) -> rusqlite::Result<()> {
    match eligible(connection, &id, request)? {
        Err(skip) => report.skipped.push((id, skip)),
        Ok((plugin, command)) => {
            let due_at = due(now, report.retried.len(), request.per_second);
            report.retried.push(Retried { original: id, job: None, plugin, command, due_at });
        }
    }
    Ok(())
}

/// The first is due at once, the others evenly after it.
fn due(now: DateTime<Utc>, place: usize, per_second: u32) -> DateTime<Utc> {
    let apart = Duration::from_secs(1) / per_second.max(1);
    let wait = apart.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
    TimeDelta::from_std(wait).ok().and_then(|wait| now.checked_add_signed(wait)).unwrap_or(now)
}

fn eligible(
    connection: &Connection,
    id: &JobId,
    request: &RetryRequest,
) -> rusqlite::Result<Result<(String, String), RetrySkip>> {
    let row = connection
        .prepare_cached("SELECT plugin, command, status FROM job_queue WHERE id = ?1")?
        .query_row([id.as_str()], |row| Ok((required_text(row, 0)?, required_text(row, 1)?, required_text(row, 2)?)))
        .optional()?;
    let Some((plugin, command, status)) = row else {
        let logged = crate::read::status(connection, id)?.is_some();
        return Ok(Err(if logged { RetrySkip::PayloadGone } else { RetrySkip::NotFound }));
    };
    let status = JobStatus::parse(&status).unwrap_or(JobStatus::Dead);
    if !status.is_terminal() {
        return Ok(Err(RetrySkip::Active(status)));
    }
    if request.scope != RetryScope::Any && matches!(status, JobStatus::Succeeded | JobStatus::Skipped) {
        return Ok(Err(RetrySkip::NotFailed(status)));
    }
    if request.scope == RetryScope::Unresolved
        && let Some(job) = retry_of(connection, id)?
    {
        return Ok(Err(RetrySkip::AlreadyRetried(job)));
    }
    if (request.attempts)(&plugin, &command).is_none() {
        return Ok(Err(RetrySkip::PluginUnavailable));
    }
    Ok(Ok((plugin, command)))
}

/// The newest retry of a job. It has the same parent, so the index of events leads to it.
fn retry_of(connection: &Connection, id: &JobId) -> rusqlite::Result<Option<JobId>> {
    connection
        .prepare_cached(RETRY_OF)?
        .query_row([id.as_str()], |row| required_text(row, 0).map(JobId::from))
        .optional()
}

pub(crate) const RETRY_OF: &str = "SELECT id FROM job_queue INDEXED BY job_queue_event_source_idx
     WHERE parent_job_id IS (SELECT parent_job_id FROM job_queue WHERE id = ?1) AND source_event_id IS NOT NULL
       AND source_event_id >= 'retry:' || ?1 || '/' AND source_event_id < 'retry:' || ?1 || '0'
     ORDER BY source_event_id DESC LIMIT 1";

/// A new row from the old one; the input is copied inside the database.
fn insert(scope: &Scope<'_>, request: &RetryRequest, retried: &mut Retried) -> Result<(), QueueError> {
    let (id, original) = (JobId::generate(), &retried.original);
    let attempts = (request.attempts)(&retried.plugin, &retried.command).unwrap_or(1);
    let not_before = (retried.due_at > scope.now()).then_some(retried.due_at);
    let submitted_by = Producer::Api.to_string();
    scope
        .connection()
        .prepare_cached(
            "INSERT INTO job_queue
                 (id, plugin, command, payload, status, attempt, max_attempts, submitted_by, created_at, next_retry_at,
                  parent_job_id, source_event_id, event_context_id, enqueued_config_snapshot_id)
             SELECT ?2, plugin, command, payload, 'queued', 1, ?3, ?4, ?5, ?6, parent_job_id, ?7, event_context_id, ?8
             FROM job_queue WHERE id = ?1",
        )?
        .execute(params![
            original.as_str(),
            id.as_str(),
            attempts,
            submitted_by,
            scope.now_text(),
            not_before.map(format_db),
            format!("retry:{original}/{id}"),
            scope.snapshot().map(|snapshot| snapshot.as_str()),
        ])?;
    let rowid = scope.connection().last_insert_rowid();
    insert_transition(scope, &id, None, JobStatus::Queued, None)?;
    scope.changed(Change::Queued {
        rowid,
        plugin: retried.plugin.as_str().into(),
        created: nanos(scope.now_text()),
        not_before: not_before.and_then(|at| at.timestamp_nanos_opt()),
    });
    scope.publish("job.enqueued", events::enqueued_by_api(&id, &retried.plugin, &retried.command));
    retried.job = Some(id);
    Ok(())
}

/// Ids of the jobs that match, oldest first.
fn matching(connection: &Connection, filter: &RetryFilter, most: i64) -> rusqlite::Result<Vec<JobId>> {
    let mut ids: Vec<(String, i64, JobId)> = Vec::new();
    let statuses = match &filter.statuses[..] {
        [] => &[JobStatus::Failed, JobStatus::TimedOut, JobStatus::Dead],
        statuses => statuses,
    };
    for status in statuses {
        let mut conditions = Conditions::default();
        conditions.add("q.status = ?", status.as_str().to_owned());
        if let Some(plugin) = &filter.plugin {
            conditions.add("q.plugin = ?", plugin.clone());
        }
        if let Some(command) = &filter.command {
            conditions.add("q.command = ?", command.clone());
        }
        if let Some(since) = filter.since {
            conditions.add("q.completed_at >= ?", format_db(since));
        }
        if let Some(pipeline) = &filter.pipeline {
            conditions.add(
                "EXISTS (SELECT 1 FROM event_context c WHERE c.id = q.event_context_id AND c.pipeline_name = ?)",
                pipeline.clone(),
            );
        }
        let sql = format!(
            "SELECT q.created_at, q.rowid, q.id FROM job_queue q {} ORDER BY q.created_at, q.rowid LIMIT {most}",
            conditions.sql()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(conditions.values()), |row| {
            Ok((required_text(row, 0)?, row.get(1)?, JobId::from(required_text(row, 2)?)))
        })?;
        for row in rows {
            ids.push(row?);
        }
    }
    ids.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    ids.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok(ids.into_iter().map(|(.., id)| id).collect())
}

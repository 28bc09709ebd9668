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
use crate::lineage;
use crate::read::Conditions;
use crate::rows::{insert_transition, nanos, required_text, text};
use crate::scope::{Change, Scope};
use crate::{QueueError, Store};

/// Jobs looked at in one transaction.
const STEP: usize = 100;
/// Jobs that match a filter are looked at in pages of so many, and so many pages at most.
const PAGE: usize = 500;
const PAGES: usize = 200;
/// Jobs that a filter finds and that are left alone: so many of them are told.
const LISTED: usize = 1000;

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
    /// Jobs that are retried at most; those left alone do not count.
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
    /// Left alone, of those that were named or match a filter. A filter does not match what was retried already, unless
    /// the scope says otherwise.
    pub skipped: Vec<(JobId, RetrySkip)>,
    /// Whether more jobs can be retried than the limit lets through.
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
        let request = request.clone();
        self.read(move |connection| select(connection, &request)).await
    }
}

/// The jobs that a request is about, as far as its limit goes, and whether there are more.
fn select(connection: &Connection, request: &RetryRequest) -> rusqlite::Result<(Vec<JobId>, bool)> {
    let mut chosen = Chosen::new(connection, request);
    let filter = match &request.selection {
        RetrySelection::Jobs(ids) => {
            let more = chosen.take(ids)? == Room::None;
            return Ok((chosen.ids, more));
        }
        RetrySelection::Matching(filter) => filter,
    };
    let mut after = Place::first();
    for _ in 0..PAGES {
        let page = matching(connection, filter, request.scope, &after)?;
        let is_last = page.len() < PAGE;
        let ids: Vec<JobId> = page.iter().map(|(_, id)| id.clone()).collect();
        if chosen.take(&ids)? == Room::None {
            return Ok((chosen.ids, true));
        }
        match page.into_iter().next_back() {
            Some((place, _)) if !is_last => after = place,
            _ => return Ok((chosen.ids, false)),
        }
    }
    Ok((chosen.ids, true))
}

/// Whether a further job fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Some,
    None,
}

/// Jobs that can be retried, up to the limit, between others that can not: those must not use it up, or asking again
/// would never get past them.
struct Chosen<'a> {
    connection: &'a Connection,
    request: &'a RetryRequest,
    ids: Vec<JobId>,
    eligible: usize,
}

impl<'a> Chosen<'a> {
    fn new(connection: &'a Connection, request: &'a RetryRequest) -> Self {
        Self { connection, request, ids: Vec::new(), eligible: 0 }
    }

    fn take(&mut self, ids: &[JobId]) -> rusqlite::Result<Room> {
        let limit = usize::try_from(self.request.limit).unwrap_or(usize::MAX);
        let named = matches!(self.request.selection, RetrySelection::Jobs(_));
        for id in ids {
            let is_eligible = eligible(self.connection, id, self.request)?.is_ok();
            if is_eligible && self.eligible == limit {
                return Ok(Room::None);
            }
            self.eligible += usize::from(is_eligible);
            if is_eligible || named || self.ids.len() - self.eligible < LISTED {
                self.ids.push(id.clone());
            }
        }
        Ok(Room::Some)
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
        .prepare_cached("SELECT plugin, command, status, parent_job_id FROM job_queue WHERE id = ?1")?
        .query_row([id.as_str()], |row| {
            Ok((required_text(row, 0)?, required_text(row, 1)?, required_text(row, 2)?, text(row, 3)?))
        })
        .optional()?;
    let Some((plugin, command, status, parent)) = row else {
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
        && let Some(job) = lineage::retries_of(connection, id, parent.as_deref())?.into_iter().max()
    {
        return Ok(Err(RetrySkip::AlreadyRetried(job)));
    }
    if (request.attempts)(&plugin, &command).is_none() {
        return Ok(Err(RetrySkip::PluginUnavailable));
    }
    Ok(Ok((plugin, command)))
}

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
            lineage::retry_event(original, &id),
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

/// Where a job stands in the order of a filter: creation, then insertion.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place(String, i64);

impl Place {
    /// Before all jobs.
    fn first() -> Self {
        Self(String::new(), i64::MIN)
    }
}

/// The next page of jobs that match, oldest first.
fn matching(
    connection: &Connection,
    filter: &RetryFilter,
    scope: RetryScope,
    after: &Place,
) -> rusqlite::Result<Vec<(Place, JobId)>> {
    let mut page: Vec<(Place, JobId)> = Vec::new();
    let statuses = match &filter.statuses[..] {
        [] => &[JobStatus::Failed, JobStatus::TimedOut, JobStatus::Dead],
        statuses => statuses,
    };
    let unresolved = match scope {
        RetryScope::Unresolved => format!("AND {}", lineage::NOT_RETRIED),
        RetryScope::Failed | RetryScope::Any => String::new(),
    };
    for status in statuses {
        let conditions = conditions(filter, *status, after);
        let sql = format!(
            "SELECT q.created_at, q.rowid, q.id FROM job_queue q {} {unresolved}
             ORDER BY q.created_at, q.rowid LIMIT {PAGE}",
            conditions.sql()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(conditions.values()), |row| {
            Ok((Place(required_text(row, 0)?, row.get(1)?), JobId::from(required_text(row, 2)?)))
        })?;
        for row in rows {
            page.push(row?);
        }
    }
    page.sort_by(|a, b| a.0.cmp(&b.0));
    page.truncate(PAGE);
    Ok(page)
}

fn conditions(filter: &RetryFilter, status: JobStatus, after: &Place) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.add("q.status = ?", status.as_str().to_owned());
    conditions.add_pair("(q.created_at, q.rowid) > ", after.0.clone(), after.1);
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
    conditions
}

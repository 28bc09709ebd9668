//! Rows of the job tables: reading leniently, writing in the one stored form.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_model::{JobId, JobStatus, format_db, parse_stored};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::scope::Scope;

/// A text column; blobs that older versions wrote are read as text.
pub(crate) fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
    })
}

/// A text column that is never null in a sound row.
pub(crate) fn required_text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    Ok(text(row, index)?.unwrap_or_default())
}

/// Nanoseconds since 1970 of a stored time: the order of the queue. A time that can not be read comes first, so
/// that its job is not stuck.
pub(crate) fn nanos(stored: &str) -> i64 {
    parse_stored(stored).and_then(|at| at.timestamp_nanos_opt()).unwrap_or(i64::MIN)
}

/// What finalisation, recovery and cancellation need to know of a job.
#[derive(Debug)]
pub(crate) struct JobRow {
    pub(crate) rowid: i64,
    pub(crate) id: JobId,
    pub(crate) plugin: Arc<str>,
    pub(crate) command: String,
    pub(crate) status: JobStatus,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) submitted_by: String,
    pub(crate) dedupe_key: Option<String>,
    /// As stored: it is copied, never changed.
    pub(crate) created_at: String,
    /// As stored.
    pub(crate) started_at: Option<String>,
    /// As stored.
    pub(crate) next_retry_at: Option<String>,
}

/// A macro, so that statements are made of it when this is compiled.
macro_rules! job_row {
    () => {
        "SELECT rowid, id, plugin, command, status, attempt, max_attempts, submitted_by, dedupe_key, created_at,
                started_at, next_retry_at
         FROM job_queue"
    };
}

/// A plugin's name as the rows have it: in old rows it may be a blob.
#[derive(Debug)]
pub(crate) struct LaneName(Value);

impl LaneName {
    /// The names of all plugins that have a row, in order. The index is walked from name to name, so the price is
    /// that of the names, not of the rows.
    pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<Self>> {
        let mut next = connection.prepare_cached(
            "SELECT min(plugin) FROM job_queue INDEXED BY job_queue_plugin_command_status_idx WHERE plugin > ?1",
        )?;
        let mut names = Vec::new();
        let mut name = Value::Text(String::new());
        loop {
            name = next.query_row([&name], |row| row.get(0))?;
            if name == Value::Null {
                return Ok(names);
            }
            names.push(Self(name.clone()));
        }
    }

    pub(crate) fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Value::Text(text) => Cow::Borrowed(text),
            Value::Blob(bytes) => String::from_utf8_lossy(bytes),
            Value::Null | Value::Integer(_) | Value::Real(_) => Cow::Borrowed(""),
        }
    }
}

impl JobRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let status = required_text(row, 4)?;
        Ok(Self {
            rowid: row.get(0)?,
            id: JobId::from(required_text(row, 1)?),
            plugin: required_text(row, 2)?.into(),
            command: required_text(row, 3)?,
            // A word this program does not know can not be moved by it: every terminal state is absorbing.
            status: JobStatus::parse(&status).unwrap_or(JobStatus::Dead),
            attempt: row.get(5)?,
            max_attempts: row.get(6)?,
            submitted_by: required_text(row, 7)?,
            dedupe_key: text(row, 8)?,
            created_at: required_text(row, 9)?,
            started_at: text(row, 10)?,
            next_retry_at: text(row, 11)?.filter(|at| !at.trim().is_empty()),
        })
    }

    pub(crate) fn find(connection: &Connection, id: &JobId) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(concat!(job_row!(), " WHERE id = ?1"))?
            .query_row([id.as_str()], Self::read)
            .optional()
    }

    /// All queued rows of one lane. They are found command by command, since that is how the index goes on to the
    /// status: neither other lanes nor what the lane has behind it is looked at.
    pub(crate) fn queued(connection: &Connection, lane: &LaneName) -> rusqlite::Result<Vec<Self>> {
        let mut next_command = connection.prepare_cached(
            "SELECT min(command) FROM job_queue INDEXED BY job_queue_plugin_command_status_idx
             WHERE plugin = ?1 AND command > ?2",
        )?;
        let mut queued = connection.prepare_cached(concat!(
            job_row!(),
            " INDEXED BY job_queue_plugin_command_status_idx WHERE plugin = ?1 AND command = ?2 AND status = 'queued'"
        ))?;
        let mut jobs = Vec::new();
        let mut command = Value::Text(String::new());
        loop {
            command = next_command.query_row(params![lane.0, command], |row| row.get(0))?;
            if command == Value::Null {
                return Ok(jobs);
            }
            for job in queued.query_map(params![lane.0, command], Self::read)? {
                jobs.push(job?);
            }
        }
    }

    /// The schedule of a job of the scheduler: third part of the key `<plugin>:<command>:<schedule>`, which may go on.
    pub(crate) fn schedule_id(&self) -> Option<&str> {
        let rest = self.dedupe_key.as_deref()?.strip_prefix(&*self.plugin)?.strip_prefix(':')?;
        rest.strip_prefix(self.command.as_str())?.strip_prefix(':')?.split(':').next()
    }

    /// Time since the start of the running attempt.
    pub(crate) fn running_for(&self, end: DateTime<Utc>) -> std::time::Duration {
        let started = self.started_at.as_deref().and_then(parse_stored);
        started.and_then(|started| (end - started).to_std().ok()).unwrap_or_default()
    }
}

/// What becomes of a job row when an attempt ends or the job is given up.
pub(crate) struct NextRow<'a> {
    pub(crate) status: JobStatus,
    pub(crate) attempt: u32,
    /// In the stored form.
    pub(crate) completed_at: Option<&'a str>,
    pub(crate) next_retry_at: Option<DateTime<Utc>>,
    pub(crate) last_error: Option<&'a str>,
}

/// Moves the job row and writes the transition.
pub(crate) fn move_job(scope: &Scope<'_>, job: &JobRow, next: &NextRow<'_>) -> rusqlite::Result<()> {
    // A requeued job has no start; a terminal one keeps the start of its last attempt.
    scope
        .connection()
        .prepare_cached(
            "UPDATE job_queue SET status = ?2, attempt = ?3, completed_at = ?4, next_retry_at = ?5, last_error = ?6,
                    started_at = iif(?2 = 'queued', NULL, started_at)
             WHERE rowid = ?1",
        )?
        .execute(params![
            job.rowid,
            next.status.as_str(),
            next.attempt,
            next.completed_at,
            next.next_retry_at.map(format_db),
            next.last_error,
        ])?;
    insert_transition(scope, &job.id, Some(job.status), next.status, next.last_error)
}

pub(crate) fn insert_transition(
    scope: &Scope<'_>,
    job: &JobId,
    from: Option<JobStatus>,
    to: JobStatus,
    reason: Option<&str>,
) -> rusqlite::Result<()> {
    scope
        .connection()
        .prepare_cached(
            "INSERT INTO job_transitions (job_id, from_status, to_status, reason, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![job.as_str(), from.map(JobStatus::as_str), to.as_str(), reason, scope.now_text()])?;
    Ok(())
}

/// The finished attempt, as it is logged.
pub(crate) struct AttemptRow<'a> {
    pub(crate) status: JobStatus,
    /// In the stored form.
    pub(crate) completed_at: &'a str,
    pub(crate) error: Option<&'a str>,
    pub(crate) stderr: Option<&'a str>,
    pub(crate) result: Option<&'a str>,
}

/// Writes the log row of an attempt; a second write of the same attempt changes nothing. The start is left out where
/// an older table has no place for it.
pub(crate) fn insert_log(scope: &Scope<'_>, job: &JobRow, attempt: &AttemptRow<'_>) -> rusqlite::Result<()> {
    let sql = if scope.log_has_start() {
        "INSERT OR IGNORE INTO job_log
             (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, completed_at, last_error,
              stderr, parent_job_id, source_event_id, event_context_id, enqueued_config_snapshot_id,
              started_config_snapshot_id, started_at)
         SELECT ?2, id, plugin, command, ?3, ?4, ?5, submitted_by, created_at, ?6, ?7, ?8, parent_job_id,
                source_event_id, event_context_id, enqueued_config_snapshot_id, started_config_snapshot_id, ?9
         FROM job_queue WHERE rowid = ?1"
    } else {
        "INSERT OR IGNORE INTO job_log
             (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, completed_at, last_error,
              stderr, parent_job_id, source_event_id, event_context_id, enqueued_config_snapshot_id,
              started_config_snapshot_id)
         SELECT ?2, id, plugin, command, ?3, ?4, ?5, submitted_by, created_at, ?6, ?7, ?8, parent_job_id,
                source_event_id, event_context_id, enqueued_config_snapshot_id, started_config_snapshot_id
         FROM job_queue WHERE rowid = ?1 AND ?9 IS ?9"
    };
    scope.connection().prepare_cached(sql)?.execute(params![
        job.rowid,
        format!("{}-{}", job.id, job.attempt),
        attempt.status.as_str(),
        attempt.result,
        job.attempt,
        attempt.completed_at,
        attempt.error,
        attempt.stderr,
        job.started_at,
    ])?;
    Ok(())
}

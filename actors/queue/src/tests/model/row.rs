//! A job as the model knows it, and the rules that look at many of them.

use chrono::{DateTime, Utc};
use rusqlite::Row as SqlRow;

use super::*;
use crate::{DuplicateReason, Retention};

/// A row of the queue, as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tests) struct Row {
    pub(in crate::tests) id: String,
    pub(in crate::tests) plugin: String,
    pub(in crate::tests) command: String,
    pub(in crate::tests) by: String,
    pub(in crate::tests) status: JobStatus,
    pub(in crate::tests) attempt: u32,
    pub(in crate::tests) max_attempts: u32,
    pub(in crate::tests) key: Option<String>,
    pub(in crate::tests) parent: Option<String>,
    pub(in crate::tests) event: Option<String>,
    pub(in crate::tests) created: String,
    pub(in crate::tests) started: Option<String>,
    pub(in crate::tests) completed: Option<String>,
    pub(in crate::tests) due: Option<String>,
    pub(in crate::tests) error: Option<String>,
    pub(in crate::tests) enqueued_under: Option<String>,
    pub(in crate::tests) started_under: Option<String>,
}

impl Row {
    pub(in crate::tests) const COLUMNS: &str =
        "id, plugin, command, submitted_by, status, attempt, max_attempts, dedupe_key, parent_job_id, source_event_id,
         created_at, started_at, completed_at, next_retry_at, last_error, enqueued_config_snapshot_id,
         started_config_snapshot_id";

    pub(in crate::tests) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            plugin: row.get(1)?,
            command: row.get(2)?,
            by: row.get(3)?,
            status: JobStatus::parse(&row.get::<_, String>(4)?).unwrap(),
            attempt: row.get(5)?,
            max_attempts: row.get(6)?,
            key: row.get(7)?,
            parent: row.get(8)?,
            event: row.get(9)?,
            created: row.get(10)?,
            started: row.get(11)?,
            completed: row.get(12)?,
            due: row.get(13)?,
            error: row.get(14)?,
            enqueued_under: row.get(15)?,
            started_under: row.get(16)?,
        })
    }

    pub(in crate::tests) fn of(new: &NewJob, id: &JobId, now: DateTime<Utc>, under: Option<String>) -> Self {
        Self {
            id: id.to_string(),
            plugin: new.plugin.clone(),
            command: new.command.clone(),
            by: new.submitted_by.to_string(),
            status: JobStatus::Queued,
            attempt: 1,
            max_attempts: new.max_attempts,
            key: new.dedupe_key.clone(),
            parent: new.parent_job_id.as_ref().map(JobId::to_string),
            event: new.source_event_id.clone(),
            created: format_db(now),
            started: None,
            completed: None,
            due: None,
            error: None,
            enqueued_under: under,
            started_under: None,
        }
    }

    pub(in crate::tests) fn is_active(&self) -> bool {
        !self.status.is_terminal()
    }

    pub(in crate::tests) fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.due.as_deref().filter(|due| !due.trim().is_empty()).is_none_or(|due| at(due) <= now)
    }

    fn ended_before(&self, limit: DateTime<Utc>) -> bool {
        self.completed.as_deref().is_some_and(|completed| at(completed) < limit)
    }
}

pub(in crate::tests) fn at(stored: &str) -> DateTime<Utc> {
    parse_stored(stored).unwrap()
}

fn back(now: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    now - TimeDelta::from_std(by).unwrap()
}

/// What an enqueue must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tests) enum Verdict {
    New,
    /// One of these counts, for this reason.
    Counts(Vec<String>, DuplicateReason),
}

/// The rules of dedupe, by looking at every row there is.
pub(in crate::tests) fn verdict(rows: &[&Row], new: &NewJob, now: DateTime<Utc>, default_window: Duration) -> Verdict {
    let target: Vec<&&Row> = rows.iter().filter(|row| row.plugin == new.plugin && row.command == new.command).collect();
    if let (Some(parent), Some(event)) = (&new.parent_job_id, &new.source_event_id) {
        let same = |row: &&&&Row| row.parent.as_deref() == Some(parent.as_str()) && row.event.as_ref() == Some(event);
        if let Some(earlier) = target.iter().find(same) {
            return Verdict::Counts(vec![earlier.id.clone()], DuplicateReason::SourceEvent);
        }
    }
    let Some(key) = new.dedupe_key.as_deref().map(str::trim).filter(|key| !key.is_empty()) else { return Verdict::New };
    let counting: Vec<&&Row> =
        target.into_iter().filter(|row| row.key.as_deref() == Some(key) && !is_sibling(row, new)).collect();
    let active: Vec<&&Row> = counting.iter().copied().filter(|row| row.is_active()).collect();
    if let Some(oldest) = active.iter().map(|row| at(&row.created)).min() {
        let oldest = active.iter().filter(|row| at(&row.created) == oldest).map(|row| row.id.clone());
        return Verdict::Counts(oldest.collect(), DuplicateReason::Outstanding);
    }
    let window = new.dedupe_ttl.unwrap_or(default_window);
    let since = back(now, window);
    let ended = |row: &&&Row| at(row.completed.as_deref().unwrap());
    let recent: Vec<&&Row> = counting
        .into_iter()
        .filter(|row| row.status == JobStatus::Succeeded && !window.is_zero() && ended(row) >= since)
        .collect();
    match recent.iter().map(ended).max() {
        Some(newest) => {
            let newest = recent.iter().filter(|row| ended(row) == newest).map(|row| row.id.clone());
            Verdict::Counts(newest.collect(), DuplicateReason::RecentSuccess)
        }
        None => Verdict::New,
    }
}

/// Whether one event made both.
fn is_sibling(row: &Row, new: &NewJob) -> bool {
    let first = |event: &str| event.split('/').next().unwrap().to_owned();
    new.submitted_by == Producer::Route
        && new.parent_job_id.as_ref().is_some_and(|parent| row.parent.as_deref() == Some(parent.as_str()))
        && new.event_id.is_some()
        && row.event.as_deref().map(first) == new.event_id
}

/// Whether the housekeeping lets go of a row.
pub(in crate::tests) fn is_let_go(row: &Row, rows: &[&Row], now: DateTime<Utc>, keep: &Retention) -> bool {
    let old = back(now, keep.job_queue);
    let kept_for_window = row.key.is_some() && row.status == JobStatus::Succeeded;
    let has_work = rows.iter().any(|child| child.parent.as_ref() == Some(&row.id) && child.is_active());
    row.status.is_terminal()
        && at(&row.created) < old
        && row.ended_before(old)
        && (!kept_for_window || row.ended_before(back(now, keep.job_queue.max(keep.dedupe_ttl))))
        && !has_work
}

//! What people do with schedules, and what they look at, beside a running gateway or without one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_model::{JobId, format_db};
use ductile_timetable::{Entry, Rule};
use rusqlite::{Connection, params};

use super::rows::Definitions;
use super::{ScheduleRow, ScheduleStatus, reconcile, rows};
use crate::prune::ChangeMode;
use crate::read::time;
use crate::rows::{required_text, text};
use crate::{BreakerState, breaker_rows};

/// A change that a person makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleChange {
    /// Hold it back, for this reason.
    Pause(Option<String>),
    /// Let it run again; one that has run for good is armed again only when `rearm` is set.
    Resume {
        /// Whether one that has run for good is to run once more.
        rearm: bool,
    },
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleChanged {
    /// The row is now this.
    Done(ScheduleRow),
    /// It has run for good, and stays as it is.
    Exhausted,
}

/// A job of the scheduler that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledJob {
    /// Its id.
    pub id: JobId,
    /// Configured plugin name.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Key, with the schedule in it.
    pub dedupe_key: Option<String>,
    /// `queued` or `running`.
    pub status: String,
    /// Number of the current or next attempt.
    pub attempt: u32,
    /// Queued at.
    pub created_at: Option<DateTime<Utc>>,
    /// Claimed at.
    pub started_at: Option<DateTime<Utc>>,
}

/// Changes a schedule.
pub(crate) fn change(
    connection: &Connection,
    entry: &Entry,
    change: &ScheduleChange,
    now: DateTime<Utc>,
    mode: ChangeMode,
) -> rusqlite::Result<ScheduleChanged> {
    let definitions = Definitions::of(connection)?;
    let found = rows::find(connection, definitions, &entry.plugin, &entry.id)?;
    // The files may be ahead of the gateway that serves: what a changed definition means is for the next reload.
    let mut row = found.unwrap_or_else(|| reconcile::first_seen(entry, now));
    match change {
        ScheduleChange::Pause(_) if row.status == ScheduleStatus::Exhausted => return Ok(ScheduleChanged::Exhausted),
        ScheduleChange::Pause(reason) => {
            row.status = ScheduleStatus::PausedManual;
            row.reason.clone_from(reason);
        }
        ScheduleChange::Resume { rearm } => match (row.status, &entry.rule) {
            (ScheduleStatus::Exhausted, _) if !rearm => return Ok(ScheduleChanged::Exhausted),
            (ScheduleStatus::Exhausted, _) => {
                reconcile::activate(&mut row);
                row.next_run_at = entry.first_due(now);
            }
            (ScheduleStatus::PausedManual | ScheduleStatus::PausedInvalid, Rule::Cron(cron)) => {
                reconcile::activate(&mut row);
                // What passed meanwhile is not made up for.
                row.next_run_at = cron.next_after(now, &entry.zone);
            }
            // An interval keeps a time that lies ahead; one that has passed is due.
            _ => reconcile::activate(&mut row),
        },
    }
    if mode == ChangeMode::Apply {
        rows::write(connection, definitions, &row, &format_db(now))?;
    }
    Ok(ScheduleChanged::Done(row))
}

/// The scheduler's jobs that wait or run, oldest first.
pub(crate) fn outstanding(connection: &Connection, service: &str) -> rusqlite::Result<Vec<ScheduledJob>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, plugin, command, dedupe_key, status, attempt, created_at, started_at
         FROM job_queue INDEXED BY job_queue_status_created_at_idx
         WHERE status IN ('queued', 'running') AND submitted_by = ?1 ORDER BY created_at, rowid",
    )?;
    let rows = statement.query_map([service], |row| {
        Ok(ScheduledJob {
            id: JobId::from(required_text(row, 0)?),
            plugin: required_text(row, 1)?,
            command: required_text(row, 2)?,
            dedupe_key: text(row, 3)?,
            status: required_text(row, 4)?,
            attempt: row.get(5)?,
            created_at: time(row, 6)?,
            started_at: time(row, 7)?,
        })
    })?;
    rows.collect()
}

/// What there is to know about a configured schedule.
#[derive(Debug, Clone)]
pub struct ScheduleView {
    /// The schedule.
    pub entry: Arc<Entry>,
    /// Its row, once it was seen.
    pub row: Option<ScheduleRow>,
    /// Breaker of its command.
    pub breaker: BreakerState,
    /// When its latest jobs were queued, newest first, as far back as rows are kept.
    pub runs: Vec<DateTime<Utc>>,
}

impl ScheduleView {
    /// A schedule that no gateway has seen yet.
    #[must_use]
    pub fn unseen(entry: Arc<Entry>) -> Self {
        Self { entry, row: None, breaker: BreakerState::Closed, runs: Vec::new() }
    }

    /// The mean time from one of its latest jobs to the next.
    #[must_use]
    pub fn cadence(&self) -> Option<Duration> {
        let (newest, oldest) = (self.runs.first()?, self.runs.last()?);
        let gaps = u32::try_from(self.runs.len() - 1).ok().filter(|gaps| *gaps > 0)?;
        (*newest - *oldest).to_std().ok().map(|elapsed| elapsed / gaps)
    }
}

/// Configured schedules, and what is left of others.
#[derive(Debug, Clone)]
pub struct ScheduleOverview {
    /// In the order of the configuration.
    pub configured: Vec<ScheduleView>,
    /// Rows without a schedule, by plugin and id.
    pub others: Vec<ScheduleRow>,
}

/// Jobs of a schedule that its cadence is taken from.
const RUNS: u32 = 11;

/// What there is to know about these schedules.
pub(crate) fn overview(connection: &Connection, entries: &[Arc<Entry>]) -> rusqlite::Result<ScheduleOverview> {
    let mut rows: BTreeMap<(String, String), ScheduleRow> =
        rows::all(connection)?.into_iter().map(|row| ((row.plugin.clone(), row.schedule_id.clone()), row)).collect();
    let mut configured = Vec::with_capacity(entries.len());
    for entry in entries {
        configured.push(ScheduleView {
            entry: entry.clone(),
            row: rows.remove(&(entry.plugin.clone(), entry.id.clone())),
            breaker: breaker_rows::read(connection, &entry.plugin, &entry.command)?
                .map_or(BreakerState::Closed, |breaker| breaker.state),
            runs: last_runs(connection, entry)?,
        });
    }
    Ok(ScheduleOverview { configured, others: rows.into_values().collect() })
}

fn last_runs(connection: &Connection, entry: &Entry) -> rusqlite::Result<Vec<DateTime<Utc>>> {
    let mut statement = connection.prepare_cached(
        "SELECT created_at FROM job_queue INDEXED BY job_queue_dedupe_status_completed_idx
         WHERE dedupe_key = ?1 AND plugin = ?2 AND command = ?3 ORDER BY created_at DESC LIMIT ?4",
    )?;
    let rows =
        statement.query_map(params![entry.dedupe_key(), entry.plugin, entry.command, RUNS], |row| time(row, 0))?;
    rows.filter_map(Result::transpose).collect()
}

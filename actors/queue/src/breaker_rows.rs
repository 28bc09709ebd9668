//! Circuit breakers as rows: the state of a pair of plugin and command, and the facts of its changes.
//!
//! Every function works within the transaction of its caller, be that the writer of a gateway or a command beside it.

use chrono::{DateTime, Utc};
use ductile_model::{JobId, format_db, new_id};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::read::time;
use crate::rows::{required_text, text};

/// The command whose breaker a reset always closes, with or without a row.
const ALWAYS_RESET: &str = "poll";

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Scheduled jobs are queued when they are due.
    Closed,
    /// None is queued until the cooldown is over.
    Open,
    /// One is queued to see whether it works again.
    HalfOpen,
}

impl BreakerState {
    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// The state of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Closed, Self::Open, Self::HalfOpen].into_iter().find(|state| state.as_str() == word)
    }
}

/// Why a breaker changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerReason {
    /// Too many failures in a row, or a failed probe.
    FailureThreshold,
    /// Open for long enough.
    CooldownElapsed,
    /// The probe succeeded.
    Success,
    /// A person closed it.
    ManualReset,
}

impl BreakerReason {
    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailureThreshold => "failure_threshold",
            Self::CooldownElapsed => "cooldown_elapsed",
            Self::Success => "success",
            Self::ManualReset => "manual_reset",
        }
    }
}

/// The row of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerRow {
    /// State.
    pub state: BreakerState,
    /// Failures in a row.
    pub failure_count: u32,
    /// Open since.
    pub opened_at: Option<DateTime<Utc>>,
    /// Last failure that counted.
    pub last_failure_at: Option<DateTime<Utc>>,
    /// Last job that counted.
    pub last_job_id: Option<JobId>,
    /// Last write of the row; whoever writes it sets it.
    pub updated_at: Option<DateTime<Utc>>,
}

/// A change of state that becomes a fact.
#[derive(Debug, Clone)]
pub(crate) struct BreakerChange<'a> {
    /// State before; `None` where there was no row.
    pub(crate) from: Option<BreakerState>,
    /// State after.
    pub(crate) to: BreakerState,
    /// Failures in a row, after the change.
    pub(crate) failure_count: u32,
    /// Why.
    pub(crate) reason: BreakerReason,
    /// Job whose outcome caused it.
    pub(crate) job: Option<&'a JobId>,
}

/// A fact of a change, as stored.
#[derive(Debug, Clone)]
pub struct BreakerTransition {
    /// Id of the fact.
    pub id: String,
    /// State before; `None` where there was no row.
    pub from_state: Option<String>,
    /// State after.
    pub to_state: String,
    /// Failures in a row, after the change.
    pub failure_count: u32,
    /// Why.
    pub reason: String,
    /// Job whose outcome caused it.
    pub job_id: Option<String>,
    /// When.
    pub created_at: Option<DateTime<Utc>>,
}

/// A breaker and its latest changes.
#[derive(Debug, Clone)]
pub struct BreakerReport {
    /// The row, if there is one.
    pub row: Option<BreakerRow>,
    /// Newest first.
    pub transitions: Vec<BreakerTransition>,
}

/// A breaker that a reset closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetBreaker {
    /// Its command.
    pub command: String,
    /// State before; `None` where there was no row.
    pub previous_state: Option<BreakerState>,
}

/// The row of a pair.
pub(crate) fn read(connection: &Connection, plugin: &str, command: &str) -> rusqlite::Result<Option<BreakerRow>> {
    connection
        .prepare_cached(
            "SELECT state, failure_count, opened_at, last_failure_at, last_job_id, updated_at
             FROM circuit_breakers WHERE plugin = ?1 AND command = ?2",
        )?
        .query_row([plugin, command], |row| {
            Ok(BreakerRow {
                state: state(&required_text(row, 0)?),
                failure_count: count(row, 1)?,
                opened_at: time(row, 2)?,
                last_failure_at: time(row, 3)?,
                last_job_id: text(row, 4)?.filter(|id| !id.is_empty()).map(JobId::from),
                updated_at: time(row, 5)?,
            })
        })
        .optional()
}

/// A word that this program does not know must not keep a schedule from running.
fn state(word: &str) -> BreakerState {
    BreakerState::parse(word).unwrap_or(BreakerState::Closed)
}

fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u32> {
    Ok(u32::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
}

/// Writes the row of a pair, new or not.
pub(crate) fn write(
    connection: &Connection,
    plugin: &str,
    command: &str,
    row: &BreakerRow,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO circuit_breakers
                 (plugin, command, state, failure_count, opened_at, last_failure_at, last_job_id, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (plugin, command) DO UPDATE
             SET state = excluded.state, failure_count = excluded.failure_count, opened_at = excluded.opened_at,
                 last_failure_at = excluded.last_failure_at, last_job_id = excluded.last_job_id,
                 updated_at = excluded.updated_at",
        )?
        .execute(params![
            plugin,
            command,
            row.state.as_str(),
            row.failure_count,
            row.opened_at.map(format_db),
            row.last_failure_at.map(format_db),
            row.last_job_id.as_ref().map(JobId::as_str),
            format_db(now),
        ])?;
    Ok(())
}

/// Writes the fact of a change.
pub(crate) fn insert_transition(
    connection: &Connection,
    plugin: &str,
    command: &str,
    change: &BreakerChange<'_>,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO circuit_breaker_transitions
                 (id, plugin, command, from_state, to_state, failure_count, reason, job_id, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            new_id(),
            plugin,
            command,
            change.from.map(BreakerState::as_str),
            change.to.as_str(),
            change.failure_count,
            change.reason.as_str(),
            change.job.map(JobId::as_str),
            format_db(now),
        ])?;
    Ok(())
}

/// The latest changes of a pair, newest first.
pub(crate) fn transitions(
    connection: &Connection,
    plugin: &str,
    command: &str,
    limit: u32,
) -> rusqlite::Result<Vec<BreakerTransition>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, from_state, to_state, failure_count, reason, job_id, created_at
         FROM circuit_breaker_transitions WHERE plugin = ?1 AND command = ?2
         ORDER BY replace(created_at, 'T', ' ') DESC, id DESC LIMIT ?3",
    )?;
    let rows = statement.query_map(params![plugin, command, limit], |row| {
        Ok(BreakerTransition {
            id: required_text(row, 0)?,
            from_state: text(row, 1)?,
            to_state: required_text(row, 2)?,
            failure_count: count(row, 3)?,
            reason: required_text(row, 4)?,
            job_id: text(row, 5)?,
            created_at: time(row, 6)?,
        })
    })?;
    rows.collect()
}

/// A breaker and its latest changes.
pub(crate) fn report(
    connection: &Connection,
    plugin: &str,
    command: &str,
    limit: u32,
) -> rusqlite::Result<BreakerReport> {
    Ok(BreakerReport {
        row: read(connection, plugin, command)?,
        transitions: transitions(connection, plugin, command, limit)?,
    })
}

/// The breakers that a reset of a plugin closes, by command: the named one, or all that have a row and always `poll`.
pub(crate) fn to_reset(
    connection: &Connection,
    plugin: &str,
    command: Option<&str>,
) -> rusqlite::Result<Vec<ResetBreaker>> {
    let mut commands = match command {
        Some(command) => vec![command.to_owned()],
        None => commands(connection, plugin)?,
    };
    if command.is_none() && !commands.iter().any(|command| command == ALWAYS_RESET) {
        commands.push(ALWAYS_RESET.to_owned());
        commands.sort();
    }
    let reset = commands.into_iter().map(|command| {
        let previous_state = read(connection, plugin, &command)?.map(|row| row.state);
        Ok(ResetBreaker { command, previous_state })
    });
    reset.collect()
}

fn commands(connection: &Connection, plugin: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT command FROM circuit_breakers WHERE plugin = ?1 ORDER BY command")?;
    let rows = statement.query_map([plugin], |row| required_text(row, 0))?;
    rows.collect()
}

/// Closes the breakers of a plugin, or the one of a command. That a person did so is a fact even where nothing was
/// open.
pub(crate) fn reset(
    connection: &Connection,
    plugin: &str,
    command: Option<&str>,
    now: DateTime<Utc>,
) -> rusqlite::Result<Vec<ResetBreaker>> {
    let targets = to_reset(connection, plugin, command)?;
    for target in &targets {
        let last_job_id = read(connection, plugin, &target.command)?.and_then(|row| row.last_job_id);
        let closed = BreakerRow {
            state: BreakerState::Closed,
            failure_count: 0,
            opened_at: None,
            last_failure_at: None,
            last_job_id,
            updated_at: None,
        };
        write(connection, plugin, &target.command, &closed, now)?;
        let change = BreakerChange {
            from: target.previous_state,
            to: BreakerState::Closed,
            failure_count: 0,
            reason: BreakerReason::ManualReset,
            job: None,
        };
        insert_transition(connection, plugin, &target.command, &change, now)?;
    }
    Ok(targets)
}

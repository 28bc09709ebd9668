//! Circuit breakers: a scheduled command that keeps failing is left alone for a while. They concern the scheduler's
//! jobs only, and are read from the rows each time, so that a reset by another process counts at once.

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::{JobId, format_db, new_id, parse_stored};
use rusqlite::{Connection, OptionalExtension, params};
use tracing::{info, warn};

use crate::events;
use crate::rows::{JobRow, required_text, text};
use crate::scope::Scope;

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Jobs are queued as they come due.
    Closed,
    /// None is.
    Open,
    /// One is, to try.
    HalfOpen,
}

impl CircuitState {
    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// A word that is not known does not hold jobs back.
    fn parse(word: &str) -> Self {
        match word {
            "open" => Self::Open,
            "half_open" => Self::HalfOpen,
            _ => Self::Closed,
        }
    }
}

/// Final outcome of a scheduled job, as its breaker counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Succeeded,
    Failed,
}

/// What a breaker is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) command: &'a str,
}

/// A row of `circuit_breakers`, times as stored.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    pub(crate) state: CircuitState,
    pub(crate) failures: u32,
    pub(crate) opened_at: Option<String>,
    pub(crate) last_failure_at: Option<String>,
    pub(crate) last_job: Option<String>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: CircuitState::Closed, failures: 0, opened_at: None, last_failure_at: None, last_job: None }
    }
}

impl Breaker {
    pub(crate) fn find(connection: &Connection, target: &Target<'_>) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT state, failure_count, opened_at, last_failure_at, last_job_id
                 FROM circuit_breakers WHERE plugin = ?1 AND command = ?2",
            )?
            .query_row([target.plugin, target.command], |row| {
                Ok(Self {
                    state: CircuitState::parse(&required_text(row, 0)?),
                    failures: row.get(1)?,
                    opened_at: text(row, 2)?,
                    last_failure_at: text(row, 3)?,
                    last_job: text(row, 4)?,
                })
            })
            .optional()
    }

    /// What it is after a final outcome.
    fn after(&self, verdict: Verdict, job: &JobId, at: &str, threshold: u32) -> Self {
        let last_job = Some(job.as_str().to_owned());
        if verdict == Verdict::Succeeded {
            return Self { last_job, ..Self::default() };
        }
        let failures = self.failures.saturating_add(1);
        let opens = match self.state {
            CircuitState::Closed => failures >= threshold,
            CircuitState::HalfOpen => true,
            // A job from before it opened: it stays open, and no longer than it would have.
            CircuitState::Open => false,
        };
        Self {
            state: if opens { CircuitState::Open } else { self.state },
            failures,
            opened_at: if opens { Some(at.to_owned()) } else { self.opened_at.clone() },
            last_failure_at: Some(at.to_owned()),
            last_job,
        }
    }

    /// Whether an open one has been so for long enough. A time that can not be read must not hold jobs back for ever.
    fn has_cooled_down(&self, now: DateTime<Utc>, reset_after: std::time::Duration) -> bool {
        let Some(opened) = self.opened_at.as_deref().and_then(parse_stored) else { return true };
        let ends = TimeDelta::from_std(reset_after).ok().and_then(|wait| opened.checked_add_signed(wait));
        ends.is_some_and(|ends| now >= ends)
    }
}

/// Counts the final outcome of a scheduled job. Outcomes of other producers' jobs do not count.
pub(crate) fn count(scope: &Scope<'_>, job: &JobRow, verdict: Verdict, at: DateTime<Utc>) -> rusqlite::Result<()> {
    if !scope.is_scheduled(job) {
        return Ok(());
    }
    let target = Target { plugin: &job.plugin, command: &job.command };
    let before = Breaker::find(scope.connection(), &target)?.unwrap_or_default();
    if before.last_job.as_deref() == Some(job.id.as_str()) {
        return Ok(());
    }
    let threshold = scope.policy().breaker(&job.plugin).threshold;
    let after = before.after(verdict, &job.id, &format_db(at), threshold);
    let reason = if verdict == Verdict::Succeeded { "success" } else { "failure_threshold" };
    change(scope, &target, &before, &after, reason, Some(&job.id))
}

/// Whether a job of the scheduler may be queued now. The first look after the pause lets one through to try, and no
/// other while that one is under way.
pub(crate) fn admits(scope: &Scope<'_>, target: &Target<'_>) -> rusqlite::Result<bool> {
    let Some(breaker) = Breaker::find(scope.connection(), target)? else { return Ok(true) };
    match breaker.state {
        CircuitState::Closed => Ok(true),
        CircuitState::Open => {
            let reset_after = scope.policy().breaker(target.plugin).reset_after;
            if !breaker.has_cooled_down(scope.now(), reset_after) {
                return Ok(false);
            }
            let tries = Breaker { state: CircuitState::HalfOpen, ..breaker.clone() };
            change(scope, target, &breaker, &tries, "cooldown_elapsed", None)?;
            scope.publish("scheduler.circuit_half_open", events::circuit_half_open(target));
            Ok(!has_outstanding(scope, target)?)
        }
        CircuitState::HalfOpen => Ok(!has_outstanding(scope, target)?),
    }
}

/// Whether a job of the scheduler for this command waits or runs.
fn has_outstanding(scope: &Scope<'_>, target: &Target<'_>) -> rusqlite::Result<bool> {
    scope
        .connection()
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM job_queue INDEXED BY job_queue_plugin_command_status_idx
                            WHERE plugin = ?1 AND command = ?2 AND status IN ('queued', 'running')
                              AND submitted_by = ?3)",
        )?
        .query_row([target.plugin, target.command, &scope.policy().service], |row| row.get(0))
}

/// Writes the row, and what belongs to a change of the state.
fn change(
    scope: &Scope<'_>,
    target: &Target<'_>,
    before: &Breaker,
    after: &Breaker,
    reason: &str,
    job: Option<&JobId>,
) -> rusqlite::Result<()> {
    write(scope.connection(), target, after, scope.now_text())?;
    if before.state == after.state {
        return Ok(());
    }
    let transition = Transition { from: Some(before.state), to: after.state, failures: after.failures, reason, job };
    transition.insert(scope.connection(), target, scope.now_text())?;
    let (plugin, command, state) = (target.plugin, target.command, after.state.as_str());
    if after.state == CircuitState::Open {
        warn!(plugin, command, state, failures = after.failures, "circuit breaker opened: its schedules are held back");
    } else {
        info!(plugin, command, state, reason, "circuit breaker changed");
    }
    let data = events::circuit_changed(target, before.state, after.state, after.failures);
    scope.publish("scheduler.circuit_state_changed", data);
    Ok(())
}

/// Writes a breaker's row.
pub(crate) fn write(
    connection: &Connection,
    target: &Target<'_>,
    breaker: &Breaker,
    now: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO circuit_breakers
                 (plugin, command, state, failure_count, opened_at, last_failure_at, last_job_id, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (plugin, command) DO UPDATE SET
                 state = excluded.state, failure_count = excluded.failure_count, opened_at = excluded.opened_at,
                 last_failure_at = excluded.last_failure_at, last_job_id = excluded.last_job_id,
                 updated_at = excluded.updated_at",
        )?
        .execute(params![
            target.plugin,
            target.command,
            breaker.state.as_str(),
            breaker.failures,
            breaker.opened_at,
            breaker.last_failure_at,
            breaker.last_job,
            now,
        ])?;
    Ok(())
}

/// A change of state, as a fact.
pub(crate) struct Transition<'a> {
    /// `None`: there was no row.
    pub(crate) from: Option<CircuitState>,
    pub(crate) to: CircuitState,
    pub(crate) failures: u32,
    pub(crate) reason: &'a str,
    pub(crate) job: Option<&'a JobId>,
}

impl Transition<'_> {
    pub(crate) fn insert(&self, connection: &Connection, target: &Target<'_>, now: &str) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO circuit_breaker_transitions
                     (id, plugin, command, from_state, to_state, failure_count, reason, job_id, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                new_id(),
                target.plugin,
                target.command,
                self.from.map(CircuitState::as_str),
                self.to.as_str(),
                self.failures,
                self.reason,
                self.job.map(JobId::as_str),
                now,
            ])?;
        Ok(())
    }
}

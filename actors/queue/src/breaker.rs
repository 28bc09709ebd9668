//! What circuit breakers do: a scheduled command that keeps failing is left alone for a while. They concern the
//! scheduler's jobs only, and are read from the rows each time, so that a reset by another process counts at once.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::JobId;
use tracing::{info, warn};

use crate::breaker_rows::{self, BreakerChange, BreakerReason, BreakerRow, BreakerState};
use crate::events;
use crate::rows::JobRow;
use crate::scope::Scope;

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

const UNTOUCHED: BreakerRow = BreakerRow {
    state: BreakerState::Closed,
    failure_count: 0,
    opened_at: None,
    last_failure_at: None,
    last_job_id: None,
    updated_at: None,
};

/// What a breaker is after a final outcome.
fn after(before: &BreakerRow, verdict: Verdict, job: &JobId, at: DateTime<Utc>, threshold: u32) -> BreakerRow {
    let last_job_id = Some(job.clone());
    if verdict == Verdict::Succeeded {
        return BreakerRow { last_job_id, ..UNTOUCHED };
    }
    let failure_count = before.failure_count.saturating_add(1);
    let opens = match before.state {
        BreakerState::Closed => failure_count >= threshold,
        BreakerState::HalfOpen => true,
        // A job from before it opened: it stays open, and no longer than it would have.
        BreakerState::Open => false,
    };
    BreakerRow {
        state: if opens { BreakerState::Open } else { before.state },
        failure_count,
        opened_at: if opens { Some(at) } else { before.opened_at },
        last_failure_at: Some(at),
        last_job_id,
        updated_at: None,
    }
}

/// Whether an open one has been so for long enough. A time that can not be read, or of a clock that was wrong, must not
/// hold jobs back for ever.
fn has_cooled_down(breaker: &BreakerRow, now: DateTime<Utc>, reset_after: Duration) -> bool {
    let Some(opened) = breaker.opened_at else { return true };
    opened > now || cools_down_at(opened, reset_after).is_some_and(|ends| now >= ends)
}

fn cools_down_at(opened: DateTime<Utc>, reset_after: Duration) -> Option<DateTime<Utc>> {
    TimeDelta::from_std(reset_after).ok().and_then(|wait| opened.checked_add_signed(wait))
}

/// When an open one lets a job through to try.
pub(crate) fn tries_at(scope: &Scope<'_>, target: &Target<'_>) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let row = breaker_rows::read(scope.connection(), target.plugin, target.command)?;
    let opened = row.filter(|row| row.state == BreakerState::Open).and_then(|row| row.opened_at);
    Ok(opened.and_then(|opened| cools_down_at(opened, scope.policy().breaker(target.plugin).reset_after)))
}

/// Counts the final outcome of a scheduled job. Outcomes of other producers' jobs do not count.
pub(crate) fn count(scope: &Scope<'_>, job: &JobRow, verdict: Verdict, at: DateTime<Utc>) -> rusqlite::Result<()> {
    if !scope.is_scheduled(job) {
        return Ok(());
    }
    let target = Target { plugin: &job.plugin, command: &job.command };
    let before = breaker_rows::read(scope.connection(), target.plugin, target.command)?.unwrap_or(UNTOUCHED);
    if before.last_job_id.as_ref() == Some(&job.id) {
        return Ok(());
    }
    let threshold = scope.policy().breaker(&job.plugin).threshold;
    let reason = match verdict {
        Verdict::Succeeded => BreakerReason::Success,
        Verdict::Failed => BreakerReason::FailureThreshold,
    };
    let after = after(&before, verdict, &job.id, at, threshold);
    change(scope, &target, &before, &after, reason, Some(&job.id))
}

/// Whether a job of the scheduler may be queued now. The first look after the pause lets one through to try, and no
/// other while that one is under way.
pub(crate) fn admits(scope: &Scope<'_>, target: &Target<'_>) -> rusqlite::Result<bool> {
    let row = breaker_rows::read(scope.connection(), target.plugin, target.command)?;
    let Some(breaker) = row else { return Ok(true) };
    match breaker.state {
        BreakerState::Closed => Ok(true),
        BreakerState::Open => {
            let reset_after = scope.policy().breaker(target.plugin).reset_after;
            if !has_cooled_down(&breaker, scope.now(), reset_after) {
                return Ok(false);
            }
            let tries = BreakerRow { state: BreakerState::HalfOpen, ..breaker.clone() };
            change(scope, target, &breaker, &tries, BreakerReason::CooldownElapsed, None)?;
            scope.publish("scheduler.circuit_half_open", events::circuit_half_open(target));
            Ok(!has_outstanding(scope, target)?)
        }
        BreakerState::HalfOpen => Ok(!has_outstanding(scope, target)?),
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
    before: &BreakerRow,
    after: &BreakerRow,
    reason: BreakerReason,
    job: Option<&JobId>,
) -> rusqlite::Result<()> {
    breaker_rows::write(scope.connection(), target.plugin, target.command, after, scope.now())?;
    if before.state == after.state {
        return Ok(());
    }
    let fact =
        BreakerChange { from: Some(before.state), to: after.state, failure_count: after.failure_count, reason, job };
    breaker_rows::insert_transition(scope.connection(), target.plugin, target.command, &fact, scope.now())?;
    let (plugin, command, state) = (target.plugin, target.command, after.state.as_str());
    if after.state == BreakerState::Open {
        warn!(
            plugin,
            command,
            state,
            failures = after.failure_count,
            "circuit breaker opened: its schedules are held back"
        );
    } else {
        info!(plugin, command, state, reason = reason.as_str(), "circuit breaker changed");
    }
    let data = events::circuit_changed(target, before.state, after.state, after.failure_count);
    scope.publish("scheduler.circuit_state_changed", data);
    Ok(())
}

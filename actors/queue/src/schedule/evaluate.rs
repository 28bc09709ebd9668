//! One look at one schedule, in one transaction.

use chrono::{DateTime, Utc};
use ductile_model::{JobId, Producer};
use ductile_timetable::{Entry, Overlap, Rule};
use rusqlite::params;

use super::{Due, Evaluated, ScheduleRow, ScheduleStatus, SkipReason, reconcile, rows};
use crate::breaker::{self, Target};
use crate::cancel::give_up;
use crate::enqueue::{CheckedJob, enqueue, insert_new};
use crate::scope::Scope;
use crate::{CancelTarget, Cancelled, Enqueued, NewJob, QueueError, cancel, events};

/// Error of jobs that give way to their successor.
const GIVES_WAY: &str = "cancelled by scheduler (if_running=cancel)";

/// What a look led to.
pub(super) struct Looked {
    pub(super) evaluated: Evaluated,
    /// Jobs that gave way.
    gave_way: Option<Cancelled>,
}

/// Says which jobs gave way, once they have.
pub(super) fn tell(looked: &Looked) {
    looked.gave_way.iter().for_each(|cancelled| cancel::tell(cancelled, GIVES_WAY));
}

/// Looks at a schedule and queues its job if it is due and nothing forbids it.
pub(super) fn evaluate(scope: &Scope<'_>, due: &Due) -> Result<Looked, QueueError> {
    if scope.snapshot() != Some(&due.generation) {
        return Ok(Looked { evaluated: Evaluated::Stale, gave_way: None });
    }
    let entry = &*due.entry;
    let found = rows::find(scope.connection(), scope.definitions(), &entry.plugin, &entry.id)?;
    let now = scope.now();
    let mut row = reconcile::reconciled(entry, found.clone(), now, scope.jitter());
    let mut gave_way = None;
    let mut evaluated = decide(scope, entry, &mut row, &mut gave_way)?;
    if let (None, Rule::Cron(_), Evaluated::Fired { slot, at, .. }) = (&found, &entry.rule, &mut evaluated) {
        // The minute that it was first seen in is no slot that it missed.
        *slot = *at;
    }
    if found.as_ref() != Some(&row) {
        keep(scope, &row)?;
    }
    Ok(Looked { evaluated, gave_way })
}

/// Writes a row and tells of it.
pub(super) fn keep(scope: &Scope<'_>, row: &ScheduleRow) -> rusqlite::Result<()> {
    rows::write(scope.connection(), scope.definitions(), row, scope.now_text())?;
    scope.rescheduled(&row.plugin, &row.schedule_id, row.next_run_at);
    Ok(())
}

/// Why a row needs no decision now, whatever its schedule says.
pub(super) fn before_due(row: &ScheduleRow, now: DateTime<Utc>) -> Option<SkipReason> {
    match (row.status, row.next_run_at) {
        (ScheduleStatus::PausedManual, _) => Some(SkipReason::Paused),
        (ScheduleStatus::Exhausted, _) => Some(SkipReason::Exhausted),
        (_, Some(next)) if next <= now => None,
        _ => Some(SkipReason::NotDue),
    }
}

/// Whether the job that is due may be started.
enum Verdict {
    Fired(JobId),
    Refused(SkipReason),
}

fn decide(
    scope: &Scope<'_>,
    entry: &Entry,
    row: &mut ScheduleRow,
    gave_way: &mut Option<Cancelled>,
) -> Result<Evaluated, QueueError> {
    let now = scope.now();
    let slot = match (before_due(row, now), row.next_run_at) {
        (None, Some(slot)) => slot,
        (reason, next) => {
            return Ok(Evaluated::Waits { reason: reason.unwrap_or(SkipReason::NotDue), next, over: None });
        }
    };
    let verdict = match entry.held_back(now) {
        Some(held) => Verdict::Refused(held.into()),
        None => start(scope, entry, gave_way)?,
    };
    match verdict {
        Verdict::Refused(reason) if drops_slot(entry, reason) => {
            row.next_run_at = entry.next_due(now, scope.jitter());
            Ok(Evaluated::Dropped { reason, slot, at: now, next: row.next_run_at })
        }
        Verdict::Refused(reason) => {
            Ok(Evaluated::Waits { reason, next: row.next_run_at, over: over(scope, entry, reason)? })
        }
        Verdict::Fired(job) => {
            row.last_fired_at = Some(now);
            if entry.is_one_shot() {
                reconcile::exhaust(row);
            } else {
                row.next_run_at = entry.next_due(now, scope.jitter());
            }
            Ok(Evaluated::Fired { job, slot, at: now, next: row.next_run_at })
        }
    }
}

/// When a reason is over, as far as the rows tell.
fn over(scope: &Scope<'_>, entry: &Entry, reason: SkipReason) -> rusqlite::Result<Option<DateTime<Utc>>> {
    match reason {
        SkipReason::CircuitOpen => breaker::tries_at(scope, &target(entry)),
        _ => Ok(None),
    }
}

fn target(entry: &Entry) -> Target<'_> {
    Target { plugin: &entry.plugin, command: &entry.command }
}

/// A cron slot is for its minute: what can not run then does not run later at an odd time. An open breaker is no matter
/// of minutes.
fn drops_slot(entry: &Entry, reason: SkipReason) -> bool {
    matches!(entry.rule, Rule::Cron(_)) && reason != SkipReason::CircuitOpen
}

/// Breaker, then jobs that are still there, then the job.
fn start(scope: &Scope<'_>, entry: &Entry, gave_way: &mut Option<Cancelled>) -> Result<Verdict, QueueError> {
    if !breaker::admits(scope, &target(entry))? {
        return Ok(Verdict::Refused(SkipReason::CircuitOpen));
    }
    let job = CheckedJob::new(job(scope, entry, entry.dedupe_key()))?;
    let queued = match entry.if_running {
        Overlap::Skip if outstanding(scope, entry, 1)? > 0 => return Ok(Verdict::Refused(SkipReason::AlreadyRunning)),
        Overlap::Skip => enqueue(scope, &job)?,
        Overlap::Queue { limit } if outstanding(scope, entry, limit)? >= limit => {
            return Ok(Verdict::Refused(SkipReason::OutstandingLimit));
        }
        // Its own count stands for all checks: a key that may be there once would make any limit one.
        Overlap::Queue { .. } => Enqueued::Queued(insert_new(scope, &job)?),
        Overlap::Cancel => {
            *gave_way = Some(clear_the_way(scope, entry)?);
            enqueue(scope, &job)?
        }
    };
    let Enqueued::Queued(id) = queued else { return Ok(Verdict::Refused(SkipReason::AlreadyRunning)) };
    let data = events::scheduled(&id, entry, &scope.policy().service, &entry.id);
    scope.publish("scheduler.scheduled", data);
    Ok(Verdict::Fired(id))
}

fn clear_the_way(scope: &Scope<'_>, entry: &Entry) -> Result<Cancelled, QueueError> {
    let target = CancelTarget::Scheduled { plugin: entry.plugin.clone(), command: entry.command.clone() };
    give_up(scope, &target, GIVES_WAY)
}

/// The job of a schedule under a key.
pub(super) fn job(scope: &Scope<'_>, entry: &Entry, dedupe_key: String) -> NewJob {
    NewJob {
        plugin: entry.plugin.clone(),
        command: entry.command.clone(),
        payload: Some(entry.payload.to_string()),
        submitted_by: Producer::Scheduler(scope.policy().service.as_str().into()),
        max_attempts: entry.max_attempts,
        dedupe_key: Some(dedupe_key),
        // Only what is there counts; that it succeeded lately is what schedules are for.
        dedupe_ttl: Some(std::time::Duration::ZERO),
        parent_job_id: None,
        event_id: None,
        source_event_id: None,
        event_context_id: None,
        direct: false,
    }
}

/// Jobs of the command that wait or run, whoever asked for them, counted up to a limit.
fn outstanding(scope: &Scope<'_>, entry: &Entry, limit: u32) -> rusqlite::Result<u32> {
    scope
        .connection()
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM job_queue INDEXED BY job_queue_plugin_command_status_idx
                                   WHERE plugin = ?1 AND command = ?2 AND status IN ('queued', 'running') LIMIT ?3)",
        )?
        .query_row(params![entry.plugin, entry.command, limit], |row| row.get(0))
}

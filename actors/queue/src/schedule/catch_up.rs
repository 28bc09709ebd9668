//! Making up for runs that were missed while there was no gateway.

use ductile_model::format_wire;
use ductile_timetable::{CatchUp, Entry};
use tracing::{info, warn};

use super::evaluate::{job, keep};
use super::{CatchUpLook, CaughtUp, Due, ScheduleStatus, reconcile, rows};
use crate::breaker_rows::{self, BreakerState};
use crate::enqueue::{CheckedJob, enqueue};
use crate::scope::Scope;
use crate::{Enqueued, QueueError, events};

/// Runs that are made up for one by one.
const MOST: usize = 100;

/// Schedule under which the jobs are told of; the event names the real one besides.
const TOLD_AS: &str = "catch_up";

/// Queues what was missed, as the schedule says.
pub(super) fn catch_up(scope: &Scope<'_>, due: &Due) -> Result<CatchUpLook, QueueError> {
    let entry = &*due.entry;
    if scope.snapshot() != Some(&due.generation) {
        return Ok(CatchUpLook::Stale);
    }
    let now = scope.now();
    let Some(found) = rows::find(scope.connection(), scope.definitions(), &entry.plugin, &entry.id)? else {
        return Ok(CatchUpLook::Nothing);
    };
    let mut row = reconcile::reconciled(entry, Some(found), now, scope.jitter());
    if row.status != ScheduleStatus::Active || !is_closed(scope, entry)? {
        return Ok(CatchUpLook::Nothing);
    }
    let base = row.last_fired_at.or(row.last_success_at);
    let Some(missed) = base.and_then(|base| entry.missed(base, now, MOST)) else {
        return Ok(CatchUpLook::Nothing);
    };
    let (slots, fired_at) = match entry.catch_up {
        CatchUp::Skip => return Ok(CatchUpLook::Nothing),
        CatchUp::RunOnce => (vec![missed.first], now),
        CatchUp::RunAll => (missed.newest.clone(), missed.newest.last().copied().unwrap_or(now)),
    };
    let mut queued = 0;
    for slot in &slots {
        let key = format!("{}:catchup:{}", entry.dedupe_key(), format_wire(*slot));
        if let Enqueued::Queued(id) = enqueue(scope, &CheckedJob::new(job(scope, entry, key))?)? {
            let data = events::caught_up(&id, entry, &scope.policy().service, TOLD_AS);
            scope.publish("scheduler.scheduled", data);
            queued += 1;
        }
    }
    row.last_fired_at = Some(fired_at);
    row.next_run_at = entry.next_due(fired_at, scope.jitter()).map(|next| next.max(now));
    keep(scope, &row)?;
    let dropped = match entry.catch_up {
        CatchUp::RunAll => missed.total.saturating_sub(missed.newest.len() as u64),
        CatchUp::RunOnce | CatchUp::Skip => 0,
    };
    Ok(CatchUpLook::Done(CaughtUp { first: missed.first, missed: missed.total, queued, dropped }))
}

/// A command that fails is not started many times over.
fn is_closed(scope: &Scope<'_>, entry: &Entry) -> rusqlite::Result<bool> {
    let breaker = breaker_rows::read(scope.connection(), &entry.plugin, &entry.command)?;
    Ok(breaker.is_none_or(|breaker| breaker.state == BreakerState::Closed))
}

/// Says what was made up for, once it is.
pub(super) fn tell(entry: &Entry, caught_up: &CaughtUp) {
    let (plugin, schedule_id) = (entry.plugin.as_str(), entry.id.as_str());
    let policy = match entry.catch_up {
        CatchUp::RunAll => "run_all",
        CatchUp::RunOnce => "run_once",
        CatchUp::Skip => "skip",
    };
    let (missed, enqueued, dropped) = (caught_up.missed, caught_up.queued, caught_up.dropped);
    info!(plugin, schedule_id, policy, missed, enqueued, "missed runs of a schedule made up for");
    if dropped > 0 {
        warn!(plugin, schedule_id, dropped, "too many runs were missed: only the newest {MOST} are made up for");
    }
}

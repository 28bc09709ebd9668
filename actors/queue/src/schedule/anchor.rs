//! What the success of a job means for its schedule.

use chrono::{DateTime, Utc};
use ductile_model::format_db;
use rusqlite::params;

use crate::rows::JobRow;
use crate::scope::Scope;

/// Notes that a job of a schedule succeeded; the next run of an interval counts from there.
pub(crate) fn succeeded(scope: &Scope<'_>, job: &JobRow, at: DateTime<Utc>) -> rusqlite::Result<()> {
    let Some(schedule) = schedule_of(scope, job) else { return Ok(()) };
    let interval = scope.policy().interval(&job.plugin, schedule);
    let next = interval.map(|interval| interval.after(at, scope.jitter()));
    let changed = scope
        .connection()
        .prepare_cached(
            "UPDATE schedule_entries
             SET last_success_job_id = ?4, last_success_at = ?5, next_run_at = coalesce(?6, next_run_at),
                 updated_at = ?7
             WHERE plugin = ?1 AND schedule_id = ?2 AND command = ?3",
        )?
        .execute(params![
            &*job.plugin,
            schedule,
            job.command,
            job.id.as_str(),
            format_db(at),
            next.map(format_db),
            scope.now_text(),
        ])?;
    if changed > 0 && next.is_some() {
        scope.rescheduled(&job.plugin, schedule, next);
    }
    Ok(())
}

/// The schedule that a job is of: the third part of its key.
fn schedule_of<'a>(scope: &Scope<'_>, job: &'a JobRow) -> Option<&'a str> {
    if !scope.is_scheduled(job) {
        return None;
    }
    job.schedule_id().filter(|id| !id.is_empty())
}

//! How the time of each attempt was spent: one row per plugin process.

use chrono::{DateTime, Utc};
use ductile_model::JobId;
use rusqlite::params;

use crate::additive::soft;
use crate::scope::Scope;
use crate::{QueueError, Stopwatch};

/// The table of raw rows.
pub(crate) const TABLE: &str = "job_stopwatch";

/// Writes the row of an attempt. What it belongs to is read from the job and its context.
pub(crate) fn record(scope: &Scope<'_>, job: &JobId, attempt: u32, watch: &Stopwatch) -> Result<(), QueueError> {
    soft(TABLE, || {
        scope
            .connection()
            .prepare_cached(
                "INSERT INTO job_stopwatch
                     (job_id, plugin, pipeline, step_id, pipeline_instance_id, attempt, enter_wall_ns, exit_wall_ns,
                      dur_ns, runtime_pre_ns, runtime_post_ns, status, subs_json, recorded_at)
                 SELECT q.id, q.plugin, ifnull(c.pipeline_name, ''), ifnull(c.step_id, ''),
                        ifnull(json_extract(c.accumulated_json, '$.ductile.pipeline_instance_id'), ''),
                        ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
                 FROM job_queue q LEFT JOIN event_context c ON c.id = q.event_context_id
                 WHERE q.id = ?1",
            )?
            .execute(params![
                job.as_str(),
                attempt,
                wall(watch.entered_at),
                wall(watch.exited_at),
                nanos(watch.process),
                nanos(watch.before),
                nanos(watch.after),
                watch.ending.as_str(),
                watch.spans,
                scope.now_text(),
            ])
    })?;
    Ok(())
}

fn wall(at: DateTime<Utc>) -> i64 {
    at.timestamp_nanos_opt().unwrap_or(i64::MAX)
}

fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

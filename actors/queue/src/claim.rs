//! The claim: a waiting row becomes a running attempt and goes to the pool.

use std::collections::HashSet;

use ductile_model::{Cancellation, JobEvent, JobId, JobStatus, parse_stored};
use rusqlite::{Connection, OptionalExtension, params};
use tracing::warn;

use crate::board::{Board, Candidate};
use crate::rows::{insert_transition, required_text, text};
use crate::scope::{Scope, Undo};
use crate::{ClaimPolicy, ClaimedJob, JobContext};

/// Whether something that has no running row holds this key for this plugin and command.
pub(crate) type Holds<'a> = dyn Fn(&str, &str, &str) -> bool + 'a;

/// How one candidate ended.
enum Claim {
    Taken(Box<ClaimedJob>),
    /// A running job has the same key and target.
    Held,
    /// The row is not what the board says.
    Gone,
}

/// Claims as many jobs as fit, oldest first. Runs inside the group's transaction. With [`Undo::Operation`] each claim
/// is undone alone should it fail, so that one bad row does not keep the others from running; else the first failure
/// is the caller's.
pub(crate) fn claim_all(
    scope: &Scope<'_>,
    board: &mut Board,
    policy: &ClaimPolicy,
    holds: &Holds<'_>,
    undo: Undo,
) -> rusqlite::Result<Vec<ClaimedJob>> {
    let mut claimed = Vec::new();
    let mut held = HashSet::new();
    while let Some(candidate) = board.next(policy, &held) {
        if undo == Undo::Operation {
            scope.connection().prepare_cached("SAVEPOINT claim")?.execute([])?;
        }
        match claim_one(scope, &candidate, holds) {
            Ok(Claim::Taken(job)) => {
                board.start(&candidate);
                claimed.push(*job);
            }
            Ok(Claim::Held) => drop(held.insert(candidate.rowid)),
            Ok(Claim::Gone) => {
                board.mark_stale();
                held.insert(candidate.rowid);
            }
            Err(error) if undo == Undo::Group || scope.connection().is_autocommit() => return Err(error),
            Err(error) => {
                warn!(rowid = candidate.rowid, plugin = &*candidate.plugin, %error, "a job could not be claimed");
                scope.connection().prepare_cached("ROLLBACK TO claim")?.execute([])?;
                held.insert(candidate.rowid);
            }
        }
        if undo == Undo::Operation {
            scope.connection().prepare_cached("RELEASE claim")?.execute([])?;
        }
    }
    Ok(claimed)
}

fn claim_one(scope: &Scope<'_>, candidate: &Candidate, holds: &Holds<'_>) -> rusqlite::Result<Claim> {
    let connection = scope.connection();
    let Some(mut job) = read(connection, candidate.rowid)? else { return Ok(Claim::Gone) };
    if let Some(key) = &job.dedupe_key
        && (holds(key, &job.plugin, &job.command) || is_running(connection, key, &job)?)
    {
        return Ok(Claim::Held);
    }
    let status = JobStatus::Queued.apply(JobEvent::Claimed).unwrap_or(JobStatus::Running);
    connection
        .prepare_cached(
            "UPDATE job_queue SET status = ?2, started_at = ?3, started_config_snapshot_id = ?4, next_retry_at = NULL
             WHERE rowid = ?1",
        )?
        .execute(params![candidate.rowid, status.as_str(), scope.now_text(), scope.snapshot().map(|id| id.as_str())])?;
    insert_transition(scope, &job.id, Some(JobStatus::Queued), status, None)?;
    connection
        .prepare_cached("INSERT INTO job_attempts (job_id, attempt, created_at) VALUES (?1, ?2, ?3)")?
        .execute(params![job.id.as_str(), job.attempt, scope.now_text()])?;
    job.started_at = scope.now();
    Ok(Claim::Taken(Box::new(job)))
}

fn read(connection: &Connection, rowid: i64) -> rusqlite::Result<Option<ClaimedJob>> {
    connection
        .prepare_cached(
            "SELECT q.id, q.plugin, q.command, q.payload, q.attempt, q.max_attempts, q.submitted_by, q.dedupe_key,
                    q.created_at, q.parent_job_id, q.event_context_id,
                    (SELECT state FROM plugin_state WHERE plugin_name = q.plugin),
                    c.accumulated_json, c.pipeline_name, c.step_id
             FROM job_queue q LEFT JOIN event_context c ON c.id = q.event_context_id
             WHERE q.rowid = ?1 AND q.status = 'queued'",
        )?
        .query_row([rowid], |row| {
            let created_at = parse_stored(&required_text(row, 8)?).unwrap_or_default();
            Ok(ClaimedJob {
                id: JobId::from(required_text(row, 0)?),
                plugin: required_text(row, 1)?,
                command: required_text(row, 2)?,
                payload: text(row, 3)?,
                attempt: row.get(4)?,
                max_attempts: row.get(5)?,
                submitted_by: required_text(row, 6)?,
                dedupe_key: text(row, 7)?.filter(|key| !key.is_empty()),
                created_at,
                started_at: created_at,
                parent_job_id: text(row, 9)?.map(JobId::from),
                event_context_id: text(row, 10)?,
                state: text(row, 11)?,
                context: match text(row, 12)? {
                    Some(accumulated) => Some(JobContext {
                        pipeline: required_text(row, 13)?,
                        step_id: required_text(row, 14)?,
                        accumulated,
                    }),
                    None => None,
                },
                cancellation: Cancellation::default(),
            })
        })
        .optional()
}

fn is_running(connection: &Connection, key: &str, job: &ClaimedJob) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM job_queue INDEXED BY job_queue_dedupe_status_completed_idx
                            WHERE dedupe_key = ?1 AND status = 'running' AND plugin = ?2 AND command = ?3)",
        )?
        .query_row(params![key, job.plugin, job.command], |row| row.get(0))
}

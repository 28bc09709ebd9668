//! Giving jobs up from outside: in one transaction, so that what was answered holds across a crash. Processes are
//! ended after the commit.

use ductile_model::{JobId, JobStatus};
use rusqlite::{Connection, params};
use tracing::info;

use crate::finalise::cancel;
use crate::rows::{JobRow, required_text};
use crate::scope::Scope;
use crate::{CancelTarget, Cancelled, QueueError, read};

/// Gives up whatever the target names. The text becomes the error of each job.
pub(crate) fn give_up(scope: &Scope<'_>, target: &CancelTarget, text: &str) -> Result<Cancelled, QueueError> {
    let connection = scope.connection();
    let ids = match target {
        CancelTarget::Job(id) => vec![id.clone()],
        CancelTarget::Tree(root) => read::tree_ids(connection, root)?,
        CancelTarget::Scheduled { plugin, command } => scheduled(scope, plugin, command)?,
    };
    let (mut queued, mut running) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(job) = JobRow::find(connection, &id)? else { continue };
        match job.status {
            JobStatus::Queued => queued.push(id),
            JobStatus::Running => running.push(id),
            _ => continue,
        }
        cancel(scope, &job, text)?;
    }
    match target {
        CancelTarget::Job(id) | CancelTarget::Tree(id) if queued.is_empty() && running.is_empty() => {
            not_active(connection, id)
        }
        _ => Ok(Cancelled::Done { queued, running }),
    }
}

/// Says what was cancelled, once it is.
pub(crate) fn tell(cancelled: &Cancelled, text: &str) {
    let Cancelled::Done { queued, running } = cancelled else { return };
    for (ids, was) in [(queued, JobStatus::Queued), (running, JobStatus::Running)] {
        for id in ids {
            info!(job_id = id.as_str(), was = was.as_str(), reason = text, "job cancelled");
        }
    }
}

fn not_active(connection: &Connection, id: &JobId) -> Result<Cancelled, QueueError> {
    Ok(read::status(connection, id)?.map_or(Cancelled::Unknown, Cancelled::NotActive))
}

/// The scheduler's own jobs of a command that wait or run, oldest first.
fn scheduled(scope: &Scope<'_>, plugin: &str, command: &str) -> rusqlite::Result<Vec<JobId>> {
    let mut statement = scope.connection().prepare_cached(
        "SELECT id FROM job_queue INDEXED BY job_queue_plugin_command_status_idx
         WHERE plugin = ?1 AND command = ?2 AND status IN ('queued', 'running') AND submitted_by = ?3
         ORDER BY created_at, rowid",
    )?;
    let rows = statement
        .query_map(params![plugin, command, scope.policy().service], |row| required_text(row, 0).map(JobId::from))?;
    rows.collect()
}

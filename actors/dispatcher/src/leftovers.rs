//! Processes that a killed gateway left behind.

use std::collections::BTreeSet;
use std::time::Duration;

use ductile_model::JobId;

use crate::procs;

/// Processes that could not be ended.
#[derive(Debug, thiserror::Error)]
#[error("processes of interrupted jobs are still running: {}", pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
pub struct StillRunning {
    /// Their process ids.
    pub pids: Vec<u32>,
}

/// Ends every process whose environment holds the id of one of these jobs, and waits until none is left. Blocking.
/// Returns how many process groups were signalled.
///
/// The gateway itself, its ancestors and their process groups are never signalled. Zombies do not count. A process
/// that replaced its environment, or runs as another user, is not found.
///
/// # Errors
/// Some are still there after `limit`.
pub fn end_leftovers(jobs: &[JobId], limit: Duration) -> Result<usize, StillRunning> {
    if jobs.is_empty() {
        return Ok(0);
    }
    let jobs: BTreeSet<&str> = jobs.iter().map(JobId::as_str).collect();
    procs::end_jobs(&jobs, limit)
}

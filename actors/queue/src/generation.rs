//! What becomes true in one transaction when a generation takes over.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::params;
use tokio::sync::mpsc;
use tracing::info;

use crate::rows::{JobRow, LaneName};
use crate::scope::{Claiming, Installed, Scope};
use crate::{ActivateGeneration, ClaimedJob, QueueError, SnapshotRow, finalise, history};

/// Names of the gateway's own steps; no configuration makes them runnable or not.
const BUILT_IN: &str = "core.";

/// Writes the snapshot, cancels what can no longer run, closes the reload's history row, and has the generation
/// installed once that is committed.
pub(crate) fn activate(
    scope: &Scope<'_>,
    generation: &ActivateGeneration,
    claims: &mpsc::UnboundedSender<ClaimedJob>,
) -> Result<(), QueueError> {
    // Before anything is written: a stop is final.
    if scope.claiming() == Claiming::Ended {
        return Err(QueueError::Stopping);
    }
    insert_snapshot(scope, &generation.snapshot)?;
    if let Some(runnable) = &generation.runnable {
        cancel_lost(scope, runnable)?;
    }
    if let Some(entry) = &generation.reload {
        history::close_ok(scope, entry, &generation.snapshot.id)?;
    }
    let claims = claims.clone();
    scope.install(Installed {
        snapshot: generation.snapshot.id.clone(),
        policy: Arc::new(generation.policy.clone()),
        claims,
    });
    Ok(())
}

/// Cancels the waiting jobs of plugins that are gone. Plugins that are still there cost a look at their name.
fn cancel_lost(scope: &Scope<'_>, runnable: &BTreeSet<String>) -> Result<(), QueueError> {
    let mut lost = Vec::new();
    for lane in LaneName::all(scope.connection())? {
        let name = lane.text();
        if !runnable.contains(&*name) && !name.starts_with(BUILT_IN) {
            lost.extend(JobRow::queued(scope.connection(), &lane)?);
        }
    }
    lost.sort_by(|a, b| (&a.created_at, a.rowid).cmp(&(&b.created_at, b.rowid)));
    for job in &lost {
        finalise::cancel(scope, job, "cancelled by reload: plugin removed or disabled")?;
        info!(job_id = job.id.as_str(), plugin = &*job.plugin, "queued job cancelled: its plugin is gone or disabled");
    }
    Ok(())
}

fn insert_snapshot(scope: &Scope<'_>, row: &SnapshotRow) -> rusqlite::Result<()> {
    scope
        .connection()
        .prepare_cached(
            "INSERT INTO config_snapshots
                 (id, config_hash, source_hash, source_path, source, reason, loaded_at, ductile_version, binary_path,
                  snapshot_format, semantics, plugin_fingerprints, sanitized_config, secret_fingerprints)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            row.id.as_str(),
            row.config_hash,
            row.source_hash,
            row.source_path,
            row.source,
            row.reason,
            scope.now_text(),
            row.ductile_version,
            row.binary_path,
            row.semantics,
            row.plugin_fingerprints,
            row.sanitized_config,
            row.secret_fingerprints,
        ])?;
    Ok(())
}

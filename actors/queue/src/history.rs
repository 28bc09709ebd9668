//! The history of reloads. An older database may lack the table: then there is a warning and no history.

use ductile_model::{Outcome, SnapshotId, format_db, parse_stored};
use rusqlite::{Connection, params};

use crate::additive::soft;
use crate::rows::{required_text, text};
use crate::scope::Scope;
use crate::{QueueError, ReloadEntry, ReloadRecord, schema};

const TABLE: &str = "reload_history";

/// Rows kept.
const KEPT: i64 = 500;

/// Opens a row.
pub(crate) fn begin(
    scope: &Scope<'_>,
    trigger: &str,
    actor: Option<&str>,
    old_posture: &'static str,
) -> Result<ReloadEntry, QueueError> {
    let connection = scope.connection();
    let row = soft(TABLE, || {
        let row: i64 = connection.query_row(
            "INSERT INTO reload_history (requested_at, trigger, actor, old_snapshot_id, old_posture)
             VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
            params![scope.now_text(), trigger, actor, scope.snapshot().map(SnapshotId::as_str), old_posture],
            |row| row.get(0),
        )?;
        connection.execute(
            "DELETE FROM reload_history
             WHERE id <= (SELECT id FROM reload_history ORDER BY id DESC LIMIT 1 OFFSET ?1)",
            [KEPT],
        )?;
        Ok(row)
    })?;
    Ok(ReloadEntry {
        row,
        requested_at: scope.now(),
        old_snapshot: scope.snapshot().cloned(),
        old_posture,
        new_posture: None,
    })
}

/// Closes a row: the reload is in force.
pub(crate) fn close_ok(scope: &Scope<'_>, entry: &ReloadEntry, new: &SnapshotId) -> Result<(), QueueError> {
    close(scope, entry, Outcome::Ok, None, None, Some(new.as_str()))
}

/// Closes a row: the reload was refused and what served before goes on.
pub(crate) fn close_refused(
    scope: &Scope<'_>,
    entry: &ReloadEntry,
    outcome: Outcome,
    stage: &str,
    error: &str,
) -> Result<(), QueueError> {
    let still = entry.old_snapshot.as_ref().map(SnapshotId::as_str);
    close(scope, entry, outcome, Some(stage), Some(error), still)
}

fn close(
    scope: &Scope<'_>,
    entry: &ReloadEntry,
    outcome: Outcome,
    stage: Option<&str>,
    error: Option<&str>,
    in_force: Option<&str>,
) -> Result<(), QueueError> {
    let Some(row) = entry.row else { return Ok(()) };
    let took = (scope.now() - entry.requested_at).num_milliseconds().max(0);
    soft(TABLE, || {
        scope.connection().execute(
            "UPDATE reload_history
             SET finished_at = ?2, outcome = ?3, stage = ?4, error = ?5, new_snapshot_id = ?6, new_posture = ?7,
                 duration_ms = ?8
             WHERE id = ?1",
            params![row, format_db(scope.now()), outcome.as_str(), stage, error, in_force, entry.new_posture, took],
        )
    })?;
    Ok(())
}

/// Newest first.
pub(crate) fn newest(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<ReloadRecord>> {
    if !schema::has_table(connection, TABLE)? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(
        "SELECT id, requested_at, finished_at, trigger, actor, outcome, stage, error, new_snapshot_id, duration_ms
         FROM reload_history ORDER BY id DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([limit], |row| {
        let word = text(row, 5)?;
        Ok(ReloadRecord {
            id: row.get(0)?,
            requested_at: text(row, 1)?.as_deref().and_then(parse_stored),
            finished_at: text(row, 2)?.as_deref().and_then(parse_stored),
            trigger: required_text(row, 3)?,
            actor: text(row, 4)?,
            outcome: word.and_then(|word| {
                [Outcome::Ok, Outcome::Rejected, Outcome::Failed].into_iter().find(|outcome| outcome.as_str() == word)
            }),
            stage: text(row, 6)?,
            error: text(row, 7)?,
            new_snapshot: text(row, 8)?,
            duration_ms: row.get(9)?,
        })
    })?;
    rows.collect()
}

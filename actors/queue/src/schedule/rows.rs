//! Rows of `schedule_entries`.

use ductile_model::{JobId, format_db};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Definition, ScheduleRow, ScheduleStatus};
use crate::read::time;
use crate::rows::{required_text, text};

/// A macro, so that statements are made of it when this is compiled.
macro_rules! columns {
    () => {
        "SELECT plugin, schedule_id, command, status, reason, last_fired_at, last_success_job_id, last_success_at,
                next_run_at"
    };
}

/// Whether the database keeps what the times were computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Definitions {
    Kept,
    /// It is older than the column.
    Unknown,
}

impl Definitions {
    pub(crate) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let kept = crate::schema::has_column(connection, "schedule_entries", "definition")?;
        Ok(if kept { Self::Kept } else { Self::Unknown })
    }
}

fn read(row: &Row<'_>, definitions: Definitions) -> rusqlite::Result<ScheduleRow> {
    let definition = match (definitions, text(row, 9)?.filter(|definition| !definition.is_empty())) {
        (Definitions::Unknown, _) => Definition::NotKept,
        (Definitions::Kept, None) => Definition::Unset,
        (Definitions::Kept, Some(definition)) => Definition::Is(definition),
    };
    Ok(ScheduleRow {
        plugin: required_text(row, 0)?,
        schedule_id: required_text(row, 1)?,
        command: required_text(row, 2)?,
        status: ScheduleStatus::of(&required_text(row, 3)?),
        reason: text(row, 4)?.filter(|reason| !reason.is_empty()),
        last_fired_at: time(row, 5)?,
        last_success_job_id: text(row, 6)?.filter(|id| !id.is_empty()).map(JobId::from),
        last_success_at: time(row, 7)?,
        next_run_at: time(row, 8)?,
        definition,
    })
}

/// All rows, by plugin and id.
pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<ScheduleRow>> {
    let definitions = Definitions::of(connection)?;
    let sql = match definitions {
        Definitions::Kept => {
            concat!(columns!(), ", definition FROM schedule_entries ORDER BY plugin, schedule_id")
        }
        Definitions::Unknown => concat!(columns!(), ", NULL FROM schedule_entries ORDER BY plugin, schedule_id"),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| read(row, definitions))?;
    rows.collect()
}

/// The row of one schedule.
pub(super) fn find(
    connection: &Connection,
    definitions: Definitions,
    plugin: &str,
    id: &str,
) -> rusqlite::Result<Option<ScheduleRow>> {
    let sql = match definitions {
        Definitions::Kept => {
            concat!(columns!(), ", definition FROM schedule_entries WHERE plugin = ?1 AND schedule_id = ?2")
        }
        Definitions::Unknown => {
            concat!(columns!(), ", NULL FROM schedule_entries WHERE plugin = ?1 AND schedule_id = ?2")
        }
    };
    connection.prepare_cached(sql)?.query_row([plugin, id], |row| read(row, definitions)).optional()
}

/// Writes a row, new or not.
pub(super) fn write(
    connection: &Connection,
    definitions: Definitions,
    row: &ScheduleRow,
    now: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO schedule_entries
                 (plugin, schedule_id, command, status, reason, last_fired_at, last_success_job_id, last_success_at,
                  next_run_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (plugin, schedule_id) DO UPDATE
             SET command = excluded.command, status = excluded.status, reason = excluded.reason,
                 last_fired_at = excluded.last_fired_at, last_success_job_id = excluded.last_success_job_id,
                 last_success_at = excluded.last_success_at, next_run_at = excluded.next_run_at,
                 updated_at = excluded.updated_at",
        )?
        .execute(params![
            row.plugin,
            row.schedule_id,
            row.command,
            row.status.as_str(),
            row.reason,
            row.last_fired_at.map(format_db),
            row.last_success_job_id.as_ref().map(JobId::as_str),
            row.last_success_at.map(format_db),
            row.next_run_at.map(format_db),
            now,
        ])?;
    if let (Definitions::Kept, Definition::Is(definition)) = (definitions, &row.definition) {
        connection
            .prepare_cached("UPDATE schedule_entries SET definition = ?3 WHERE plugin = ?1 AND schedule_id = ?2")?
            .execute(params![row.plugin, row.schedule_id, definition])?;
    }
    Ok(())
}

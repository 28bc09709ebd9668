//! Read-write access for commands, beside a running gateway or without one.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ductile_timetable::Entry;
use rusqlite::{Connection, TransactionBehavior};

use crate::open::maintainable;
use crate::prune::{self, ChangeMode, StopwatchFilter, StopwatchPart};
use crate::{ResetBreaker, ScheduleChange, ScheduleChanged, StoreError, breaker_rows, schedule, schema, stopwatch};

/// Read-write access for commands, beside a running gateway or without one. It never creates a database or changes its
/// schema, and its transactions are short: a gateway waits for each of them.
pub struct Maintainer {
    connection: Connection,
    path: PathBuf,
}

impl Maintainer {
    /// Opens and validates an existing database.
    ///
    /// # Errors
    /// Missing, unusable or refused.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: maintainable(path)?, path: path.to_owned() })
    }

    /// Tables that an older database may lack and this one does, with what is lost without each.
    ///
    /// # Errors
    /// The database failed.
    pub fn missing_tables(&self) -> Result<Vec<(&'static str, &'static str)>, StoreError> {
        let failed = |source| StoreError::Sqlite { path: self.path.clone(), source };
        schema::missing_additive(&self.connection).map_err(failed)
    }

    /// Closes the breaker of a command, or all of a plugin and always that of `poll`; tells which these are, by
    /// command.
    ///
    /// # Errors
    /// The database failed or stayed locked; nothing was changed.
    pub fn reset_breakers(
        &mut self,
        plugin: &str,
        command: Option<&str>,
        now: DateTime<Utc>,
        mode: ChangeMode,
    ) -> Result<Vec<ResetBreaker>, StoreError> {
        self.transaction(mode, |connection| match mode {
            ChangeMode::Apply => breaker_rows::reset(connection, plugin, command, now),
            ChangeMode::Preview => breaker_rows::to_reset(connection, plugin, command),
        })
    }

    /// Changes a schedule.
    ///
    /// # Errors
    /// The database failed or stayed locked; nothing was changed.
    pub fn change_schedule(
        &mut self,
        entry: &Entry,
        change: &ScheduleChange,
        now: DateTime<Utc>,
        mode: ChangeMode,
    ) -> Result<ScheduleChanged, StoreError> {
        self.transaction(mode, |connection| schedule::change(connection, entry, change, now, mode))
    }

    /// Takes a part of at most `limit` timing rows away, oldest first; tells how many rows that concerned. Where there
    /// is no such table, that is none.
    ///
    /// # Errors
    /// The database failed or stayed locked; earlier batches are done.
    pub fn prune_stopwatch(
        &mut self,
        part: &StopwatchPart,
        filter: &StopwatchFilter,
        limit: u64,
        mode: ChangeMode,
    ) -> Result<u64, StoreError> {
        if self.missing_tables()?.iter().any(|(table, _)| *table == stopwatch::TABLE) {
            return Ok(0);
        }
        let mut affected = 0;
        let mut next = Some(i64::MIN);
        while let Some(after) = next.filter(|_| affected < limit) {
            let left = limit - affected;
            let done =
                self.transaction(mode, |connection| prune::batch(connection, part, filter, (after, left), mode))?;
            affected += done.affected;
            next = done.next;
        }
        Ok(affected)
    }

    /// A change takes the write lock at once, so it never fails half way for want of it.
    fn transaction<T>(
        &mut self,
        mode: ChangeMode,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let failed = |source| StoreError::Sqlite { path: self.path.clone(), source };
        let behavior = match mode {
            ChangeMode::Apply => TransactionBehavior::Immediate,
            ChangeMode::Preview => TransactionBehavior::Deferred,
        };
        let transaction = self.connection.transaction_with_behavior(behavior).map_err(failed)?;
        let answer = work(&transaction).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(answer)
    }
}

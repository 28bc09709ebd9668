//! Writes to tables that an older database may lack: they fail softly, and are tried again each time, so that a table
//! added meanwhile is used.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::schema::ADDITIVE;

/// Warnings about one table are at least this far apart.
const QUIET: Duration = Duration::from_secs(60);

/// Runs a write to a table that may be missing. `None`: it is, nothing was written, and a warning says so.
pub(crate) fn soft<T>(table: &'static str, write: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match write() {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.to_string().contains(&format!("no such table: {table}")) => {
            warn_at_times(table);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn warn_at_times(table: &'static str) {
    static WARNED: LazyLock<Mutex<HashMap<&'static str, Instant>>> = LazyLock::new(Mutex::default);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.get(table).is_some_and(|at| at.elapsed() < QUIET) {
        return;
    }
    warned.insert(table, Instant::now());
    let lost = ADDITIVE.iter().find(|(name, ..)| *name == table).map_or("", |(_, _, lost)| *lost);
    warn!(table, lost, "the state database lacks a table; run \"ductile system migrate --additive\" to add it");
}

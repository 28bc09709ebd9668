//! Room on the disk, looked at before anything is changed.

use std::io;
use std::path::Path;

use rusqlite::Connection;

use crate::migrate::steps::Plan;
use crate::migrate::{MigrateError, MigrateOptions};
use crate::open::{io_error, refusal, side_file};

/// What small changes take: pages of the schema, and what stands in the journal of one transaction.
const SMALL: u64 = 4 << 20;

/// Bytes that this process may still write in a directory.
pub(crate) fn free(directory: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(directory)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// A snapshot is as large as what is in use. A step that rewrites rows may write all of it once more, to the journal;
/// giving pages back writes it to a file of its own and to the journal.
pub(crate) fn check(
    path: &Path,
    connection: &Connection,
    plan: &Plan,
    options: &MigrateOptions,
    free: fn(&Path) -> io::Result<u64>,
) -> Result<(), MigrateError> {
    let used = used(connection).map_err(refusal(path))?;
    let log = std::fs::metadata(side_file(path, "-wal")).map_or(0, |log| log.len());
    let copies = u64::from(plan.needs_work() && options.takes_snapshot())
        + u64::from(plan.rewrites_rows()).max(2 * u64::from(options.vacuum));
    let needed = copies * (used + log) + SMALL;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = free(directory).map_err(io_error("inspecting", directory))?;
    if free < needed {
        return Err(MigrateError::NoSpace { directory: directory.to_owned(), needed, free });
    }
    Ok(())
}

fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let one = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let bytes = (one("page_count")? - one("freelist_count")?) * one("page_size")?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

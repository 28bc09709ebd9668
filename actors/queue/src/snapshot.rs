//! A copy of the database as of one instant, taken beside its writers.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::StoreError;
use crate::open::{io_error, refusal, unchanged};

/// Copies what is committed in a database to a new file with mode 0600, which needs no side files. The copy gets its
/// name when it is complete and on the disk, so a kill leaves no half of one under that name.
///
/// # Errors
/// There is no database, the target exists, or it can not be written.
pub fn snapshot(source: &Path, target: &Path) -> Result<(), StoreError> {
    if !source.exists() {
        return Err(StoreError::NotFound(source.to_owned()));
    }
    if target.exists() {
        return Err(exists(target));
    }
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let copy = tempfile::Builder::new()
        .prefix(&partial_prefix(target))
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(io_error("creating a file in", directory))?;
    // SQLite takes the name as text.
    let name = copy.path().to_str().ok_or_else(|| {
        StoreError::Refused(format!("{} can not be written: its name is not UTF-8", target.display()))
    })?;
    let connection = unchanged(source).map_err(refusal(source))?;
    connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(|source| StoreError::Sqlite { path: target.to_owned(), source })?;
    copy.as_file().sync_all().map_err(io_error("writing", target))?;
    copy.persist_noclobber(target).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => exists(target),
        _ => io_error("creating", target)(error.error),
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error("writing", directory))
}

/// How the names of copies begin that are not complete.
pub(crate) fn partial_prefix(target: &Path) -> String {
    format!(".{}.", target.file_name().unwrap_or_default().to_string_lossy())
}

fn exists(target: &Path) -> StoreError {
    StoreError::Refused(format!("{} exists already; nothing is written over a snapshot", target.display()))
}

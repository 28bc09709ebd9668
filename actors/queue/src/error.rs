//! What can go wrong with the store and the queue.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the database could not be opened. Every text names the path or the object and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or its directory can not be used.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such file.
    #[error("database not found: {path}", path = .0.display())]
    NotFound(PathBuf),
    /// This user may not use the file, or a directory above it.
    #[error(
        "{path} belongs to uid {owner} and is closed to this user (uid {user}): run the command as that user, or ask \
         the gateway through its API",
        path = path.display()
    )]
    Denied {
        /// What is closed.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// The file is refused: not a database, damaged, wrong schema, newer, on a network file system.
    #[error("{0}")]
    Refused(String),
    /// SQLite said no.
    #[error("state database {path}: {source}", path = path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Whether another process held the write lock beyond the busy timeout.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.sqlite_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// Whether a permission may be the cause.
    pub(crate) fn is_about_access(&self) -> bool {
        use ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            _ => matches!(self.sqlite_code(), Some(CannotOpen | PermissionDenied | ReadOnly)),
        }
    }

    fn sqlite_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code(),
            _ => None,
        }
    }
}

/// Why an operation on the queue was not done.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The request is wrong; nothing was written.
    #[error("{field}: {message}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Another process holds the write lock beyond the busy timeout; nothing was written.
    #[error("database is locked")]
    Busy,
    /// The queue is being restarted; nothing was written.
    #[error("the queue is being restarted")]
    Unavailable,
    /// The process stops, so nothing is claimed any more; nothing was written.
    #[error("the process is stopping: no configuration takes over any more")]
    Stopping,
    /// No answer in time; it may have been written.
    #[error("no answer from the queue in time; it may have been written")]
    OutcomeUnknown,
    /// The database failed; nothing was written.
    #[error("the state database failed")]
    Storage(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => Self::Busy,
            _ => Self::Storage(error),
        }
    }
}

//! The pool of read-only connections. Every read is one short transaction on a blocking thread.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags};

use crate::QueueError;
use crate::open::set_up_reader;

type Pool = r2d2::Pool<SqliteConnectionManager>;

/// How long a read waits for a free connection.
const CHECKOUT_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Readers {
    pool: Mutex<Option<Pool>>,
}

impl Readers {
    /// A pool that opens its connections when they are asked for, and keeps them without looking after them.
    pub(crate) fn new(path: &Path) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let manager = SqliteConnectionManager::file(path).with_flags(flags).with_init(|c| set_up_reader(c));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(cores).unwrap_or(u32::MAX).clamp(2, 4))
            .min_idle(Some(0))
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(CHECKOUT_LIMIT)
            .build_unchecked(manager);
        Self { pool: Mutex::new(Some(pool)) }
    }

    /// Runs a read within one transaction.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(QueueError::Unavailable)?;
        let read = tokio::task::spawn_blocking(move || {
            let connection = pool.get().map_err(|_| QueueError::Unavailable)?;
            let transaction = connection.unchecked_transaction().map_err(QueueError::from)?;
            Ok(work(&transaction)?)
        });
        // A read that panicked has changed nothing.
        read.await.unwrap_or(Err(QueueError::Unavailable))
    }

    /// Closes the connections that nobody uses; others close when they come back.
    pub(crate) fn close(&self) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

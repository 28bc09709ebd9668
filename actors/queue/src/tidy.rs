//! What the writer does for the file when nobody wants anything: free pages go back to the file system, and the
//! write-ahead log is emptied. In steps so small that an operation that comes meanwhile hardly waits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tracing::{debug, warn};

use crate::open::{BUSY_TIMEOUT, side_file};

/// Without changes for this long the writer counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(3);
/// Time until the next try after one that did not succeed: most readers are gone at once. It doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Size from which the log is emptied even under load, as far as readers let it.
const WAL_LARGE: u64 = 64 << 20;
/// Size from which a reader that keeps the log from being emptied is told of.
const WAL_PINNED: u64 = 256 << 20;
/// How long a checkpoint under load waits for readers to move on.
const PATIENCE: Duration = Duration::from_millis(20);
/// Between two warnings about the same reader.
const WARN_EVERY: Duration = Duration::from_secs(300);
/// Share of the file that may stay free.
const FREE_SHARE: u64 = 10;
/// A step of giving back should take about this long.
const STEP_TARGET: Duration = Duration::from_millis(10);
const PAGES: std::ops::RangeInclusive<u64> = 16..=1024;

/// Whether there is more to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tidied {
    All,
    More,
}

pub(crate) struct Tidy {
    wal: PathBuf,
    last_work: Instant,
    /// Something was written since everything was tidy.
    dirty: bool,
    not_before: Option<Instant>,
    pause: Duration,
    pages: u64,
    warned: Option<Instant>,
}

impl Tidy {
    pub(crate) fn new(database: &Path) -> Self {
        let wal = side_file(database, "-wal");
        Self {
            wal,
            last_work: Instant::now(),
            dirty: true,
            not_before: None,
            pause: FIRST_PAUSE,
            pages: 128,
            warned: None,
        }
    }

    /// A commit changed something.
    pub(crate) fn worked(&mut self) {
        self.last_work = Instant::now();
        self.dirty = true;
    }

    /// Does one step when the writer is idle and something is left to be done.
    pub(crate) fn step(&mut self, connection: &Connection) -> Tidied {
        let now = Instant::now();
        let early = self.not_before.is_some_and(|at| now < at);
        if !self.dirty || early || self.last_work.elapsed() < IDLE_AFTER {
            return Tidied::All;
        }
        match self.give_back(connection).and_then(|given| match given {
            Tidied::More => Ok(Tidied::More),
            Tidied::All => self.empty_wal(connection).map(|()| Tidied::All),
        }) {
            Ok(tidied) => tidied,
            Err(error) => {
                debug!(%error, "the state database could not be tidied up; tried again later");
                self.try_later();
                Tidied::All
            }
        }
    }

    /// Frees a few pages when more than their share are free. Files that were not made for it keep their pages.
    fn give_back(&mut self, connection: &Connection) -> rusqlite::Result<Tidied> {
        if pragma(connection, "PRAGMA auto_vacuum")? != 2 {
            return Ok(Tidied::All);
        }
        let (all, free) = (pragma(connection, "PRAGMA page_count")?, pragma(connection, "PRAGMA freelist_count")?);
        let surplus = free.saturating_sub(all / FREE_SHARE);
        if surplus == 0 {
            return Ok(Tidied::All);
        }
        let began = Instant::now();
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({})", self.pages.min(surplus)))?;
        let took = began.elapsed();
        let pages = if took > STEP_TARGET { self.pages / 2 } else { self.pages * 2 };
        self.pages = pages.clamp(*PAGES.start(), *PAGES.end());
        Ok(Tidied::More)
    }

    /// Empties the log and cuts its file. A reader in the way is not waited for.
    fn empty_wal(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.wal_size() > 0 && !checkpoint(connection, "TRUNCATE", Duration::ZERO)? {
            self.try_later();
            return Ok(());
        }
        self.dirty = false;
        self.not_before = None;
        self.pause = FIRST_PAUSE;
        Ok(())
    }

    fn try_later(&mut self) {
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn wal_size(&self) -> u64 {
        std::fs::metadata(&self.wal).map_or(0, |file| file.len())
    }

    /// Under load, once a second: a log that has grown large is checkpointed. Its size, when a reader keeps it from
    /// shrinking and that is to be told now.
    pub(crate) fn watch_wal(&mut self, connection: &Connection) -> Option<u64> {
        if self.wal_size() <= WAL_LARGE {
            return None;
        }
        if let Err(error) = checkpoint(connection, "TRUNCATE", PATIENCE) {
            debug!(%error, "a large write-ahead log could not be emptied");
        }
        let size = self.wal_size();
        let quiet = self.warned.is_some_and(|at| at.elapsed() < WARN_EVERY);
        if size <= WAL_PINNED || quiet {
            return None;
        }
        self.warned = Some(Instant::now());
        warn!(
            path = %self.wal.display(),
            bytes = size,
            "the write-ahead log can not be emptied: another program has held a read transaction for long; end it"
        );
        Some(size)
    }
}

/// Whether the whole log is in the database now.
fn checkpoint(connection: &Connection, mode: &str, patience: Duration) -> rusqlite::Result<bool> {
    connection.busy_timeout(patience)?;
    let busy = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(busy? == 0)
}

fn pragma(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    let number: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

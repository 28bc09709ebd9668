//! The writer: one thread, the only read-write connection, and every commit of the gateway.
//!
//! It takes all operations that wait, runs them in one immediate transaction, claims what fits the free workers,
//! commits once, and then answers, publishes, wakes and hands out, in this order. An operation that fails leaves
//! nothing behind and fails alone. It never waits for more work while there is some.

mod group;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ductile_model::{Clock, EventHub, JobId};
use rusqlite::Connection;
use tokio::sync::{broadcast, oneshot, watch};
use tracing::{debug, error, warn};

use crate::board::Board;
use crate::open::{file_identity, set_synchronous};
use crate::running::RunningAttempts;
use crate::scope::{Claiming, Frame, Installed, Operation, Undo};
use crate::tidy::{Tidied, Tidy};
use crate::watches::{TreeReply, Watches};
use crate::{ClaimPolicy, ClaimedJob, QueueError, ScheduleNews, Synchronous};

/// How often an idle writer looks for rows of other processes.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Whatever goes to the thread.
pub(crate) enum Message {
    /// A change of the database.
    Operation(Box<dyn Operation>),
    /// Tell when the tree of a job is complete.
    Watch { id: u64, root: JobId, reply: TreeReply },
    /// Whoever watched is gone.
    Unwatch(u64),
    /// Durability from the next commit on.
    Synchronous(Synchronous),
    /// No more claims for good; answered when the last one has been handed out.
    StopClaiming(oneshot::Sender<()>),
    /// Answered when everything that came before is done.
    Flush(Box<dyn FnOnce() + Send>),
    /// Finish what came before, close the database, end.
    Close(oneshot::Sender<()>),
}

/// What the thread shares with the store.
pub(crate) struct Shared {
    /// Jobs queued and running, as of the last commit.
    pub(crate) depth: AtomicU64,
    /// Why the process must end.
    pub(crate) failed: watch::Sender<Option<String>>,
    /// Whether the newest commit that wrote something failed.
    pub(crate) last_write_failed: std::sync::atomic::AtomicBool,
    /// Tells what moves schedules, after its commit.
    pub(crate) schedules: broadcast::Sender<ScheduleNews>,
}

impl Shared {
    /// Tells the root that the process must end. The first reason stands.
    pub(crate) fn fail(&self, reason: String) {
        self.failed.send_if_modified(|present| {
            let first = present.is_none();
            if first {
                *present = Some(reason);
            }
            first
        });
    }
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) hub: EventHub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) frame: Frame,
    pub(crate) max_group: usize,
    claimer: Option<Claimer>,
    board: Board,
    running: RunningAttempts,
    watches: Watches,
    /// Operations that wait for another process to let go of the write lock.
    pending: VecDeque<Box<dyn Operation>>,
    undo: Undo,
    data_version: i64,
    identity: Option<(u64, u64)>,
    looked_around: Instant,
    /// A claim should be tried without waiting for the next message.
    claim_soon: bool,
    /// The file is being tidied up, step by step.
    tidy_soon: bool,
    tidy: Tidy,
    /// Answers that are due once nothing is pending.
    flushes: Vec<Box<dyn FnOnce() + Send>>,
    closing: Option<oneshot::Sender<()>>,
}

struct Claimer {
    policy: Arc<ClaimPolicy>,
    claims: tokio::sync::mpsc::UnboundedSender<ClaimedJob>,
}

/// Names the parts a writer is made of.
pub(crate) struct WriterParts {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) hub: EventHub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) jitter: crate::scope::Jitter,
    /// Until a generation is installed.
    pub(crate) snapshot: Option<ductile_model::SnapshotId>,
    pub(crate) policy: ClaimPolicy,
    pub(crate) max_group: usize,
}

/// Says that the thread ended although nobody asked it to.
struct EndsUnasked(Arc<Shared>);

impl Drop for EndsUnasked {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the writer of the state database stopped by a panic".to_owned());
        }
    }
}

impl Writer {
    pub(crate) fn new(parts: WriterParts) -> rusqlite::Result<Self> {
        let log_has_start = crate::schema::has_column(&parts.connection, "job_log", "started_at")?;
        let identity = file_identity(&parts.path).ok();
        let tidy = Tidy::new(&parts.path);
        let board = Board::load(&parts.connection)?;
        let data_version = data_version(&parts.connection)?;
        parts.shared.depth.store(board.depth(), Ordering::Release);
        Ok(Self {
            frame: Frame {
                claiming: Claiming::Allowed,
                snapshot: parts.snapshot,
                policy: Arc::new(parts.policy),
                log_has_start,
                definitions: crate::schedule::Definitions::of(&parts.connection)?,
                jitter: parts.jitter,
            },
            connection: parts.connection,
            path: parts.path,
            inbox: parts.inbox,
            shared: parts.shared,
            hub: parts.hub,
            clock: parts.clock,
            max_group: parts.max_group.max(1),
            claimer: None,
            board,
            running: RunningAttempts::default(),
            watches: Watches::default(),
            pending: VecDeque::new(),
            undo: Undo::Group,
            data_version,
            identity,
            looked_around: Instant::now(),
            claim_soon: false,
            tidy_soon: false,
            tidy,
            flushes: Vec::new(),
            closing: None,
        })
    }

    /// Runs until it is closed or the last sender is gone.
    pub(crate) fn run(mut self) {
        let _guard = EndsUnasked(self.shared.clone());
        loop {
            let first = match self.wait() {
                Ok(message) => {
                    // Who is about to ask as well gets into the same commit. Costs nothing where nobody else can run.
                    std::thread::yield_now();
                    Some(message)
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let idle = first.is_none();
            let controls = self.turn(first);
            for control in controls {
                self.control(control);
            }
            self.look_around();
            self.tidy_soon = idle && !self.claim_soon && self.tidy.step(&self.connection) == Tidied::More;
            if self.pending.is_empty() {
                self.flushes.drain(..).for_each(|flushed| flushed());
                if self.closing.is_some() {
                    break;
                }
            }
        }
        self.close();
    }

    fn wait(&self) -> Result<Message, RecvTimeoutError> {
        if !self.pending.is_empty() || self.claim_soon || self.tidy_soon {
            return match self.inbox.try_recv() {
                Ok(message) => Ok(message),
                Err(TryRecvError::Empty) => Err(RecvTimeoutError::Timeout),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            };
        }
        let until_look = LOOK_AROUND.saturating_sub(self.looked_around.elapsed());
        if self.claimer.is_none() {
            return self.inbox.recv_timeout(until_look);
        }
        let until_due = self.board.next_due().map_or(LOOK_AROUND, |due| {
            let now = nanos(self.clock.now());
            Duration::from_nanos(u64::try_from(due.saturating_sub(now)).unwrap_or(0))
        });
        self.inbox.recv_timeout(until_look.min(until_due))
    }

    /// One group, if there is anything to do. Returns what is not an operation, to be done after it.
    fn turn(&mut self, first: Option<Message>) -> Vec<Message> {
        let mut controls = Vec::new();
        match first {
            Some(Message::Operation(operation)) if self.closing.is_some() => {
                operation.answer(Err(QueueError::Unavailable));
            }
            Some(Message::Operation(operation)) => self.pending.push_back(operation),
            Some(control) => controls.push(control),
            None => {}
        }
        self.claim_soon = false;
        if !self.pending.is_empty() || self.board.is_stale() || self.may_claim() {
            self.group(&mut controls);
        }
        controls
    }

    /// Whether a claim would find something: a glance at memory.
    fn may_claim(&mut self) -> bool {
        let Some(claimer) = &self.claimer else { return false };
        self.board.promote(nanos(self.clock.now()));
        self.board.next(&claimer.policy, &HashSet::new()).is_some()
    }

    /// The next operation of a group; what is no operation is set aside.
    fn next_operation(&mut self, controls: &mut Vec<Message>) -> Option<Box<dyn Operation>> {
        if let Some(operation) = self.pending.pop_front() {
            return Some(operation);
        }
        // After a close nothing new is taken, and what comes after a stop must find it done.
        let ends = |control: &Message| matches!(control, Message::Close(_) | Message::StopClaiming(_));
        while self.closing.is_none() && !controls.iter().any(ends) {
            match self.inbox.try_recv() {
                Ok(Message::Operation(operation)) => return Some(operation),
                Ok(control) => controls.push(control),
                Err(_) => break,
            }
        }
        None
    }

    /// The flip: from here on this generation enqueues and claims. What waits is claimed in the next group.
    fn install(&mut self, installed: Installed) {
        if self.frame.claiming == Claiming::Ended {
            return;
        }
        self.frame.snapshot = Some(installed.snapshot);
        self.frame.policy = installed.policy.clone();
        self.claimer = Some(Claimer { policy: installed.policy, claims: installed.claims });
        self.claim_soon = true;
    }

    fn control(&mut self, message: Message) {
        match message {
            Message::Operation(operation) => self.pending.push_back(operation),
            Message::Watch { id, root, reply } => self.watches.add(&self.connection, id, root, reply),
            Message::Unwatch(id) => self.watches.remove(id),
            Message::Synchronous(synchronous) => {
                if let Err(error) = set_synchronous(&self.connection, synchronous) {
                    warn!(%error, "durability of the state database could not be changed");
                }
            }
            Message::StopClaiming(reply) => {
                self.frame.claiming = Claiming::Ended;
                self.claimer = None;
                let _ = reply.send(());
            }
            Message::Flush(reply) => self.flushes.push(reply),
            Message::Close(reply) => self.closing = Some(reply),
        }
    }

    /// Once a second: rows of other processes, and whether the file is still ours. Costs two
    /// system calls and no transaction when nothing changed.
    fn look_around(&mut self) {
        if self.looked_around.elapsed() < LOOK_AROUND {
            return;
        }
        self.looked_around = Instant::now();
        match data_version(&self.connection) {
            Ok(version) if version == self.data_version => {}
            Ok(_) => {
                self.board.mark_stale();
                self.claim_soon = true;
            }
            Err(error) => self.note_failure(&error),
        }
        if let Some(bytes) = self.tidy.watch_wal(&self.connection) {
            let data = [("bytes".to_owned(), bytes.into())];
            self.hub.publish("database.wal_pinned", data.into_iter().collect());
        }
        match file_identity(&self.path) {
            Ok(present) if Some(present) == self.identity => {}
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => {
                error!(path = %self.path.display(), "state database file was removed or replaced");
                self.shared.fail(format!("state database {} was removed or replaced", self.path.display()));
            }
        }
    }

    fn step(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn close(mut self) {
        let reply = self.closing.take();
        let tidy = self.connection.execute_batch("PRAGMA analysis_limit = 200; PRAGMA optimize;");
        if let Err(error) = tidy {
            debug!(%error, "optimising at the end failed");
        }
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        match checkpoint {
            Ok(0) => {}
            Ok(_) => warn!("a reader kept the write-ahead log from being emptied at the end"),
            Err(error) => warn!(%error, "emptying the write-ahead log at the end failed"),
        }
        self.connection.flush_prepared_statement_cache();
        if let Err((_, error)) = self.connection.close() {
            warn!(%error, "closing the state database failed");
        }
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }
}

/// A number that changes when another connection has written.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn nanos(at: DateTime<Utc>) -> i64 {
    at.timestamp_nanos_opt().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

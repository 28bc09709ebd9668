//! The writer: one thread, the only read-write connection, and every commit of the gateway.
//!
//! It takes all operations that wait, runs them in one immediate transaction, claims what fits the free workers,
//! commits once, and then answers, publishes, wakes and hands out, in this order. An operation that fails leaves
//! nothing behind and fails alone. It never waits for more work while there is some.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ductile_model::{Clock, EventHub, JobId};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};
use tracing::{debug, error, warn};

use crate::board::Board;
use crate::claim::claim_all;
use crate::finalise::{PreparedOutcome, finalise};
use crate::open::{BUSY_TIMEOUT, file_identity, set_synchronous};
use crate::running::RunningAttempts;
use crate::scope::{Asked, Change, Claiming, Effects, Frame, Installed, Operation, Scope, Undo};
use crate::tidy::{Tidied, Tidy};
use crate::watches::{TreeReply, Watches};
use crate::{AttemptOutcome, ClaimPolicy, ClaimedJob, Finalise, InterruptKind, QueueError, Synchronous};

/// How often an idle writer looks for rows of other processes.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// How long a claim that nobody waits for insists on the write lock.
const CLAIM_PATIENCE: Duration = Duration::from_millis(250);

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

/// Why a group's transaction is given up.
enum Undone {
    /// An operation failed after it had written: the group is run again, each operation in a savepoint.
    RunAgain,
    /// The database failed.
    Lost(rusqlite::Error),
}

impl From<rusqlite::Error> for Undone {
    fn from(error: rusqlite::Error) -> Self {
        Self::Lost(error)
    }
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
                snapshot: None,
                policy: Arc::new(parts.policy),
                log_has_start,
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
        if self.claimer.is_none() {
            return self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let until_look = LOOK_AROUND.saturating_sub(self.looked_around.elapsed());
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
        if !self.pending.is_empty() || self.may_claim() {
            self.group(&mut controls);
        }
        controls
    }

    /// Whether a claim would find something: a glance at memory.
    fn may_claim(&mut self) -> bool {
        let Some(claimer) = &self.claimer else { return false };
        self.board.promote(nanos(self.clock.now()));
        self.board.is_stale() || self.board.next(&claimer.policy, &HashSet::new()).is_some()
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

    fn group(&mut self, controls: &mut Vec<Message>) {
        if let Err(error) = self.begin() {
            self.could_not_begin(&error);
            return;
        }
        let mut effects = Effects::default();
        let mut done: Vec<Box<dyn Operation>> = Vec::new();
        while done.len() < self.max_group {
            let Some(mut operation) = self.next_operation(controls) else { break };
            let ran = self.run_one(&mut *operation, &mut effects);
            done.push(operation);
            if let Err(undone) = ran {
                return self.undone(done, undone);
            }
        }
        let claimed = match self.claim(&effects) {
            Ok(claimed) => claimed,
            Err(undone) => return self.undone(done, undone),
        };
        self.undo = Undo::Group;
        if let Err(error) = self.step("COMMIT") {
            self.lost(done, &error);
            return;
        }
        if !done.is_empty() {
            self.shared.last_write_failed.store(false, Ordering::Release);
        }
        self.tidy.worked();
        self.shared.depth.store(self.board.depth(), Ordering::Release);
        done.into_iter().for_each(|operation| operation.answer(Ok(())));
        self.after_commit(effects, claimed);
    }

    /// Takes the write lock, and reads the board anew if another process wrote since.
    fn begin(&mut self) -> rusqlite::Result<()> {
        let patience = match self.pending.iter().map(|operation| operation.deadline()).min() {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()).min(BUSY_TIMEOUT),
            None => CLAIM_PATIENCE,
        };
        // The usual case waits with what the connection is set to.
        let unusual = patience + Duration::from_millis(50) < BUSY_TIMEOUT;
        if unusual {
            self.connection.busy_timeout(patience)?;
        }
        let begun = self.step("BEGIN IMMEDIATE");
        if unusual {
            self.connection.busy_timeout(BUSY_TIMEOUT)?;
        }
        begun?;
        self.refresh().inspect_err(|_| self.roll_back())
    }

    fn refresh(&mut self) -> rusqlite::Result<()> {
        let version = data_version(&self.connection)?;
        if version == self.data_version && !self.board.is_stale() {
            return Ok(());
        }
        self.load_board(&[])?;
        if version != self.data_version {
            debug!("another process wrote to the state database; queue read anew");
            self.data_version = version;
            self.watches.look_again(&self.connection);
        }
        Ok(())
    }

    /// Reads the rows, and adds what they do not tell: processes of jobs that were given up, in this very transaction or
    /// before.
    fn load_board(&mut self, just_now: &[JobId]) -> rusqlite::Result<()> {
        self.board = Board::load(&self.connection)?;
        for plugin in self.running.given_up_lanes(just_now) {
            self.board.occupy(plugin);
        }
        Ok(())
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::GivenUp { job, .. } if self.running.contains(&job) => self.board.give_up(),
            Change::GivenUp { plugin, .. } => self.board.apply(Change::Ended { plugin }),
            change => self.board.apply(change),
        }
    }

    /// Nothing was begun, so nothing was written: who has waited long enough is told, the others go on waiting.
    fn could_not_begin(&mut self, error: &rusqlite::Error) {
        if is_busy(error) {
            let now = Instant::now();
            for operation in std::mem::take(&mut self.pending) {
                if operation.deadline() <= now {
                    operation.answer(Err(QueueError::Busy));
                } else {
                    self.pending.push_back(operation);
                }
            }
            return;
        }
        self.note_failure(error);
        for operation in std::mem::take(&mut self.pending) {
            operation.answer(Err(QueueError::Storage(copy_of(error))));
        }
    }

    /// Runs an operation so that its failure is its own.
    fn run_one(&mut self, operation: &mut dyn Operation, effects: &mut Effects) -> Result<(), Undone> {
        let alone = self.undo == Undo::Operation;
        let before = self.connection.total_changes();
        if alone {
            self.step("SAVEPOINT operation")?;
        }
        let scope = Scope::new(&self.connection, &self.frame, self.clock.now());
        let ran = operation.run(&scope);
        let mut left = scope.into_effects();
        if ran.is_ok() {
            left.changes.drain(..).for_each(|change| self.apply(change));
            effects.absorb(left);
        } else {
            if let Some(QueueError::Storage(error)) = operation.failure() {
                let error = copy_of(error);
                self.note_failure(&error);
                if self.connection.is_autocommit() {
                    return Err(Undone::Lost(error));
                }
            }
            if alone {
                self.step("ROLLBACK TO operation")?;
            } else if self.connection.total_changes() != before {
                return Err(Undone::RunAgain);
            }
        }
        if alone {
            self.step("RELEASE operation")?;
        }
        Ok(())
    }

    fn claim(&mut self, effects: &Effects) -> Result<Vec<ClaimedJob>, Undone> {
        if self.claimer.is_none() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        self.board.promote(nanos(now));
        if self.board.is_stale() {
            self.load_board(&effects.cancelled)?;
            self.board.promote(nanos(now));
        }
        let Some(claimer) = &self.claimer else { return Ok(Vec::new()) };
        if self.board.next(&claimer.policy, &HashSet::new()).is_none() {
            return Ok(Vec::new());
        }
        let scope = Scope::new(&self.connection, &self.frame, now);
        let running = &self.running;
        let holds = |key: &str, plugin: &str, command: &str| running.holds(&effects.cancelled, key, plugin, command);
        match claim_all(&scope, &mut self.board, &claimer.policy, &holds, self.undo) {
            Ok(claimed) => Ok(claimed),
            Err(_) if self.undo == Undo::Group && !self.connection.is_autocommit() => Err(Undone::RunAgain),
            Err(error) => Err(Undone::Lost(error)),
        }
    }

    /// The group's transaction can not be committed.
    fn undone(&mut self, done: Vec<Box<dyn Operation>>, undone: Undone) {
        match undone {
            Undone::Lost(error) => self.lost(done, &error),
            Undone::RunAgain => {
                self.roll_back();
                done.into_iter().rev().for_each(|operation| self.pending.push_front(operation));
                self.undo = Undo::Operation;
                self.claim_soon = true;
            }
        }
    }

    /// The transaction is gone with everything in it.
    fn lost(&mut self, done: Vec<Box<dyn Operation>>, error: &rusqlite::Error) {
        self.roll_back();
        self.undo = Undo::Group;
        self.note_failure(error);
        for operation in done {
            let fate = if is_busy(error) { QueueError::Busy } else { QueueError::Storage(copy_of(error)) };
            operation.answer(Err(fate));
        }
    }

    fn roll_back(&mut self) {
        self.board.mark_stale();
        if !self.connection.is_autocommit()
            && let Err(error) = self.step("ROLLBACK")
        {
            warn!(%error, "rolling back failed");
        }
    }

    fn note_failure(&mut self, error: &rusqlite::Error) {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                error!(path = %self.path.display(), %error, "state database is damaged");
                self.shared.fail(format!("state database {} is damaged: {error}", self.path.display()));
            }
            Some(ErrorCode::ConstraintViolation | ErrorCode::DatabaseBusy) => {}
            _ => self.shared.last_write_failed.store(true, Ordering::Release),
        }
    }

    fn after_commit(&mut self, effects: Effects, claimed: Vec<ClaimedJob>) {
        for (kind, data) in effects.events {
            self.hub.publish(kind, data);
        }
        if !effects.finished.is_empty() {
            self.watches.finished(&self.connection, effects.finished);
        }
        for job in effects.cancelled {
            self.running.give_up(job);
        }
        for (job, attempt) in effects.released {
            if let Some(plugin) = self.running.release(&job, attempt) {
                self.board.release(&plugin);
                self.claim_soon = true;
            }
        }
        claimed.iter().for_each(|job| self.running.begin(job));
        self.hand_out(claimed);
        if let Some(installed) = effects.install {
            self.install(installed);
        }
    }

    fn hand_out(&mut self, claimed: Vec<ClaimedJob>) {
        let Some(claimer) = &self.claimer else { return };
        let mut refused = claimed.into_iter().filter_map(|job| claimer.claims.send(job).err()).peekable();
        if refused.peek().is_none() {
            return;
        }
        // Nobody takes claims any more. The rows are running already, so they go back as attempts that ended.
        let lost: Vec<ClaimedJob> = refused.map(|error| error.0).collect();
        warn!(jobs = lost.len(), "claimed jobs go back to the queue: nobody takes them any more");
        self.claimer = None;
        for job in lost {
            let prepared = PreparedOutcome::new(Arc::new(interrupted(job, self.clock.now())));
            let work = move |scope: &Scope<'_>| finalise(scope, &prepared);
            let shared = self.shared.clone();
            let reply = move |stored: Result<_, QueueError>| {
                if let Err(error) = stored {
                    error!(%error, "a claimed job could not be put back; the next start recovers it");
                    shared.fail("a claimed job could not be put back into the queue".to_owned());
                }
            };
            self.pending.push_back(Box::new(Asked::new(BUSY_TIMEOUT, work, reply)));
        }
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

    /// Once a second while jobs are claimed: rows of other processes, and whether the file is still ours. Costs two
    /// system calls and no transaction when nothing changed.
    fn look_around(&mut self) {
        if self.claimer.is_none() || self.looked_around.elapsed() < LOOK_AROUND {
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

fn interrupted(job: ClaimedJob, now: DateTime<Utc>) -> Finalise {
    Finalise {
        job: job.id,
        attempt: job.attempt,
        completed_at: now,
        outcome: AttemptOutcome::Interrupted(InterruptKind::Shutdown),
        stderr: None,
        result: None,
        duration: Duration::ZERO,
        spawned: false,
        stopwatch: None,
    }
}

/// A number that changes when another connection has written.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn nanos(at: DateTime<Utc>) -> i64 {
    at.timestamp_nanos_opt().unwrap_or(i64::MAX)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// SQLite's errors can not be cloned; what matters of one can.
fn copy_of(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR);
            rusqlite::Error::SqliteFailure(code, Some(other.to_string()))
        }
    }
}

#[cfg(test)]
mod tests;

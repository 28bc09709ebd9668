//! One group of the writer: operations in one transaction, the claims that follow from them, one commit, and what is
//! due after it.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ductile_model::JobId;
use rusqlite::ErrorCode;
use tracing::{debug, error, warn};

use super::{Message, Writer, data_version, nanos};
use crate::board::Board;
use crate::claim::claim_all;
use crate::finalise::{PreparedOutcome, finalise};
use crate::open::BUSY_TIMEOUT;
use crate::scope::{Asked, Change, Effects, Operation, Scope, Undo};
use crate::{AttemptOutcome, ClaimedJob, Finalise, InterruptKind, QueueError, ScheduleNews};

/// How long a claim that nobody waits for insists on the write lock.
const CLAIM_PATIENCE: Duration = Duration::from_millis(250);

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

impl Writer {
    pub(super) fn group(&mut self, controls: &mut Vec<Message>) {
        if let Err(error) = self.begin() {
            self.could_not_begin(&error);
            return;
        }
        let before = self.connection.total_changes();
        let mut effects = Effects::default();
        let mut done: Vec<Box<dyn Operation>> = Vec::new();
        // What comes after another generation took over is for it to see.
        while done.len() < self.max_group && effects.install.is_none() {
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
        // Whoever only looked, as housekeeping that finds nothing old, has shown nothing of the disk and is no reason to
        // leave the file as large as it is.
        if self.connection.total_changes() != before {
            self.shared.last_write_failed.store(false, Ordering::Release);
            self.tidy.worked();
        }
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
            // What it freed is to be tidied up too.
            self.tidy.worked();
            self.watches.look_again(&self.connection);
            let _ = self.shared.schedules.send(ScheduleNews::Outside);
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

    pub(super) fn note_failure(&mut self, error: &rusqlite::Error) {
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
        // Where nobody listens there is no scheduler to tell.
        effects.rescheduled.into_iter().for_each(|news| drop(self.shared.schedules.send(news)));
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
            let prepared = PreparedOutcome::new(interrupted(job, self.clock.now()));
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
}

pub(super) fn interrupted(job: ClaimedJob, now: DateTime<Utc>) -> Finalise {
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
        hooks: None,
    }
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

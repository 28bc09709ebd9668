//! What an operation on the writer sees, and what it leaves to be done after the commit.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ductile_model::{JobId, SnapshotId, format_db};
use rusqlite::Connection;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::rows::JobRow;
use crate::schedule::Definitions;
use crate::{ClaimPolicy, ClaimedJob, QueueError, ScheduleNews};

/// A change of the queue as the board keeps it in memory.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A job became, or is again, `queued`.
    Queued { rowid: i64, plugin: Arc<str>, created: i64, not_before: Option<i64> },
    /// A running attempt ended.
    Ended { plugin: Arc<str> },
    /// A queued job was given up.
    Removed { rowid: i64, plugin: Arc<str>, created: i64, not_before: Option<i64> },
    /// A running job was given up: its process may still be there, and holds its place until it is gone.
    GivenUp { job: JobId, plugin: Arc<str> },
}

/// A job that became terminal, with the jobs that were queued because of it in the same transaction.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) job: JobId,
    pub(crate) children: Vec<JobId>,
}

/// The generation that enqueues and claims from a commit on.
pub(crate) struct Installed {
    pub(crate) snapshot: SnapshotId,
    pub(crate) policy: Arc<ClaimPolicy>,
    pub(crate) claims: mpsc::UnboundedSender<ClaimedJob>,
}

/// What follows from an operation once its commit has happened.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) changes: Vec<Change>,
    pub(crate) events: Vec<(&'static str, Map<String, Value>)>,
    pub(crate) finished: Vec<Finished>,
    pub(crate) install: Option<Installed>,
    /// Jobs that were given up while they ran.
    pub(crate) cancelled: Vec<JobId>,
    /// Attempts that nobody runs any more.
    pub(crate) released: Vec<(JobId, u32)>,
    pub(crate) rescheduled: Vec<ScheduleNews>,
}

impl Effects {
    /// Appends what another operation left, in order. The changes are applied apart.
    pub(crate) fn absorb(&mut self, later: Self) {
        self.events.extend(later.events);
        self.finished.extend(later.finished);
        self.install = later.install.or(self.install.take());
        self.cancelled.extend(later.cancelled);
        self.released.extend(later.released);
        self.rescheduled.extend(later.rescheduled);
    }
}

/// Whether jobs may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claiming {
    /// By whatever generation is installed.
    Allowed,
    /// Never again: the process stops.
    Ended,
}

/// What does not change within one group of operations.
pub(crate) struct Frame {
    pub(crate) claiming: Claiming,
    pub(crate) snapshot: Option<SnapshotId>,
    pub(crate) policy: Arc<ClaimPolicy>,
    pub(crate) log_has_start: bool,
    pub(crate) definitions: Definitions,
    pub(crate) jitter: Jitter,
}

/// Where the random share of a back-off or an interval comes from: uniform in `[0, 1]`.
pub(crate) type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// The transaction as an operation sees it.
pub(crate) struct Scope<'a> {
    connection: &'a Connection,
    frame: &'a Frame,
    now: DateTime<Utc>,
    now_text: OnceCell<String>,
    effects: RefCell<Effects>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(connection: &'a Connection, frame: &'a Frame, now: DateTime<Utc>) -> Self {
        Self { connection, frame, now, now_text: OnceCell::new(), effects: RefCell::default() }
    }

    pub(crate) fn connection(&self) -> &'a Connection {
        self.connection
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// The present instant in the stored form.
    pub(crate) fn now_text(&self) -> &str {
        self.now_text.get_or_init(|| format_db(self.now))
    }

    /// The configuration in force, `None` before the first activation.
    pub(crate) fn snapshot(&self) -> Option<&'a SnapshotId> {
        self.frame.snapshot.as_ref()
    }

    pub(crate) fn claiming(&self) -> Claiming {
        self.frame.claiming
    }

    /// The configuration in force; before the first activation the one that is about to be.
    pub(crate) fn policy(&self) -> &'a ClaimPolicy {
        &self.frame.policy
    }

    /// Whether the scheduler made the job.
    pub(crate) fn is_scheduled(&self, job: &JobRow) -> bool {
        job.submitted_by == self.frame.policy.service
    }

    pub(crate) fn log_has_start(&self) -> bool {
        self.frame.log_has_start
    }

    pub(crate) fn definitions(&self) -> Definitions {
        self.frame.definitions
    }

    pub(crate) fn jitter(&self) -> f64 {
        (self.frame.jitter)()
    }

    pub(crate) fn changed(&self, change: Change) {
        self.effects.borrow_mut().changes.push(change);
    }

    pub(crate) fn publish(&self, kind: &'static str, data: Map<String, Value>) {
        self.effects.borrow_mut().events.push((kind, data));
    }

    pub(crate) fn finished(&self, job: JobId, children: Vec<JobId>) {
        self.effects.borrow_mut().finished.push(Finished { job, children });
    }

    pub(crate) fn cancelled(&self, job: JobId, plugin: Arc<str>) {
        let mut effects = self.effects.borrow_mut();
        effects.changes.push(Change::GivenUp { job: job.clone(), plugin });
        effects.cancelled.push(job);
    }

    pub(crate) fn released(&self, job: JobId, attempt: u32) {
        self.effects.borrow_mut().released.push((job, attempt));
    }

    /// A schedule is due at another time.
    pub(crate) fn rescheduled(&self, plugin: &str, schedule_id: &str, next: Option<DateTime<Utc>>) {
        let news = ScheduleNews::Moved { plugin: plugin.to_owned(), schedule_id: schedule_id.to_owned(), next };
        self.effects.borrow_mut().rescheduled.push(news);
    }

    /// A job of the scheduler is over.
    pub(crate) fn scheduled_job_ended(&self, job: &JobRow) {
        let news = ScheduleNews::Ended { plugin: job.plugin.to_string(), command: job.command.clone() };
        self.effects.borrow_mut().rescheduled.push(news);
    }

    pub(crate) fn install(&self, installed: Installed) {
        self.effects.borrow_mut().install = Some(installed);
    }

    pub(crate) fn into_effects(self) -> Effects {
        self.effects.into_inner()
    }
}

/// How much is undone when one of a group's operations fails after it has written something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undo {
    /// The whole group, which is then run again operation by operation. Failures after a write are rare, and a
    /// savepoint costs an image of every page that its operation touches.
    Group,
    /// The operation alone: each runs in a savepoint.
    Operation,
}

/// An operation on its way through the writer: run inside a transaction, again should that be undone, and answered
/// once after the commit.
pub(crate) trait Operation: Send {
    /// Runs it. After an `Err` what it wrote is rolled back.
    fn run(&mut self, scope: &Scope<'_>) -> Result<(), ()>;

    /// Tells the asker. `Err` is why the commit, or the run, did not happen.
    fn answer(self: Box<Self>, fate: Result<(), QueueError>);

    /// When it gives up waiting for another process's lock.
    fn deadline(&self) -> Instant;

    /// Whether its own failure was of the kind that no later operation survives either.
    fn failure(&self) -> Option<&QueueError>;
}

/// A closure and the way to whoever waits for its result.
pub(crate) struct Asked<T, W, R> {
    work: W,
    reply: R,
    outcome: Option<Result<T, QueueError>>,
    deadline: Instant,
}

impl<T, W, R> Asked<T, W, R>
where
    W: FnMut(&Scope<'_>) -> Result<T, QueueError> + Send,
    R: FnOnce(Result<T, QueueError>) + Send,
    T: Send,
{
    pub(crate) fn new(patience: Duration, work: W, reply: R) -> Self {
        Self { work, reply, outcome: None, deadline: Instant::now() + patience }
    }
}

impl<T, W, R> Operation for Asked<T, W, R>
where
    W: FnMut(&Scope<'_>) -> Result<T, QueueError> + Send,
    R: FnOnce(Result<T, QueueError>) + Send,
    T: Send,
{
    fn run(&mut self, scope: &Scope<'_>) -> Result<(), ()> {
        let outcome = (self.work)(scope);
        let fate = if outcome.is_ok() { Ok(()) } else { Err(()) };
        self.outcome = Some(outcome);
        fate
    }

    fn answer(self: Box<Self>, fate: Result<(), QueueError>) {
        let outcome = match (fate, self.outcome) {
            (_, Some(Err(own))) => Err(own),
            (Err(common), _) => Err(common),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Ok(()), None) => Err(QueueError::Unavailable),
        };
        (self.reply)(outcome);
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn failure(&self) -> Option<&QueueError> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err())
    }
}

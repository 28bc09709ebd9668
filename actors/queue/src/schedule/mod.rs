//! Schedules as rows: what has run, what is due, and the one transaction that decides about it.
//!
//! A row says everything there is to know. It is read, judged and written in the transaction that queues the job, so a
//! kill leaves both or neither, whoever else looks at the same row.

mod anchor;
mod catch_up;
mod evaluate;
mod manage;
mod reconcile;
mod rows;

pub(crate) use anchor::succeeded;
pub(crate) use manage::{change, outstanding, overview};
pub(crate) use rows::{Definitions, all};

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_model::{JobId, SnapshotId};
use ductile_timetable::{Entry, HeldBack};
use tokio::sync::broadcast;

use crate::{QueueError, Store};

pub use manage::{ScheduleChange, ScheduleChanged, ScheduleOverview, ScheduleView, ScheduledJob};

/// State of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleStatus {
    /// It runs when it is due.
    Active,
    /// A person holds it back.
    PausedManual,
    /// Its configuration was found wrong.
    PausedInvalid,
    /// It was to run once, and has.
    Exhausted,
}

impl ScheduleStatus {
    const ALL: [Self; 4] = [Self::Active, Self::PausedManual, Self::PausedInvalid, Self::Exhausted];

    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PausedManual => "paused_manual",
            Self::PausedInvalid => "paused_invalid",
            Self::Exhausted => "exhausted",
        }
    }

    /// The state of a stored word. One that this program does not know must not keep a schedule from running.
    #[must_use]
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|status| status.as_str() == word).unwrap_or(Self::Active)
    }
}

/// The row of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Configured plugin name.
    pub plugin: String,
    /// Unique within the plugin.
    pub schedule_id: String,
    /// Command at the last look.
    pub command: String,
    /// State.
    pub status: ScheduleStatus,
    /// Why it is not active.
    pub reason: Option<String>,
    /// Last time a job was queued.
    pub last_fired_at: Option<DateTime<Utc>>,
    /// Its last job that succeeded.
    pub last_success_job_id: Option<JobId>,
    /// When that was.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When it is due; `None` also when it never is again.
    pub next_run_at: Option<DateTime<Utc>>,
    /// What its times were computed from.
    pub definition: Definition,
}

/// What the times of a row were computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// The database is older than the column: every schedule counts as unchanged.
    NotKept,
    /// Not yet noted: the same.
    Unset,
    /// This.
    Is(String),
}

impl ScheduleRow {
    /// Whether its times were computed from another definition than that of the schedule.
    #[must_use]
    pub fn is_of_another(&self, entry: &Entry) -> bool {
        matches!(self.definition, Definition::Is(_)) && !reconcile::is_as_defined(entry, self)
    }

    /// The later of its last firing and its last success.
    #[must_use]
    pub fn last_run(&self) -> Option<DateTime<Utc>> {
        self.last_fired_at.max(self.last_success_at)
    }
}

/// Why a schedule does not start a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// Its time has not come.
    NotDue,
    /// A person holds it back.
    Paused,
    /// It has run, once.
    Exhausted,
    /// It does not run on this day.
    Day,
    /// It does not run at this time of day.
    Window,
    /// Its command failed too often, or is being tried.
    CircuitOpen,
    /// A job of its command waits or runs.
    AlreadyRunning,
    /// As many jobs of its command wait and run as may.
    OutstandingLimit,
}

impl SkipReason {
    /// The word in events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotDue => "not_due",
            Self::Paused => "schedule_paused_manual",
            Self::Exhausted => "schedule_exhausted",
            Self::Day => "outside_day_constraint",
            Self::Window => "outside_time_window",
            Self::CircuitOpen => "circuit_open",
            Self::AlreadyRunning => "already_running",
            Self::OutstandingLimit => "outstanding_limit",
        }
    }
}

impl From<HeldBack> for SkipReason {
    fn from(held: HeldBack) -> Self {
        match held {
            HeldBack::Day => Self::Day,
            HeldBack::Window => Self::Window,
        }
    }
}

/// What became of a look at a schedule. In every case it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluated {
    /// Another configuration is in force: nothing was looked at.
    Stale,
    /// Nothing is started, and the schedule stays as it is: a due one stays due.
    Waits {
        /// Why.
        reason: SkipReason,
        /// When it is due.
        next: Option<DateTime<Utc>>,
        /// When the breaker that holds it back lets it try.
        over: Option<DateTime<Utc>>,
    },
    /// Its slot was passed over.
    Dropped {
        /// Why.
        reason: SkipReason,
        /// The slot.
        slot: DateTime<Utc>,
        /// When it was passed over.
        at: DateTime<Utc>,
        /// The next one.
        next: Option<DateTime<Utc>>,
    },
    /// A job was queued.
    Fired {
        /// The job.
        job: JobId,
        /// When it was due.
        slot: DateTime<Utc>,
        /// When it was queued.
        at: DateTime<Utc>,
        /// When it is due again.
        next: Option<DateTime<Utc>>,
    },
}

/// What was made up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtUp {
    /// The oldest run that was missed.
    pub first: DateTime<Utc>,
    /// Runs that were missed.
    pub missed: u64,
    /// Jobs that were queued for them.
    pub queued: u64,
    /// Runs that are not made up for because there were too many.
    pub dropped: u64,
}

/// What became of making up for what was missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatchUpLook {
    /// Another configuration is in force: nothing was looked at.
    Stale,
    /// There is nothing to make up for.
    Nothing,
    /// This was done.
    Done(CaughtUp),
}

/// Something that moved when a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleNews {
    /// The row of a schedule was written by this process.
    Moved {
        /// Configured plugin name.
        plugin: String,
        /// Schedule.
        schedule_id: String,
        /// When it is due now.
        next: Option<DateTime<Utc>>,
    },
    /// A job that the scheduler had queued is over: what waited for it may run.
    Ended {
        /// Configured plugin name.
        plugin: String,
        /// Command.
        command: String,
    },
    /// Another process wrote to the database: any row may be another.
    Outside,
}

/// A generation's view of a schedule that is to be looked at.
#[derive(Debug, Clone)]
pub struct Due {
    /// The schedule.
    pub entry: Arc<Entry>,
    /// The configuration that it is of: once another one is in force, nothing is done.
    pub generation: SnapshotId,
}

impl Store {
    /// The rows of all schedules, also of such that are not configured any more, by plugin and id.
    ///
    /// # Errors
    /// The database failed.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, QueueError> {
        self.read(rows::all).await
    }

    /// Looks at a schedule and queues its job if it is due and nothing forbids it.
    ///
    /// # Errors
    /// The database failed; nothing was changed.
    pub async fn evaluate_schedule(&self, due: Due) -> Result<Evaluated, QueueError> {
        let looked = self.write(move |scope| evaluate::evaluate(scope, &due)).await?;
        evaluate::tell(&looked);
        Ok(looked.evaluated)
    }

    /// Makes up for runs that were missed, as the schedule says.
    ///
    /// # Errors
    /// The database failed; nothing was changed.
    pub async fn catch_up_schedule(&self, due: Due) -> Result<CatchUpLook, QueueError> {
        let entry = due.entry.clone();
        let look = self.write(move |scope| catch_up::catch_up(scope, &due)).await?;
        // After the commit: an operation may be run twice, or be undone.
        if let CatchUpLook::Done(caught_up) = &look {
            catch_up::tell(&entry, caught_up);
        }
        Ok(look)
    }

    /// What moves schedules, from now on. A receiver that fell behind has to read the rows.
    #[must_use]
    pub fn schedule_news(&self) -> broadcast::Receiver<ScheduleNews> {
        self.subscribe_to_schedules()
    }
}

/// Whether a look at the row can be left out: what a transaction would find, when that is nothing to do.
#[must_use]
pub fn glance(
    entry: &Entry,
    row: Option<&ScheduleRow>,
    now: DateTime<Utc>,
) -> Option<(SkipReason, Option<DateTime<Utc>>)> {
    let row = row.filter(|row| !reconcile::is_due_for_change(entry, row, now))?;
    evaluate::before_due(row, now).map(|reason| (reason, row.next_run_at))
}

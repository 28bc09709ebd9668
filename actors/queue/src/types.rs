//! Plain data that goes into and comes out of the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::{Hooks, Routed};
use chrono::{DateTime, Utc};
use ductile_model::{Cancellation, FailureReason, JobId, JobStatus, Outcome, Producer, SnapshotId};
use ductile_timetable::Interval;

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Configured plugin name or alias.
    pub plugin: String,
    /// Command of its manifest.
    pub command: String,
    /// JSON text, stored exactly as given after a validity check.
    pub payload: Option<String>,
    /// Who asks.
    pub submitted_by: Producer,
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
    /// Trimmed; empty means none.
    pub dedupe_key: Option<String>,
    /// Success window of dedupe for this job; zero = no success check. `None`: the configured window.
    pub dedupe_ttl: Option<Duration>,
    /// Producing job.
    pub parent_job_id: Option<JobId>,
    /// Id of the event that caused it, and perhaps others: those are no duplicates of each other.
    pub event_id: Option<String>,
    /// The same as it is stored; further jobs of one event for one target have their step behind it.
    pub source_event_id: Option<String>,
    /// Baggage row.
    pub event_context_id: Option<String>,
    /// Whether a caller asked for this command directly (the event's `direct`).
    pub direct: bool,
}

/// What became of an enqueue. In every case the commit has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// A new row.
    Queued(JobId),
    /// Nothing was inserted: an earlier job of the same key, plugin and command counts.
    Duplicate {
        /// The earlier job.
        existing: JobId,
        /// Its status at this moment.
        status: JobStatus,
        /// Why it counts.
        reason: DuplicateReason,
    },
}

/// Why an earlier job counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateReason {
    /// It is queued or running: `outstanding`.
    Outstanding,
    /// It succeeded within the window: `recent_success`.
    RecentSuccess,
    /// It was made by the very same event, which is delivered once more: no matter of keys.
    SourceEvent,
}

/// What a configuration says about the queue: in force from one activation to the next.
#[derive(Debug, Clone)]
pub struct ClaimPolicy {
    /// Name of the service: how the scheduler signs its jobs.
    pub service: String,
    /// Jobs that run at once over all.
    pub max_workers: u32,
    /// Jobs of one plugin that run at once, where that is less than `max_workers`.
    pub lane_caps: BTreeMap<String, u32>,
    /// Success window of dedupe.
    pub dedupe_ttl: Duration,
    /// Circuit breaker of each plugin; one that is not named has the default.
    pub breakers: BTreeMap<String, BreakerPolicy>,
    /// Interval schedules, by plugin and id: the next run of one counts from its last success.
    pub intervals: BTreeMap<String, BTreeMap<String, Interval>>,
}

impl Default for ClaimPolicy {
    /// One worker, and the defaults of the configuration.
    fn default() -> Self {
        Self {
            service: "ductile".to_owned(),
            max_workers: 1,
            lane_caps: BTreeMap::new(),
            dedupe_ttl: Duration::from_secs(24 * 3600),
            breakers: BTreeMap::new(),
            intervals: BTreeMap::new(),
        }
    }
}

impl ClaimPolicy {
    /// The breaker of a plugin's scheduled commands.
    #[must_use]
    pub fn breaker(&self, plugin: &str) -> BreakerPolicy {
        self.breakers.get(plugin).copied().unwrap_or_default()
    }

    /// The interval of a schedule that has one.
    #[must_use]
    pub fn interval(&self, plugin: &str, schedule: &str) -> Option<&Interval> {
        self.intervals.get(plugin)?.get(schedule)
    }
}

/// When scheduled jobs of a command are held back, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Final failures in a row that open it.
    pub threshold: u32,
    /// Time after which one job is let through to try.
    pub reset_after: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { threshold: 3, reset_after: Duration::from_secs(30 * 60) }
    }
}

/// A job as its worker gets it: the row is `running`, committed.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// Its id.
    pub id: JobId,
    /// Configured plugin name.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// JSON text.
    pub payload: Option<String>,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Stored producer word.
    pub submitted_by: String,
    /// Its dedupe key.
    pub dedupe_key: Option<String>,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When this attempt was claimed.
    pub started_at: DateTime<Utc>,
    /// Producing job.
    pub parent_job_id: Option<JobId>,
    /// Baggage row.
    pub event_context_id: Option<String>,
    /// The plugin's state at the claim, JSON text of the row as stored.
    pub state: Option<String>,
    /// What its pipeline has collected; `None` also when the row is gone.
    pub context: Option<JobContext>,
    /// Told when the job is cancelled while the attempt runs.
    pub cancellation: Cancellation,
}

/// The context of a claimed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobContext {
    /// Pipeline, or empty.
    pub pipeline: String,
    /// Step, or empty.
    pub step_id: String,
    /// Accumulated object, JSON text.
    pub accumulated: String,
}

/// The outcome of an attempt.
#[derive(Debug, Clone)]
pub struct Finalise {
    /// The job.
    pub job: JobId,
    /// Its attempt: a late result of a replaced attempt is recognised by it.
    pub attempt: u32,
    /// End of the attempt.
    pub completed_at: DateTime<Utc>,
    /// What came out.
    pub outcome: AttemptOutcome,
    /// What the attempt printed on stderr, capped and valid UTF-8.
    pub stderr: Option<String>,
    /// Valid JSON text of the answer.
    pub result: Option<String>,
    /// Time the attempt took.
    pub duration: Duration,
    /// Whether a process was started.
    pub spawned: bool,
    /// How the time was spent, when a process was started and its end was seen.
    pub stopwatch: Option<Stopwatch>,
    /// What makes jobs of its end, should it be final.
    pub hooks: Option<Arc<dyn Hooks>>,
}

/// How the time of an attempt with a process was spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopwatch {
    /// Wall clock at the start of the process; for correlation only.
    pub entered_at: DateTime<Utc>,
    /// Wall clock at its end.
    pub exited_at: DateTime<Utc>,
    /// From the start of the process to its end, by the monotonic clock.
    pub process: Duration,
    /// From the claim to the start of the process.
    pub before: Duration,
    /// From the end of the process to the verdict.
    pub after: Duration,
    /// How the process ended.
    pub ending: ProcessEnding,
    /// Spans that the plugin reported: JSON text of an array.
    pub spans: String,
}

/// How a process ended, as its timing is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnding {
    /// It answered ok.
    Ok,
    /// It answered an error, or failed.
    Failed,
    /// It ran into its deadline.
    TimedOut,
    /// What it printed could not be read as an answer.
    Unreadable,
}

impl ProcessEnding {
    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "err",
            Self::TimedOut => "timeout",
            Self::Unreadable => "capture_error",
        }
    }
}

/// Verdict over one attempt.
#[derive(Debug, Clone)]
pub enum AttemptOutcome {
    /// The plugin answered ok.
    Succeeded {
        /// What becomes of `state_updates`.
        state: Option<StateUpdate>,
        /// What its events cause.
        routed: Routed,
    },
    /// Condition false; nothing was started.
    Skipped {
        /// Reason text.
        reason: String,
    },
    /// It failed.
    Failed {
        /// Class.
        reason: FailureReason,
        /// Text for `last_error`.
        error: String,
        /// Base of the back-off, should it be retried.
        backoff_base: Duration,
    },
    /// The gateway stopped or panicked while it ran: requeued with the next attempt number, or dead.
    Interrupted(InterruptKind),
}

/// Why an attempt was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptKind {
    /// An orderly stop: no delay.
    Shutdown,
    /// A panic in its handling: the retry delay with this base.
    InternalError {
        /// Base of the back-off.
        backoff_base: Duration,
    },
}

/// A non-empty `state_updates` object of a successful attempt.
#[derive(Debug, Clone)]
pub struct StateUpdate {
    /// JSON text of an object.
    pub json: String,
    /// Fact types in manifest order; empty = shallow merge, else one fact each and the state is replaced.
    pub fact_types: Vec<String>,
}

/// Which jobs are to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelTarget {
    /// This one.
    Job(JobId),
    /// This one and everything it caused.
    Tree(JobId),
    /// The scheduler's own jobs of a command.
    Scheduled {
        /// Configured plugin name.
        plugin: String,
        /// Command.
        command: String,
    },
}

/// What a cancellation did. It is committed: none of the named jobs ever runs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// These jobs are dead.
    Done {
        /// They waited.
        queued: Vec<JobId>,
        /// They ran: their processes are being ended.
        running: Vec<JobId>,
    },
    /// Nothing was active; the state of the named job.
    NotActive(JobStatus),
    /// There is no such job.
    Unknown,
}

/// What a finalisation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalised {
    /// Stored; the job is now in this state (`queued` = it will be retried).
    Stored(JobStatus),
    /// The row is no longer running with this attempt; nothing was written.
    Stale,
}

/// One job as the API shows it.
#[derive(Debug, Clone)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// State.
    pub status: JobStatus,
    /// Configured plugin name.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Producer word.
    pub submitted_by: String,
    /// Number of the current or next attempt.
    pub attempt: u32,
    /// Attempts in all; unknown for a job that is only in the log.
    pub max_attempts: Option<u32>,
    /// Dedupe key.
    pub dedupe_key: Option<String>,
    /// Producing job.
    pub parent_job_id: Option<JobId>,
    /// Event that caused it.
    pub source_event_id: Option<String>,
    /// Baggage row.
    pub event_context_id: Option<String>,
    /// Queued at.
    pub created_at: Option<DateTime<Utc>>,
    /// Claimed at.
    pub started_at: Option<DateTime<Utc>>,
    /// Terminal since.
    pub completed_at: Option<DateTime<Utc>>,
    /// Not before.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Error of the last finished attempt.
    pub last_error: Option<String>,
    /// JSON text of the newest finished attempt's answer.
    pub result: Option<String>,
    /// Input, JSON text.
    pub payload: Option<String>,
    /// Configuration at the enqueue.
    pub enqueued_snapshot: Option<String>,
    /// Configuration at the last claim.
    pub started_snapshot: Option<String>,
    /// Whether the queue row is gone and this comes from the log.
    pub from_log: bool,
}

/// One finished attempt.
#[derive(Debug, Clone)]
pub struct AttemptLog {
    /// `<job_id>-<attempt>`.
    pub log_id: String,
    /// Attempt number.
    pub attempt: u32,
    /// Outcome of the attempt.
    pub status: String,
    /// End.
    pub completed_at: Option<DateTime<Utc>>,
    /// Error text.
    pub last_error: Option<String>,
    /// Captured stderr.
    pub stderr: Option<String>,
    /// Answer, JSON text.
    pub result: Option<String>,
}

/// Filters of a job list; absent = all.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Exact plugin.
    pub plugin: Option<String>,
    /// Exact command.
    pub command: Option<String>,
    /// Exact state.
    pub status: Option<JobStatus>,
    /// Producer word; `webhook` and `relay` also match their prefixed forms.
    pub submitted_by: Option<String>,
    /// Created at or after.
    pub from: Option<DateTime<Utc>>,
    /// Created at or before.
    pub to: Option<DateTime<Utc>>,
    /// Rows after this one, as `(created_at as stored, id)`.
    pub after: Option<(String, String)>,
    /// Rows per page, 1 to 200.
    pub limit: u32,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// The rows.
    pub jobs: Vec<JobView>,
    /// All rows under the filters.
    pub total: u64,
    /// Where the next page begins, when there is one.
    pub next: Option<(String, String)>,
}

/// One job of a tree.
#[derive(Debug, Clone)]
pub struct TreeNode {
    /// The job.
    pub job: JobView,
    /// Pipeline of its context, may be empty.
    pub pipeline: String,
    /// Step of its context, may be empty.
    pub step_id: String,
    /// What its context says of its pipeline's instance, JSON text.
    pub control: Option<String>,
}

impl TreeNode {
    /// A job of which nothing but itself is known.
    #[must_use]
    pub fn alone(job: JobView) -> Self {
        Self { job, pipeline: String::new(), step_id: String::new(), control: None }
    }
}

/// How waiting for a tree ended.
#[derive(Debug, Clone)]
pub enum TreeWait {
    /// Every job of it is terminal: root first, then by creation.
    Complete(Vec<TreeNode>),
    /// Time is up; the root's status now.
    TimedOut(JobStatus),
    /// There is no such job.
    Unknown,
}

/// Columns of a `config_snapshots` row.
#[derive(Debug, Clone)]
pub struct SnapshotRow {
    /// `id`.
    pub id: SnapshotId,
    /// `config_hash`.
    pub config_hash: String,
    /// `source_hash`.
    pub source_hash: String,
    /// `source_path`.
    pub source_path: String,
    /// `source`.
    pub source: String,
    /// `startup` or `reload`.
    pub reason: &'static str,
    /// `ductile_version`.
    pub ductile_version: String,
    /// `binary_path`.
    pub binary_path: String,
    /// `semantics`.
    pub semantics: String,
    /// `plugin_fingerprints`.
    pub plugin_fingerprints: String,
    /// `sanitized_config`.
    pub sanitized_config: String,
    /// `secret_fingerprints`.
    pub secret_fingerprints: String,
}

/// The one transaction and switch by which a generation becomes the one that enqueues and claims.
#[derive(Debug)]
pub struct ActivateGeneration {
    /// Its snapshot row.
    pub snapshot: SnapshotRow,
    /// What it may claim.
    pub policy: ClaimPolicy,
    /// Names that may run; queued jobs of other names are cancelled. `None` at a start: nothing is cancelled.
    pub runnable: Option<BTreeSet<String>>,
    /// History row of the reload that made it, closed as `ok` in the same transaction.
    pub reload: Option<ReloadEntry>,
}

/// A reload under way, as its history row.
#[derive(Debug, Clone)]
pub struct ReloadEntry {
    /// Row id, `None` where the table is missing.
    pub row: Option<i64>,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// Snapshot in force before.
    pub old_snapshot: Option<SnapshotId>,
    /// Posture before.
    pub old_posture: &'static str,
    /// Posture after.
    pub new_posture: Option<&'static str>,
}

/// A row of `reload_history`.
#[derive(Debug, Clone)]
pub struct ReloadRecord {
    /// Row id.
    pub id: i64,
    /// Asked for at.
    pub requested_at: Option<DateTime<Utc>>,
    /// Ended at; `None` while it runs.
    pub finished_at: Option<DateTime<Utc>>,
    /// `sighup` or `api`.
    pub trigger: String,
    /// Who asked.
    pub actor: Option<String>,
    /// `ok`, `rejected`, `failed`; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// Step that ended it.
    pub stage: Option<String>,
    /// Cause.
    pub error: Option<String>,
    /// Snapshot that is in force after it.
    pub new_snapshot: Option<String>,
    /// Milliseconds it took.
    pub duration_ms: Option<i64>,
}

/// What recovery did with one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The job.
    pub job: JobId,
    /// Attempt that was interrupted.
    pub attempt: u32,
    /// `queued` or `dead`.
    pub status: JobStatus,
}

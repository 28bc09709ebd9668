//! What reading commands show of jobs and their facts.

use chrono::{DateTime, Utc};
use ductile_model::{JobId, JobStatus};

use crate::{AttemptLog, JobView};

/// One change of a job's state.
#[derive(Debug, Clone)]
pub struct TransitionRow {
    /// State before; `None` at the enqueue.
    pub from_status: Option<String>,
    /// State after.
    pub to_status: String,
    /// Error or reason text.
    pub reason: Option<String>,
    /// When.
    pub created_at: Option<DateTime<Utc>>,
}

/// One claim of a job.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Attempt number.
    pub attempt: u32,
    /// When.
    pub created_at: Option<DateTime<Utc>>,
}

/// A job that another job caused, or that a context belongs to.
#[derive(Debug, Clone)]
pub struct JobRef {
    /// Its id.
    pub id: JobId,
    /// Configured plugin name.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// State, as stored.
    pub status: String,
}

/// A job that another job caused, at first or second hand.
#[derive(Debug, Clone)]
pub struct CausedJob {
    /// The job.
    pub job: JobRef,
    /// The job that produced it.
    pub parent: JobId,
    /// Step of its context, may be empty.
    pub step_id: String,
}

/// How a job stands to others by retries that a person asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries {
    /// The job that this one retries.
    pub of: Option<JobId>,
    /// Jobs that retry this one, oldest first.
    pub by: Vec<JobId>,
}

/// A fact that a job wrote.
#[derive(Debug, Clone)]
pub struct FactRow {
    /// Its number; `None` in rows of older databases.
    pub seq: Option<i64>,
    /// Type, as declared in the manifest.
    pub fact_type: String,
    /// When.
    pub created_at: Option<DateTime<Utc>>,
}

/// One context of the chain that leads to a job.
#[derive(Debug, Clone)]
pub struct ContextRow {
    /// Its id.
    pub id: String,
    /// The context before it.
    pub parent_id: Option<String>,
    /// Pipeline, may be empty.
    pub pipeline: String,
    /// Step, may be empty.
    pub step_id: String,
    /// Accumulated object, JSON text.
    pub baggage: String,
    /// The oldest job with this context.
    pub job: Option<JobRef>,
}

/// Filters of a log listing; absent = all.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Exact job.
    pub job_id: Option<String>,
    /// Exact plugin.
    pub plugin: Option<String>,
    /// Exact command.
    pub command: Option<String>,
    /// Exact outcome of the attempt.
    pub status: Option<JobStatus>,
    /// Producer word; `webhook` and `relay` also match their prefixed forms.
    pub submitted_by: Option<String>,
    /// Completed at or after.
    pub from: Option<DateTime<Utc>>,
    /// Completed at or before.
    pub to: Option<DateTime<Utc>>,
    /// Part of the error, stderr or result, in any case.
    pub query: Option<String>,
    /// Rows at most, 1 to 200.
    pub limit: u32,
    /// Whether results are read.
    pub include_result: bool,
}

/// One row of the job log.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// `<job_id>-<attempt>`.
    pub log_id: String,
    /// The job.
    pub job_id: String,
    /// Configured plugin name.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Outcome of the attempt.
    pub status: String,
    /// Attempt number.
    pub attempt: u32,
    /// Producer word.
    pub submitted_by: String,
    /// Job queued at.
    pub created_at: Option<DateTime<Utc>>,
    /// Attempt ended at.
    pub completed_at: Option<DateTime<Utc>>,
    /// Error text.
    pub last_error: Option<String>,
    /// Captured stderr.
    pub stderr: Option<String>,
    /// Answer, JSON text; `None` where it was not asked for.
    pub result: Option<String>,
    /// Configuration at the enqueue.
    pub enqueued_snapshot: Option<String>,
    /// Configuration at the claim.
    pub started_snapshot: Option<String>,
}

/// What a shortened job id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundJob {
    /// Exactly one job.
    One(JobId),
    /// None.
    None,
    /// More than one: these, at most ten of them.
    Several(Vec<JobId>),
}

/// What of a job is looked up only when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectPart {
    /// Everything that it caused.
    Caused,
    /// Its finished attempts with what they printed.
    Log,
}

/// All that the rows know about a job, as of one instant.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The job, from the queue or else from its newest log row.
    pub job: JobView,
    /// Its chain of contexts, root first; empty when the context is gone.
    pub contexts: Vec<ContextRow>,
    /// Changes of state, oldest first.
    pub transitions: Vec<TransitionRow>,
    /// Claims, oldest first.
    pub attempts: Vec<AttemptRow>,
    /// Jobs that it produced, oldest first.
    pub children: Vec<JobRef>,
    /// Facts that it wrote, in the order of the manifest.
    pub facts: Vec<FactRow>,
    /// The job that it retries by hand, and the jobs that retry it.
    pub retries: Retries,
    /// [`InspectPart::Caused`]: each behind its parent, the children of one oldest first; at most a thousand.
    pub caused: Option<Vec<CausedJob>>,
    /// [`InspectPart::Log`]: oldest first.
    pub log: Option<Vec<AttemptLog>>,
}

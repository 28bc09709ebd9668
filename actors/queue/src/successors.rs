//! Jobs that are caused by something: the end of another job, or a start from outside. Each comes with the context it
//! carries, and the rows of both are written together or not at all.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use ductile_model::{FailureReason, JobId, JobStatus, Producer};
use rusqlite::params;
use serde_json::{Map, Value};

use crate::enqueue::{CheckedJob, duplicate_of, enqueue_with, insert_new};
use crate::events;
use crate::rows::JobRow;
use crate::scope::Scope;
use crate::{DuplicateReason, Enqueued, NewJob, QueueError};

/// A row of `event_context` to be written. Rows are never changed afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContext {
    /// Its id.
    pub id: String,
    /// The context it grows from.
    pub parent_id: Option<String>,
    /// Pipeline, or empty.
    pub pipeline: String,
    /// Step, or empty.
    pub step_id: String,
    /// Accumulated object, JSON text.
    pub accumulated: String,
}

/// A job with the context it carries.
#[derive(Debug, Clone)]
pub struct Successor {
    /// The job; its context is the one below.
    pub job: NewJob,
    /// The root row of the instance it begins, shared by all entries of that.
    pub root: Option<Arc<NewContext>>,
    /// Its own row.
    pub context: NewContext,
}

/// What is told of a routing: an event of the hub.
pub type Told = (&'static str, Map<String, Value>);

/// Everything that an end causes.
#[derive(Debug, Clone, Default)]
pub struct Routed {
    /// In the order in which they are queued.
    pub successors: Vec<Successor>,
    /// Published after the commit.
    pub told: Vec<Told>,
}

/// The final end of a job, for whoever is to be told by a job of its own.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The job.
    pub job: &'a JobId,
    /// Configured plugin name.
    pub plugin: &'a str,
    /// Command.
    pub command: &'a str,
    /// Terminal state.
    pub status: JobStatus,
    /// Its last attempt.
    pub attempt: u32,
    /// Attempts it had.
    pub max_attempts: u32,
    /// Time the last attempt took.
    pub duration: std::time::Duration,
    /// Answer of the plugin, JSON text.
    pub result: Option<&'a str>,
    /// Error text.
    pub error: Option<&'a str>,
    /// Class of the failure.
    pub reason: Option<FailureReason>,
    /// Whether a start after a kill found it.
    pub is_recovery: bool,
    /// Where it came from.
    pub origin: EndOrigin<'a>,
}

/// Where an ended job came from, as far as hooks ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOrigin<'a> {
    /// It carries no context.
    Root,
    /// A hook began with it; its accumulated context, `None` when the row is gone.
    Hook(Option<&'a str>),
    /// It is a step of a pipeline, or was made by a route.
    Step,
}

/// Makes jobs of the ends of jobs. Called inside the transaction of the end: pure, and quick.
pub trait Hooks: fmt::Debug + Send + Sync {
    /// What the end of this job causes.
    fn raised_by(&self, ended: &Ended<'_>) -> Routed;
}

/// What was routed, with everything checked that needs no database.
pub(crate) struct PreparedRouted {
    successors: Vec<PreparedSuccessor>,
    told: Vec<Told>,
}

struct PreparedSuccessor {
    job: CheckedJob,
    root: Option<Arc<NewContext>>,
    context: NewContext,
}

impl PreparedRouted {
    pub(crate) fn new(routed: Routed) -> Result<Self, QueueError> {
        Ok(Self { successors: prepared(routed.successors)?, told: routed.told })
    }
}

fn prepared(successors: Vec<Successor>) -> Result<Vec<PreparedSuccessor>, QueueError> {
    let prepared = successors
        .into_iter()
        .map(|Successor { job, root, context }| Ok(PreparedSuccessor { job: CheckedJob::new(job)?, root, context }));
    prepared.collect()
}

/// Queues everything that was routed. Returns the new jobs.
pub(crate) fn insert(scope: &Scope<'_>, routed: &PreparedRouted) -> Result<Vec<JobId>, QueueError> {
    let mut made = Vec::new();
    let mut roots = HashSet::new();
    for successor in &routed.successors {
        if let Enqueued::Queued(id) = insert_one(scope, successor, &mut roots)? {
            made.push(id);
        }
    }
    for (kind, data) in &routed.told {
        scope.publish(kind, data.clone());
    }
    Ok(made)
}

/// A start of pipelines from outside.
#[derive(Debug, Clone)]
pub struct PipelineStart {
    /// Name of the pipeline, for the event that tells of it.
    pub pipeline: String,
    /// Producer word of all its jobs.
    pub submitted_by: Producer,
    /// Its entry jobs.
    pub successors: Vec<Successor>,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Its entry jobs, in order.
    Queued(Vec<JobId>),
    /// Nothing was written: these earlier jobs stand for entries of the same key.
    Duplicate(Vec<(JobId, JobStatus)>),
}

/// A start with everything checked that needs no database.
pub(crate) struct PreparedStart {
    pipeline: String,
    submitted_by: Producer,
    successors: Vec<PreparedSuccessor>,
}

impl PreparedStart {
    pub(crate) fn new(start: PipelineStart) -> Result<Self, QueueError> {
        let PipelineStart { pipeline, submitted_by, successors } = start;
        Ok(Self { pipeline, submitted_by, successors: prepared(successors)? })
    }
}

/// Starts a pipeline from outside: all jobs of the start, or none.
pub(crate) fn start(scope: &Scope<'_>, start: &PreparedStart) -> Result<Begun, QueueError> {
    let mut earlier = Vec::new();
    for successor in &start.successors {
        if let Some(Enqueued::Duplicate { existing, status, .. }) = duplicate_of(scope, &successor.job)? {
            earlier.push((existing, status));
        }
    }
    if !earlier.is_empty() {
        return Ok(Begun::Duplicate(earlier));
    }
    let mut roots = HashSet::new();
    let mut made = Vec::new();
    for successor in &start.successors {
        insert_contexts(scope, successor, &mut roots)?;
        made.push(insert_new(scope, &successor.job)?);
    }
    scope.publish("pipeline.enqueued", events::pipeline_enqueued(&made, &start.pipeline, &start.submitted_by));
    Ok(Begun::Queued(made))
}

fn insert_one(
    scope: &Scope<'_>,
    successor: &PreparedSuccessor,
    roots: &mut HashSet<String>,
) -> Result<Enqueued, QueueError> {
    let answer = enqueue_with(scope, &successor.job, |scope| insert_contexts(scope, successor, roots))?;
    let (job, context) = (successor.job.job(), &successor.context);
    if job.submitted_by == Producer::Route {
        match &answer {
            Enqueued::Queued(id) => scope.publish("router.enqueued", events::router_enqueued(id, job, context)),
            // The same event again: what it made was told then.
            Enqueued::Duplicate { reason: DuplicateReason::SourceEvent, .. } => {}
            Enqueued::Duplicate { existing, .. } => {
                scope.publish("router.deduplicated", events::router_deduplicated(existing, job, context));
            }
        }
    }
    Ok(answer)
}

fn insert_contexts(
    scope: &Scope<'_>,
    successor: &PreparedSuccessor,
    roots: &mut HashSet<String>,
) -> rusqlite::Result<()> {
    if let Some(root) = &successor.root
        && roots.insert(root.id.clone())
    {
        insert_context(scope, root)?;
    }
    insert_context(scope, &successor.context)
}

fn insert_context(scope: &Scope<'_>, context: &NewContext) -> rusqlite::Result<()> {
    scope
        .connection()
        .prepare_cached(
            "INSERT INTO event_context (id, parent_id, pipeline_name, step_id, accumulated_json, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            context.id,
            context.parent_id,
            context.pipeline,
            context.step_id,
            context.accumulated,
            scope.now_text(),
        ])?;
    Ok(())
}

/// Where a job came from, read from its row.
pub(crate) fn origin_of(scope: &Scope<'_>, job: &JobRow) -> rusqlite::Result<Origin> {
    use rusqlite::OptionalExtension;
    let context: Option<String> = scope
        .connection()
        .prepare_cached("SELECT event_context_id FROM job_queue WHERE rowid = ?1")?
        .query_row([job.rowid], |row| crate::rows::text(row, 0))
        .optional()?
        .flatten();
    let Some(context) = context else { return Ok(Origin::Root) };
    if job.submitted_by != Producer::Hook.to_string() {
        return Ok(Origin::Step);
    }
    let accumulated = scope
        .connection()
        .prepare_cached("SELECT accumulated_json FROM event_context WHERE id = ?1")?
        .query_row([&context], |row| crate::rows::required_text(row, 0))
        .optional()?;
    Ok(Origin::Hook(accumulated))
}

/// The owned form of [`EndOrigin`].
pub(crate) enum Origin {
    Root,
    Hook(Option<String>),
    Step,
}

impl Origin {
    pub(crate) fn as_ref(&self) -> EndOrigin<'_> {
        match self {
            Self::Root => EndOrigin::Root,
            Self::Hook(accumulated) => EndOrigin::Hook(accumulated.as_deref()),
            Self::Step => EndOrigin::Step,
        }
    }
}

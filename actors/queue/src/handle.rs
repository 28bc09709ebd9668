//! The handle of the queue: the only way in for producers, workers and readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_model::{AskError, JobId, Link};
use tokio::sync::Semaphore;
use tracing::{error, warn};

use crate::actor::{EnqueueRequest, FinaliseRequest};
use crate::enqueue::CheckedJob;
use crate::{
    AttemptLog, AttemptOutcome, Enqueued, Finalise, Finalised, JobFilter, JobPage, JobView, NewJob, QueueError,
    QueueMetrics, QueueMsg, Store, TreeNode, TreeWait, read,
};

/// Enqueues under way at once. Beyond that, callers are told that the queue is not available.
const ENQUEUES_UNDER_WAY: usize = 4096;

/// How long an outcome is kept that the database can not take.
const OUTCOME_KEPT: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The way to the queue. Cheap to clone.
#[derive(Clone)]
pub struct QueueHandle {
    link: Link<QueueMsg>,
    store: Store,
    slots: Arc<Semaphore>,
}

impl QueueHandle {
    /// A handle over a link that the supervisor keeps.
    #[must_use]
    pub fn new(link: Link<QueueMsg>, store: Store) -> Self {
        Self { link, store, slots: Arc::new(Semaphore::new(ENQUEUES_UNDER_WAY)) }
    }

    /// Whether the database takes a write right now, within a second.
    pub async fn is_writable(&self) -> bool {
        self.store.is_writable().await
    }

    /// Queues a job. `Ok` means committed.
    ///
    /// # Errors
    /// Nothing was written, except for `OutcomeUnknown`.
    pub async fn enqueue(&self, job: NewJob) -> Result<Enqueued, QueueError> {
        let job = Box::new(CheckedJob::new(job)?);
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| QueueError::Unavailable)?;
        let asked = self.link.ask(|reply| QueueMsg::Enqueue(EnqueueRequest { job, slot, reply })).await;
        asked.unwrap_or_else(|error| Err(error.into()))
    }

    /// Stores the outcome of an attempt. Keeps trying through restarts of the queue and through a database that can
    /// not take the write, for up to a minute.
    ///
    /// # Errors
    /// It could not be stored; the process is about to end and recovery takes over.
    pub async fn finalise(&self, outcome: Finalise) -> Result<Finalised, QueueError> {
        let outcome = Arc::new(outcome);
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let kept = outcome.clone();
            let asked = self
                .link
                .ask_within(OUTCOME_KEPT, |reply| QueueMsg::Finalise(FinaliseRequest { outcome: kept, reply }))
                .await;
            let error = match asked.unwrap_or_else(|error| Err(error.into())) {
                Ok(finalised) => return Ok(finalised),
                // The same again can only end the same way.
                Err(error @ QueueError::Invalid { .. }) => return Err(error),
                Err(error) => error,
            };
            if begun.elapsed() >= OUTCOME_KEPT {
                self.give_up(&outcome, &error);
                return Err(error);
            }
            warn!(
                job_id = outcome.job.as_str(),
                attempt = outcome.attempt,
                %error,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the outcome of an attempt could not be stored; it is kept and tried again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn give_up(&self, outcome: &Finalise, cause: &QueueError) {
        let (status, text) = match &outcome.outcome {
            AttemptOutcome::Succeeded { .. } => ("succeeded", None),
            AttemptOutcome::Skipped { reason } => ("skipped", Some(reason.as_str())),
            AttemptOutcome::Failed { error, .. } => ("failed", Some(error.as_str())),
            AttemptOutcome::Interrupted(_) => ("interrupted", None),
        };
        error!(
            job_id = outcome.job.as_str(),
            attempt = outcome.attempt,
            status,
            attempt_error = text,
            error = %cause,
            "the outcome of an attempt could not be stored for a minute; the process ends and recovery takes over"
        );
        self.store.fail(format!("the outcome of job {} could not be stored for a minute: {cause}", outcome.job));
    }

    /// Rows `queued` and `running`, counted in memory as the store commits: cheap enough for every request.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.store.depth()
    }

    /// Numbers of the queue, by one read.
    ///
    /// # Errors
    /// The database failed.
    pub async fn metrics(&self) -> Result<QueueMetrics, QueueError> {
        self.store.read(read::metrics).await
    }

    /// One job, from the queue or else from the newest log row.
    ///
    /// # Errors
    /// The database failed.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobView>, QueueError> {
        let id = id.clone();
        self.store.read(move |connection| read::job(connection, &id)).await
    }

    /// Finished attempts of a job, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn attempts(&self, id: &JobId) -> Result<Vec<AttemptLog>, QueueError> {
        let id = id.clone();
        self.store.read(move |connection| read::attempts(connection, &id)).await
    }

    /// A page of jobs, newest first. Payloads and results are left out: those are asked for one by one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn jobs(&self, filter: JobFilter) -> Result<JobPage, QueueError> {
        self.store.read(move |connection| read::jobs(connection, &filter)).await
    }

    /// The tree under a job as it is now; `None` when there is no such job.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tree(&self, root: &JobId) -> Result<Option<Vec<TreeNode>>, QueueError> {
        let root = root.clone();
        self.store.read(move |connection| read::tree(connection, &root)).await
    }

    /// Waits until the whole tree under a job is terminal. Woken by commits, never by polling.
    ///
    /// # Errors
    /// The database failed.
    pub async fn wait_for_tree(&self, root: &JobId, limit: Duration) -> Result<TreeWait, QueueError> {
        self.store.wait_for_tree(root, limit).await
    }
}

impl From<AskError> for QueueError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Unavailable => Self::Unavailable,
            AskError::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}

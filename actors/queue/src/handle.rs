//! The handle of the queue: the way in for producers and readers.

use std::sync::Arc;
use std::time::Duration;

use ductile_model::{AskError, JobId, Link};
use tokio::sync::Semaphore;

use crate::actor::EnqueueRequest;
use crate::enqueue::CheckedJob;
use crate::successors::{self, PreparedStart};
use crate::{
    AttemptLog, Begun, Enqueued, JobFilter, JobPage, JobView, NewJob, PipelineStart, QueueError, QueueMsg, Store,
    TreeNode, TreeWait, read,
};

/// Enqueues under way at once. Beyond that, callers are told that the queue is not available.
const ENQUEUES_UNDER_WAY: usize = 4096;

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

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
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

    /// Starts a pipeline from outside, in one transaction: all of its entry jobs, or none. `Ok` means committed.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn start(&self, pipeline: PipelineStart) -> Result<Begun, QueueError> {
        let start = PreparedStart::new(pipeline)?;
        self.store.write(move |scope| successors::start(scope, &start)).await
    }

    /// Rows `queued` and `running`, counted in memory as the store commits: cheap enough for every request.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.store.depth()
    }

    /// Scheduled commands whose circuit breaker is open: a read whose price does not grow with the queue.
    ///
    /// # Errors
    /// The database failed.
    pub async fn circuits_open(&self) -> Result<u64, QueueError> {
        self.store.read(read::circuits_open).await
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

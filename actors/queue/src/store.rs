//! The store: one writer thread, a pool of readers, one file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self as std_mpsc, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_model::{Clock, EventHub, JobId, JobStatus, Outcome, SnapshotId};
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::cancel::{self, give_up};
use crate::enqueue::{CheckedJob, enqueue};
use crate::finalise::{PreparedOutcome, finalise, recover};
use crate::open::{BUSY_TIMEOUT, writable};
use crate::readers::Readers;
use crate::scope::{Asked, Jitter, Scope};
use crate::writer::{Message, Shared, Writer, WriterParts};
use crate::{
    ActivateGeneration, CancelTarget, Cancelled, ClaimPolicy, ClaimedJob, Enqueued, Finalised, Hooks, QueueError,
    Recovered, ReloadEntry, ScheduleNews, StoreError, TreeWait, generation, history, read,
};

/// News of schedules that a listener may lag behind before it has to read the rows.
const NEWS_KEPT: usize = 1024;

/// Durability of a commit against power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Survives a killed process.
    Normal,
    /// Survives a power cut too.
    Full,
}

/// How to open the store of a gateway.
#[derive(Clone)]
pub struct StoreOptions {
    /// The database file.
    pub path: PathBuf,
    /// Durability.
    pub synchronous: Synchronous,
    /// Where committed changes are published.
    pub hub: EventHub,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The configuration that recovery works under, recorded or about to be.
    pub snapshot: Option<SnapshotId>,
    /// What it says, until a generation brings its own.
    pub policy: ClaimPolicy,
    /// Operations per commit at most; 1 switches grouping off (benches only).
    pub max_group: usize,
}

/// The state database of a running gateway. Cheap to clone; outlives every generation.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    inbox: Sender<Message>,
    shared: Arc<Shared>,
    readers: Readers,
    thread: Mutex<Option<JoinHandle<()>>>,
    next_watch: AtomicU64,
    janitor_ran: Mutex<Option<DateTime<Utc>>>,
}

impl Store {
    /// Creates an empty database or validates the present one, and starts the writer and the readers. The caller
    /// holds the PID lock.
    ///
    /// # Errors
    /// Nothing of a refused file is changed.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_with_jitter(options, Arc::new(fastrand::f64))
    }

    /// As [`Store::open`], with the source of the random part of back-offs and intervals.
    pub(crate) fn open_with_jitter(options: StoreOptions, jitter: Jitter) -> Result<Self, StoreError> {
        let connection = writable(&options.path, options.synchronous, options.clock.now())?;
        let (inbox, messages) = std_mpsc::channel();
        let shared = Arc::new(Shared {
            depth: AtomicU64::new(0),
            failed: watch::Sender::new(None),
            last_write_failed: AtomicBool::new(false),
            schedules: broadcast::Sender::new(NEWS_KEPT),
        });
        let readers = Readers::new(&options.path);
        let path = options.path.clone();
        let writer = Writer::new(WriterParts {
            connection,
            path: options.path,
            inbox: messages,
            shared: shared.clone(),
            hub: options.hub,
            clock: options.clock,
            jitter,
            snapshot: options.snapshot,
            policy: options.policy,
            max_group: options.max_group,
        })
        .map_err(|source| StoreError::Sqlite { path: path.clone(), source })?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| StoreError::Io { what: "starting the writer of", path, source })?;
        let thread = Mutex::new(Some(thread));
        let (next_watch, janitor_ran) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { inbox, shared, readers, thread, next_watch, janitor_ran }) })
    }

    /// Ids of jobs whose process a killed gateway may have left behind: those that are `running`, and those that were
    /// given up while they ran.
    ///
    /// # Errors
    /// The database failed.
    pub async fn jobs_with_leftovers(&self) -> Result<Vec<JobId>, QueueError> {
        self.read(|connection| {
            let mut ids = read::ids_in(connection, JobStatus::Running)?;
            ids.extend(read::given_up_while_running(connection)?);
            Ok(ids)
        })
        .await
    }

    /// Brings the rows of attempts that a killed process left `running` back into the queue, or marks them dead.
    /// Once per process, before anything claims. Ends for good raise `hooks`.
    ///
    /// # Errors
    /// The database failed; the next start goes on where this one ended.
    pub async fn recover(&self, hooks: Option<Arc<dyn Hooks>>) -> Result<Vec<Recovered>, QueueError> {
        let mut recovered = Vec::new();
        for id in self.read(|connection| read::ids_in(connection, JobStatus::Running)).await? {
            let hooks = hooks.clone();
            recovered.extend(self.write(move |scope| recover(scope, &id, hooks.as_deref())).await?);
        }
        Ok(recovered)
    }

    /// Writes the snapshot row (and what else becomes true with it) in one transaction and makes the generation the
    /// one that claims. Claims come over the returned channel; those of the generation before end.
    ///
    /// # Errors
    /// The database failed: the generation before goes on as if nothing had been asked. `Stopping`: claiming has ended,
    /// and nothing was written.
    pub async fn activate(
        &self,
        generation: ActivateGeneration,
    ) -> Result<mpsc::UnboundedReceiver<ClaimedJob>, QueueError> {
        let (sender, claims) = mpsc::unbounded_channel();
        self.write(move |scope| generation::activate(scope, &generation, &sender)).await?;
        Ok(claims)
    }

    /// Ends claiming for good, because the process stops: no generation can take over afterwards. Answered when the
    /// last claim has been handed out.
    pub async fn stop_claiming(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.inner.inbox.send(Message::StopClaiming(reply)).is_ok() {
            let _ = stopped.await;
        }
    }

    /// Cancels jobs. `Ok` means committed: what was cancelled never runs again, and its processes are being ended. Each
    /// keeps its worker and its place in the lane until its process is gone.
    ///
    /// # Errors
    /// The database failed; nothing was cancelled.
    pub async fn cancel(&self, target: CancelTarget, text: String) -> Result<Cancelled, QueueError> {
        let (reply, answer) = oneshot::channel();
        let reason = text.clone();
        let work = move |scope: &Scope<'_>| give_up(scope, &target, &text);
        self.submit(BUSY_TIMEOUT, work, move |outcome| {
            outcome.iter().for_each(|cancelled| cancel::tell(cancelled, &reason));
            let _ = reply.send(outcome);
        });
        answer.await.unwrap_or(Err(QueueError::Unavailable))
    }

    /// Opens a history row for a reload.
    ///
    /// # Errors
    /// The database failed.
    pub async fn begin_reload(
        &self,
        trigger: &'static str,
        actor: Option<String>,
        old_posture: &'static str,
    ) -> Result<ReloadEntry, QueueError> {
        self.write(move |scope| history::begin(scope, trigger, actor.as_deref(), old_posture)).await
    }

    /// Closes the history row of a reload that was refused.
    ///
    /// # Errors
    /// The database failed.
    pub async fn refuse_reload(
        &self,
        entry: ReloadEntry,
        outcome: Outcome,
        stage: &str,
        error: &str,
    ) -> Result<(), QueueError> {
        let (stage, error) = (stage.to_owned(), error.to_owned());
        self.write(move |scope| history::close_refused(scope, &entry, outcome, &stage, &error)).await
    }

    /// Changes the durability from the next commit on.
    pub fn set_synchronous(&self, synchronous: Synchronous) {
        let _ = self.inner.inbox.send(Message::Synchronous(synchronous));
    }

    /// Whether a write is possible right now, within a second.
    pub async fn is_writable(&self) -> bool {
        const LIMIT: Duration = Duration::from_secs(1);
        // After a failure only a page that really was written tells that the disk takes writes again.
        let really = self.inner.shared.last_write_failed.load(Ordering::Acquire);
        let (reply, answer) = oneshot::channel();
        let work = move |scope: &Scope<'_>| {
            if really {
                scope.connection().execute_batch(
                    "INSERT INTO storage_sequences (name) VALUES ('write-probe');
                     DELETE FROM storage_sequences WHERE name = 'write-probe';",
                )?;
            }
            Ok(())
        };
        self.submit(LIMIT, work, move |outcome: Result<(), QueueError>| drop(reply.send(outcome)));
        matches!(tokio::time::timeout(LIMIT, answer).await, Ok(Ok(Ok(()))))
    }

    /// Resolves when the database became unusable for good (an outcome could not be stored for a minute, the file
    /// was replaced or is damaged), with the reason. The process must end.
    pub async fn failed(&self) -> String {
        let mut failed = self.inner.shared.failed.subscribe();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Optimises, checkpoints and closes. Operations that come later are answered `Unavailable`.
    pub async fn close(&self) {
        self.inner.readers.close();
        let (reply, closed) = oneshot::channel();
        if self.inner.inbox.send(Message::Close(reply)).is_ok() {
            let _ = closed.await;
        }
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    pub(crate) fn subscribe_to_schedules(&self) -> broadcast::Receiver<ScheduleNews> {
        self.inner.shared.schedules.subscribe()
    }

    /// The process must end, for this reason.
    pub(crate) fn fail(&self, reason: String) {
        self.inner.shared.fail(reason);
    }

    /// When the janitor ran last in this process.
    pub(crate) fn janitor_ran(&self) -> MutexGuard<'_, Option<DateTime<Utc>>> {
        self.inner.janitor_ran.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs queued and running.
    pub(crate) fn depth(&self) -> u64 {
        self.inner.shared.depth.load(Ordering::Acquire)
    }

    /// Runs a read on the pool.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.inner.readers.read(work).await
    }

    /// Queues a job; `reply` is called after the commit.
    pub(crate) fn submit_enqueue(
        &self,
        job: Box<CheckedJob>,
        reply: impl FnOnce(Result<Enqueued, QueueError>) + Send + 'static,
    ) {
        self.submit(BUSY_TIMEOUT, move |scope| enqueue(scope, &job), reply);
    }

    /// Stores an outcome; `reply` is called after the commit.
    pub(crate) fn submit_finalise(
        &self,
        prepared: Arc<PreparedOutcome>,
        reply: impl FnOnce(Result<Finalised, QueueError>) + Send + 'static,
    ) {
        self.submit(BUSY_TIMEOUT, move |scope| finalise(scope, &prepared), reply);
    }

    /// Calls back when everything submitted before is done.
    pub(crate) fn flush(&self, reply: impl FnOnce() + Send + 'static) {
        let _ = self.inner.inbox.send(Message::Flush(Box::new(reply)));
    }

    /// Waits for the tree of a job.
    pub(crate) async fn wait_for_tree(&self, root: &JobId, limit: Duration) -> Result<TreeWait, QueueError> {
        let (reply, answer) = oneshot::channel();
        let id = self.inner.next_watch.fetch_add(1, Ordering::Relaxed);
        let watch = Message::Watch { id, root: root.clone(), reply };
        self.inner.inbox.send(watch).map_err(|_| QueueError::Unavailable)?;
        let mut watching = Watching { store: self, id, over: false };
        match tokio::time::timeout(limit, answer).await {
            Ok(answered) => {
                watching.over = true;
                Ok(answered.map_err(|_| QueueError::Unavailable)??.map_or(TreeWait::Unknown, TreeWait::Complete))
            }
            Err(_) => {
                drop(watching);
                let id = root.clone();
                let status = self.read(move |connection| read::status(connection, &id)).await?;
                Ok(status.map_or(TreeWait::Unknown, TreeWait::TimedOut))
            }
        }
    }

    pub(crate) fn submit<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnMut(&Scope<'_>) -> Result<T, QueueError> + Send + 'static,
        reply: impl FnOnce(Result<T, QueueError>) + Send + 'static,
    ) {
        let operation = Box::new(Asked::new(patience, work, reply));
        if let Err(std_mpsc::SendError(Message::Operation(operation))) =
            self.inner.inbox.send(Message::Operation(operation))
        {
            operation.answer(Err(QueueError::Unavailable));
        }
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Scope<'_>) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.submit(BUSY_TIMEOUT, work, move |outcome| drop(reply.send(outcome)));
        answer.await.unwrap_or(Err(QueueError::Unavailable))
    }
}

/// Ends a watch when the waiter gives up or is dropped.
struct Watching<'a> {
    store: &'a Store,
    id: u64,
    over: bool,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.store.inner.inbox.send(Message::Unwatch(self.id));
        }
    }
}

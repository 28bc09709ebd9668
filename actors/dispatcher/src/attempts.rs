//! The running attempts of a generation.
//!
//! They belong to the process, as their child processes do, and not to an incarnation of the pool's actor: an actor
//! that crashes and is restarted finds them again, together with the one task that takes claims from the inbox. So
//! no two tasks ever compete for claims, and none waits in the inbox for the actor to come back.

use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use ductile_model::SnapshotId;
use ductile_queue::{AttemptOutcome, ClaimedJob, Finalise, Finalised, InterruptKind, QueueError, Store};
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ClaimInbox;
use crate::attempt::{self, Deps};
use crate::control::Control;
use crate::process::TERM_GRACE;
use crate::threads;

/// Time that outcomes get to be stored after SIGKILL, when the process stops.
const KILL_LIMIT: Duration = Duration::from_secs(9);
/// Time the thread of a panicked attempt may need: it bounds each of its own two waits by ten seconds.
const PANIC_LIMIT: Duration = Duration::from_secs(25);

/// Where outcomes go.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Stores one.
    fn store(&self, outcome: Finalise) -> Pin<Box<dyn Future<Output = Result<Finalised, QueueError>> + Send + '_>>;
}

impl Sink for Store {
    fn store(&self, outcome: Finalise) -> Pin<Box<dyn Future<Output = Result<Finalised, QueueError>> + Send + '_>> {
        Box::pin(self.finalise(outcome))
    }
}

/// How attempts are run and where their outcomes go.
pub(crate) struct Runner {
    pub(crate) deps: Deps,
    pub(crate) sink: Box<dyn Sink>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    running: HashMap<u64, Arc<Control>>,
    /// Whether claims are being taken: 1 while an inbox is open.
    drivers: usize,
    /// The process stops: what begins from now on is ended before it starts.
    order: Option<Signal>,
}

/// The running attempts of one generation.
#[derive(Debug, Default)]
pub(crate) struct Attempts(watch::Sender<Table>);

static GENERATIONS: LazyLock<Mutex<HashMap<String, Weak<Attempts>>>> = LazyLock::new(Mutex::default);

impl Attempts {
    /// Those of all generations that have something running or to come.
    fn all() -> Vec<Arc<Self>> {
        let generations = GENERATIONS.lock().unwrap_or_else(PoisonError::into_inner);
        generations.values().filter_map(Weak::upgrade).collect()
    }

    /// Those of the generation with this snapshot: new, or those that an earlier incarnation of its actor began.
    pub(crate) fn of(snapshot: &SnapshotId) -> Arc<Self> {
        let mut generations = GENERATIONS.lock().unwrap_or_else(PoisonError::into_inner);
        generations.retain(|_, attempts| attempts.strong_count() > 0);
        if let Some(attempts) = generations.get(snapshot.as_str()).and_then(Weak::upgrade) {
            return attempts;
        }
        let attempts = Arc::new(Self::default());
        generations.insert(snapshot.as_str().to_owned(), Arc::downgrade(&attempts));
        attempts
    }

    /// Takes claims from the inbox until it ends. Nothing happens when that is being done already.
    pub(crate) fn drive(self: &Arc<Self>, inbox: ClaimInbox, runner: Arc<Runner>) {
        let started = self.0.send_if_modified(|table| {
            let is_first = table.drivers == 0;
            table.drivers = 1;
            is_first
        });
        if !started {
            return;
        }
        let driving = Arc::new(Driving(self.clone()));
        let lead = Lead { inbox, runner, runtime: Handle::current(), driving };
        if let Err(error) = threads::run(move || lead.take()) {
            tracing::error!(%error, "no thread to take claims: nothing runs until the dispatcher is restarted");
        }
    }

    /// Enters an attempt, so that whoever waits for the running ones waits for it too.
    fn enter(self: &Arc<Self>) -> Entry {
        let control = Arc::new(Control::default());
        let mut id = 0;
        self.0.send_modify(|table| {
            id = table.next;
            table.next += 1;
            table.running.insert(id, control.clone());
            if let Some(signal) = table.order {
                control.order(signal);
            }
        });
        Entry { attempts: self.clone(), id, control }
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.0.borrow().running.len()
    }

    /// Waits until the inbox has ended and nothing runs.
    pub(crate) async fn drained(&self) {
        // The sender lives in `self`, so the wait can not fail.
        drop(self.0.subscribe().wait_for(|table| table.drivers == 0 && table.running.is_empty()).await);
    }

    async fn none_running(&self) {
        drop(self.0.subscribe().wait_for(|table| table.running.is_empty()).await);
    }

    /// Lets running attempts finish within `limit`, then ends them, first politely. Returns when the outcome of each
    /// is stored, or when a process can not be ended at all.
    pub(crate) async fn stop(&self, limit: Duration) {
        if timeout(limit, self.drained()).await.is_ok() {
            return;
        }
        self.order(Signal::TERM);
        if timeout(TERM_GRACE, self.none_running()).await.is_ok() {
            return;
        }
        self.order(Signal::KILL);
        if timeout(KILL_LIMIT, self.none_running()).await.is_err() {
            tracing::error!(running = self.running(), "attempts could not be ended");
        }
    }

    /// Ends all running attempts at once, and those that would begin.
    pub(crate) fn order(&self, signal: Signal) {
        self.0.send_modify(|table| {
            table.order = Some(signal);
            for control in table.running.values() {
                control.order(signal);
            }
        });
    }
}

/// Lets the running attempts of every generation finish within `limit`, then ends them (SIGTERM, 5 s, SIGKILL).
/// Returns when the outcome of each is stored. Claims must have ended before. Independent of any actor: attempts
/// belong to the process.
pub async fn stop_attempts(limit: Duration) {
    let attempts = Attempts::all();
    join_all(attempts.iter().map(|attempts| attempts.stop(limit))).await;
}

/// Ends the running attempts of every generation at once.
pub fn kill_attempts() {
    for attempts in Attempts::all() {
        attempts.order(Signal::KILL);
    }
}

/// The place of the one who waits for claims. It goes round: whoever gets a claim passes the place on to another
/// thread and runs the job itself, so that between a claim and its start no work changes hands (the leader/follower
/// pattern of Schmidt et al.).
#[derive(Clone)]
struct Lead {
    inbox: ClaimInbox,
    runner: Arc<Runner>,
    runtime: Handle,
    driving: Arc<Driving>,
}

impl Lead {
    fn take(self) {
        loop {
            let Some(job) = self.inbox.blocking_lock().blocking_recv() else { return };
            // Entered before the place goes on: the next one may find the inbox ended, and a drain must not miss this job.
            let entry = self.driving.0.enter();
            let next = self.clone();
            let (runner, runtime) = (self.runner.clone(), self.runtime.clone());
            if threads::run(move || next.take()).is_ok() {
                drop(self);
                return entry.run(&job, &runner, &runtime);
            }
            // No thread is left: this one runs the job and then waits on.
            entry.run(&job, &runner, &runtime);
        }
    }
}

/// Claims are being taken.
struct Driving(Arc<Attempts>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.0.send_modify(|table| table.drivers = 0);
    }
}

/// One row of the table; leaves it whatever becomes of the task.
struct Entry {
    attempts: Arc<Attempts>,
    id: u64,
    control: Arc<Control>,
}

impl Entry {
    /// Runs the claimed job to its stored outcome, on this thread.
    fn run(self, job: &ClaimedJob, runner: &Runner, runtime: &Handle) {
        let (control, handle) = (self.control.clone(), runtime.clone());
        job.cancellation.on_cancel(move || control.end(&handle));
        runtime.block_on(async {
            let outcome = run_caught(job, &runner.deps, &self.control).await;
            store(outcome, runner.sink.as_ref()).await;
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.attempts.0.send_modify(|table| {
            table.running.remove(&self.id);
        });
    }
}

/// Runs an attempt; a panic in its handling ends that attempt only.
async fn run_caught(job: &ClaimedJob, deps: &Deps, control: &Arc<Control>) -> Finalise {
    let begun = Instant::now();
    let panic = match caught(attempt::run(job, deps, control)).await {
        Ok(outcome) => return outcome,
        Err(panic) => panic,
    };
    tracing::error!(
        job_id = %job.id, plugin = job.plugin, command = job.command, attempt = job.attempt,
        panic = panic_text(panic.as_ref()), "handling of an attempt panicked"
    );
    // Its process must be gone before the row can be claimed again.
    control.order(Signal::KILL);
    if timeout(PANIC_LIMIT, control.idle()).await.is_err() {
        tracing::error!(job_id = %job.id, "process of a panicked attempt could not be ended");
    }
    let backoff_base = deps.catalogue.backoff_base(&job.plugin);
    Finalise {
        job: job.id.clone(),
        attempt: job.attempt,
        completed_at: deps.clock.now(),
        outcome: AttemptOutcome::Interrupted(InterruptKind::InternalError { backoff_base }),
        stderr: None,
        result: None,
        duration: begun.elapsed(),
        spawned: control.has_spawned(),
        stopwatch: None,
        hooks: deps.routing.hooks(&job.plugin),
    }
}

async fn store(outcome: Finalise, sink: &dyn Sink) {
    let (job, attempt) = (outcome.job.clone(), outcome.attempt);
    match sink.store(outcome).await {
        Ok(Finalised::Stored(status)) => tracing::debug!(job_id = %job, attempt, %status, "attempt finished"),
        Ok(Finalised::Stale) => {
            // The queue has warned of it.
            tracing::debug!(job_id = %job, attempt, "outcome came too late: the job is no longer running this attempt");
        }
        // The queue has said why, with the outcome; the process ends and the row is recovered at the next start.
        Err(error) => tracing::error!(job_id = %job, attempt, %error, "outcome could not be stored"),
    }
}

/// The future's output, or what it panicked with.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

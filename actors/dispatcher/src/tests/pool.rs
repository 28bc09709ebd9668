//! The pool: claims, drain, stop, panics.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_model::{Clock, EventHub, JobStatus, SnapshotId};
use ductile_queue::{AttemptOutcome, ClaimedJob, Finalise, Finalised, InterruptKind, QueueError};
use rustix::process::Signal;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::ClaimInbox;
use crate::attempts::{Attempts, Runner, Sink};
use crate::testing::{BACKOFF, Site, assert_succeeded, claimed, is_alive, pid_in};

const LONG: Duration = Duration::from_secs(60);
const SLOW: &str = "echo $$ > \"$SITE/new\"; mv \"$SITE/new\" \"$SITE/pid\"; exec sleep 600";
const STUBBORN: &str =
    "trap '' TERM; echo $$ > \"$SITE/new\"; mv \"$SITE/new\" \"$SITE/pid\"; while :; do sleep 600; done";
const GATED: &str = "while [ ! -e \"$SITE/go\" ]; do sleep 0.01; done; echo '{\"status\":\"ok\",\"result\":\"x\"}'";

struct Collect(mpsc::UnboundedSender<Finalise>);

impl Sink for Collect {
    fn store(&self, outcome: Finalise) -> Pin<Box<dyn Future<Output = Result<Finalised, QueueError>> + Send + '_>> {
        self.0.send(outcome).unwrap();
        Box::pin(async { Ok(Finalised::Stored(JobStatus::Succeeded)) })
    }
}

struct Pool {
    attempts: Arc<Attempts>,
    inbox: ClaimInbox,
    runner: Arc<Runner>,
    claims: Option<mpsc::UnboundedSender<ClaimedJob>>,
    outcomes: mpsc::UnboundedReceiver<Finalise>,
}

impl Pool {
    async fn of(site: &Site) -> Self {
        let (claims, inbox) = mpsc::unbounded_channel();
        let (collect, outcomes) = mpsc::unbounded_channel();
        let runner = Arc::new(Runner { deps: site.deps().await, sink: Box::new(Collect(collect)) });
        let attempts = Attempts::of(&SnapshotId::generate());
        let inbox = Arc::new(Mutex::new(inbox));
        attempts.drive(inbox.clone(), runner.clone());
        Self { attempts, inbox, runner, claims: Some(claims), outcomes }
    }

    fn claim(&self, job: ClaimedJob) {
        self.claims.as_ref().unwrap().send(job).unwrap();
    }

    fn poll(&self) {
        self.claim(claimed("p", "poll", None));
    }

    async fn next(&mut self) -> Finalise {
        timeout(LONG, self.outcomes.recv()).await.expect("no outcome").unwrap()
    }
}

fn is_interrupted_by_stop(outcome: &Finalise) -> bool {
    matches!(outcome.outcome, AttemptOutcome::Interrupted(InterruptKind::Shutdown))
}

fn is_interrupted_by_panic(outcome: &Finalise) -> bool {
    matches!(
        outcome.outcome,
        AttemptOutcome::Interrupted(InterruptKind::InternalError { backoff_base }) if backoff_base == BACKOFF
    )
}

async fn pid_of(site: &Site) -> u32 {
    let path = site.path("pid");
    tokio::task::spawn_blocking(move || pid_in(&path)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_has_one_outcome_and_a_second_driver_changes_nothing() {
    let site = Site::sh("echo '{\"status\":\"ok\",\"result\":\"x\"}'");
    let mut pool = Pool::of(&site).await;
    let mut expected = Vec::new();
    for round in 0..20 {
        let job = claimed("p", "poll", None);
        expected.push(job.id.clone());
        pool.claim(job);
        if round % 5 == 0 {
            pool.attempts.drive(pool.inbox.clone(), pool.runner.clone());
        }
    }
    let mut seen = Vec::new();
    for _ in 0..20 {
        let outcome = pool.next().await;
        assert_succeeded(&outcome);
        seen.push(outcome.job);
    }
    seen.sort();
    assert_eq!(seen, expected);
    drop(pool.claims.take());
    timeout(LONG, pool.attempts.drained()).await.unwrap();
    assert!(pool.outcomes.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_when_the_inbox_has_ended_and_the_last_attempt_is_stored() {
    let site = Site::sh(GATED);
    let mut pool = Pool::of(&site).await;
    pool.poll();
    drop(pool.claims.take());
    let attempts = pool.attempts.clone();
    let drain = tokio::spawn(async move { attempts.drained().await });
    std::fs::write(site.path("go"), "").unwrap();
    assert_succeeded(&pool.next().await);
    timeout(LONG, drain).await.unwrap().unwrap();
    assert_eq!(pool.attempts.running(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_never_misses_a_claim_that_is_just_being_taken() {
    let site = Site::sh("exit 0");
    for _ in 0..20_000 {
        let mut pool = Pool::of(&site).await;
        // Needs no process, so that the instants before and after the attempt are most of it.
        pool.claim(claimed("unknown", "poll", None));
        drop(pool.claims.take());
        timeout(LONG, pool.attempts.drained()).await.unwrap();
        pool.outcomes.try_recv().expect("the drain ended before the outcome was stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_outlive_the_incarnation_that_began_them() {
    let snapshot = SnapshotId::generate();
    let first = Attempts::of(&snapshot);
    assert!(Arc::ptr_eq(&first, &Attempts::of(&snapshot)));
    assert!(!Arc::ptr_eq(&first, &Attempts::of(&SnapshotId::generate())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_finish_what_finishes_in_time() {
    let site = Site::sh(GATED);
    let mut pool = Pool::of(&site).await;
    pool.poll();
    drop(pool.claims.take());
    std::fs::write(site.path("go"), "").unwrap();
    timeout(LONG, pool.attempts.stop(LONG)).await.unwrap();
    assert_succeeded(&pool.next().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_rest_and_each_is_stored_as_interrupted() {
    for script in [SLOW, STUBBORN] {
        let site = Site::sh(script);
        let mut pool = Pool::of(&site).await;
        pool.poll();
        let pid = pid_of(&site).await;
        timeout(LONG, pool.attempts.stop(Duration::ZERO)).await.unwrap();
        assert!(is_interrupted_by_stop(&pool.outcomes.try_recv().unwrap()));
        assert!(!is_alive(pid));
        // A claim that was on its way is given back without a process.
        pool.poll();
        let late = pool.next().await;
        assert!(is_interrupted_by_stop(&late) && !late.spawned);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_kills_at_once() {
    let site = Site::sh(STUBBORN);
    let mut pool = Pool::of(&site).await;
    pool.poll();
    let pid = pid_of(&site).await;
    pool.attempts.order(Signal::KILL);
    assert!(is_interrupted_by_stop(&pool.next().await));
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_one_attempt_interrupts_only_that_one() {
    let site = Site::sh("echo '{\"status\":\"ok\",\"result\":\"x\"}'");
    let mut pool = Pool::of(&site).await;
    pool.claim(claimed("panics", "poll", None));
    let outcome = pool.next().await;
    assert!(is_interrupted_by_panic(&outcome) && !outcome.spawned, "{outcome:?}");
    pool.poll();
    assert_succeeded(&pool.next().await);
}

/// Panics when the third event of an attempt is published: its process has just been started.
#[derive(Default)]
struct TreacherousClock(AtomicUsize);

impl Clock for TreacherousClock {
    fn now(&self) -> DateTime<Utc> {
        assert_ne!(self.0.fetch_add(1, Ordering::Relaxed), 2, "clock broke");
        Utc::now()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_beside_a_running_plugin_ends_the_plugin_before_the_outcome_is_stored() {
    let mut site = Site::sh("sleep 600");
    site.hub = EventHub::new(Arc::new(TreacherousClock::default()));
    let mut pool = Pool::of(&site).await;
    let job = claimed("p", "poll", None);
    pool.claim(job.clone());
    let outcome = pool.next().await;
    assert!(is_interrupted_by_panic(&outcome) && outcome.spawned, "{outcome:?}");
    assert_eq!(crate::end_leftovers(&[job.id], LONG).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_given_up_before_its_thread_came_to_it_leaves_no_trace() {
    let mut site = Site::sh("touch \"$SITE/ran\"");
    // Nobody answers: a question to the vault would fail the attempt.
    site.vault = None;
    let mut pool = Pool::of(&site).await;
    let job = claimed("p", "poll", None);
    job.cancellation.cancel();
    pool.claim(job);
    let outcome = pool.next().await;
    assert!(is_interrupted_by_stop(&outcome) && !outcome.spawned, "{outcome:?}");
    assert!(site.events().is_empty(), "{:?}", site.events());
    assert!(!site.path("ran").exists());
}

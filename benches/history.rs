//! A store with a long history: what enqueue and claim cost beside a million finished jobs, and how long it takes to
//! list, search and prune them. Prints figures and ratios; asserts nothing.
//!
//! `cargo bench --bench history`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test or bench that can not go on may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_model::{EventHub, JobStatus, LinkOwner, Producer, SnapshotId, SystemClock};
use ductile_queue::{
    ActivateGeneration, AttemptOutcome, ClaimPolicy, Finalise, JobFilter, LogFilter, NewJob, QueueActor, QueueArgs,
    QueueHandle, Reader, Retention, Routed, SnapshotRow, Store, StoreOptions, Synchronous,
};
use ractor::Actor;

const FINISHED: u32 = 1_000_000;
const PROBES: usize = 4000;
const ROUNDS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (small, large) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let (empty, full) = (small.path().join("bench.db"), large.path().join("bench.db"));
        let began = Instant::now();
        open(&full).close().await;
        fill(&full);
        println!("{FINISHED} finished jobs written in {:.1} s", began.elapsed().as_secs_f64());
        println!("  file {:.0} MiB", std::fs::metadata(&full).expect("a file").len() as f64 / (1 << 20) as f64);
        life(&empty, &full).await;
        reads(&full).await;
        prune(&full).await;
    });
}

fn open(path: &Path) -> Store {
    let options = StoreOptions {
        snapshot: None,
        policy: ClaimPolicy::default(),
        path: path.to_owned(),
        synchronous: Synchronous::Normal,
        hub: EventHub::new(Arc::new(SystemClock)),
        clock: Arc::new(SystemClock),
        max_group: 256,
    };
    Store::open(options).expect("a store")
}

/// Jobs of the last ten days, each with its log row, transitions, attempt and timing; every fiftieth failed.
fn fill(path: &Path) {
    let connection = rusqlite::Connection::open(path).expect("a connection");
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF; BEGIN;
             CREATE TEMP TABLE t AS WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {FINISHED} - 1)
             SELECT i, lower(hex(randomblob(16))) AS id,
                    strftime('%Y-%m-%d %H:%M:%f', 'now', '-10 days', (i * 864000.0 / {FINISHED}) || ' seconds') || '000000Z' AS at
             FROM n;
             INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, dedupe_key, created_at, started_at, completed_at)
             SELECT id, 'plugin' || i % 20, iif(i % 3, 'handle', 'poll'), '{{\"n\":' || i || '}}', iif(i % 50, 'succeeded', 'failed'),
                    iif(i % 2, 'api', 'route'), iif(i % 4, NULL, 'key-' || i), at, at, at FROM t;
             INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, completed_at, last_error, stderr)
             SELECT id || '-1', id, plugin, command, status, '{{\"status\":\"ok\",\"result\":\"' || id || '\"}}', 1, submitted_by, created_at,
                    completed_at, iif(status = 'failed', 'connection refused by ' || id, NULL), NULL FROM job_queue;
             INSERT INTO job_transitions (job_id, from_status, to_status, created_at)
             SELECT id, 'running', status, completed_at FROM job_queue;
             INSERT INTO job_attempts (job_id, attempt, created_at) SELECT id, 1, started_at FROM job_queue;
             INSERT INTO job_stopwatch (job_id, plugin, pipeline, step_id, pipeline_instance_id, attempt, enter_wall_ns, exit_wall_ns,
                                        dur_ns, runtime_pre_ns, runtime_post_ns, status, recorded_at)
             SELECT id, plugin, '', '', '', 1, 0, 0, rowid % 1000000, 0, 0, 'ok', completed_at FROM job_queue;
             COMMIT;"
        ))
        .expect("rows");
}

/// Enqueue, claim and finalise one by one, alternating between the stores so that both see the same machine.
async fn life(empty: &Path, full: &Path) {
    let mut enqueues = [Vec::new(), Vec::new()];
    let mut claims = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (index, path) in [empty, full].into_iter().enumerate() {
            let (enqueue, claim) = probe(path).await;
            if round > 0 {
                enqueues[index].extend(enqueue);
                claims[index].extend(claim);
            }
        }
    }
    println!("one job at a time, median µs   {:>10} {:>10} {:>8}", "empty", "full", "ratio");
    for (name, samples) in [("enqueue", &mut enqueues), ("claim to outcome stored", &mut claims)] {
        let [empty, full] = samples.each_mut().map(|samples| median(samples));
        println!("  {name:<28} {empty:>10.1} {full:>10.1} {:>8.2}", full / empty);
    }
}

async fn probe(path: &Path) -> (Vec<f64>, Vec<f64>) {
    let store = open(path);
    let mut claims = store.activate(generation()).await.expect("an active generation");
    let owner = LinkOwner::default();
    let (actor, task) = Actor::spawn(None, QueueActor, QueueArgs { store: store.clone() }).await.expect("an actor");
    owner.set(actor.clone());
    let queue = QueueHandle::new(owner.link(), store.clone());
    let (mut enqueued, mut finished) = (Vec::new(), Vec::new());
    for n in 0..PROBES / ROUNDS {
        let began = Instant::now();
        queue.enqueue(job(n)).await.expect("a queued job");
        enqueued.push(began.elapsed().as_secs_f64() * 1e6);
        let claimed = claims.recv().await.expect("a claim");
        let outcome = Finalise {
            job: claimed.id,
            attempt: claimed.attempt,
            completed_at: chrono::Utc::now(),
            outcome: AttemptOutcome::Succeeded { state: None, routed: Routed::default() },
            stderr: None,
            result: Some(r#"{"status":"ok","result":"x"}"#.to_owned()),
            duration: Duration::from_millis(1),
            spawned: true,
            stopwatch: None,
            hooks: None,
        };
        store.finalise(outcome).await.expect("a stored outcome");
        finished.push(began.elapsed().as_secs_f64() * 1e6);
    }
    actor.stop(None);
    let _ = task.await;
    store.close().await;
    (enqueued, finished)
}

async fn reads(path: &Path) {
    let store = open(path);
    let queue = QueueHandle::new(LinkOwner::default().link(), store.clone());
    let all = JobFilter { limit: 50, ..JobFilter::default() };
    let day = Some(chrono::Utc::now() - chrono::TimeDelta::days(1));
    println!("lists of 50, with their totals, best of 3");
    for (name, filter) in [
        ("/jobs", all.clone()),
        ("/jobs?plugin", JobFilter { plugin: Some("plugin7".into()), ..all.clone() }),
        ("/jobs?plugin (none of it)", JobFilter { plugin: Some("nobody".into()), ..all.clone() }),
        ("/jobs?status=failed", JobFilter { status: Some(JobStatus::Failed), ..all.clone() }),
        ("/jobs?from", JobFilter { from: day, ..all.clone() }),
        ("/jobs?submitted_by", JobFilter { submitted_by: Some("route".into()), ..all.clone() }),
        ("/jobs, page in the middle", JobFilter { after: Some(("2020".into(), "x".into())), ..all }),
    ] {
        let mut best = f64::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            queue.jobs(filter.clone()).await.expect("a page");
            best = best.min(began.elapsed().as_secs_f64() * 1e3);
        }
        println!("  {name:<28} {best:>10.1} ms");
    }
    let reader = Reader::open(path).expect("a reader");
    let all = LogFilter { limit: 50, ..LogFilter::default() };
    for (name, filter) in [
        ("job logs", all.clone()),
        ("job logs --plugin", LogFilter { plugin: Some("plugin7".into()), ..all.clone() }),
        (
            "job logs --plugin --status",
            LogFilter { plugin: Some("plugin10".into()), status: Some(JobStatus::Failed), ..all.clone() },
        ),
        ("job logs --status failed", LogFilter { status: Some(JobStatus::Failed), ..all.clone() }),
        ("job logs --from", LogFilter { from: day, ..all.clone() }),
        ("job logs --query --from", LogFilter { from: day, query: Some("REFUSED".into()), ..all.clone() }),
        ("job logs --query", LogFilter { query: Some("REFUSED".into()), ..all }),
    ] {
        let mut best = f64::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            reader.logs(&filter).expect("rows");
            best = best.min(began.elapsed().as_secs_f64() * 1e3);
        }
        println!("  {name:<28} {best:>10.1} ms");
    }
    store.close().await;
}

/// How long the housekeeping takes, and how long an enqueue waits meanwhile.
async fn prune(path: &Path) {
    let store = open(path);
    let day = Duration::from_secs(86_400);
    let keep = Retention {
        job_queue: day,
        dedupe_ttl: day,
        job_log: 5 * day,
        job_transitions: 5 * day,
        job_attempts: 5 * day,
        breaker_transitions: day,
    };
    let owner = LinkOwner::default();
    let (actor, task) = Actor::spawn(None, QueueActor, QueueArgs { store: store.clone() }).await.expect("an actor");
    owner.set(actor.clone());
    let queue = QueueHandle::new(owner.link(), store.clone());
    let (pruner, janitor) = (store.clone(), store.clone());
    let began = Instant::now();
    let pruning = tokio::spawn(async move { pruner.prune(keep).await });
    let mut waits = Vec::new();
    while !pruning.is_finished() {
        let began = Instant::now();
        queue.enqueue(job(0)).await.expect("a queued job");
        waits.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let rows: usize = pruning.await.expect("a round").iter().map(|(_, rows)| rows).sum();
    let took = began.elapsed().as_secs_f64();
    println!("one round of pruning: {rows} rows in {took:.2} s, {:.0} rows/s", rows as f64 / took);
    waits.sort_by(f64::total_cmp);
    let (p50, worst) = (median(&mut waits), waits.last().copied().unwrap_or_default());
    println!("  an enqueue meanwhile: median {p50:.2} ms, worst {worst:.1} ms");
    let began = Instant::now();
    let run = janitor.run_janitor(chrono::Utc::now(), 30 * day).await.expect("a run").expect("it is due");
    println!("janitor: {} summaries in {:.2} s", run.rolled_up, began.elapsed().as_secs_f64());
    actor.stop(None);
    let _ = task.await;
    store.close().await;
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

fn job(n: usize) -> NewJob {
    NewJob {
        plugin: "bench".into(),
        command: "poll".into(),
        payload: Some(r#"{"message":"hello"}"#.into()),
        submitted_by: Producer::Api,
        max_attempts: 4,
        dedupe_key: n.is_multiple_of(4).then(|| fresh_key(n)),
        dedupe_ttl: None,
        parent_job_id: None,
        event_id: None,
        source_event_id: None,
        event_context_id: None,
        direct: true,
    }
}

/// A key that no job has had.
fn fresh_key(n: usize) -> String {
    format!("{}-{n}", chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default())
}

fn generation() -> ActivateGeneration {
    ActivateGeneration {
        snapshot: SnapshotRow {
            id: SnapshotId::generate(),
            config_hash: String::new(),
            source_hash: String::new(),
            source_path: String::new(),
            source: "explicit".into(),
            reason: "startup",
            ductile_version: String::new(),
            binary_path: String::new(),
            semantics: "{}".into(),
            plugin_fingerprints: "[]".into(),
            sanitized_config: "{}".into(),
            secret_fingerprints: "[]".into(),
        },
        policy: ClaimPolicy { max_workers: 4, ..ClaimPolicy::default() },
        runnable: None,
        reload: None,
    }
}

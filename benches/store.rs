//! Full life cycle of jobs (enqueue, claim, finalise) in the store alone: with and without grouped commits, and with
//! commits that survive a power cut. Prints rates and their ratios; asserts nothing.
//!
//! `cargo bench --bench store`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test or bench that can not go on may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_model::{EventHub, LinkOwner, Producer, SnapshotId, SystemClock};
use ductile_queue::{
    ActivateGeneration, AttemptOutcome, ClaimPolicy, Finalise, NewJob, QueueActor, QueueArgs, QueueHandle, Routed,
    SnapshotRow, Store, StoreOptions, Synchronous,
};
use ractor::Actor;

const JOBS: usize = 20_000;
const PRODUCERS: usize = 64;
const WORKERS: u32 = 64;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("store life cycle, {JOBS} jobs, {PRODUCERS} producers");
    let mut rates = BTreeMap::new();
    for (name, group, synchronous, jobs) in [
        ("one commit each", 1, Synchronous::Normal, JOBS / 4),
        ("grouped", 256, Synchronous::Normal, JOBS),
        ("one commit each, full", 1, Synchronous::Full, JOBS / 10),
        ("grouped, full", 256, Synchronous::Full, JOBS),
    ] {
        let rate = runtime.block_on(life_cycles(group, synchronous, jobs));
        println!("  {name:<24} {rate:>10.0} jobs/s");
        rates.insert(name, rate);
    }
    println!("  grouped / one each       {:>10.2}", rates["grouped"] / rates["one commit each"]);
    println!("  full / normal, grouped   {:>10.2}", rates["grouped, full"] / rates["grouped"]);
}

async fn life_cycles(max_group: usize, synchronous: Synchronous, jobs: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let options = StoreOptions {
        snapshot: None,
        policy: ClaimPolicy::default(),
        path: dir.path().join("bench.db"),
        synchronous,
        hub: EventHub::new(Arc::new(SystemClock)),
        clock: Arc::new(SystemClock),
        max_group,
    };
    let store = Store::open(options).expect("a store");
    let mut claims = store.activate(generation()).await.expect("an active generation");
    let owner = LinkOwner::default();
    let (actor, task) = Actor::spawn(None, QueueActor, QueueArgs { store: store.clone() }).await.expect("an actor");
    owner.set(actor.clone());
    let queue = QueueHandle::new(owner.link(), store.clone());

    let began = Instant::now();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for _ in 0..jobs / PRODUCERS {
                    queue.enqueue(job()).await.expect("a queued job");
                }
            })
        })
        .collect();
    for _ in 0..jobs / PRODUCERS * PRODUCERS {
        let claimed = claims.recv().await.expect("a claim");
        let store = store.clone();
        tokio::spawn(async move {
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
        });
    }
    for producer in producers {
        producer.await.expect("a producer");
    }
    while queue.depth() > 0 {
        tokio::task::yield_now().await;
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    actor.stop(None);
    let _ = task.await;
    store.close().await;
    rate
}

fn job() -> NewJob {
    NewJob {
        plugin: "bench".into(),
        command: "poll".into(),
        payload: Some(r#"{"message":"hello"}"#.into()),
        submitted_by: Producer::Api,
        max_attempts: 4,
        dedupe_key: None,
        dedupe_ttl: None,
        parent_job_id: None,
        event_id: None,
        source_event_id: None,
        event_context_id: None,
        direct: true,
    }
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
        policy: ClaimPolicy { max_workers: WORKERS, ..ClaimPolicy::default() },
        runnable: None,
        reload: None,
    }
}

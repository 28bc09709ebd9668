//! Tests of the whole store: real files, the real writer thread, a clock that moves only when told to.

mod breaking;
mod busy;
mod cancelling;
mod claiming;
mod enqueueing;
mod fairness;
mod files;
mod finishing;
mod generations;
mod keeping;
mod maintaining;
mod migrating;
mod migrating_old;
mod model;
mod reading;
mod retrying;
mod routing;
mod schedules;
pub(crate) mod statements;
mod waiting;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use ductile_model::{
    Clock, EventHub, FailureReason, JobId, JobStatus, LinkOwner, ManualClock, Producer, SnapshotId, format_db,
    parse_stored,
};
use ractor::Actor;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::breaker::{Target, admits};
use crate::enqueue::{CheckedJob, enqueue};
use crate::scope::{Jitter, Scope};
use crate::{
    ActivateGeneration, AttemptOutcome, ClaimPolicy, ClaimedJob, Enqueued, Finalise, Finalised, NewJob, QueueActor,
    QueueArgs, QueueHandle, QueueMsg, Routed, SnapshotRow, StateUpdate, Store, StoreOptions, Synchronous,
};

/// How long a test waits for something that must come.
const SOON: Duration = Duration::from_secs(20);

/// A store in a directory of its own.
struct Site {
    directory: TempDir,
    clock: Arc<ManualClock>,
    hub: EventHub,
    store: Store,
    link: LinkOwner<QueueMsg>,
    queue: QueueHandle,
}

impl Site {
    async fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap()).await
    }

    async fn in_directory(directory: TempDir) -> Self {
        // Half of the jitter, every time.
        Self::with_chance(directory, Arc::new(|| 0.5)).await
    }

    async fn with_chance(directory: TempDir, chance: Jitter) -> Self {
        let clock = Arc::new(ManualClock::new(parse_stored("2026-01-02 03:04:05Z").unwrap()));
        let hub = EventHub::new(clock.clone());
        let options = options(directory.path().join("ductile.db"), clock.clone(), hub.clone());
        let store = Store::open_with_jitter(options, chance).unwrap();
        let link = LinkOwner::default();
        let queue = QueueHandle::new(link.link(), store.clone());
        let site = Self { directory, clock, hub, store, link, queue };
        site.start_actor().await;
        site
    }

    async fn start_actor(&self) -> ractor::ActorRef<QueueMsg> {
        let (actor, _) = Actor::spawn(None, QueueActor, QueueArgs { store: self.store.clone() }).await.unwrap();
        self.link.set(actor.clone());
        actor
    }

    /// Closes the store, as an orderly stop does, and opens it again.
    async fn reopen(self) -> Self {
        self.store.close().await;
        let Self { directory, .. } = self;
        Self::in_directory(directory).await
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ductile.db")
    }

    /// A connection as another process would have.
    fn other(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(SOON).unwrap();
        connection
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.other().query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn column(&self, sql: &str) -> Vec<String> {
        let connection = self.other();
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
        rows.map(|row| row.unwrap().unwrap_or_else(|| "-".to_owned())).collect()
    }

    async fn activate(&self, policy: ClaimPolicy) -> UnboundedReceiver<ClaimedJob> {
        let snapshot = snapshot("startup");
        self.store.activate(ActivateGeneration { snapshot, policy, runnable: None, reload: None }).await.unwrap()
    }

    async fn enqueue(&self, job: NewJob) -> JobId {
        match self.queue.enqueue(job).await.unwrap() {
            Enqueued::Queued(id) => id,
            Enqueued::Duplicate { existing, .. } => panic!("counted as a duplicate of {existing}"),
        }
    }

    /// Queues a job as the scheduler does: if the breaker of its command lets it through.
    async fn enqueue_scheduled(&self, job: NewJob) -> Option<Enqueued> {
        let job = CheckedJob::new(job).unwrap();
        let work = move |scope: &Scope<'_>| {
            let target = Target { plugin: &job.job().plugin, command: &job.job().command };
            if admits(scope, &target)? { enqueue(scope, &job).map(Some) } else { Ok(None) }
        };
        self.store.write(work).await.unwrap()
    }

    fn now_text(&self) -> String {
        format_db(self.clock.now())
    }

    fn advance(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }

    async fn finish(&self, job: &ClaimedJob, outcome: AttemptOutcome) -> Finalised {
        self.store.finalise(self.end_of(job, outcome)).await.unwrap()
    }

    fn end_of(&self, job: &ClaimedJob, outcome: AttemptOutcome) -> Finalise {
        Finalise {
            job: job.id.clone(),
            attempt: job.attempt,
            completed_at: self.clock.now(),
            outcome,
            stderr: Some("a line".to_owned()),
            result: Some(r#"{"status":"ok","result":"done"}"#.to_owned()),
            duration: Duration::from_millis(12),
            spawned: true,
            stopwatch: None,
            hooks: None,
        }
    }

    /// Events are published after the answers, so the writer is asked once more before they are looked at.
    async fn events(&self) -> Vec<&'static str> {
        self.store.write(|_| Ok(())).await.unwrap();
        self.hub.subscribe(0).backlog.into_iter().map(|record| record.kind).collect()
    }

    async fn last_event(&self, kind: &str) -> serde_json::Map<String, serde_json::Value> {
        self.store.write(|_| Ok(())).await.unwrap();
        let mut backlog = self.hub.subscribe(0).backlog;
        backlog.retain(|record| record.kind == kind);
        let last = backlog.pop().unwrap_or_else(|| panic!("no event {kind}"));
        (*last.data).clone()
    }
}

fn options(path: PathBuf, clock: Arc<dyn Clock>, hub: EventHub) -> StoreOptions {
    StoreOptions {
        path,
        synchronous: Synchronous::Normal,
        hub,
        clock,
        snapshot: None,
        policy: policy(1),
        max_group: 256,
    }
}

fn policy(max_workers: u32) -> ClaimPolicy {
    ClaimPolicy { max_workers, ..ClaimPolicy::default() }
}

fn snapshot(reason: &'static str) -> SnapshotRow {
    SnapshotRow {
        id: SnapshotId::generate(),
        config_hash: "hash".into(),
        source_hash: "hash".into(),
        source_path: "/etc/ductile/config.yaml".into(),
        source: "explicit".into(),
        reason,
        ductile_version: "0.1.0".into(),
        binary_path: "/usr/bin/ductile".into(),
        semantics: "{}".into(),
        plugin_fingerprints: "{}".into(),
        sanitized_config: "{}".into(),
        secret_fingerprints: "[]".into(),
    }
}

fn job(plugin: &str) -> NewJob {
    NewJob {
        plugin: plugin.to_owned(),
        command: "poll".to_owned(),
        payload: Some(r#"{"x":1}"#.to_owned()),
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

fn keyed(plugin: &str, key: &str) -> NewJob {
    NewJob { dedupe_key: Some(key.to_owned()), ..job(plugin) }
}

fn succeeded() -> AttemptOutcome {
    AttemptOutcome::Succeeded { state: None, routed: Routed::default() }
}

fn with_state(json: &str, fact_types: &[&str]) -> AttemptOutcome {
    let fact_types = fact_types.iter().map(|name| (*name).to_owned()).collect();
    AttemptOutcome::Succeeded {
        state: Some(StateUpdate { json: json.to_owned(), fact_types }),
        routed: Routed::default(),
    }
}

fn failed(reason: FailureReason) -> AttemptOutcome {
    AttemptOutcome::Failed { reason, error: "it broke".to_owned(), backoff_base: Duration::from_secs(4) }
}

/// The next claim. Waits for it, as claims come after a commit.
async fn claim(claims: &mut UnboundedReceiver<ClaimedJob>) -> ClaimedJob {
    tokio::time::timeout(SOON, claims.recv()).await.expect("no job was claimed").expect("claiming ended")
}

/// Lets the writer finish what it was given and proves that it handed nothing out.
async fn nothing_claimed(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>) {
    site.store.write(|_| Ok(())).await.unwrap();
    site.store.write(|_| Ok(())).await.unwrap();
    assert!(claims.try_recv().is_err(), "a job was claimed");
}

fn stored(status: JobStatus) -> Finalised {
    Finalised::Stored(status)
}

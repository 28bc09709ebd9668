//! The actor with a real plan, a real store and a real queue.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ductile_config::{Environment, Plan, Purpose, SecretProjection, SecretProvider, VaultPlaces, locate, plan};
use ductile_model::{Clock, EventHub, JobId, JobStatus, Lifecycle, LinkOwner, Problem, Producer, SystemClock};
use ductile_queue::{
    ActivateGeneration, ClaimPolicy, Enqueued, NewJob, QueueActor, QueueArgs, QueueHandle, SnapshotRow, Store,
    StoreOptions, Synchronous, TreeNode, TreeWait,
};
use ductile_vault::{VaultActor, VaultArgs};
use ractor::{Actor, ActorRef};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::attempts::Attempts;
use crate::testing::{is_alive, pid_in};
use crate::{ClaimInbox, DispatcherArgs, DispatcherHandle, DispatcherMsg, DispatcherPool};

const LONG: Duration = Duration::from_secs(60);

/// Counts its polls in its state, beyond what a floating point number holds; waits for a file when it is there to be
/// waited for.
const PLUGIN: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
request = json.load(sys.stdin)
site = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
def path(name): return os.path.join(site, name)
if request["command"] == "wait":
    open(path("new"), "w").write(str(os.getpid()))
    os.rename(path("new"), path("pid"))
    while not os.path.exists(path("go")): time.sleep(0.01)
n = request["state"].get("n", 1713740000123456789)
print(json.dumps({"status": "ok", "result": str(n), "state_updates": {"n": n + 1}}))
"#;

struct NoVault;

impl SecretProvider for NoVault {
    fn open(&self, _: &VaultPlaces, _: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem> {
        Ok(None)
    }
}

fn make_plan(dir: &Path) -> Plan {
    let plugin = dir.join("plugins");
    fs::create_dir_all(&plugin).unwrap();
    let manifest = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: p\nversion: '1'\nprotocol: 2\nentrypoint: run\n\
                    commands:\n  - {name: poll}\n  - {name: wait}\n";
    for (name, text, mode) in [("manifest.yaml", manifest, 0o644), ("run", PLUGIN, 0o755)] {
        fs::write(plugin.join(name), text).unwrap();
        fs::set_permissions(plugin.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("config.yaml"), "plugin_roots: [./plugins]\nplugins:\n  p: {enabled: true}\n").unwrap();
    let vars = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
    let env = Environment { vars, home: Some(dir.to_owned()) };
    let source = locate(Some(&dir.join("config.yaml")), &env).unwrap();
    plan(&source, &env, &NoVault, Purpose::Admitting).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn activation(plan: &Plan) -> ActivateGeneration {
    let record = &plan.snapshot;
    ActivateGeneration {
        snapshot: SnapshotRow {
            id: record.id.clone(),
            config_hash: record.config_hash.clone(),
            source_hash: record.source_hash.clone(),
            source_path: record.source_path.clone(),
            source: record.source.to_owned(),
            reason: "startup",
            ductile_version: "test".to_owned(),
            binary_path: String::new(),
            semantics: record.semantics.clone(),
            plugin_fingerprints: record.plugin_fingerprints.clone(),
            sanitized_config: record.sanitized_config.clone(),
            secret_fingerprints: record.secret_fingerprints.clone(),
        },
        policy: ClaimPolicy { max_workers: 4, dedupe_ttl: plan.config.service.dedupe_ttl, ..ClaimPolicy::default() },
        runnable: None,
        reload: None,
    }
}

struct Gateway {
    dir: TempDir,
    store: Store,
    queue: QueueHandle,
    args: DispatcherArgs,
    inbox: ClaimInbox,
    pool: ActorRef<DispatcherMsg>,
    task: JoinHandle<()>,
    link: LinkOwner<DispatcherMsg>,
}

impl Gateway {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = Arc::new(make_plan(dir.path()));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let hub = EventHub::new(clock.clone());
        let store = Store::open(StoreOptions {
            path: dir.path().join("state.db"),
            synchronous: Synchronous::Normal,
            hub: hub.clone(),
            clock: clock.clone(),
            snapshot: None,
            policy: ClaimPolicy::default(),
            max_group: 64,
        })
        .unwrap();
        let queue_link = LinkOwner::default();
        queue_link.set(Actor::spawn(None, QueueActor, QueueArgs { store: store.clone() }).await.unwrap().0);
        let queue = QueueHandle::new(queue_link.link(), store.clone());
        let vault_args = VaultArgs::new(None);
        let vault = vault_args.handle();
        Actor::spawn(None, VaultActor, vault_args).await.unwrap();
        let inbox = Arc::new(Mutex::new(store.activate(activation(&plan)).await.unwrap()));
        let args = DispatcherArgs { plan, store: store.clone(), vault, hub, clock };
        let link = LinkOwner::default();
        let (pool, task) = Actor::spawn(None, DispatcherPool, args.clone()).await.unwrap();
        link.set(pool.clone());
        let gateway = Self { dir, store, queue, args, inbox, pool, task, link };
        gateway.handle().take_claims(gateway.inbox.clone()).await.unwrap();
        gateway
    }

    fn attempts(&self) -> Arc<Attempts> {
        Attempts::of(&self.args.plan.snapshot.id)
    }

    fn handle(&self) -> DispatcherHandle {
        DispatcherHandle::new(self.link.link())
    }

    async fn enqueue(&self, command: &str) -> JobId {
        let job = NewJob {
            plugin: "p".to_owned(),
            command: command.to_owned(),
            payload: None,
            submitted_by: Producer::Api,
            max_attempts: 4,
            dedupe_key: None,
            dedupe_ttl: None,
            parent_job_id: None,
            event_id: None,
            source_event_id: None,
            event_context_id: None,
            direct: true,
        };
        match self.queue.enqueue(job).await.unwrap() {
            Enqueued::Queued(id) => id,
            other => panic!("{other:?}"),
        }
    }

    async fn finished(&self, job: &JobId) -> TreeNode {
        match self.queue.wait_for_tree(job, LONG).await.unwrap() {
            TreeWait::Complete(mut nodes) => nodes.remove(0),
            other => panic!("{other:?}"),
        }
    }

    async fn waiting_pid(&self) -> u32 {
        let path = self.dir.path().join("pid");
        tokio::task::spawn_blocking(move || pid_in(&path)).await.unwrap()
    }

    fn go(&self) {
        fs::write(self.dir.path().join("go"), "").unwrap();
    }

    /// Makes the actor fail, as a supervisor sees it, and waits until it is gone.
    async fn crash(&mut self) {
        self.pool.cast(Lifecycle::Crash.into()).unwrap();
        drop(timeout(LONG, &mut self.task).await.unwrap());
        self.link.clear();
    }

    async fn restart(&mut self) {
        (self.pool, self.task) = Actor::spawn(None, DispatcherPool, self.args.clone()).await.unwrap();
        self.link.set(self.pool.clone());
        self.handle().take_claims(self.inbox.clone()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_from_the_queue_into_a_process_and_back_with_all_digits_of_its_state() {
    let gateway = Gateway::new().await;
    let first = gateway.enqueue("poll").await;
    let first = gateway.finished(&first).await;
    assert_eq!(first.job.status, JobStatus::Succeeded, "{first:?}");
    let second = gateway.enqueue("poll").await;
    let result = gateway.finished(&second).await.job.result.unwrap();
    assert!(result.contains("\"result\": \"1713740000123456790\""), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_actor_disturbs_no_attempt_and_loses_no_claim() {
    let mut gateway = Gateway::new().await;
    let running = gateway.enqueue("wait").await;
    gateway.waiting_pid().await;
    gateway.crash().await;
    let meanwhile = gateway.enqueue("poll").await;
    assert_eq!(gateway.finished(&meanwhile).await.job.status, JobStatus::Succeeded);
    gateway.restart().await;
    assert_eq!(gateway.attempts().running(), 1);
    let after = gateway.enqueue("poll").await;
    assert_eq!(gateway.finished(&after).await.job.status, JobStatus::Succeeded);
    gateway.go();
    let running = gateway.finished(&running).await;
    assert_eq!((running.job.status, running.job.attempt), (JobStatus::Succeeded, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_attempts_that_an_earlier_incarnation_began() {
    let mut gateway = Gateway::new().await;
    let job = gateway.enqueue("wait").await;
    gateway.waiting_pid().await;
    gateway.crash().await;
    gateway.restart().await;
    gateway.store.stop_claiming().await;
    let (answer, drained) = ractor::concurrency::oneshot();
    gateway.pool.cast(Lifecycle::Drain(answer.into()).into()).unwrap();
    assert_eq!(gateway.attempts().running(), 1);
    gateway.go();
    timeout(LONG, drained).await.unwrap().unwrap();
    assert_eq!(gateway.queue.job(&job).await.unwrap().unwrap().status, JobStatus::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_puts_what_it_ends_back_into_the_queue() {
    let gateway = Gateway::new().await;
    let job = gateway.enqueue("wait").await;
    let pid = gateway.waiting_pid().await;
    gateway.store.stop_claiming().await;
    timeout(LONG, gateway.attempts().stop(Duration::ZERO)).await.unwrap();
    let job = gateway.queue.job(&job).await.unwrap().unwrap();
    assert_eq!((job.status, job.attempt), (JobStatus::Queued, 2));
    assert_eq!(job.last_error.as_deref(), Some("attempt 1 interrupted: gateway shutdown"));
    assert!(!is_alive(pid));
}

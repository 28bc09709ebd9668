//! A whole generation as far as the API needs one.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use ductile_config::{Environment, Plan, Purpose, SecretProjection, SecretProvider, VaultPlaces, locate, plan};
use ductile_listeners::{Door, DoorLimits};
use ductile_model::{Clock, EventHub, FailureReason, Lifecycle, LinkOwner, Problem, Secret, SystemClock};
use ductile_queue::{
    ActivateGeneration, AttemptOutcome, ClaimPolicy, ClaimedJob, Finalise, QueueActor, QueueArgs, QueueHandle,
    QueueMsg, Routed, SnapshotRow, Store, StoreOptions, Synchronous,
};
use ractor::{Actor, ActorRef};
use tokio::sync::watch;

use super::client::Client;
use crate::{ApiActor, ApiArgs, ApiMsg, Control, ProcessView, ReloadFailure, ReloadReport};

/// Tokens of every site: name, which is also the value, and scopes.
const TOKENS: &[(&str, &str)] = &[
    ("all", "[\"*\"]"),
    ("nothing", "[]"),
    ("runner", "[\"plugin:rw\"]"),
    ("reader", "[\"plugin:invoke:ro\"]"),
    ("catalogue", "[\"plugin:ro\"]"),
    ("echo-but-poll", "[\"echo:rw\", \"echo:deny:poll\"]"),
    ("status", "[\"jobs:status:ro\"]"),
    ("status-and-result", "[\"jobs:status:ro\", \"jobs:result:ro\"]"),
    ("tree", "[\"jobs:tree:ro\"]"),
    ("system", "[\"system:rw\"]"),
];

struct Vault;

impl SecretProvider for Vault {
    fn open(&self, _: &VaultPlaces, _: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem> {
        Ok(Some(Arc::new(Self)))
    }
}

impl SecretProjection for Vault {
    fn resolve(&self, name: &str) -> Result<Secret, &'static str> {
        Ok(Secret::new(name.to_owned()))
    }

    fn fingerprint_key(&self) -> [u8; 32] {
        [1; 32]
    }
}

/// The process above, as far as a test wants it.
pub(crate) struct FakeControl {
    pub(crate) reload: Mutex<Result<ReloadReport, ReloadFailure>>,
    pub(crate) actors: Mutex<Vec<String>>,
    pub(crate) not_ready: Mutex<Vec<&'static str>>,
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) panics: AtomicBool,
}

impl FakeControl {
    fn new() -> Self {
        Self {
            reload: Mutex::new(Err(ReloadFailure::InProgress)),
            actors: Mutex::default(),
            not_ready: Mutex::default(),
            stopping: watch::Sender::new(false),
            panics: AtomicBool::new(false),
        }
    }
}

impl Control for FakeControl {
    fn slot_counts(&self) -> std::collections::BTreeMap<(String, String), ductile_model::SlotCounts> {
        std::collections::BTreeMap::default()
    }

    fn reload(&self, actor: String) -> Pin<Box<dyn Future<Output = Result<ReloadReport, ReloadFailure>> + Send>> {
        self.actors.lock().unwrap().push(actor);
        let outcome = self.reload.lock().unwrap().clone();
        Box::pin(async move { outcome })
    }

    fn process(&self) -> ProcessView {
        assert!(!self.panics.load(Ordering::Relaxed), "asked for by a test");
        ProcessView {
            started_at: Utc::now(),
            generation: 3,
            not_ready: self.not_ready.lock().unwrap().clone(),
            binary_path: "/opt/ductile".to_owned(),
            version: "1.2.3".to_owned(),
        }
    }

    fn stopping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut stopping = self.stopping.subscribe();
        Box::pin(async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        })
    }
}

pub(crate) struct Site {
    pub(crate) door: Door,
    pub(crate) queue: QueueHandle,
    store: Store,
    pub(crate) control: Arc<FakeControl>,
    pub(crate) api: ActorRef<ApiMsg>,
    pub(crate) args: ApiArgs,
    /// Jobs of the command `slow` end when this becomes true.
    pub(crate) gate: watch::Sender<bool>,
    _link: LinkOwner<QueueMsg>,
    dir: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with_api("").await
    }

    /// A site whose `api` section has more keys.
    pub(crate) async fn with_api(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = Arc::new(make_plan(dir.path(), more));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let hub = EventHub::new(clock.clone());
        let store = Store::open(StoreOptions {
            path: dir.path().join("state.db"),
            synchronous: Synchronous::Normal,
            hub: hub.clone(),
            clock: clock.clone(),
            snapshot: None,
            policy: ClaimPolicy::default(),
            max_group: 256,
        })
        .unwrap();
        let link = LinkOwner::default();
        let (actor, _) = QueueActor::spawn(None, QueueActor, QueueArgs { store: store.clone() }).await.unwrap();
        link.set(actor);
        let queue = QueueHandle::new(link.link(), store.clone());
        let gate = watch::Sender::new(false);
        run_jobs(&store, &queue, &plan, gate.subscribe()).await;

        let door = bind();
        let control = Arc::new(FakeControl::new());
        let args =
            ApiArgs { plan, queue: queue.clone(), hub, clock, control: control.clone(), door: Some(door.clone()) };
        let api = start(&args).await;
        Self { door, store, queue, control, api, args, gate, _link: link, dir }
    }

    /// A connection with the token of that name.
    pub(crate) async fn client(&self, token: &str) -> Client {
        Client::connect(self.door.local_addr(), Some(token)).await
    }

    pub(crate) async fn stranger(&self) -> Client {
        Client::connect(self.door.local_addr(), None).await
    }

    /// The queue of another generation, over the same store.
    pub(crate) async fn another_queue(&self) -> (LinkOwner<QueueMsg>, QueueHandle, ActorRef<QueueMsg>) {
        let link = LinkOwner::default();
        let args = QueueArgs { store: self.store.clone() };
        let (actor, _) = QueueActor::spawn(None, QueueActor, args).await.unwrap();
        link.set(actor.clone());
        let queue = QueueHandle::new(link.link(), self.store.clone());
        (link, queue, actor)
    }

    /// The same configuration loaded once more.
    pub(crate) fn next_generation(&self, queue: QueueHandle) -> ApiArgs {
        ApiArgs { plan: Arc::new(make_plan(self.dir.path(), "")), queue, ..self.args.clone() }
    }

    /// How many jobs there are.
    pub(crate) async fn total(&self) -> u64 {
        let filter = ductile_queue::JobFilter { limit: 1, ..Default::default() };
        self.queue.jobs(filter).await.unwrap().total
    }
}

pub(crate) fn bind() -> Door {
    let limits = DoorLimits {
        header_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(600),
        max_connections: 512,
        max_header_bytes: 32 << 10,
    };
    Door::bind("127.0.0.1:0", limits).unwrap()
}

pub(crate) async fn start(args: &ApiArgs) -> ActorRef<ApiMsg> {
    let (api, _) = ApiActor::spawn(None, ApiActor, args.clone()).await.unwrap();
    api.cast(Lifecycle::Activate.into()).unwrap();
    api
}

fn make_plan(dir: &Path, more_api: &str) -> Plan {
    plugin(
        dir,
        "echo",
        "  - {name: poll, description: Polls, input_schema: {message: string}}\n  - {name: handle}\n  - {name: read, \
         type: read}\n  - {name: slow}\n  - {name: fail}\n  - {name: health, type: read}\n",
    );
    plugin(dir, "one", "  - {name: only}\n");
    plugin(dir, "two", "  - {name: first}\n  - {name: second}\n");
    plugin(dir, "idle", "  - {name: poll}\n");
    let tokens: String = TOKENS
        .iter()
        .map(|(name, scopes)| format!("      - {{name: {name}, secret_ref: {name}, scopes: {scopes}}}\n"))
        .collect();
    let text = format!(
        "plugin_roots: [./plugins]\napi:\n  enabled: true\n  listen: 127.0.0.1:0\n{more_api}  auth:\n    \
         tokens:\n{tokens}plugins:\n  echo: {{enabled: true}}\n  one: {{enabled: true}}\n  two: {{enabled: true}}\n  \
         other: {{uses: echo, enabled: true}}\n"
    );
    fs::write(dir.join("config.yaml"), text).unwrap();
    let env = Environment { vars: BTreeMap::new(), home: Some(dir.join("home")) };
    let source = locate(Some(&dir.join("config.yaml")), &env).unwrap();
    plan(&source, &env, &Vault, Purpose::Admitting)
        .unwrap_or_else(|refusal| panic!("{}", refusal.lines().collect::<Vec<_>>().join("\n")))
}

fn plugin(dir: &Path, name: &str, commands: &str) {
    let at = dir.join("plugins").join(name);
    fs::create_dir_all(&at).unwrap();
    let manifest = format!(
        "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: '1.0'\nprotocol: 2\nentrypoint: \
         run.sh\ncommands:\n{commands}"
    );
    fs::write(at.join("manifest.yaml"), manifest).unwrap();
    fs::write(at.join("run.sh"), "#!/bin/sh\n").unwrap();
    for (path, mode) in [("", 0o755), ("manifest.yaml", 0o644), ("run.sh", 0o755)] {
        fs::set_permissions(at.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Takes claims and finalises them: `fail` fails, `slow` waits for the gate, all others succeed at once.
async fn run_jobs(store: &Store, queue: &QueueHandle, plan: &Plan, gate: watch::Receiver<bool>) {
    let record = &plan.snapshot;
    let generation = ActivateGeneration {
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
        policy: ClaimPolicy { max_workers: 64, dedupe_ttl: plan.config.service.dedupe_ttl, ..ClaimPolicy::default() },
        runnable: None,
        reload: None,
    };
    let mut claims = store.activate(generation).await.unwrap();
    let queue = queue.clone();
    tokio::spawn(async move {
        while let Some(job) = claims.recv().await {
            tokio::spawn(run_job(queue.clone(), job, gate.clone()));
        }
    });
}

async fn run_job(queue: QueueHandle, job: ClaimedJob, mut gate: watch::Receiver<bool>) {
    if job.command == "slow" {
        let _ = gate.wait_for(|open| *open).await;
    }
    let (outcome, result) = match &*job.command {
        "fail" => {
            let error = "told to fail".to_owned();
            let failed = AttemptOutcome::Failed {
                reason: FailureReason::PluginRetryFalse,
                error,
                backoff_base: Duration::from_secs(1),
            };
            (failed, r#"{"status":"error","error":"told to fail","retry":false}"#.to_owned())
        }
        _ => {
            let payload = job.payload.as_deref().unwrap_or("null");
            (
                AttemptOutcome::Succeeded { state: None, routed: Routed::default() },
                format!(r#"{{"status":"ok","saw":{payload}}}"#),
            )
        }
    };
    let finalised = queue
        .store()
        .finalise(Finalise {
            job: job.id.clone(),
            attempt: job.attempt,
            completed_at: Utc::now(),
            outcome,
            stderr: None,
            result: Some(result),
            duration: Duration::from_millis(1),
            spawned: true,
            stopwatch: None,
            hooks: None,
        })
        .await;
    assert!(finalised.is_ok(), "{finalised:?}");
}

/// Waits until a job is over and gives its JSON.
pub(crate) async fn finished(client: &mut Client, id: &str) -> serde_json::Value {
    let deadline = tokio::time::Instant::now() + super::client::PATIENCE;
    loop {
        let job = client.get(&format!("/job/{id}")).await.json();
        if !matches!(job["status"].as_str(), Some("queued" | "running")) {
            return job;
        }
        assert!(tokio::time::Instant::now() < deadline, "still not over: {job}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often each id occurs.
pub(crate) fn count(ids: impl IntoIterator<Item = String>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for id in ids {
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

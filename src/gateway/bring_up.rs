//! The one way in which the gateway gets a configuration: at a start and at every reload.
//!
//! Everything that can fail happens here, in a task beside the running generation, which never notices a refusal:
//! files are read once, gates pass or refuse, the vault is decrypted once, listeners are bound, all actors start in
//! standby, and one transaction records the new generation and makes it the one that claims.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ductile_api::Control;
use ductile_config::{CircuitBreaker, Plan, Posture, Purpose, Source, Synchronous, plan, reload_refusals};
use ductile_dispatcher::{ClaimInbox, end_leftovers};
use ductile_listeners::{Door, DoorLimits};
use ductile_model::{Clock, EventHub, Problem, Refusal};
use ductile_queue::{ActivateGeneration, BreakerPolicy, ClaimPolicy, ReloadEntry, SnapshotRow, Store};
use ductile_router::{PlanHooks, Router};
use ductile_scheduler::SchedulerLife;
use ductile_timetable::{Interval, Rule};
use ductile_vault::{Vault, VaultArgs, VaultLock};
use ractor::{Actor, ActorRef};

use super::generation::{GenerationArgs, GenerationMsg, GenerationSupervisor, Restarts};
use super::process::ProcessState;
use super::root::RootMsg;
use super::secrets::VaultSource;
use crate::version;

/// How long processes of a killed gateway may take to be gone.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take to be read, unless synchronous waits may be longer.
const LONGEST_ANSWER: Duration = Duration::from_secs(600);

/// What outlives every generation.
#[derive(Clone)]
pub(crate) struct Resources {
    pub(crate) source: Source,
    pub(crate) store: Store,
    pub(crate) hub: EventHub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) process: Arc<ProcessState>,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) restarts: Arc<Mutex<Restarts>>,
    pub(crate) scheduler: SchedulerLife,
    pub(crate) log: crate::logging::LogControl,
}

/// What a load gives.
pub(crate) struct Loaded {
    pub(crate) plan: Arc<Plan>,
    pub(crate) vault: Option<Vault>,
}

/// What the running generation holds, as far as the next one must know it.
#[derive(Clone)]
pub(crate) struct Incumbent {
    pub(crate) plan: Arc<Plan>,
    pub(crate) door: Option<BoundDoor>,
    pub(crate) vault_lock: Option<Arc<HeldVault>>,
}

/// A bound address and what it was configured as.
#[derive(Clone)]
pub(crate) struct BoundDoor {
    pub(crate) address: String,
    pub(crate) door: Door,
}

/// The vault's write lock and the file it is for.
pub(crate) struct HeldVault {
    pub(crate) file: PathBuf,
    _lock: VaultLock,
}

impl HeldVault {
    /// Locks the vault of a plan.
    pub(crate) fn acquire(file: PathBuf) -> Result<Self, Refusal> {
        let lock = VaultLock::acquire(&file)
            .map_err(|error| Refusal::failed("vault_lock", Problem::new("vault", error.to_string())))?;
        Ok(Self { file, _lock: lock })
    }
}

/// A generation that stands ready and is already the one that claims; what remains is the flip.
pub(crate) struct Candidate {
    pub(crate) number: u64,
    pub(crate) supervisor: ActorRef<GenerationMsg>,
    pub(crate) inbox: ClaimInbox,
    pub(crate) incumbent: Incumbent,
}

/// Reads the configuration. Blocking.
pub(crate) fn load(source: &Source) -> Result<Loaded, Refusal> {
    let vault = VaultSource::default();
    let plan = plan(source, &crate::environment(), &vault, Purpose::Admitting)?;
    if plan.posture == Posture::ManagementOnly {
        return Err(Refusal::rejected(
            "posture",
            vec![
                Problem::new(
                    "api",
                    "the API has no token, and this version can not serve the management-only posture: store a token with \
                     `ductile vault set` and name it in api.auth.tokens",
                )
                .at_field("api.auth.tokens"),
            ],
        ));
    }
    Ok(Loaded { plan: Arc::new(plan), vault: vault.opened() })
}

/// The first generation of a process.
pub(crate) async fn boot(
    resources: &Resources,
    loaded: Loaded,
    vault_lock: Option<Arc<HeldVault>>,
    root: ActorRef<RootMsg>,
) -> Result<Candidate, Refusal> {
    let door = bind_api(loaded.plan.clone(), None).await?;
    let incumbent = Incumbent { plan: loaded.plan.clone(), door, vault_lock };
    let standby = stand_by(resources, 1, &loaded, &incumbent, root).await?;
    let recovered = async {
        recover(resources, &loaded.plan).await?;
        activate(resources, &loaded.plan, "startup", None, None).await
    };
    standby.finish(recovered.await, incumbent, 1).await
}

/// The next generation, beside the running one.
pub(crate) async fn reload(
    resources: &Resources,
    number: u64,
    running: &Incumbent,
    entry: &ReloadEntry,
    root: ActorRef<RootMsg>,
) -> Result<Candidate, Refusal> {
    let source = resources.source.clone();
    let loaded = blocking("load", move || load(&source)).await?;
    let refusals = reload_refusals(&running.plan, &loaded.plan);
    if !refusals.is_empty() {
        return Err(Refusal::rejected("policy", refusals));
    }
    super::boot::warn_of_old_vault(&loaded);
    let vault_lock = lock_vault(loaded.vault.clone(), running.vault_lock.clone()).await?;
    let door = bind_api(loaded.plan.clone(), running.door.clone()).await?;
    let incumbent = Incumbent { plan: loaded.plan.clone(), door, vault_lock };
    let standby = stand_by(resources, number, &loaded, &incumbent, root).await?;
    let mut entry = entry.clone();
    entry.new_posture = Some(loaded.plan.posture.as_str());
    let activated = activate(resources, &loaded.plan, "reload", Some(entry), Some(&running.plan)).await;
    standby.finish(activated, incumbent, number).await
}

/// A new vault path is locked before the swap; the old lock goes with the old generation.
async fn lock_vault(vault: Option<Vault>, held: Option<Arc<HeldVault>>) -> Result<Option<Arc<HeldVault>>, Refusal> {
    let Some(file) = vault.map(|vault| vault.path()) else { return Ok(None) };
    match held {
        Some(held) if held.file == file => Ok(Some(held)),
        _ => blocking("vault_lock", move || Ok(Some(Arc::new(HeldVault::acquire(file)?)))).await,
    }
}

/// Binds the API's address, or borrows the one that is already bound.
async fn bind_api(plan: Arc<Plan>, bound: Option<BoundDoor>) -> Result<Option<BoundDoor>, Refusal> {
    if plan.posture != Posture::Gateway {
        return Ok(None);
    }
    match bound {
        Some(bound) if bound.address == plan.config.api.listen.to_string() => {
            bound.door.raise_response_timeout(response_timeout(&plan));
            Ok(Some(bound))
        }
        // A host name is looked up.
        other => blocking("bind", move || bind(&plan, other.as_ref()).map(Some)).await,
    }
}

/// How long an answer may take to be read: longer than any synchronous wait.
fn response_timeout(plan: &Plan) -> Duration {
    LONGEST_ANSWER.max(plan.config.api.max_sync_timeout + Duration::from_secs(30))
}

fn bind(plan: &Plan, bound: Option<&BoundDoor>) -> Result<BoundDoor, Refusal> {
    let address = plan.config.api.listen.to_string();
    let limits = DoorLimits {
        header_timeout: Duration::from_secs(10),
        response_timeout: response_timeout(plan),
        max_connections: 4096,
        max_header_bytes: 32 * 1024,
    };
    let door = Door::bind(&address, limits).map_err(|error| {
        let same_port = bound.is_some_and(|bound| bound.door.local_addr().port() == plan.config.api.listen.port);
        let hint =
            if same_port { "; the running listener has the same port, so this change needs a restart" } else { "" };
        Refusal::failed("bind", Problem::new("listen", format!("{error}{hint}")).at_field("api.listen"))
    })?;
    Ok(BoundDoor { address, door })
}

/// A generation in standby, to be kept or thrown away whole.
struct Standby {
    supervisor: Option<ActorRef<GenerationMsg>>,
}

impl Drop for Standby {
    /// Reached by a panic on the way, too: nothing of a candidate may live on.
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.stop(None);
        }
    }
}

impl Standby {
    async fn finish(
        mut self,
        activated: Result<ClaimInbox, Refusal>,
        incumbent: Incumbent,
        number: u64,
    ) -> Result<Candidate, Refusal> {
        let Some(supervisor) = self.supervisor.take() else {
            return Err(Refusal::failed("start", Problem::new("runtime", "the generation is gone")));
        };
        match activated {
            Ok(inbox) => Ok(Candidate { number, supervisor, inbox, incumbent }),
            Err(refusal) => {
                // It is linked to the root, which does not know it and lets it go.
                drop(supervisor.stop_and_wait(None, Some(Duration::from_secs(10))).await);
                Err(refusal)
            }
        }
    }
}

async fn stand_by(
    resources: &Resources,
    number: u64,
    loaded: &Loaded,
    incumbent: &Incumbent,
    root: ActorRef<RootMsg>,
) -> Result<Standby, Refusal> {
    let args = GenerationArgs {
        number,
        plan: loaded.plan.clone(),
        vault: VaultArgs::new(loaded.vault.clone()),
        store: resources.store.clone(),
        hub: resources.hub.clone(),
        clock: resources.clock.clone(),
        control: resources.control.clone(),
        api_door: incumbent.door.as_ref().map(|bound| bound.door.clone()),
        process: resources.process.clone(),
        restarts: resources.restarts.clone(),
        scheduler: resources.scheduler.clone(),
        root: root.clone(),
    };
    let (supervisor, _task) = Actor::spawn_linked(None, GenerationSupervisor, args, root.get_cell())
        .await
        .map_err(|error| Refusal::failed("start", Problem::new("runtime", error.to_string())))?;
    Ok(Standby { supervisor: Some(supervisor) })
}

/// Ends what a killed gateway left running, then brings its jobs back. Before anything claims.
async fn recover(resources: &Resources, plan: &Arc<Plan>) -> Result<(), Refusal> {
    let failed = |error: String| Refusal::failed("recovery", Problem::new("recovery", error));
    let running = resources.store.jobs_with_leftovers().await.map_err(|error| failed(error.to_string()))?;
    if running.is_empty() {
        return Ok(());
    }
    let ended =
        blocking("recovery", move || end_leftovers(&running, LEFTOVER_LIMIT).map_err(|e| failed(e.to_string())));
    let ended = ended.await?;
    if ended > 0 {
        tracing::warn!(process_groups = ended, "ended processes left by a killed gateway");
    }
    let hooks = PlanHooks::new(Router::new(plan.clone()), resources.clock.clone());
    resources.store.recover(Some(Arc::new(hooks))).await.map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// The transaction that makes the generation the one that enqueues and claims.
async fn activate(
    resources: &Resources,
    plan: &Plan,
    reason: &'static str,
    reload: Option<ReloadEntry>,
    running: Option<&Plan>,
) -> Result<ClaimInbox, Refusal> {
    let config = &plan.config;
    let runnable = plan
        .registry
        .iter()
        .filter(|plugin| config.plugins.get(&plugin.name).is_some_and(|entry| entry.enabled))
        .map(|plugin| plugin.name.clone())
        .collect();
    let snapshot = &plan.snapshot;
    let generation = ActivateGeneration {
        snapshot: SnapshotRow {
            id: snapshot.id.clone(),
            config_hash: snapshot.config_hash.clone(),
            source_hash: snapshot.source_hash.clone(),
            source_path: snapshot.source_path.clone(),
            source: snapshot.source.to_owned(),
            reason,
            ductile_version: version::stored(),
            binary_path: resources.process.binary_path.clone(),
            semantics: snapshot.semantics.clone(),
            plugin_fingerprints: snapshot.plugin_fingerprints.clone(),
            sanitized_config: snapshot.sanitized_config.clone(),
            secret_fingerprints: snapshot.secret_fingerprints.clone(),
        },
        policy: claim_policy(plan),
        runnable: reload.is_some().then_some(runnable),
        reload,
    };
    // Commits are at no instant less durable than either configuration says: raised before, lowered after.
    let wanted = store_synchronous(config.state.synchronous);
    if wanted == ductile_queue::Synchronous::Full {
        resources.store.set_synchronous(wanted);
    }
    let claims = match resources.store.activate(generation).await {
        Ok(claims) => claims,
        Err(error) => {
            if let Some(running) = running {
                resources.store.set_synchronous(store_synchronous(running.config.state.synchronous));
            }
            let message = format!("could not record the configuration: {error}");
            return Err(Refusal::failed("commit", Problem::new("database", message)));
        }
    };
    resources.store.set_synchronous(wanted);
    tracing::info!(snapshot_id = %snapshot.id, reason, config_hash = %snapshot.config_hash, "config snapshot recorded");
    Ok(Arc::new(tokio::sync::Mutex::new(claims)))
}

/// What the configuration says about the queue.
pub(crate) fn claim_policy(plan: &Plan) -> ClaimPolicy {
    let service = &plan.config.service;
    let breakers = plan.config.plugins.iter().map(|(name, plugin)| {
        let CircuitBreaker { threshold, reset_after } = plugin.circuit_breaker;
        (name.clone(), BreakerPolicy { threshold, reset_after })
    });
    ClaimPolicy {
        service: service.name.clone(),
        max_workers: service.max_workers,
        lane_caps: plan.registry.iter().map(|plugin| (plugin.name.clone(), plan.lane_cap(&plugin.name))).collect(),
        dedupe_ttl: service.dedupe_ttl,
        breakers: breakers.collect(),
        intervals: intervals(plan),
    }
}

/// Schedules whose next run counts from the last success.
fn intervals(plan: &Plan) -> BTreeMap<String, BTreeMap<String, Interval>> {
    let mut intervals: BTreeMap<String, BTreeMap<String, Interval>> = BTreeMap::new();
    for entry in plan.schedules.iter() {
        if let Rule::Every(interval) = &entry.rule {
            intervals.entry(entry.plugin.clone()).or_default().insert(entry.id.clone(), interval.clone());
        }
    }
    intervals
}

/// The store's word for the configured durability.
pub(crate) fn store_synchronous(configured: Synchronous) -> ductile_queue::Synchronous {
    match configured {
        Synchronous::Normal => ductile_queue::Synchronous::Normal,
        Synchronous::Full => ductile_queue::Synchronous::Full,
    }
}

async fn blocking<T: Send + 'static>(
    stage: &'static str,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Refusal::failed(stage, Problem::new("runtime", format!("internal error: {error}")))),
    }
}

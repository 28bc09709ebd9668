//! From a command line to a serving gateway, phase by phase; each may refuse.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_config::{Plan, Source, SourceKind, locate};
use ductile_model::{EventHub, Outcome, Problem, Refusal, SystemClock};
use ductile_queue::{Store, StoreError, StoreOptions};
use ductile_scheduler::SchedulerLife;
use ractor::{Actor, ActorRef};
use tokio::sync::{mpsc, oneshot};

use super::bring_up::{HeldVault, Loaded, Resources, claim_policy, load, store_synchronous};
use super::control::GatewayControl;
use super::faults::{Faults, VARIABLE};
use super::pid_lock::{PidLock, lock_path};
use super::process::ProcessState;
use super::root::{Ready, ReloadTrigger, RootArgs, RootMsg, RootSupervisor};
use super::signals::{self, Signal};
use crate::logging::{LogControl, LogTarget};

/// Operations that share one commit at most.
const GROUP: usize = 256;
/// How often the lock file is compared with the held descriptor, and dropped log lines are counted.
const CHECKS: Duration = Duration::from_secs(30);

/// Told what becomes of a start. `quickstart` uses it to run its first job.
pub(crate) type Announce = oneshot::Sender<Running>;

/// A gateway that serves.
pub(crate) struct Running {
    /// Address of the API, with its real port.
    pub(crate) api: Option<SocketAddr>,
    /// What it runs.
    pub(crate) plan: Arc<Plan>,
    /// Ends it in order.
    pub(crate) stop: Stop,
}

/// Ends a running gateway in order.
#[derive(Clone)]
pub(crate) struct Stop(ActorRef<RootMsg>);

impl Stop {
    /// Asks for the orderly stop.
    pub(crate) fn request(&self) {
        drop(self.0.cast(RootMsg::Stop));
    }
}

/// Runs the gateway in the foreground until it is stopped; returns the exit status.
pub(crate) async fn run(explicit: Option<&Path>, target: LogTarget, announce: Option<Announce>) -> u8 {
    let faults = Faults::from_environment();
    let signals = match signals::install(faults.crash.is_some()) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("could not install signal handlers: {error}");
            return 1;
        }
    };
    let source = match locate(explicit, &crate::environment()) {
        Ok(source) => source,
        Err(problem) => {
            eprintln!("{problem}");
            return Outcome::Rejected.exit_code();
        }
    };
    // A stop signal that comes before the first generation waits in the channel and then ends the boot in order.
    match serve(source, target, signals, faults, announce).await {
        Ok(code) => code,
        Err(refusal) => refusal.outcome.exit_code(),
    }
}

async fn serve(
    source: Source,
    target: LogTarget,
    mut signals: mpsc::UnboundedReceiver<Signal>,
    faults: Faults,
    announce: Option<Announce>,
) -> Result<u8, Refusal> {
    let (started_at, started) = (chrono::Utc::now(), Instant::now());
    let loaded = load_first(&source).await?;
    let config = &loaded.plan.config;
    let lock = PidLock::acquire(&lock_path(&config.state.path)).map_err(|error| {
        eprintln!("{error}");
        Refusal::failed("lock", Problem::new("lock", error.to_string()))
    })?;
    let lock = Arc::new(lock);
    let vault_lock = match loaded.vault.as_ref().map(|vault| HeldVault::acquire(vault.path())).transpose() {
        Ok(held) => held.map(Arc::new),
        Err(refusal) => return Err(early_refusal(refusal)),
    };
    let (log, _guard) = LogControl::start(&config.service, target);
    log_preflight(&source, &loaded.plan, &lock, faults);
    warn_of_old_vault(&loaded);
    let hub = EventHub::new(Arc::new(SystemClock));
    let store = open_store(&loaded, hub.clone()).await.map_err(late_refusal)?;
    let scheduler = SchedulerLife::default();
    let process = Arc::new(ProcessState::new(started_at, started, scheduler.clone()));
    let control = Arc::new(GatewayControl::new(process.clone()));
    let (ready, mut is_ready) = oneshot::channel();
    let (exit, exited) = oneshot::channel();
    let housekeeping = log.clone();
    let resources = Resources {
        source,
        store: store.clone(),
        hub,
        clock: Arc::new(SystemClock),
        process,
        control: control.clone(),
        restarts: Arc::default(),
        scheduler,
        log,
    };
    let args = RootArgs { resources, loaded, vault_lock, ready, exit };
    let (root, task) = Actor::spawn(None, RootSupervisor, args)
        .await
        .map_err(|error| late_refusal(Refusal::failed("start", Problem::new("runtime", error.to_string()))))?;
    control.attach(root.clone());
    tokio::spawn(keep_house(lock.clone(), housekeeping, root.clone()));
    let begun = wait_for_first(&mut is_ready, &mut signals, &root).await;
    match begun {
        First::Ready(ready) => announce_ready(announce, *ready, &root),
        First::Stopping => {}
        First::Refused(refusal) => {
            root.stop(None);
            drop(task.await);
            store.close().await;
            lock.release();
            return Err(late_refusal(refusal));
        }
    }
    tokio::spawn(forward(signals, root, faults));
    let code = exited.await.unwrap_or(1);
    drop(task.await);
    lock.release();
    tracing::info!(event = "shutdown.done", "ductile stopped");
    Ok(code)
}

/// The load of a start: before the log exists, causes go to stderr as they are.
async fn load_first(source: &Source) -> Result<Loaded, Refusal> {
    let path = source.clone();
    let loaded = tokio::task::spawn_blocking(move || load(&path))
        .await
        .unwrap_or_else(|error| Err(Refusal::failed("load", Problem::new("load", format!("internal error: {error}")))));
    loaded.map_err(|refusal| {
        eprintln!("Failed to load config: {}", source.root_file.display());
        early_refusal(refusal)
    })
}

fn early_refusal(refusal: Refusal) -> Refusal {
    refusal.lines().for_each(|line| eprintln!("{line}"));
    refusal
}

/// A refusal after the log was set up is an ERROR line and a line on stderr.
fn late_refusal(refusal: Refusal) -> Refusal {
    let cause = refusal.to_string();
    tracing::error!(event = "boot.refused", stage = refusal.stage, error = cause, "start refused");
    if refusal.outcome == Outcome::Rejected {
        refusal.lines().for_each(|line| eprintln!("{line}"));
    }
    eprintln!("Failed to start runtime: {cause}");
    refusal
}

fn log_preflight(source: &Source, plan: &Plan, lock: &PidLock, faults: Faults) {
    let kind = match source.kind {
        SourceKind::Explicit => "explicit",
        SourceKind::Env => "env",
        SourceKind::AutoDiscovered => "auto-discovered",
    };
    tracing::info!(path = %source.root_file.display(), source = kind, "config loaded");
    tracing::info!(path = %lock.path().display(), pid = std::process::id(), "pid lock acquired");
    for file in &plan.files {
        let shown = file.strip_prefix(&source.config_dir).unwrap_or(file);
        tracing::info!(path = %shown.display(), "config file");
    }
    plan.registry.log();
    plan.pipelines.log();
    log_warnings(plan);
    let enabled = plan.config.plugins.values().filter(|plugin| plugin.enabled).count();
    tracing::info!(
        plugins_discovered = plan.registry.iter().count(),
        plugins_configured = plan.config.plugins.len(),
        plugins_enabled = enabled,
        api_listen = %plan.config.api.listen,
        "config summary"
    );
    if rustix::process::geteuid().is_root() && !plan.config.service.unconfined {
        tracing::warn!(
            event = "privsep.posture",
            "running as root: every plugin runs as root too; run the gateway as a user of its own, or say \
             service.unconfined: true"
        );
    }
    if let Some(component) = faults.crash {
        tracing::warn!(component = %component, variable = VARIABLE, "test faults are switched on");
    }
}

/// Whatever a load found worth a warning, at a start and at every reload.
pub(super) fn log_warnings(plan: &Plan) {
    for warning in plan.warnings.iter().chain(&plan.doctor_errors) {
        tracing::warn!(category = warning.category, place = warning.place(), "{}", warning.message);
    }
}

/// A document that nobody vouches for may have been made by anybody who knows the public key.
pub(super) fn warn_of_old_vault(loaded: &Loaded) {
    let Some(vault) = loaded.vault.as_ref().filter(|vault| vault.is_legacy()) else { return };
    tracing::warn!(
        event = "vault.legacy",
        path = %vault.path().display(),
        "the vault is from before vaults proved where they come from; the next change of it adds the proof"
    );
}

async fn open_store(loaded: &Loaded, hub: EventHub) -> Result<Store, Refusal> {
    let state = loaded.plan.config.state.clone();
    let options = StoreOptions {
        path: state.path.clone(),
        synchronous: store_synchronous(state.synchronous),
        hub,
        clock: Arc::new(SystemClock),
        snapshot: Some(loaded.plan.snapshot.id.clone()),
        policy: claim_policy(&loaded.plan),
        max_group: GROUP,
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(options)).await;
    let failed = |error: String| Refusal::failed("database", Problem::new("database", error));
    let store =
        opened.map_err(|error| failed(error.to_string()))?.map_err(|error: StoreError| failed(error.to_string()))?;
    tracing::info!(path = %state.path.display(), "database opened");
    Ok(store)
}

enum First {
    Ready(Box<Ready>),
    Stopping,
    Refused(Refusal),
}

/// Waits for the first generation. A stop signal meanwhile ends the boot in order; a reload is remembered.
async fn wait_for_first(
    ready: &mut oneshot::Receiver<Result<Ready, Refusal>>,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
    root: &ActorRef<RootMsg>,
) -> First {
    loop {
        tokio::select! {
            first = &mut *ready => return match first {
                Ok(Ok(ready)) => First::Ready(Box::new(ready)),
                Ok(Err(refusal)) => First::Refused(refusal),
                Err(_) => First::Stopping,
            },
            signal = signals.recv() => match signal {
                Some(Signal::Stop) | None => {
                    drop(root.cast(RootMsg::Stop));
                    return First::Stopping;
                }
                Some(Signal::Reload { sender }) => {
                    drop(root.cast(RootMsg::Reload { trigger: ReloadTrigger::Signal { sender }, reply: None }));
                }
                Some(Signal::Fault) => {}
            },
        }
    }
}

fn announce_ready(announce: Option<Announce>, ready: Ready, root: &ActorRef<RootMsg>) {
    if let Some(announce) = announce {
        let running = Running { api: ready.api, plan: ready.plan, stop: Stop(root.clone()) };
        // Nobody listens any more: the gateway serves all the same.
        let _ = announce.send(running);
    }
}

async fn forward(mut signals: mpsc::UnboundedReceiver<Signal>, root: ActorRef<RootMsg>, faults: Faults) {
    while let Some(signal) = signals.recv().await {
        let message = match (signal, faults.crash) {
            (Signal::Stop, _) => RootMsg::Stop,
            (Signal::Reload { sender }, _) => {
                RootMsg::Reload { trigger: ReloadTrigger::Signal { sender }, reply: None }
            }
            (Signal::Fault, Some(component)) => RootMsg::Crash(component),
            (Signal::Fault, None) => continue,
        };
        drop(root.cast(message));
    }
}

/// The lock file must stay the one that is locked: another gateway could start on a replaced one.
async fn keep_house(lock: Arc<PidLock>, log: LogControl, root: ActorRef<RootMsg>) {
    let mut checks = tokio::time::interval(CHECKS);
    loop {
        checks.tick().await;
        log.report_dropped();
        if !lock.is_intact() {
            let reason = format!("PID lock {} was replaced", lock.path().display());
            drop(root.cast(RootMsg::Escalate(reason)));
            return;
        }
    }
}

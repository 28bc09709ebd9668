//! The root supervisor: lives as long as the process, owns what outlives generations, and is the only one that flips
//! from one generation to the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_api::{ReloadFailure, ReloadReport};
use ductile_config::Plan;
use ductile_dispatcher::{ClaimInbox, kill_attempts};
use ductile_model::{Component, Outcome, Problem, Refusal, format_wire};
use ductile_queue::ReloadEntry;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::bring_up::{self, BoundDoor, Candidate, HeldVault, Incumbent, Loaded, Resources};
use super::generation::GenerationMsg;
use super::process::Phase;
use super::shutdown::Stopping;
use crate::version;

/// Where a reload comes from.
#[derive(Debug, Clone)]
pub(crate) enum ReloadTrigger {
    /// A `SIGHUP`, with the sender's pid when known.
    Signal { sender: Option<i32> },
    /// The API, with the token's name.
    Api { actor: String },
}

impl ReloadTrigger {
    fn word(&self) -> &'static str {
        match self {
            Self::Signal { .. } => "sighup",
            Self::Api { .. } => "api",
        }
    }

    fn actor(&self) -> Option<String> {
        match self {
            Self::Signal { sender } => sender.map(|pid| format!("pid:{pid}")),
            Self::Api { actor } => Some(actor.clone()),
        }
    }
}

type ReloadReply = oneshot::Sender<Result<ReloadReport, ReloadFailure>>;

/// Messages of the [`RootSupervisor`].
pub(crate) enum RootMsg {
    /// Re-read the configuration.
    Reload { trigger: ReloadTrigger, reply: Option<ReloadReply> },
    /// The task that brings up a generation has ended.
    BroughtUp(Box<BroughtUp>),
    /// Stop in order; a second one cuts the stop short.
    Stop,
    /// The gateway can not go on: stop in order, exit 1.
    Escalate(String),
    /// The stop has ended.
    Stopped {
        /// Everything was done in time.
        in_order: bool,
    },
    /// Only tests send it.
    Crash(Component),
}

/// How bringing up a generation ended.
pub(crate) struct BroughtUp {
    result: Result<Candidate, Refusal>,
    began: Instant,
    /// The history row, for a reload.
    entry: Option<ReloadEntry>,
}

/// What the root starts with.
pub(crate) struct RootArgs {
    pub(crate) resources: Resources,
    pub(crate) loaded: Loaded,
    pub(crate) vault_lock: Option<Arc<HeldVault>>,
    /// Told when the first generation is active, or why it is not.
    pub(crate) ready: oneshot::Sender<Result<Ready, Refusal>>,
    /// Told the exit status when all is over.
    pub(crate) exit: oneshot::Sender<u8>,
}

/// The gateway serves.
pub(crate) struct Ready {
    /// Address of the API, with its real port.
    pub(crate) api: Option<std::net::SocketAddr>,
    pub(crate) plan: Arc<Plan>,
}

/// The supervisor of the process.
pub(crate) struct RootSupervisor;

/// State of the [`RootSupervisor`].
pub(crate) struct Root {
    resources: Resources,
    active: Option<Active>,
    /// Generations that finish what they began, with the listeners they may still need.
    retired: HashMap<ActorId, (ActorRef<GenerationMsg>, Incumbent)>,
    bringing_up: BringingUp,
    ready: Option<oneshot::Sender<Result<Ready, Refusal>>>,
    exit: Option<oneshot::Sender<u8>>,
    exit_code: u8,
    stopping: bool,
    /// Committed while the stop began: never serves, but what it has claimed must be run or stored.
    unserved: Option<(ActorRef<GenerationMsg>, ClaimInbox)>,
}

struct Active {
    number: u64,
    supervisor: ActorRef<GenerationMsg>,
    incumbent: Incumbent,
}

/// Reloads are made one at a time; those that come meanwhile share the next one.
enum BringingUp {
    Idle,
    Busy { waiting: Vec<ReloadReply>, next: Option<(ReloadTrigger, Vec<ReloadReply>)> },
}

impl Root {
    fn on_reload(&mut self, trigger: ReloadTrigger, reply: Option<ReloadReply>, myself: &ActorRef<RootMsg>) {
        if self.stopping {
            if let Some(reply) = reply {
                drop(reply.send(Err(ReloadFailure::Stopping)));
            }
            return;
        }
        match &mut self.bringing_up {
            BringingUp::Idle => self.begin_reload(trigger, reply.into_iter().collect(), myself),
            BringingUp::Busy { next, .. } => {
                next.get_or_insert_with(|| (trigger, Vec::new())).1.extend(reply);
            }
        }
    }

    fn begin_reload(&mut self, trigger: ReloadTrigger, waiting: Vec<ReloadReply>, myself: &ActorRef<RootMsg>) {
        let Some(active) = &self.active else { return };
        self.bringing_up = BringingUp::Busy { waiting, next: None };
        let (resources, running, number) = (self.resources.clone(), active.incumbent.clone(), active.number + 1);
        let began = Instant::now();
        let root = myself.clone();
        tracing::info!(event = "reload.started", trigger = trigger.word(), "reloading config");
        report(myself, began, async move {
            let posture = running.plan.posture.as_str();
            let entry = match resources.store.begin_reload(trigger.word(), trigger.actor(), posture).await {
                Ok(entry) => entry,
                Err(error) => {
                    let refusal = Refusal::failed("history", Problem::new("database", error.to_string()));
                    return BroughtUp { result: Err(refusal), began, entry: None };
                }
            };
            let work = {
                let (resources, entry) = (resources.clone(), entry.clone());
                async move { bring_up::reload(&resources, number, &running, &entry, root).await }
            };
            // In a task of its own: a panic in it must not leave the history row open.
            let result = tokio::spawn(work).await.unwrap_or_else(|error| Err(internal(&error)));
            if let Err(refusal) = &result {
                let text = reload_error(refusal);
                let noted = resources.store.refuse_reload(entry.clone(), refusal.outcome, refusal.stage, &text).await;
                if let Err(error) = noted {
                    tracing::warn!(%error, "could not record the refused reload");
                }
            }
            BroughtUp { result, began, entry: Some(entry) }
        });
    }

    fn on_brought_up(&mut self, done: BroughtUp, myself: &ActorRef<RootMsg>) {
        let BringingUp::Busy { waiting, next } = std::mem::replace(&mut self.bringing_up, BringingUp::Idle) else {
            return;
        };
        let BroughtUp { result, began, entry } = done;
        let outcome = match result {
            Ok(candidate) if self.stopping => {
                self.unserved = Some((candidate.supervisor.clone(), candidate.inbox));
                self.retired.insert(candidate.supervisor.get_id(), (candidate.supervisor, candidate.incumbent));
                Err(ReloadFailure::Stopping)
            }
            Ok(candidate) => {
                self.on_new_door(&candidate, myself);
                Ok(self.flip(candidate, began, entry.is_some()))
            }
            Err(refusal) => self.on_refused(refusal),
        };
        for reply in waiting {
            drop(reply.send(outcome.clone()));
        }
        match next {
            Some((trigger, replies)) if !self.stopping => self.begin_reload(trigger, replies, myself),
            Some((_, replies)) => replies.into_iter().for_each(|reply| drop(reply.send(Err(ReloadFailure::Stopping)))),
            None => {}
        }
        if self.stopping {
            self.begin_shutdown(myself);
        }
    }

    /// A listening socket that can no longer accept ends the process: it must never live on half-open.
    fn on_new_door(&self, candidate: &Candidate, root: &ActorRef<RootMsg>) {
        let borrowed = self.active.as_ref().and_then(|active| active.incumbent.door.as_ref());
        let Some(bound) = candidate.incumbent.door.clone() else { return };
        if borrowed.is_some_and(|borrowed| borrowed.address == bound.address) {
            return;
        }
        tracing::info!(addr = %bound.door.local_addr(), "API server listening");
        let root = root.clone();
        tokio::spawn(async move {
            let Some(reason) = bound.door.failed().await else { return };
            drop(root.cast(RootMsg::Escalate(format!("listener {}: {reason}", bound.address))));
        });
    }

    /// The flip: one message per generation, nothing that can fail.
    fn flip(&mut self, candidate: Candidate, began: Instant, is_reload: bool) -> ReloadReport {
        let Candidate { number, supervisor, inbox, incumbent } = candidate;
        let plan = incumbent.plan.clone();
        drop(supervisor.cast(GenerationMsg::Activate(inbox)));
        self.resources.process.set_generation(number);
        self.resources.log.follow(&plan.config.service);
        let door = incumbent.door.clone();
        let old = self.active.replace(Active { number, supervisor, incumbent });
        let old_plan = old.as_ref().map(|old| old.incumbent.plan.clone());
        if let Some(old) = old {
            self.retire(old, door.as_ref());
        }
        let now = self.resources.clock.now();
        let report = ReloadReport {
            reloaded_at: now,
            generation: number,
            snapshot_id: plan.snapshot.id.to_string(),
            posture: plan.posture.as_str(),
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            warnings: plan.warnings.iter().map(ToString::to_string).collect(),
        };
        if is_reload {
            super::boot::log_warnings(&plan);
            let changes = old_plan.map(|old| PluginChanges::between(&old, &plan)).unwrap_or_default();
            tracing::info!(event = "reload.ok", plugins_added = changes.added, plugins_removed = changes.removed,
                plugins_changed = changes.changed, old_generation = number - 1, generation = number,
                snapshot_id = %plan.snapshot.id, duration_ms = report.duration_ms, "config reloaded successfully");
            self.publish_reloaded(Outcome::Ok, "Configuration reloaded successfully.");
        } else {
            self.on_first_generation(&plan, door.as_ref());
        }
        report
    }

    fn on_first_generation(&mut self, plan: &Arc<Plan>, door: Option<&BoundDoor>) {
        let boot_ms = self.resources.process.started.elapsed().as_millis();
        self.resources.process.enter(Phase::Ready);
        notify(NotifyState::Ready);
        tracing::info!(
            event = "boot.ready",
            version = version::VERSION,
            pid = std::process::id(),
            posture = plan.posture.as_str(),
            generation = 1,
            boot_ms = u64::try_from(boot_ms).unwrap_or(u64::MAX),
            "ductile running"
        );
        if let Some(ready) = self.ready.take() {
            let api = door.map(|bound| bound.door.local_addr());
            let _ = ready.send(Ok(Ready { api, plan: plan.clone() }));
        }
    }

    fn retire(&mut self, old: Active, door_in_use: Option<&BoundDoor>) {
        let abandoned = old.incumbent.door.as_ref().filter(|old| Some(&old.address) != door_in_use.map(|d| &d.address));
        if let Some(abandoned) = abandoned {
            let door = abandoned.door.clone();
            tokio::spawn(async move { door.close(Duration::from_secs(600)).await });
        }
        drop(old.supervisor.cast(GenerationMsg::Retire));
        self.retired.insert(old.supervisor.get_id(), (old.supervisor, old.incumbent));
    }

    fn on_refused(&mut self, refusal: Refusal) -> Result<ReloadReport, ReloadFailure> {
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Err(refusal));
            return Err(ReloadFailure::Stopping);
        }
        let error = reload_error(&refusal);
        tracing::error!(
            event = "reload.failed",
            stage = refusal.stage,
            outcome = refusal.outcome.as_str(),
            error,
            "config reload failed"
        );
        self.publish_reloaded(refusal.outcome, &error);
        Err(ReloadFailure::Refused { outcome: refusal.outcome, stage: refusal.stage.to_owned(), error })
    }

    fn publish_reloaded(&self, outcome: Outcome, message: &str) {
        let Some(active) = &self.active else { return };
        let plan = &active.incumbent.plan;
        let mut data = serde_json::Map::new();
        data.insert("config_snapshot_id".into(), json!(plan.snapshot.id.as_str()));
        data.insert("outcome".into(), json!(outcome.as_str()));
        data.insert("message".into(), json!(message));
        data.insert("generation".into(), json!(active.number));
        data.insert("posture".into(), json!(plan.posture.as_str()));
        self.resources.hub.publish("system.reloaded", data);
    }

    fn generations(&self) -> Vec<ActorRef<GenerationMsg>> {
        let active = self.active.iter().map(|active| active.supervisor.clone());
        active.chain(self.retired.values().map(|(supervisor, _)| supervisor.clone())).collect()
    }

    fn on_stop(&mut self, exit_code: u8, myself: &ActorRef<RootMsg>) {
        if self.stopping {
            self.exit_code = self.exit_code.max(1);
            tracing::warn!("second stop request: running plugins are ended now");
            kill_attempts();
            return;
        }
        self.stopping = true;
        self.exit_code = exit_code;
        tracing::info!(event = "shutdown.started", at = format_wire(self.resources.clock.now()), "stopping");
        self.resources.process.enter(Phase::Draining);
        notify(NotifyState::Stopping);
        self.resources.hub.publish("system.shutdown", serde_json::Map::new());
        // A generation that is being brought up is waited for: once committed, it may have claimed jobs.
        if matches!(self.bringing_up, BringingUp::Idle) {
            self.begin_shutdown(myself);
        }
    }

    fn begin_shutdown(&mut self, myself: &ActorRef<RootMsg>) {
        let active = self.active.as_ref();
        let drain = active.map_or(Duration::ZERO, |active| active.incumbent.plan.config.service.drain_timeout);
        let doors = active.and_then(|active| active.incumbent.door.clone()).into_iter().map(|bound| bound.door);
        let stopping = Stopping {
            store: self.resources.store.clone(),
            doors: doors.collect(),
            generations: self.generations(),
            unserved: self.unserved.take(),
            drain,
        };
        let root = myself.clone();
        tokio::spawn(async move {
            let in_order = tokio::spawn(stopping.in_order()).await.unwrap_or_else(|error| {
                tracing::error!(%error, "the orderly stop failed");
                false
            });
            drop(root.cast(RootMsg::Stopped { in_order }));
        });
    }
}

/// Names of plugin entries that differ between two configurations, comma-separated, for the log.
#[derive(Default)]
struct PluginChanges {
    added: String,
    removed: String,
    changed: String,
}

impl PluginChanges {
    /// Compares what is recorded of both: the same redacted text that the snapshot shows.
    fn between(old: &Plan, new: &Plan) -> Self {
        let entries = |plan: &Plan| -> serde_json::Map<String, Value> {
            let recorded: Value = serde_json::from_str(&plan.snapshot.sanitized_config).unwrap_or_default();
            recorded["plugins"].as_object().cloned().unwrap_or_default()
        };
        let (old, new) = (entries(old), entries(new));
        let names = |names: Vec<&str>| names.join(", ");
        Self {
            added: names(new.keys().filter(|name| !old.contains_key(*name)).map(String::as_str).collect()),
            removed: names(old.keys().filter(|name| !new.contains_key(*name)).map(String::as_str).collect()),
            changed: names(
                new.iter()
                    .filter(|(name, entry)| old.get(*name).is_some_and(|before| before != *entry))
                    .map(|(name, _)| name.as_str())
                    .collect(),
            ),
        }
    }
}

/// Tells the service manager, where there is one that listens.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Text of a refused reload, as answers, events and history show it.
fn reload_error(refusal: &Refusal) -> String {
    match refusal.outcome {
        Outcome::Rejected => format!("config reload rejected: {refusal}"),
        Outcome::Ok | Outcome::Failed => refusal.to_string(),
    }
}

fn internal(error: &tokio::task::JoinError) -> Refusal {
    Refusal::failed("internal", Problem::new("runtime", format!("internal error: {error}")))
}

/// Runs a task that brings up a generation and reports its end whatever happens, a panic included.
fn report(root: &ActorRef<RootMsg>, began: Instant, work: impl Future<Output = BroughtUp> + Send + 'static) {
    let root = root.clone();
    tokio::spawn(async move {
        let ended = tokio::spawn(work).await;
        let done = ended.unwrap_or_else(|error| BroughtUp { result: Err(internal(&error)), began, entry: None });
        drop(root.cast(RootMsg::BroughtUp(Box::new(done))));
    });
}

impl Actor for RootSupervisor {
    type Msg = RootMsg;
    type State = Root;
    type Arguments = RootArgs;

    async fn pre_start(&self, myself: ActorRef<RootMsg>, args: RootArgs) -> Result<Root, ActorProcessingErr> {
        let RootArgs { resources, loaded, vault_lock, ready, exit } = args;
        let store = resources.store.clone();
        let root = myself.clone();
        tokio::spawn(async move {
            let reason = store.failed().await;
            drop(root.cast(RootMsg::Escalate(format!("state database: {reason}"))));
        });
        let began = Instant::now();
        let (context, root) = (resources.clone(), myself.clone());
        report(&myself, began, async move {
            let result = bring_up::boot(&context, loaded, vault_lock, root).await;
            BroughtUp { result, began, entry: None }
        });
        Ok(Root {
            resources,
            active: None,
            retired: HashMap::new(),
            bringing_up: BringingUp::Busy { waiting: Vec::new(), next: None },
            ready: Some(ready),
            exit: Some(exit),
            exit_code: 0,
            stopping: false,
            unserved: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut Root,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Reload { trigger, reply } => state.on_reload(trigger, reply, &myself),
            RootMsg::BroughtUp(done) => state.on_brought_up(*done, &myself),
            RootMsg::Stop => state.on_stop(0, &myself),
            RootMsg::Escalate(reason) => {
                tracing::error!(event = "component.failed", error = reason, "the gateway can not go on");
                state.exit_code = 1;
                if !state.stopping {
                    state.on_stop(1, &myself);
                }
            }
            RootMsg::Stopped { in_order } => {
                if !in_order {
                    state.exit_code = 1;
                }
                if let Some(exit) = state.exit.take() {
                    // Nobody listens any more only when the process is ending anyway.
                    let _ = exit.send(state.exit_code);
                }
                myself.stop(None);
            }
            RootMsg::Crash(component) => {
                if let Some(active) = &state.active {
                    drop(active.supervisor.cast(GenerationMsg::Crash(component)));
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut Root,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, cause) = match event {
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason),
            SupervisionEvent::ActorFailed(cell, cause) => (cell, Some(cause.to_string())),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        if state.retired.remove(&cell.get_id()).is_some() || state.stopping {
            return Ok(());
        }
        if state.active.as_ref().is_some_and(|active| active.supervisor.get_id() == cell.get_id()) {
            let cause = cause.unwrap_or_else(|| "ended without being told to".to_owned());
            drop(myself.cast(RootMsg::Escalate(format!("the generation failed: {cause}"))));
        }
        Ok(())
    }
}

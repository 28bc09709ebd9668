//! One generation: a supervisor with its eight actors.
//!
//! A generation is started in standby (all actors run, nothing is claimed, ticked or accepted), activated by one
//! message per actor, and at its end drained from the outside in. Its supervisor restarts an actor that fails, with
//! a growing pause; one that keeps failing is reported to the root, which ends the process in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_api::{ApiActor, ApiArgs, Control};
use ductile_config::{ConfigActor, ConfigArgs, ConfigMsg, InitJob, Plan};
use ductile_dispatcher::{ClaimInbox, DispatcherArgs, DispatcherHandle, DispatcherMsg, DispatcherPool};
use ductile_listeners::Door;
use ductile_model::{Clock, Component, EventHub, Lifecycle, LinkOwner, Producer, RestartWindow, Verdict};
use ductile_queue::{NewJob, QueueActor, QueueArgs, QueueHandle, QueueMsg, Store};
use ductile_relay::RelayActor;
use ductile_scheduler::SchedulerActor;
use ductile_vault::{Vault, VaultActor, VaultArgs, VaultHandle, VaultMsg};
use ductile_webhook::WebhookActor;
use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent};
use serde_json::json;

use super::process::ProcessState;
use super::root::RootMsg;

/// The supervision policy: every child is restarted in place, with these limits over `WINDOW`.
const RESTARTS_OF_ONE: usize = 5;
const RESTARTS_OF_ALL: usize = 15;
const WINDOW: Duration = Duration::from_secs(60);
/// How long a child may take to stop before it is left to end by itself.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a generation is made of.
#[derive(Clone)]
pub(crate) struct GenerationArgs {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) plan: Arc<Plan>,
    pub(crate) vault: Option<Vault>,
    pub(crate) store: Store,
    pub(crate) hub: EventHub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) control: Arc<dyn Control>,
    /// The API listener, borrowed from the process.
    pub(crate) api_door: Option<Door>,
    pub(crate) process: Arc<ProcessState>,
    pub(crate) root: ActorRef<RootMsg>,
}

/// Messages of the [`GenerationSupervisor`].
pub(crate) enum GenerationMsg {
    /// Take over: claims come from this inbox.
    Activate(ClaimInbox),
    /// Take over nothing but what was claimed already: the process is stopping.
    TakeClaims(ClaimInbox),
    /// Another generation took over: finish what was begun, then end.
    Retire,
    /// All children are drained.
    Drained,
    /// The process stops: running plugins get this long. Answered when all outcomes are stored.
    Stop { limit: Duration, reply: RpcReplyPort<()> },
    /// Cut the stop short.
    KillAll,
    /// The pause after a failure is over.
    Respawn(Component),
    /// Only tests send it.
    Crash(Component),
}

/// Supervises the actors of one generation.
pub(crate) struct GenerationSupervisor;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Standby,
    Active,
    Retired,
}

/// State of the [`GenerationSupervisor`].
pub(crate) struct Generation {
    args: GenerationArgs,
    links: Links,
    children: HashMap<ActorId, Child>,
    windows: HashMap<Component, RestartWindow>,
    all_restarts: RestartWindow,
    stage: Stage,
    inbox: Option<ClaimInbox>,
}

struct Child {
    component: Component,
    cell: ActorCell,
    task: JoinHandle<()>,
    send: Box<dyn Fn(Lifecycle) + Send + Sync>,
}

/// The ways to the actors that others talk to; they survive a restart.
#[derive(Default)]
struct Links {
    config: LinkOwner<ConfigMsg>,
    vault: LinkOwner<VaultMsg>,
    queue: LinkOwner<QueueMsg>,
    dispatcher: LinkOwner<DispatcherMsg>,
}

impl Generation {
    fn queue(&self) -> QueueHandle {
        QueueHandle::new(self.links.queue.link(), self.args.store.clone())
    }

    fn vault(&self) -> VaultHandle {
        VaultHandle::new(self.links.vault.link())
    }

    fn dispatcher(&self) -> DispatcherHandle {
        DispatcherHandle::new(self.links.dispatcher.link())
    }

    fn child(&self, component: Component) -> Option<&Child> {
        self.children.values().find(|child| child.component == component)
    }

    async fn spawn(&mut self, component: Component, supervisor: ActorCell) -> Result<(), SpawnErr> {
        let args = &self.args;
        let plan = args.plan.clone();
        let child = match component {
            Component::Config => {
                start(component, ConfigActor, ConfigArgs { plan }, supervisor, Some(&self.links.config)).await
            }
            Component::Vault => {
                let vault = VaultArgs::new(args.vault.clone());
                start(component, VaultActor, vault, supervisor, Some(&self.links.vault)).await
            }
            Component::Queue => {
                let queue = QueueArgs { store: args.store.clone() };
                start(component, QueueActor, queue, supervisor, Some(&self.links.queue)).await
            }
            Component::Dispatcher => {
                let dispatcher = DispatcherArgs {
                    plan,
                    queue: self.queue(),
                    vault: self.vault(),
                    hub: args.hub.clone(),
                    clock: args.clock.clone(),
                };
                start(component, DispatcherPool, dispatcher, supervisor, Some(&self.links.dispatcher)).await
            }
            Component::Scheduler => start(component, SchedulerActor, (), supervisor, None).await,
            Component::Relay => start(component, RelayActor, (), supervisor, None).await,
            Component::Webhook => start(component, WebhookActor, (), supervisor, None).await,
            Component::Api => {
                let api = ApiArgs {
                    plan,
                    queue: self.queue(),
                    vault: self.vault(),
                    hub: args.hub.clone(),
                    clock: args.clock.clone(),
                    control: args.control.clone(),
                    door: args.api_door.clone(),
                };
                start(component, ApiActor, api, supervisor, None).await
            }
        }?;
        self.children.insert(child.cell.get_id(), child);
        if self.stage == Stage::Active {
            self.activate_child(component);
        }
        Ok(())
    }

    fn activate_child(&self, component: Component) {
        if let Some(child) = self.child(component) {
            (child.send)(Lifecycle::Activate);
        }
        if let (Component::Dispatcher, Some(inbox)) = (component, &self.inbox) {
            self.dispatcher().take_claims(inbox.clone());
        }
    }

    /// A child ended without being told to.
    fn on_failure(&mut self, cell: &ActorCell, cause: &str, myself: &ActorRef<GenerationMsg>) {
        let Some(child) = self.children.remove(&cell.get_id()) else { return };
        let component = child.component;
        self.clear_link(component);
        if self.stage == Stage::Active {
            self.args.process.set_down(component, true);
        }
        let now = Instant::now();
        let window = self.windows.entry(component).or_insert_with(|| RestartWindow::new(RESTARTS_OF_ONE, WINDOW));
        let verdict = window.on_failure(now);
        let restarts = window.recent();
        let all = self.all_restarts.on_failure(now);
        match (verdict, all) {
            (Verdict::RestartAfter(pause), Verdict::RestartAfter(_)) => {
                tracing::warn!(event = "component.restarted", component = %component, restarts, error = cause, "component restarted");
                let mut data = serde_json::Map::new();
                data.insert("component".into(), json!(component.as_str()));
                data.insert("restarts".into(), json!(restarts));
                data.insert("error".into(), json!(cause));
                self.args.hub.publish("component.restarted", data);
                let myself = myself.clone();
                // Never wait inside the supervisor: it would be deaf to the other children.
                tokio::spawn(async move {
                    // Only now is the old state really dropped.
                    drop(child.task.await);
                    tokio::time::sleep(pause).await;
                    drop(myself.cast(GenerationMsg::Respawn(component)));
                });
            }
            _ => {
                tracing::error!(event = "component.failed", component = %component, error = cause, "component failed");
                let reason = format!("component {component} keeps failing: {cause}");
                drop(self.args.root.cast(RootMsg::Escalate(reason)));
            }
        }
    }

    fn clear_link(&self, component: Component) {
        match component {
            Component::Config => self.links.config.clear(),
            Component::Vault => self.links.vault.clear(),
            Component::Queue => self.links.queue.clear(),
            Component::Dispatcher => self.links.dispatcher.clear(),
            Component::Scheduler | Component::Relay | Component::Webhook | Component::Api => {}
        }
    }

    /// Drains the children from the outside in, in a task of its own, then ends the generation.
    fn drain(&self, myself: ActorRef<GenerationMsg>) {
        let mut waits = Vec::new();
        for component in Component::ALL.into_iter().rev() {
            if let Some(child) = self.child(component) {
                let (sender, receiver) = ractor::concurrency::oneshot();
                (child.send)(Lifecycle::Drain(sender.into()));
                waits.push(receiver);
            }
        }
        tokio::spawn(async move {
            for wait in waits {
                // An error means that the child is gone; there is nothing left to wait for.
                drop(wait.await);
            }
            drop(myself.cast(GenerationMsg::Drained));
        });
    }

    /// Stops the children in reverse start order and waits for each.
    async fn stop_children(&mut self) {
        for component in Component::ALL.into_iter().rev() {
            let Some(id) = self.child(component).map(|child| child.cell.get_id()) else { continue };
            let Some(child) = self.children.remove(&id) else { continue };
            child.cell.stop(None);
            if tokio::time::timeout(STOP_LIMIT, child.task).await.is_err() {
                tracing::warn!(component = %component, "component did not stop in time");
            }
        }
    }
}

async fn start<A>(
    component: Component,
    actor: A,
    args: A::Arguments,
    supervisor: ActorCell,
    link: Option<&LinkOwner<A::Msg>>,
) -> Result<Child, SpawnErr>
where
    A: Actor,
    A::Msg: From<Lifecycle>,
{
    let (actor, task) = Actor::spawn_linked(None, actor, args, supervisor).await?;
    if let Some(link) = link {
        link.set(actor.clone());
    }
    let cell = actor.get_cell();
    // A message to an actor that just died is lost on purpose: its successor is told anew.
    let send = Box::new(move |message: Lifecycle| drop(actor.cast(A::Msg::from(message))));
    Ok(Child { component, cell, task, send })
}

/// Queues `init` for the plugins that want it. Nothing waits for these jobs.
async fn queue_init_jobs(plan: Arc<Plan>, queue: QueueHandle) {
    for InitJob { plugin, dedupe_key } in plan.init_jobs() {
        let job = NewJob {
            plugin: plugin.clone(),
            command: "init".to_owned(),
            payload: None,
            submitted_by: Producer::Core,
            max_attempts: 1,
            dedupe_key: Some(dedupe_key),
            dedupe_ttl: None,
            parent_job_id: None,
            source_event_id: None,
            event_context_id: None,
            direct: false,
        };
        if let Err(error) = queue.enqueue(job).await {
            tracing::warn!(plugin, %error, "init could not be queued; the next start or reload tries again");
        }
    }
}

impl Actor for GenerationSupervisor {
    type Msg = GenerationMsg;
    type State = Generation;
    type Arguments = GenerationArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<GenerationMsg>,
        args: GenerationArgs,
    ) -> Result<Generation, ActorProcessingErr> {
        let mut generation = Generation {
            args,
            links: Links::default(),
            children: HashMap::new(),
            windows: HashMap::new(),
            all_restarts: RestartWindow::new(RESTARTS_OF_ALL, WINDOW),
            stage: Stage::Standby,
            inbox: None,
        };
        for component in Component::ALL {
            if let Err(error) = generation.spawn(component, myself.get_cell()).await {
                generation.stop_children().await;
                return Err(format!("component {component} did not start: {error}").into());
            }
        }
        Ok(generation)
    }

    async fn handle(
        &self,
        myself: ActorRef<GenerationMsg>,
        message: GenerationMsg,
        state: &mut Generation,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GenerationMsg::Activate(inbox) => {
                state.stage = Stage::Active;
                state.inbox = Some(inbox);
                for component in Component::ALL {
                    state.activate_child(component);
                }
                tokio::spawn(queue_init_jobs(state.args.plan.clone(), state.queue()));
            }
            GenerationMsg::TakeClaims(inbox) => state.dispatcher().take_claims(inbox),
            GenerationMsg::Retire => {
                state.stage = Stage::Retired;
                state.drain(myself);
            }
            GenerationMsg::Drained => myself.stop(None),
            GenerationMsg::Stop { limit, reply } => {
                state.stage = Stage::Retired;
                let dispatcher = state.dispatcher();
                tokio::spawn(async move {
                    dispatcher.stop(limit).await;
                    drop(reply.send(()));
                });
            }
            GenerationMsg::KillAll => state.dispatcher().kill_all(),
            // Awaiting the start here keeps a failure of the new child behind its registration. Starts are short:
            // nothing is loaded from files but the vault.
            GenerationMsg::Respawn(component) => match state.spawn(component, myself.get_cell()).await {
                Ok(()) => {
                    if state.stage == Stage::Active {
                        state.args.process.set_down(component, false);
                    }
                }
                Err(error) => {
                    let reason = format!("component {component} did not start again: {error}");
                    drop(state.args.root.cast(RootMsg::Escalate(reason)));
                }
            },
            GenerationMsg::Crash(component) => {
                if let Some(child) = state.child(component) {
                    (child.send)(Lifecycle::Crash);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<GenerationMsg>,
        event: SupervisionEvent,
        state: &mut Generation,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, cause) => state.on_failure(&cell, &cause.to_string(), &myself),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                state.on_failure(&cell, reason.as_deref().unwrap_or("ended without being told to"), &myself);
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<GenerationMsg>, state: &mut Generation) -> Result<(), ActorProcessingErr> {
        state.stop_children().await;
        tracing::debug!(generation = state.args.number, "generation ended");
        Ok(())
    }
}

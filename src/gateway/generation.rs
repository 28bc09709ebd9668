//! One generation: a supervisor with its eight actors.
//!
//! A generation is started in standby (all actors run, nothing is claimed, ticked or accepted), activated by one
//! message per actor, and at its end drained from the outside in. Its supervisor restarts an actor that fails, with
//! a growing pause; one that keeps failing is reported to the root, which ends the process in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ductile_api::{ApiActor, ApiArgs, Control};
use ductile_config::{ConfigActor, ConfigArgs, ConfigMsg, InitJob, Plan};
use ductile_dispatcher::{ClaimInbox, DispatcherArgs, DispatcherHandle, DispatcherMsg, DispatcherPool};
use ductile_listeners::Door;
use ductile_model::{Clock, Component, EventHub, Lifecycle, LinkOwner, Producer, RestartWindow, Verdict};
use ductile_queue::{NewJob, QueueActor, QueueArgs, QueueHandle, QueueMsg, Store};
use ductile_relay::RelayActor;
use ductile_scheduler::{SchedulerActor, SchedulerArgs, SchedulerLife};
use ductile_vault::{VaultActor, VaultArgs, VaultHandle};
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
    /// One for all incarnations of the actor, so that a restarted one knows to read the blob again.
    pub(crate) vault: VaultArgs,
    pub(crate) store: Store,
    pub(crate) hub: EventHub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) control: Arc<dyn Control>,
    /// The API listener, borrowed from the process.
    pub(crate) api_door: Option<Door>,
    pub(crate) process: Arc<ProcessState>,
    /// Failures of components, over all generations: a reload must not make a failing one look healthy.
    pub(crate) restarts: Arc<Mutex<Restarts>>,
    pub(crate) scheduler: SchedulerLife,
    pub(crate) root: ActorRef<RootMsg>,
}

/// Counts failures of components.
pub(crate) struct Restarts {
    windows: HashMap<Component, RestartWindow>,
    all: RestartWindow,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { windows: HashMap::new(), all: RestartWindow::new(RESTARTS_OF_ALL, WINDOW) }
    }
}

impl Restarts {
    /// What to do about a failure of `component`, and how many it had lately.
    fn on_failure(&mut self, component: Component, now: Instant) -> (Verdict, usize) {
        let window = self.windows.entry(component).or_insert_with(|| RestartWindow::new(RESTARTS_OF_ONE, WINDOW));
        let own = window.on_failure(now);
        let restarts = window.recent();
        match self.all.on_failure(now) {
            Verdict::RestartAfter(_) => (own, restarts),
            Verdict::Escalate => (Verdict::Escalate, restarts),
        }
    }
}

/// Messages of the [`GenerationSupervisor`].
pub(crate) enum GenerationMsg {
    /// Take over: claims come from this inbox.
    Activate(ClaimInbox),
    /// Take over nothing but what was claimed already: the process is stopping. Answered when it is being run.
    TakeClaims(ClaimInbox, RpcReplyPort<()>),
    /// Another generation took over: finish what was begun, then end.
    Retire,
    /// All children are drained.
    Drained,
    /// The pause after a failure is over.
    Respawn { component: Component, restarts: usize, cause: String },
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
    queue: LinkOwner<QueueMsg>,
    dispatcher: LinkOwner<DispatcherMsg>,
}

impl Generation {
    fn queue(&self) -> QueueHandle {
        QueueHandle::new(self.links.queue.link(), self.args.store.clone())
    }

    fn vault(&self) -> VaultHandle {
        self.args.vault.handle()
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
            Component::Vault => start(component, VaultActor, args.vault.clone(), supervisor, None).await,
            Component::Queue => {
                let queue = QueueArgs { store: args.store.clone() };
                start(component, QueueActor, queue, supervisor, Some(&self.links.queue)).await
            }
            Component::Dispatcher => {
                let dispatcher = DispatcherArgs {
                    plan,
                    store: args.store.clone(),
                    vault: self.vault(),
                    hub: args.hub.clone(),
                    clock: args.clock.clone(),
                };
                start(component, DispatcherPool, dispatcher, supervisor, Some(&self.links.dispatcher)).await
            }
            Component::Scheduler => {
                let scheduler = SchedulerArgs {
                    plan,
                    store: args.store.clone(),
                    hub: args.hub.clone(),
                    clock: args.clock.clone(),
                    life: args.scheduler.clone(),
                };
                start(component, SchedulerActor, scheduler, supervisor, None).await
            }
            Component::Relay => start(component, RelayActor, (), supervisor, None).await,
            Component::Webhook => start(component, WebhookActor, (), supervisor, None).await,
            Component::Api => {
                let api = ApiArgs {
                    plan,
                    queue: self.queue(),
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
        if component == Component::Dispatcher {
            self.hand_over_claims();
        }
    }

    /// Gives the dispatcher its claims. Once they are taken they go on being taken, whatever becomes of the actor; one
    /// that is down gets them when it is back.
    fn hand_over_claims(&self) {
        if let Some(inbox) = self.inbox.clone() {
            let dispatcher = self.dispatcher();
            tokio::spawn(async move { dispatcher.take_claims(inbox).await });
        }
    }

    /// A child ended without being told to.
    fn on_end(&mut self, cell: &ActorCell, cause: &str, myself: &ActorRef<GenerationMsg>) {
        let Some(child) = self.children.remove(&cell.get_id()) else { return };
        let component = child.component;
        self.clear_link(component);
        if self.stage == Stage::Active {
            self.args.process.set_down(component, self.args.number, true);
        }
        self.on_failure(component, cause, Some(child.task), myself);
    }

    /// Starts a failed component again after a pause, or gives up. `task` ends when the old state is really dropped.
    fn on_failure(
        &self,
        component: Component,
        cause: &str,
        task: Option<JoinHandle<()>>,
        myself: &ActorRef<GenerationMsg>,
    ) {
        let mut counted = self.args.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.on_failure(component, Instant::now()) {
            (Verdict::RestartAfter(pause), restarts) => {
                tracing::warn!(event = "component.down", component = %component, error = cause, "component failed");
                let (myself, cause) = (myself.clone(), cause.to_owned());
                // Never wait inside the supervisor: it would be deaf to the other children.
                tokio::spawn(async move {
                    if let Some(task) = task {
                        drop(task.await);
                    }
                    tokio::time::sleep(pause).await;
                    drop(myself.cast(GenerationMsg::Respawn { component, restarts, cause }));
                });
            }
            (Verdict::Escalate, _) => {
                tracing::error!(event = "component.failed", component = %component, error = cause, "component failed");
                let reason = format!("component {component} keeps failing: {cause}");
                drop(self.args.root.cast(RootMsg::Escalate(reason)));
            }
        }
    }

    /// The pause after a failure is over.
    async fn respawn(&mut self, component: Component, restarts: usize, cause: &str, myself: &ActorRef<GenerationMsg>) {
        // Awaiting the start here keeps a failure of the new child behind its registration. Starts are short: nothing
        // is loaded from files but the vault.
        if let Err(error) = self.spawn(component, myself.get_cell()).await {
            self.on_failure(component, &format!("it did not start again: {error}"), None, myself);
            return;
        }
        tracing::warn!(
            event = "component.restarted", component = %component, restarts, error = cause, "component restarted"
        );
        let mut data = serde_json::Map::new();
        data.insert("component".into(), json!(component.as_str()));
        data.insert("restarts".into(), json!(restarts));
        data.insert("error".into(), json!(cause));
        self.args.hub.publish("component.restarted", data);
        match self.stage {
            Stage::Active => self.args.process.set_down(component, self.args.number, false),
            // It may have gone down before it took what had been claimed for it.
            Stage::Retired if component == Component::Dispatcher => {
                self.hand_over_claims();
                self.drain(myself.clone());
            }
            Stage::Standby | Stage::Retired => {}
        }
    }

    fn clear_link(&self, component: Component) {
        match component {
            Component::Config => self.links.config.clear(),
            Component::Queue => self.links.queue.clear(),
            Component::Dispatcher => self.links.dispatcher.clear(),
            Component::Vault | Component::Scheduler | Component::Relay | Component::Webhook | Component::Api => {}
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
            event_id: None,
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
        let mut generation =
            Generation { args, links: Links::default(), children: HashMap::new(), stage: Stage::Standby, inbox: None };
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
            GenerationMsg::TakeClaims(inbox, reply) => {
                let dispatcher = state.dispatcher();
                tokio::spawn(async move {
                    // An actor that is down and does not come back ends the process anyway.
                    let _ = dispatcher.take_claims(inbox).await;
                    drop(reply.send(()));
                });
            }
            GenerationMsg::Retire => {
                state.stage = Stage::Retired;
                // A dispatcher that is being restarted may not have taken its claims yet: it is waited for.
                if state.child(Component::Dispatcher).is_some() {
                    state.drain(myself);
                }
            }
            GenerationMsg::Drained => myself.stop(None),
            GenerationMsg::Respawn { component, restarts, cause } => {
                state.respawn(component, restarts, &cause, &myself).await;
            }
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
            SupervisionEvent::ActorFailed(cell, cause) => state.on_end(&cell, &cause.to_string(), &myself),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                state.on_end(&cell, reason.as_deref().unwrap_or("ended without being told to"), &myself);
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

//! The pool of one generation.

use std::sync::Arc;

use ductile_config::Plan;
use ductile_model::{AskError, Clock, EventHub, Lifecycle, Link};
use ductile_queue::{ClaimedJob, Store};
use ductile_vault::VaultHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{Mutex, mpsc};

use crate::attempt::Deps;
use crate::attempts::{Attempts, Runner};
use crate::environment::BaseEnvironment;
use crate::routing::PlanRouting;

/// Claims of a generation on their way to its pool. Outlives the actor, so that a restart loses none.
pub type ClaimInbox = Arc<Mutex<mpsc::UnboundedReceiver<ClaimedJob>>>;

/// Messages of the [`DispatcherPool`].
pub enum DispatcherMsg {
    /// Take claims from here: the generation is active. Answered when they are being taken.
    Claims(ClaimInbox, RpcReplyPort<()>),
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for DispatcherMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// What the actor starts, and starts again, with.
#[derive(Clone)]
pub struct DispatcherArgs {
    /// The plan of the generation.
    pub plan: Arc<Plan>,
    /// Where outcomes go: straight to the store, which outlives every actor.
    pub store: Store,
    /// Where secrets come from.
    pub vault: VaultHandle,
    /// Where `job.started` and the like are published.
    pub hub: EventHub,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// Runs the claimed jobs of its generation.
pub struct DispatcherPool;

/// State of the [`DispatcherPool`]: only ways to what outlives it.
pub struct PoolState {
    attempts: Arc<Attempts>,
    runner: Arc<Runner>,
}

impl Actor for DispatcherPool {
    type Msg = DispatcherMsg;
    type State = PoolState;
    type Arguments = DispatcherArgs;

    async fn pre_start(
        &self,
        _: ActorRef<DispatcherMsg>,
        args: DispatcherArgs,
    ) -> Result<PoolState, ActorProcessingErr> {
        let attempts = Attempts::of(&args.plan.snapshot.id);
        Ok(PoolState { attempts, runner: Arc::new(runner(args)) })
    }

    async fn handle(
        &self,
        _: ActorRef<DispatcherMsg>,
        message: DispatcherMsg,
        state: &mut PoolState,
    ) -> Result<(), ActorProcessingErr> {
        let attempts = state.attempts.clone();
        match message {
            DispatcherMsg::Claims(inbox, reply) => {
                attempts.drive(inbox, state.runner.clone());
                drop(reply.send(()));
            }
            // Claims come with the inbox, which is what activation hands over.
            DispatcherMsg::Lifecycle(Lifecycle::Activate) => {}
            // The store ends the inbox of a generation when the next one becomes active, so nothing new begins.
            DispatcherMsg::Lifecycle(Lifecycle::Drain(reply)) => {
                answer_after(reply, async move { attempts.drained().await });
            }
            DispatcherMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}

/// Waits outside the actor, which goes on listening.
fn answer_after(reply: RpcReplyPort<()>, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        work.await;
        drop(reply.send(()));
    });
}

fn runner(args: DispatcherArgs) -> Runner {
    let DispatcherArgs { plan, store, vault, hub, clock } = args;
    let service = plan.config.service.name.clone();
    let environment = BaseEnvironment::new(&plan.environment, &plan.config.service.plugin_env_passthrough);
    let routing = Arc::new(PlanRouting::new(plan.clone(), clock.clone()));
    let deps = Deps { catalogue: plan, service, environment, vault: Arc::new(vault), routing, hub, clock };
    Runner { deps, sink: Box::new(store) }
}

/// The supervisor's way to a pool. Cheap to clone.
#[derive(Clone)]
pub struct DispatcherHandle(Link<DispatcherMsg>);

impl DispatcherHandle {
    /// A handle over a link that the supervisor keeps.
    #[must_use]
    pub fn new(link: Link<DispatcherMsg>) -> Self {
        Self(link)
    }

    /// Gives the pool its claims; they are taken, from then on, whatever becomes of the actor. Sent at activation, and
    /// again after a restart, where it changes nothing if they are being taken already.
    ///
    /// # Errors
    /// The actor is down and did not come back in time.
    pub async fn take_claims(&self, inbox: ClaimInbox) -> Result<(), AskError> {
        self.0.ask(|reply| DispatcherMsg::Claims(inbox, reply)).await
    }
}

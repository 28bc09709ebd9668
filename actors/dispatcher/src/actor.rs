//! The pool of one generation.

use std::sync::Arc;
use std::time::Duration;

use ductile_config::Plan;
use ductile_model::{AskError, Clock, EventHub, Lifecycle, Link};
use ductile_queue::{ClaimedJob, QueueHandle};
use ductile_vault::VaultHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use rustix::process::Signal;
use tokio::sync::{Mutex, mpsc};

use crate::attempt::Deps;
use crate::attempts::{Attempts, Runner};
use crate::environment::BaseEnvironment;

/// Claims of a generation on their way to its pool. Outlives the actor, so that a restart loses none.
pub type ClaimInbox = Arc<Mutex<mpsc::UnboundedReceiver<ClaimedJob>>>;

/// Messages of the [`DispatcherPool`].
pub enum DispatcherMsg {
    /// Take claims from here: the generation is active.
    Claims(ClaimInbox),
    /// Let running attempts finish within the limit, then end them, and answer when all are stored.
    Stop {
        /// Time they get.
        limit: Duration,
        /// Answered when nothing runs any more.
        reply: RpcReplyPort<()>,
    },
    /// End all running attempts at once.
    KillAll,
    /// Answered with the number of running attempts.
    Running(RpcReplyPort<usize>),
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
    /// Where outcomes go.
    pub queue: QueueHandle,
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
            DispatcherMsg::Claims(inbox) => attempts.drive(inbox, state.runner.clone()),
            DispatcherMsg::Stop { limit, reply } => answer_after(reply, async move { attempts.stop(limit).await }),
            DispatcherMsg::KillAll => attempts.order(Signal::KILL),
            DispatcherMsg::Running(reply) => drop(reply.send(attempts.running())),
            // Claims come with the inbox, which is what activation hands over.
            DispatcherMsg::Lifecycle(Lifecycle::Activate) => {}
            // The store ends the inbox of a generation when the next one becomes active, so nothing new begins.
            DispatcherMsg::Lifecycle(Lifecycle::Drain(reply)) => {
                answer_after(reply, async move { attempts.drained().await });
            }
            DispatcherMsg::Lifecycle(Lifecycle::Crash) => return Err("crash asked for by a test".into()),
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
    let DispatcherArgs { plan, queue, vault, hub, clock } = args;
    let service = plan.config.service.name.clone();
    let environment = BaseEnvironment::new(&plan.environment, &plan.config.service.plugin_env_passthrough);
    let deps = Deps { catalogue: plan, service, environment, vault, hub, clock };
    Runner { deps, sink: Box::new(queue) }
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

    /// Gives the pool its claims. Sent at activation, and again after a restart.
    pub fn take_claims(&self, inbox: ClaimInbox) {
        let _ = self.0.tell(DispatcherMsg::Claims(inbox));
    }

    /// Lets running attempts finish within `limit`, then ends them (SIGTERM, 5 s, SIGKILL); returns when the outcome
    /// of each is stored.
    pub async fn stop(&self, limit: Duration) {
        let total = limit + Duration::from_secs(15);
        let _ = self.0.ask_within(total, |reply| DispatcherMsg::Stop { limit, reply }).await;
    }

    /// Ends all running attempts at once.
    pub fn kill_all(&self) {
        let _ = self.0.tell(DispatcherMsg::KillAll);
    }

    /// How many attempts run at this moment.
    ///
    /// # Errors
    /// The actor is being restarted and did not come back in time.
    pub async fn running(&self) -> Result<usize, AskError> {
        self.0.ask(DispatcherMsg::Running).await
    }
}

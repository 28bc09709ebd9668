//! The actor that holds the plan of its generation.

use std::sync::Arc;

use ductile_model::{AskError, Lifecycle, Link};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::Plan;

/// Messages of the [`ConfigActor`].
pub enum ConfigMsg {
    /// Answered with the plan of this generation.
    Plan(RpcReplyPort<Arc<Plan>>),
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for ConfigMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// What the actor starts, and starts again, with.
#[derive(Clone)]
pub struct ConfigArgs {
    /// The plan of the generation.
    pub plan: Arc<Plan>,
}

/// Holds the plan of its generation and hands it out.
pub struct ConfigActor;

impl Actor for ConfigActor {
    type Msg = ConfigMsg;
    type State = ConfigArgs;
    type Arguments = ConfigArgs;

    async fn pre_start(&self, _: ActorRef<ConfigMsg>, args: ConfigArgs) -> Result<ConfigArgs, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        _: ActorRef<ConfigMsg>,
        message: ConfigMsg,
        state: &mut ConfigArgs,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConfigMsg::Plan(reply) => drop(reply.send(state.plan.clone())),
            ConfigMsg::Lifecycle(Lifecycle::Activate) => {}
            ConfigMsg::Lifecycle(Lifecycle::Drain(reply)) => drop(reply.send(())),
            ConfigMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}

/// The way to the plan of a generation. Cheap to clone.
#[derive(Clone)]
pub struct ConfigHandle(Link<ConfigMsg>);

impl ConfigHandle {
    /// A handle over a link that the supervisor keeps.
    #[must_use]
    pub fn new(link: Link<ConfigMsg>) -> Self {
        Self(link)
    }

    /// The plan of the generation.
    ///
    /// # Errors
    /// The actor is being restarted and did not come back in time.
    pub async fn plan(&self) -> Result<Arc<Plan>, AskError> {
        self.0.ask(ConfigMsg::Plan).await
    }
}

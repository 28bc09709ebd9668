//! The scheduler room of a generation.
//!
//! **Owns** nothing yet: it takes part in start, activation, reload and stop of its generation, so that its feature
//! can be added without touching the tree.

use ductile_model::Lifecycle;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// Messages of the [`SchedulerActor`].
pub enum SchedulerMsg {
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for SchedulerMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// Takes part in the life of its generation.
pub struct SchedulerActor;

impl Actor for SchedulerActor {
    type Msg = SchedulerMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<SchedulerMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<SchedulerMsg>,
        message: SchedulerMsg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SchedulerMsg::Lifecycle(Lifecycle::Activate) => {}
            SchedulerMsg::Lifecycle(Lifecycle::Drain(reply)) => drop(reply.send(())),
            SchedulerMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}

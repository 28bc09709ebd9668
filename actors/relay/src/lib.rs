//! The relay room of a generation.
//!
//! **Owns** nothing yet: it takes part in start, activation, reload and stop of its generation, so that its feature
//! can be added without touching the tree.

use ductile_model::Lifecycle;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// Messages of the [`RelayActor`].
pub enum RelayMsg {
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for RelayMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// Takes part in the life of its generation.
pub struct RelayActor;

impl Actor for RelayActor {
    type Msg = RelayMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<RelayMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<RelayMsg>, message: RelayMsg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            RelayMsg::Lifecycle(Lifecycle::Activate) => {}
            RelayMsg::Lifecycle(Lifecycle::Drain(reply)) => drop(reply.send(())),
            RelayMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}

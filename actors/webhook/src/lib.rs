//! The webhook room of a generation.
//!
//! **Owns** nothing yet: it takes part in start, activation, reload and stop of its generation, so that its feature
//! can be added without touching the tree.

use ductile_model::Lifecycle;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// Messages of the [`WebhookActor`].
pub enum WebhookMsg {
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for WebhookMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// Takes part in the life of its generation.
pub struct WebhookActor;

impl Actor for WebhookActor {
    type Msg = WebhookMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<WebhookMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<WebhookMsg>,
        message: WebhookMsg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WebhookMsg::Lifecycle(Lifecycle::Activate) => {}
            WebhookMsg::Lifecycle(Lifecycle::Drain(reply)) => drop(reply.send(())),
            WebhookMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}

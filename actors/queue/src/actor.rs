//! The actor in front of the store.

use ductile_model::Lifecycle;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::OwnedSemaphorePermit;

use crate::enqueue::CheckedJob;
use crate::{Enqueued, QueueError, Store};

/// Messages of the [`QueueActor`].
pub enum QueueMsg {
    /// Answered after the commit that holds the row.
    Enqueue(EnqueueRequest),
    /// Activate, drain; a crash is a real panic of the message handler, for tests of the supervision.
    Lifecycle(Lifecycle),
}

/// A checked job on its way to the writer. Made by the handle only.
pub struct EnqueueRequest {
    pub(crate) job: Box<CheckedJob>,
    /// Place among the bounded number of jobs under way; given back with the answer.
    pub(crate) slot: OwnedSemaphorePermit,
    pub(crate) reply: RpcReplyPort<Result<Enqueued, QueueError>>,
}

impl From<Lifecycle> for QueueMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// What the actor starts, and starts again, with.
#[derive(Clone)]
pub struct QueueArgs {
    /// The store of the process.
    pub store: Store,
}

/// Stands between producers and the store. It hands everything on and waits for nothing: the writer answers the asker
/// itself, also when this actor is gone by then. Outcomes of attempts do not come this way: [`Store::finalise`].
pub struct QueueActor;

impl Actor for QueueActor {
    type Msg = QueueMsg;
    type State = QueueArgs;
    type Arguments = QueueArgs;

    async fn pre_start(&self, _: ActorRef<QueueMsg>, args: QueueArgs) -> Result<QueueArgs, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        _: ActorRef<QueueMsg>,
        message: QueueMsg,
        state: &mut QueueArgs,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QueueMsg::Enqueue(EnqueueRequest { job, slot, reply }) => {
                // Nobody waits for it any more and nothing was promised.
                if !reply.is_closed() {
                    state.store.submit_enqueue(job, move |answer| {
                        drop(slot);
                        let _ = reply.send(answer);
                    });
                }
            }
            QueueMsg::Lifecycle(Lifecycle::Activate) => {}
            QueueMsg::Lifecycle(Lifecycle::Drain(reply)) => state.store.flush(move || drop(reply.send(()))),
            QueueMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}

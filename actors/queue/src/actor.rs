//! The actor in front of the store.

use std::sync::Arc;

use ductile_model::Lifecycle;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::OwnedSemaphorePermit;

use crate::enqueue::CheckedJob;
use crate::{Enqueued, Finalise, Finalised, QueueError, Store};

/// Messages of the [`QueueActor`].
pub enum QueueMsg {
    /// Answered after the commit that holds the row.
    Enqueue(EnqueueRequest),
    /// Answered after the commit that holds the outcome.
    Finalise(FinaliseRequest),
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

/// A checked job on its way to the writer. Made by the handle only.
pub struct EnqueueRequest {
    pub(crate) job: Box<CheckedJob>,
    /// Place among the bounded number of jobs under way; given back with the answer.
    pub(crate) slot: OwnedSemaphorePermit,
    pub(crate) reply: RpcReplyPort<Result<Enqueued, QueueError>>,
}

/// An outcome on its way to the writer. Made by the handle only.
pub struct FinaliseRequest {
    pub(crate) outcome: Arc<Finalise>,
    pub(crate) reply: RpcReplyPort<Result<Finalised, QueueError>>,
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

/// Stands between producers, workers and the store. It hands everything on and waits for nothing: the writer answers
/// the asker itself, also when this actor is gone by then.
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
            QueueMsg::Finalise(FinaliseRequest { outcome, reply }) => {
                state.store.submit_finalise(outcome, move |answer| drop(reply.send(answer)));
            }
            QueueMsg::Lifecycle(Lifecycle::Activate) => {}
            QueueMsg::Lifecycle(Lifecycle::Drain(reply)) => state.store.flush(move || drop(reply.send(()))),
            QueueMsg::Lifecycle(Lifecycle::Crash) => return Err("crash asked for by a test".into()),
        }
        Ok(())
    }
}

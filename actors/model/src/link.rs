use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{ActorRef, Message, RpcReplyPort};
use tokio::sync::watch;

/// How long a question to an actor may take, its restart included, before the asker is told so.
pub const ASK_LIMIT: Duration = Duration::from_secs(10);

/// Why a question got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor is gone, or dropped the question unanswered: nothing was done.
    #[error("the component is being restarted")]
    Unavailable,
    /// No answer in time; what was asked may still happen.
    #[error("no answer within {}s; what was asked may still happen", ASK_LIMIT.as_secs())]
    OutcomeUnknown,
}

/// The way to an actor that may be restarted: follows it from one incarnation to the next. Handles of the rooms are
/// thin layers over this. Cheap to clone.
pub struct Link<M: Message>(watch::Receiver<Option<ActorRef<M>>>);

impl<M: Message> Clone for Link<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The supervisor's end of a [`Link`].
pub struct LinkOwner<M: Message>(watch::Sender<Option<ActorRef<M>>>);

impl<M: Message> Default for LinkOwner<M> {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl<M: Message> LinkOwner<M> {
    /// A link that follows this owner.
    #[must_use]
    pub fn link(&self) -> Link<M> {
        Link(self.0.subscribe())
    }

    /// Points all links at a new incarnation.
    pub fn set(&self, actor: ActorRef<M>) {
        self.0.send_replace(Some(actor));
    }

    /// The actor is down; askers wait for the next one.
    pub fn clear(&self) {
        self.0.send_replace(None);
    }
}

impl<M: Message> Link<M> {
    /// Sends without waiting for an answer.
    ///
    /// # Errors
    /// [`AskError::Unavailable`] when the actor is down at this moment.
    pub fn tell(&self, message: M) -> Result<(), AskError> {
        let actor = self.0.borrow().clone().ok_or(AskError::Unavailable)?;
        actor.cast(message).map_err(|_| AskError::Unavailable)
    }

    /// Asks and waits, at most [`ASK_LIMIT`]. An actor that is being restarted is waited for.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask<T: Send + 'static>(&self, build: impl FnOnce(RpcReplyPort<T>) -> M) -> Result<T, AskError> {
        self.ask_within(ASK_LIMIT, build).await
    }

    /// As [`Link::ask`] with a limit of its own.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask_within<T: Send + 'static>(
        &self,
        limit: Duration,
        build: impl FnOnce(RpcReplyPort<T>) -> M,
    ) -> Result<T, AskError> {
        let present = self.0.borrow().clone();
        let actor = match present {
            Some(actor) => actor,
            None => self.wait_for_actor(limit).await?,
        };
        match actor.call(build, Some(limit)).await {
            Ok(CallResult::Success(answer)) => Ok(answer),
            Ok(CallResult::Timeout) => Err(AskError::OutcomeUnknown),
            Ok(CallResult::SenderError) | Err(_) => Err(AskError::Unavailable),
        }
    }

    async fn wait_for_actor(&self, limit: Duration) -> Result<ActorRef<M>, AskError> {
        let mut incarnations = self.0.clone();
        let next = tokio::time::timeout(limit, incarnations.wait_for(Option::is_some)).await;
        match next {
            Ok(Ok(actor)) => actor.clone().ok_or(AskError::Unavailable),
            Ok(Err(_)) | Err(_) => Err(AskError::Unavailable),
        }
    }
}

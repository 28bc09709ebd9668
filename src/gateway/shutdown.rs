//! The orderly stop, from the outside in. Each step has a limit of its own; what it cut short is said.

use std::time::Duration;

use ductile_dispatcher::{ClaimInbox, stop_attempts};
use ductile_listeners::Door;
use ductile_queue::Store;
use futures_util::future::join_all;
use ractor::ActorRef;

use super::generation::GenerationMsg;

/// Time open requests get.
const REQUESTS: Duration = Duration::from_secs(10);
/// Time a generation gets to stop its actors once nothing runs, and to take over claims.
const ACTORS: Duration = Duration::from_secs(5);
/// What the whole stop may take beyond the drain.
const BEYOND_DRAIN: Duration = Duration::from_secs(15);

/// What is to be stopped.
pub(super) struct Stopping {
    pub(super) store: Store,
    pub(super) doors: Vec<Door>,
    pub(super) generations: Vec<ActorRef<GenerationMsg>>,
    /// A generation that was committed but never served, with what it has claimed.
    pub(super) unserved: Option<(ActorRef<GenerationMsg>, ClaimInbox)>,
    /// Time running plugins get.
    pub(super) drain: Duration,
}

impl Stopping {
    /// Stops accepting and claiming, lets open requests and running plugins finish within their limits, then stops the
    /// generations and closes the store. Says whether all of it was done in time.
    pub(super) async fn in_order(self) -> bool {
        let limit = self.drain + BEYOND_DRAIN;
        let done = tokio::time::timeout(limit, self.steps()).await.is_ok();
        if !done {
            tracing::error!(limit_s = limit.as_secs(), "the orderly stop ran out of time");
        }
        done
    }

    async fn steps(self) {
        self.store.stop_claiming().await;
        if let Some((generation, inbox)) = self.unserved {
            drop(generation.call(|reply| GenerationMsg::TakeClaims(inbox, reply), Some(ACTORS)).await);
        }
        let requests = join_all(self.doors.iter().map(|door| door.close(REQUESTS)));
        tokio::join!(requests, stop_attempts(self.drain));
        let actors = self.generations.iter().map(|generation| generation.stop_and_wait(None, Some(ACTORS)));
        join_all(actors).await;
        self.store.close().await;
    }
}

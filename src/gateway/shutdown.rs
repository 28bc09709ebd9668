//! The orderly stop, from the outside in. Each step has a limit of its own; what it cut short is said.

use std::time::Duration;

use ductile_listeners::Door;
use ductile_queue::Store;
use futures_util::future::join_all;
use ractor::ActorRef;

use super::generation::GenerationMsg;

/// Time open requests get.
const REQUESTS: Duration = Duration::from_secs(10);
/// Time a generation gets to stop its actors once nothing runs.
const ACTORS: Duration = Duration::from_secs(5);
/// What the whole stop may take beyond the drain.
const BEYOND_DRAIN: Duration = Duration::from_secs(15);

/// Stops accepting and claiming, lets open requests and running plugins finish within their limits, then stops the
/// generations and closes the store.
pub(super) async fn in_order(
    store: Store,
    doors: Vec<Door>,
    generations: Vec<ActorRef<GenerationMsg>>,
    drain: Duration,
) {
    let work = async {
        store.stop_claiming().await;
        let requests = join_all(doors.iter().map(|door| door.close(REQUESTS)));
        let plugins = join_all(generations.iter().map(|generation| stop_plugins(generation, drain)));
        tokio::join!(requests, plugins);
        join_all(generations.iter().map(|generation| generation.stop_and_wait(None, Some(ACTORS)))).await;
        store.close().await;
    };
    if tokio::time::timeout(drain + BEYOND_DRAIN, work).await.is_err() {
        tracing::error!(limit_s = (drain + BEYOND_DRAIN).as_secs(), "the orderly stop ran out of time");
    }
}

async fn stop_plugins(generation: &ActorRef<GenerationMsg>, limit: Duration) {
    // No answer means that the generation is gone, and with it everything it ran.
    drop(generation.call(|reply| GenerationMsg::Stop { limit, reply }, Some(limit + BEYOND_DRAIN)).await);
}

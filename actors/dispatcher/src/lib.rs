//! The dispatcher: runs plugins, one process per attempt.
//!
//! **Owns** the running attempts of its generation and their process groups.
//!
//! **Promises.** A plugin is judged from outside: exit, one JSON answer, stderr, deadline. Its outcome reaches the
//! queue exactly once per attempt; a panic in the handling of one attempt ends that attempt only. Nothing a plugin
//! does (forks, floods, closed pipes, ignored signals) holds a worker beyond its deadline and grace.
//!
//! **Woken by** claims that the store hands out, and by nothing else.
//!
//! **When it dies**, running attempts go on and report by themselves, and claims are still taken: both belong to the
//! process, the actor only steers them. After a kill of the gateway, [`end_leftovers`] finds what still runs by the
//! job id in its environment.
//!
//! **Not here:** which job runs next and retries, which are rows, and the queue's; and what follows from an event, which is
//! the router's.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod actor;
mod attempt;
mod attempts;
mod builtin;
mod capture;
mod conclude;
mod control;
mod environment;
mod events;
mod json;
mod judge;
mod leftovers;
mod process;
mod procs;
mod redact;
mod request;
mod response;
mod routing;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod threads;

pub use actor::{ClaimInbox, DispatcherArgs, DispatcherHandle, DispatcherMsg, DispatcherPool, PoolState};
pub use attempts::{kill_attempts, stop_attempts};
pub use leftovers::{StillRunning, end_leftovers};

//! The HTTP API: authenticated requests in, jobs and answers out.
//!
//! **Owns** the routes, the credentials check, admission limits and the slots of synchronous requests of its
//! generation. The listener belongs to the process.
//!
//! **Promises.** `202` is sent after the commit. A refused request has written nothing. A client that goes away
//! stops its answer, never its job.
//!
//! **Woken by** requests that the listener hands over, and by nothing else.
//!
//! **When it dies**, the listener stays bound and requests wait for the restarted actor; requests that were begun
//! go on with what they have.
//!
//! **Not here:** running jobs. The API only ever enqueues and reads.
//!
//! A request passes `service` (request id, caller, rate, cross-origin and security headers, access log), is matched
//! by `routes`, and is answered by one function of `handlers`. Handlers return a value or an `ApiError`;
//! nothing but the route match ever rejects.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod actor;
mod body;
mod context;
mod cors;
mod cursor;
mod envelope;
mod error;
mod handlers;
mod paths;
mod query;
mod rate;
mod reply;
mod routes;
mod service;
mod state;
mod views;

#[cfg(test)]
mod tests;

pub use actor::{ApiActor, ApiArgs, ApiMsg, ApiState, Control, ProcessView, ReloadFailure, ReloadReport};

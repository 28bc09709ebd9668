//! Listeners: bound sockets, their accept loops and their connections. A resource of the process, not of a
//! generation, so that a reload refuses and drops no connection.
//!
//! **Owns** sockets keyed by address. Each request is served by the service that is installed when its headers have
//! been read; a generation installs its service when it becomes active. While none is installed (an actor is being
//! restarted) requests wait.
//!
//! **Promises.** The accept queue is never closed while somebody wants the address. Slow headers, idle connections,
//! answers that nobody reads and too many connections are bounded. A panic in a service is one answer with status 500.
//!
//! **When it dies.** A socket that can no longer accept is reported by [`Door::failed`]; nothing here is restarted,
//! because a process with half of its doors must not live on.
//!
//! **Not here:** routes, credentials, bodies, and the choice of addresses.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod accept;
mod answers;
mod connection;
mod door;

pub use answers::{full_body, valid_request_id};
pub use door::{BindError, Body, Door, DoorLimits, HttpService, Peer, Request, Response};

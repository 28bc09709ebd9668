//! The API behind a real listener, with a real store and a dispatcher that only pretends to run plugins.

mod access;
mod client;
mod jobs;
mod life;
mod site;
mod triggers;

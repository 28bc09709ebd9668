//! What each route does. Every function returns its answer or an error; how these look is decided in `reply`.

pub(crate) mod catalogue;
pub(crate) mod health;
pub(crate) mod intervene;
pub(crate) mod jobs;
pub(crate) mod pipeline;
pub(crate) mod reload;
pub(crate) mod schedules;
mod started;
pub(crate) mod topology;
pub(crate) mod trigger;

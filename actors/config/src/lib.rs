//! Configuration: from files to one immutable [`Plan`].
//!
//! **Owns** the plan of its generation: merged configuration, plugin registry, resolved API tokens, posture and the
//! snapshot that is recorded for it.
//!
//! **Promises.** A load reads each file exactly once, changes nothing outside its own memory, and reports all
//! problems of a phase together, each with file, line and dotted path. A plan never changes; a new configuration is
//! a new plan.
//!
//! **When it dies**, the actor is restarted with the same plan in memory. Files are read only when a plan is made,
//! that is at a start or a reload, never at a restart.
//!
//! **Not here:** the vault (a plan is given a [`SecretProvider`]), and everything that runs.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod actor;
mod admission;
mod check;
mod doctor;
mod effective;
mod init;
mod keys;
mod load;
mod pipelines;
mod plan;
mod redact;
mod registry;
mod reload;
mod scalar;
mod scopes;
mod snapshot;
mod source;
mod symlinks;
#[cfg(test)]
mod tests;
mod yaml;

pub use actor::{ConfigActor, ConfigArgs, ConfigHandle, ConfigMsg};
pub use check::{CheckReport, Past, check};
pub use effective::{
    Admission, Api, ApiTokenEntry, CircuitBreaker, Config, ListenAddr, LogFormat, LogLevel, PluginConfig, RateLimit,
    Retry, SecretsConfig, Service, State, Synchronous, Timeouts,
};
pub use init::InitJob;
pub use load::{state_path, vault_places};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use pipelines::fuzzing;
pub use pipelines::{
    ClaimError, Claims, Condition, DEFAULT_COMMAND, Destination, Edge, Entry, EvaluationError, ExecutionMode, Exit,
    Node, NodeIx, NodeKind, PathNotFound, Pipeline, PipelineDraft, PipelineIx, PipelineReport, Pipelines, RELAY_PLUGIN,
    Relay, Route, RouteSource, SWITCH_FALSE, SWITCH_PLUGIN, SWITCH_TRUE, Scope, Signal, Switch, Template, Trigger,
    Uses, draft, json_equal,
};
pub use plan::{
    ApiToken, Environment, Outline, Plan, Posture, Purpose, SecretProjection, SecretProvider, SnapshotRecord, Source,
    SourceKind, Standing, Unavailable, VaultPlaces, outline, plan,
};
pub use registry::{Command, CommandType, FactRule, Manifest, Plugin, Registry, Rejected};
pub use reload::{reload_refusals, restart_changes};
pub use scopes::{Family, ScopeProblem, Scopes, check_scope};
pub use source::locate;

//! Pipelines: from YAML to fixed tables.
//!
//! Loading is all or nothing: either every definition compiles, or there are no pipelines at all but a list of
//! everything that is wrong. What comes out is immutable and knows no clock and no files; running it is the business of
//! others.

mod claims;
mod compile;
mod compiled;
mod condition;
mod decimal;
mod draft;
mod dsl;
mod equal;
mod fanout;
mod fault;
mod findings;
mod fingerprint;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod graph;
mod hooks;
mod legacy;
mod needle;
mod path;
mod routes;
mod scope;
mod shape;
mod steps;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use ductile_model::{Problem, Secret};
use serde_json::Value;

use crate::load::{Files, Taint};
use crate::yaml::Node as Yaml;
use crate::{PluginConfig, Registry};

pub use claims::{ClaimError, Claims};
pub use compiled::{
    DEFAULT_COMMAND, Edge, Entry, ExecutionMode, Exit, Node, NodeIx, NodeKind, Pipeline, PipelineIx, Pipelines,
    RELAY_PLUGIN, Relay, SWITCH_FALSE, SWITCH_PLUGIN, SWITCH_TRUE, Signal, Switch, Trigger, Uses,
};
pub use condition::{Condition, EvaluationError};
pub use draft::{PipelineDraft, PipelineReport, draft};
pub use equal::json_equal;
pub use routes::{Destination, Route, RouteSource};
pub use scope::Scope;
pub use template::{PathNotFound, Template};

pub(crate) use dsl::NOT_ENABLED;

/// What the compiler looks at.
pub(crate) struct Input<'i> {
    pub(crate) files: &'i Files,
    pub(crate) merged: &'i Yaml,
    /// Defaults filled in; for showing.
    pub(crate) effective: &'i Value,
    pub(crate) taint: &'i Taint,
    /// Values that must not be shown.
    pub(crate) known: Vec<Secret>,
    pub(crate) plugins: &'i BTreeMap<String, PluginConfig>,
    pub(crate) registry: &'i Registry,
}

/// What the compiler made.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    /// Empty when there is an error.
    pub(crate) pipelines: Arc<Pipelines>,
    /// By file, then position.
    pub(crate) errors: Vec<Problem>,
    /// In the same order.
    pub(crate) warnings: Vec<Problem>,
}

/// Compiles everything.
pub(crate) fn compile(input: &Input<'_>) -> Compiled {
    let mut findings = findings::Findings::new(input.files);
    let authored = dsl::read(input, &mut findings);
    let legacy = legacy::read(input, &mut findings);
    let order = compile::check_calls(&authored, &mut findings);
    let jobs = fanout::check(input, &authored, &order, &mut findings);
    let mut compiled = Compiled::default();
    if !findings.has_errors() {
        let pipelines = compile::build(input, authored, &order, &jobs, legacy);
        hooks::warn_of_cycles(&pipelines, input, &mut findings);
        compiled.pipelines = Arc::new(pipelines);
    }
    (compiled.errors, compiled.warnings) = findings.sorted();
    compiled
}

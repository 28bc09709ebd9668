//! The router: turns what jobs say into the jobs that follow, by the compiled pipelines of a generation.
//!
//! **Owns** nothing: a room without an actor. Every function is pure but for ids, which are made here; what it decides
//! is written by the queue, in the transaction that ends the job it came from.
//!
//! **Promises.** The same plan, job and answer lead to the same successors. Either everything that a job's answer asks
//! of its own pipeline can be done, or nothing of the answer is routed. A pipeline that can not be started keeps no
//! other from it, and never changes the job that would have started it.
//!
//! **Not here:** running steps, and the rows.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod baggage;
mod build;
mod event;
mod follow;
mod hooks;
mod input;
mod instance;
mod rehearse;
mod start;
mod switch;
mod walk;

#[cfg(test)]
mod tests;

pub use baggage::{BaggageError, CONTEXT_LIMIT};
pub use event::{Emitted, Event, STEP_SUCCEEDED};
pub use hooks::PlanHooks;
pub use input::{Step, StepInput, WithError};
pub use rehearse::{Check, Rehearsal, RehearsedJob, Thought};
pub use start::{StartError, StartKey, Starter};
pub use switch::{SwitchError, Switched};

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_config::Plan;
use ductile_model::{JobId, untrusted_json};
use ductile_queue::{JobContext, Routed, TreeNode};
use instance::Control;
use serde_json::{Map, Value};

/// Attempts of jobs that no plugin configuration speaks of.
const DEFAULT_ATTEMPTS: u32 = 4;

/// Routes by the pipelines of one plan. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    plan: Arc<Plan>,
}

/// A job that has succeeded, as far as routing asks.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its id.
    pub job: &'a JobId,
    /// Configured plugin name.
    pub plugin: &'a str,
    /// Id of its context, when it has one.
    pub context_id: Option<&'a str>,
    /// The context.
    pub context: Option<&'a JobContext>,
}

/// Why an answer can not be routed: the text of the failed attempt.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// What the steps of its pipeline should keep can not be kept.
    #[error("{0}")]
    Baggage(#[from] BaggageError),
    /// The context is not what a context must be.
    #[error("context is unreadable: {0}")]
    Context(serde_json::Error),
    /// A pipeline or step that the context names is gone.
    #[error("pipeline step \"{pipeline}/{step}\" is not in the active configuration")]
    Gone {
        /// Pipeline.
        pipeline: String,
        /// Step.
        step: String,
    },
}

impl Router {
    /// A router of a plan.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan }
    }

    /// What the events of a successful job cause, in order. `result` is what the plugin said about itself.
    ///
    /// # Errors
    /// Nothing of the answer may be routed.
    pub fn route(
        &self,
        source: &Source<'_>,
        result: Option<&str>,
        emitted: Vec<Emitted>,
        now: DateTime<Utc>,
    ) -> Result<Routed, RouteError> {
        // The usual case: a job of no pipeline that says nothing.
        if emitted.is_empty() && source.context.is_none() {
            return Ok(Routed::default());
        }
        let accumulated = accumulated(source.context)?;
        let mut follow = follow::Follow::new(self, source, accumulated);
        if emitted.is_empty() {
            follow.edges_only(&Event::of_success(source.plugin, result, now))?;
        }
        for emitted in emitted {
            follow.event(emitted.into_event(source.plugin, result, now))?;
        }
        Ok(follow.into_routed())
    }

    /// What the event of a switch causes: it goes along the edges of its pipeline only.
    ///
    /// # Errors
    /// Nothing of it may be routed.
    pub fn route_switch(&self, source: &Source<'_>, event: &Event) -> Result<Routed, RouteError> {
        let mut follow = follow::Follow::new(self, source, accumulated(source.context)?);
        follow.edges_only(event)?;
        Ok(follow.into_routed())
    }

    /// The job whose result is that of a whole tree: the last one that may be the end of the instance that its root
    /// began, else the root.
    #[must_use]
    pub fn result_of<'t>(&self, tree: &'t [TreeNode]) -> Option<&'t TreeNode> {
        let root = tree.first()?;
        let control = |node: &TreeNode| {
            let text = node.control.as_deref().unwrap_or("{}");
            Control::of_text(text)
        };
        let instance = control(root).instance;
        let last = tree.iter().rev().find(|node| {
            let control = control(node);
            !node.pipeline.is_empty()
                && control.instance == instance
                && walk::is_last(&self.plan.pipelines, &node.pipeline, &node.step_id, &control.calls)
        });
        Some(last.unwrap_or(root))
    }

    /// Attempts that a job of this plugin gets.
    fn attempts(&self, plugin: &str) -> u32 {
        self.plan.config.plugins.get(plugin).map_or(DEFAULT_ATTEMPTS, |plugin| plugin.retry.max_attempts)
    }
}

/// The object that a context has collected.
fn accumulated(context: Option<&JobContext>) -> Result<Map<String, Value>, RouteError> {
    match context {
        Some(context) => untrusted_json::object(&context.accumulated).map_err(RouteError::Context),
        None => Ok(Map::new()),
    }
}

//! What the plugin of a step gets: the context, and the payload with what the step adds to it.

use ductile_config::{NodeKind, Scope};
use ductile_model::untrusted_json;
use ductile_queue::JobContext;
use serde_json::{Map, Value};

use crate::instance::Control;
use crate::{RouteError, Router, walk};

/// A step that is about to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The context as the plugin gets it.
    pub context: Map<String, Value>,
}

/// What a step changes of its payload.
pub type StepInput = Vec<(String, Value)>;

/// A payload that can not be made: the text of the failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("apply with remap for {pipeline}/{step}: {key}: {cause}")]
pub struct WithError {
    pipeline: String,
    step: String,
    key: String,
    cause: String,
}

impl Router {
    /// The context that a job's plugin gets.
    ///
    /// # Errors
    /// The stored context is no object, or names a step that is gone.
    pub fn step(&self, plugin: &str, context: &JobContext) -> Result<Step, RouteError> {
        let mut given = untrusted_json::object(&context.accumulated).map_err(RouteError::Context)?;
        let control = Control::read(&given);
        given.insert("ductile_plugin".to_owned(), plugin.into());
        if context.pipeline.is_empty() {
            return Ok(Step { context: given });
        }
        walk::find(&self.plan.pipelines, &context.pipeline, &context.step_id)?;
        given.insert("ductile_pipeline".to_owned(), context.pipeline.as_str().into());
        given.insert("ductile_step_id".to_owned(), context.step_id.as_str().into());
        given.insert("ductile_pipeline_instance_id".to_owned(), control.instance.as_str().into());
        for (key, depth) in [("ductile_route_depth", control.depth), ("ductile_route_max_depth", control.max_depth)] {
            if depth > 0 {
                given.insert(key.to_owned(), depth.into());
            }
        }
        Ok(Step { context: given })
    }

    /// The keys that a step sets in its payload. `payload` and `step` are what its templates read.
    ///
    /// # Errors
    /// A template reads what is not there.
    pub fn remap(&self, context: &JobContext, step: &Step, payload: &Value) -> Result<StepInput, WithError> {
        let Ok((_, node)) = walk::find(&self.plan.pipelines, &context.pipeline, &context.step_id) else {
            return Ok(Vec::new());
        };
        let NodeKind::Uses(uses) = &node.kind else { return Ok(Vec::new()) };
        let given = Value::Object(step.context.clone());
        let scope = Scope { payload: Some(payload), context: Some(&given), config: None };
        let rendered = uses.with.iter().map(|(key, template)| {
            let value = template.render(&scope).map_err(|cause| WithError {
                pipeline: context.pipeline.clone(),
                step: context.step_id.clone(),
                key: key.to_string(),
                cause: cause.to_string(),
            })?;
            Ok((key.to_string(), value))
        });
        rendered.collect()
    }

    /// Whether a step sets anything in its payload.
    #[must_use]
    pub fn remaps(&self, context: &JobContext) -> bool {
        let found = walk::find(&self.plan.pipelines, &context.pipeline, &context.step_id);
        found.is_ok_and(|(_, node)| matches!(&node.kind, NodeKind::Uses(uses) if !uses.with.is_empty()))
    }
}

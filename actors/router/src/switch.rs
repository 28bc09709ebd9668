//! The built-in step that evaluates a condition and passes its event on.

use ductile_config::{NodeKind, SWITCH_FALSE, SWITCH_TRUE, Scope};
use ductile_model::untrusted_json;
use ductile_queue::JobContext;
use serde_json::{Map, Value, json};

use crate::event::Event;
use crate::{RouteError, Router, walk};

/// What a switch came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Switched {
    /// What is stored as its answer, JSON text.
    pub result: String,
    /// Its input, on the way that was chosen.
    pub event: Event,
}

/// Why it came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The step is gone.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The condition can not be evaluated over this event.
    #[error("core.switch evaluate condition: {0}")]
    Condition(String),
    /// Its input is not what a switch is given.
    #[error("core.switch got no event")]
    NoEvent,
}

impl Router {
    /// Evaluates the condition of a switch job over its stored event and context.
    ///
    /// # Errors
    /// See [`SwitchError`]; another attempt would come to the same.
    pub fn switch(&self, stored: Option<&str>, context: &JobContext) -> Result<Switched, SwitchError> {
        let (_, node) = walk::find(&self.plan.pipelines, &context.pipeline, &context.step_id)?;
        let NodeKind::Switch(switch) = &node.kind else {
            return Err(RouteError::Gone { pipeline: context.pipeline.clone(), step: context.step_id.clone() }.into());
        };
        let mut event = stored.and_then(Event::of_stored).ok_or(SwitchError::NoEvent)?;
        let accumulated = untrusted_json::value(&context.accumulated).map_err(RouteError::Context)?;
        let config = switch.config_of.as_deref().and_then(|plugin| self.operator_config(plugin));
        // Lent to the condition, not copied.
        let payload = Value::Object(std::mem::take(&mut event.payload));
        let scope = Scope { payload: Some(&payload), context: Some(&accumulated), config: config.as_ref() };
        let matched = switch.condition.holds(&scope).map_err(|error| SwitchError::Condition(error.to_string()))?;
        if let Value::Object(payload) = payload {
            event.payload = payload;
        }
        let kind = if matched { SWITCH_TRUE } else { SWITCH_FALSE };
        Ok(Switched {
            result: json!({"matched": matched, "event": kind}).to_string(),
            event: Event { kind: kind.to_owned(), ..event },
        })
    }

    /// The configuration that the operator gave a plugin.
    fn operator_config(&self, plugin: &str) -> Option<Value> {
        let config = self.plan.config.plugins.get(plugin)?;
        serde_json::from_str::<Map<String, Value>>(config.config.get()).ok().map(Value::Object)
    }
}

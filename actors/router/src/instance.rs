//! The control object of a context: which instance of which pipeline, how deep, on whose behalf.

use ductile_config::Pipeline;
use ductile_model::{new_id, untrusted_json};
use serde_json::{Map, Value, json};

use crate::baggage::CONTROL;

/// Pipelines that one start may cause, one after the other.
pub(crate) const HOP_LIMIT: u64 = 20;

/// A call that is under way: where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) pipeline: String,
    pub(crate) step: String,
}

/// The control object, read. Keys that are not known are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control {
    pub(crate) instance: String,
    pub(crate) depth: u64,
    /// 0: none.
    pub(crate) max_depth: u64,
    pub(crate) hops: u64,
    pub(crate) calls: Vec<Frame>,
    pub(crate) hook_depth: Option<u64>,
    others: Map<String, Value>,
}

impl Control {
    /// The control of an accumulated object; of a job without context, that of nothing.
    pub(crate) fn read(accumulated: &Map<String, Value>) -> Self {
        let Some(Value::Object(control)) = accumulated.get(CONTROL) else { return Self::default() };
        let mut others = control.clone();
        let mut number = |key: &str| others.shift_remove(key).and_then(|value| value.as_u64());
        let (depth, max_depth) = (number("route_depth").unwrap_or(0), number("route_max_depth").unwrap_or(0));
        let (hops, hook_depth) = (number("hop_count").unwrap_or(0), number("hook_depth"));
        let instance = match others.shift_remove("pipeline_instance_id") {
            Some(Value::String(id)) => id,
            _ => String::new(),
        };
        let calls = others.shift_remove("call_stack");
        let calls = calls.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Frame::read).collect();
        Self { instance, depth, max_depth, hops, calls, hook_depth, others }
    }

    /// The control of a control object's text.
    pub(crate) fn of_text(text: &str) -> Self {
        let control = untrusted_json::value(text).unwrap_or_default();
        Self::read(&Map::from_iter([(CONTROL.to_owned(), control)]))
    }

    /// That of the root row of a new instance.
    pub(crate) fn of_start(pipeline: &Pipeline, hops: u64) -> Self {
        Self { instance: new_id(), max_depth: pipeline.max_depth.into(), hops, ..Self::default() }
    }

    /// That of the root row of an instance that a hook begins.
    pub(crate) fn of_hook(pipeline: &Pipeline, depth: u64) -> Self {
        Self { hook_depth: Some(depth), ..Self::of_start(pipeline, 1) }
    }

    /// That of a job made by an older route: it only counts.
    pub(crate) fn of_route(hops: u64) -> Self {
        Self { hops, ..Self::default() }
    }

    /// That of a successor.
    pub(crate) fn next(&self, calls: Vec<Frame>) -> Self {
        Self { depth: self.depth + 1, calls, ..self.clone() }
    }

    /// Whether another step is beyond the cap.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.max_depth != 0 && self.depth >= self.max_depth
    }

    pub(crate) fn write(&self) -> Map<String, Value> {
        let mut control = Map::new();
        if !self.instance.is_empty() {
            control.insert("pipeline_instance_id".to_owned(), self.instance.as_str().into());
            control.insert("route_depth".to_owned(), self.depth.into());
        }
        if self.max_depth > 0 {
            control.insert("route_max_depth".to_owned(), self.max_depth.into());
        }
        control.insert("hop_count".to_owned(), self.hops.into());
        if !self.calls.is_empty() {
            control.insert("call_stack".to_owned(), self.calls.iter().map(Frame::write).collect());
        }
        if let Some(depth) = self.hook_depth {
            control.insert("hook_depth".to_owned(), depth.into());
        }
        control.extend(self.others.clone());
        control
    }
}

impl Frame {
    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self { pipeline: text("pipeline")?, step: text("step")? })
    }

    fn write(&self) -> Value {
        json!({"pipeline": self.pipeline, "step": self.step})
    }
}

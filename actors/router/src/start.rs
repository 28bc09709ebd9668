//! Starts of pipelines: by an event, by name, and what a new instance begins with.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_config::Pipeline;
use ductile_model::{Producer, new_id};
use ductile_queue::{NewContext, PipelineStart};
use serde_json::{Map, Value};

use crate::Router;
use crate::baggage::{self, BaggageError};
use crate::build::{Base, Batch, Maker};
use crate::event::Event;
use crate::follow::trigger_word;
use crate::instance::Control;
use crate::walk;

/// A pipeline that begins.
pub(crate) struct Instance {
    control: Control,
    root: Arc<NewContext>,
    nothing: Map<String, Value>,
}

impl Instance {
    pub(crate) fn begin(pipeline: &Pipeline, hops: u64) -> Self {
        Self::of(pipeline, Control::of_start(pipeline, hops))
    }

    /// One that a hook begins.
    pub(crate) fn of_hook(pipeline: &Pipeline, depth: u64) -> Self {
        Self::of(pipeline, Control::of_hook(pipeline, depth))
    }

    fn of(pipeline: &Pipeline, control: Control) -> Self {
        let mut root = Map::new();
        root.insert(baggage::CONTROL.to_owned(), Value::Object(control.write()));
        let root = NewContext {
            id: new_id(),
            parent_id: None,
            pipeline: pipeline.name.to_string(),
            step_id: String::new(),
            accumulated: Value::Object(root).to_string(),
        };
        Self { control, root: Arc::new(root), nothing: Map::new() }
    }

    /// What its entries grow from; `readable` is what their claims read as `context`.
    pub(crate) fn base<'a>(&'a self, readable: Option<&'a Value>) -> Base<'a> {
        Base {
            parent: self.root.id.clone(),
            root: Some(self.root.clone()),
            inherited: &self.nothing,
            readable,
            control: &self.control,
        }
    }
}

/// Who starts a pipeline by name.
#[derive(Debug, Clone)]
pub struct Starter {
    /// Producer of its jobs.
    pub submitted_by: Producer,
    /// `source` of the event.
    pub source: &'static str,
    /// Under which key it is made only once.
    pub key: StartKey,
}

/// A key of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartKey {
    /// None: every start counts.
    None,
    /// That of its event, inherited by the jobs that follow.
    Event(String),
    /// That of the request; each entry step adds its name.
    Request(String),
}

/// Why a pipeline can not be started so. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// There is no such pipeline.
    #[error("pipeline not found")]
    Unknown,
    /// Its entry steps claim what the payload does not have, or too much of it.
    #[error("{0}")]
    Baggage(#[from] BaggageError),
}

impl Router {
    /// Jobs that a start by name queues; `None` when there is no such pipeline.
    #[must_use]
    pub fn entry_count(&self, name: &str) -> Option<usize> {
        self.plan.pipelines.get(name).map(|pipeline| pipeline.entry_count)
    }

    /// The jobs that a start by name queues. Neither the trigger nor its conditions matter.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        &self,
        name: &str,
        payload: Map<String, Value>,
        starter: &Starter,
        now: DateTime<Utc>,
    ) -> Result<PipelineStart, StartError> {
        let pipelines = &self.plan.pipelines;
        let pipeline = pipelines.get(name).ok_or(StartError::Unknown)?;
        let mut event = Event::from_outside(trigger_word(pipeline), payload, starter.source, now);
        if let StartKey::Event(key) = &starter.key {
            event.dedupe_key = Some(key.clone());
        }
        let payload = Value::Object(std::mem::take(&mut event.payload));
        let instance = Instance::begin(pipeline, 1);
        let reached = walk::entries(pipelines, pipeline);
        let maker = Maker { submitted_by: starter.submitted_by.clone(), parent_job: None };
        let mut successors = Vec::new();
        let mut batch = Batch::new(self, &event, &payload, maker);
        for arrival in &reached {
            let mut successor = batch.step(arrival, &instance.base(None))?;
            // A key of the event is the batch's to inherit.
            if let StartKey::Request(key) = &starter.key {
                successor.job.dedupe_key = Some(format!("{key}:{}", arrival.node.id));
            }
            successors.push(successor);
        }
        Ok(PipelineStart { pipeline: name.to_owned(), submitted_by: starter.submitted_by.clone(), successors })
    }
}

//! What would happen to an event, without anything happening: how people debug their routing.

use chrono::{DateTime, Utc};
use ductile_config::{Pipeline, SWITCH_PLUGIN, SWITCH_TRUE, Scope, Trigger};
use ductile_model::{JobId, Producer, untrusted_json};
use ductile_queue::{JobContext, Successor};
use serde_json::{Map, Value};

use crate::build::{Batch, Maker};
use crate::event::{Event, Upstream};
use crate::follow::trigger_word;
use crate::start::Instance;
use crate::{Emitted, Router, Source, walk};

/// An event that is only thought of.
#[derive(Debug, Clone, Default)]
pub struct Thought {
    /// Its type; `None`: the one that the pipeline waits for.
    pub event_type: Option<String>,
    /// The plugin that would emit it; `None`: it comes from outside.
    pub from_plugin: Option<String>,
    /// Its payload.
    pub payload: Map<String, Value>,
}

/// How an event meets something that a pipeline asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The pipeline does not ask.
    NotAsked,
    /// It is met.
    Met,
    /// It is not; what was asked for.
    NotMet(String),
    /// It can not be told.
    Failed(String),
}

impl Check {
    /// Whether this keeps the pipeline from being started.
    #[must_use]
    pub fn hinders(&self) -> bool {
        matches!(self, Self::NotMet(_) | Self::Failed(_))
    }
}

/// What would happen.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// Type of the event.
    pub event_type: String,
    /// Whether it is the trigger.
    pub trigger: Check,
    /// Whether it comes from where it must.
    pub from_plugin: Check,
    /// Whether the pipeline's condition holds.
    pub condition: Check,
    /// The jobs that a start would queue, and those behind switches.
    pub jobs: Vec<RehearsedJob>,
    /// Why a start would queue nothing.
    pub refusal: Option<String>,
}

impl Rehearsal {
    /// Whether the event would start the pipeline.
    #[must_use]
    pub fn starts(&self) -> bool {
        let hindered = [&self.trigger, &self.from_plugin, &self.condition].into_iter().any(Check::hinders);
        !hindered && self.refusal.is_none()
    }
}

/// A job that would be queued.
#[derive(Debug, Clone)]
pub struct RehearsedJob {
    /// Pipeline of its step.
    pub pipeline: String,
    /// Its step.
    pub step: String,
    /// What runs it.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Its accumulated context.
    pub context: Value,
    /// What a plugin would get as payload; of a switch its event's payload.
    pub payload: Value,
    /// What a switch decides.
    pub matched: Option<bool>,
    /// Why it would fail before anything runs.
    pub error: Option<String>,
}

impl Router {
    /// Follows an event into a pipeline, through switches, up to the steps whose plugins would run. `None`: there is no
    /// such pipeline.
    #[must_use]
    pub fn rehearse(&self, name: &str, thought: &Thought, now: DateTime<Utc>) -> Option<Rehearsal> {
        let pipeline = self.plan.pipelines.get(name)?;
        let kind = thought.event_type.clone().unwrap_or_else(|| trigger_word(pipeline).to_owned());
        let source = thought.from_plugin.clone().unwrap_or_else(|| "api".to_owned());
        let emitted = Emitted { kind, payload: thought.payload.clone(), ..Emitted::default() };
        let event = emitted.into_event(&source, None, now);
        let (jobs, refusal) = self.entry_jobs(pipeline, &event, thought);
        Some(Rehearsal {
            trigger: trigger(pipeline, &event.kind),
            from_plugin: from_plugin(pipeline, thought.from_plugin.as_deref()),
            condition: condition(pipeline, &event),
            event_type: event.kind,
            jobs,
            refusal,
        })
    }

    fn entry_jobs(&self, pipeline: &Pipeline, event: &Event, thought: &Thought) -> (Vec<RehearsedJob>, Option<String>) {
        let payload = match &thought.from_plugin {
            Some(plugin) => event.routed_payload(&Upstream { plugin, step: None }),
            None => event.payload.clone(),
        };
        let payload = Value::Object(payload);
        let instance = Instance::begin(pipeline, 1);
        let maker = Maker { submitted_by: Producer::Route, parent_job: None };
        let mut batch = Batch::new(self, event, &payload, maker);
        let mut jobs = Vec::new();
        for arrival in walk::entries(&self.plan.pipelines, pipeline) {
            match batch.step(&arrival, &instance.base(None)) {
                Ok(successor) => self.think_on(successor, &mut jobs),
                // All entries of a start are queued, or none.
                Err(error) => return (Vec::new(), Some(error.to_string())),
            }
        }
        (jobs, None)
    }

    fn think_on(&self, successor: Successor, jobs: &mut Vec<RehearsedJob>) {
        let Successor { job, context, .. } = successor;
        let stored = job.payload.unwrap_or_default();
        let place = JobContext {
            pipeline: context.pipeline.clone(),
            step_id: context.step_id.clone(),
            accumulated: context.accumulated.clone(),
        };
        let mut thought = RehearsedJob {
            pipeline: context.pipeline,
            step: context.step_id,
            plugin: job.plugin,
            command: job.command,
            context: untrusted_json::value(&context.accumulated).unwrap_or_default(),
            payload: input_of(&stored),
            matched: None,
            error: None,
        };
        if thought.plugin != SWITCH_PLUGIN {
            self.think_of_input(&place, &mut thought);
            jobs.push(thought);
            return;
        }
        let followed = self.switch(Some(&stored), &place).and_then(|switched| {
            thought.matched = Some(switched.event.kind == SWITCH_TRUE);
            let id = JobId::from(String::new());
            let source =
                Source { job: &id, plugin: SWITCH_PLUGIN, context_id: Some(&context.id), context: Some(&place) };
            Ok(self.route_switch(&source, &switched.event)?)
        });
        match followed {
            Ok(routed) => {
                jobs.push(thought);
                routed.successors.into_iter().for_each(|successor| self.think_on(successor, jobs));
            }
            Err(error) => {
                thought.error = Some(error.to_string());
                jobs.push(thought);
            }
        }
    }

    /// The payload as the plugin would get it.
    fn think_of_input(&self, place: &JobContext, thought: &mut RehearsedJob) {
        let step = match self.step(&thought.plugin, place) {
            Ok(step) => step,
            Err(error) => return thought.error = Some(error.to_string()),
        };
        if let Value::Object(payload) = &mut thought.payload {
            for (key, value) in &step.context {
                payload.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        match self.remap(place, &step, &thought.payload) {
            Ok(set) => {
                if let Value::Object(payload) = &mut thought.payload {
                    payload.extend(set);
                }
            }
            Err(error) => thought.error = Some(error.to_string()),
        }
    }
}

fn trigger(pipeline: &Pipeline, kind: &str) -> Check {
    match &pipeline.trigger {
        Trigger::Event(wanted) if **wanted == *kind => Check::Met,
        Trigger::Event(wanted) => Check::NotMet(wanted.to_string()),
        Trigger::Hook(signal) if signal.as_str() == kind => Check::Met,
        Trigger::Hook(signal) => Check::NotMet(format!("hook:{}", signal.as_str())),
    }
}

fn from_plugin(pipeline: &Pipeline, from: Option<&str>) -> Check {
    match pipeline.from_plugin.as_deref() {
        None => Check::NotAsked,
        Some(wanted) if from == Some(wanted) => Check::Met,
        Some(wanted) => Check::NotMet(wanted.to_owned()),
    }
}

fn condition(pipeline: &Pipeline, event: &Event) -> Check {
    let Some(condition) = &pipeline.condition else { return Check::NotAsked };
    let payload = Value::Object(event.payload.clone());
    match condition.holds(&Scope { payload: Some(&payload), context: None, config: None }) {
        Ok(true) => Check::Met,
        Ok(false) => Check::NotMet("the condition is false".to_owned()),
        Err(error) => Check::Failed(error.to_string()),
    }
}

/// The payload of a stored event, or what is stored in its place.
fn input_of(stored: &str) -> Value {
    match Event::of_stored(stored) {
        Some(event) => Value::Object(event.payload),
        None => untrusted_json::value(stored).unwrap_or_default(),
    }
}

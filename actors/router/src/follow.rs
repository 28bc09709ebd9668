//! What follows from a job: along the edges of its own pipeline, into pipelines that its events start, and along older
//! routes.

use std::collections::HashMap;

use ductile_config::{Condition, Pipeline, PipelineIx, Pipelines, SWITCH_PLUGIN, Scope, Trigger};
use ductile_model::Producer;
use ductile_queue::{Routed, Successor, Told};
use serde_json::{Map, Value, json};
use tracing::{debug, error, warn};

use crate::baggage::BaggageError;
use crate::build::{Base, Batch, Draft, Maker};
use crate::event::{Event, Upstream};
use crate::instance::{Control, HOP_LIMIT};
use crate::start::Instance;
use crate::walk::{self, Arrival};
use crate::{RouteError, Router, Source};

pub(crate) struct Follow<'r> {
    router: &'r Router,
    source: &'r Source<'r>,
    /// Pipeline and step of the job, if it is a step.
    step: Option<(&'r str, &'r str)>,
    accumulated: Value,
    control: Control,
    routed: Routed,
}

impl<'r> Follow<'r> {
    pub(crate) fn new(router: &'r Router, source: &'r Source<'r>, accumulated: Map<String, Value>) -> Self {
        let step = source.context.filter(|context| !context.pipeline.is_empty());
        let control = Control::read(&accumulated);
        Self {
            router,
            source,
            step: step.map(|context| (context.pipeline.as_str(), context.step_id.as_str())),
            accumulated: Value::Object(accumulated),
            control,
            routed: Routed::default(),
        }
    }

    pub(crate) fn into_routed(self) -> Routed {
        self.routed
    }

    fn pipelines(&self) -> &'r Pipelines {
        &self.router.plan.pipelines
    }

    /// Routes one event in all three ways.
    pub(crate) fn event(&mut self, mut event: Event) -> Result<(), RouteError> {
        let before = self.routed.successors.len();
        let reached = self.reached(&event)?;
        // Most events lead nowhere; their payloads are not copied.
        if !reached.is_empty() || self.is_heard(&event) {
            let payload = Value::Object(self.payload(&event));
            // As it was emitted: lent to the conditions of triggers.
            let emitted = Value::Object(std::mem::take(&mut event.payload));
            let mut batch = self.batch(&event, &payload);
            self.transitions(&reached, &mut batch)?;
            if !event.is_own() {
                self.triggers(&event, &emitted, &mut batch);
                self.older_routes(&event, &mut batch);
            }
        }
        if self.routed.successors.len() == before {
            debug!(job_id = %self.source.job, event_type = event.kind, "nothing follows from an event");
        }
        Ok(())
    }

    /// Routes one event along the edges of the job's own pipeline only.
    pub(crate) fn edges_only(&mut self, event: &Event) -> Result<(), RouteError> {
        let reached = self.reached(event)?;
        if reached.is_empty() {
            return Ok(());
        }
        let payload = Value::Object(self.payload(event));
        self.transitions(&reached, &mut self.batch(event, &payload))
    }

    /// The steps that an event reaches in the job's own pipeline.
    fn reached(&self, event: &Event) -> Result<Vec<Arrival<'r>>, RouteError> {
        let mut reached = Vec::new();
        if let Some((pipeline, step)) = self.step {
            let (pipeline, node) = walk::find(self.pipelines(), pipeline, step)?;
            walk::leave(self.pipelines(), pipeline, node, &self.control.calls, &event.kind, &mut reached)?;
        }
        Ok(reached)
    }

    /// Whether anything waits for events of this type from this plugin.
    fn is_heard(&self, event: &Event) -> bool {
        let all = self.pipelines();
        !event.is_own()
            && (!all.started_by(&event.kind).is_empty() || !all.routes(self.source.plugin, &event.kind).is_empty())
    }

    fn payload(&self, event: &Event) -> Map<String, Value> {
        let upstream = Upstream { plugin: self.source.plugin, step: self.step };
        if self.source.plugin == SWITCH_PLUGIN {
            event.passed_on_payload(&upstream)
        } else {
            event.routed_payload(&upstream)
        }
    }

    fn batch<'b>(&self, event: &'b Event, payload: &'b Value) -> Batch<'b>
    where
        'r: 'b,
    {
        let maker = Maker { submitted_by: Producer::Route, parent_job: Some(self.source.job) };
        Batch::new(self.router, event, payload, maker)
    }

    fn transitions(&mut self, reached: &[Arrival<'_>], batch: &mut Batch<'_>) -> Result<(), RouteError> {
        for arrival in reached {
            if self.control.is_exhausted() {
                self.too_deep(arrival);
                continue;
            }
            let successor = self.step_after(batch, arrival)?;
            self.routed.successors.push(successor);
        }
        Ok(())
    }

    fn step_after(&self, batch: &mut Batch<'_>, arrival: &Arrival<'_>) -> Result<Successor, BaggageError> {
        let nothing = Map::new();
        let base = Base {
            parent: self.source.context_id.unwrap_or_default().to_owned(),
            root: None,
            inherited: self.accumulated.as_object().unwrap_or(&nothing),
            readable: Some(&self.accumulated),
            control: &self.control,
        };
        batch.step(arrival, &base)
    }

    fn too_deep(&mut self, arrival: &Arrival<'_>) {
        let (pipeline, step) = (&*arrival.pipeline.name, &*arrival.node.id);
        let (depth, limit) = (self.control.depth, self.control.max_depth);
        warn!(job_id = %self.source.job, pipeline, step, depth, limit, "a branch ends: its pipeline may not go deeper");
        self.tell(
            "router.depth_exceeded",
            json!({
                "job_id": self.source.job, "pipeline": pipeline, "step_id": step, "depth": depth, "limit": limit,
            }),
        );
    }

    fn triggers(&mut self, event: &Event, emitted: &Value, batch: &mut Batch<'_>) {
        let entries = self.pipelines().started_by(&event.kind);
        if entries.is_empty() {
            return;
        }
        // One instance per pipeline, however many entries it has; none where it is not to start.
        let mut instances: HashMap<PipelineIx, Option<Instance>> = HashMap::new();
        let mut drafts: Vec<(PipelineIx, Draft)> = Vec::new();
        for entry in entries {
            let pipeline = self.pipelines().at(entry.pipeline);
            let instance = instances.entry(entry.pipeline).or_insert_with(|| self.admits(pipeline, event, emitted));
            let Some(instance) = instance else { continue };
            let mut reached = Vec::new();
            walk::enter(self.pipelines(), pipeline, pipeline.node_at(entry.node), &[], &mut reached);
            let readable = self.source.context.is_some().then_some(&self.accumulated);
            let base = instance.base(readable);
            let built: Result<Vec<_>, _> =
                reached.iter().map(|arrival| batch.draft(arrival, &base).map_err(|error| (arrival, error))).collect();
            match built {
                Ok(built) => drafts.extend(built.into_iter().map(|draft| (entry.pipeline, draft))),
                Err((arrival, error)) => {
                    self.not_started(pipeline, arrival, event, &error);
                    instances.insert(entry.pipeline, None);
                }
            }
        }
        drafts.retain(|(pipeline, _)| instances.get(pipeline).is_some_and(Option::is_some));
        // Only now: what was dropped must not have used up the id of the event.
        self.routed.successors.extend(drafts.into_iter().map(|(_, draft)| batch.admit(draft)));
    }

    /// The instance that an event begins of a pipeline, if it begins one.
    fn admits(&mut self, pipeline: &Pipeline, event: &Event, emitted: &Value) -> Option<Instance> {
        if pipeline.from_plugin.as_deref().is_some_and(|wanted| wanted != self.source.plugin) {
            return None;
        }
        if let Some(condition) = &pipeline.condition
            && !self.holds(condition, pipeline, event, emitted)
        {
            return None;
        }
        let hops = self.control.hops + 1;
        // A pipeline without a cap asks for no guard.
        if hops > HOP_LIMIT && pipeline.max_depth != 0 {
            self.too_many_hops(&pipeline.name, event, hops);
            return None;
        }
        Some(Instance::begin(pipeline, hops))
    }

    fn holds(&self, condition: &Condition, pipeline: &Pipeline, event: &Event, emitted: &Value) -> bool {
        let context = self.source.context.is_some().then_some(&self.accumulated);
        let scope = Scope { payload: Some(emitted), context, config: None };
        match condition.holds(&scope) {
            Ok(holds) => {
                if !holds {
                    debug!(
                        pipeline = &*pipeline.name,
                        event_type = event.kind,
                        "a pipeline is not started: its condition is false"
                    );
                }
                holds
            }
            Err(error) => {
                let entry = pipeline.entries().first().map_or("", |entry| &pipeline.node_at(*entry).id);
                warn!(
                    route = format!("entry:{entry}"), pipeline = &*pipeline.name, event_type = event.kind, %error,
                    "a pipeline is not started: its condition can not be evaluated"
                );
                false
            }
        }
    }

    fn not_started(&mut self, pipeline: &Pipeline, arrival: &Arrival<'_>, event: &Event, error: &BaggageError) {
        let (pipeline, step) = (&*pipeline.name, &*arrival.node.id);
        error!(job_id = %self.source.job, pipeline, step, event_type = event.kind, %error, "a pipeline could not be started");
        self.tell(
            "router.trigger_failed",
            json!({
                "job_id": self.source.job, "pipeline": pipeline, "step_id": step, "event_type": event.kind,
                "error": error.to_string(),
            }),
        );
    }

    fn older_routes(&mut self, event: &Event, batch: &mut Batch<'_>) {
        for plugin in self.pipelines().routes(self.source.plugin, &event.kind) {
            let hops = self.control.hops + 1;
            if hops > HOP_LIMIT {
                self.too_many_hops("", event, hops);
                continue;
            }
            // Its context holds nothing but a number.
            if let Ok(successor) = batch.route(plugin, &Control::of_route(hops)) {
                self.routed.successors.push(successor);
            }
        }
    }

    fn too_many_hops(&mut self, pipeline: &str, event: &Event, hops: u64) {
        error!(
            job_id = %self.source.job, pipeline, event_type = event.kind, hop_count = hops, limit = HOP_LIMIT,
            "a pipeline is not started: too many of them have started each other"
        );
        self.tell(
            "router.hop_limit",
            json!({
                "job_id": self.source.job, "pipeline": pipeline, "event_type": event.kind, "hop_count": hops,
            }),
        );
    }

    fn tell(&mut self, kind: &'static str, data: Value) {
        if let Value::Object(data) = data {
            let told: Told = (kind, data);
            self.routed.told.push(told);
        }
    }
}

/// What starts a pipeline, as a word.
pub(crate) fn trigger_word(pipeline: &Pipeline) -> &str {
    match &pipeline.trigger {
        Trigger::Event(kind) => kind,
        Trigger::Hook(signal) => signal.as_str(),
    }
}

//! A job of a step, with the context it carries.

use std::collections::HashSet;
use std::sync::Arc;

use ductile_config::{DEFAULT_COMMAND as HANDLE, RELAY_PLUGIN, SWITCH_PLUGIN, Scope};
use ductile_model::{JobId, Producer, new_id};
use ductile_queue::{NewContext, NewJob, Successor};
use serde_json::{Map, Value};

use crate::Router;
use crate::baggage::{self, BaggageError};
use crate::event::Event;
use crate::instance::Control;
use crate::walk::Arrival;

/// What a new context grows from.
pub(crate) struct Base<'a> {
    /// Row above it.
    pub(crate) parent: String,
    /// The root row, when it is to be written too.
    pub(crate) root: Option<Arc<NewContext>>,
    /// Baggage that it inherits.
    pub(crate) inherited: &'a Map<String, Value>,
    /// What claims read as `context`.
    pub(crate) readable: Option<&'a Value>,
    /// Control object of the row above.
    pub(crate) control: &'a Control,
}

/// Who makes the jobs of an event.
#[derive(Clone)]
pub(crate) struct Maker<'a> {
    pub(crate) submitted_by: Producer,
    pub(crate) parent_job: Option<&'a JobId>,
}

/// The jobs that one event makes. One event makes at most one job under its own id for a target; further ones are told
/// apart by the step.
pub(crate) struct Batch<'a> {
    router: &'a Router,
    event: &'a Event,
    /// The payload of all its jobs.
    payload: &'a Value,
    maker: Maker<'a>,
    targets: HashSet<(String, String)>,
    ids: HashSet<String>,
}

/// A job that may still be dropped.
pub(crate) struct Draft(Successor);

impl<'a> Batch<'a> {
    pub(crate) fn new(router: &'a Router, event: &'a Event, payload: &'a Value, maker: Maker<'a>) -> Self {
        Self { router, event, payload, maker, targets: HashSet::new(), ids: HashSet::new() }
    }

    /// The job of a step, with its context.
    pub(crate) fn step(&mut self, arrival: &Arrival<'_>, base: &Base<'_>) -> Result<Successor, BaggageError> {
        self.draft(arrival, base).map(|draft| self.admit(draft))
    }

    /// The job of a step that may still be dropped: it takes no id from others until it is admitted.
    pub(crate) fn draft(&self, arrival: &Arrival<'_>, base: &Base<'_>) -> Result<Draft, BaggageError> {
        let Arrival { pipeline, node, plugin, command, calls } = arrival;
        let claims = self.claims(arrival, base)?;
        let mut accumulated = base.inherited.clone();
        accumulated.shift_remove(baggage::CONTROL);
        baggage::accrete(&mut accumulated, claims, |path| node.claims.written(path).to_owned())?;
        let context = NewContext {
            id: new_id(),
            parent_id: Some(base.parent.clone()),
            pipeline: pipeline.name.to_string(),
            step_id: node.id.to_string(),
            accumulated: baggage::text(accumulated, base.control.next(calls.clone()).write())?,
        };
        Ok(self.successor(plugin, command, base.root.clone(), context))
    }

    fn claims(&self, arrival: &Arrival<'_>, base: &Base<'_>) -> Result<Map<String, Value>, BaggageError> {
        let claims = &arrival.node.claims;
        if claims.is_empty() {
            return Ok(Map::new());
        }
        let scope = Scope { payload: Some(self.payload), context: base.readable, config: None };
        claims.collect(&scope).map_err(|cause| BaggageError::Claim {
            pipeline: arrival.pipeline.name.to_string(),
            step: arrival.node.id.to_string(),
            cause: cause.to_string(),
        })
    }

    /// The job of an older route.
    pub(crate) fn route(&mut self, plugin: &str, control: &Control) -> Result<Successor, BaggageError> {
        let context = NewContext {
            id: new_id(),
            parent_id: None,
            pipeline: String::new(),
            step_id: String::new(),
            accumulated: baggage::text(Map::new(), control.write())?,
        };
        let draft = self.successor(plugin, HANDLE, None, context);
        Ok(self.admit(draft))
    }

    /// Makes a draft a job, under an id that no other has.
    pub(crate) fn admit(&mut self, Draft(mut successor): Draft) -> Successor {
        let id = self.source_event(&successor.job.plugin, &successor.job.command, &successor.context);
        successor.job.source_event_id = Some(id);
        successor
    }

    fn successor(&self, plugin: &str, command: &str, root: Option<Arc<NewContext>>, context: NewContext) -> Draft {
        let is_built_in = plugin == SWITCH_PLUGIN || plugin == RELAY_PLUGIN;
        let job = NewJob {
            plugin: plugin.to_owned(),
            command: command.to_owned(),
            payload: Some(self.event.stored(self.payload, command)),
            submitted_by: self.maker.submitted_by.clone(),
            max_attempts: self.router.attempts(plugin),
            dedupe_key: if is_built_in { None } else { self.event.dedupe_key.clone() },
            dedupe_ttl: None,
            parent_job_id: self.maker.parent_job.cloned(),
            event_id: Some(self.event.event_id.clone()),
            source_event_id: None,
            event_context_id: Some(context.id.clone()),
            direct: false,
        };
        Draft(Successor { job, root, context })
    }

    fn source_event(&mut self, plugin: &str, command: &str, context: &NewContext) -> String {
        let event = &self.event.event_id;
        if self.targets.insert((plugin.to_owned(), command.to_owned())) {
            self.ids.insert(event.clone());
            return event.clone();
        }
        let named = format!("{event}/{}/{}", context.pipeline, context.step_id);
        let mut id = named.clone();
        let mut further = 1;
        // The same step twice: a pipeline that is called in two places.
        while !self.ids.insert(id.clone()) {
            further += 1;
            id = format!("{named}/{further}");
        }
        id
    }
}

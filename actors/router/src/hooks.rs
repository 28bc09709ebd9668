//! Hooks: pipelines that the end of a job starts.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_config::{Pipeline, Scope, Signal};
use ductile_model::{Clock, JobStatus, Producer};
use ductile_queue::{EndOrigin, Ended, Hooks, Routed, Successor};
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::{debug, warn};

use crate::Router;
use crate::baggage::BaggageError;
use crate::build::{Batch, Maker};
use crate::event::Event;
use crate::start::Instance;
use crate::walk;

/// The hooks of a plan.
pub struct PlanHooks {
    router: Router,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for PlanHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlanHooks")
    }
}

impl PlanHooks {
    /// Those of a router's plan.
    #[must_use]
    pub fn new(router: Router, clock: Arc<dyn Clock>) -> Self {
        Self { router, clock }
    }

    /// Whether the ends of jobs of a plugin raise anything.
    #[must_use]
    pub fn concern(&self, plugin: &str) -> bool {
        let config = self.router.plan.config.plugins.get(plugin);
        config.is_some_and(|config| config.notify_on_complete) && self.has_any()
    }

    fn has_any(&self) -> bool {
        let pipelines = &self.router.plan.pipelines;
        Signal::ALL.into_iter().any(|signal| !pipelines.hooked_on(signal).is_empty())
    }

    /// How deep the hooks of this job are: one more than that of the hook that began it.
    fn depth(&self, ended: &Ended<'_>, signal: Signal) -> Option<u64> {
        let before = match ended.origin {
            EndOrigin::Root => 0,
            EndOrigin::Step => return None,
            EndOrigin::Hook(context) => {
                let Some(depth) = context.and_then(depth_of) else {
                    warn!(
                        job_id = %ended.job, signal = signal.as_str(),
                        "no hook is raised: the context of the job is gone, or does not tell how many hooks came before"
                    );
                    return None;
                };
                depth
            }
        };
        let (depth, cap) = (before + 1, u64::from(self.router.plan.config.service.hook_max_depth));
        if depth > cap {
            warn!(
                job_id = %ended.job, signal = signal.as_str(), depth, cap,
                "no hook is raised: hooks have raised each other too often"
            );
            return None;
        }
        Some(depth)
    }

    fn raise(&self, signal: Signal, ended: &Ended<'_>, said: &Said<'_>, now: DateTime<Utc>, routed: &mut Routed) {
        let pipelines = &self.router.plan.pipelines;
        let entries = pipelines.hooked_on(signal);
        if entries.is_empty() {
            return;
        }
        let Some(depth) = self.depth(ended, signal) else { return };
        let event = Event::from_outside(signal.as_str(), payload(ended, said), ended.plugin, now);
        let payload = Value::Object(event.payload.clone());
        let mut started: Vec<ductile_config::PipelineIx> = Vec::new();
        for entry in entries.iter().map(|entry| entry.pipeline) {
            let pipeline = pipelines.at(entry);
            if started.contains(&entry) || !admits(pipeline, ended, &payload) {
                continue;
            }
            started.push(entry);
            match self.instance(pipeline, depth, &event, &payload, ended) {
                Ok(successors) => routed.successors.extend(successors),
                Err(error) => {
                    warn!(job_id = %ended.job, pipeline = &*pipeline.name, signal = signal.as_str(), %error, "a hook could not be started");
                }
            }
        }
    }

    fn instance(
        &self,
        pipeline: &Pipeline,
        depth: u64,
        event: &Event,
        payload: &Value,
        ended: &Ended<'_>,
    ) -> Result<Vec<Successor>, BaggageError> {
        let instance = Instance::of_hook(pipeline, depth);
        let maker = Maker { submitted_by: Producer::Hook, parent_job: Some(ended.job) };
        // Each instance has an event of its own, so that two hooks of one plugin are not taken for one.
        let event = Event { event_id: ductile_model::new_id(), ..event.clone() };
        let mut batch = Batch::new(&self.router, &event, payload, maker);
        let reached = walk::entries(&self.router.plan.pipelines, pipeline);
        reached.iter().map(|arrival| batch.step(arrival, &instance.base(None))).collect()
    }
}

impl Hooks for PlanHooks {
    fn raised_by(&self, ended: &Ended<'_>) -> Routed {
        let mut routed = Routed::default();
        if !self.concern(ended.plugin) {
            return routed;
        }
        let specific = match ended.status {
            JobStatus::Succeeded => Signal::Completed,
            JobStatus::Failed | JobStatus::Dead => Signal::Failed,
            JobStatus::TimedOut => Signal::TimedOut,
            JobStatus::Queued | JobStatus::Running | JobStatus::Skipped => return routed,
        };
        let said = Said::of(ended.result);
        let now = self.clock.now();
        for signal in [specific, Signal::Finished] {
            self.raise(signal, ended, &said, now, &mut routed);
        }
        routed
    }
}

fn admits(pipeline: &Pipeline, ended: &Ended<'_>, payload: &Value) -> bool {
    if pipeline.from_plugin.as_deref().is_some_and(|wanted| wanted != ended.plugin) {
        return false;
    }
    let Some(condition) = &pipeline.condition else { return true };
    let scope = Scope { payload: Some(payload), context: None, config: None };
    condition.holds(&scope).unwrap_or_else(|error| {
        warn!(job_id = %ended.job, pipeline = &*pipeline.name, %error, "a hook is not started: its condition can not be evaluated");
        false
    })
}

fn payload(ended: &Ended<'_>, said: &Said<'_>) -> Map<String, Value> {
    let mut payload = Map::new();
    let mut put = |key: &str, value: Value| drop(payload.insert(key.to_owned(), value));
    put("job_id", ended.job.as_str().into());
    put("plugin", ended.plugin.into());
    put("command", ended.command.into());
    put("status", ended.status.as_str().into());
    put("attempt", ended.attempt.into());
    put("max_attempts", ended.max_attempts.into());
    put("duration_ms", u64::try_from(ended.duration.as_millis()).unwrap_or(u64::MAX).into());
    let plugin = ended.plugin;
    let error = ended.error.unwrap_or_default();
    let message = match ended.status {
        JobStatus::Succeeded => {
            let result = said.result();
            let message = format!("Job completed [{plugin}]: {result}");
            put("result", result.into());
            message
        }
        JobStatus::TimedOut => format!("Job timed out [{plugin}]"),
        _ => format!("Job failed [{plugin}]: {error}"),
    };
    if ended.status != JobStatus::Succeeded {
        put("error", error.into());
        put("reason", ended.reason.map_or("", |reason| reason.as_str()).into());
    }
    put("message", message.as_str().into());
    put("text", message.into());
    if ended.is_recovery {
        put("recovery", true.into());
    }
    debug!(job_id = %ended.job, plugin, status = ended.status.as_str(), "the end of a job raises a signal");
    payload
}

/// How many hooks came before a job, as its accumulated context tells.
fn depth_of(context: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Accumulated {
        ductile: Depth,
    }
    #[derive(Deserialize)]
    struct Depth {
        hook_depth: u64,
    }
    let accumulated: Accumulated = serde_json::from_str(context).ok()?;
    Some(accumulated.ductile.hook_depth)
}

/// What the plugin said about its result. An answer may be large, so it is read when somebody asks, and only once.
struct Said<'a> {
    answer: Option<&'a str>,
    result: OnceCell<Cow<'a, str>>,
}

impl<'a> Said<'a> {
    fn of(answer: Option<&'a str>) -> Self {
        Self { answer, result: OnceCell::new() }
    }

    fn result(&self) -> &str {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            result: Option<Cow<'a, str>>,
        }
        self.result.get_or_init(|| {
            let answer = self.answer.and_then(|text| serde_json::from_str::<Answer<'a>>(text).ok());
            answer.and_then(|answer| answer.result).unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_does_not_tell_its_depth_has_none() {
        assert_eq!(depth_of(r#"{"web": {"url": "u"}, "ductile": {"hop_count": 1, "hook_depth": 2}}"#), Some(2));
        for context in ["", "{", "{}", "[]", r#"{"ductile": {"hop_count": 1}}"#, r#"{"ductile": {"hook_depth": "2"}}"#]
        {
            assert_eq!(depth_of(context), None, "{context}");
        }
    }

    #[test]
    fn only_a_text_is_a_result() {
        let said = |answer| Said::of(answer).result().to_owned();
        assert_eq!(said(Some(r#"{"status": "ok", "result": "a \"b\"", "logs": [{"x": [1]}]}"#)), "a \"b\"");
        for answer in [None, Some("nonsense"), Some("{}"), Some(r#"{"result": null}"#), Some(r#"{"result": 1}"#)] {
            assert_eq!(said(answer), "");
        }
    }
}

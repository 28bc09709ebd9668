//! What the pipelines of a generation mean for an attempt.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_config::Plan;
use ductile_model::Clock;
use ductile_queue::{Hooks, JobContext, Routed};
use ductile_router::{
    Emitted, Event, PlanHooks, RouteError, Router, Source, Step, StepInput, SwitchError, Switched, WithError,
};
use serde_json::Value;

/// The router, as an attempt asks it.
pub(crate) trait Routing: Send + Sync + 'static {
    /// The context that the plugin of a job gets.
    fn step(&self, plugin: &str, context: &JobContext) -> Result<Step, RouteError>;

    /// Whether a step sets anything in its payload.
    fn remaps(&self, context: &JobContext) -> bool;

    /// The keys that it sets.
    fn remap(&self, context: &JobContext, step: &Step, payload: &Value) -> Result<StepInput, WithError>;

    /// What the events of a success cause.
    fn route(
        &self,
        source: &Source<'_>,
        result: Option<&str>,
        emitted: Vec<Emitted>,
        now: DateTime<Utc>,
    ) -> Result<Routed, RouteError>;

    /// What a switch decides.
    fn switch(&self, stored: Option<&str>, context: &JobContext) -> Result<Switched, SwitchError>;

    /// What its event causes.
    fn route_switch(&self, source: &Source<'_>, event: &Event) -> Result<Routed, RouteError>;

    /// What makes jobs of the final ends of a plugin's jobs.
    fn hooks(&self, plugin: &str) -> Option<Arc<dyn Hooks>>;
}

/// The routing of a plan.
pub(crate) struct PlanRouting {
    router: Router,
    hooks: Arc<PlanHooks>,
}

impl PlanRouting {
    pub(crate) fn new(plan: Arc<Plan>, clock: Arc<dyn Clock>) -> Self {
        let router = Router::new(plan);
        Self { hooks: Arc::new(PlanHooks::new(router.clone(), clock)), router }
    }
}

impl Routing for PlanRouting {
    fn step(&self, plugin: &str, context: &JobContext) -> Result<Step, RouteError> {
        self.router.step(plugin, context)
    }

    fn remaps(&self, context: &JobContext) -> bool {
        self.router.remaps(context)
    }

    fn remap(&self, context: &JobContext, step: &Step, payload: &Value) -> Result<StepInput, WithError> {
        self.router.remap(context, step, payload)
    }

    fn route(
        &self,
        source: &Source<'_>,
        result: Option<&str>,
        emitted: Vec<Emitted>,
        now: DateTime<Utc>,
    ) -> Result<Routed, RouteError> {
        self.router.route(source, result, emitted, now)
    }

    fn switch(&self, stored: Option<&str>, context: &JobContext) -> Result<Switched, SwitchError> {
        self.router.switch(stored, context)
    }

    fn route_switch(&self, source: &Source<'_>, event: &Event) -> Result<Routed, RouteError> {
        self.router.route_switch(source, event)
    }

    fn hooks(&self, plugin: &str) -> Option<Arc<dyn Hooks>> {
        if self.hooks.concern(plugin) { Some(self.hooks.clone()) } else { None }
    }
}

//! Steps that run in the gateway itself: jobs like all others, without a process.

use std::time::Duration;

use ductile_config::{RELAY_PLUGIN, SWITCH_PLUGIN};
use ductile_model::FailureReason;
use ductile_queue::{AttemptOutcome, ClaimedJob, JobContext};
use ductile_router::{Source, SwitchError};

use crate::attempt::{Deps, Failure};
use crate::conclude::{self, Conclusion};

/// Back-off of steps that no plugin configuration speaks of.
const BACKOFF: Duration = Duration::from_secs(30);

/// Runs a job that belongs to the gateway. `None`: it belongs to a plugin.
pub(crate) fn run(job: &ClaimedJob, deps: &Deps) -> Option<Result<Conclusion, Failure>> {
    match job.plugin.as_str() {
        SWITCH_PLUGIN => Some(switch(job, deps)),
        RELAY_PLUGIN => Some(Err(Failure::new(
            FailureReason::PluginUnavailable,
            "this version does not send to other gateways yet",
        ))),
        _ => None,
    }
}

fn switch(job: &ClaimedJob, deps: &Deps) -> Result<Conclusion, Failure> {
    let refused = |error: SwitchError| Failure::new(FailureReason::PreflightError, error.to_string());
    let context: &JobContext = job.context.as_ref().ok_or_else(|| refused(SwitchError::NoEvent))?;
    let switched = deps.routing.switch(job.payload.as_deref(), context).map_err(refused)?;
    let source = source(job);
    let outcome = match deps.routing.route_switch(&source, &switched.event) {
        Ok(routed) => AttemptOutcome::Succeeded { state: None, routed },
        Err(error) => conclude::not_routed(&error, BACKOFF),
    };
    Ok(Conclusion { outcome, stderr: None, result: Some(switched.result), stopwatch: None })
}

/// A job as the router sees it.
pub(crate) fn source(job: &ClaimedJob) -> Source<'_> {
    Source {
        job: &job.id,
        plugin: &job.plugin,
        context_id: job.event_context_id.as_deref(),
        context: job.context.as_ref(),
    }
}

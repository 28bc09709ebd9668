//! One attempt, step by step. Knows nothing of how its outcome is stored.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use ductile_config::{Command, Plan, Plugin, PluginConfig, Unavailable};
use ductile_model::{AskError, Clock, EventHub, FailureReason, Secret};
use ductile_queue::{ClaimedJob, Finalise};
use ductile_router::Step;
use ductile_vault::{Composed, Denied, VaultHandle};
use serde_json::value::RawValue;

use crate::builtin;
use crate::conclude::{self, Conclusion, Terms, Timing, conclude};
use crate::control::Control;
use crate::environment::BaseEnvironment;
use crate::events::{self, JobLabel, Preflight};
use crate::process::{self, Launch, Ran, STDERR_CAP};
use crate::redact::Guard;
use crate::request::{Context, Input, Request};
use crate::routing::Routing;

/// Base of the back-off for a plugin that is not configured.
const DEFAULT_BACKOFF: Duration = Duration::from_secs(30);

/// What can be run, and how.
pub(crate) trait Catalogue: Send + Sync + 'static {
    /// The plugin, its configuration and its command.
    fn runnable(&self, plugin: &str, command: &str) -> Result<(&Arc<Plugin>, &PluginConfig, &Command), Unavailable>;

    /// Base of the back-off of a plugin, also of one that can not run.
    fn backoff_base(&self, plugin: &str) -> Duration;
}

impl Catalogue for Plan {
    fn runnable(&self, plugin: &str, command: &str) -> Result<(&Arc<Plugin>, &PluginConfig, &Command), Unavailable> {
        Plan::runnable(self, plugin, command)
    }

    fn backoff_base(&self, plugin: &str) -> Duration {
        self.config.plugins.get(plugin).map_or(DEFAULT_BACKOFF, |plugin| plugin.retry.backoff_base)
    }
}

/// Where secrets come from.
pub(crate) trait Secrets: Send + Sync + 'static {
    /// The secrets of a principal. Outer error: nobody answers. Inner error: the job must fail.
    fn compose<'a>(&'a self, principal: &'a str, requires_vault: bool) -> Composing<'a>;
}

/// Secrets on their way.
pub(crate) type Composing<'a> = Pin<Box<dyn Future<Output = Result<Result<Composed, Denied>, AskError>> + Send + 'a>>;

impl Secrets for VaultHandle {
    fn compose<'a>(&'a self, principal: &'a str, requires_vault: bool) -> Composing<'a> {
        Box::pin(VaultHandle::compose(self, principal, requires_vault))
    }
}

/// What every attempt of a generation works with.
pub(crate) struct Deps {
    pub(crate) catalogue: Arc<dyn Catalogue>,
    /// Name of the service: how the scheduler signs its jobs.
    pub(crate) service: String,
    pub(crate) environment: BaseEnvironment,
    pub(crate) vault: Arc<dyn Secrets>,
    pub(crate) routing: Arc<dyn Routing>,
    pub(crate) hub: EventHub,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Why there is no process.
pub(crate) struct Failure {
    reason: FailureReason,
    error: String,
}

impl Failure {
    pub(crate) fn new(reason: FailureReason, error: impl Into<String>) -> Self {
        Self { reason, error: error.into() }
    }
}

/// Runs one attempt to its outcome. Blocks while its process runs: for a thread of its own.
pub(crate) async fn run(job: &ClaimedJob, deps: &Deps, control: &Arc<Control>) -> Finalise {
    let begun = Instant::now();
    let conclusion = if control.is_ordered() {
        // Given up before anything was done for it: nothing begins, and nobody hears of a beginning.
        conclude::withheld()
    } else {
        begin(job, deps, control, begun).await
    };
    Finalise {
        job: job.id.clone(),
        attempt: job.attempt,
        completed_at: deps.clock.now(),
        outcome: conclusion.outcome,
        stderr: conclusion.stderr,
        result: conclusion.result,
        duration: begun.elapsed(),
        spawned: control.has_spawned(),
        stopwatch: conclusion.stopwatch,
        hooks: deps.routing.hooks(&job.plugin),
    }
}

async fn begin(job: &ClaimedJob, deps: &Deps, control: &Arc<Control>, begun: Instant) -> Conclusion {
    let label = JobLabel::of(job);
    deps.hub.publish("job.started", events::job_started(&label, job));
    if job.submitted_by == deps.service && job.command == "poll" {
        deps.hub.publish("poll.started", events::poll_started(&label, job));
    }
    match attempt(job, &label, deps, control, begun).await {
        Ok(conclusion) => conclusion,
        Err(Failure { reason, error }) => conclude::failed(reason, error, deps.catalogue.backoff_base(&job.plugin)),
    }
}

async fn attempt(
    job: &ClaimedJob,
    label: &JobLabel,
    deps: &Deps,
    control: &Arc<Control>,
    begun: Instant,
) -> Result<Conclusion, Failure> {
    let Prepared { mut input, context } = preflight(job, label, deps)?;
    if let Some(concluded) = builtin::run(job, deps) {
        return concluded;
    }
    let (plugin, config, _) = deps
        .catalogue
        .runnable(&job.plugin, &job.command)
        .map_err(|error| Failure::new(FailureReason::PluginUnavailable, error.to_string()))?;
    check_state(job)?;
    remap(job, deps, &mut input, &context)?;
    let secrets = compose(job, config, &*deps.vault).await?;
    let guard = Guard::new(secrets.as_deref().unwrap_or_default());
    let limit = config.timeouts.of(&job.command);
    // Both clocks are read here: the instant that the plugin is told is the one that is enforced.
    let (deadline, deadline_at) = (Instant::now() + limit, deps.clock.now() + delta(limit));
    let request =
        Request { job, input: &input, config, context: &context.given, secrets: secrets.as_deref(), deadline_at };
    let launch = Launch {
        job: job.id.clone(),
        program: plugin.entrypoint.clone(),
        environment: input.environment(&deps.environment, job, &context.given),
        request: request.line(),
        deadline,
        stderr_cap: STDERR_CAP + guard.longest(),
    };
    drop(secrets);
    let backoff_base = config.retry.backoff_base;
    let work = Work {
        label: label.clone(),
        plugin: plugin.clone(),
        hub: deps.hub.clone(),
        control: control.clone(),
        guard,
        limit,
        backoff_base,
        job,
        routing: deps.routing.clone(),
        begun,
        clock: deps.clock.clone(),
    };
    control.engage();
    // Blocks, on the attempt's own thread.
    Ok(work.run(launch))
}

/// What is known of a job before anything is done for it.
struct Prepared<'a> {
    input: Input<'a>,
    context: StepContext,
}

/// What the plugin gets as context, and the step that it comes from.
struct StepContext {
    given: Context,
    step: Option<Step>,
}

fn prepare<'a>(job: &'a ClaimedJob, deps: &Deps) -> Result<Prepared<'a>, String> {
    let input = Input::read(job)?;
    let context = match (&job.context, &job.event_context_id) {
        (Some(context), _) => {
            let step = deps.routing.step(&job.plugin, context).map_err(|error| error.to_string())?;
            StepContext { given: Context::of_step(&step), step: Some(step) }
        }
        (None, Some(id)) => return Err(format!("context {id} is not in the database")),
        (None, None) => StepContext { given: Context::of_root_job(&job.plugin), step: None },
    };
    Ok(Prepared { input, context })
}

/// Applies what the step sets in its payload, over what the payload and the context hold.
fn remap(job: &ClaimedJob, deps: &Deps, input: &mut Input<'_>, context: &StepContext) -> Result<(), Failure> {
    let (Some(step), Some(stored)) = (&context.step, &job.context) else { return Ok(()) };
    if !deps.routing.remaps(stored) {
        return Ok(());
    }
    let payload = input.merged_payload(&context.given);
    let set = deps.routing.remap(stored, step, &payload);
    input.set(set.map_err(|error| Failure::new(FailureReason::PreflightError, error.to_string()))?);
    Ok(())
}

fn preflight<'a>(job: &'a ClaimedJob, label: &JobLabel, deps: &Deps) -> Result<Prepared<'a>, Failure> {
    let input = prepare(job, deps);
    let preflight = match &input {
        Ok(_) => Preflight::Run,
        Err(error) => Preflight::Fail(error),
    };
    deps.hub.publish("job.preflight", events::job_preflight(label, preflight));
    input.map_err(|error| Failure::new(FailureReason::PreflightError, error))
}

/// The plugin's memory is handed out only as what it must be; it is never silently reset.
fn check_state(job: &ClaimedJob) -> Result<(), Failure> {
    let Some(state) = job.state.as_deref() else { return Ok(()) };
    let is_json = serde_json::from_str::<&RawValue>(state).is_ok();
    if is_json && crate::json::is_object(state) {
        return Ok(());
    }
    let text = format!("state of plugin {:?} in table plugin_state is not a JSON object", job.plugin);
    Err(Failure::new(FailureReason::PreflightError, text))
}

async fn compose(
    job: &ClaimedJob,
    config: &PluginConfig,
    vault: &dyn Secrets,
) -> Result<Option<Vec<(String, Secret)>>, Failure> {
    let principal = config.vault_principal.as_deref().unwrap_or(&job.plugin);
    match vault.compose(principal, config.requires_vault).await {
        Ok(Ok(Composed::NotAPrincipal)) => Ok(None),
        Ok(Ok(Composed::Secrets(secrets))) => Ok(Some(secrets)),
        Ok(Err(denied)) => Err(Failure::new(FailureReason::SecretDenied, denied.to_string())),
        Err(_) => Err(Failure::new(
            FailureReason::VaultUnavailable,
            "the vault is being restarted and did not answer in time",
        )),
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// What serving the process needs.
struct Work<'a> {
    label: JobLabel,
    plugin: Arc<Plugin>,
    hub: EventHub,
    control: Arc<Control>,
    guard: Guard,
    limit: Duration,
    backoff_base: Duration,
    /// Lent: payload, state and context may be large.
    job: &'a ClaimedJob,
    routing: Arc<dyn Routing>,
    begun: Instant,
    clock: Arc<dyn Clock>,
}

impl Work<'_> {
    fn run(self, launch: Launch) -> Conclusion {
        let _engagement = self.control.engagement();
        match process::run(launch, &self.control, &mut |pid| self.tell_spawned(pid)) {
            Ran::Ended(seen) => {
                let Self { label, plugin, hub, guard, limit, backoff_base, .. } = &self;
                let (manifest, limit, backoff_base) = (&plugin.manifest, *limit, *backoff_base);
                let timing =
                    Timing { begun: self.begun, began: seen.began, exited: seen.exited, now: self.clock.now() };
                let (job, routing) = (self.job, &*self.routing);
                conclude(seen, &Terms { label, manifest, limit, backoff_base, guard, hub, timing, job, routing })
            }
            Ran::NotStarted(error) => conclude::failed(FailureReason::SpawnError, error, self.backoff_base),
            Ran::Withheld => conclude::withheld(),
        }
    }

    fn tell_spawned(&self, pid: u32) {
        let JobLabel { job_id, plugin, command, attempt } = &self.label;
        tracing::info!(job_id = %job_id, plugin, command, attempt, pid, "plugin spawned");
        self.hub.publish("plugin.spawned", events::plugin_spawned(&self.label, pid));
    }
}

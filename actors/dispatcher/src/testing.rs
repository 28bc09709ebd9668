//! What the tests of this crate share: claimed jobs, plugins made of a script, a vault that answers as told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_config::{
    CircuitBreaker, Command, CommandType, FactRule, Manifest, Plugin, PluginConfig, Retry, Timeouts, Unavailable,
};
use ductile_model::{AskError, Cancellation, Clock, EventHub, EventRecord, JobId, Secret, SystemClock};
use ductile_queue::{AttemptOutcome, ClaimedJob, Finalise, Hooks, JobContext, Routed};
use ductile_router::{Emitted, Event, RouteError, Source, Step, StepInput, SwitchError, Switched, WithError};
use ductile_vault::{Composed, Denied};
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;

use crate::attempt::{self, Catalogue, Composing, Deps, Secrets};
use crate::control::Control;
use crate::environment::BaseEnvironment;
use crate::routing::Routing;

pub(crate) const BACKOFF: Duration = Duration::from_secs(7);

/// The first attempt of a job.
pub(crate) fn claimed(plugin: &str, command: &str, payload: Option<&str>) -> ClaimedJob {
    ClaimedJob {
        id: JobId::generate(),
        plugin: plugin.to_owned(),
        command: command.to_owned(),
        payload: payload.map(str::to_owned),
        attempt: 1,
        max_attempts: 4,
        submitted_by: "api".to_owned(),
        dedupe_key: None,
        created_at: Utc::now(),
        started_at: Utc::now(),
        parent_job_id: None,
        event_context_id: None,
        state: None,
        context: None,
        cancellation: Cancellation::default(),
    }
}

/// Defaults with this `config`.
pub(crate) fn plugin_config(config: &str) -> PluginConfig {
    PluginConfig {
        enabled: true,
        uses: None,
        run_as: None,
        vault_principal: None,
        requires_vault: false,
        config: Arc::from(RawValue::from_string(config.to_owned()).unwrap()),
        retry: Retry { max_attempts: 4, backoff_base: BACKOFF },
        timeouts: Timeouts(BTreeMap::new()),
        circuit_breaker: CircuitBreaker { threshold: 3, reset_after: Duration::from_secs(60) },
        max_outstanding_polls: 1,
        parallelism: None,
        notify_on_complete: false,
    }
}

/// What the vault answers.
#[derive(Clone)]
pub(crate) enum Answers {
    NotAPrincipal,
    Secrets(Vec<(&'static str, &'static str)>),
    Denied(&'static str),
}

/// Answers as told; `None`: nobody answers.
struct FakeVault(Option<Answers>);

impl Secrets for FakeVault {
    fn compose<'a>(&'a self, _: &'a str, _: bool) -> Composing<'a> {
        let answer = match &self.0 {
            None => Err(AskError::Unavailable),
            Some(Answers::NotAPrincipal) => Ok(Ok(Composed::NotAPrincipal)),
            Some(Answers::Secrets(secrets)) => Ok(Ok(Composed::Secrets(
                secrets.iter().map(|(k, v)| ((*k).to_owned(), Secret::new((*v).to_owned()))).collect(),
            ))),
            Some(Answers::Denied(reason)) => Ok(Err(Denied((*reason).to_owned()))),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// No pipelines at all.
pub(crate) struct NoPipelines;

impl Routing for NoPipelines {
    fn step(&self, _: &str, context: &JobContext) -> Result<Step, RouteError> {
        Err(RouteError::Gone { pipeline: context.pipeline.clone(), step: context.step_id.clone() })
    }

    fn remaps(&self, _: &JobContext) -> bool {
        false
    }

    fn remap(&self, _: &JobContext, _: &Step, _: &Value) -> Result<StepInput, WithError> {
        Ok(Vec::new())
    }

    fn route(&self, _: &Source<'_>, _: Option<&str>, _: Vec<Emitted>, _: DateTime<Utc>) -> Result<Routed, RouteError> {
        Ok(Routed::default())
    }

    fn switch(&self, _: Option<&str>, _: &JobContext) -> Result<Switched, SwitchError> {
        Err(SwitchError::NoEvent)
    }

    fn route_switch(&self, _: &Source<'_>, _: &Event) -> Result<Routed, RouteError> {
        Ok(Routed::default())
    }

    fn hooks(&self, _: &str) -> Option<Arc<dyn Hooks>> {
        None
    }
}

/// A plugin `p` that is one script, and everything to run it.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) config: PluginConfig,
    pub(crate) fact_outputs: Vec<FactRule>,
    pub(crate) vault: Option<Answers>,
    pub(crate) hub: EventHub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) passthrough: Vec<String>,
    pub(crate) entrypoint: PathBuf,
}

impl Site {
    /// A plugin in `sh`. `$SITE` is its directory.
    pub(crate) fn sh(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("#!/bin/sh\nSITE='{}'\n{script}\n", dir.path().display());
        Self::new(dir, &text)
    }

    /// A plugin in Python.
    pub(crate) fn python(script: &str) -> Self {
        Self::new(tempfile::tempdir().unwrap(), &format!("#!/usr/bin/env python3\n{script}\n"))
    }

    pub(crate) fn new(dir: TempDir, text: &str) -> Self {
        let entrypoint = dir.path().join("run");
        fs::write(&entrypoint, text).unwrap();
        fs::set_permissions(&entrypoint, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            dir,
            config: plugin_config("{}"),
            fact_outputs: Vec::new(),
            vault: Some(Answers::NotAPrincipal),
            hub: EventHub::new(Arc::new(SystemClock)),
            clock: Arc::new(SystemClock),
            passthrough: Vec::new(),
            entrypoint,
        }
    }

    pub(crate) fn timeout(mut self, limit: Duration) -> Self {
        self.config.timeouts.0.insert("poll".to_owned(), limit);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) async fn deps(&self) -> Deps {
        let vars = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("SECRET", "leak".into()),
            (crate::procs::JOB_VARIABLE, "outer".into()),
        ];
        let vars = vars.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Deps {
            catalogue: Arc::new(self.catalogue()),
            service: "ductile".to_owned(),
            environment: BaseEnvironment::new(&vars, &self.passthrough),
            vault: Arc::new(FakeVault(self.vault.clone())),
            routing: Arc::new(NoPipelines),
            hub: self.hub.clone(),
            clock: self.clock.clone(),
        }
    }

    fn catalogue(&self) -> OnePlugin {
        let commands = ["poll", "handle", "health"].map(|name| Command {
            name: name.to_owned(),
            kind: CommandType::Write,
            description: None,
            idempotent: None,
            retry_safe: None,
            input_schema: None,
            output_schema: None,
            emits: Vec::new(),
        });
        let manifest = Manifest {
            name: "p".to_owned(),
            version: "1".to_owned(),
            description: None,
            concurrency_safe: true,
            commands: commands.to_vec(),
            fact_outputs: self.fact_outputs.clone(),
            required_config_keys: Vec::new(),
            stopwatch_max_subs: 32,
            path: self.path("manifest.yaml"),
            bytes: Arc::from([]),
        };
        let plugin = Plugin {
            name: "p".to_owned(),
            uses: None,
            manifest: Arc::new(manifest),
            dir: self.dir.path().to_owned(),
            entrypoint: self.entrypoint.clone(),
        };
        OnePlugin { plugin: Arc::new(plugin), config: self.config.clone() }
    }

    /// Runs a job to its outcome, within a minute: far beyond what any of them needs, far below what is wrong.
    pub(crate) async fn run(&self, job: &ClaimedJob) -> Finalise {
        let deps = self.deps().await;
        let control = Arc::new(Control::default());
        tokio::time::timeout(Duration::from_secs(60), attempt::run(job, &deps, &control)).await.expect("attempt hangs")
    }

    /// Runs `poll` with this payload.
    pub(crate) async fn poll(&self, payload: Option<&str>) -> Finalise {
        self.run(&claimed("p", "poll", payload)).await
    }

    /// All events so far.
    pub(crate) fn events(&self) -> Vec<EventRecord> {
        self.hub.subscribe(0).backlog
    }
}

struct OnePlugin {
    plugin: Arc<Plugin>,
    config: PluginConfig,
}

impl Catalogue for OnePlugin {
    fn runnable(&self, plugin: &str, command: &str) -> Result<(&Arc<Plugin>, &PluginConfig, &Command), Unavailable> {
        if plugin == "panics" {
            panic!("catalogue is broken");
        }
        if plugin != "p" {
            return Err(Unavailable::NotFound(plugin.to_owned()));
        }
        let no_command = || Unavailable::NoCommand { plugin: plugin.to_owned(), command: command.to_owned() };
        let command = self.plugin.manifest.command(command).ok_or_else(no_command)?;
        Ok((&self.plugin, &self.config, command))
    }

    fn backoff_base(&self, _: &str) -> Duration {
        BACKOFF
    }
}

/// Class and text of a failure.
pub(crate) fn failure(outcome: &Finalise) -> (&'static str, &str) {
    match &outcome.outcome {
        AttemptOutcome::Failed { reason, error, .. } => (reason.as_str(), error),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn assert_succeeded(outcome: &Finalise) {
    assert!(matches!(outcome.outcome, AttemptOutcome::Succeeded { .. }), "{outcome:?}");
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) else { return false };
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    !matches!(after_name.split_ascii_whitespace().next(), None | Some("Z" | "X"))
}

/// The number in a file that a process writes, once it is there.
pub(crate) fn pid_in(path: &Path) -> u32 {
    wait_for(|| fs::read_to_string(path).ok()?.trim().parse().ok())
}

/// Waits for a condition, within a minute.
pub(crate) fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(std::time::Instant::now() < until, "condition did not come true");
        std::thread::yield_now();
    }
}

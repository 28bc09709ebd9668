//! The loop in virtual time: a real store, a clock that moves only when told to, and jobs that end when they should.

mod jumps;
mod telling;
mod year;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_config::{Environment, Plan, Purpose, SecretProjection, SecretProvider, VaultPlaces, locate, plan};
use ductile_model::{Clock, EventHub, FailureReason, ManualClock, Problem};
use ductile_queue::{
    ActivateGeneration, AttemptOutcome, ClaimPolicy, ClaimedJob, Finalise, Routed, ScheduleNews, ScheduleRow,
    SnapshotRow, Store, StoreOptions, Synchronous,
};
use ductile_timetable::{Interval, Rule};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::rounds::Rounds;
use crate::{SchedulerArgs, SchedulerLife};

/// How long a job takes.
const WORK: TimeDelta = TimeDelta::seconds(20);

struct NoVault;

impl SecretProvider for NoVault {
    fn open(&self, _: &VaultPlaces, _: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem> {
        Ok(None)
    }
}

/// A job that was claimed.
struct Ran {
    key: String,
    at: DateTime<Utc>,
}

/// A gateway as far as schedules need one.
struct World {
    clock: Arc<ManualClock>,
    hub: EventHub,
    store: Store,
    life: SchedulerLife,
    plan: Arc<Plan>,
    rounds: Rounds,
    news: broadcast::Receiver<ScheduleNews>,
    claims: UnboundedReceiver<ClaimedJob>,
    next_tick: DateTime<Utc>,
    /// Jobs that run, by their end.
    running: Vec<(DateTime<Utc>, ClaimedJob)>,
    /// Every job that ran, in order.
    ran: Vec<Ran>,
    /// Commands whose jobs fail.
    failing: BTreeSet<String>,
    directory: TempDir,
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

impl World {
    /// A gateway that starts at a time with these schedules of the plugin `p`.
    async fn new(start: &str, tick: &str, schedules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::within(directory, at(start), tick, schedules).await
    }

    async fn within(directory: TempDir, start: DateTime<Utc>, tick: &str, schedules: &str) -> Self {
        let plan = Arc::new(make_plan(directory.path(), tick, schedules));
        let clock = Arc::new(ManualClock::new(start));
        let hub = EventHub::new(clock.clone());
        let store = Store::open(StoreOptions {
            path: directory.path().join("state.db"),
            synchronous: Synchronous::Normal,
            hub: hub.clone(),
            clock: clock.clone(),
            snapshot: None,
            policy: ClaimPolicy::default(),
            max_group: 256,
        })
        .unwrap();
        let claims = store.activate(generation(&plan)).await.unwrap();
        store.recover(None).await.unwrap();
        let life = SchedulerLife::default();
        let args = SchedulerArgs {
            plan: plan.clone(),
            store: store.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
            life: life.clone(),
        };
        let news = store.schedule_news();
        let rounds = Rounds::new(args, tokio::sync::watch::channel(false).1);
        let mut world = Self {
            clock,
            hub,
            store,
            life,
            plan,
            rounds,
            news,
            claims,
            next_tick: start,
            running: Vec::new(),
            ran: Vec::new(),
            failing: BTreeSet::new(),
            directory,
        };
        world.tick().await;
        world
    }

    /// The gateway is stopped, and starts again later, perhaps with other schedules.
    async fn restart(self, pause: TimeDelta, tick: &str, schedules: &str) -> Self {
        let start = self.now() + pause;
        self.store.close().await;
        let Self { directory, .. } = self;
        Self::within(directory, start, tick, schedules).await
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    fn tick_interval(&self) -> TimeDelta {
        TimeDelta::from_std(self.plan.config.service.tick_interval).unwrap()
    }

    async fn tick(&mut self) {
        self.rounds.tick().await;
        self.next_tick = self.now() + self.tick_interval();
        self.settle().await;
    }

    /// Lets time pass: whatever is due on the way happens when it is due.
    async fn pass(&mut self, time: TimeDelta) {
        let end = self.now() + time;
        loop {
            let job = self.running.iter().map(|(end, _)| *end).min();
            let next = [Some(self.next_tick), self.rounds.next_wake(), job].into_iter().flatten().min();
            let next = next.unwrap_or(end).max(self.now());
            if next > end {
                self.clock.advance(end - self.now());
                return;
            }
            self.clock.advance(next - self.now());
            if job == Some(next) {
                self.end_jobs().await;
            } else if self.next_tick <= next {
                self.rounds.tick().await;
                self.next_tick = next + self.tick_interval();
            } else {
                self.rounds.wake().await;
            }
            self.settle().await;
        }
    }

    /// The clock is set to another time; that takes none.
    fn jump(&mut self, by: TimeDelta) {
        self.clock.advance(by);
        // Timers know nothing of it.
        self.next_tick += by;
        self.running.iter_mut().for_each(|(end, _)| *end += by);
    }

    async fn end_jobs(&mut self) {
        let now = self.now();
        let (over, running) = self.running.drain(..).partition(|(end, _)| *end <= now);
        self.running = running;
        let over: Vec<(DateTime<Utc>, ClaimedJob)> = over;
        for (_, job) in over {
            let outcome = if self.failing.contains(&job.command) {
                AttemptOutcome::Failed {
                    reason: FailureReason::PluginRetryFalse,
                    error: "told to fail".to_owned(),
                    backoff_base: Duration::from_secs(1),
                }
            } else {
                AttemptOutcome::Succeeded { state: None, routed: Routed::default() }
            };
            self.finish(&job, outcome).await;
        }
    }

    async fn finish(&self, job: &ClaimedJob, outcome: AttemptOutcome) {
        let finalise = Finalise {
            job: job.id.clone(),
            attempt: job.attempt,
            completed_at: self.now(),
            outcome,
            stderr: None,
            result: Some(r#"{"status":"ok"}"#.to_owned()),
            duration: Duration::from_millis(1),
            spawned: true,
            stopwatch: None,
            hooks: None,
        };
        let stored = self.store.finalise(finalise).await;
        assert!(stored.is_ok(), "{stored:?}");
    }

    /// What follows from the last commits.
    async fn settle(&mut self) {
        // Whatever was asked for before has been handed out when this is answered.
        assert!(self.store.is_writable().await);
        while let Ok(job) = self.claims.try_recv() {
            let key = job.dedupe_key.clone().unwrap_or_default();
            self.ran.push(Ran { key, at: job.created_at });
            self.running.push((self.now() + WORK, job));
        }
        while let Ok(news) = self.news.try_recv() {
            if self.rounds.hear(news) {
                self.rounds.read_again().await;
            }
        }
    }

    /// When the jobs of a schedule were queued.
    fn runs(&self, key: &str) -> Vec<DateTime<Utc>> {
        self.ran.iter().filter(|ran| ran.key == key).map(|ran| ran.at).collect()
    }

    async fn row(&self, schedule: &str) -> ScheduleRow {
        let rows = self.store.schedules().await.unwrap();
        rows.into_iter().find(|row| row.schedule_id == schedule).unwrap()
    }

    /// Kept events of a type, as their data.
    fn events(&self, kind: &str) -> Vec<serde_json::Value> {
        let kept = self.hub.subscribe(0).backlog.into_iter().filter(|record| record.kind == kind);
        kept.map(|record| serde_json::Value::Object((*record.data).clone())).collect()
    }
}

fn generation(plan: &Plan) -> ActivateGeneration {
    let record = &plan.snapshot;
    let mut intervals: BTreeMap<String, BTreeMap<String, Interval>> = BTreeMap::new();
    for entry in plan.schedules.iter() {
        if let Rule::Every(interval) = &entry.rule {
            intervals.entry(entry.plugin.clone()).or_default().insert(entry.id.clone(), interval.clone());
        }
    }
    ActivateGeneration {
        snapshot: SnapshotRow {
            id: record.id.clone(),
            config_hash: record.config_hash.clone(),
            source_hash: record.source_hash.clone(),
            source_path: record.source_path.clone(),
            source: record.source.to_owned(),
            reason: "startup",
            ductile_version: "test".to_owned(),
            binary_path: String::new(),
            semantics: record.semantics.clone(),
            plugin_fingerprints: record.plugin_fingerprints.clone(),
            sanitized_config: record.sanitized_config.clone(),
            secret_fingerprints: record.secret_fingerprints.clone(),
        },
        policy: ClaimPolicy { max_workers: 64, intervals, ..ClaimPolicy::default() },
        runnable: None,
        reload: None,
    }
}

fn make_plan(directory: &Path, tick: &str, schedules: &str) -> Plan {
    let plugin = directory.join("plugins/p");
    fs::create_dir_all(&plugin).unwrap();
    let commands: String =
        ["poll", "a", "b", "c", "d", "e", "f"].map(|name| format!("  - {{name: {name}}}\n")).concat();
    let manifest = format!(
        "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: p\nversion: '1'\nprotocol: 2\nentrypoint: run.sh\n\
         commands:\n{commands}"
    );
    fs::write(plugin.join("manifest.yaml"), manifest).unwrap();
    fs::write(plugin.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(plugin.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "service: {{tick_interval: {tick}}}\nplugin_roots: [./plugins]\napi: {{enabled: false}}\nplugins:\n  p:\n    \
         enabled: true\n    schedules:\n{schedules}"
    );
    fs::write(directory.join("config.yaml"), text).unwrap();
    let env = Environment { vars: BTreeMap::new(), home: None };
    let source = locate(Some(&directory.join("config.yaml")), &env).unwrap();
    plan(&source, &env, &NoVault, Purpose::Admitting)
        .unwrap_or_else(|refusal| panic!("{}", refusal.lines().collect::<Vec<_>>().join("\n")))
}

//! Compiling a thousand pipelines with ten thousand steps: alone, and with the reading of their file. And routing by
//! them: conditions, steps, and events that start ten pipelines. Prints times; asserts nothing of them.
//!
//! `cargo bench --bench pipelines`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test or bench that can not go on may panic")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use ductile_config::{
    Environment, Purpose, SWITCH_PLUGIN, SecretProjection, SecretProvider, VaultPlaces, draft, locate, plan,
};
use ductile_model::{JobId, Problem, Producer};
use ductile_queue::{JobContext, Successor};
use ductile_router::{Emitted, Router, Source, StartKey, Starter};
use serde_json::{Map, Value, json};

const PIPELINES: usize = 1_000;
const ROUNDS: usize = 10;

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let steps = site(dir.path());
    println!("compiler, {PIPELINES} pipelines, {steps} steps, best of {ROUNDS}");
    let environment = Environment::default();
    let source = locate(Some(dir.path()), &environment).expect("a configuration");
    let mut read = Duration::MAX;
    let mut compile = Duration::MAX;
    let mut nodes = 0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let draft = draft(&source, &environment).expect("a configuration that loads");
        read = read.min(began.elapsed());
        let began = Instant::now();
        let report = draft.compile();
        compile = compile.min(began.elapsed());
        assert!(report.errors.is_empty(), "{:?}", report.errors.first());
        nodes = report.pipelines.iter().map(|pipeline| pipeline.nodes().len()).sum();
    }
    println!("  read the file            {:>10.1} ms", millis(read));
    println!("  compile                  {:>10.1} ms, {nodes} nodes", millis(compile));
    let plan = plan(&source, &environment, &NoVault, Purpose::Admitting).expect("a configuration that is accepted");
    route(&Router::new(Arc::new(plan)));
}

/// A configuration without a vault.
struct NoVault;

impl SecretProvider for NoVault {
    fn open(&self, _: &VaultPlaces, _: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem> {
        Ok(None)
    }
}

/// Times of one decision each.
#[derive(Default)]
struct Times {
    switch: Vec<Duration>,
    step: Vec<Duration>,
    root: Vec<Duration>,
}

/// Follows pipelines from their entry to their end, as the dispatcher would without the processes.
fn route(router: &Router) {
    let mut times = Times::default();
    let starter = Starter { submitted_by: Producer::Api, source: "bench", key: StartKey::None };
    for number in 0..PIPELINES {
        let payload = object(json!({"words": 345, "result": "a page"}));
        let name = format!("p{number}");
        let entry = router.start(&name, payload, &starter, Utc::now()).expect("a pipeline").successors.remove(0);
        follow(router, entry, &mut times);
        let source = Source { job: &JobId::generate(), plugin: "work", context_id: None, context: None };
        let emitted = vec![emitted(&format!("event.{}", number % 100))];
        let began = Instant::now();
        let routed = router.route(&source, Some("done"), emitted, Utc::now()).expect("an answer that can be routed");
        times.root.push(began.elapsed());
        assert_eq!(routed.successors.len(), PIPELINES / 100);
    }
    println!("router, the same pipelines, one decision each, median of many");
    told("condition of a step", times.switch);
    told("event of a step", times.step);
    told("event for 10 pipelines", times.root);
}

/// From one job to the first of those that follow, until none does.
fn follow(router: &Router, entry: Successor, times: &mut Times) {
    let mut next = Some(entry);
    while let Some(Successor { job, context, .. }) = next {
        let carried =
            JobContext { pipeline: context.pipeline, step_id: context.step_id, accumulated: context.accumulated };
        let id = JobId::generate();
        let source = Source { job: &id, plugin: &job.plugin, context_id: Some(&context.id), context: Some(&carried) };
        let began = Instant::now();
        let (routed, kind) = if job.plugin == SWITCH_PLUGIN {
            let switched = router.switch(job.payload.as_deref(), &carried).expect("a condition over what is there");
            (router.route_switch(&source, &switched.event), &mut times.switch)
        } else {
            (router.route(&source, Some("done"), vec![emitted("page.done")], Utc::now()), &mut times.step)
        };
        kind.push(began.elapsed());
        next = routed.expect("an answer that can be routed").successors.into_iter().next();
    }
}

fn emitted(kind: &str) -> Emitted {
    Emitted { kind: kind.to_owned(), payload: object(json!({"words": 345})), ..Emitted::default() }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { unreachable!("written as an object") };
    object
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("  {what:<24} {:>10.1} µs, {} of them", median.as_secs_f64() * 1_000_000.0, times.len());
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Writes a configuration in which steps have conditions, templates and claims, and pipelines call each other.
fn site(dir: &Path) -> usize {
    let plugin = dir.join("plugins/work");
    fs::create_dir_all(&plugin).expect("a directory");
    let manifest = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: work\nversion: '1'\nprotocol: 2\nentrypoint: \
                    run.sh\ncommands:\n  - {name: handle}\n";
    fs::write(plugin.join("manifest.yaml"), manifest).expect("a manifest");
    fs::write(plugin.join("run.sh"), "#!/bin/sh\n").expect("a script");
    fs::set_permissions(plugin.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("an execute bit");
    let mut text = "plugin_roots: [./plugins]\nplugins: {work: {enabled: true}}\npipelines:\n".to_owned();
    let mut steps = 0;
    for pipeline in 0..PIPELINES {
        let called = (pipeline + 1) % PIPELINES;
        writeln!(text, "  - name: p{pipeline}\n    on: event.{}\n    steps:", pipeline % 100).expect("a text");
        for step in 0..6 {
            text.push_str(
                "      - uses: work\n        if: {all: [{path: payload.words, op: gte, value: 200}, {path: payload.result, op: \
                 exists}]}\n        with: {message: \"{context.web.url}: {payload.result}\"}\n",
            );
            writeln!(text, "        baggage: {{web.n{step}: payload.words}}").expect("a text");
        }
        text.push_str("      - split:\n          - uses: work\n          - uses: work\n");
        // Chains of ten, so that nothing leads back.
        let last = if called.is_multiple_of(10) { "uses: work".to_owned() } else { format!("call: p{called}") };
        writeln!(text, "      - {last}").expect("a text");
        steps += 10;
    }
    fs::write(dir.join("config.yaml"), text).expect("a configuration");
    steps
}

//! Decisions over configurations as they are written: what follows, and what is told of what does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ductile_config::{Environment, Purpose, SecretProjection, SecretProvider, VaultPlaces, locate, plan};
use ductile_model::Problem;
use ductile_queue::Successor;
use serde_json::json;

use super::*;

struct NoVault;

impl SecretProvider for NoVault {
    fn open(&self, _: &VaultPlaces, _: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem> {
        Ok(None)
    }
}

/// A router of these pipelines, with the plugins `a` and `b`.
fn router(pipelines: &str) -> Router {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let plugin = dir.path().join("plugins").join(name);
        fs::create_dir_all(&plugin).unwrap();
        let manifest = format!(
            "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: '1'\nprotocol: 2\nentrypoint: \
             run.sh\ncommands:\n  - {{name: handle}}\n"
        );
        fs::write(plugin.join("manifest.yaml"), manifest).unwrap();
        fs::write(plugin.join("run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(plugin.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let text =
        format!("plugin_roots: [./plugins]\nplugins: {{a: {{enabled: true}}, b: {{enabled: true}}}}\n{pipelines}");
    fs::write(dir.path().join("config.yaml"), text).unwrap();
    let environment = Environment::default();
    let source = locate(Some(dir.path()), &environment).unwrap();
    let plan =
        plan(&source, &environment, &NoVault, Purpose::Admitting).unwrap_or_else(|refusal| panic!("{refusal:?}"));
    Router::new(Arc::new(plan))
}

fn event(kind: &str) -> Emitted {
    let Value::Object(payload) = json!({"n": 1}) else { unreachable!() };
    Emitted { kind: kind.to_owned(), payload, event_id: Some("e".to_owned()), ..Emitted::default() }
}

/// What a job of `a` causes that answers with this event; `None`: it is of no pipeline.
fn routed(router: &Router, job: &JobId, carried: Option<&Successor>, kind: &str) -> Routed {
    let context = carried.map(|Successor { context, .. }| JobContext {
        pipeline: context.pipeline.clone(),
        step_id: context.step_id.clone(),
        accumulated: context.accumulated.clone(),
    });
    let context_id = carried.map(|successor| successor.context.id.as_str());
    let source = Source { job, plugin: "a", context_id, context: context.as_ref() };
    router.route(&source, Some("fine"), vec![event(kind)], DateTime::UNIX_EPOCH).unwrap()
}

fn told(routed: &Routed) -> Vec<(&'static str, Value)> {
    routed.told.iter().map(|(kind, data)| (*kind, Value::Object(data.clone()))).collect()
}

#[test]
fn a_start_that_can_not_be_made_is_told_and_hinders_no_other() {
    let router = router(
        "pipelines:\n  - {name: lacks, on: x, steps: [{id: s, uses: a, baggage: {m: payload.missing}}]}\n  - {name: good, \
         on: x, steps: [{uses: b}]}\n",
    );
    let job = JobId::generate();
    let routed = routed(&router, &job, None, "x");
    let plugins: Vec<_> = routed.successors.iter().map(|successor| successor.job.plugin.as_str()).collect();
    assert_eq!(plugins, ["b"]);
    // What is not there takes nothing from what is.
    assert_eq!(routed.successors[0].job.source_event_id.as_deref(), Some("e"));
    let [(kind, data)] = told(&routed).try_into().unwrap();
    assert_eq!(kind, "router.trigger_failed");
    assert!(data["error"].as_str().unwrap().contains("missing"), "{data}");
    let mut keys = data;
    keys["error"].take();
    assert_eq!(
        keys,
        json!({"job_id": job, "pipeline": "lacks", "step_id": "s", "event_type": "x", "error": null}),
        "no payload, no baggage"
    );
}

#[test]
fn a_branch_that_would_go_too_deep_ends_and_is_told() {
    let router =
        router("pipelines:\n  - {name: p, on: x, max_depth: 1, steps: [{id: s, uses: a}, {id: t, uses: b}]}\n");
    let job = JobId::generate();
    let entry = routed(&router, &job, None, "x").successors.remove(0);
    let next = routed(&router, &job, Some(&entry), "y");
    assert!(next.successors.is_empty());
    assert_eq!(
        told(&next),
        [("router.depth_exceeded", json!({"job_id": job, "pipeline": "p", "step_id": "t", "depth": 1, "limit": 1}))]
    );
}

#[test]
fn a_pipeline_that_starts_itself_ends_after_twenty_starts_and_one_without_a_cap_goes_on() {
    let router = router(
        "pipelines:\n  - {name: loops, on: x, steps: [{uses: a}]}\n  - {name: free, on: y, max_depth: 0, steps: [{uses: \
         a}]}\n",
    );
    let job = JobId::generate();
    let chain = |kind: &str| {
        let mut last = None;
        let mut starts = 0;
        loop {
            let routed = routed(&router, &job, last.as_ref(), kind);
            match routed.successors.into_iter().next() {
                Some(successor) if starts < 50 => (starts, last) = (starts + 1, Some(successor)),
                _ => return (starts, routed.told),
            }
        }
    };
    let (starts, told) = chain("x");
    assert_eq!(starts, 20);
    let [(kind, data)] = told.try_into().unwrap();
    assert_eq!(
        (kind, Value::Object(data)),
        ("router.hop_limit", json!({"job_id": job, "pipeline": "loops", "event_type": "x", "hop_count": 21}))
    );
    let (starts, told) = chain("y");
    assert_eq!((starts, told.len()), (50, 0));
}

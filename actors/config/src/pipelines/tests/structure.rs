//! What right definitions become.

use serde_json::{Value, json};

use super::World;
use crate::pipelines::{Exit, NodeKind, Pipeline, Pipelines, SWITCH_FALSE, SWITCH_TRUE, Signal, Trigger};
use crate::tests::site::Site;

pub(super) const ARTICLE: &str = r#"
pipelines:
  - name: article
    on: link.found
    steps:
      - id: fetch
        uses: web_fetch
        baggage: {origin_user: payload.user, web.url: payload.url}
      - id: sum
        uses: summarizer
        if: {path: payload.words, op: gte, value: 200}
        baggage: {web.words: payload.words}
        with: {style: "short"}
      - split:
          - id: tell
            uses: notify
            with: {message: "{context.web.url}: {payload.result}"}
          - id: keep
            uses: archive
"#;

const PLUGINS: [&str; 4] = ["web_fetch", "summarizer", "notify", "archive"];

fn compiled(steps: &str) -> std::sync::Arc<Pipelines> {
    World::new(&["a", "b", "c"]).pipelines(&format!("pipelines: [{{name: p, on: x, steps: [{steps}]}}]\n"))
}

fn ids(steps: &str) -> Vec<String> {
    compiled(steps).get("p").unwrap().nodes().iter().map(|node| node.id.to_string()).collect()
}

/// Ids of routes, with the type of event behind those that take only one.
fn routes(pipeline: &Pipeline, all: &Pipelines) -> Vec<String> {
    let routes = pipeline.routes(all).into_iter();
    routes
        .map(|route| match route.source.event_type.as_deref() {
            Some(SWITCH_TRUE) => format!("{} (true)", route.id),
            Some(SWITCH_FALSE) => format!("{} (false)", route.id),
            _ => route.id,
        })
        .collect()
}

#[test]
fn the_worked_example_compiles_to_the_documented_routes() {
    let all = World::new(&PLUGINS).pipelines(ARTICLE);
    let article = all.get("article").unwrap();
    assert_eq!(
        routes(article, &all),
        [
            "edge:fetch->sum__switch",
            "edge:sum->keep",
            "edge:sum->tell",
            "edge:sum__switch->keep (false)",
            "edge:sum__switch->sum (true)",
            "edge:sum__switch->tell (false)",
            "entry:fetch",
            "terminal:keep",
            "terminal:tell",
        ]
    );
    assert!(article.routes(&all).iter().all(|route| route.source.depth_lt == Some(4)));
    assert_eq!(article.max_depth, 4);
    assert!(article.node("nothing").is_none());
    assert!(!article.node("fetch").unwrap().claims.is_empty() && article.node("keep").unwrap().claims.is_empty());
    assert_eq!(article.definition()["steps"][1]["with"], json!({"style": "short"}));
    assert_eq!(article.ends().collect::<Vec<_>>(), ["tell", "keep"]);
}

#[test]
fn a_switch_is_given_the_configuration_only_if_its_condition_reads_it() {
    let config_of = |condition: &str| {
        let text = format!("pipelines: [{{name: p, on: a, steps: [{{id: s, uses: summarizer, if: {condition}}}]}}]");
        let all = World::new(&PLUGINS).pipelines(&text);
        let node = all.get("p").unwrap().node("s__switch").unwrap();
        let NodeKind::Switch(switch) = &node.kind else { panic!("{condition}") };
        switch.config_of.as_deref().map(str::to_owned)
    };
    let (payload, config) = ("{path: payload.config, op: exists}", "{path: config.style, op: exists}");
    assert_eq!(config_of(payload), None);
    assert_eq!(config_of(&format!("{{any: [{payload}, {payload}]}}")), None);
    assert_eq!(config_of(config).as_deref(), Some("summarizer"));
    assert_eq!(config_of(&format!("{{all: [{payload}, {{not: {config}}}]}}")).as_deref(), Some("summarizer"));
}

#[test]
fn routes_are_shown_in_the_documented_shape() {
    let all = World::new(&["a"]).pipelines(
        "pipelines:\n  - {name: q, on-hook: job.failed, max_depth: 0, steps: [{uses: a}]}\n  - name: p\n    on: x\n    \
         from_plugin: a\n    if: {path: payload.x, op: exists}\n    steps:\n      - {id: go, call: q}\n      - {id: r, relay: {to: t}}\n      - {id: last, uses: a.poll, if: {path: payload.y, op: exists}}\n",
    );
    let shown = |name: &str| serde_json::to_value(all.get(name).unwrap().routes(&all)).unwrap();
    let left = |step: &str| json!({"pipeline": "p", "step_id": step, "depth_lt": 4});
    let mut by_switch = left("last__switch");
    by_switch["event_type"] = json!("ductile.switch.true");
    let mut past = left("last__switch");
    past["event_type"] = json!("ductile.switch.false");
    let last = json!({"kind": "uses", "step_id": "last", "plugin": "a", "command": "poll"});
    let switch = json!({"kind": "uses", "step_id": "last__switch", "plugin": "core.switch", "command": "handle"});
    assert_eq!(
        shown("p"),
        json!([
            {"id": "edge:go->r", "source": left("go"), "destination":
                {"kind": "uses", "step_id": "r", "plugin": "core.relay", "command": "handle"}},
            {"id": "edge:last__switch->last", "source": by_switch, "destination": last},
            {"id": "edge:r->last__switch", "source": left("r"), "destination": switch},
            {"id": "entry:go",
             "source": {"trigger": "x", "source_plugin": "a", "if": {"path": "payload.x", "op": "exists"}, "depth_lt": 4},
             "destination": {"kind": "call", "step_id": "go", "call_pipeline": "q"}},
            {"id": "terminal:last", "source": left("last"), "destination": {"kind": "terminal"}},
            {"id": "terminal:last__switch@ductile.switch.false", "source": past, "destination": {"kind": "terminal"}},
        ])
    );
    assert_eq!(
        shown("q"),
        json!([
            {"id": "entry:step_1", "source": {"hook_signal": "job.failed"},
             "destination": {"kind": "uses", "step_id": "step_1", "plugin": "a", "command": "handle"}},
            {"id": "terminal:step_1", "source": {"pipeline": "q", "step_id": "step_1"}, "destination": {"kind": "terminal"}},
        ])
    );
}

#[test]
fn unnamed_steps_are_numbered_in_reading_order_past_names_that_are_taken() {
    assert_eq!(ids("{uses: a}, {split: [{uses: b}, {uses: c}]}, {uses: a}"), ["step_1", "step_2", "step_3", "step_4"]);
    assert_eq!(ids("{uses: a}, {uses: a}, {id: step_2, uses: a}"), ["step_1", "step_3", "step_2"]);
    let gate = "if: {path: payload.x, op: exists}";
    assert_eq!(
        ids(&format!("{{uses: a, {gate}}}, {{split: [{{uses: b}}], {gate}}}")),
        ["step_1__switch", "step_1", "step_2__switch", "step_3"]
    );
    assert_eq!(
        ids(&format!("{{uses: a, {gate}}}, {{id: step_1__switch, uses: a}}")),
        ["step_2__switch", "step_2", "step_1__switch"]
    );
    assert_eq!(
        ids(&format!("{{id: g, steps: [{{id: s, uses: a}}], {gate}}}")),
        ["g__switch", "s"],
        "the id of a group names its switch"
    );
}

#[test]
fn every_exit_of_a_step_is_joined_to_every_entry_of_the_next() {
    let all = compiled("{split: [{id: a, uses: a}, {steps: [{id: b, uses: b}, {id: c, uses: c}]}]}, {id: d, uses: a}");
    let p = all.get("p").unwrap();
    assert_eq!(routes(p, &all), ["edge:a->d", "edge:b->c", "edge:c->d", "entry:a", "entry:b", "terminal:d"]);
    let entries: Vec<_> = p.entries().iter().map(|entry| &*p.node_at(*entry).id).collect();
    assert_eq!(entries, ["a", "b"]);
    let all = compiled("{id: g, split: [{id: a, uses: a}, {id: b, uses: b}], if: {path: payload.x, op: exists}}");
    assert_eq!(
        routes(all.get("p").unwrap(), &all),
        [
            "edge:g__switch->a (true)",
            "edge:g__switch->b (true)",
            "entry:g__switch",
            "terminal:a",
            "terminal:b",
            "terminal:g__switch@ductile.switch.false (false)",
        ]
    );
}

#[test]
fn plugin_and_command_are_found_by_exact_names_first() {
    let world = World::new(&["a"]).plugin("a.poll", &["handle"], json!({"enabled": true}));
    let text = "pipelines: [{name: p, on: x, steps: [{uses: a.poll}, {uses: a.handle}, {uses: a, command: poll}]}]\n";
    let all = world.pipelines(text);
    let jobs: Vec<_> = all.get("p").unwrap().nodes().iter().map(|node| node.job().unwrap()).collect();
    assert_eq!(jobs, [("a.poll", "handle"), ("a", "handle"), ("a", "poll")]);
}

#[test]
fn the_depth_is_the_longest_path_with_calls_expanded_unless_it_is_written() {
    let all = World::new(&["a"]).pipelines(
        "pipelines:\n  - {name: outer, on: x, steps: [{uses: a}, {call: inner}, {split: [{uses: a}, {steps: [{uses: a}, \
         {uses: a}]}]}]}\n  - {name: inner, on: y, max_depth: 1, steps: [{uses: a}, {uses: a, if: {path: payload.x, op: \
         exists}}]}\n  - {name: free, on: z, max_depth: 0, steps: [{uses: a}]}\n",
    );
    let depth = |name: &str| all.get(name).unwrap().max_depth;
    assert_eq!((depth("outer"), depth("inner"), depth("free")), (6, 1, 0));
    assert_eq!(all.get("free").unwrap().depth_limit(), None);
}

#[test]
fn starts_are_found_by_event_and_signal_in_the_order_of_routes_and_names() {
    let all = World::new(&["a", "b", "c"]).pipelines(
        "pipelines:\n  - {name: z, on: x, steps: [{split: [{id: m, uses: a}, {id: b, uses: a}]}]}\n  - {name: c, on: ' x ', \
         steps: [{id: m, uses: a}]}\n  - {name: h, on_hook: job.timed_out, steps: [{uses: a}]}\n  - {name: other, on: X, \
         steps: [{uses: a}]}\nroutes:\n  - {from: a, event_type: e, to: c}\n  - {from: a, event_type: e, to: b}\n",
    );
    let started: Vec<_> = all
        .started_by("x")
        .iter()
        .map(|entry| {
            let pipeline = all.at(entry.pipeline);
            (&*pipeline.name, &*pipeline.node_at(entry.node).id)
        })
        .collect();
    assert_eq!(started, [("z", "b"), ("c", "m"), ("z", "m")]);
    assert!(all.started_by("job.timed_out").is_empty() && all.started_by("y").is_empty());
    let hooked: Vec<_> = all.hooked_on(Signal::TimedOut).iter().map(|entry| &*all.at(entry.pipeline).name).collect();
    assert_eq!(hooked, ["h"]);
    assert!(all.hooked_on(Signal::Finished).is_empty());
    assert_eq!(all.get("h").unwrap().trigger, Trigger::Hook(Signal::TimedOut));
    let targets: Vec<_> = all.routes("a", "e").iter().map(|plugin| &**plugin).collect();
    assert_eq!(targets, ["c", "b"]);
    assert!(all.routes("a", "f").is_empty() && all.routes("b", "e").is_empty());
    let names: Vec<_> = all.iter().map(|pipeline| &*pipeline.name).collect();
    assert_eq!(names, ["c", "h", "other", "z"]);
    assert!(
        all.iter()
            .enumerate()
            .all(|(place, pipeline)| all.at(pipeline.index).name == all.iter().nth(place).unwrap().name)
    );
}

#[test]
fn exits_take_the_events_that_are_theirs() {
    assert!(Exit::Any.takes("anything") && Exit::Any.takes(SWITCH_TRUE));
    assert!(Exit::True.takes(SWITCH_TRUE) && !Exit::True.takes(SWITCH_FALSE));
    assert!(Exit::False.takes(SWITCH_FALSE) && !Exit::False.takes("anything"));
}

#[test]
fn definitions_are_shown_with_defaults_in_reading_order_and_without_secrets() {
    let site = Site::new().plugin("p", "").var("TOKEN", "hunter-two").config(
        "plugins: {p: {enabled: true}}\npipelines:\n  - steps: [{with: {api_key: abc, x: \"${TOKEN}\"}, uses: p}]\n    if: \
         {path: payload.x, op: eq, value: \"${TOKEN}\"}\n    on_hook: job.failed\n    name: a\n",
    );
    let plan = site.plan().unwrap();
    let pipeline = plan.pipelines.get("a").unwrap();
    let hidden = "[REDACTED]";
    assert_eq!(
        pipeline.definition().to_string(),
        json!({
            "name": "a", "on-hook": "job.failed", "execution_mode": "async", "timeout": "30s",
            "if": {"path": "payload.x", "op": "eq", "value": hidden},
            "steps": [{"uses": "p", "with": {"api_key": hidden, "x": hidden}}],
        })
        .to_string()
    );
    assert_eq!(pipeline.routes(&plan.pipelines)[0].source.condition.as_ref().unwrap()["value"], Value::from(hidden));
}

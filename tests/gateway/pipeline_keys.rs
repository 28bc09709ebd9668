//! Keys of events and of requests: what counts as the same, and what does not.

use serde_json::{Value, json};

use super::pipelines::{emitting, jobs, quiet, settle};
use super::site::{Gateway, Site};

/// Runs until there is a gate, or until its site is gone.
const WAITS: &str = "read line; until [ -e gate ] || [ ! -d plugins ]; do sleep 0.02; done; \
                     echo '{\"status\":\"ok\",\"result\":\"h\"}'";

fn start(gateway: &Gateway, path: &str, body: &Value, key: &str) -> (u16, Value) {
    let answer = gateway.client().post(path, &body.to_string(), &[("Idempotency-Key", key)]);
    (answer.status, answer.body)
}

#[test]
fn steps_behind_conditions_of_one_keyed_event_all_run_and_its_repetition_starts_none() {
    let site = Site::new()
        .plugin("src", &emitting("s", &json!([{"type": "x", "payload": {"n": 1}, "dedupe_key": "k"}])))
        .plugin("dst", &quiet("d"))
        .extra(
            "
pipelines:
  - {name: one, on: x, steps: [{uses: dst, if: {path: payload.n, op: eq, value: 1}}]}
  - {name: two, on: x, steps: [{uses: dst, if: {path: payload.n, op: eq, value: 1}}]}
  - name: three
    on: x
    steps:
      - split:
          - {id: plain, uses: dst}
          - {id: gated, uses: dst, if: {path: payload.n, op: eq, value: 1}}
",
        );
    let gateway = site.start();
    gateway.trigger("src", "poll");
    settle(&site, &gateway);
    let done = "SELECT count(*) FROM job_queue WHERE plugin = 'dst' AND status = 'succeeded' AND dedupe_key = 'k'";
    assert_eq!(site.query::<i64>(done), 4, "{:?}", jobs(&site));
    gateway.trigger("src", "poll");
    settle(&site, &gateway);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM job_queue WHERE plugin = 'dst'"), 4);
}

#[test]
fn one_event_makes_a_job_in_each_pipeline_with_and_without_a_key_and_its_key_counts_while_they_wait() {
    for (key, after_another) in [(Value::Null, 4), (json!("k"), 2)] {
        let site = Site::new()
            .service("max_workers: 2")
            .plugin("src", &emitting("s", &json!([{"type": "x", "payload": {}, "dedupe_key": key}])))
            .plugin_with("dst", WAITS, "", "parallelism: 1")
            .extra("\npipelines:\n  - {name: one, on: x, steps: [{uses: dst}]}\n  - {name: two, on: x, steps: [{uses: dst}]}\n");
        let gateway = site.start();
        let made = "SELECT count(*) FROM job_queue WHERE plugin = 'dst' AND status IN ('queued', 'running')";
        for expected in [2, after_another] {
            gateway.wait_for(&gateway.trigger("src", "poll"));
            assert_eq!(site.query::<i64>(made), expected, "{key}");
        }
        std::fs::write(site.path("gate"), "").expect("the gate");
        settle(&site, &gateway);
    }
}

#[test]
fn two_events_of_one_answer_are_duplicates_by_their_key_whatever_their_ids_look_like() {
    let event = |id: &str| json!({"type": "x", "payload": {}, "dedupe_key": "k", "event_id": id});
    let site = Site::new()
        .plugin("src", &emitting("s", &json!([event("feed"), event("feed/1"), event("feed/2")])))
        .plugin("dst", &quiet("d"))
        .extra("\npipelines:\n  - {name: one, on: x, steps: [{uses: dst}]}\n");
    let gateway = site.start();
    gateway.trigger("src", "poll");
    settle(&site, &gateway);
    assert_eq!(site.column("SELECT source_event_id FROM job_queue WHERE plugin = 'dst'"), ["feed"]);
}

#[test]
fn a_key_of_the_caller_is_that_of_the_steps_not_of_the_conditions_before_them() {
    let site = Site::new().plugin("dst", &quiet("d")).plugin("other", &quiet("o")).extra(
        "
pipelines:
  - {name: one, on: x, steps: [{uses: dst, if: {path: payload.n, op: eq, value: 1}}]}
  - {name: two, on: y, steps: [{uses: other, if: {path: payload.n, op: eq, value: 1}}]}
",
    );
    let gateway = site.start();
    let body = json!({"payload": {"n": 1}, "dedupe_key": "k"});
    for path in ["/pipeline/one", "/pipeline/two", "/pipeline/one"] {
        let answer = gateway.post(path, &body);
        assert_eq!((answer.status, &answer.body["deduplicated"]), (202, &Value::Null), "{path}: {answer:?}");
        settle(&site, &gateway);
    }
    let steps = "SELECT plugin FROM job_queue WHERE plugin <> 'core.switch' ORDER BY rowid";
    assert_eq!(site.column(steps), ["dst", "other"]);
}

#[test]
fn a_start_that_repeats_any_entry_of_an_earlier_one_queues_nothing() {
    let fails = "read line; echo '{\"status\":\"error\",\"error\":\"no\",\"retry\":false}'";
    let site = Site::new()
        .plugin("aa", &quiet("a"))
        .plugin("bb", fails)
        .extra("\npipelines:\n  - {name: fan, on: go, steps: [{split: [{id: b, uses: bb}, {id: a, uses: aa}]}]}\n");
    let gateway = site.start();
    let (status, first) = start(&gateway, "/pipeline/fan", &json!({"payload": {"n": 1}}), "once");
    assert_eq!((status, first["job_ids"].as_array().map(Vec::len)), (202, Some(2)), "{first}");
    settle(&site, &gateway);
    // One of its jobs failed, so that key is free again; the other is not.
    let (status, conflict) = start(&gateway, "/pipeline/fan", &json!({"payload": {"n": 2}}), "once");
    assert_eq!((status, &conflict["code"]), (409, &json!("idempotency_conflict")), "{conflict}");
    let (status, same) = start(&gateway, "/pipeline/fan", &json!({"payload": {"n": 1}}), "once");
    assert_eq!((status, &same["deduplicated"]), (202, &json!(true)), "{same}");
    assert_eq!(site.column("SELECT id FROM job_queue WHERE plugin = 'aa'"), [same["job_id"].as_str().expect("an id")]);
    settle(&site, &gateway);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM job_queue"), 2);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM event_context"), 3);
}

#[test]
fn a_payload_that_names_an_upstream_is_kept_and_can_be_sent_again() {
    let site =
        Site::new().plugin("dst", &quiet("d")).extra("\npipelines:\n  - {name: one, on: x, steps: [{uses: dst}]}\n");
    let gateway = site.start();
    let body = json!({"payload": {"ductile_upstream_plugin": "elsewhere", "n": 1}});
    let (status, first) = start(&gateway, "/pipeline/one", &body, "once");
    assert_eq!(status, 202, "{first}");
    let (status, again) = start(&gateway, "/pipeline/one", &body, "once");
    assert_eq!((status, &again["job_id"]), (202, &first["job_id"]), "{again}");
}

#[test]
fn who_waits_for_a_job_does_not_wait_for_the_hooks_of_its_end() {
    let site = Site::new()
        .plugin_with("good", &quiet("fine"), "", "notify_on_complete: true")
        .plugin("hook", WAITS)
        .extra("\npipelines:\n  - {name: done, on-hook: job.completed, steps: [{uses: hook}]}\n");
    let gateway = site.start();
    let answer = gateway.post("/plugin/good/poll", &json!({"sync": true}));
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("succeeded")), "{answer:?}");
    assert_eq!(answer.body["tree"].as_array().map(Vec::len), Some(1), "{answer:?}");
    let under_way = "SELECT count(*) FROM job_queue WHERE plugin = 'hook' AND status IN ('queued', 'running')";
    assert_eq!(site.query::<i64>(under_way), 1);
    std::fs::write(site.path("gate"), "").expect("the gate");
    settle(&site, &gateway);
    assert_eq!(site.column("SELECT status FROM job_queue WHERE plugin = 'hook'"), ["succeeded"]);
}

//! Which ends of jobs raise hooks, and what these are told.

use serde_json::{Value, json};

use super::pipelines::{emitting, jobs, quiet, seen, settle};
use super::site::{Gateway, Site, eventually};

const TELLING: &str = "notify_on_complete: true\nretry: {max_attempts: 1}";

/// The payload of the only request that a plugin got.
fn told(site: &Site, plugin: &str) -> Value {
    match seen(site, plugin).as_slice() {
        [request] => request["event"]["payload"].clone(),
        requests => panic!("{} requests: {requests:?}", requests.len()),
    }
}

fn assert_told(payload: &Value, wanted: &[(&str, Value)]) {
    for (key, value) in wanted {
        assert_eq!(payload.get(key), Some(value), "{key} of {payload}");
    }
}

/// Waits until a plugin has got a request.
fn wait_until_told(site: &Site, gateway: &Gateway, plugin: &str) {
    eventually(|| if seen(site, plugin).is_empty() { Err(()) } else { Ok(()) })
        .unwrap_or_else(|()| panic!("{plugin} got nothing\n{}", gateway.said()));
    settle(site, gateway);
}

/// A plugin that waits for the file `open` of the site when a hook runs it.
fn waiting_in_hooks() -> String {
    let wait =
        r#"case "$line" in *'"job.'*) touch waiting; while [ -e "$0" ] && [ ! -e open ]; do sleep 0.02; done;; esac"#;
    format!(
        "read -r line; {wait}; printf '%s\\n' \"$line\" >> seen-$DUCTILE_PLUGIN; echo '{{\"status\":\"ok\",\"result\":\"s\"}}'"
    )
}

#[test]
fn a_context_that_does_not_tell_how_many_hooks_came_before_raises_none() {
    let site = Site::new()
        .plugin_with("self", &waiting_in_hooks(), "", TELLING)
        .extra("\npipelines:\n  - {name: again, on-hook: job.completed, steps: [{uses: self}]}\n");
    let mut gateway = site.start();
    gateway.trigger("self", "poll");
    let waiting = site.path("waiting");
    eventually(|| if waiting.exists() { Ok(()) } else { Err(()) }).expect("the hook runs");
    let sql = "UPDATE event_context SET accumulated_json = json_remove(accumulated_json, '$.ductile.hook_depth')";
    site.outsider().execute(sql, []).expect("an update");
    std::fs::write(site.path("open"), "").expect("a file");
    let line = gateway.wait_for_log("the warning", |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.starts_with("no hook is raised"))
    });
    assert_eq!(line["signal"], "job.completed", "{line}");
    settle(&site, &gateway);
    assert_eq!(seen(&site, "self").len(), 2, "the first one and its hook");
}

#[test]
fn a_job_that_ran_out_of_time_raises_its_own_signal() {
    let hangs = "read -r line; while [ -e \"$0\" ]; do sleep 0.02; done";
    let site = Site::new()
        .plugin_with("hangs", hangs, "", &format!("{TELLING}\ntimeouts: {{poll: 100ms}}"))
        .plugin("late", &quiet("l"))
        .plugin("any", &quiet("a"))
        .plugin("other", &quiet("o"))
        .extra(
            "
pipelines:
  - {name: late, on-hook: job.timed_out, steps: [{uses: late}]}
  - {name: any, on-hook: job.finished, steps: [{uses: any}]}
  - {name: failed, on-hook: job.failed, steps: [{uses: other}]}
  - {name: completed, on-hook: job.completed, steps: [{uses: other}]}
",
        );
    let gateway = site.start();
    let job = gateway.trigger("hangs", "poll");
    wait_until_told(&site, &gateway, "late");
    let wanted = [
        ("job_id", json!(job)),
        ("plugin", json!("hangs")),
        ("command", json!("poll")),
        ("status", json!("timed_out")),
        ("attempt", json!(1)),
        ("max_attempts", json!(1)),
        ("reason", json!("timeout")),
        ("message", json!("Job timed out [hangs]")),
        ("text", json!("Job timed out [hangs]")),
    ];
    assert_told(&told(&site, "late"), &wanted);
    assert_told(&told(&site, "any"), &wanted);
    assert_eq!(seen(&site, "late")[0]["event"]["type"], "job.timed_out");
    assert_eq!(seen(&site, "any")[0]["event"]["type"], "job.finished");
    assert_eq!(told(&site, "late").get("recovery"), None);
    assert_eq!(seen(&site, "other"), [] as [Value; 0]);
}

#[test]
fn a_job_that_fails_before_its_plugin_starts_raises_hooks_too() {
    let site = Site::new()
        .plugin_with("root", &quiet("r"), "", TELLING)
        .plugin_with("never", &quiet("n"), "", TELLING)
        .plugin("alarm", &quiet("a"))
        .extra(
            "
pipelines:
  - {name: first, on-hook: job.completed, from_plugin: root, steps: [{uses: never, with: {x: \"{payload.missing}\"}}]}
  - {name: alarm, on-hook: job.failed, steps: [{uses: alarm}]}
",
        );
    let gateway = site.start();
    gateway.trigger("root", "poll");
    wait_until_told(&site, &gateway, "alarm");
    let error = "apply with remap for first/step_1: x: resolve \"payload.missing\": path not found";
    assert_told(
        &told(&site, "alarm"),
        &[
            ("plugin", json!("never")),
            ("status", json!("failed")),
            ("error", json!(error)),
            ("message", json!(format!("Job failed [never]: {error}"))),
        ],
    );
    assert!(seen(&site, "never").is_empty(), "it was not started");
    let depth = "SELECT json_extract(accumulated_json, '$.ductile.hook_depth') FROM event_context WHERE pipeline_name = 'alarm' AND step_id <> ''";
    assert_eq!(site.query::<i64>(depth), 2);
}

#[test]
fn a_job_that_a_kill_ended_raises_hooks_that_say_so() {
    let site = Site::new()
        .plugin_with("gated", super::site::GATED, "", TELLING)
        .plugin("alarm", &quiet("a"))
        .extra("\npipelines:\n  - {name: alarm, on-hook: job.failed, steps: [{uses: alarm}]}\n");
    let gateway = site.start();
    let job = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&job, |status| status == "running");
    gateway.kill_nine();
    let gateway = site.start();
    wait_until_told(&site, &gateway, "alarm");
    assert_told(
        &told(&site, "alarm"),
        &[
            ("job_id", json!(job)),
            ("status", json!("dead")),
            ("attempt", json!(1)),
            ("recovery", json!(true)),
            ("error", json!("Job marked dead during crash recovery: max attempts (1) reached")),
        ],
    );
    assert_eq!(
        site.column("SELECT submitted_by || ' ' || parent_job_id FROM job_queue WHERE plugin = 'alarm'"),
        [format!("hook {job}")]
    );
}

#[test]
fn hooks_run_when_a_job_has_ended_for_good_and_for_nothing_else() {
    let fails = "read line; echo '{\"status\":\"error\",\"error\":\"no luck\"}'";
    let fakes = emitting("f", &json!([{"type": "job.completed", "payload": {}}]));
    let notify = "notify_on_complete: true\nretry: {max_attempts: 2, backoff_base: 10ms}";
    let site = Site::new()
        .plugin_with("bad", fails, "", notify)
        .plugin_with("good", &quiet("fine"), "", "notify_on_complete: true")
        .plugin("faker", &fakes)
        .plugin("one", &quiet("one"))
        .plugin("two", &quiet("two"))
        .extra(
            "
pipelines:
  - name: alarm
    on-hook: job.failed
    steps:
      - {id: a, uses: one, if: {path: payload.plugin, op: eq, value: bad}}
      - {id: b, uses: two}
  - {name: done, on-hook: job.completed, steps: [{uses: one}]}
  - {name: ended, on-hook: job.finished, from_plugin: good, steps: [{uses: two}]}
",
        );
    let gateway = site.start();
    let bad = gateway.trigger("bad", "poll");
    settle(&site, &gateway);
    assert_eq!(
        jobs(&site),
        [
            "bad/- failed - -",
            "core.switch/a__switch succeeded 1 bad",
            "one/a succeeded 2 core.switch",
            "two/b succeeded 3 one",
        ]
    );
    let payload = &seen(&site, "one")[0]["event"]["payload"];
    for (key, value) in [
        ("job_id", json!(bad)),
        ("status", json!("failed")),
        ("attempt", json!(2)),
        ("max_attempts", json!(2)),
        ("error", json!("no luck")),
        ("reason", json!("plugin_error")),
        ("message", json!("Job failed [bad]: no luck")),
        ("text", json!("Job failed [bad]: no luck")),
    ] {
        assert_eq!(payload[key], value, "{key} of {payload}");
    }
    assert_eq!(site.query::<String>("SELECT submitted_by FROM job_queue WHERE plugin = 'core.switch'"), "hook");

    gateway.trigger("good", "poll");
    gateway.trigger("faker", "poll");
    settle(&site, &gateway);
    assert_eq!(seen(&site, "one").len(), 2, "one more, for the completed job; none for an event of that name");
    assert_eq!(seen(&site, "two").len(), 2);
    assert_eq!(seen(&site, "one")[1]["event"]["payload"]["message"], "Job completed [good]: fine");
}

#[test]
fn a_hook_of_its_own_plugin_stops_at_the_cap() {
    let site = Site::new()
        .service("hook_max_depth: 2")
        .plugin_with("self", &quiet("s"), "", "notify_on_complete: true")
        .extra("\npipelines:\n  - {name: again, on-hook: job.completed, steps: [{uses: self}]}\n");
    let mut gateway = site.start();
    gateway.trigger("self", "poll");
    gateway.wait_for_log("the guard", |line| line["depth"] == 3 && line["cap"] == 2);
    settle(&site, &gateway);
    assert_eq!(seen(&site, "self").len(), 3);
}

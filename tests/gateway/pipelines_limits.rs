//! What pipelines may not exceed.

use serde_json::json;

use super::pipelines::{emitting, jobs, quiet, settle};
use super::site::Site;

#[test]
fn calls_that_multiply_refuse_the_start() {
    let first = "\npipelines:\n  - {name: p0, on: go, steps: [{uses: a}]}\n".to_owned();
    let text = (1..=22).fold(first, |text, n| {
        let call = format!("{{call: p{}}}", n - 1);
        text + &format!("  - {{name: p{n}, on: go, steps: [{{split: [{call}, {call}]}}]}}\n")
    });
    let site = Site::new().plugin("a", &quiet("a")).extra(&text);
    let (status, said) = site.start_refused();
    assert_eq!(status.code(), Some(78), "{said}");
    let config = std::fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let line = 1 + config.lines().position(|line| line.contains("name: p10,")).expect("a line");
    for wanted in [
        format!("pipelines[10].steps[0] ({}:{line})", site.path("config/config.yaml").display()),
        "pipeline \"p10\": one event would make 1024 jobs at once here, more than 1000".to_owned(),
    ] {
        assert!(said.contains(&wanted), "{wanted:?} is not in {said}");
    }
    assert_eq!(said.matches("jobs at once").count(), 1, "{said}");
}

#[test]
fn a_step_that_would_remember_too_much_fails_the_job_before_it() {
    let large = r#"cat >/dev/null; printf '{"status":"ok","result":"r","events":[{"type":"x","payload":{"big":"%01048576d"}}]}' 0"#;
    let site = Site::new().plugin("large", large).plugin("b", &quiet("b")).extra(
        "\npipelines:\n  - {name: p, on: go, steps: [{id: one, uses: large}, {id: two, uses: b, baggage: {big: payload.big}}]}\n",
    );
    let gateway = site.start();
    let answer = gateway.post("/pipeline/p", &json!({}));
    let done = gateway.wait_for(answer.body["job_id"].as_str().expect("an id"));
    assert_eq!((&done["status"], &done["attempt"]), (&json!("failed"), &json!(1)), "{done}");
    assert_eq!(done["last_error"], "failed to route events: accumulated context exceeds max size (1048576 bytes)");
    settle(&site, &gateway);
    assert_eq!(jobs(&site), ["large/one failed 1 -"]);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM event_context"), 2, "the root row and that of the first step");
}

#[test]
fn an_inherited_value_that_would_change_is_named_as_the_configuration_names_it() {
    let key = "key-of-a-payload".repeat(50);
    let site = Site::new()
        .plugin("a", &emitting("a", &json!([{"type": "x", "payload": {"v": {key.clone(): 2}}}])))
        .plugin("b", &quiet("b"))
        .extra(
            "
pipelines:
  - name: p
    on: go
    steps:
      - {id: one, uses: a, baggage: {web.page: payload.v}}
      - {id: two, uses: b, baggage: {web.page: payload.v}}
",
        );
    let gateway = site.start();
    let answer = gateway.post("/pipeline/p", &json!({"payload": {"v": {key.clone(): 1}}}));
    let done = gateway.wait_for(answer.body["job_id"].as_str().expect("an id"));
    assert_eq!(
        done["last_error"],
        "failed to route events: baggage path \"web.page\" is immutable: inherited value differs from child value"
    );
    assert!(!gateway.said().contains("key-of-a-payload"), "{}", gateway.said());
}

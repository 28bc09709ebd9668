//! What pipelines may not exceed.

use serde_json::json;

use super::pipelines::{context_of, emitting, jobs, quiet, settle};
use super::site::{Site, eventually};

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

#[test]
fn a_pipeline_that_feeds_itself_is_stopped_and_one_without_a_cap_is_not() {
    let again = json!([{"type": "again", "payload": {}}]);
    let own = |depth: &str| {
        let site = Site::new().plugin("loop", &emitting("more", &again));
        let extra =
            format!("\npipelines:\n  - name: self\n    on: again\n    {depth}\n    steps:\n      - uses: loop\n");
        site.extra(&extra)
    };
    let site = own("");
    let mut gateway = site.start();
    gateway.trigger("loop", "poll");
    let line = gateway.wait_for_log("the guard", |line| line["hop_count"] == 21);
    assert_eq!((&line["level"], &line["pipeline"]), (&json!("ERROR"), &json!("self")));
    settle(&site, &gateway);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM job_queue"), 21, "the first and twenty starts");
    assert_eq!(site.column("SELECT DISTINCT status FROM job_queue"), ["succeeded"]);
    drop(gateway);

    let site = own("max_depth: 0");
    let gateway = site.start();
    gateway.trigger("loop", "poll");
    eventually(|| match site.query::<i64>("SELECT count(*) FROM job_queue") {
        n if n > 25 => Ok(()),
        n => Err(format!("{n} jobs")),
    })
    .unwrap_or_else(|last| panic!("{last}\n{}", gateway.said()));
}

#[test]
fn a_pipeline_started_by_an_event_of_another_has_depths_of_its_own() {
    let site = Site::new()
        .plugin("a", &emitting("a", &json!([{"type": "next", "payload": {}}])))
        .plugin("b", &quiet("b"))
        .extra(
            "
pipelines:
  - {name: one, on: go, steps: [{uses: a}]}
  - {name: three, on: next, steps: [{id: x, uses: b}, {id: y, uses: b}, {id: z, uses: b}]}
  - {name: short, on: next, max_depth: 1, steps: [{id: s, uses: b}, {id: t, uses: b}]}
",
        );
    let mut gateway = site.start();
    gateway.post("/pipeline/one", &json!({}));
    let line = gateway.wait_for_log("the cap", |line| line["step"] == "t" && line["limit"] == 1);
    assert_eq!((&line["level"], &line["depth"]), (&json!("WARN"), &json!(1)));
    settle(&site, &gateway);
    assert_eq!(
        site.column("SELECT step_id FROM event_context WHERE pipeline_name = 'three' AND step_id <> '' ORDER BY rowid"),
        ["x", "y", "z"]
    );
    assert_eq!(context_of(&site, "z")["ductile"]["hop_count"], 2);
    assert_eq!(context_of(&site, "z")["ductile"]["route_depth"], 3);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM event_context WHERE step_id = 't'"), 0);
}

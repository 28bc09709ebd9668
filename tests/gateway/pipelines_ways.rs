//! Ways into pipelines: by events of certain plugins, across a reload, and in a rehearsal.

use serde_json::{Value, json};

use super::pipelines::{article, emitting, jobs, quiet, seen, settle};
use super::site::{GATED, Site, show};

#[test]
fn only_events_of_the_named_plugin_start_a_pipeline() {
    let event = json!([{"type": "x", "payload": {}}]);
    let site = Site::new()
        .plugin("p1", &emitting("1", &event))
        .plugin("p2", &emitting("2", &event))
        .plugin("only", &quiet("o"))
        .plugin("all", &quiet("a"))
        .extra(
            "
pipelines:
  - {name: only, on: x, from_plugin: p1, steps: [{uses: only}]}
  - {name: all, on: x, steps: [{uses: all}]}
",
        );
    let gateway = site.start();
    gateway.wait_for(&gateway.trigger("p2", "poll"));
    settle(&site, &gateway);
    assert_eq!(jobs(&site), ["p2/- succeeded - -", "all/step_1 succeeded 1 p2"]);
    gateway.wait_for(&gateway.trigger("p1", "poll"));
    settle(&site, &gateway);
    let mut more = jobs(&site).split_off(2);
    more.sort();
    assert_eq!(more, ["all/step_1 succeeded 1 p1", "only/step_1 succeeded 1 p1", "p1/- succeeded - -"]);
    assert_eq!(seen(&site, "only")[0]["event"]["source"], "p1");
}

#[test]
fn a_running_step_goes_on_by_the_definition_it_started_with() {
    let site = Site::new().plugin("slow", GATED).plugin("b", &quiet("b")).extra(
        "\npipelines:\n  - {name: p, on: go, max_depth: 3, steps: [{id: s, uses: slow}, {id: next, uses: b}]}\n",
    );
    let gateway = site.start();
    let gate = site.path("gate");
    let answer = gateway.post("/pipeline/p", &json!({"payload": {"gate": gate}}));
    let job = answer.body["job_id"].as_str().expect("an id").to_owned();
    gateway.wait_for_status(&job, |status| status == "running");
    let path = site.path("config/config.yaml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    // The step that runs is gone, and nothing leads to the one behind it.
    let changed = text.replace("{id: s, uses: slow}, {id: next, uses: b}", "{id: next, uses: b}, {id: t, uses: b}");
    assert_ne!(changed, text);
    std::fs::write(&path, changed).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    std::fs::write(&gate, "").expect("the gate");
    assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
    settle(&site, &gateway);
    assert_eq!(
        jobs(&site),
        ["slow/s succeeded 1 -", "b/next succeeded 2 slow", "b/t succeeded 3 b"],
        "by the old definition to the step behind it, which is claimed and goes on by the new one"
    );
}

#[test]
fn a_rehearsal_tells_the_first_job_with_what_it_claims_under_all_its_names() {
    let site = article(&json!(1));
    let mut gateway = site.start();
    gateway.stop();
    drop(gateway);
    let database = || std::fs::read(site.path("data/ductile.db")).expect("the database");
    let before = database();
    for word in ["validate", "check", "dry-run"] {
        let text = site.run(&["pipeline", word, "article", "-f", "user=ann", "-f", "url=u"]);
        assert!(text.contains("- article/fetch (web_fetch handle)\n"), "{word}: {text}");
        let context = text.lines().find_map(|line| line.trim().strip_prefix("context: ")).expect("a context");
        let context: Value = serde_json::from_str(context).expect("an object");
        assert_eq!((&context["origin_user"], &context["web"]["url"]), (&json!("ann"), &json!("u")), "{word}: {text}");
    }
    let output = site.command(&["pipeline", "dry-run", "article", "-f", "user=ann"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(
        show(&output).contains("resolve baggage web.url from \"payload.url\": path not found"),
        "{}",
        show(&output)
    );
    assert!(before == database(), "a rehearsal writes nothing");
}

#[test]
fn a_queued_step_that_a_reload_took_away_fails_and_says_so() {
    let site = Site::new()
        .service("max_workers: 1")
        .plugin("slow", super::site::GATED)
        .plugin("b", &quiet("b"))
        .extra("\npipelines:\n  - {name: p, on: go, steps: [{id: s, uses: b}]}\n");
    let gateway = site.start();
    let gate = site.path("gate");
    let slow = gateway.trigger_with("slow", "poll", &json!({"gate": gate}));
    gateway.wait_for_status(&slow, |status| status == "running");
    let answer = gateway.post("/pipeline/p", &json!({}));
    let job = answer.body["job_id"].as_str().expect("an id").to_owned();
    let path = site.path("config/config.yaml");
    let text = std::fs::read_to_string(&path).expect("the configuration").replace("id: s,", "id: other,");
    std::fs::write(&path, text).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    std::fs::write(&gate, "").expect("the gate");
    let done = gateway.wait_for(&job);
    assert_eq!((&done["status"], &done["attempt"]), (&json!("failed"), &json!(1)), "{done}");
    assert_eq!(done["last_error"], "pipeline step \"p/s\" is not in the active configuration");
}

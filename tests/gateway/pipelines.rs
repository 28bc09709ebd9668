//! Pipelines with real plugins: what an event causes, as the rows tell it.

use rusqlite::types::Value as Sql;
use serde_json::{Value, json};

use super::site::{Gateway, Site, eventually};

/// Answers ok without events; remembers its requests in `seen-<plugin>` of the site.
pub(super) fn quiet(result: &str) -> String {
    format!(
        r#"read -r line; printf '%s\n' "$line" >> seen-$DUCTILE_PLUGIN; echo '{{"status":"ok","result":"{result}"}}'"#
    )
}

/// Emits this list of events.
pub(super) fn emitting(result: &str, events: &Value) -> String {
    let answer = json!({"status": "ok", "result": result, "events": events}).to_string().replace('\'', "");
    format!("read -r line; printf '%s\\n' \"$line\" >> seen-$DUCTILE_PLUGIN; printf '%s\\n' '{answer}'")
}

/// The requests that a plugin got, in order.
pub(super) fn seen(site: &Site, plugin: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(site.path(&format!("seen-{plugin}"))).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a request")).collect()
}

/// Waits until nothing is queued or running any more.
pub(super) fn settle(site: &Site, gateway: &Gateway) {
    let open = "SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')";
    eventually(|| match site.query::<i64>(open) {
        0 => Ok(()),
        n => Err(format!("{n} jobs are under way")),
    })
    .unwrap_or_else(|last| panic!("{last}\n{}", gateway.said()));
}

/// Jobs as `plugin/step status depth parent`, in the order in which they were queued.
pub(super) fn jobs(site: &Site) -> Vec<String> {
    let connection = site.database();
    let mut statement = connection
        .prepare(
            "SELECT q.plugin || '/' || ifnull(c.step_id, '-') || ' ' || q.status || ' ' ||
                    ifnull(json_extract(c.accumulated_json, '$.ductile.route_depth'), '-') || ' ' ||
                    ifnull((SELECT p.plugin FROM job_queue p WHERE p.id = q.parent_job_id), '-')
             FROM job_queue q LEFT JOIN event_context c ON c.id = q.event_context_id ORDER BY q.rowid",
        )
        .expect("a statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

pub(super) fn context_of(site: &Site, step: &str) -> Value {
    let text: String = site.query(&format!("SELECT accumulated_json FROM event_context WHERE step_id = '{step}'"));
    serde_json::from_str(&text).expect("an object")
}

const ARTICLE: &str = "
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
        with: {style: \"short\"}
      - split:
          - id: tell
            uses: notify
            with: {message: \"{context.web.url}: {payload.result}\"}
          - id: keep
            uses: archive
";

pub(super) fn article(words: &Value) -> Site {
    let link = json!([{"type": "link.found", "payload": {"url": "https://e.test/a", "user": "ann"}}]);
    let page = json!([{"type": "page.fetched", "payload": {"text": "…", "words": words}}]);
    Site::new()
        .plugin("inbox", &emitting("1 link", &link))
        .plugin("web_fetch", &emitting("fetched", &page))
        .plugin("summarizer", &quiet("Short text"))
        .plugin("notify", &quiet("told"))
        .plugin("archive", &quiet("kept"))
        .extra(ARTICLE)
}

#[test]
fn an_event_runs_through_a_condition_and_a_split_with_all_its_rows() {
    let site = article(&json!(350));
    let gateway = site.start();
    gateway.trigger("inbox", "poll");
    settle(&site, &gateway);
    assert_eq!(
        jobs(&site),
        [
            "inbox/- succeeded - -",
            "web_fetch/fetch succeeded 1 inbox",
            "core.switch/sum__switch succeeded 2 web_fetch",
            "summarizer/sum succeeded 3 core.switch",
            "archive/keep succeeded 4 summarizer",
            "notify/tell succeeded 4 summarizer",
        ]
    );
    let root: Value = serde_json::from_str(&site.query::<String>(
        "SELECT accumulated_json FROM event_context WHERE parent_id IS NULL AND step_id = '' AND pipeline_name = 'article'",
    ))
    .expect("an object");
    let instance = root["ductile"]["pipeline_instance_id"].clone();
    assert_eq!(
        root,
        json!({"ductile": {"pipeline_instance_id": instance, "route_depth": 0, "route_max_depth": 4, "hop_count": 1}})
    );
    assert_eq!(
        context_of(&site, "sum"),
        json!({"origin_user": "ann", "web": {"url": "https://e.test/a", "words": 350}, "ductile": {
            "pipeline_instance_id": instance, "route_depth": 3, "route_max_depth": 4, "hop_count": 1}})
    );
    assert_eq!(
        site.column(
            "SELECT p.step_id FROM event_context c JOIN event_context p ON p.id = c.parent_id ORDER BY c.rowid"
        ),
        ["", "fetch", "sum__switch", "sum", "sum"]
    );
    assert_eq!(
        site.column("SELECT DISTINCT submitted_by FROM job_queue WHERE event_context_id IS NOT NULL"),
        ["route"]
    );
    assert_eq!(
        site.query::<String>("SELECT result FROM job_log WHERE plugin = 'core.switch'"),
        r#"{"matched":true,"event":"ductile.switch.true"}"#
    );
    let request = &seen(&site, "summarizer")[0];
    let (payload, context) = (&request["event"]["payload"], &request["context"]);
    assert_eq!(request["event"]["type"], "ductile.switch.true");
    for (key, value) in [
        ("words", json!(350)),
        ("result", json!("fetched")),
        ("style", json!("short")),
        ("origin_user", json!("ann")),
        ("ductile_upstream_plugin", json!("web_fetch")),
        ("ductile_upstream_pipeline", json!("article")),
        ("ductile_upstream_step_id", json!("fetch")),
        ("ductile_upstream_event_type", json!("page.fetched")),
    ] {
        assert_eq!(payload[key], value, "{key} of {payload}");
    }
    for (key, value) in [
        ("ductile_plugin", json!("summarizer")),
        ("ductile_pipeline", json!("article")),
        ("ductile_step_id", json!("sum")),
        ("ductile_pipeline_instance_id", instance),
        ("ductile_route_depth", json!(3)),
        ("ductile_route_max_depth", json!(4)),
    ] {
        assert_eq!(context[key], value, "{key} of {context}");
    }
    assert_eq!(seen(&site, "notify")[0]["event"]["payload"]["message"], "https://e.test/a: Short text");
    // What the row keeps is the event, not what was made of it.
    let stored: Value =
        serde_json::from_str(&site.query::<String>("SELECT payload FROM job_queue WHERE plugin = 'notify'"))
            .expect("an event");
    assert_eq!(stored["payload"].get("message"), None);
    assert_eq!(stored["type"], "ductile.step.succeeded");
}

#[test]
fn a_false_condition_leads_past_its_step_and_claims_nothing_for_it() {
    let site = article(&json!(100));
    let gateway = site.start();
    gateway.trigger("inbox", "poll");
    settle(&site, &gateway);
    assert_eq!(
        jobs(&site)[2..],
        [
            "core.switch/sum__switch succeeded 2 web_fetch",
            "archive/keep succeeded 3 core.switch",
            "notify/tell succeeded 3 core.switch",
        ]
    );
    assert_eq!(seen(&site, "notify")[0]["event"]["payload"]["message"], "https://e.test/a: fetched");
    assert_eq!(context_of(&site, "tell")["web"], json!({"url": "https://e.test/a"}));
}

#[test]
fn a_condition_that_can_not_be_evaluated_ends_its_branch_as_failed() {
    let site = article(&json!("many"));
    let gateway = site.start();
    gateway.trigger("inbox", "poll");
    settle(&site, &gateway);
    assert_eq!(jobs(&site).last().map(String::as_str), Some("core.switch/sum__switch failed 2 web_fetch"));
    let (error, attempt): (String, i64) = site
        .database()
        .query_row("SELECT last_error, attempt FROM job_queue WHERE plugin = 'core.switch'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("a row");
    assert!(error.starts_with("core.switch evaluate condition: "), "{error}");
    assert_eq!(attempt, 1);
}

#[test]
fn a_start_by_name_that_lacks_what_it_claims_is_refused_and_writes_nothing() {
    let site = article(&json!(1));
    let gateway = site.start();
    let answer = gateway.post("/pipeline/article", &json!({"payload": {"user": "ann"}}));
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("baggage_claims")), "{answer:?}");
    assert_eq!(
        answer.body["error"],
        "apply baggage claims for article:fetch: resolve baggage web.url from \"payload.url\": path not found"
    );
    let answer = gateway.post("/pipeline/nothing", &json!({}));
    assert_eq!((answer.status, &answer.body["error"]), (404, &json!("pipeline not found")));
    let big = json!({"payload": {"user": "x".repeat(1_100_000), "url": "u"}});
    let answer = gateway.post("/pipeline/article", &big);
    assert_eq!((answer.status, &answer.body["code"]), (413, &json!("baggage_overlimit")), "{answer:?}");
    assert_eq!(answer.body["bytes_limit"], 1_048_576);
    assert!(answer.body["bytes_actual"].as_u64() > Some(1_100_000), "{answer:?}");
    assert_eq!(site.query::<i64>("SELECT (SELECT count(*) FROM job_queue) + (SELECT count(*) FROM event_context)"), 0);
}

#[test]
fn a_start_by_name_answers_at_once_or_waits_for_the_last_step() {
    let site = article(&json!(350));
    let gateway = site.start();
    let body = json!({"payload": {"user": "ann", "url": "u"}});
    let answer = gateway.post("/pipeline/article", &body);
    assert_eq!(
        (answer.status, &answer.body["plugin"], &answer.body["command"]),
        (202, &json!("pipeline"), &json!("article"))
    );
    settle(&site, &gateway);
    let first = jobs(&site);
    assert_eq!(first[0], "web_fetch/fetch succeeded 1 -");
    assert_eq!(site.query::<String>("SELECT submitted_by FROM job_queue WHERE plugin = 'web_fetch'"), "api");
    let answer = gateway.post("/pipeline/article?sync=true", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["status"], "succeeded");
    assert_eq!(answer.body["result"]["result"], "told", "the last job in the order of the tree that ends the pipeline");
    let steps: Vec<&str> = answer.body["tree"]
        .as_array()
        .expect("a tree")
        .iter()
        .map(|job| job["step_id"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(steps, ["fetch", "sum__switch", "sum", "keep", "tell"]);
    let again: Vec<_> = (0..2)
        .map(|_| gateway.client().post("/pipeline/article", &body.to_string(), &[("Idempotency-Key", "once")]))
        .collect();
    assert_eq!(again[0].body["job_id"], again[1].body["job_id"]);
    assert_eq!(again[1].body["deduplicated"], true);
}

#[test]
fn a_call_runs_the_other_pipeline_in_place_and_goes_on_with_what_it_collected() {
    let event = |kind: &str, payload: Value| json!([{"type": kind, "payload": payload}]);
    let site = Site::new()
        .plugin("a", &emitting("a", &event("made.a", json!({"m": 2}))))
        .plugin("b", &emitting("b", &event("made.b", json!({}))))
        .plugin("z", &quiet("z"))
        .extra(
            "
pipelines:
  - name: outer
    on: go
    steps:
      - {id: first, uses: a, baggage: {k: payload.k}}
      - {id: middle, call: inner}
      - {id: last, uses: z}
  - name: inner
    on: never
    steps:
      - {id: only, uses: b, baggage: {m: payload.m}}
",
        );
    let gateway = site.start();
    let answer = gateway.post("/pipeline/outer?sync=true", &json!({"payload": {"k": 1}}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(jobs(&site), ["a/first succeeded 1 -", "b/only succeeded 2 a", "z/last succeeded 3 b"]);
    let last = context_of(&site, "last");
    assert_eq!((&last["k"], &last["m"], last["ductile"].get("call_stack")), (&json!(1), &json!(2), None));
    assert_eq!(context_of(&site, "only")["ductile"]["call_stack"], json!([{"pipeline": "outer", "step": "middle"}]));
    let instances =
        "SELECT DISTINCT json_extract(accumulated_json, '$.ductile.pipeline_instance_id') FROM event_context";
    assert_eq!(site.column(instances).len(), 1);
    assert_eq!(answer.body["result"]["result"], "z");
}

#[test]
fn every_event_that_reaches_a_step_runs_it() {
    let two = json!([{"type": "x", "payload": {"n": 1}}, {"type": "x", "payload": {"n": 2}}]);
    let site = Site::new()
        .plugin("two", &emitting("two", &two))
        .plugin("one", &quiet("one"))
        .plugin("end", &quiet("end"))
        .extra(
            "
pipelines:
  - name: p
    on: go
    steps:
      - uses: two
      - split:
          - {id: left, uses: one}
          - {id: right, uses: one}
      - {id: after, uses: end}
",
        );
    let gateway = site.start();
    gateway.post("/pipeline/p?sync=true", &json!({}));
    settle(&site, &gateway);
    assert_eq!(seen(&site, "one").len(), 4, "two events, two branches each with the same plugin");
    assert_eq!(seen(&site, "end").len(), 4);
    assert_eq!(
        site.query::<i64>(
            "SELECT count(*) FROM (SELECT 1 FROM job_queue WHERE source_event_id IS NOT NULL
             GROUP BY parent_job_id, source_event_id, plugin, command HAVING count(*) > 1)"
        ),
        0
    );
}

#[test]
fn a_claim_that_would_change_what_is_inherited_fails_the_job_before_it() {
    let site = Site::new()
        .plugin("a", &emitting("a", &json!([{"type": "x", "payload": {"v": 2}}])))
        .plugin("b", &quiet("b"))
        .extra(
            "
pipelines:
  - name: p
    on: go
    steps:
      - {id: one, uses: a, baggage: {v: payload.v}}
      - {id: two, uses: b, baggage: {v: payload.v}}
",
        );
    let gateway = site.start();
    let job =
        gateway.post("/pipeline/p", &json!({"payload": {"v": 1}})).body["job_id"].as_str().expect("an id").to_owned();
    let done = gateway.wait_for(&job);
    assert_eq!(done["status"], "failed", "{done}");
    let error = done["last_error"].as_str().expect("an error");
    assert!(error.contains("baggage path \"v\" is immutable"), "{error}");
    assert_eq!(jobs(&site).len(), 1);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM event_context"), 2, "the root row and that of the entry");
    let same = gateway.post("/pipeline/p?sync=true", &json!({"payload": {"v": 2.0}}));
    assert_eq!(same.body["status"], "succeeded", "{same:?}");
}

#[test]
fn pipelines_that_one_event_starts_do_not_hinder_each_other() {
    let site = Site::new()
        .plugin("src", &emitting("s", &json!([{"type": "x", "payload": {"n": "text"}, "dedupe_key": "k1"}])))
        .plugin("dst", &quiet("d"))
        .extra(
            "
pipelines:
  - {name: good, on: x, steps: [{uses: dst}]}
  - {name: also, on: x, steps: [{uses: dst}]}
  - {name: errs, on: x, if: {path: payload.n, op: gt, value: 3}, steps: [{uses: dst}]}
  - {name: lacks, on: x, steps: [{uses: dst, baggage: {m: payload.missing}}]}
  - {name: other, on: x, from_plugin: dst, steps: [{uses: dst}]}
  - {name: false, on: x, if: {path: payload.n, op: eq, value: other}, steps: [{uses: dst}]}
",
        );
    let mut gateway = site.start();
    let job = gateway.trigger("src", "poll");
    gateway.wait_for_log("the warning", |line| line["level"] == "WARN" && line["pipeline"] == "errs");
    settle(&site, &gateway);
    assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
    assert_eq!(
        site.column("SELECT pipeline_name FROM event_context WHERE step_id <> '' ORDER BY pipeline_name"),
        ["also", "good"]
    );
    assert_eq!(site.column("SELECT dedupe_key FROM job_queue WHERE plugin = 'dst'"), ["k1", "k1"]);
    // The same event again within the window: neither jobs nor contexts.
    gateway.trigger("src", "poll");
    settle(&site, &gateway);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM job_queue WHERE plugin = 'dst'"), 2);
    assert_eq!(site.query::<i64>("SELECT count(*) FROM event_context"), 4);
}

#[test]
fn a_keyed_event_passes_two_gates_and_both_steps() {
    let site = Site::new()
        .plugin("src", &emitting("s", &json!([{"type": "x", "payload": {"n": 1}, "dedupe_key": "k"}])))
        .plugin("one", &emitting("o", &json!([{"type": "y", "payload": {"n": 1}, "dedupe_key": "k"}])))
        .plugin("two", &quiet("t"))
        .extra(
            "
pipelines:
  - name: p
    on: x
    steps:
      - {id: one, uses: one, if: {path: payload.n, op: eq, value: 1}}
      - {id: two, uses: two, if: {path: payload.n, op: eq, value: 1.0}}
",
        );
    let gateway = site.start();
    gateway.trigger("src", "poll");
    settle(&site, &gateway);
    assert_eq!(
        jobs(&site)[1..],
        [
            "core.switch/one__switch succeeded 1 src",
            "one/one succeeded 2 core.switch",
            "core.switch/two__switch succeeded 3 one",
            "two/two succeeded 4 core.switch",
        ]
    );
    assert_eq!(
        site.database()
            .query_row("SELECT group_concat(dedupe_key) FROM job_queue WHERE plugin = 'core.switch'", [], |row| row
                .get::<_, Sql>(0))
            .expect("a row"),
        Sql::Null
    );
}

#[test]
fn older_routes_lead_events_of_one_plugin_to_another() {
    let x = json!([{"type": "x", "payload": {"n": 1}}]);
    let site = Site::new()
        .plugin("a", &emitting("a", &x))
        .plugin("c", &emitting("c", &x))
        .plugin("b", &quiet("b"))
        .extra("\nroutes:\n  - {from: a, event_type: x, to: b}\n");
    let gateway = site.start();
    let parent = gateway.trigger("a", "poll");
    gateway.trigger("c", "poll");
    settle(&site, &gateway);
    let row: (String, String, String, i64) = site
        .database()
        .query_row(
            "SELECT q.command, q.parent_job_id, q.submitted_by, json_extract(c.accumulated_json, '$.ductile.hop_count')
             FROM job_queue q JOIN event_context c ON c.id = q.event_context_id
             WHERE q.plugin = 'b' AND q.source_event_id IS NOT NULL AND c.pipeline_name = '' AND c.parent_id IS NULL",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .expect("one row");
    assert_eq!(row, ("handle".into(), parent, "route".into(), 1));
    assert_eq!(seen(&site, "b").len(), 1);
}

#[test]
fn other_commands_get_the_prepared_object_and_templates_keep_types() {
    let site = Site::new().plugin_with("p", &quiet("p"), "", "").extra(
        "
pipelines:
  - name: p
    on: go
    steps:
      - uses: p
        command: poll
        with: {n: \"{payload.count}\", s: \"n={payload.big}\", b: \"{{x}}\"}
",
    );
    let gateway = site.start();
    let answer = gateway.post("/pipeline/p?sync=true", &json!({"payload": {"count": 3, "big": 1_000_000}}));
    assert_eq!(answer.body["status"], "succeeded", "{answer:?}");
    let request = &seen(&site, "p")[0];
    assert_eq!(request["command"], "poll");
    let payload = &request["payload"];
    assert_eq!((&payload["n"], &payload["s"], &payload["b"]), (&json!(3), &json!("n=1000000"), &json!("{x}")));
    assert_eq!(request.get("event"), None);
    let missing = gateway.post("/pipeline/p", &json!({"payload": {"count": 3}}));
    let done = gateway.wait_for(missing.body["job_id"].as_str().expect("an id"));
    assert_eq!(done["last_error"], "apply with remap for p/step_1: s: resolve \"payload.big\": path not found");
}

#[test]
fn a_synchronous_start_waits_through_a_retry_and_gives_up_in_time_while_the_jobs_run_on() {
    let flaky = "read line; if [ -e tried ]; then echo '{\"status\":\"ok\",\"result\":\"second\"}'; \
                 else touch tried; echo '{\"status\":\"error\",\"error\":\"not yet\"}'; fi";
    let site = Site::new()
        .plugin("first", &quiet("first"))
        .plugin_with("flaky", flaky, "", "retry: {max_attempts: 2, backoff_base: 10ms}")
        .plugin("slow", super::site::GATED)
        .extra(
            "
pipelines:
  - {name: p, on: go, execution_mode: synchronous, steps: [{uses: first}, {uses: flaky}]}
  - {name: q, on: gone, execution_mode: synchronous, timeout: 50ms, steps: [{uses: slow}]}
  - {name: fan, on: out, execution_mode: synchronous, steps: [{split: [{uses: first}, {uses: first}]}]}
",
        );
    let gateway = site.start();
    let answer = gateway.post("/pipeline/p", &json!({}));
    assert_eq!((answer.status, &answer.body["result"]["result"]), (200, &json!("second")), "{answer:?}");
    assert_eq!(site.query::<i64>("SELECT attempt FROM job_queue WHERE plugin = 'flaky'"), 2);

    let gate = site.path("gate");
    let answer = gateway.post("/pipeline/q", &json!({"payload": {"gate": gate}}));
    assert_eq!((answer.status, &answer.body["timeout_exceeded"]), (202, &json!(true)), "{answer:?}");
    assert_eq!(answer.body["message"], "Pipeline still running after timeout.");
    std::fs::write(&gate, "").expect("the gate");
    let done = gateway.wait_for(answer.body["job_id"].as_str().expect("an id"));
    assert_eq!(done["status"], "succeeded");

    let before = site.query::<i64>("SELECT count(*) FROM job_queue");
    let answer = gateway.post("/pipeline/fan", &json!({}));
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("sync_fanout")), "{answer:?}");
    assert_eq!(site.query::<i64>("SELECT count(*) FROM job_queue"), before);
    let answer = gateway.post("/pipeline/fan?async=true", &json!({}));
    assert_eq!((answer.status, answer.body["job_ids"].as_array().map(Vec::len)), (202, Some(2)), "{answer:?}");
}

#[test]
fn without_a_free_slot_a_synchronous_start_is_refused_and_writes_nothing() {
    let site = Site::new()
        .api("max_concurrent_sync: 1")
        .plugin("slow", super::site::GATED)
        .extra("\npipelines:\n  - {name: q, on: go, steps: [{uses: slow}]}\n");
    let gateway = site.start();
    let gate = site.path("gate");
    let body = json!({"sync": true, "payload": {"gate": gate}});
    let (client, first) = (gateway.client(), body.clone());
    let waiting = std::thread::spawn(move || client.post("/pipeline/q", &first.to_string(), &[]));
    let running = "SELECT count(*) FROM job_queue WHERE status = 'running'";
    eventually(|| if site.query::<i64>(running) == 1 { Ok(()) } else { Err(()) }).expect("the first one runs");
    let answer = gateway.post("/pipeline/q", &body);
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("sync_slots_full")), "{answer:?}");
    assert_eq!(site.query::<i64>("SELECT count(*) FROM job_queue"), 1);
    std::fs::write(&gate, "").expect("the gate");
    assert_eq!(waiting.join().expect("an answer").status, 200);
}

#[test]
fn the_topology_tells_who_talks_to_whom() {
    let site = article(&json!(1)).plugin("extra", &quiet("x"));
    let gateway = site.start();
    let answer = gateway.get("/topology");
    assert_eq!(answer.status, 200, "{answer:?}");
    let plugin = |name: &str| {
        let plugins = answer.body["plugins"].as_array().expect("plugins").clone();
        plugins.into_iter().find(|plugin| plugin["name"] == name).expect("the plugin")
    };
    assert_eq!(plugin("web_fetch")["inputs"], json!([{"signal": "link.found", "command": "handle"}]));
    assert_eq!(plugin("web_fetch")["active"], true);
    assert_eq!((&plugin("extra")["inputs"], &plugin("extra")["outputs"]), (&json!([]), &json!([])));
    let names: Vec<_> = answer.body["plugins"].as_array().expect("plugins").iter().map(|p| p["name"].clone()).collect();
    let mut sorted = names.clone();
    sorted.sort_by_key(ToString::to_string);
    assert_eq!(names, sorted);
    let consumers = answer.body["signals"].as_array().expect("signals");
    let found = consumers.iter().find(|signal| signal["name"] == "link.found").expect("the signal");
    assert_eq!(found["consumers"], json!([{"plugin": "web_fetch", "command": "handle"}]));
    assert_eq!(found["producers"], json!([]));
}

#[test]
fn a_rehearsal_follows_the_event_and_changes_nothing() {
    let site = Site::new().plugin("dst", &quiet("d")).plugin("other", &quiet("o")).extra(
        "
pipelines:
  - name: p
    on: x
    from_plugin: other
    if: {path: payload.n, op: gt, value: 1}
    steps:
      - id: gated
        uses: dst
        if: {path: payload.n, op: gte, value: 5}
        baggage: {kept: payload.n}
        with: {message: \"n is {payload.n}, kept {context.kept}\"}
      - {id: after, uses: other}
",
    );
    site.write_config();
    let rehearse = |args: &[&str]| {
        let all = [&["pipeline", "validate", "p", "--json"], args].concat();
        let output = site.command(&all).output().expect("the binary");
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", super::site::show(&output)));
        (output.status.code(), document)
    };
    let (code, document) = rehearse(&["-f", "n=7", "--from-plugin", "other"]);
    assert_eq!((code, &document["starts"]), (Some(0), &json!(true)), "{document}");
    let jobs = document["jobs"].as_array().expect("jobs");
    let steps: Vec<_> = jobs.iter().map(|job| (job["step_id"].clone(), job["matched"].clone())).collect();
    assert_eq!(steps, [(json!("gated__switch"), json!(true)), (json!("gated"), Value::Null)]);
    assert_eq!(jobs[1]["payload"]["message"], "n is 7, kept 7");
    assert_eq!(jobs[1]["context"]["kept"], 7);

    let (code, document) = rehearse(&["-f", "n=3", "--from-plugin", "other"]);
    assert_eq!(code, Some(0));
    assert_eq!(document["jobs"][1]["step_id"], "after", "past the gate: {document}");
    let (code, document) = rehearse(&["-f", "n=1"]);
    assert_eq!((code, &document["starts"]), (Some(1), &json!(false)));
    assert_eq!(document["from_plugin"], json!({"result": "not_met", "wanted": "other"}));
    assert_eq!(document["if"]["result"], "not_met");
    let (code, document) = rehearse(&["--event-type", "y", "--from-plugin", "other"]);
    assert_eq!(code, Some(1));
    assert_eq!(document["trigger"], json!({"result": "not_met", "wanted": "x"}));
    let output =
        site.command(&["pipeline", "validate", "p", "-f", "n=7", "--from-plugin", "other"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("- p/gated__switch (core.switch handle) -> true\n"), "{text}");
    assert!(!site.path("data/ductile.db").exists(), "no database is needed or made");
}

//! A job, from the door to the row.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::site::{Client, GATED, OK, Site, eventually, is_alive};

#[test]
fn a_job_leaves_its_whole_history_in_the_database() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let job = gateway.trigger_with("hello", "poll", &json!({"n": 1}));
    let seen = gateway.wait_for(&job);
    assert_eq!(seen["status"], "succeeded");
    assert_eq!(seen["result"], json!({"status": "ok", "result": "done"}));
    assert_eq!(seen["submitted_by"], "api");
    let moves = site.column(&format!(
        "SELECT COALESCE(from_status,'-') || '>' || to_status FROM job_transitions WHERE job_id='{job}' ORDER BY id"
    ));
    assert_eq!(moves, ["->queued", "queued>running", "running>succeeded"]);
    assert_eq!(site.query::<i64>(&format!("SELECT COUNT(*) FROM job_attempts WHERE job_id='{job}' AND attempt=1")), 1);
    assert_eq!(site.query::<String>(&format!("SELECT id FROM job_log WHERE job_id='{job}'")), format!("{job}-1"));
    let snapshot: String = site.query("SELECT id FROM config_snapshots WHERE reason='startup'");
    let stamps = "enqueued_config_snapshot_id || started_config_snapshot_id";
    let stamped: String = site.query(&format!("SELECT {stamps} FROM job_queue WHERE id='{job}'"));
    assert_eq!(stamped, format!("{snapshot}{snapshot}"));
    assert_eq!(site.query::<i64>("SELECT json_extract(payload,'$.n') FROM job_queue"), 1);
}

#[test]
fn every_stored_time_has_the_one_form() {
    let script = r#"cat >/dev/null; echo '{"status":"ok","result":"x","state_updates":{"n":1}}'"#;
    let facts = "fact_outputs:\n  - {when: {command: poll}, from: state_updates, fact_type: hello.snapshot}";
    let site = Site::new()
        .service("tick_interval: 100ms\nmax_workers: 2")
        .plugin_with("hello", script, facts, "")
        .plugin_with("gated", GATED, "", "parallelism: 1")
        .plugin_with(
            "bad",
            r#"cat >/dev/null; echo '{"status":"error","error":"x"}'"#,
            "",
            "retry: {max_attempts: 2, backoff_base: 1ms}",
        )
        .extra("\npipelines:\n  - {name: p, on: x, steps: [{uses: hello.poll}]}\n");
    let gateway = site.start();
    assert_eq!(gateway.post("/pipeline/p", &json!({"sync": true})).status, 200);
    let jobs: Vec<String> = (0..100).map(|_| gateway.trigger("hello", "poll")).collect();
    jobs.iter().for_each(|job| drop(gateway.wait_for(job)));
    // Whatever else writes times: retries of both kinds, cancellations, breakers, the janitor, a reload.
    let bad = gateway.trigger("bad", "poll");
    gateway.wait_for(&bad);
    let gated: Vec<String> =
        (0..2).map(|_| gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}))).collect();
    gateway.wait_for_status(&gated[0], |status| status == "running");
    for (job, status) in [(&gated[1], 200), (&gated[0], 202)] {
        assert_eq!(gateway.post(&format!("/job/{job}/cancel"), &json!({})).status, status);
    }
    let again = gateway.post("/jobs/retry", &json!({"job_ids": [bad, gated[1]], "rate": 1}));
    assert_eq!(again.body["retried"].as_array().map(Vec::len), Some(2), "{again:?}");
    site.run(&["system", "reset", "hello"]);
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    eventually(|| match site.query::<i64>("SELECT COUNT(*) FROM janitor_heartbeat") {
        0 => Err(()),
        _ => Ok(()),
    })
    .expect("the janitor to have run");
    let columns = site.column(
        "SELECT t.name || '.' || c.name FROM sqlite_master t, pragma_table_info(t.name) c
         WHERE t.type = 'table' AND (c.name LIKE '%\\_at' ESCAPE '\\')",
    );
    let mut checked = BTreeMap::new();
    for (table, column) in columns.iter().filter_map(|name| name.split_once('.')) {
        let other: i64 = site.query(&format!(
            "SELECT COUNT(*) FROM {table} WHERE {column} NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]Z'"
        ));
        assert_eq!(other, 0, "{table}.{column}");
        *checked.entry(table).or_insert(0) += site.query::<i64>(&format!("SELECT COUNT({column}) FROM {table}"));
    }
    // What is not built yet leaves its tables empty.
    let empty: Vec<&str> = checked.iter().filter(|(_, times)| **times == 0).map(|(table, _)| *table).collect();
    assert_eq!(empty, ["ingress_seen", "job_stopwatch_rollup_daily", "schedule_entries", "vault_audit"]);
    assert!(checked["job_queue"] >= 300 && checked["job_log"] >= 300 && checked["job_stopwatch"] >= 100, "{checked:?}");
    let out_of_order: i64 = site.query(
        "SELECT COUNT(*) FROM job_transitions a JOIN job_transitions b ON b.id = a.id + 1 WHERE b.created_at < a.created_at",
    );
    assert_eq!(out_of_order, 0);
}

#[test]
fn a_synchronous_trigger_answers_with_the_result_and_the_tree() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let answer = gateway.post("/plugin/hello/poll", &json!({"payload": {}, "sync": true}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["status"], "succeeded");
    assert_eq!(answer.body["result"]["result"], "done");
    let tree = answer.body["tree"].as_array().expect("a tree");
    assert_eq!(tree.len(), 1);
    assert_eq!(tree[0]["parent_job_id"], Value::Null);
    let compact = gateway.post("/plugins/hello/run", &json!({"payload": {"message": "x"}, "sync": true}));
    assert_eq!((compact.status, &compact.body["status"]), (200, &json!("succeeded")));
}

#[test]
fn a_synchronous_trigger_gives_up_after_its_timeout_and_the_job_goes_on() {
    let site = Site::new().plugin("slow", &format!("while [ -e \"$0\" ] && [ ! -e go ]; do sleep 0.05; done; {OK}"));
    let gateway = site.start();
    let answer = gateway.post("/plugin/slow/poll", &json!({"sync": true, "timeout": "200ms"}));
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.body["timeout_exceeded"], true);
    assert_eq!(answer.body["message"], "Job still running after timeout.");
    std::fs::write(site.path("go"), "").expect("a file");
    assert_eq!(gateway.wait_for(answer.body["job_id"].as_str().expect("an id"))["status"], "succeeded");
}

#[test]
fn with_one_worker_jobs_start_in_posting_order() {
    let site = Site::new().service("max_workers: 1").plugin("hello", OK);
    let gateway = site.start();
    let jobs: Vec<String> = (0..5).map(|_| gateway.trigger("hello", "poll")).collect();
    jobs.iter().for_each(|job| drop(gateway.wait_for(job)));
    assert_eq!(site.column("SELECT id FROM job_queue ORDER BY started_at"), jobs);
}

#[test]
fn a_full_lane_does_not_hold_up_another_plugin() {
    let site =
        Site::new().service("max_workers: 4").plugin_with("narrow", GATED, "", "parallelism: 1").plugin("wide", OK);
    let gateway = site.start();
    let gate = json!({"gate": site.path("gate")});
    let first = gateway.trigger_with("narrow", "poll", &gate);
    let second = gateway.trigger_with("narrow", "poll", &gate);
    gateway.wait_for_status(&first, |status| status == "running");
    let other = gateway.trigger("wide", "poll");
    assert_eq!(gateway.wait_for(&other)["status"], "succeeded");
    assert_eq!(gateway.get(&format!("/job/{second}")).body["status"], "queued");
    std::fs::write(site.path("gate"), "").expect("a file");
    assert_eq!(gateway.wait_for(&second)["status"], "succeeded");
}

#[test]
fn a_plugin_that_is_not_concurrency_safe_runs_alone_unless_told_otherwise() {
    let site = Site::new()
        .service("max_workers: 4")
        .plugin_with("alone", GATED, "concurrency_safe: false", "")
        .plugin_with("pair", GATED, "concurrency_safe: false", "parallelism: 2");
    let gateway = site.start();
    let gate = json!({"gate": site.path("gate")});
    let alone: Vec<String> = (0..2).map(|_| gateway.trigger_with("alone", "poll", &gate)).collect();
    let pair: Vec<String> = (0..2).map(|_| gateway.trigger_with("pair", "poll", &gate)).collect();
    pair.iter().for_each(|job| drop(gateway.wait_for_status(job, |status| status == "running")));
    gateway.wait_for_status(&alone[0], |status| status == "running");
    assert_eq!(gateway.get(&format!("/job/{}", alone[1])).body["status"], "queued");
    std::fs::write(site.path("gate"), "").expect("a file");
    alone.iter().chain(&pair).for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
}

#[test]
fn a_failing_plugin_is_tried_again_with_growing_pauses_until_its_attempts_are_used_up() {
    let script = r#"cat >/dev/null; echo oops >&2; echo '{"status":"error","error":"broken"}'; exit 1"#;
    let site = Site::new().plugin_with("bad", script, "", "retry: {max_attempts: 3, backoff_base: 40ms}");
    let gateway = site.start();
    let job = gateway.trigger("bad", "poll");
    let seen = gateway.wait_for(&job);
    assert_eq!(
        (&seen["status"], &seen["attempt"], &seen["last_error"]),
        (&json!("failed"), &json!(3), &json!("broken"))
    );
    let log = site.column("SELECT id || ' ' || status || ' ' || stderr FROM job_log ORDER BY id");
    let expected: Vec<String> = (1..=3).map(|n| format!("{job}-{n} failed oops\n")).collect();
    assert_eq!(log, expected);
    let gaps: Vec<f64> = (1..3)
        .map(|n| {
            site.query(&format!(
                "SELECT (julianday(b.started_at) - julianday(a.completed_at)) * 86400000 FROM job_log a JOIN job_log b \
                 ON a.job_id = b.job_id AND a.attempt = {n} AND b.attempt = {n} + 1"
            ))
        })
        .collect();
    // Never earlier than the policy says; how much later depends on the machine.
    assert!(gaps[0] >= 39.0 && gaps[1] >= 79.0, "{gaps:?}");
}

#[test]
fn a_plugin_that_asks_not_to_be_retried_runs_once() {
    let site = Site::new()
        .plugin("no", r#"cat >/dev/null; echo '{"status":"error","error":"no","retry":false}'"#)
        .plugin("config", r#"cat >/dev/null; echo '{"status":"ok","result":"ignored"}'; exit 78"#);
    let gateway = site.start();
    for plugin in ["no", "config"] {
        let seen = gateway.wait_for(&gateway.trigger(plugin, "poll"));
        assert_eq!((&seen["status"], &seen["attempt"]), (&json!("failed"), &json!(1)), "{plugin}");
    }
}

#[test]
fn a_plugin_that_runs_too_long_is_ended_with_everything_it_started() {
    let script =
        r#"trap '' TERM; cat >/dev/null; sleep 300 & echo $! > "$DUCTILE_PAYLOAD_OUT"; while :; do sleep 1; done"#;
    let site = Site::new().plugin_with("stuck", script, "", "retry: {max_attempts: 1}\ntimeouts: {poll: 300ms}");
    let gateway = site.start();
    let out = site.path("child");
    let seen = gateway.wait_for(&gateway.trigger_with("stuck", "poll", &json!({"out": out})));
    assert_eq!(seen["status"], "timed_out");
    assert_eq!(seen["last_error"], "plugin execution timed out after 300ms");
    let child = std::fs::read_to_string(&out).expect("the child's pid");
    assert!(!is_alive(child.trim()), "child {child} still runs");
}

#[test]
fn facts_are_kept_and_the_state_is_their_newest() {
    let script = r#"n=$(sed -n 's/.*"state":{"n":\([0-9]*\)}.*/\1/p'); n=$((${n:-0}+1)); echo "{\"status\":\"ok\",\"result\":\"$n\",\"state_updates\":{\"n\":$n}}""#;
    let facts = "fact_outputs:\n  - {when: {command: poll}, from: state_updates, fact_type: count.snapshot}";
    let site = Site::new().plugin_with("count", script, facts, "parallelism: 1");
    let gateway = site.start();
    for n in 1..=3 {
        let seen = gateway.wait_for(&gateway.trigger("count", "poll"));
        assert_eq!(seen["result"]["result"], n.to_string(), "{seen}");
    }
    assert_eq!(site.column("SELECT seq || ' ' || fact_json FROM plugin_facts ORDER BY seq").len(), 3);
    assert_eq!(site.query::<String>("SELECT state FROM plugin_state WHERE plugin_name='count'"), r#"{"n":3}"#);
    assert_eq!(site.query::<i64>("SELECT value FROM storage_sequences WHERE name='plugin_facts'"), 3);
}

#[test]
fn without_facts_the_state_is_merged_and_keeps_every_digit() {
    let script = r#"cat > "$DUCTILE_PAYLOAD_OUT"; if [ "$DUCTILE_COMMAND" = poll ]; then echo '{"status":"ok","result":"x","state_updates":{"ns":1713740000123456789012345,"a":{"b":1},"kept":true}}'; else echo '{"status":"ok","result":"x","state_updates":{"ns":2,"a":{"c":1}}}'; fi"#;
    let site = Site::new().plugin("digits", script);
    let gateway = site.start();
    let out = site.path("request");
    for _ in 0..2 {
        gateway.wait_for(&gateway.trigger_with("digits", "poll", &json!({"out": out})));
    }
    let request = std::fs::read_to_string(&out).expect("the request");
    assert!(request.contains(r#""ns":1713740000123456789012345"#), "{request}");
    gateway.wait_for(&gateway.trigger_with("digits", "handle", &json!({"out": out})));
    let state: Value = serde_json::from_str(&site.query::<String>("SELECT state FROM plugin_state")).expect("JSON");
    assert_eq!((state["a"].clone(), state["ns"] == json!(2), &state["kept"]), (json!({"c": 1}), true, &json!(true)));
}

#[test]
fn a_state_that_grows_too_large_fails_the_job_and_changes_nothing() {
    let script = r#"if grep -q '"big":true' >/dev/null; then python3 -c 'print("{\"status\":\"ok\",\"result\":\"x\",\"events\":[{\"type\":\"a.b\"},{\"type\":\"c.d\"}],\"state_updates\":{\"big\":\"" + "x"*1100000 + "\"}}")'; else echo '{"status":"ok","result":"x","state_updates":{"small":1}}'; fi"#;
    let facts = "fact_outputs:\n  - {when: {command: poll}, from: state_updates, fact_type: facts.snapshot}";
    let site = Site::new().plugin("merged", script).plugin_with("facts", script, facts, "").extra(
        "\npipelines:\n  - {name: one, on: a.b, steps: [{uses: merged.poll}]}\n  - {name: two, on: c.d, steps: [{uses: \
         facts.poll}]}\n",
    );
    let gateway = site.start();
    for plugin in ["merged", "facts"] {
        assert_eq!(gateway.wait_for(&gateway.trigger(plugin, "poll"))["status"], "succeeded");
        let seen = gateway.wait_for(&gateway.trigger_with(plugin, "poll", &json!({"big": true})));
        assert_eq!((&seen["status"], &seen["attempt"]), (&json!("failed"), &json!(1)), "{plugin}");
        assert_eq!(seen["last_error"], "plugin state exceeds max size (1048576 bytes)");
        let state: String = site.query(&format!("SELECT state FROM plugin_state WHERE plugin_name = '{plugin}'"));
        assert_eq!(state, r#"{"small":1}"#);
    }
    assert_eq!(site.column("SELECT plugin_name || fact_json FROM plugin_facts"), [r#"facts{"small":1}"#]);
    assert_eq!(site.query::<i64>("SELECT value FROM storage_sequences WHERE name = 'plugin_facts'"), 1);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 4, "no successor");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM event_context"), 0);
}

#[test]
fn secrets_reach_only_the_plugin_they_are_granted_to_and_stay_out_of_everything_else() {
    let script = r#"cat > "$DUCTILE_PAYLOAD_OUT"; env > "$DUCTILE_PAYLOAD_OUT.env"; echo "said $(cat "$DUCTILE_PAYLOAD_OUT" | sed -n 's/.*"pw":"\([^"]*\)".*/\1/p')" >&2; echo '{"status":"ok","result":"sent"}'"#;
    let site = Site::new().plugin("mailer", script).plugin("other", script).plugin("poor", script);
    let value = "s3cr3t-value-of-the-mailer";
    site.principal("mailer");
    site.principal("poor");
    site.secret("pw", value, "mailer");
    let gateway = site.start();
    for plugin in ["mailer", "other", "poor"] {
        let seen = gateway.wait_for(&gateway.trigger_with(plugin, "poll", &json!({"out": site.path(plugin)})));
        assert_eq!(seen["status"], "succeeded", "{seen}");
    }
    let request = |plugin: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(site.path(plugin)).expect("a request")).expect("JSON")
    };
    assert_eq!(request("mailer")["secrets"], json!({"pw": value}));
    assert_eq!(request("poor")["secrets"], json!({}), "a principal to whom nothing is granted");
    assert_eq!(request("other").get("secrets"), None);
    let environment = std::fs::read_to_string(site.path("mailer.env")).expect("the environment");
    assert!(!environment.contains(value));
    assert!(!gateway.log().contains(value), "the log holds the secret");
    let stderr: String = site.query("SELECT stderr FROM job_log WHERE plugin='mailer'");
    assert_eq!(stderr, "said [REDACTED]\n");
    drop(gateway);
    for name in ["ductile.db", "ductile.db-wal"] {
        let bytes = std::fs::read(site.path("data").join(name)).unwrap_or_default();
        assert!(!bytes.windows(value.len()).any(|window| window == value.as_bytes()), "{name} holds the secret");
    }
}

#[test]
fn twenty_simultaneous_requests_with_one_key_make_one_job() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let client = gateway.client();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..20)
            .map(|_| {
                let client = client.clone();
                scope.spawn(move || {
                    client.post("/plugin/hello/poll", r#"{"payload":{"n":1}}"#, &[("Idempotency-Key", "k")])
                })
            })
            .collect();
        posts.into_iter().map(|post| post.join().expect("an answer")).collect()
    });
    let ids: std::collections::BTreeSet<_> = answers.iter().map(|answer| answer.body["job_id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 1);
    let conflict = client.post("/plugin/hello/poll", r#"{"payload":{"n":2}}"#, &[("Idempotency-Key", "k")]);
    assert_eq!((conflict.status, &conflict.body["code"]), (409, &json!("idempotency_conflict")));
}

#[test]
fn the_api_says_no_in_one_shape() {
    let site = Site::new().plugin("hello", OK).plugin_entry("off", "uses: hello\nenabled: false");
    let gateway = site.start();
    let nobody = Client::new(gateway.address(), "");
    let answer = nobody.get("/plugins");
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    let wrong = Client::new(gateway.address(), "wrong");
    assert_eq!(wrong.get("/jobs").status, 401);
    assert_eq!(nobody.get("/healthz").status, 200);
    for (method, path, body, status, code) in [
        ("GET", "/nowhere", "", 404, "not_found"),
        ("GET", "/plugins/", "", 404, "not_found"),
        ("GET", "/plugin/nope", "", 404, "not_found"),
        ("POST", "/plugin/nope/poll", "{}", 404, "not_found"),
        ("POST", "/plugin/hello/nope", "{}", 404, "not_found"),
        ("POST", "/plugin/off/poll", "{}", 409, "plugin_not_enabled"),
        ("POST", "/plugin/hello/poll", "{not json", 400, "invalid_json"),
        ("POST", "/plugin/hello/poll", r#"{"payload":[1]}"#, 400, "invalid_payload"),
        ("GET", "/jobs?limit=0", "", 400, "invalid_parameter"),
        ("GET", "/jobs?limit=201", "", 400, "invalid_parameter"),
        ("GET", "/jobs?status=bogus", "", 400, "invalid_parameter"),
        ("GET", "/job/not-a-uuid", "", 404, "not_found"),
        ("POST", "/jobs", "{}", 405, "method_not_allowed"),
    ] {
        let client = gateway.client();
        let answer = if method == "GET" { client.get(path) } else { client.post(path, body, &[]) };
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{method} {path}: {answer:?}");
        assert!(answer.body["error"].is_string() && answer.body["request_id"].is_string(), "{answer:?}");
        assert_eq!(answer.header("x-request-id"), answer.body["request_id"].as_str());
    }
    let large = format!(r#"{{"payload":{{"x":"{}"}}}}"#, "x".repeat(5 << 20));
    let answer = gateway.client().post("/plugin/hello/poll", &large, &[]);
    assert_eq!((answer.status, &answer.body["code"]), (413, &json!("body_too_large")));
    assert_eq!(answer.body["bytes_limit"], 4 << 20);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 0);
}

#[test]
fn paging_gives_every_job_once_while_new_ones_arrive() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let mut expected: Vec<String> = (0..130).map(|_| gateway.trigger("hello", "poll")).collect();
    expected.reverse();
    let mut seen = Vec::new();
    let mut path = "/jobs?limit=50".to_owned();
    loop {
        let page = gateway.get(&path).body;
        gateway.trigger("hello", "poll");
        seen.extend(
            page["jobs"].as_array().expect("jobs").iter().map(|job| job["job_id"].as_str().expect("an id").to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/jobs?limit=50&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_database_that_is_held_by_another_process_makes_requests_wait_and_then_fail_clearly() {
    let site = Site::new().plugin("hello", OK).plugin("gated", GATED);
    let gateway = site.start();
    let running = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&running, |status| status == "running");
    let other = rusqlite::Connection::open(site.path("data/ductile.db")).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    // What ends meanwhile has to wait for the lock, however long it is held.
    std::fs::write(site.path("gate"), "").expect("a file");
    let answer = gateway.post("/plugin/hello/poll", &json!({}));
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("database_busy")), "{answer:?}");
    other.execute_batch("ROLLBACK").expect("the end of the transaction");
    let accepted = eventually(|| {
        let answer = gateway.post("/plugin/hello/poll", &json!({}));
        if answer.status == 202 { Ok(answer.body["job_id"].as_str().expect("an id").to_owned()) } else { Err(answer) }
    });
    gateway.wait_for(&accepted.expect("the queue to take jobs again"));
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 2, "nothing of the refused request is there");
    let finished = gateway.wait_for(&running);
    assert_eq!((&finished["status"], &finished["attempt"]), (&json!("succeeded"), &json!(1)));
}

#[test]
fn an_idle_gateway_starts_a_job_with_the_commit_that_stores_it() {
    let site = Site::new().plugin("gated", GATED);
    let gateway = site.start();
    let gate = json!({"gate": site.path("gate")});
    // Whoever has the answer finds the job claimed: no tick and no second commit stands between.
    let job = gateway.trigger_with("gated", "poll", &gate);
    assert_eq!(gateway.get(&format!("/job/{job}")).body["status"], "running");
    std::fs::write(site.path("gate"), "").expect("a file");
    gateway.wait_for(&job);
}

#[test]
fn a_key_whose_job_has_succeeded_gives_that_job_again_and_only_for_the_same_command() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    let client = gateway.client();
    let post = |command: &str| {
        let answer = client.post(&format!("/plugin/hello/{command}"), r#"{"payload":{},"dedupe_key":" k "}"#, &[]);
        answer.body["job_id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    let first = post("poll");
    assert_eq!(gateway.wait_for(&first)["status"], "succeeded");
    assert_eq!(post("poll"), first);
    let told =
        gateway.wait_for_log("a word about the job that is there", |line| line["existing_job_id"] == first.as_str());
    assert_eq!(
        (&told["level"], &told["dedupe_key"], &told["reason"], told["dedupe_ttl"].is_null()),
        (&json!("INFO"), &json!("k"), &json!("recent_success"), false)
    );
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 1);
    assert_ne!(post("health"), first);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE dedupe_key = 'k'"), 2);
}

#[test]
fn ids_are_of_the_seventh_version_and_sort_by_creation() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let ids: Vec<String> = (0..20).map(|_| gateway.trigger("hello", "poll")).collect();
    let hex = "[0-9a-f]";
    let form = [
        hex.repeat(8),
        hex.repeat(4),
        format!("7{}", hex.repeat(3)),
        format!("[89ab]{}", hex.repeat(3)),
        hex.repeat(12),
    ]
    .join("-");
    assert_eq!(site.query::<i64>(&format!("SELECT COUNT(*) FROM job_queue WHERE id GLOB '{form}'")), 20);
    assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{ids:?}");
}

#[test]
fn a_job_is_inspected_with_flags_before_or_after_its_id_and_also_when_its_row_is_pruned() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let job = gateway.trigger("hello", "poll");
    gateway.wait_for(&job);
    let after = site.run(&["job", "inspect", &job, "--json"]);
    assert_eq!(site.run(&["job", "inspect", "--json", &job]), after);
    let document: Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!((&document["source"], &document["steps"]), (&json!("job_queue"), &json!([])));
    let other = rusqlite::Connection::open(site.path("data/ductile.db")).expect("the database");
    other.busy_timeout(Duration::from_secs(10)).expect("a busy timeout");
    other.execute("DELETE FROM job_queue WHERE id = ?1", [&job]).expect("a pruned row");
    let document: Value = serde_json::from_str(&site.run(&["job", "inspect", &job, "--json"])).expect("JSON");
    assert_eq!(
        (&document["source"], &document["job_id"], &document["status"], &document["hops"]),
        (&json!("job_log"), &json!(job), &json!("succeeded"), &json!(0))
    );
    assert_eq!(gateway.get(&format!("/job/{job}")).body["status"], "succeeded");
    let unknown =
        site.command(&["job", "inspect", "019b7ca9-0000-7000-8000-000000000000"]).output().expect("the binary");
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn the_log_is_searched_for_the_letters_given_and_by_producer() {
    let script = r#"cat >/dev/null; echo '{"status":"error","error":"'"$DUCTILE_PAYLOAD_SAY"'","retry":false}'"#;
    let site = Site::new().plugin("says", script);
    let gateway = site.start();
    for say in ["full 100%", "full 100x"] {
        gateway.wait_for(&gateway.trigger_with("says", "poll", &json!({"say": say})));
    }
    let logs = |args: &[&str]| -> Value {
        let all = [&["job", "logs", "--json"], args].concat();
        serde_json::from_str(&site.run(&all)).expect("JSON")
    };
    let found = logs(&["--query", "100%"]);
    assert_eq!((&found["total"], &found["logs"][0]["last_error"]), (&json!(1), &json!("full 100%")));
    assert_eq!(logs(&["--query", "FULL"])["total"], 2);
    assert_eq!(logs(&["--submitted-by", "api"])["total"], 2);
    assert_eq!(logs(&["--status", "Error", "--limit", "1"])["logs"].as_array().map(Vec::len), Some(1));
    let ended: String = site.query("SELECT replace(completed_at, ' ', 'T') FROM job_log ORDER BY completed_at LIMIT 1");
    assert_eq!(logs(&["--from", &ended, "--to", &ended])["total"], 1, "both ends count");
    assert_eq!(logs(&["--submitted-by", "webhook"]), json!({"total": 0, "logs": []}));
    for (args, message) in [
        (["--status", "bogus"], "invalid status filter"),
        (["--from", "yesterday"], "invalid from timestamp"),
        (["--to", "2026-13-01T00:00:00Z"], "invalid to timestamp"),
        (["--limit", "0"], "limit must be between 1 and 200"),
        (["--limit", "201"], "limit must be between 1 and 200"),
    ] {
        let output = site.command(&[&["job", "logs"], &args[..]].concat()).output().expect("the binary");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(message)), (Some(1), true), "{args:?}: {said}");
    }
}

#[test]
fn jobs_of_every_producer_are_told_apart_by_its_word() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    gateway.wait_for(&gateway.trigger("hello", "poll"));
    let words = ["site", "mcp", "webhook:/x", "webhook:/x/y", "relay:a", "route", "hook", "cli", "core"];
    // Most producers are still to come; their rows run like all others.
    for (n, word) in words.iter().enumerate() {
        site.outsider()
            .execute(
                "INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, created_at)
                 VALUES (?1, 'hello', 'poll', '{}', 'queued', ?2, '2026-01-02 03:04:05.000000000Z')",
                (format!("made-by-hand-{n}"), word),
            )
            .expect("a row");
        assert_eq!(gateway.wait_for(&format!("made-by-hand-{n}"))["status"], "succeeded", "{word}");
    }
    let exact = words.iter().chain(&["api"]).map(|word| (*word, 1));
    for (word, count) in exact.chain([("webhook", 2), ("relay", 1), ("webhook:/", 0), ("ap", 0)]) {
        let logs: Value =
            serde_json::from_str(&site.run(&["job", "logs", "--submitted-by", word, "--json"])).expect("JSON");
        assert_eq!(logs["total"], count, "{word}");
    }
}

#[test]
fn a_time_that_can_not_be_read_is_null_with_a_warning_and_never_a_failed_listing() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    gateway.wait_for(&gateway.trigger("hello", "poll"));
    gateway.stop();
    let database = rusqlite::Connection::open(site.path("data/ductile.db")).expect("the database");
    database.execute("UPDATE job_log SET completed_at = 'garbage'", []).expect("a row");
    drop(database);
    let output = site.command(&["job", "logs", "--json"]).output().expect("the binary");
    let logs: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&logs["total"], &logs["logs"][0]["completed_at"]), (&json!(1), &Value::Null));
    assert!(String::from_utf8_lossy(&output.stderr).contains("WARN"), "{}", crate::site::show(&output));
}

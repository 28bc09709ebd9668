//! Jobs that went wrong, queued again by hand: one or many, over HTTP and from the command line.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::site::{GATED, Gateway, Site, show, token};

/// Fails for good until the file named in its payload is there.
const BROKEN: &str = r#"cat >/dev/null
if [ -e "$DUCTILE_PAYLOAD_MENDED" ]; then echo '{"status":"ok","result":"done"}'; else echo '{"status":"error","error":"broken","retry":false}'; fi"#;

const UNKNOWN: &str = "019b7ca9-0000-7000-8000-000000000000";

fn site() -> Site {
    Site::new().service("max_workers: 2").plugin("broken", BROKEN).plugin("gated", GATED)
}

/// Jobs that failed, oldest first.
fn failed(site: &Site, gateway: &Gateway, count: usize) -> Vec<String> {
    let payload = json!({"mended": site.path("mended")});
    let jobs: Vec<String> = (0..count).map(|_| gateway.trigger_with("broken", "poll", &payload)).collect();
    jobs.iter().for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "failed"));
    jobs
}

fn mend(site: &Site) {
    fs::write(site.path("mended"), "").expect("a file");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_owned()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn a_failed_job_is_queued_again_as_a_new_one_and_both_name_each_other() {
    let site = site();
    let gateway = site.start();
    let body = json!({"payload": {"mended": site.path("mended"), "n": 1}, "dedupe_key": "k"});
    let old = text(&gateway.post("/plugin/broken/poll", &body).body["job_id"]);
    assert_eq!(gateway.wait_for(&old)["status"], "failed");
    mend(&site);
    let answer = gateway.post(&format!("/job/{old}/retry"), &json!({}));
    let new = text(&answer.body["job_id"]);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(
        answer.body,
        json!({"job_id": new, "status": "queued", "plugin": "broken", "command": "poll", "retry_of": old})
    );
    assert_eq!(gateway.wait_for(&new)["status"], "succeeded");
    let same = format!(
        "SELECT COUNT(*) FROM job_queue a JOIN job_queue b ON a.id = '{old}' AND b.id = '{new}'
         WHERE a.payload = b.payload AND a.max_attempts = b.max_attempts AND b.submitted_by = 'api' AND b.attempt = 1
           AND a.dedupe_key = 'k' AND b.dedupe_key IS NULL"
    );
    assert_eq!(site.query::<i64>(&same), 1);
    assert_eq!(gateway.get(&format!("/job/{old}")).body["status"], "failed", "the old one stays what it was");
    let inspect =
        |job: &str| -> Value { serde_json::from_str(&site.run(&["job", "inspect", job, "--json"])).expect("JSON") };
    assert_eq!((&inspect(&old)["retried_as"], inspect(&old).get("retry_of")), (&json!([new]), None));
    assert_eq!((&inspect(&new)["retry_of"], inspect(&new).get("retried_as")), (&json!(old), None));
    assert!(site.run(&["job", "inspect", &new]).contains(&format!("\nRetry of    : {old}\n")));
    assert!(site.run(&["job", "inspect", &old]).contains(&format!("\nRetried as  : {new}\n")));
    // Asked for by its name, a job is queued as often as somebody asks.
    let second = text(&gateway.post(&format!("/job/{old}/retry"), &json!({})).body["job_id"]);
    assert_eq!(gateway.wait_for(&second)["status"], "succeeded");
    assert_eq!(inspect(&old)["retried_as"], json!([new, second]));
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 3);
}

#[test]
fn what_can_not_be_retried_is_refused_with_the_reason_and_force_goes_further() {
    let site = site();
    let gateway = site.start();
    mend(&site);
    let good = gateway.trigger_with("broken", "poll", &json!({"mended": site.path("mended")}));
    assert_eq!(gateway.wait_for(&good)["status"], "succeeded");
    let running = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&running, |status| status == "running");
    site.outsider()
        .execute_batch(
            "INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, created_at, completed_at)
             VALUES ('gone', 'nowhere', 'poll', '{}', 'failed', 'api', '2026-01-02 03:04:05.000000000Z', '2026-01-02 03:04:06.000000000Z')",
        )
        .expect("a row");
    let ask = |job: &str, query: &str| gateway.post(&format!("/job/{job}/retry{query}"), &json!({}));
    for (job, query, status, code, reason) in [
        (good.as_str(), "", 409, "job_not_retryable", "not_failed"),
        (&good, "?force=false", 409, "job_not_retryable", "not_failed"),
        (&running, "", 409, "job_not_retryable", "active"),
        (&running, "?force=true", 409, "job_not_retryable", "active"),
        ("gone", "", 409, "job_not_retryable", "plugin_unavailable"),
        (UNKNOWN, "", 404, "not_found", ""),
        ("no-id-at-all", "?force=true", 404, "not_found", ""),
        (&good, "?force=perhaps", 400, "invalid_parameter", ""),
    ] {
        let answer = ask(job, query);
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{job}{query}: {answer:?}");
        if !reason.is_empty() {
            assert_eq!(answer.body["context"]["reason"], reason, "{job}{query}: {answer:?}");
        }
    }
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 3, "nothing was queued");
    let forced = ask(&good, "?force=true");
    assert_eq!((forced.status, &forced.body["retry_of"]), (202, &json!(good)), "{forced:?}");
    assert_eq!(gateway.wait_for(&text(&forced.body["job_id"]))["status"], "succeeded");
    site.outsider().execute("DELETE FROM job_queue WHERE id = ?1", [&good]).expect("a pruned row");
    let pruned = ask(&good, "?force=true");
    assert_eq!((pruned.status, &pruned.body["code"]), (410, &json!("job_payload_gone")), "{pruned:?}");
    fs::write(site.path("gate"), "").expect("a file");
    gateway.wait_for(&running);
}

#[test]
fn many_are_queued_at_once_come_due_one_after_the_other_and_never_twice() {
    let site = site();
    let gateway = site.start();
    let old = failed(&site, &gateway, 3);
    let filter = json!({"filter": {"plugin": "broken", "status": ["failed"], "since": "1h"}, "rate": 2});
    let with = |more: Value| {
        let mut body = filter.clone();
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        gateway.post("/jobs/retry", &body)
    };
    let plan = with(json!({"dry_run": true}));
    assert_eq!((plan.status, keys(&plan.body)), (200, vec!["dry_run", "retried", "skipped", "more", "rate"]));
    assert_eq!(keys(&plan.body["retried"][0]), ["retry_of", "plugin", "command", "due_at"]);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 3, "a plan writes nothing");
    let limited = with(json!({"dry_run": true, "limit": 2}));
    assert_eq!((limited.body["retried"].as_array().map(Vec::len), &limited.body["more"]), (Some(2), &json!(true)));

    mend(&site);
    let done = with(json!({}));
    assert_eq!((done.status, &done.body["more"], &done.body["rate"]), (202, &json!(false), &json!(2)), "{done:?}");
    let retried = done.body["retried"].as_array().expect("a list");
    let originals: Vec<String> = retried.iter().map(|row| text(&row["retry_of"])).collect();
    assert_eq!(originals, old, "oldest first");
    let due: Vec<chrono::DateTime<chrono::FixedOffset>> =
        retried.iter().map(|row| text(&row["due_at"]).parse().expect("a time")).collect();
    let apart = chrono::TimeDelta::milliseconds(500);
    assert_eq!([due[1] - due[0], due[2] - due[1]], [apart; 2], "two per second");
    for row in retried {
        let job = text(&row["job_id"]);
        assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
        let due = text(&row["due_at"]).replace('T', " ");
        let early: i64 = site.query(&format!("SELECT started_at < '{due}' FROM job_queue WHERE id = '{job}'"));
        assert_eq!(early, 0, "nobody starts before its time");
    }
    let again = with(json!({}));
    assert_eq!((again.status, &again.body["retried"], &again.body["skipped"]), (202, &json!([]), &json!([])));
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 6);
}

#[test]
fn named_jobs_that_are_left_alone_are_told_with_their_reasons() {
    let site = site();
    let gateway = site.start();
    let old = failed(&site, &gateway, 3);
    mend(&site);
    let good = gateway.trigger_with("broken", "poll", &json!({"mended": site.path("mended")}));
    assert_eq!(gateway.wait_for(&good)["status"], "succeeded");
    let running = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&running, |status| status == "running");
    site.outsider().execute("DELETE FROM job_queue WHERE id = ?1", [&old[1]]).expect("a pruned row");
    site.outsider().execute("UPDATE job_queue SET plugin = 'nowhere' WHERE id = ?1", [&old[2]]).expect("a row");
    let ids = [&old[0], &old[0], &old[1], &old[2], &good, &running, UNKNOWN];
    let answer = gateway.post("/jobs/retry", &json!({"job_ids": ids}));
    assert_eq!((answer.status, answer.body["retried"].as_array().map(Vec::len)), (202, Some(1)), "{answer:?}");
    let new = &answer.body["retried"][0];
    assert_eq!(
        (keys(new), &new["retry_of"]),
        (vec!["job_id", "retry_of", "plugin", "command", "due_at"], &json!(old[0]))
    );
    let skipped: Vec<(String, String)> = answer.body["skipped"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (text(&row["job_id"]), text(&row["reason"])))
        .collect();
    let expected = [
        (old[0].as_str(), "already_retried"),
        (&old[1], "payload_gone"),
        (&old[2], "plugin_unavailable"),
        (&good, "not_failed"),
        (&running, "active"),
        (UNKNOWN, "not_found"),
    ];
    assert_eq!(skipped, expected.map(|(job, reason)| (job.to_owned(), reason.to_owned())));
    assert!(answer.body["skipped"].as_array().expect("a list").iter().all(|row| row["message"].is_string()));
    let forced = gateway.post("/jobs/retry", &json!({"job_ids": [old[0], good], "force": true, "rate": 1000}));
    assert_eq!(forced.body["retried"].as_array().map(Vec::len), Some(2), "{forced:?}");
    fs::write(site.path("gate"), "").expect("a file");
    for row in forced.body["retried"].as_array().expect("a list") {
        assert_eq!(gateway.wait_for(&text(&row["job_id"]))["status"], "succeeded");
    }
}

#[test]
fn a_request_that_is_not_clear_queues_nothing() {
    let site = site();
    let gateway = site.start();
    failed(&site, &gateway, 1);
    for (body, code) in [
        ("", "invalid_parameter"),
        ("{}", "invalid_parameter"),
        ("{", "invalid_json"),
        (r#"{"job_ids":[]}"#, "invalid_parameter"),
        (r#"{"job_ids":"x"}"#, "invalid_parameter"),
        (r#"{"job_ids":[1]}"#, "invalid_parameter"),
        (r#"{"filter":{}}"#, "invalid_parameter"),
        (r#"{"filter":{"plugin":"broken"},"job_ids":["x"]}"#, "invalid_parameter"),
        (r#"{"filter":{"plugins":"broken"}}"#, "invalid_parameter"),
        (r#"{"filter":{"plugin":"broken"},"dryrun":true}"#, "invalid_parameter"),
        (r#"{"filter":{"status":"failed"}}"#, "invalid_parameter"),
        (r#"{"filter":{"status":["running"]}}"#, "invalid_parameter"),
        (r#"{"filter":{"plugin":"broken","since":"yesterday"}}"#, "invalid_parameter"),
        (r#"{"filter":{"plugin":"broken"},"rate":0}"#, "invalid_parameter"),
        (r#"{"filter":{"plugin":"broken"},"rate":1001}"#, "invalid_parameter"),
        (r#"{"filter":{"plugin":"broken"},"limit":0}"#, "invalid_parameter"),
        (r#"{"filter":{"plugin":"broken"},"limit":10001}"#, "invalid_parameter"),
    ] {
        let answer = gateway.client().post("/jobs/retry", body, &[]);
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!(code)), "{body}: {answer:?}");
    }
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 1);
}

fn command(site: &Site, gateway: &Gateway, args: &[&str]) -> Output {
    let url = format!("http://{}", gateway.address());
    let args = [&["job", "retry"], args, &["--api-url", &url, "--api-key", token()]].concat();
    site.command(&args).output().expect("the binary")
}

#[test]
fn the_command_retries_by_ids_and_by_filters_and_a_plan_runs_nothing() {
    let site = site();
    let gateway = site.start();
    let old = failed(&site, &gateway, 3);
    mend(&site);
    let said = |args: &[&str], status: i32| {
        let output = command(&site, &gateway, args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", show(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let plan =
        said(&["--plugin", "broken", "--status", "failed,timed_out", "--since", "1h", "--rate", "3", "--dry-run"], 0);
    let lines: Vec<&str> = plan.lines().collect();
    assert_eq!(lines.len(), 4, "{plan}");
    for (line, job) in lines.iter().zip(&old) {
        assert!(line.starts_with(&format!("would retry {job} (broken:poll) due ")), "{plan}");
    }
    assert_eq!(lines[3], "3 would be retried, 0 skipped, 3 per second");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 3);

    let by_id = said(&[&old[0][28..], &old[1], "--json"], 0);
    let document: Value = serde_json::from_str(&by_id).expect("JSON");
    let originals: Vec<String> =
        document["retried"].as_array().expect("a list").iter().map(|row| text(&row["retry_of"])).collect();
    assert_eq!(originals, old[..2]);
    let rest = said(&["--plugin", "broken", "--command", "poll", "--limit", "3"], 0);
    assert!(rest.contains(&format!("retried {} as ", old[2])), "{rest}");
    assert!(rest.ends_with("1 retried, 0 skipped, 10 per second\n"), "{rest}");
    // Nothing of what was named could be done; a filter that finds nothing is no failure.
    assert!(said(&[&old[2]], 1).starts_with(&format!("skipped {}: it was retried as ", old[2])));
    assert!(said(&["--plugin", "broken", "--status", "dead"], 0).starts_with("0 retried, 0 skipped"));
    assert!(said(&[&old[2], "--force"], 0).starts_with(&format!("retried {} as ", old[2])));
    let last = site.column("SELECT id FROM job_queue");
    last.iter()
        .filter(|job| !old.contains(job))
        .for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
    for (args, words) in [
        (&[][..], "say which jobs"),
        (&[old[0].as_str(), "--plugin", "broken"], "--plugin"),
        (&["00000000"], "job \"00000000\" not found"),
        (&["--plugin", "broken", "--rate", "0"], "rate must be 1 to 1000"),
        (&["--plugin", "broken", "--limit", "10001"], "limit must be 1 to 10000"),
        (&["--status", "running"], "invalid status filter"),
    ] {
        let output = command(&site, &gateway, args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{args:?}: {}", show(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{args:?}: {}", show(&output));
    }
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 7);
}

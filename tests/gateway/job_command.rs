//! `ductile job`: what it tells of a database, exactly as scripts read it and as people see it on a terminal.

use std::process::Output;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::maintenance::{by_hand, listing, refused};
use crate::site::{OK, Site, show};
use crate::terminal::Terminal;

/// A pipeline of three jobs by hand: one that reads, and what became of it in two steps. Another is retried.
const ROWS: &str = r#"
INSERT INTO event_context VALUES
    ('c-1', NULL, '', '', '{"ductile_route_depth":0}', '2026-01-02 03:04:05.000000000Z'),
    ('c-2', 'c-1', 'file-to-report', 'save', '{"title":"x","big":12345678901234567890}', '2026-01-02 03:04:06.000000000Z'),
    ('c-3', 'c-2', 'file-to-report', 'tell', '{"title":"x"}', '2026-01-02 03:04:07.000000000Z');
INSERT INTO job_queue (id, plugin, command, payload, status, attempt, max_attempts, submitted_by, dedupe_key, created_at,
                       started_at, completed_at, last_error, parent_job_id, source_event_id, event_context_id,
                       enqueued_config_snapshot_id, started_config_snapshot_id) VALUES
    ('01a22d63-0000-7000-8000-00000000aaaa', 'reader', 'handle', '{"n":1.50}', 'succeeded', 1, 4, 'api', NULL,
     '2026-01-02 03:04:05.000000001Z', '2026-01-02 03:04:05.100000000Z', '2026-01-02 03:04:06.000000000Z', NULL, NULL,
     NULL, 'c-1', 'cfg_1', 'cfg_1'),
    ('01a22d63-0000-7000-8000-00000000bbbb', 'summary', 'handle', NULL, 'succeeded', 2, 4, 'route', 'k',
     '2026-01-02 03:04:06.000000000Z', '2026-01-02 03:04:06.500000000Z', '2026-01-02 03:04:07.000000000Z', NULL,
     '01a22d63-0000-7000-8000-00000000aaaa', 'event-1', 'c-2', 'cfg_1', 'cfg_2'),
    ('01a22d63-0000-7000-8000-00000000cccc', 'tell', 'handle', NULL, 'failed', 1, 1, 'route', NULL,
     '2026-01-02 03:04:07.000000000Z', '2026-01-02 03:04:07.500000000Z', '2026-01-02 03:04:08.000000000Z', 'no post',
     '01a22d63-0000-7000-8000-00000000bbbb', 'event-2', 'c-3', 'cfg_2', 'cfg_2'),
    ('01a22d63-0000-7000-8000-00000000dddd', 'alarm', 'poll', NULL, 'queued', 1, 4, 'hook', NULL,
     '2026-01-02 03:04:08.000000000Z', NULL, NULL, NULL, '01a22d63-0000-7000-8000-00000000bbbb', 'event-3', NULL,
     'cfg_2', NULL),
    ('01a22d63-0000-7000-8000-00000000eeee', 'tell', 'handle', NULL, 'succeeded', 1, 1, 'api', NULL,
     '2026-01-02 03:05:00.000000000Z', '2026-01-02 03:05:00.000000000Z', '2026-01-02 03:05:01.000000000Z', NULL,
     '01a22d63-0000-7000-8000-00000000bbbb',
     'retry:01a22d63-0000-7000-8000-00000000cccc/01a22d63-0000-7000-8000-00000000eeee', 'c-3', 'cfg_2', 'cfg_2');
INSERT INTO job_transitions (job_id, from_status, to_status, reason, created_at) VALUES
    ('01a22d63-0000-7000-8000-00000000bbbb', NULL, 'queued', NULL, '2026-01-02 03:04:06.000000000Z'),
    ('01a22d63-0000-7000-8000-00000000bbbb', 'queued', 'running', NULL, '2026-01-02 03:04:06.100000000Z'),
    ('01a22d63-0000-7000-8000-00000000bbbb', 'running', 'queued', 'no paper', '2026-01-02 03:04:06.200000000Z'),
    ('01a22d63-0000-7000-8000-00000000bbbb', 'queued', 'running', NULL, '2026-01-02 03:04:06.500000000Z'),
    ('01a22d63-0000-7000-8000-00000000bbbb', 'running', 'succeeded', NULL, '2026-01-02 03:04:07.000000000Z');
INSERT INTO job_attempts (job_id, attempt, created_at) VALUES
    ('01a22d63-0000-7000-8000-00000000bbbb', 1, '2026-01-02 03:04:06.100000000Z'),
    ('01a22d63-0000-7000-8000-00000000bbbb', 2, '2026-01-02 03:04:06.500000000Z');
INSERT INTO plugin_facts VALUES
    ('f-3', 43, 'summary', 'summary.other', '01a22d63-0000-7000-8000-00000000ffff', 'handle', '{}', '2026-01-02 03:04:07.000000000Z'),
    ('f-2', 42, 'summary', 'summary.size', '01a22d63-0000-7000-8000-00000000bbbb', 'handle', '{}', '2026-01-02 03:04:07.000000000Z'),
    ('f-1', 41, 'summary', 'summary.snapshot', '01a22d63-0000-7000-8000-00000000bbbb', 'handle', '{}', '2026-01-02 03:04:07.000000000Z');
INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, completed_at, last_error,
                     stderr, parent_job_id, source_event_id, event_context_id, enqueued_config_snapshot_id,
                     started_config_snapshot_id, started_at) VALUES
    ('01a22d63-0000-7000-8000-00000000aaaa-1', '01a22d63-0000-7000-8000-00000000aaaa', 'reader', 'handle', 'succeeded',
     '{"status":"ok","n":1.50}', 1, 'webhook:/x', '2026-01-02 03:04:05.000000001Z', '2026-01-02 03:04:06.000000000Z', NULL,
     NULL, NULL, NULL, 'c-1', 'cfg_1', 'cfg_1', '2026-01-02 03:04:05.100000000Z'),
    ('01a22d63-0000-7000-8000-00000000bbbb-1', '01a22d63-0000-7000-8000-00000000bbbb', 'summary', 'handle', 'failed',
     NULL, 1, 'route', '2026-01-02 03:04:06.000000000Z', '2026-01-02 03:04:06.200000000Z', 'no paper', 'line one
line two
', '01a22d63-0000-7000-8000-00000000aaaa', 'event-1', 'c-2', 'cfg_1', 'cfg_1', '2026-01-02 03:04:06.100000000Z'),
    ('01a22d63-0000-7000-8000-00000000bbbb-2', '01a22d63-0000-7000-8000-00000000bbbb', 'summary', 'handle', 'succeeded',
     '{"status":"ok"}', 2, 'route', '2026-01-02 03:04:06.000000000Z', '2026-01-02 03:04:07.000000000Z', NULL, NULL,
     '01a22d63-0000-7000-8000-00000000aaaa', 'event-1', 'c-2', 'cfg_1', 'cfg_2', '2026-01-02 03:04:06.500000000Z'),
    ('01a22d63-0000-7000-8000-00000000cccc-1', '01a22d63-0000-7000-8000-00000000cccc', 'tell', 'handle', 'failed', NULL, 1,
     'route', '2026-01-02 03:04:07.000000000Z', '2026-01-02 03:04:08.000000000Z', 'no post', NULL,
     '01a22d63-0000-7000-8000-00000000bbbb', 'event-2', 'c-3', 'cfg_2', 'cfg_2', '2026-01-02 03:04:07.500000000Z');
"#;

const READER: &str = "01a22d63-0000-7000-8000-00000000aaaa";
const SUMMARY: &str = "01a22d63-0000-7000-8000-00000000bbbb";
const TELL: &str = "01a22d63-0000-7000-8000-00000000cccc";
const ALARM: &str = "01a22d63-0000-7000-8000-00000000dddd";
const RETRY: &str = "01a22d63-0000-7000-8000-00000000eeee";

fn site() -> (Site, Connection) {
    let site = Site::new().plugin("hello", OK);
    let connection = by_hand(&site);
    connection.execute_batch(ROWS).expect("rows");
    (site, connection)
}

fn json_of(site: &Site, args: &[&str]) -> Value {
    let text = site.run(args);
    assert!(text.starts_with("{\n  \"") && text.ends_with("\n}\n"), "indented by two, one newline: {text}");
    serde_json::from_str(&text).expect("JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn output(site: &Site, args: &[&str]) -> Output {
    site.command(args).output().expect("the binary")
}

#[test]
fn the_document_of_a_job_has_its_keys_in_order_and_flags_may_stand_before_the_id() {
    let (site, _database) = site();
    let document = json_of(&site, &["job", "inspect", SUMMARY, "--json"]);
    assert_eq!(json_of(&site, &["job", "inspect", "--json", SUMMARY]), document);
    assert_eq!(json_of(&site, &["--json", "job", "inspect", SUMMARY]), document);
    let expected = json!({
        "job_id": SUMMARY, "plugin": "summary", "command": "handle", "status": "succeeded", "context_id": "c-2", "hops": 2,
        "steps": [
            {"hop": 1, "pipeline": "<root>", "step_id": "<entry>", "context_id": "c-1", "job_id": READER,
             "plugin": "reader", "command": "handle", "status": "succeeded", "artifacts": [],
             "baggage": {"ductile_route_depth": 0}},
            {"hop": 2, "pipeline": "file-to-report", "step_id": "save", "context_id": "c-2", "parent_id": "c-1",
             "job_id": SUMMARY, "plugin": "summary", "command": "handle", "status": "succeeded", "artifacts": [],
             "baggage": {"title": "x", "big": 12_345_678_901_234_567_890_u64}}
        ],
        "source": "job_queue", "submitted_by": "route", "attempt": 2, "max_attempts": 4, "dedupe_key": "k",
        "parent_job_id": READER, "source_event_id": "event-1",
        "created_at": "2026-01-02T03:04:06Z", "started_at": "2026-01-02T03:04:06.500Z",
        "completed_at": "2026-01-02T03:04:07Z", "next_retry_at": null, "last_error": null,
        "enqueued_config_snapshot_id": "cfg_1", "started_config_snapshot_id": "cfg_2",
        "transitions": [
            {"from_status": null, "to_status": "queued", "reason": null, "created_at": "2026-01-02T03:04:06Z"},
            {"from_status": "queued", "to_status": "running", "reason": null, "created_at": "2026-01-02T03:04:06.100Z"},
            {"from_status": "running", "to_status": "queued", "reason": "no paper", "created_at": "2026-01-02T03:04:06.200Z"},
            {"from_status": "queued", "to_status": "running", "reason": null, "created_at": "2026-01-02T03:04:06.500Z"},
            {"from_status": "running", "to_status": "succeeded", "reason": null, "created_at": "2026-01-02T03:04:07Z"}
        ],
        "attempts": [
            {"attempt": 1, "created_at": "2026-01-02T03:04:06.100Z"},
            {"attempt": 2, "created_at": "2026-01-02T03:04:06.500Z"}
        ],
        "children": [
            {"job_id": TELL, "plugin": "tell", "command": "handle", "status": "failed"},
            {"job_id": ALARM, "plugin": "alarm", "command": "poll", "status": "queued"},
            {"job_id": RETRY, "plugin": "tell", "command": "handle", "status": "succeeded"}
        ],
        "facts": [
            {"seq": 41, "fact_type": "summary.snapshot", "created_at": "2026-01-02T03:04:07Z"},
            {"seq": 42, "fact_type": "summary.size", "created_at": "2026-01-02T03:04:07Z"}
        ],
        "consistency": {"status_matches_latest": true, "attempts_match": true, "missing_facts": false}
    });
    assert_eq!(document, expected);
    assert_eq!(keys(&document), keys(&expected));
    for (step, expected) in [0, 1].map(|n| (&document["steps"][n], &expected["steps"][n])) {
        assert_eq!(keys(step), keys(expected));
    }
    let created = &json_of(&site, &["job", "inspect", READER, "--json"])["created_at"];
    assert_eq!(created, "2026-01-02T03:04:05.000000001Z");
}

#[test]
fn with_more_to_tell_the_document_has_the_payload_and_every_attempt() {
    let (site, _database) = site();
    let document = json_of(&site, &["job", "inspect", "-v", "--json", READER]);
    assert_eq!(document["payload"].to_string(), r#"{"n":1.50}"#);
    let log = json_of(&site, &["job", "inspect", SUMMARY, "--verbose", "--json"])["log"].clone();
    let expected = json!([
        {"log_id": format!("{SUMMARY}-1"), "attempt": 1, "status": "failed", "completed_at": "2026-01-02T03:04:06.200Z",
         "last_error": "no paper", "stderr": "line one\nline two\n", "result": null},
        {"log_id": format!("{SUMMARY}-2"), "attempt": 2, "status": "succeeded", "completed_at": "2026-01-02T03:04:07Z",
         "last_error": null, "stderr": null, "result": {"status": "ok"}}
    ]);
    assert_eq!(log, expected);
    assert_eq!(keys(&log[0]), keys(&expected[0]));
    let told = output(&site, &["job", "inspect", "-v", "--json", SUMMARY]).stderr;
    assert!(String::from_utf8_lossy(&told).contains("ductile.db"), "what was read is said on stderr");
}

#[test]
fn the_text_of_a_job_is_the_same_for_every_script() {
    let (site, _database) = site();
    let expected = format!(
        r#"Lineage Report
Job ID      : {SUMMARY}
Plugin      : summary
Command     : handle
Status      : succeeded
Context ID  : c-2
Hops        : 2
Attempt     : 2/4
Submitted by: route
Config      : cfg_1 -> cfg_2

[1] <root> :: <entry>
    context_id : c-1
    parent_id  : <none>
    job        : {READER} (reader:handle, succeeded)
    baggage    : {{
      "ductile_route_depth": 0
    }}
[2] file-to-report :: save
    context_id : c-2
    parent_id  : c-1
    job        : {SUMMARY} (summary:handle, succeeded)
    baggage    : {{
      "title": "x",
      "big": 12345678901234567890
    }}
Transitions:
- 2026-01-02T03:04:06Z <none> -> queued
- 2026-01-02T03:04:06.100Z queued -> running
- 2026-01-02T03:04:06.200Z running -> queued reason=no paper
- 2026-01-02T03:04:06.500Z queued -> running
- 2026-01-02T03:04:07Z running -> succeeded
Attempts:
- 2026-01-02T03:04:06.100Z attempt 1
- 2026-01-02T03:04:06.500Z attempt 2
Children:
- {TELL} (tell:handle, failed)
- {ALARM} (alarm:poll, queued)
- {RETRY} (tell:handle, succeeded)
Facts:
- 2026-01-02T03:04:07Z summary.snapshot seq=41
- 2026-01-02T03:04:07Z summary.size seq=42
"#
    );
    assert_eq!(site.run(&["job", "inspect", SUMMARY]), expected);
}

#[test]
fn a_job_without_a_context_has_no_steps_and_one_that_waits_has_not_used_its_attempt() {
    let (site, database) = site();
    database
        .execute_batch(&format!(
            "INSERT INTO job_transitions (job_id, to_status, created_at)
             VALUES ('{ALARM}', 'queued', '2026-01-02 03:04:08.000000000Z')"
        ))
        .expect("a row");
    let document = json_of(&site, &["job", "inspect", ALARM, "--json"]);
    let seen = [&document["context_id"], &document["hops"], &document["steps"]];
    assert_eq!(seen, [&json!(""), &json!(0), &json!([])]);
    let sound = json!({"status_matches_latest": true, "attempts_match": true, "missing_facts": false});
    assert_eq!(document["consistency"], sound);
    // Cancelled before anything ran: still nothing is missing.
    database
        .execute_batch(&format!(
            "UPDATE job_queue SET status = 'dead' WHERE id = '{ALARM}';
             INSERT INTO job_transitions (job_id, from_status, to_status, reason, created_at)
             VALUES ('{ALARM}', 'queued', 'dead', 'cancelled', '2026-01-02 03:04:09.000000000Z')"
        ))
        .expect("a row");
    assert_eq!(json_of(&site, &["job", "inspect", ALARM, "--json"])["consistency"], sound);
    let legacy = json!({"status_matches_latest": false, "attempts_match": false, "missing_facts": true});
    assert_eq!(json_of(&site, &["job", "inspect", READER, "--json"])["consistency"], legacy);
}

#[test]
fn a_job_is_found_by_eight_characters_of_either_end_if_they_are_its_alone() {
    let (site, _database) = site();
    for part in [SUMMARY, "0000bbbb", "00000000BBBB"] {
        assert_eq!(json_of(&site, &["job", "inspect", part, "--json"])["job_id"], SUMMARY, "{part}");
    }
    let said = refused(&site, &["job", "inspect", "01a22d63"]);
    assert!(said.contains("stands for several jobs") && said.contains(SUMMARY), "{said}");
    for part in ["000bbbb", "00000000", "12345678-nobody"] {
        let said = refused(&site, &["job", "inspect", part]);
        assert_eq!(said, format!("Inspect failed: job \"{part}\" not found\n"));
    }
    let output = output(&site, &["job", "inspect", "12345678-nobody", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["code"], keys(&document)), (&json!(66), vec!["error", "code", "context"]));
}

#[test]
fn a_pruned_job_is_shown_from_the_log_with_what_is_left_of_its_lineage() {
    let (site, database) = site();
    database.execute_batch("DELETE FROM job_queue").expect("pruning");
    let document = json_of(&site, &["job", "inspect", SUMMARY, "--json"]);
    let seen = [&document["source"], &document["status"], &document["attempt"], &document["max_attempts"]];
    assert_eq!(seen, [&json!("job_log"), &json!("succeeded"), &json!(2), &Value::Null]);
    assert_eq!((&document["hops"], &document["steps"][0]["job_id"]), (&json!(2), &json!(READER)));
    assert_eq!(document["steps"][1]["job_id"], SUMMARY);
    let children = json!([{"job_id": TELL, "plugin": "tell", "command": "handle", "status": "failed"}]);
    assert_eq!(document["children"], children);
    database.execute_batch("DELETE FROM event_context").expect("pruning");
    let document = json_of(&site, &["job", "inspect", SUMMARY, "--json"]);
    let seen = [&document["source"], &document["context_id"], &document["hops"], &document["steps"]];
    assert_eq!(seen, [&json!("job_log"), &json!("c-2"), &json!(0), &json!([])]);
    let text = site.run(&["job", "inspect", SUMMARY]);
    assert!(text.contains("\nAttempt     : 2/?\n") && text.contains("\nHops        : 0\n"), "{text}");
}

#[test]
fn a_retry_by_hand_and_its_original_name_each_other() {
    let (site, database) = site();
    let original = json_of(&site, &["job", "inspect", TELL, "--json"]);
    assert_eq!((&original["retried_as"], original.get("retry_of")), (&json!([RETRY]), None));
    let retry = json_of(&site, &["job", "inspect", RETRY, "-v", "--json"]);
    assert_eq!((&retry["retry_of"], retry.get("retried_as")), (&json!(TELL), None));
    assert!(keys(&retry).ends_with(&["consistency", "retry_of", "payload", "log"]), "{:?}", keys(&retry));
    assert!(site.run(&["job", "inspect", RETRY]).contains(&format!("\nRetry of    : {TELL}\n")));
    let text = site.run(&["job", "inspect", TELL]);
    assert!(text.contains(&format!("\nRetried as  : {RETRY}\nLast error  : no post\n\n")), "{text}");
    // Both have one context, which is the original's, also when that is pruned.
    assert_eq!(retry["steps"][2]["job_id"], TELL);
    database.execute_batch(&format!("DELETE FROM job_queue WHERE id = '{TELL}'")).expect("pruning");
    assert_eq!(json_of(&site, &["job", "inspect", RETRY, "--json"])["steps"][2]["job_id"], TELL);
    assert_eq!(json_of(&site, &["job", "inspect", TELL, "--json"])["retried_as"], json!([RETRY]));
    // A job without a parent is retried too.
    database
        .execute_batch(&format!(
            "UPDATE job_queue SET parent_job_id = NULL, source_event_id = 'retry:{READER}/{RETRY}' WHERE id = '{RETRY}'"
        ))
        .expect("a row");
    assert_eq!(json_of(&site, &["job", "inspect", READER, "--json"])["retried_as"], json!([RETRY]));
}

#[test]
fn the_log_has_its_keys_and_its_text_is_the_same_for_every_script() {
    let (site, _database) = site();
    let document = json_of(&site, &["job", "logs", "--json", "--plugin", "summary", "--include-result"]);
    let expected = json!({"total": 2, "logs": [
        {"job_id": SUMMARY, "log_id": format!("{SUMMARY}-2"), "plugin": "summary", "command": "handle",
         "status": "succeeded", "attempt": 2, "submitted_by": "route", "created_at": "2026-01-02T03:04:06Z",
         "completed_at": "2026-01-02T03:04:07Z", "last_error": null, "stderr": null, "result": {"status": "ok"},
         "enqueued_config_snapshot_id": "cfg_1", "started_config_snapshot_id": "cfg_2"},
        {"job_id": SUMMARY, "log_id": format!("{SUMMARY}-1"), "plugin": "summary", "command": "handle",
         "status": "failed", "attempt": 1, "submitted_by": "route", "created_at": "2026-01-02T03:04:06Z",
         "completed_at": "2026-01-02T03:04:06.200Z", "last_error": "no paper", "stderr": "line one\nline two\n",
         "result": null, "enqueued_config_snapshot_id": "cfg_1", "started_config_snapshot_id": "cfg_1"}
    ]});
    assert_eq!(document, expected);
    assert_eq!(keys(&document["logs"][0]), keys(&expected["logs"][0]));
    let without = json_of(&site, &["job", "logs", "--json", "--plugin", "summary"]);
    assert_eq!(without["logs"][0]["result"], Value::Null);
    assert_eq!(json_of(&site, &["job", "logs", "--json", "--plugin", "nobody"]), json!({"total": 0, "logs": []}));
    let expected = format!(
        r#"Job Logs (total=2)
- 2026-01-02T03:04:07Z succeeded summary:handle job={SUMMARY} attempt=2 submitted_by=route
    result: {{"status":"ok"}}
- 2026-01-02T03:04:06.200Z failed summary:handle job={SUMMARY} attempt=1 submitted_by=route
    last_error: no paper
    stderr: line one
      line two
"#
    );
    assert_eq!(site.run(&["job", "logs", "--plugin", "summary", "--include-result"]), expected);
}

#[test]
fn filters_of_the_log_hold_together_and_wrong_ones_are_named() {
    let (site, database) = site();
    database
        .execute_batch(
            "INSERT INTO job_log (id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at,
                                  last_error)
             VALUES ('old-1', 'old', 'p', 'poll', 'skipped', 1, 'relay:peer', '2025-01-02T03:04:05Z',
                     '2025-01-02T03:04:05Z', '100%'),
                    ('new-1', 'new', 'p', 'poll', 'failed', 1, 'relay-like', '2027-01-02 03:04:05.000000000Z',
                     '2027-01-02 03:04:05.000000000Z', '100x')",
        )
        .expect("rows");
    let total = |args: &[&str]| json_of(&site, &[&["job", "logs", "--json"], args].concat())["total"].clone();
    for (args, expected) in [
        (&["--query", "100%"][..], 1),
        (&["--query", "NO P"], 2),
        (&["--query", "line_one"], 0),
        (&["--status", "error"], 3),
        (&["--status", "OK"], 2),
        (&["--status", "Pending"], 0),
        (&["--status", "skipped"], 1),
        (&["--submitted-by", "webhook"], 1),
        (&["--submitted-by", "webhook:/x"], 1),
        (&["--submitted-by", "webhook:/y"], 0),
        (&["--submitted-by", "relay"], 1),
        (&["--job-id", SUMMARY], 2),
        (&["--job-id", "0000bbbb"], 2),
        (&["--job-id", "nobody"], 0),
        (&["--command", "poll", "--plugin", "p"], 2),
        (&["--command", "poll", "--plugin", "summary"], 0),
        // Both ends count, in any zone, and the older form of times does too.
        (&["--from", "2026-01-02T03:04:07Z"], 3),
        (&["--from", "2026-01-02T05:04:07+02:00", "--to", "2026-01-02T03:04:08Z"], 2),
        (&["--to", "2025-01-02T03:04:05Z"], 1),
        (&["--to", "2025-01-02T03:04:04.999999999Z"], 0),
        (&["--from", "2025-01-02T03:04:05Z", "--to", "2025-12-31T00:00:00Z"], 1),
        (&["--from", "2025-01-02T03:04:05.000000001Z", "--to", "2025-12-31T00:00:00Z"], 0),
    ] {
        assert_eq!(total(args), json!(expected), "{args:?}");
    }
    let limited = json_of(&site, &["job", "logs", "--json", "--limit", "1"]);
    assert_eq!((&limited["total"], limited["logs"].as_array().map(Vec::len)), (&json!(6), Some(1)));
    assert_eq!(limited["logs"][0]["log_id"], "new-1");
    for (args, said) in [
        (&["--status", "broken"][..], "invalid status filter\n"),
        (&["--from", "yesterday"], "invalid from timestamp\n"),
        (&["--to", "2026-01-02T03:04:05"], "invalid to timestamp\n"),
        (&["--limit", "0"], "limit must be between 1 and 200\n"),
        (&["--limit", "201"], "limit must be between 1 and 200\n"),
        (&["--limit", "-1"], "limit must be between 1 and 200\n"),
        (&["--limit", "many"], "limit must be between 1 and 200\n"),
    ] {
        assert_eq!(refused(&site, &[&["job", "logs"], args].concat()), said, "{args:?}");
    }
}

#[test]
fn on_a_terminal_a_job_has_a_tree_and_the_log_is_a_table() {
    let (site, database) = site();
    let seen = Terminal::open().show(&mut site.command(&["job", "inspect", READER, "--no-color"]));
    let tree = "\nTree:
reader:handle  succeeded  0000aaaa
└─ summary:handle [save]  succeeded  0000bbbb
   ├─ tell:handle [tell]  failed  0000cccc
   ├─ alarm:poll  queued  0000dddd
   └─ tell:handle [tell]  succeeded  0000eeee
Facts:
";
    assert!(seen.contains(tree), "{seen}");
    assert!(!seen.contains('\u{1b}'), "{seen}");
    let colours = Terminal::open().show(&mut site.command(&["job", "inspect", READER]));
    assert!(colours.contains("Status      : \u{1b}[32msucceeded\u{1b}[0m\n"), "{colours}");
    assert!(colours.contains("   ├─ tell:handle [tell]  \u{1b}[31mfailed\u{1b}[0m  0000cccc\n"), "{colours}");
    let silent = Terminal::open().show(site.command(&["job", "inspect", READER]).env("NO_COLOR", "1"));
    assert_eq!(silent, seen);

    database
        .execute_batch("UPDATE job_log SET last_error = 'a' || char(27) || '[2Jb' WHERE attempt = 1")
        .expect("rows");
    let table = Terminal::open().show(&mut site.command(&["job", "logs", "--no-color", "--job-id", SUMMARY]));
    let expected = " ENDED                 STATUS     PLUGIN   COMMAND  ATTEMPT  BY     JOB
 2026-01-02T03:04:07Z  succeeded  summary  handle   2        route  0000bbbb
 2026-01-02T03:04:06Z  failed     summary  handle   1        route  0000bbbb
    last_error: a\u{fffd}[2Jb
    stderr: line one
      line two
";
    assert_eq!(table, format!("Job Logs (total=2)\n{expected}"));
    let colours = Terminal::open().show(&mut site.command(&["job", "logs", "--job-id", SUMMARY]));
    assert_eq!(colours.replace("\u{1b}[32m", "").replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""), table);
    assert!(colours.contains("  \u{1b}[31mfailed\u{1b}[0m     summary"), "{colours}");
    // A pruned job has one too, as far as the log reaches.
    database.execute_batch("DELETE FROM job_queue").expect("pruning");
    let seen = Terminal::open().show(&mut site.command(&["job", "inspect", READER, "--no-color"]));
    let tree = "\nTree:
reader:handle  succeeded  0000aaaa
└─ summary:handle [save]  succeeded  0000bbbb
   └─ tell:handle [tell]  failed  0000cccc
Facts:
";
    assert!(seen.contains(tree), "{seen}");
}

#[test]
fn wrong_words_are_answered_with_help_and_looking_leaves_no_trace() {
    let (site, database) = site();
    drop(database);
    let before = listing(&site);
    let output = output(&site, &["job"]);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: ductile job "), "{}", show(&output));
    assert!(refused(&site, &["job", "retrace"]).starts_with("Unknown job action: retrace\n"));
    let said = refused(&site, &["job", "logs", "--json=false", "x"]);
    assert!(said.contains("Usage: ductile job logs ") && said.contains("--include-result"), "{said}");
    for args in [
        &["job", "inspect", SUMMARY][..],
        &["job", "inspect", "-v", "--json", SUMMARY],
        &["job", "logs", "--query", "x"],
        &["system", "breaker", "hello"],
    ] {
        site.run(args);
        assert_eq!(listing(&site), before, "{args:?}");
    }
}

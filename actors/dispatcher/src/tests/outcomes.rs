//! What is judged how, end to end.

use std::fs;

use ductile_config::FactRule;
use ductile_queue::AttemptOutcome;
use serde_json::{Value, json};

use crate::testing::{BACKOFF, Site, assert_succeeded, claimed, failure};

/// A plugin that prints what its payload says and exits as told.
fn parrot() -> Site {
    Site::sh(
        "printf '%s' \"$DUCTILE_PAYLOAD_OUT\"\nprintf '%s' \"$DUCTILE_PAYLOAD_ERR\" >&2\nexit ${DUCTILE_PAYLOAD_EXIT:-0}",
    )
}

fn says(out: &str, exit: i32) -> String {
    json!({"out": out, "exit": exit}).to_string()
}

const OK: &str = r#"{"status":"ok","result":"x"}"#;

#[tokio::test]
async fn a_plain_ok_is_a_success_and_its_answer_is_stored_verbatim() {
    let site = parrot();
    let pretty = " {\n \"status\": \"ok\", \"result\": \"x\", \"n\": 1713740000123456789012\n}\n";
    let outcome = site.poll(Some(&says(pretty, 0))).await;
    assert_succeeded(&outcome);
    assert_eq!(outcome.result.as_deref(), Some(pretty.trim()));
    assert_eq!((outcome.stderr, outcome.spawned, outcome.attempt), (None, true, 1));
    let kinds: Vec<_> = site.events().iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["job.started", "job.preflight", "plugin.spawned"]);
}

#[tokio::test]
async fn output_that_is_not_exactly_one_object_fails_and_is_kept_raw() {
    let site = parrot();
    for out in ["log line\n{\"status\":\"ok\",\"result\":\"x\"}", "{} {}", "[]"] {
        let outcome = site.poll(Some(&says(out, 0))).await;
        let (reason, error) = failure(&outcome);
        assert_eq!(reason, "spawn_error");
        assert!(error.starts_with("decode response: ") && error.ends_with("(exit code 0)"), "{error}");
        let result: Value = serde_json::from_str(outcome.result.as_deref().unwrap()).unwrap();
        assert_eq!(result, json!({"raw_stdout": out, "truncated": false}));
    }
}

#[tokio::test]
async fn silence_is_a_failure_with_the_last_words_of_stderr() {
    let payload = json!({"out": "", "err": "first\nno such host\n", "exit": 2}).to_string();
    let outcome = parrot().poll(Some(&payload)).await;
    assert_eq!(failure(&outcome), ("nil_response", "plugin produced no output on stdout (exit code 2): no such host"));
    assert_eq!(outcome.result, None);
    assert_eq!(outcome.stderr.as_deref(), Some("first\nno such host\n"));
}

#[tokio::test]
async fn an_ok_without_a_usable_result_names_the_field() {
    for out in [r#"{"status":"ok"}"#, r#"{"status":"ok","result":5}"#] {
        let outcome = parrot().poll(Some(&says(out, 0))).await;
        assert!(failure(&outcome).1.contains("\"result\""), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_ok_counts_with_any_exit_code_but_78() {
    let answer = r#"{"status":"ok","result":"x","state_updates":{"n":1}}"#;
    assert_succeeded(&parrot().poll(Some(&says(answer, 3))).await);
    let outcome = parrot().poll(Some(&says(answer, 78))).await;
    assert_eq!(failure(&outcome).0, "exit_code_78");
    assert_eq!(outcome.result.as_deref(), Some(answer));
}

#[tokio::test]
async fn errors_keep_the_plugins_words_and_its_events_in_the_stored_answer_only() {
    let answer =
        r#"{"status":"error","error":"no disk","retry":false,"events":[{"type":"a"}],"state_updates":{"n":1}}"#;
    let outcome = parrot().poll(Some(&says(answer, 1))).await;
    assert_eq!(failure(&outcome), ("plugin_retry_false", "no disk"));
    assert_eq!(outcome.result.as_deref(), Some(answer));
    let outcome = parrot().poll(Some(&says(r#"{"status":"error"}"#, 0))).await;
    assert_eq!(failure(&outcome), ("plugin_error", "plugin returned an error without a message"));
    match outcome.outcome {
        AttemptOutcome::Failed { backoff_base, .. } => assert_eq!(backoff_base, BACKOFF),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn state_updates_become_facts_in_manifest_order_and_keep_their_digits() {
    let mut site = parrot();
    let rule = |command: &str, fact: &str| FactRule { command: command.to_owned(), fact_type: fact.to_owned() };
    site.fact_outputs = vec![rule("poll", "b"), rule("handle", "x"), rule("poll", "a")];
    let answer = r#"{"status":"ok","result":"x","state_updates":{ "n": 1713740000123456789 }}"#;
    match site.poll(Some(&says(answer, 0))).await.outcome {
        AttemptOutcome::Succeeded { state: Some(state), .. } => {
            assert_eq!(state.json, r#"{"n":1713740000123456789}"#);
            assert_eq!(state.fact_types, ["b", "a"]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_with_events_is_a_success_and_one_without_type_is_not() {
    let events = |events: &str| says(&format!(r#"{{"status":"ok","result":"x","events":{events}}}"#), 0);
    assert_succeeded(&parrot().poll(Some(&events(r#"[{"type":"a.b","payload":{"n":1}}]"#))).await);
    let outcome = parrot().poll(Some(&events(r#"[{"type":" "}]"#))).await;
    assert_eq!(failure(&outcome), ("routing_error", "event.type is required"));
}

#[tokio::test]
async fn a_megabyte_of_stderr_before_reading_blocks_nobody_and_is_cut() {
    let site = Site::python(&format!(
        "import sys\nsys.stderr.write('x' * 1048576)\nsys.stderr.flush()\nsys.stdin.read()\nprint('{OK}')"
    ));
    let outcome = site.poll(Some(&json!({"a": "y".repeat(300_000)}).to_string())).await;
    assert_succeeded(&outcome);
    assert_eq!(outcome.stderr.map(|text| text.len()), Some(65_536));
}

#[tokio::test]
async fn too_much_stdout_fails_naming_the_limit_and_is_kept_in_part() {
    let site = Site::python("import sys\nfor _ in range(11):\n    sys.stdout.write('x' * 1048576)");
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome), ("spawn_error", "plugin stdout exceeded 10485760 bytes (exit code 0)"));
    let result: Value = serde_json::from_str(outcome.result.as_deref().unwrap()).unwrap();
    assert_eq!(result["truncated"], true);
    assert_eq!(result["raw_stdout"].as_str().unwrap().len(), 65_536);
}

#[tokio::test]
async fn a_plugin_that_never_reads_a_large_request_can_succeed() {
    let site = Site::sh(&format!("echo '{OK}'"));
    let payload = json!({"large": "z".repeat(1_048_576)}).to_string();
    assert_succeeded(&site.poll(Some(&payload)).await);
}

#[tokio::test]
async fn binary_noise_is_kept_as_text() {
    let site = Site::sh("printf '\\377\\376ab'; printf '\\377' >&2");
    let outcome = site.poll(None).await;
    assert!(failure(&outcome).1.starts_with("decode response: "));
    let result: Value = serde_json::from_str(outcome.result.as_deref().unwrap()).unwrap();
    assert_eq!(result["raw_stdout"], "\u{fffd}\u{fffd}ab");
    assert_eq!(outcome.stderr.as_deref(), Some("\u{fffd}"));
}

#[tokio::test]
async fn what_can_not_be_started_says_why() {
    let mut site = Site::sh("");
    site.entrypoint = site.path("absent");
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome), ("spawn_error", "start process: No such file or directory"));
    assert!(!outcome.spawned);
    let site = Site::new(tempfile::tempdir().unwrap(), "echo no interpreter line\n");
    let outcome = site.poll(None).await;
    assert!(failure(&outcome).1.starts_with("start process: Exec format error: an interpreter line (#!) is missing"));
    let site = Site::new(tempfile::tempdir().unwrap(), "#!/nowhere/sh\n");
    assert!(failure(&site.poll(None).await).1.contains("interpreter named in its first line"));
}

#[tokio::test]
async fn what_can_not_run_fails_before_anything_is_started() {
    let site = Site::sh("touch \"$SITE/ran\"");
    let outcome = site.run(&claimed("other", "poll", None)).await;
    assert_eq!(failure(&outcome), ("plugin_unavailable", "plugin \"other\" not found in registry"));
    let outcome = site.run(&claimed("p", "sing", None)).await;
    assert_eq!(failure(&outcome), ("plugin_unavailable", "plugin \"p\" does not support command \"sing\""));
    let outcome = site.run(&claimed("p", "handle", Some("[1]"))).await;
    assert_eq!(failure(&outcome), ("preflight_error", "payload of command \"handle\" must be a JSON object"));
    let mut job = claimed("p", "poll", None);
    job.state = Some("[1]".to_owned());
    let outcome = site.run(&job).await;
    assert_eq!(
        failure(&outcome),
        ("preflight_error", "state of plugin \"p\" in table plugin_state is not a JSON object")
    );
    assert!(!outcome.spawned && fs::metadata(site.path("ran")).is_err());
    let decisions: Vec<_> = site
        .events()
        .iter()
        .filter(|event| event.kind == "job.preflight")
        .map(|event| event.data["decision"].clone())
        .collect();
    assert_eq!(decisions, ["run", "run", "fail", "run"]);
}

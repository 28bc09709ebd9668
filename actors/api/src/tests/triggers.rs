//! Starting jobs.

use serde_json::json;

use super::site::{Site, count, finished};

#[tokio::test]
async fn an_asynchronous_trigger_answers_with_the_job_which_then_succeeds() {
    let site = Site::new().await;
    let mut client = site.client("all").await.header("Content-Type", "application/x-www-form-urlencoded");
    let answer = client.post("/plugin/echo/poll", r#"{"payload":{"message":"hi"}}"#).await;
    assert_eq!(answer.status, 202);
    let json = answer.json();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["job_id", "status", "plugin", "command"]);
    assert_eq!(
        (&json["status"], &json["plugin"], &json["command"]),
        (&json!("queued"), &json!("echo"), &json!("poll"))
    );
    let job = finished(&mut client, json["job_id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "succeeded");
    assert_eq!(job["submitted_by"], "api");
    assert_eq!(job["result"], json!({"status": "ok", "saw": {"message": "hi"}}));
}

#[tokio::test]
async fn a_bare_payload_arrives_as_it_is_and_an_event_handler_gets_an_event() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    for (path, body, saw) in [
        ("/plugin/echo/poll?sync=true", r#"{"message":"hi","big":12345678901234567890123}"#, None),
        ("/plugin/other/poll?sync=true", "", Some(json!({}))),
        (
            "/plugin/echo/handle?sync=true",
            r#"{"payload":{"a":1}}"#,
            Some(json!({"type": "api.trigger", "payload": {"a": 1}})),
        ),
        ("/plugin/echo/handle?sync=true", "", Some(json!({"type": "api.trigger", "payload": {}}))),
    ] {
        let answer = client.post(path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let saw = saw.unwrap_or_else(|| serde_json::from_str(body).unwrap());
        assert_eq!(answer.json()["result"]["saw"], saw, "{path}");
    }
}

#[tokio::test]
async fn a_synchronous_trigger_answers_with_the_tree() {
    let site = Site::new().await;
    let mut client = site.client("runner").await;
    let answer = client.post("/plugins/echo/run", r#"{"payload":{"m":1},"sync":true,"command":"read"}"#).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["status"], "succeeded");
    assert!(json["duration_ms"].is_u64());
    assert_eq!(json["result"]["status"], "ok");
    let tree = json["tree"].as_array().unwrap();
    assert_eq!(tree.len(), 1);
    assert_eq!(tree[0]["job_id"], json["job_id"]);
    assert!(tree[0]["parent_job_id"].is_null());
    assert!(tree[0]["started_at"].is_string() && tree[0]["completed_at"].is_string());
    let failed = client.post("/plugin/echo/fail", r#"{"sync":true}"#).await;
    assert_eq!(failed.status, 200);
    assert_eq!(failed.json()["status"], "failed");
    assert_eq!(failed.json()["tree"][0]["last_error"], "told to fail");
}

#[tokio::test]
async fn the_compact_form_guesses_the_command_where_it_can() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    assert_eq!(client.post("/plugins/echo/run", "").await.json()["command"], "poll");
    assert_eq!(client.post("/plugins/one/run", "").await.json()["command"], "only");
    let unclear = client.post("/plugins/two/run", "").await;
    assert_eq!(unclear.refusal(), (400, "invalid_parameter".to_owned()));
    assert_eq!(unclear.json()["context"]["commands"], json!(["first", "second"]));
    assert_eq!(client.post("/plugins/two/run", r#"{"command":"third"}"#).await.status, 404);
    assert_eq!(client.post("/plugins/two/run", r#"{"command":"second"}"#).await.status, 202);
}

#[tokio::test]
async fn unknown_and_disabled_plugins_are_refused_each_with_its_words() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    for (path, status, text) in [
        ("/plugin/nobody/poll", 404, "plugin not found"),
        ("/plugin/echo/dance", 404, "command not supported by plugin"),
        ("/plugin/idle/poll", 409, "plugin \"idle\" is not enabled"),
        ("/plugin/idle/dance", 404, "command not supported by plugin"),
    ] {
        let answer = client.post(path, "").await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.json()["error"], text, "{path}");
    }
    assert_eq!(site.total().await, 0);
}

#[tokio::test]
async fn wrong_bodies_are_refused_and_write_nothing() {
    let site = Site::with_api("  max_body_size: 1000\n").await;
    let mut client = site.client("all").await;
    for (body, code) in [
        ("{", "invalid_json"),
        ("{} {}", "invalid_json"),
        (r#"{"payload":[1]}"#, "invalid_payload"),
        ("[1]", "invalid_payload"),
        (r#"{"payload":{},"sync":"yes"}"#, "invalid_parameter"),
        (r#"{"payload":{},"sync":true,"async":true}"#, "invalid_parameter"),
    ] {
        assert_eq!(client.post("/plugin/echo/poll", body).await.refusal(), (400, code.to_owned()), "{body}");
    }
    assert_eq!(client.post("/plugin/echo/poll?sync=maybe", "").await.refusal().1, "invalid_parameter");
    let large = client.post("/plugin/echo/poll", &format!("{{\"a\":\"{}\"}}", "x".repeat(2000))).await;
    assert_eq!(large.refusal(), (413, "body_too_large".to_owned()));
    assert_eq!(large.json()["bytes_limit"], 1000);
    assert_eq!(large.header("connection"), Some("close"));
    let mut zipped = site.client("all").await.header("Content-Encoding", "gzip");
    assert_eq!(zipped.post("/plugin/echo/poll", "{}").await.refusal(), (415, "unsupported_encoding".to_owned()));
    let mut plain = site.client("all").await.header("Content-Encoding", "identity");
    assert_eq!(plain.post("/plugin/echo/poll", "{}").await.status, 202);
    assert_eq!(site.total().await, 1);
}

#[tokio::test]
async fn a_chunked_body_counts_like_any_other() {
    let site = Site::with_api("  max_body_size: 1000\n").await;
    let head = "POST /plugin/echo/poll?sync=true HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer all\r\nTransfer-Encoding: \
                chunked\r\n\r\n";
    let mut client = site.stranger().await;
    client.raw(format!("{head}5\r\n{{\"a\":\r\n3\r\n[1]\r\n1\r\n}}\r\n0\r\n\r\n").as_bytes()).await;
    assert_eq!(client.receive().await.json()["result"]["saw"], json!({"a": [1]}));
    let chunk = "x".repeat(600);
    client.raw(format!("{head}258\r\n{chunk}\r\n258\r\n{chunk}\r\n0\r\n\r\n").as_bytes()).await;
    assert_eq!(client.receive().await.refusal(), (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn a_wait_that_is_over_leaves_the_job_running() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    let answer = client.post("/plugin/echo/slow", r#"{"sync":true,"timeout":"50ms"}"#).await;
    assert_eq!(answer.status, 202);
    let json = answer.json();
    assert!(matches!(json["status"].as_str(), Some("queued" | "running")), "{json}");
    assert_eq!(json["timeout_exceeded"], true);
    assert_eq!(json["message"], "Job still running after timeout.");
    site.gate.send_replace(true);
    assert_eq!(finished(&mut client, json["job_id"].as_str().unwrap()).await["status"], "succeeded");
}

#[tokio::test]
async fn a_synchronous_request_without_a_free_slot_writes_nothing() {
    let site = Site::with_api("  max_concurrent_sync: 1\n").await;
    let mut first = site.client("all").await;
    first.send("POST", "/plugin/echo/slow?sync=true", b"").await;
    while site.total().await == 0 {
        tokio::task::yield_now().await;
    }
    let mut second = site.client("all").await;
    let refused = second.post("/plugin/echo/poll?sync=true", "").await;
    assert_eq!(refused.refusal(), (503, "sync_slots_full".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(site.total().await, 1);
    site.gate.send_replace(true);
    assert_eq!(first.receive().await.status, 200);
    assert_eq!(second.post("/plugin/echo/poll?sync=true", "").await.status, 200);
}

#[tokio::test]
async fn a_stop_answers_the_waiting_at_once() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    client.send("POST", "/plugin/echo/slow?sync=true", b"").await;
    while site.total().await == 0 {
        tokio::task::yield_now().await;
    }
    site.control.stopping.send_replace(true);
    let answer = client.receive().await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["message"], "Gateway is stopping; poll the job for its result.");
    assert_eq!(answer.json()["timeout_exceeded"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_requests_with_one_key_make_one_job() {
    let site = Site::new().await;
    let requests = (0..20).map(|_| async {
        let mut client = site.client("all").await.header("Idempotency-Key", "order-17");
        client.post("/plugin/echo/poll", r#"{"payload":{"a":1,"b":2}}"#).await
    });
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    let ids = count(answers.iter().map(|answer| answer.json()["job_id"].as_str().unwrap().to_owned()));
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(site.total().await, 1);
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == Some("true")).count();
    assert_eq!(replayed, 19);
    assert_eq!(answers.iter().filter(|answer| answer.json()["deduplicated"] == true).count(), 19);
}

#[tokio::test]
async fn a_key_belongs_to_its_payload_its_command_and_its_token() {
    let site = Site::new().await;
    let mut client = site.client("all").await.header("Idempotency-Key", "k");
    let first = client.post("/plugin/echo/poll?sync=true", r#"{"payload":{"a":1,"b":2}}"#).await.json();
    // The same meaning in other words waits for, and answers with, the same job.
    let same = client.post("/plugin/echo/poll?sync=true", r#"{"b":2,"a":1}"#).await;
    assert_eq!(same.status, 200);
    assert_eq!(same.json()["job_id"], first["job_id"]);
    assert_eq!(same.header("idempotency-replayed"), Some("true"));
    let other = client.post("/plugin/echo/poll", r#"{"payload":{"a":2}}"#).await;
    assert_eq!(other.refusal(), (409, "idempotency_conflict".to_owned()));
    assert_eq!(other.json()["context"]["job_id"], first["job_id"]);
    assert_ne!(client.post("/plugin/echo/read", r#"{"a":2}"#).await.json()["job_id"], first["job_id"]);
    let mut runner = site.client("runner").await.header("Idempotency-Key", "k");
    assert_ne!(runner.post("/plugin/echo/poll", r#"{"a":2}"#).await.json()["job_id"], first["job_id"]);
    assert_eq!(site.total().await, 3);
}

#[tokio::test]
async fn a_key_whose_job_failed_is_free_again() {
    let site = Site::new().await;
    let mut client = site.client("all").await.header("Idempotency-Key", "k");
    let first = client.post("/plugin/echo/fail?sync=true", "").await.json();
    let second = client.post("/plugin/echo/fail?sync=true", "").await.json();
    assert_eq!(first["status"], "failed");
    assert_ne!(first["job_id"], second["job_id"]);
}

#[tokio::test]
async fn a_dedupe_key_in_the_body_decides_alone() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    let first = client.post("/plugin/echo/poll", r#"{"payload":{"a":1},"dedupe_key":"x"}"#).await.json();
    let second = client.post("/plugin/echo/poll", r#"{"payload":{"a":2},"dedupe_key":" x "}"#).await;
    assert_eq!(second.status, 202);
    assert_eq!(second.json()["job_id"], first["job_id"]);
    assert_eq!(second.json()["deduplicated"], true);
    let mut both = site.client("all").await.header("Idempotency-Key", "k");
    assert_eq!(both.post("/plugin/echo/poll", r#"{"payload":{},"dedupe_key":"x"}"#).await.status, 400);
    let mut bad = site.client("all").await.header("Idempotency-Key", "two words");
    assert_eq!(bad.post("/plugin/echo/poll", "").await.refusal(), (400, "invalid_parameter".to_owned()));
    assert_eq!(site.total().await, 1);
}

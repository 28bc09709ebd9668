//! Who may call what, and what every answer has in common.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::client::Client;
use super::site::Site;

#[tokio::test]
async fn open_routes_answer_without_a_credential_and_name_only_what_exists() {
    let site = Site::new().await;
    let mut stranger = site.stranger().await;
    let root = stranger.get("/").await;
    assert_eq!(root.status, 200);
    let root = root.json();
    assert_eq!(root["name"], "Ductile Gateway");
    for path in root["discovery"].as_object().unwrap().values() {
        let status = site.client("all").await.get(path.as_str().unwrap()).await.status;
        assert_eq!(status, 200, "{path}");
    }
    let health = stranger.get("/healthz").await;
    assert_eq!(health.header("cache-control"), None);
    let health = health.json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["plugins_loaded"], 5);
    assert_eq!(health["posture"], "gateway");
    assert_eq!(health["generation"], 3);
    assert_eq!(health["version"], "1.2.3");
    // The test is on this machine.
    assert_eq!(health["binary_path"], "/opt/ductile");
    assert!(health["config_path"].as_str().is_some_and(|path| path.starts_with('/')));
}

#[tokio::test]
async fn health_tells_the_depth_of_the_queue_and_that_the_database_can_be_read() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    assert_eq!(client.get("/healthz").await.json()["queue_depth"], 0);
    assert_eq!(client.post("/plugin/echo/slow", "").await.status, 202);
    let health = client.get("/healthz").await.json();
    assert_eq!((&health["queue_depth"], &health["plugins_circuit_open"]), (&json!(1), &json!(0)));
    site.queue.store().close().await;
    assert_eq!(client.get("/healthz").await.status, 503);
}

#[tokio::test]
async fn head_is_answered_on_the_open_routes_only() {
    let site = Site::new().await;
    for (path, status) in [("/", 200), ("/healthz", 200), ("/readyz", 200), ("/plugins", 405)] {
        let mut client = site.stranger().await;
        client.raw(format!("HEAD {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").as_bytes()).await;
        let text = client.rest().await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {text}");
        assert!(text.ends_with("\r\n\r\n"), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_answer_in_the_usual_shape() {
    let site = Site::new().await;
    let mut client = site.stranger().await;
    site.control.panics.store(true, Ordering::Relaxed);
    let answer = client.get("/readyz").await;
    assert_eq!(answer.refusal(), (500, "internal".to_owned()));
    site.control.panics.store(false, Ordering::Relaxed);
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn every_request_is_one_line_in_the_log_without_anything_secret() {
    // For the whole process: what a thread alone listens to is easily missed while others run. Ids tell the lines apart.
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(log.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let site = Site::new().await;
    let mut client = site.client("runner").await.header("X-Request-Id", "logged-1");
    client.post("/plugin/echo/poll?sync=true&hidden=query-value", r#"{"payload":{"a":"body-value"}}"#).await;
    let mut unknown = site.client("token-value").await.header("X-Request-Id", "logged-2");
    unknown.get("/jobs").await;
    let text = log.text();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["fields"]["message"] == "request")
        .filter(|line| line["fields"]["request_id"].as_str().is_some_and(|id| id.starts_with("logged-")))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    let fields = &lines[0]["fields"];
    assert_eq!(fields["method"], "POST");
    assert_eq!(fields["path"], "/plugin/echo/poll");
    assert_eq!(fields["status"], 200);
    assert_eq!(fields["token"], "runner");
    assert!(fields["duration_ms"].is_u64() && fields["remote"].is_string());
    assert_eq!(lines[1]["fields"]["status"], 401);
    assert_eq!(lines[1]["fields"].get("token"), None);
    for secret in ["query-value", "body-value", "token-value"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// Where a test keeps what was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn readiness_gives_its_reasons() {
    let site = Site::new().await;
    let mut stranger = site.stranger().await;
    let ready = stranger.get("/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true})));
    site.control.not_ready.lock().unwrap().push("draining");
    let not_ready = stranger.get("/readyz").await;
    assert_eq!((not_ready.status, not_ready.json()), (503, json!({"ready": false, "reasons": ["draining"]})));
}

#[tokio::test]
async fn a_missing_a_malformed_and_a_wrong_credential_are_told_apart() {
    let site = Site::new().await;
    for (header, text) in [
        (None, "missing or invalid Authorization header"),
        (Some("Basic YWxs"), "invalid Authorization header format"),
        (Some("bearer all"), "invalid Authorization header format"),
        (Some("Bearer wrong"), "invalid token"),
        (Some("Bearer "), "invalid Authorization header format"),
    ] {
        let mut client = site.stranger().await;
        if let Some(header) = header {
            client = client.header("Authorization", header);
        }
        for path in ["/plugins", "/jobs", "/job/x", "/job/x/tree", "/plugin/echo", "/plugins?token=all"] {
            let answer = client.get(path).await;
            assert_eq!(answer.refusal(), (401, "unauthenticated".to_owned()), "{path}");
            assert_eq!(answer.json()["error"], text, "{path} with {header:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        for path in ["/plugin/echo/poll", "/plugin/nobody/poll", "/plugins/echo/run", "/system/reload"] {
            // The credential is looked at before the body is.
            let answer = client.post(path, "{").await;
            assert_eq!(answer.refusal().0, 401, "{path}");
        }
    }
    assert_eq!(site.total().await, 0);
}

#[tokio::test]
async fn scopes_open_their_routes_and_no_others() {
    let site = Site::new().await;
    // One row for each token; 404 means that the scope was enough to look.
    let table: &[(&str, [u16; 7])] = &[
        ("all", [200, 202, 202, 200, 404, 404, 409]),
        ("nothing", [403, 403, 403, 403, 403, 403, 403]),
        ("runner", [200, 202, 202, 403, 403, 403, 403]),
        ("reader", [403, 202, 403, 403, 403, 403, 403]),
        ("catalogue", [200, 403, 403, 403, 403, 403, 403]),
        ("status", [403, 403, 403, 200, 404, 403, 403]),
        ("tree", [403, 403, 403, 403, 403, 404, 403]),
        ("system", [403, 403, 403, 403, 403, 403, 409]),
    ];
    for (token, expected) in table {
        let mut client = site.client(token).await;
        let got = [
            client.get("/plugin/echo").await.status,
            client.post("/plugin/echo/read", "").await.status,
            client.post("/plugin/echo/poll", "").await.status,
            client.get("/jobs").await.status,
            client.get("/job/unknown").await.status,
            client.get("/job/unknown/tree").await.status,
            client.post("/system/reload", "").await.status,
        ];
        assert_eq!(got, *expected, "{token}");
        assert_eq!(client.get("/plugins").await.status, 200, "{token}");
    }
}

#[tokio::test]
async fn a_refused_scope_says_which_would_do() {
    let site = Site::new().await;
    let answer = site.client("status").await.post("/plugin/echo/poll", "").await;
    assert_eq!(answer.refusal(), (403, "insufficient_scope".to_owned()));
    let answer = site.client("reader").await.post("/plugin/echo/poll", "").await;
    let json = answer.json();
    assert_eq!(json["error"], "insufficient scope");
    let words: Vec<_> = json["context"]["required_any"].as_array().unwrap().iter().filter_map(|w| w.as_str()).collect();
    assert_eq!(words, ["plugin:rw", "echo:rw", "echo:allow:poll", "*"]);
}

#[tokio::test]
async fn a_denied_command_is_refused_and_its_neighbours_are_not() {
    let site = Site::new().await;
    let mut client = site.client("echo-but-poll").await;
    assert_eq!(client.post("/plugin/echo/poll", "").await.status, 403);
    assert_eq!(client.post("/plugin/echo/handle", "").await.status, 202);
    assert_eq!(client.post("/plugin/one/only", "").await.status, 403);
    assert_eq!(client.post("/plugin/other/read", "").await.status, 403);
}

#[tokio::test]
async fn checks_come_in_their_order_and_a_refused_trigger_writes_nothing() {
    let site = Site::with_api("  max_queue_depth: 1\n  max_body_size: 100\n").await;
    let mut all = site.client("all").await;
    assert_eq!(all.post("/plugin/echo/slow", "").await.status, 202);
    let large = "x".repeat(200);
    // Scope of the route before the body, body before the lookup, lookup before the scope of the command.
    let mut status = site.client("status").await;
    assert_eq!(status.post("/plugin/nobody/poll", "{").await.refusal().1, "insufficient_scope");
    let mut reader = site.client("reader").await;
    assert_eq!(reader.post("/plugin/nobody/poll", "{").await.refusal().1, "invalid_json");
    assert_eq!(reader.post("/plugin/nobody/poll", "{}").await.refusal().1, "not_found");
    assert_eq!(reader.post("/plugin/idle/poll", "{}").await.refusal().1, "plugin_not_enabled");
    assert_eq!(reader.post("/plugin/echo/poll", "{}").await.refusal().1, "insufficient_scope");
    let full = reader.post("/plugin/echo/read", "{}").await;
    assert_eq!(full.refusal(), (503, "queue_full".to_owned()));
    assert_eq!(full.header("retry-after"), Some("5"));
    assert_eq!(reader.post("/plugin/nobody/poll", &large).await.refusal().1, "body_too_large");
    assert_eq!(site.total().await, 1);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_have_the_same_shape() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    for path in
        ["/nothing", "/healthz/", "/plugins/", "/trigger/echo/poll", "/skills", "/plugin/a%2Fb", "/plugin/a%00", "//"]
    {
        let answer = client.get(path).await;
        assert_eq!(answer.refusal(), (404, "not_found".to_owned()), "{path}");
        assert_eq!(answer.json()["error"], "not found", "{path}");
    }
    for (method, path, allow) in [
        ("DELETE", "/plugin/echo/poll", "POST"),
        ("GET", "/plugin/echo/poll", "POST"),
        ("POST", "/plugin/echo", "GET"),
        ("POST", "/plugins", "GET"),
        ("GET", "/plugins/echo/run", "POST"),
        ("GET", "/system/reload", "POST"),
        ("POST", "/job/x", "GET"),
        ("PUT", "/job/x/tree", "GET"),
        ("OPTIONS", "/jobs", "GET"),
    ] {
        let answer = client.request(method, path, b"").await;
        assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()), "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    // Encoded or not, it is the same path.
    assert_eq!(client.get("/%70lugin/%65cho").await.status, 200);
}

#[tokio::test]
async fn a_request_id_is_taken_over_when_it_is_one_and_minted_otherwise() {
    let site = Site::new().await;
    let mut given = site.stranger().await.header("X-Request-Id", "my.request_1-x");
    assert_eq!(given.get("/jobs").await.json()["request_id"], "my.request_1-x");
    let mut bad = site.stranger().await.header("X-Request-Id", "not a good one");
    let minted = bad.get("/jobs").await;
    assert_eq!(minted.header("x-request-id").unwrap().len(), 36);
    assert_eq!(minted.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(minted.header("referrer-policy"), Some("no-referrer"));
}

#[tokio::test]
async fn cross_origin_requests_are_allowed_by_list() {
    let site = Site::with_api("  allowed_origins: [\"https://good.example\"]\n").await;
    let preflight = |origin: &'static str| {
        let address = site.door.local_addr();
        async move {
            let client = Client::connect(address, None).await;
            let mut client = client.header("Origin", origin).header("Access-Control-Request-Method", "POST");
            client.request("OPTIONS", "/plugin/echo/poll", b"").await
        }
    };
    let allowed = preflight("https://good.example").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-methods"), Some("GET, POST, PUT, DELETE, OPTIONS"));
    assert_eq!(allowed.header("access-control-max-age"), Some("300"));
    let foreign = preflight("https://evil.example").await;
    assert_eq!(foreign.status, 405);
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    let mut client = site.client("all").await.header("Origin", "https://good.example");
    let answer = client.get("/plugins").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://good.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
}

#[tokio::test]
async fn a_caller_over_its_rate_is_told_to_wait_and_others_are_not() {
    let site = Site::with_api("  rate_limit: {requests_per_second: 0.001, burst: 2}\n").await;
    let mut client = site.client("all").await;
    assert_eq!(client.get("/plugins").await.status, 200);
    assert_eq!(client.get("/plugins").await.status, 200);
    let refused = client.get("/plugins").await;
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(site.client("nothing").await.get("/plugins").await.status, 200);
}

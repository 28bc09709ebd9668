//! Who may do what through the API, and what every answer of it has in common.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::site::{Answer, Client, Gateway, OK, Site, eventually, show, token};

/// Scope lists of one token each, under the name of the secret that holds its value.
const TOKENS: &[(&str, &[&str])] = &[
    ("all", &["*"]),
    ("none", &[]),
    ("nonsense", &["reports:rw"]),
    ("plugin-rw", &["plugin:rw"]),
    ("plugin-ro", &["plugin:ro"]),
    ("plugin-invoke-ro", &["plugin:invoke:ro"]),
    ("plugin-catalog-ro", &["plugin:catalog:ro"]),
    ("pipeline-rw", &["pipeline:rw"]),
    ("pipeline-one", &["pipeline:allow:hello"]),
    ("jobs-rw", &["jobs:rw"]),
    ("jobs-ro", &["jobs:ro"]),
    ("jobs-status", &["jobs:status:ro"]),
    ("jobs-result", &["jobs:result:ro"]),
    ("jobs-logs", &["jobs:logs:ro"]),
    ("jobs-tree", &["jobs:tree:ro"]),
    ("events-rw", &["events:rw"]),
    ("events-ro", &["events:ro"]),
    ("events-meta", &["events:meta:ro"]),
    ("system-rw", &["system:rw"]),
    ("system-ro", &["system:ro"]),
    ("metrics-ro", &["metrics:ro"]),
    ("hello-rw", &["hello:rw"]),
    ("hello-ro", &["hello:ro"]),
    ("hello-poll", &["hello:allow:poll"]),
    ("hello-any", &["hello:allow:*"]),
    ("hello-but-poll", &["hello:rw", "hello:deny:poll"]),
    ("all-but-hello", &["*", "hello:deny:*"]),
    ("other-rw", &["other:rw"]),
    ("long-read-plugin", &["read:plugin"]),
    ("long-admin-plugin", &["admin:plugin"]),
    ("long-read-jobs", &["read:jobs"]),
    ("long-admin-system", &["admin:system"]),
    ("long-admin-all", &["admin:*"]),
    ("long-trigger", &["trigger:hello"]),
    ("long-trigger-read", &["trigger:hello:health"]),
];

/// Every token.
const ANY: &[&str] = &[];

/// One route: what it answers to those who may use it, and who that is.
struct Route {
    method: &'static str,
    path: &'static str,
    status: u16,
    for_tokens: &'static [&'static str],
}

const WRITERS: &[&str] =
    &["all", "plugin-rw", "hello-rw", "hello-poll", "hello-any", "long-admin-plugin", "long-admin-all", "long-trigger"];

const READERS: &[&str] = &[
    "all",
    "plugin-rw",
    "plugin-invoke-ro",
    "hello-rw",
    "hello-ro",
    "hello-any",
    "hello-but-poll",
    "long-admin-plugin",
    "long-admin-all",
    "long-trigger",
    "long-trigger-read",
];

const STATUS: &[&str] =
    &["all", "all-but-hello", "jobs-rw", "jobs-ro", "jobs-status", "long-read-jobs", "long-admin-all"];

/// What they ask for can not be done with the job of these tests, so they are told apart by how it is refused.
const JOB_WRITERS: &[&str] = &["all", "all-but-hello", "jobs-rw", "long-admin-all"];

/// The routes behind a credential. `JOB` stands for the id of a job.
const ROUTES: &[Route] = &[
    Route { method: "GET", path: "/plugins", status: 200, for_tokens: ANY },
    Route {
        method: "GET",
        path: "/plugin/hello",
        status: 200,
        for_tokens: &[
            "all",
            "all-but-hello",
            "plugin-rw",
            "plugin-ro",
            "plugin-catalog-ro",
            "hello-rw",
            "hello-ro",
            "hello-but-poll",
            "long-read-plugin",
            "long-admin-plugin",
            "long-admin-all",
        ],
    },
    Route { method: "POST", path: "/plugin/hello/poll", status: 202, for_tokens: WRITERS },
    Route { method: "POST", path: "/plugins/hello/run", status: 202, for_tokens: WRITERS },
    Route { method: "POST", path: "/plugin/hello/health", status: 202, for_tokens: READERS },
    Route { method: "GET", path: "/job/JOB", status: 200, for_tokens: STATUS },
    Route { method: "GET", path: "/jobs", status: 200, for_tokens: STATUS },
    Route {
        method: "GET",
        path: "/job/JOB/tree",
        status: 200,
        for_tokens: &["all", "all-but-hello", "jobs-rw", "jobs-ro", "jobs-tree", "long-read-jobs", "long-admin-all"],
    },
    Route { method: "POST", path: "/job/JOB/cancel", status: 409, for_tokens: JOB_WRITERS },
    Route { method: "POST", path: "/job/JOB/retry", status: 409, for_tokens: JOB_WRITERS },
    Route { method: "POST", path: "/jobs/retry", status: 400, for_tokens: JOB_WRITERS },
    Route {
        method: "POST",
        path: "/system/reload",
        status: 200,
        for_tokens: &["all", "all-but-hello", "system-rw", "long-admin-system", "long-admin-all"],
    },
];

/// The routes that need no credential.
const OPEN: &[&str] = &["/", "/healthz", "/readyz"];

/// A site with one token for each of [`TOKENS`], and the value of its vault's admin token.
fn site_with_tokens() -> (Site, String) {
    let entries: String = TOKENS
        .iter()
        .map(|(name, scopes)| format!("    - {{name: {name}, secret_ref: {name}, scopes: {}}}\n", json!(scopes)))
        .collect();
    let site = Site::new().api(&format!("auth:\n  tokens:\n{entries}")).plugin("hello", OK).plugin("other", OK);
    fs::remove_file(site.path("config/vault.age")).expect("the vault of the template");
    let mut init = crate::site::ductile(&["vault", "init"]);
    init.arg("--vault").arg(site.path("config/vault.age")).arg("--key").arg(site.path("config/age.key"));
    let output = init.output().expect("the binary");
    assert!(output.status.success(), "{}", show(&output));
    let admin = String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned();
    assert_eq!(admin.len(), 43);
    for (name, _) in TOKENS {
        site.secret(name, &value_of(name), "");
    }
    (site, admin)
}

fn value_of(name: &str) -> String {
    format!("value-of-the-token-{name}")
}

/// A request of any method, as it is.
fn send(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let mut response = ureq::Agent::from(config).run(request).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let headers = headers.collect();
    let text = response.body_mut().read_to_string().expect("a body");
    Answer {
        status: response.status().as_u16(),
        headers,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

fn ask(gateway: &Gateway, bearer: &str, route: &Route, job: &str) -> Answer {
    let client = Client::new(gateway.address(), bearer);
    let path = route.path.replace("JOB", job);
    if route.method == "GET" { client.get(&path) } else { client.post(&path, "{}", &[]) }
}

#[test]
fn every_route_opens_for_the_scopes_it_names_and_for_no_others() {
    let (site, admin) = site_with_tokens();
    let mut gateway = site.start();
    let first = Client::new(gateway.address(), &value_of("all")).post("/plugin/hello/poll", "{}", &[]);
    let job = first.body["job_id"].as_str().expect("an id").to_owned();
    let over = format!("SELECT status FROM job_queue WHERE id = '{job}'");
    eventually(|| match site.query::<String>(&over) {
        status if status == "succeeded" => Ok(()),
        status => Err(status),
    })
    .expect("a job that is over");
    for path in OPEN {
        for bearer in ["", "wrong", &admin, &value_of("none")] {
            assert_eq!(Client::new(gateway.address(), bearer).get(path).status, 200, "{path}");
        }
    }
    for route in ROUTES {
        let label = format!("{} {}", route.method, route.path);
        for (who, bearer) in [("nobody", ""), ("a wrong token", "wrong"), ("the vault's admin", admin.as_str())] {
            let answer = ask(&gateway, bearer, route, &job);
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{label} for {who}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{label}");
        }
        for (name, _) in TOKENS {
            let answer = ask(&gateway, &value_of(name), route, &job);
            let opens = route.for_tokens.is_empty() || route.for_tokens.contains(name);
            let expected = if opens { route.status } else { 403 };
            assert_eq!(answer.status, expected, "{label} for {name}: {answer:?}");
            if !opens {
                assert_eq!(answer.body["code"], "insufficient_scope", "{label} for {name}");
            }
        }
    }
    // Each accepted trigger is one job, each refused one is none.
    let accepted = 1 + 2 * WRITERS.len() + READERS.len();
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), i64::try_from(accepted).expect("a number"));
    assert_eq!(gateway.stop().code(), Some(0));
    let log = gateway.log();
    assert!(
        TOKENS.iter().all(|(name, _)| !log.contains(&value_of(name))) && !log.contains(&admin),
        "a token is logged"
    );
}

#[test]
fn no_route_answers_beside_those_that_are_documented() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let bearer = format!("Bearer {}", token());
    let job = gateway.trigger("hello", "poll");
    let documented: Vec<(&str, String, &str)> = OPEN
        .iter()
        .map(|path| ("GET", (*path).to_owned(), "GET, HEAD"))
        .chain(ROUTES.iter().map(|route| (route.method, route.path.replace("JOB", &job), route.method)))
        .collect();
    for (method, path, allow) in &documented {
        for other in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if other == *method {
                continue;
            }
            let answer = send(gateway.address(), other, path, &[("Authorization", &bearer)]);
            assert_eq!((answer.status, answer.header("allow")), (405, Some(*allow)), "{other} {path}: {answer:?}");
            assert_eq!(answer.body["code"], "method_not_allowed", "{other} {path}");
        }
        for near in [format!("{path}/"), format!("{path}/x/y"), format!("/{path}"), path.to_uppercase()] {
            if documented.iter().any(|(_, known, _)| *known == near) {
                continue;
            }
            let answer = send(gateway.address(), method, &near, &[("Authorization", &bearer)]);
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (404, &json!("not_found")),
                "{method} {near}: {answer:?}"
            );
        }
    }
    for path in ["/trigger/hello/poll", "/api", "/v1/jobs", "/plugin", "/job", "/system", "/plugin/a%2Fb", "/job/a%00b"]
    {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let answer = send(gateway.address(), method, path, &[("Authorization", &bearer)]);
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (404, &json!("not_found")),
                "{method} {path}: {answer:?}"
            );
        }
    }
    for path in OPEN {
        let head = send(gateway.address(), "HEAD", path, &[]);
        assert_eq!((head.status, &head.body), (200, &json!("")), "{path}");
    }
    assert_eq!(send(gateway.address(), "HEAD", "/plugins", &[("Authorization", &bearer)]).status, 405);
    // What the gateway says of itself leads somewhere.
    let root = gateway.get("/").body;
    for path in root["discovery"].as_object().expect("paths").values() {
        assert_eq!(gateway.get(path.as_str().expect("a path")).status, 200, "{path}");
    }
}

#[test]
fn pages_of_listed_origins_may_read_and_others_get_no_word_of_it() {
    let site = Site::new().api("allowed_origins: [\"https://one.example\"]").plugin("hello", OK);
    let gateway = site.start();
    let asks = ("Access-Control-Request-Method", "POST");
    let names = |answer: &Answer| -> BTreeSet<String> {
        answer.headers.iter().map(|(name, _)| name.clone()).filter(|n| n.starts_with("access-control")).collect()
    };
    let preflight =
        send(gateway.address(), "OPTIONS", "/plugin/hello/poll", &[("Origin", "https://one.example"), asks]);
    assert_eq!(preflight.status, 204, "{preflight:?}");
    for (name, value) in [
        ("vary", "Origin"),
        ("access-control-allow-origin", "https://one.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS"),
        (
            "access-control-allow-headers",
            "Accept, Authorization, Content-Type, X-CSRF-Token, Idempotency-Key, Last-Event-ID, X-Request-Id",
        ),
        ("access-control-max-age", "300"),
        ("access-control-expose-headers", "Link, X-Request-Id, Retry-After, Idempotency-Replayed"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{preflight:?}");
    }
    // A refusal can be read by the page, too.
    let refused = send(gateway.address(), "GET", "/plugins", &[("Origin", "https://one.example")]);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("https://one.example")));
    for origin in ["https://two.example", "https://one.example:444", "http://one.example", "null"] {
        let preflight = send(gateway.address(), "OPTIONS", "/plugin/hello/poll", &[("Origin", origin), asks]);
        assert_eq!((preflight.status, names(&preflight)), (405, BTreeSet::new()), "{origin}");
        let plain = send(gateway.address(), "GET", "/healthz", &[("Origin", origin)]);
        assert_eq!((plain.status, names(&plain)), (200, BTreeSet::new()), "{origin}");
    }
    let without = send(gateway.address(), "GET", "/healthz", &[]);
    assert_eq!((without.status, names(&without)), (200, BTreeSet::new()));
    drop(gateway);

    let site = Site::new().api("allowed_origins: [\"*\"]").plugin("hello", OK);
    let gateway = site.start();
    for method in ["OPTIONS", "GET"] {
        let answer = send(gateway.address(), method, "/healthz", &[("Origin", "https://any.example"), asks]);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{answer:?}");
    }
}

#[test]
fn every_answer_and_every_log_line_of_a_request_has_its_id() {
    let site = Site::new().api("allowed_origins: [\"*\"]").plugin("hello", OK);
    let mut gateway = site.start();
    let bearer = format!("Bearer {}", token());
    let auth = ("Authorization", bearer.as_str());
    let mut expected = Vec::new();
    let longest = "x".repeat(64);
    for (method, path, status) in [
        ("GET", "/healthz?token=hidden-in-the-query", 200),
        ("GET", "/plugins", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/jobs", 405),
        ("GET", "/job/a%2Fb", 404),
    ] {
        for taken in ["abc-1._Z", longest.as_str()] {
            let answer = send(gateway.address(), method, path, &[auth, ("X-Request-Id", taken)]);
            assert_eq!((answer.status, answer.header("x-request-id")), (status, Some(taken)), "{answer:?}");
            expected.push(taken.to_owned());
        }
        for refused in ["has a blank", "semi;colon", &"x".repeat(65)] {
            let answer = send(gateway.address(), method, path, &[auth, ("X-Request-Id", refused)]);
            let minted = answer.header("x-request-id").expect("an id").to_owned();
            assert!(minted != refused && minted.len() == 36, "{refused} became {minted}");
            if status >= 400 {
                assert_eq!(answer.body["request_id"], minted.as_str());
            }
            expected.push(minted);
        }
    }
    let preflight = [("Origin", "https://x.example"), ("Access-Control-Request-Method", "GET")];
    let answer = send(gateway.address(), "OPTIONS", "/jobs", &preflight);
    expected.push(answer.header("x-request-id").expect("an id").to_owned());
    for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
        assert_eq!(answer.header(name), Some(value));
        assert_eq!(gateway.get("/").header(name), Some(value));
    }
    assert_eq!(gateway.stop().code(), Some(0));
    let log = gateway.log();
    let logged: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for id in expected {
        let line = logged.iter().find(|line| line["message"] == "request" && line["request_id"] == id.as_str());
        let line = line.unwrap_or_else(|| panic!("no line for {id}"));
        for field in ["method", "path", "status", "duration_ms", "remote"] {
            assert!(!line[field].is_null(), "{field} in {line}");
        }
    }
    assert!(!log.contains("hidden-in-the-query") && !log.contains(token()));
}

#[test]
fn a_reload_with_broken_tokens_leaves_the_old_ones_in_force() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    for entry in ["secret_ref: nope", "token: literal-token-value", "name: bare"] {
        let broken = config.replace("name: tests, secret_ref: api-token", entry);
        assert_ne!(broken, config);
        fs::write(site.path("config/config.yaml"), broken).expect("the configuration");
        let answer = gateway.post("/system/reload", &json!({}));
        assert_eq!((answer.status, &answer.body["code"]), (409, &json!("reload_failed")), "{entry}: {answer:?}");
        assert!(answer.body["error"].as_str().expect("a text").contains("api.auth.tokens[0]"), "{answer:?}");
        assert!(!answer.body.to_string().contains("literal-token-value"), "{answer:?}");
        assert_eq!(gateway.get("/jobs").status, 200);
    }
    let other = config.replace("name: tests, secret_ref: api-token", "name: tests, secret_ref: second");
    assert_refused_beside_a_gateway(&site, "second", "the-second-token-value");
    fs::write(site.path("config/config.yaml"), other).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 409, "it could not be stored");
    assert_eq!(gateway.get("/jobs").status, 200);
}

/// A secret cannot be put into a vault that a gateway holds: the command is refused and the blob stays as it is.
fn assert_refused_beside_a_gateway(site: &Site, name: &str, value: &str) {
    let before = fs::read(site.path("config/vault.age")).expect("the vault");
    let input = site.path("value");
    fs::write(&input, value).expect("a value");
    let mut command: Command = site.command(&["vault", "set", "--name", name]);
    let output = command.stdin(fs::File::open(&input).expect("the value")).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(!show(&output).contains(value), "{}", show(&output));
    assert_eq!(fs::read(site.path("config/vault.age")).expect("the vault"), before);
}

#[test]
fn what_an_ordinary_client_sends_is_taken_as_it_is_meant() {
    let script = r#"cat > "$DUCTILE_PAYLOAD_OUT"; echo '{"status":"ok","result":"done"}'"#;
    let site = Site::new().plugin("hello", script);
    let gateway = site.start();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let out = site.path("request");
    for body in [json!({"payload": {"message": "hi", "out": out}}), json!({"message": "hi", "out": out})] {
        let answer = gateway.client().post("/plugin/hello/poll", &body.to_string(), &[form]);
        assert_eq!(answer.status, 202, "{answer:?}");
        let job = answer.body["job_id"].as_str().expect("an id");
        assert_eq!(answer.body, json!({"job_id": job, "status": "queued", "plugin": "hello", "command": "poll"}));
        let seen = gateway.wait_for(job);
        assert_eq!((&seen["status"], &seen["result"]["result"]), (&json!("succeeded"), &json!("done")), "{seen}");
        let request: Value = serde_json::from_slice(&fs::read(&out).expect("the request")).expect("JSON");
        assert_eq!(request["payload"]["message"], "hi", "{request}");
        fs::remove_file(&out).expect("the request");
    }
    let compressed = gateway.client().post("/plugin/hello/poll", "{}", &[("Content-Encoding", "gzip")]);
    assert_eq!((compressed.status, &compressed.body["code"]), (415, &json!("unsupported_encoding")));
    for (status, code) in [("ok", 200), ("PENDING", 200), ("error", 200), ("bogus", 400)] {
        assert_eq!(gateway.get(&format!("/jobs?status={status}")).status, code, "{status}");
    }
    assert_eq!(gateway.get("/jobs?status=ok").body["total"], 2);
}

#[test]
fn results_are_shown_only_to_those_who_may_see_them() {
    let (site, _) = site_with_tokens();
    let gateway = site.start();
    let all = Client::new(gateway.address(), &value_of("all"));
    let answer = all.post("/plugins/hello/run", r#"{"payload":{"x":1},"sync":true}"#, &[]);
    assert_eq!((answer.status, answer.body["tree"].as_array().map(Vec::len)), (200, Some(1)), "{answer:?}");
    let job = answer.body["job_id"].as_str().expect("an id");
    let path = format!("/job/{job}?include=payload,log");
    let status = Client::new(gateway.address(), &value_of("jobs-status")).get(&path).body;
    assert_eq!(status["status"], "succeeded");
    let both = Client::new(gateway.address(), &value_of("jobs-ro")).get(&path).body;
    for field in ["result", "payload", "log"] {
        assert!(status.get(field).is_none() && both.get(field).is_some(), "{field}: {status} {both}");
    }
}

//! Starting, refusing to start, stopping.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::site::{Client, GATED, OK, Site, ductile, eventually, show};

#[test]
fn without_a_configuration_the_start_is_refused_with_a_hint() {
    let output = ductile(&["system", "start"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(78), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("no config found"), "{}", show(&output));
}

#[test]
fn a_named_environment_directory_that_is_not_there_is_an_error() {
    let output =
        ductile(&["system", "start"]).env("DUCTILE_CONFIG_DIR", "/nonexistent-ductile").output().expect("the binary");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("DUCTILE_CONFIG_DIR"), "{}", show(&output));
}

#[test]
fn a_fresh_start_makes_the_database_and_says_that_it_runs() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    let mode = |name: &str| fs::metadata(site.path(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/ductile.db")), (0o700, 0o600));
    assert_eq!(site.query::<String>("PRAGMA journal_mode"), "wal");
    assert_eq!(site.query::<i64>("PRAGMA user_version"), 100);
    assert_eq!(fs::read_to_string(site.path("data/ductile.pid")).expect("the pid"), format!("{}\n", gateway.pid()));
    let health = Client::new(gateway.address(), "").get("/healthz").body;
    assert_eq!(
        (&health["status"], &health["posture"], &health["generation"]),
        (&json!("ok"), &json!("gateway"), &json!(1))
    );
    assert_eq!(gateway.get("/readyz").body, json!({"ready": true}));
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    assert_eq!(fs::read_to_string(site.path("data/ductile.pid")).expect("the pid"), "");
    let wal = fs::metadata(site.path("data/ductile.db-wal")).map(|wal| wal.len()).unwrap_or(0);
    assert_eq!(wal, 0);
}

#[test]
fn every_log_line_is_one_json_object() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    gateway.wait_for(&gateway.trigger("hello", "poll"));
    gateway.stop();
    for line in gateway.log().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "component", "message"] {
            assert!(value[field].is_string(), "{field} in {line}");
        }
    }
    let stopped = gateway.log().lines().any(|line| line.contains("ductile stopped"));
    assert!(stopped, "{}", gateway.said());
}

#[test]
fn a_second_gateway_on_the_same_state_is_refused_and_told_the_pid() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains(&gateway.pid().to_string()), "{stderr}");
}

#[test]
fn a_lock_file_left_by_a_killed_gateway_is_no_obstacle() {
    let site = Site::new().plugin("hello", OK);
    site.start().kill_nine();
    assert!(site.path("data/ductile.pid").exists());
    let gateway = site.start();
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_broken_configuration_is_refused_with_file_line_and_key() {
    let site = Site::new().service("max_workers: many").plugin("hello", OK);
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(78));
    assert!(stderr.contains("service.max_workers") && stderr.contains("config.yaml:"), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("refused: ")), "{stderr}");
    assert!(!site.path("data").exists(), "nothing was made");
}

#[test]
fn tokens_are_only_taken_from_the_vault() {
    for (entry, expected) in [
        (
            "{token: literal, scopes: [\"*\"]}",
            "api.auth.tokens[0]: a literal token value is not allowed; store it in the vault and use secret_ref",
        ),
        ("{secret_ref: nope, scopes: [\"*\"]}", "not found in the vault"),
        ("{secret_ref: core-admin-token, scopes: [\"*\"]}", "core-admin-token"),
    ] {
        let site = Site::new().api(&format!("auth:\n  tokens:\n    - {entry}")).plugin("hello", OK);
        let (status, stderr) = site.start_refused();
        assert_eq!(status.code(), Some(78), "{stderr}");
        assert!(stderr.contains("api.auth.tokens[0]") && stderr.contains(expected), "{entry}: {stderr}");
    }
}

#[test]
fn a_vault_without_its_key_or_damaged_is_refused() {
    let site = Site::new().plugin("hello", OK);
    fs::remove_file(site.path("config/age.key")).expect("the key");
    assert_eq!(site.start_refused().0.code(), Some(78));
    let site = Site::new().plugin("hello", OK);
    let mut blob = fs::read(site.path("config/vault.age")).expect("the vault");
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    fs::write(site.path("config/vault.age"), blob).expect("the vault");
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("vault.age"), "{stderr}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let site = Site::new().plugin("hello", OK);
    fs::set_permissions(site.path("config/age.key"), fs::Permissions::from_mode(0o640)).expect("a mode");
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(78));
    assert!(stderr.contains("chmod 600"), "{stderr}");
}

#[test]
fn a_taken_address_is_an_environmental_failure_and_records_no_configuration() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let site = Site::new().api(&format!("listen: {address}")).plugin("hello", OK);
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&address.to_string()), "{stderr}");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM config_snapshots"), 0);
}

#[test]
fn a_file_that_is_not_our_database_is_refused_and_left_alone() {
    let site = Site::new().plugin("hello", OK);
    fs::create_dir(site.path("data")).expect("a directory");
    fs::write(site.path("data/ductile.db"), "just text\n").expect("a file");
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("ductile.db"), "{stderr}");
    assert_eq!(fs::read_to_string(site.path("data/ductile.db")).expect("the file"), "just text\n");
}

#[test]
fn a_missing_plugin_root_is_refused_and_a_bad_plugin_is_only_left_out() {
    let site = Site::new().plugin("hello", OK);
    site.install("bad", OK, "");
    fs::set_permissions(site.path("plugins/bad/run.sh"), fs::Permissions::from_mode(0o644)).expect("a mode");
    let gateway = site.start();
    let names = gateway.get("/plugins").body["plugins"].to_string();
    assert!(names.contains("hello") && !names.contains("bad"), "{names}");
    assert!(gateway.log().contains("entrypoint is not executable"), "{}", gateway.log());
    drop(gateway);
    fs::remove_dir_all(site.path("plugins")).expect("the root");
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(78));
    assert!(stderr.contains("plugin root does not exist"), "{stderr}");
}

#[test]
fn a_stop_lets_a_running_job_finish_and_starts_no_other() {
    let site = Site::new().service("max_workers: 1").plugin("gated", GATED);
    let mut gateway = site.start();
    let payload = json!({"gate": site.path("gate")});
    let running = gateway.trigger_with("gated", "poll", &payload);
    let queued = gateway.trigger_with("gated", "poll", &payload);
    gateway.wait_for_status(&running, |status| status == "running");
    gateway.signal("TERM");
    gateway.wait_for_log("the stop to begin", |line| line["event"] == "shutdown.started");
    fs::write(site.path("gate"), "").expect("a file");
    assert_eq!(gateway.wait_for_exit().code(), Some(0), "{}", gateway.said());
    let status = |job: &str| site.query::<String>(&format!("SELECT status FROM job_queue WHERE id='{job}'"));
    assert_eq!((status(&running), status(&queued)), ("succeeded".into(), "queued".into()));
}

#[test]
fn a_stop_ends_a_plugin_that_will_not_end_and_leaves_no_running_row() {
    let site = Site::new()
        .service("drain_timeout: 100ms")
        .plugin("stuck", "trap '' TERM; cat >/dev/null; while :; do sleep 1; done");
    let mut gateway = site.start();
    let job = gateway.trigger("stuck", "poll");
    gateway.wait_for_status(&job, |status| status == "running");
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE status='running'"), 0);
    let reason: String = site.query("SELECT reason FROM job_transitions ORDER BY id DESC LIMIT 1");
    assert_eq!(reason, "attempt 1 interrupted: gateway shutdown");
}

#[test]
fn a_synchronous_waiter_is_answered_when_the_gateway_stops() {
    let site = Site::new().service("drain_timeout: 100ms").plugin("stuck", "cat >/dev/null; sleep 300");
    let mut gateway = site.start();
    let client = gateway.client();
    let waiter = std::thread::spawn(move || client.post("/plugin/stuck/poll", r#"{"sync":true}"#, &[]));
    eventually(|| match gateway.get("/jobs?status=running").body["total"].as_u64() {
        Some(1) => Ok(()),
        other => Err(other),
    })
    .expect("the job to run");
    gateway.signal("TERM");
    let answer = waiter.join().expect("an answer");
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.body["message"], "Gateway is stopping; poll the job for its result.");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[test]
fn a_stop_in_the_middle_of_a_reload_loses_no_queued_job() {
    for delay_us in [0, 300, 1_000, 2_000, 4_000, 8_000] {
        let site = Site::new().service("max_workers: 4\ndrain_timeout: 100ms").plugin_with(
            "gated",
            GATED,
            "",
            "parallelism: 1\nretry: {max_attempts: 1}",
        );
        let mut gateway = site.start();
        let payload = json!({"gate": site.path("gate")});
        let jobs: Vec<String> = (0..4).map(|_| gateway.trigger_with("gated", "poll", &payload)).collect();
        gateway.wait_for_status(&jobs[0], |status| status == "running");
        let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
        fs::write(site.path("config/config.yaml"), config.replace("parallelism: 1", "parallelism: 4"))
            .expect("the configuration");
        gateway.signal("HUP");
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
        // Whoever was started ran under an order to end; nobody ends without having been started.
        let unstarted: i64 = site.query(
            "SELECT COUNT(*) FROM job_queue WHERE status = 'running' OR (status = 'dead' AND started_at IS NULL)",
        );
        assert_eq!(unstarted, 0, "{}", gateway.said());
        let open: i64 = site.query("SELECT COUNT(*) FROM reload_history WHERE finished_at IS NULL");
        assert_eq!(open, 0, "after {delay_us} µs: {}", gateway.said());
        let spawned = gateway.log().lines().filter(|line| line.contains("plugin spawned")).count();
        let dead: i64 = site.query("SELECT COUNT(*) FROM job_queue WHERE status = 'dead'");
        assert!(dead <= i64::try_from(spawned).expect("a count"), "{dead} dead, {spawned} spawned: {}", gateway.said());
    }
}

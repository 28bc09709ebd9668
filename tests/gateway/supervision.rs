//! Each actor is killed once and comes back; one that keeps failing ends the process.

use serde_json::json;

use crate::site::{GATED, Gateway, OK, Site};

fn crash(gateway: &mut Gateway, component: &str) {
    gateway.signal("USR1");
    let line = gateway.wait_for_log("the restart", |line| line["event"] == "component.restarted");
    assert_eq!(line["component"], component, "{line}");
}

fn survives(component: &str) {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start_with(&[("DUCTILE_FAULTS", &format!("crash:{component}"))]);
    crash(&mut gateway, component);
    let answer = gateway.post("/plugin/hello/poll", &json!({"sync": true}));
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("succeeded")), "{answer:?}\n{}", gateway.said());
    let restarts = gateway.log().lines().filter(|line| line.contains("component.restarted")).count();
    assert_eq!(restarts, 1, "nothing else restarted\n{}", gateway.said());
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
}

macro_rules! each_actor {
    ($($name:ident: $component:literal,)*) => {
        $(#[test]
        fn $name() {
            survives($component);
        })*
    };
}

each_actor! {
    the_config_actor_comes_back: "config",
    the_vault_actor_comes_back: "vault",
    the_queue_actor_comes_back: "queue",
    the_dispatcher_comes_back: "dispatcher",
    the_scheduler_comes_back: "scheduler",
    the_relay_comes_back: "relay",
    the_webhook_actor_comes_back: "webhook",
    the_api_comes_back: "api",
}

#[test]
fn a_dispatcher_that_crashes_disturbs_no_running_job() {
    let site = Site::new().service("max_workers: 2").plugin("gated", GATED);
    let mut gateway = site.start_with(&[("DUCTILE_FAULTS", "crash:dispatcher")]);
    let payload = json!({"gate": site.path("gate")});
    let jobs: Vec<String> = (0..4).map(|_| gateway.trigger_with("gated", "poll", &payload)).collect();
    gateway.wait_for_status(&jobs[1], |status| status == "running");
    crash(&mut gateway, "dispatcher");
    std::fs::write(site.path("gate"), "").expect("a file");
    for job in &jobs {
        let seen = gateway.wait_for(job);
        assert_eq!((&seen["status"], &seen["attempt"]), (&json!("succeeded"), &json!(1)), "{}", gateway.said());
    }
}

#[test]
fn an_actor_that_keeps_failing_ends_the_process_in_order() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start_with(&[("DUCTILE_FAULTS", "crash:relay")]);
    for _ in 0..5 {
        // The line comes when the actor is back, so the next signal meets it.
        crash(&mut gateway, "relay");
        let job = gateway.trigger("hello", "poll");
        gateway.wait_for(&job);
    }
    gateway.signal("USR1");
    gateway.wait_for_log("the end", |line| line["event"] == "component.failed");
    assert_eq!(gateway.wait_for_exit().code(), Some(1), "{}", gateway.said());
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE status='succeeded'"), 5);
    assert_eq!(std::fs::read_to_string(site.path("data/ductile.pid")).expect("the pid file"), "");
}

/// A job that waits for its gate, with the dispatcher down for long enough that much can happen meanwhile.
fn with_dispatcher_down(service: &str) -> (Site, Gateway, String) {
    let site = Site::new().service(service).plugin("gated", GATED);
    let mut gateway = site.start_with(&[("DUCTILE_FAULTS", "crash:dispatcher")]);
    let job = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&job, |status| status == "running");
    // The pause doubles: after three failures it is 800 ms.
    for _ in 0..3 {
        crash(&mut gateway, "dispatcher");
    }
    gateway.signal("USR1");
    gateway.wait_for_log("the failure", |line| line["event"] == "component.down");
    (site, gateway, job)
}

#[test]
fn a_reload_while_the_dispatcher_is_down_loses_no_attempt() {
    let (site, gateway, job) = with_dispatcher_down("max_workers: 4");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    let other = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    std::fs::write(site.path("gate"), "").expect("a file");
    for job in [&job, &other] {
        let seen = gateway.wait_for(job);
        assert_eq!((&seen["status"], &seen["attempt"]), (&json!("succeeded"), &json!(1)), "{}", gateway.said());
    }
}

#[test]
fn a_stop_while_the_dispatcher_is_down_leaves_no_plugin_and_no_running_row() {
    let (site, mut gateway, _) = with_dispatcher_down("drain_timeout: 100ms");
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    assert_eq!(site.column("SELECT status FROM job_queue"), ["queued"]);
}

#[test]
fn a_restarted_vault_actor_reads_the_blob_again() {
    let script = r#"cat > "$DUCTILE_PAYLOAD_OUT"; echo '{"status":"ok","result":"x"}'"#;
    let site = Site::new().plugin("mailer", script);
    site.principal("mailer");
    site.secret("one", "value-of-the-first", "mailer");
    let before = std::fs::read(site.path("config/vault.age")).expect("the vault");
    site.secret("two", "value-of-the-second", "mailer");
    let newer = std::fs::read(site.path("config/vault.age")).expect("the vault");
    std::fs::write(site.path("config/vault.age"), before).expect("the vault");
    let mut gateway = site.start_with(&[("DUCTILE_FAULTS", "crash:vault")]);
    let out = site.path("request");
    let delivered = |gateway: &Gateway| -> usize {
        gateway.wait_for(&gateway.trigger_with("mailer", "poll", &json!({"out": out})));
        let request: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&out).expect("the request")).expect("JSON");
        request["secrets"].as_object().expect("secrets").len()
    };
    assert_eq!(delivered(&gateway), 1);
    std::fs::write(site.path("config/vault.age"), newer).expect("the vault");
    assert_eq!(delivered(&gateway), 1, "the file is not looked at while all is well");
    crash(&mut gateway, "vault");
    assert_eq!(delivered(&gateway), 2);
}

#[test]
fn without_test_faults_the_signal_is_not_ours() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    gateway.signal("USR1");
    // The default action of the signal: no handler of ours is installed.
    assert_eq!(gateway.wait_for_exit().code(), None);
}

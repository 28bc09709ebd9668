//! Each actor is killed once and comes back; one that keeps failing ends the process.

use serde_json::json;

use crate::site::{Gateway, OK, Site};

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
    let script = r#"cat >/dev/null; while [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; do sleep 0.02; done; echo '{"status":"ok","result":"done"}'"#;
    let site = Site::new().service("max_workers: 2").plugin("gated", script);
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
        crash(&mut gateway, "relay");
        // The next signal must meet the restarted actor.
        let job = gateway.trigger("hello", "poll");
        gateway.wait_for(&job);
        wait_until_back(&gateway);
    }
    gateway.signal("USR1");
    gateway.wait_for_log("the end", |line| line["event"] == "component.failed");
    assert_eq!(gateway.wait_for_exit().code(), Some(1), "{}", gateway.said());
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE status='succeeded'"), 5);
    assert_eq!(std::fs::read_to_string(site.path("data/ductile.pid")).expect("the pid file"), "");
}

/// A component that is down takes no fault: signals are repeated by the caller only when it is back. The pause before
/// a restart doubles from 100 ms; the restart itself is logged when it begins.
fn wait_until_back(gateway: &Gateway) {
    let restarts = gateway.log().lines().filter(|line| line.contains("component.restarted")).count();
    let pause = 100u64 << (restarts - 1);
    std::thread::sleep(std::time::Duration::from_millis(pause + 200));
}

#[test]
fn without_test_faults_the_signal_is_not_ours() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    gateway.signal("USR1");
    // The default action of the signal: no handler of ours is installed.
    assert_eq!(gateway.wait_for_exit().code(), None);
}

//! Taking over a new configuration.

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::site::{Client, GATED, OK, Site, eventually, free_address};

#[test]
fn a_reload_takes_over_and_records_its_configuration() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let site = site.plugin("second", OK);
    assert_eq!(gateway.post("/plugin/second/poll", &json!({})).status, 404);
    site.write_config();
    let answer = gateway.post("/system/reload", &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.said());
    assert_eq!((&answer.body["status"], &answer.body["generation"]), (&json!("ok"), &json!(2)));
    let job = gateway.wait_for(&gateway.trigger("second", "poll"));
    assert_eq!(job["status"], "succeeded");
    assert_eq!(gateway.get("/healthz").body["generation"], 2);
    assert_eq!(site.column("SELECT reason FROM config_snapshots ORDER BY loaded_at"), ["startup", "reload"]);
    let history: String = site.query("SELECT trigger || ' ' || actor || ' ' || outcome FROM reload_history");
    assert_eq!(history, "api tests ok");
}

#[test]
fn a_running_job_goes_on_under_the_configuration_it_started_with() {
    let site = Site::new().plugin_with("gated", GATED, "", "timeouts: {poll: 60s}");
    let gateway = site.start();
    let payload = json!({"gate": site.path("gate")});
    let job = gateway.trigger_with("gated", "poll", &payload);
    gateway.wait_for_status(&job, |status| status == "running");
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    fs::write(site.path("config/config.yaml"), config.replace("poll: 60s", "poll: 1ms")).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    fs::write(site.path("gate"), "").expect("a file");
    assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
    let next = gateway.trigger_with("gated", "poll", &payload);
    gateway.wait_for_status(&next, |status| status != "running");
    let started: i64 = site.query("SELECT COUNT(DISTINCT started_config_snapshot_id) FROM job_log");
    assert_eq!(started, 2);
}

#[test]
fn a_refused_reload_leaves_the_old_generation_serving() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    fs::write(site.path("config/config.yaml"), "service: [\n").expect("the configuration");
    let answer = gateway.post("/system/reload", &json!({}));
    assert_eq!((answer.status, &answer.body["code"]), (409, &json!("reload_failed")), "{answer:?}");
    assert!(answer.body["error"].as_str().expect("a text").starts_with("config reload rejected: "), "{answer:?}");
    assert_eq!(answer.body["context"]["outcome"], "rejected");
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM config_snapshots"), 1);
    assert_eq!(site.query::<String>("SELECT outcome FROM reload_history"), "rejected");
    site.write_config();
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
}

#[test]
fn what_needs_a_restart_is_refused_by_name() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let moved = config.replace("../data/ductile.db", "../data/other.db");
    fs::write(site.path("config/config.yaml"), moved).expect("the configuration");
    let answer = gateway.post("/system/reload", &json!({}));
    let error = answer.body["error"].as_str().expect("a text");
    assert_eq!(error, "config reload rejected: changes to state.path require a full restart");
    assert!(!site.path("data/other.db").exists());
}

#[test]
fn a_changed_address_serves_before_the_reload_is_answered_and_the_old_one_goes() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let free = free_address();
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    fs::write(site.path("config/config.yaml"), config.replace("127.0.0.1:0", &free)).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200, "{}", gateway.said());
    assert_eq!(Client::new(&free, "").get("/healthz").body["generation"], 2);
    let old = gateway.address().to_owned();
    eventually(|| match std::net::TcpStream::connect(&old) {
        Err(error) => Ok(error),
        Ok(_) => Err("the old address still accepts"),
    })
    .expect("the old address to be gone");
}

#[test]
fn a_taken_new_address_fails_the_reload_and_nothing_changes() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    fs::write(site.path("config/config.yaml"), config.replace("127.0.0.1:0", &address)).expect("the configuration");
    let answer = gateway.post("/system/reload", &json!({}));
    assert_eq!((answer.status, &answer.body["context"]["outcome"]), (409, &json!("failed")), "{answer:?}");
    assert!(answer.body["error"].as_str().expect("a text").contains(&address));
    assert_eq!(gateway.get("/healthz").body["generation"], 1);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM config_snapshots"), 1);
    drop(taken);
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
}

#[test]
fn a_signal_takes_the_same_path_and_the_command_reports_the_result() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let said = site.run(&["system", "reload"]);
    assert!(said.contains(&format!("Reload signal sent to PID {}", gateway.pid())), "{said}");
    assert!(said.contains("Reloaded at "), "{said}");
    assert_eq!(gateway.get("/healthz").body["generation"], 2);
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let fixed = config.replace("service:\n", "service:\n  cgroups: off\n");
    fs::write(site.path("config/config.yaml"), fixed).expect("the configuration");
    let output = site.command(&["system", "reload"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(78), "{}", crate::site::show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("service.cgroups"), "{}", crate::site::show(&output));
    fs::write(site.path("config/config.yaml"), format!("{config}surprise: [\n")).expect("the configuration");
    let output = site.command(&["system", "reload"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(78), "{}", crate::site::show(&output));
    let history = site.column("SELECT trigger || ' ' || outcome FROM reload_history ORDER BY id");
    assert_eq!(history, ["sighup ok", "sighup rejected"]);
}

#[test]
fn many_reloads_at_once_share_one_follow_up() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let client = gateway.client();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let client = client.clone();
            scope.spawn(move || assert_eq!(client.post("/system/reload", "", &[]).status, 200));
        }
    });
    let reloads: i64 = site.query("SELECT COUNT(*) FROM reload_history");
    // Each wave of requests that meets a running reload shares the next one.
    assert!((1..20).contains(&reloads), "{reloads}");
    assert_eq!(gateway.get("/healthz").body["generation"], reloads + 1);
}

#[test]
fn a_job_is_stamped_with_the_configuration_of_its_enqueue_and_that_of_its_start() {
    let site = Site::new().service("max_workers: 1").plugin("gated", GATED);
    let gateway = site.start();
    let payload = json!({"gate": site.path("gate")});
    let jobs: Vec<String> = (0..2).map(|_| gateway.trigger_with("gated", "poll", &payload)).collect();
    gateway.wait_for_status(&jobs[0], |status| status == "running");
    let reload = gateway.post("/system/reload", &json!({}));
    assert_eq!(reload.status, 200, "{reload:?}");
    let after = gateway.trigger_with("gated", "poll", &payload);
    fs::write(site.path("gate"), "").expect("a file");
    let all = [&jobs[0], &jobs[1], &after];
    all.iter().for_each(|job| assert_eq!(gateway.wait_for(job)["attempt"], 1, "nobody was started again"));
    let old: String = site.query("SELECT id FROM config_snapshots WHERE reason = 'startup'");
    let new = reload.body["config_snapshot_id"].as_str().expect("an id");
    let expected = [(&*old, &*old), (&old, new), (new, new)].map(|(queued, started)| format!("{queued} {started}"));
    for table in ["job_queue", "job_log"] {
        let stamps = format!(
            "SELECT enqueued_config_snapshot_id || ' ' || started_config_snapshot_id FROM {table} ORDER BY created_at"
        );
        assert_eq!(site.column(&stamps), expected, "{table}");
    }
}

#[test]
fn queued_jobs_of_plugins_that_are_gone_are_dead_with_their_facts_and_nothing_is_started_for_them() {
    let refusing = r#"cat >/dev/null; echo '{"status":"error","error":"later"}'"#;
    let site = Site::new()
        .service("max_workers: 2")
        .plugin("blocks", GATED)
        .plugin("stays", GATED)
        .plugin_with("disabled", GATED, "", "parallelism: 1\nnotify_on_complete: true")
        .plugin_with("waits", refusing, "", "retry: {backoff_base: 1h}\nnotify_on_complete: true")
        .plugin("removed", GATED)
        // Nobody is told of what a reload gave up.
        .extra("\npipelines:\n  - {name: alarm, on-hook: job.finished, steps: [{uses: stays}]}\n");
    let gateway = site.start();
    let payload = json!({"gate": site.path("gate")});
    // One that has failed already and waits for its time.
    let retrying = gateway.trigger("waits", "poll");
    let waiting = format!("SELECT COUNT(*) FROM job_queue WHERE id = '{retrying}' AND attempt = 2");
    eventually(|| if site.query::<i64>(&waiting) == 1 { Ok(()) } else { Err(()) }).expect("a second attempt to wait");
    let blocking: Vec<String> = (0..2).map(|_| gateway.trigger_with("blocks", "poll", &payload)).collect();
    blocking.iter().for_each(|job| drop(gateway.wait_for_status(job, |status| status == "running")));
    let gone: Vec<String> =
        ["disabled", "removed", "disabled"].map(|plugin| gateway.trigger_with(plugin, "poll", &payload)).to_vec();
    let kept = gateway.trigger_with("stays", "poll", &payload);
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let config = config.replace("  disabled:\n    enabled: true", "  disabled:\n    enabled: false");
    let config = config.replace("  waits:\n    enabled: true", "  waits:\n    enabled: false");
    let config = config.replace("  removed:\n    enabled: true\n", "");
    fs::write(site.path("config/config.yaml"), config).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200, "{}", gateway.said());
    let text = "cancelled by reload: plugin removed or disabled";
    for (job, attempt) in gone.iter().map(|job| (job, 1)).chain([(&retrying, 2)]) {
        let row = format!(
            "SELECT status || ' ' || attempt || ' ' || last_error || ' ' || (completed_at IS NOT NULL) FROM job_queue WHERE id = '{job}'"
        );
        assert_eq!(site.column(&row), [format!("dead {attempt} {text} 1")]);
        let last = format!(
            "SELECT from_status || ' ' || to_status || ' ' || reason FROM job_transitions WHERE job_id = '{job}' ORDER BY id DESC LIMIT 1"
        );
        assert_eq!(site.column(&last), [format!("queued dead {text}")]);
        let log = format!("SELECT status || ' ' || last_error FROM job_log WHERE id = '{job}-{attempt}'");
        assert_eq!(site.column(&log), [format!("dead {text}")]);
    }
    for plugin in ["disabled", "removed", "waits"] {
        assert_eq!(
            gateway.post(&format!("/plugin/{plugin}/poll"), &json!({})).status,
            409,
            "{plugin} takes no new ones"
        );
    }
    fs::write(site.path("gate"), "").expect("a file");
    blocking.iter().chain([&kept]).for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 7, "nothing was made of their ends");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_stopwatch WHERE plugin IN ('disabled', 'removed')"), 0);
    crate::crash::check_invariants(&site);
}

#[test]
fn queued_jobs_of_a_plugin_that_is_disabled_are_cancelled() {
    let site = Site::new().service("max_workers: 1").plugin("gone", GATED);
    let gateway = site.start();
    let payload = json!({"gate": site.path("gate")});
    let running = gateway.trigger_with("gone", "poll", &payload);
    let queued = gateway.trigger_with("gone", "poll", &payload);
    gateway.wait_for_status(&running, |status| status == "running");
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let off = config.replace("  gone:\n    enabled: true", "  gone:\n    enabled: false");
    fs::write(site.path("config/config.yaml"), off).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    let dead = gateway.wait_for(&queued);
    assert_eq!(
        (&dead["status"], &dead["last_error"]),
        (&json!("dead"), &json!("cancelled by reload: plugin removed or disabled"))
    );
    fs::write(site.path("gate"), "").expect("a file");
    assert_eq!(gateway.wait_for(&running)["status"], "succeeded");
    assert_eq!(gateway.post("/plugin/gone/poll", &json!({})).status, 409);
}

/// Continuous requests over kept and fresh connections, 50 reloads: no request fails, no job is lost.
#[test]
fn under_load_no_reload_fails_a_request_or_loses_a_job() {
    let site = Site::new().service("max_workers: 4").plugin("hello", OK);
    let gateway = site.start();
    let done = AtomicBool::new(false);
    let accepted = AtomicUsize::new(0);
    let address = gateway.address().to_owned();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (address, done, accepted) = (&address, &done, &accepted);
            scope.spawn(move || {
                let kept = Client::new(address, crate::site::token());
                while !done.load(Ordering::Relaxed) {
                    let client =
                        if worker % 2 == 0 { kept.clone() } else { Client::new(address, crate::site::token()) };
                    let answer = client.try_post("/plugin/hello/poll", "{}", &[]).expect("no request may fail");
                    assert_eq!(answer.status, 202, "{answer:?}");
                    accepted.fetch_add(1, Ordering::Relaxed);
                    // Jobs start slower than requests are taken; the queue must not only grow.
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let client = gateway.client();
        for round in 0..50 {
            let answer = client.post("/system/reload", "", &[]);
            assert_eq!(answer.status, 200, "reload {round}: {answer:?}\n{}", gateway.said());
        }
        done.store(true, Ordering::Relaxed);
    });
    let accepted = i64::try_from(accepted.load(Ordering::Relaxed)).expect("a count");
    eventually(|| {
        let open: i64 = site.query("SELECT COUNT(*) FROM job_queue WHERE status IN ('queued','running')");
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .expect("all jobs to end");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE status='succeeded' AND attempt=1"), accepted);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), accepted);
    assert_eq!(gateway.get("/healthz").body["generation"], 51);
}

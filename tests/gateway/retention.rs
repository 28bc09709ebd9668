//! Old rows go while the gateway runs, and what they took is given back.

use std::fs;

use serde_json::{Value, json};

use crate::site::{GATED, Gateway, OK, Site, eventually};

/// Waits until a query counts this much.
fn wait_for_count(site: &Site, gateway: &Gateway, count: i64, sql: &str) {
    let seen = eventually(|| match site.query::<i64>(sql) {
        seen if seen == count => Ok(()),
        seen => Err(seen),
    });
    seen.unwrap_or_else(|seen| panic!("{sql}: {seen}, not {count}\n{}", gateway.said()));
}

#[test]
fn finished_jobs_leave_the_queue_and_are_shown_from_the_log_and_active_ones_stay() {
    let site = Site::new()
        .service("max_workers: 2\ntick_interval: 100ms\ndedupe_ttl: 50ms\njob_queue_retention: 50ms")
        .plugin("hello", OK)
        .plugin_with("gated", GATED, "", "parallelism: 1")
        .plugin("bad", r#"cat >/dev/null; echo '{"status":"error","error":"broken","retry":false}'"#);
    let gateway = site.start();
    let gate = json!({"gate": site.path("gate")});
    let active: Vec<String> = (0..2).map(|_| gateway.trigger_with("gated", "poll", &gate)).collect();
    gateway.wait_for_status(&active[0], |status| status == "running");
    let hello: Vec<String> = (0..5).map(|_| gateway.trigger("hello", "poll")).collect();
    let bad = gateway.trigger("bad", "poll");
    let keyed = gateway.post("/plugin/hello/poll", &json!({"dedupe_key": "k"})).body;
    let cancelled = gateway.trigger_with("gated", "poll", &gate);
    assert_eq!(gateway.post(&format!("/job/{cancelled}/cancel"), &json!({})).status, 200);
    // The active ones are older than all of these.
    let keyed = keyed["job_id"].as_str().expect("an id");
    wait_for_count(&site, &gateway, 2, "SELECT COUNT(*) FROM job_queue");
    assert_eq!(site.column("SELECT status FROM job_queue ORDER BY created_at"), ["running", "queued"]);
    for (job, status) in hello
        .iter()
        .map(String::as_str)
        .chain([keyed])
        .map(|job| (job, "succeeded"))
        .chain([(&*bad, "failed"), (&*cancelled, "dead")])
    {
        let document: Value = serde_json::from_str(&site.run(&["job", "inspect", job, "--json"])).expect("JSON");
        assert_eq!((&document["source"], &document["status"]), (&json!("job_log"), &json!(status)), "{document}");
        assert_eq!(document["transitions"].as_array().map(Vec::len), Some(if status == "dead" { 2 } else { 3 }));
        assert_eq!(gateway.get(&format!("/job/{job}")).body["status"], status);
    }
    let gone = gateway.post(&format!("/job/{bad}/retry"), &json!({}));
    assert_eq!((gone.status, &gone.body["code"]), (410, &json!("job_payload_gone")), "{gone:?}");
    // The success of the key is forgotten with its row: it runs again.
    let again = gateway.post("/plugin/hello/poll", &json!({"dedupe_key": "k"}));
    assert_ne!(again.body["job_id"], keyed, "{again:?}");
    fs::write(site.path("gate"), "").expect("a file");
    wait_for_count(&site, &gateway, 0, "SELECT COUNT(*) FROM job_queue");
    for job in &active {
        assert_eq!(gateway.get(&format!("/job/{job}")).body["status"], "succeeded");
    }
    assert_eq!(gateway.get("/healthz").body["queue_depth"], 0);
}

#[test]
fn history_goes_by_its_own_ages_but_never_that_of_an_active_job() {
    let site = Site::new()
        .service(
            "max_workers: 2\ntick_interval: 100ms\ndedupe_ttl: 50ms\njob_queue_retention: 50ms\njob_log_retention: 50ms\n\
             job_transitions_retention: 50ms\njob_attempts_retention: 50ms\nbreaker_transitions_retention: 50ms",
        )
        .plugin("hello", OK)
        .plugin_with("gated", GATED, "", "parallelism: 1");
    let gateway = site.start();
    site.run(&["system", "reset", "hello"]);
    let active: Vec<String> =
        (0..2).map(|_| gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}))).collect();
    gateway.wait_for_status(&active[0], |status| status == "running");
    let done: Vec<String> = (0..3).map(|_| gateway.trigger("hello", "poll")).collect();
    let others = "job_id NOT IN (SELECT id FROM job_queue WHERE plugin = 'gated')";
    wait_for_count(&site, &gateway, 2, "SELECT COUNT(*) FROM job_queue");
    wait_for_count(&site, &gateway, 0, "SELECT COUNT(*) FROM job_log");
    wait_for_count(&site, &gateway, 0, &format!("SELECT COUNT(*) FROM job_transitions WHERE {others}"));
    wait_for_count(&site, &gateway, 0, &format!("SELECT COUNT(*) FROM job_attempts WHERE {others}"));
    wait_for_count(&site, &gateway, 0, "SELECT COUNT(*) FROM circuit_breaker_transitions");
    let moves =
        |job: &str| site.column(&format!("SELECT to_status FROM job_transitions WHERE job_id = '{job}' ORDER BY id"));
    assert_eq!(
        (moves(&active[0]), moves(&active[1])),
        (vec!["queued".into(), "running".into()], vec!["queued".into()])
    );
    let unknown = site.command(&["job", "inspect", &done[0]]).output().expect("the binary");
    assert_eq!(unknown.status.code(), Some(1), "nothing is left to tell of it");
    assert_eq!(gateway.get(&format!("/job/{}", done[0])).status, 404);
    fs::write(site.path("gate"), "").expect("a file");
    wait_for_count(
        &site,
        &gateway,
        0,
        "SELECT (SELECT COUNT(*) FROM job_queue) + (SELECT COUNT(*) FROM job_transitions) + (SELECT COUNT(*) FROM job_attempts)",
    );
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM circuit_breakers"), 1, "what is true now is no history");
}

#[test]
fn an_idle_gateway_gives_back_what_pruned_rows_took_and_empties_its_log() {
    const EACH: usize = 256 << 10;
    let large = format!(r#"cat >/dev/null; printf '{{"status":"ok","result":"%0{EACH}d"}}' 0"#);
    let site = Site::new().service("max_workers: 4\ntick_interval: 100ms").plugin("large", &large);
    let gateway = site.start();
    let jobs: Vec<String> = (0..60).map(|_| gateway.trigger("large", "poll")).collect();
    jobs.iter().for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
    let pages = || site.query::<i64>("PRAGMA page_count") * site.query::<i64>("PRAGMA page_size");
    let before = pages();
    assert!(before > i64::try_from(60 * EACH).expect("a size"), "{before}");
    // From now on they are old.
    let ages = "dedupe_ttl: 50ms\njob_queue_retention: 50ms\njob_log_retention: 50ms\n";
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let config = config
        .replace("  tick_interval", &format!("  {}  tick_interval", ages.replace('\n', "\n  ").trim_end_matches(' ')));
    fs::write(site.path("config/config.yaml"), config).expect("the configuration");
    let answer = gateway.post("/system/reload", &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}");
    wait_for_count(&site, &gateway, 0, "SELECT COUNT(*) FROM job_log");
    let size = |name: &str| fs::metadata(site.path("data").join(name)).map_or(0, |file| file.len());
    // Ticks go on all the time: they must not count as work while there is nothing to prune.
    let small = eventually(|| {
        let (file, log) = (size("ductile.db"), size("ductile.db-wal"));
        if file < 2 << 20 && log == 0 { Ok(()) } else { Err((file, log)) }
    });
    small.unwrap_or_else(|(file, log)| panic!("file {file}, log {log}\n{}", gateway.said()));
    let free = site.query::<i64>("PRAGMA freelist_count");
    assert!(free * 10 <= site.query::<i64>("PRAGMA page_count"), "{free} pages are free");
    assert_eq!(gateway.wait_for(&gateway.trigger("large", "poll"))["status"], "succeeded");
    assert_eq!(site.query::<String>("PRAGMA integrity_check"), "ok");
}

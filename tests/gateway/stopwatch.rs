//! How the time of each plugin process is kept, whatever became of it.

use serde_json::{Value, json};

use crate::site::{Gateway, OK, Site, eventually};

/// Rows of a job in the order of its attempts.
fn rows(site: &Site, job: &str, what: &str) -> Vec<String> {
    site.column(&format!("SELECT {what} FROM job_stopwatch WHERE job_id = '{job}' ORDER BY attempt, id"))
}

fn spans(site: &Site, job: &str) -> String {
    rows(site, job, "subs_json").concat()
}

#[test]
fn every_process_leaves_one_row_with_how_it_ended_and_a_job_without_one_leaves_none() {
    let site = Site::new()
        .plugin("good", OK)
        .plugin_with(
            "bad",
            r#"cat >/dev/null; echo '{"status":"error","error":"broken"}'; exit 1"#,
            "",
            "retry: {max_attempts: 2, backoff_base: 1ms}",
        )
        .plugin_with("slow", "cat >/dev/null; sleep 600", "", "retry: {max_attempts: 1}\ntimeouts: {poll: 200ms}")
        .plugin_with("garbled", "cat >/dev/null; echo no JSON", "", "retry: {max_attempts: 1}")
        .plugin_entry("off", "uses: good\nenabled: false");
    let gateway = site.start();
    for (plugin, endings) in [
        ("good", &["1 ok"][..]),
        ("bad", &["1 err", "2 err"]),
        ("slow", &["1 timeout"]),
        ("garbled", &["1 capture_error"]),
    ] {
        let job = gateway.trigger(plugin, "poll");
        gateway.wait_for(&job);
        assert_eq!(rows(&site, &job, "attempt || ' ' || status"), endings, "{plugin}");
        let odd = format!(
            "SELECT COUNT(*) FROM job_stopwatch w JOIN job_log l ON l.id = w.job_id || '-' || w.attempt
             WHERE w.job_id = '{job}' AND NOT (w.plugin = '{plugin}' AND w.pipeline = '' AND w.step_id = ''
               AND w.pipeline_instance_id = '' AND w.subs_json = '[]' AND w.dur_ns > 0 AND w.runtime_pre_ns >= 0
               AND w.runtime_post_ns >= 0 AND w.exit_wall_ns - w.enter_wall_ns = w.dur_ns
               AND w.recorded_at >= l.started_at)"
        );
        assert_eq!(site.query::<i64>(&odd), 0, "{plugin}");
    }
    site.outsider()
        .execute_batch(
            "INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, created_at)
             VALUES ('unstarted', 'off', 'poll', '{}', 'queued', 'cli', '2026-01-02 03:04:05.000000000Z')",
        )
        .expect("a row");
    assert_eq!(gateway.wait_for("unstarted")["status"], "failed");
    assert_eq!(rows(&site, "unstarted", "status"), Vec::<String>::new());
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_stopwatch"), 5);
}

/// A plugin that reports what its payload names.
const REPORTING: &str = r#"cat >/dev/null; printf '{"status":"ok","result":"x","ductile_stopwatch_subs":%s}' "$(cat "$DUCTILE_PAYLOAD_SPANS")""#;

fn report(site: &Site, gateway: &Gateway, plugin: &str, reported: &str) -> String {
    let file = site.path("spans");
    std::fs::write(&file, reported).expect("a file");
    let job = gateway.trigger_with(plugin, "poll", &json!({"spans": file}));
    assert_eq!(gateway.wait_for(&job)["status"], "succeeded", "{reported:.200}");
    job
}

#[test]
fn reported_spans_are_kept_as_they_are_within_their_caps() {
    let site = Site::new()
        .plugin("reports", REPORTING)
        .plugin_with("reports_few", REPORTING, "stopwatch: {max_subs: 2}", "")
        .plugin_with("reports_many", REPORTING, "stopwatch: {max_subs: 256}", "");
    let mut gateway = site.start();
    let span = r#"{"name":"fetch.body","dur_ns":12345678901234567890123,"ratio":1.50}"#;
    for (reported, kept) in [
        (format!("[{span}]"), format!("[{span}]")),
        (
            format!("[ {{ \"name\" : \"a b\" }} , 7, \"x\", null, [{span}], {span} ]"),
            format!(r#"[{{"name":"a b"}},{span}]"#),
        ),
        (span.to_owned(), "[]".to_owned()),
        ("\"spans\"".to_owned(), "[]".to_owned()),
        ("null".to_owned(), "[]".to_owned()),
    ] {
        let job = report(&site, &gateway, "reports", &reported);
        assert_eq!(spans(&site, &job), kept, "{reported}");
    }
    let numbered =
        |count: usize| format!("[{}]", (0..count).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>().join(","));
    for (plugin, count, kept) in
        [("reports", 32, 32), ("reports", 33, 32), ("reports_few", 5, 2), ("reports_many", 300, 256)]
    {
        let job = report(&site, &gateway, plugin, &numbered(count));
        assert_eq!(spans(&site, &job), numbered(kept), "{plugin} {count}");
        if count > kept {
            let warned =
                gateway.wait_for_log("a warning", |line| line["level"] == "WARN" && line["job_id"] == job.as_str());
            assert_eq!((&warned["dropped"], &warned["max"]), (&json!(count - kept), &json!(kept)), "{warned}");
        }
    }
    // The limit counts the bytes of what is stored: `[{"x":"…"}]`.
    let sized = |bytes: usize| format!(r#"[{{"x":"{}"}}]"#, "y".repeat(bytes - 10));
    let fits = report(&site, &gateway, "reports", &sized(16_384));
    assert_eq!(spans(&site, &fits).len(), 16_384);
    let too_large = report(&site, &gateway, "reports", &sized(16_385));
    assert_eq!(spans(&site, &too_large), "[]");
    let of_it = |line: &Value| line["level"] == "WARN" && line["job_id"] == too_large.as_str();
    assert_eq!(gateway.wait_for_log("a warning", of_it)["limit"], 16_384);
    gateway.stop();
    let log: Vec<Value> = gateway.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(log.iter().filter(|line| line["level"] == "WARN" && line["job_id"].is_string()).count(), 4, "one each");
}

#[test]
fn a_process_that_a_stop_ends_leaves_its_row_too() {
    let site = Site::new().service("drain_timeout: 100ms").plugin("stuck", "cat >/dev/null; echo > started; sleep 600");
    let mut gateway = site.start();
    let job = gateway.trigger("stuck", "poll");
    eventually(|| std::fs::metadata(site.path("started"))).expect("the plugin to run");
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    assert_eq!(rows(&site, &job, "attempt || ' ' || status || ' ' || (dur_ns > 0)"), ["1 err 1"]);
    assert_eq!(site.query::<String>("SELECT status || attempt FROM job_queue"), "queued2");
}

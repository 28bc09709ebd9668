//! When a schedule starts its job, and which.

use chrono::{SecondsFormat, TimeDelta};
use ductile_model::format_wire;
use serde_json::json;

use super::{
    Row, TICKS, ago, ahead, assert_apart, cell, change_rows, edit, left_behind, list, parsed, reload, several_ticks,
    shown, starts, wait_for_line, wait_for_starts, wait_for_text, wait_until_idle, with_schedules, with_script,
};
use crate::site::{OK, Site};

#[test]
fn an_interval_that_was_never_seen_runs_at_once_and_then_an_interval_after_its_end() {
    let site = with_schedules(&["{every: 1h}"]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    wait_until_idle(&site, &gateway);
    several_ticks(&site, &gateway);
    let jobs = site.column(
        "SELECT dedupe_key || ' ' || submitted_by || ' ' || payload || ' ' || max_attempts || ' ' || status
         FROM job_queue WHERE plugin='clock'",
    );
    assert_eq!(jobs, ["clock:poll:default site {} 4 succeeded"]);
    let [success, next] = ["last_success_at", "next_run_at"].map(|column| parsed(&cell(&site, "default", column)));
    assert_eq!(next - success, TimeDelta::hours(1));
    let job: String = site.query("SELECT id FROM job_queue WHERE plugin='clock'");
    assert_eq!(cell(&site, "default", "last_success_job_id"), job);
    assert_eq!(
        cell(&site, "default", "last_fired_at"),
        site.query::<String>("SELECT created_at FROM job_queue WHERE plugin='clock'")
    );
    let shown = shown(&gateway, "default");
    assert_eq!(shown["next_run_at"], format_wire(next));
    assert_eq!(
        (&shown["mode"], &shown["status"], &shown["command"]),
        (&json!("every"), &json!("scheduled"), &json!("poll"))
    );
}

#[test]
fn a_job_of_a_schedule_has_its_payload_command_and_the_name_of_the_service() {
    let config = list(&["{id: sync, every: 1h, command: health, payload: {kind: full, deep: {n: 1}}}"]);
    let site = Site::new().service("name: harbour\ntick_interval: 200ms").plugin_with(
        "clock",
        OK,
        "",
        &format!("retry: {{max_attempts: 2}}\n{config}"),
    );
    let gateway = site.start();
    let sql = "SELECT dedupe_key || ' ' || submitted_by || ' ' || payload FROM job_queue";
    wait_for_text(&site, &gateway, sql, r#"clock:health:sync harbour {"kind":"full","deep":{"n":1}}"#);
    let answer = gateway.get("/jobs?submitted_by=harbour");
    assert_eq!(answer.body["jobs"].as_array().map(Vec::len), Some(1), "{answer:?}");
}

#[test]
fn the_next_run_of_an_interval_counts_from_the_end_of_the_last() {
    let site =
        with_script("cat >/dev/null; sleep 0.7; echo '{\"status\":\"ok\",\"result\":\"x\"}'", &list(&["{every: 1s}"]));
    let gateway = site.start();
    let starts = wait_for_starts(&site, &gateway, "default", 3);
    let sql =
        "SELECT completed_at FROM job_queue WHERE plugin='clock' AND completed_at IS NOT NULL ORDER BY created_at";
    let ends: Vec<_> = site.column(sql).iter().map(|text| parsed(text)).collect();
    for (end, start) in ends.iter().zip(&starts[1..]) {
        assert!(*start - *end >= TimeDelta::seconds(1), "ended {end}, started again {start}");
    }
}

#[test]
fn a_job_that_always_fails_is_not_started_more_often_than_its_interval() {
    let script = r#"cat >/dev/null; echo '{"status":"error","error":"broken","retry":false}'"#;
    let config = format!("retry: {{max_attempts: 1}}\ncircuit_breaker: {{threshold: 100}}\n{}", list(&["{every: 1s}"]));
    let site = with_script(script, &config);
    let gateway = site.start();
    assert_apart(&wait_for_starts(&site, &gateway, "default", 4), TimeDelta::seconds(1));
    assert_eq!(cell(&site, "default", "last_success_at"), "");
    let open: i64 = site.query("SELECT failure_count FROM circuit_breakers WHERE plugin='clock'");
    assert!(open >= 3, "the failures count: {open}");
}

#[test]
fn jitter_moves_runs_both_ways_and_by_half_of_it_at_most() {
    let schedules: Vec<_> =
        (0..100).map(|n| format!("{{id: s{n}, every: 1h, jitter: 30m, if_running: queue}}")).collect();
    let schedules: Vec<_> = schedules.iter().map(String::as_str).collect();
    let site = with_script(OK, &format!("max_outstanding_polls: 200\n{}", list(&schedules)));
    let gateway = site.start();
    let done = "SELECT COUNT(*) FROM schedule_entries WHERE plugin='clock' AND last_success_at IS NOT NULL";
    wait_for_text(&site, &gateway, done, "Integer(100)");
    let offsets: Vec<_> = (0..100)
        .map(|n| {
            let id = format!("s{n}");
            parsed(&cell(&site, &id, "next_run_at")) - parsed(&cell(&site, &id, "last_success_at"))
        })
        .collect();
    let hour = TimeDelta::hours(1);
    assert!(offsets.iter().all(|offset| (*offset - hour).abs() <= TimeDelta::minutes(15)), "{offsets:?}");
    assert!(offsets.iter().any(|offset| *offset < hour) && offsets.iter().any(|offset| *offset > hour), "{offsets:?}");
}

#[test]
fn a_delay_runs_once_over_kills_restarts_reloads_and_a_time_without_its_plugin() {
    let site = with_schedules(&["{id: first, after: 4s}"]);
    site.start().kill_nine();
    let mut due = String::new();
    for _ in 0..3 {
        let gateway = site.start();
        several_rows(&site, &gateway);
        let next = cell(&site, "first", "next_run_at");
        assert!(due.is_empty() || due == next, "{due} became {next}");
        due = next;
        gateway.kill_nine();
    }
    let gateway = site.start();
    let started = wait_for_starts(&site, &gateway, "first", 1);
    assert!(started[0] >= parsed(&due), "{} before {due}", started[0]);
    wait_for_text(&site, &gateway, &exhausted("first"), "exhausted one_shot_exhausted -");
    reload(&gateway);
    edit(&site, "clock:\n    enabled: true", "clock:\n    enabled: false");
    reload(&gateway);
    several_ticks(&site, &gateway);
    edit(&site, "clock:\n    enabled: false", "clock:\n    enabled: true");
    reload(&gateway);
    several_ticks(&site, &gateway);
    gateway.kill_nine();
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "first").len(), 1, "{}", gateway.said());
    let shown = shown(&gateway, "first");
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("exhausted"), &json!("one_shot_exhausted")));
    assert_eq!(shown.get("next_run_at"), None, "{shown}");
}

fn several_rows(site: &Site, gateway: &crate::site::Gateway) {
    let sql = "SELECT COUNT(*) FROM schedule_entries";
    wait_for_text(site, gateway, sql, "Integer(2)");
}

fn exhausted(id: &str) -> String {
    format!(
        "SELECT status || ' ' || reason || ' ' || coalesce(next_run_at, '-') FROM schedule_entries WHERE schedule_id='{id}'"
    )
}

#[test]
fn an_instant_that_has_passed_runs_once_and_a_new_one_under_its_name_runs_again() {
    let past = ago(120).to_rfc3339_opts(SecondsFormat::Secs, true);
    let site = with_schedules(&[&format!("{{id: once, at: \"{past}\"}}")]);
    let gateway = site.start();
    wait_for_text(&site, &gateway, &exhausted("once"), "exhausted one_shot_exhausted -");
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "once").len(), 1);
    let later = ahead(2);
    edit(&site, &past, &later.to_rfc3339_opts(SecondsFormat::Millis, true));
    reload(&gateway);
    let started = wait_for_starts(&site, &gateway, "once", 2);
    assert!(started[1] >= later - TimeDelta::milliseconds(1), "{} before {later}", started[1]);
    wait_for_text(&site, &gateway, &exhausted("once"), "exhausted one_shot_exhausted -");
    reload(&gateway);
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "once").len(), 2, "{}", gateway.said());
}

#[test]
fn successes_of_a_schedule_do_not_move_another_one_of_the_same_command() {
    let site = with_schedules(&["{id: quick, every: 500ms}", "{id: slow, every: 1h}"]);
    left_behind(&site, &Row { id: "slow", last_fired: Some(ago(1800)), next: Some(ahead(1800)) });
    let next = cell(&site, "slow", "next_run_at");
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "quick", 4);
    assert_eq!(cell(&site, "slow", "next_run_at"), next);
    assert_eq!(cell(&site, "slow", "last_success_at"), "");
    assert_eq!(starts(&site, "slow").len(), 0);
}

#[test]
fn schedules_run_on_their_time_and_not_at_the_next_tick() {
    let config = list(&["{id: first, after: 1s}", "{id: often, every: 1s, command: health}"]);
    let site = Site::new().service("tick_interval: 300s").plugin_with("clock", OK, "", &config);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "first", 1);
    wait_for_text(&site, &gateway, "SELECT COUNT(*) > 2 FROM job_queue WHERE command='health'", "Integer(1)");
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_time_computed_by_a_clock_that_was_put_back_is_corrected_for_intervals_and_kept_for_cron() {
    let site =
        with_schedules(&["{id: often, every: 1s}", "{id: hourly, every: 1h}", "{id: nightly, cron: \"0 0 1 1 *\"}"]);
    let tomorrow = ahead(86_400);
    for id in ["often", "hourly", "nightly"] {
        left_behind(&site, &Row { id, last_fired: Some(tomorrow), next: Some(tomorrow) });
    }
    let kept = cell(&site, "nightly", "next_run_at");
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "often", 2);
    let next = parsed(&cell(&site, "hourly", "next_run_at"));
    assert!(next <= ahead(3600), "{next}");
    assert_eq!(starts(&site, "hourly").len(), 0, "corrected is not due");
    assert_eq!(cell(&site, "nightly", "next_run_at"), kept);
    assert_eq!(starts(&site, "nightly").len(), 0);
}

#[test]
fn rows_are_the_only_truth_and_may_be_changed_beside_a_running_gateway() {
    let site = with_schedules(&["{id: a, every: 1h}", "{id: b, cron: \"0 0 1 1 *\"}"]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "a", 1);
    wait_until_idle(&site, &gateway);
    // An empty status is that of an active schedule.
    let past = ductile_model::format_db(ago(1));
    change_rows(&site, &format!("UPDATE schedule_entries SET status='', next_run_at='{past}' WHERE schedule_id='a'"));
    wait_for_starts(&site, &gateway, "a", 2);
    change_rows(
        &site,
        &format!("UPDATE schedule_entries SET status='paused_manual', next_run_at='{past}' WHERE schedule_id='b'"),
    );
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "b").len(), 0);
    change_rows(&site, "UPDATE schedule_entries SET status='active' WHERE schedule_id='b'");
    wait_for_starts(&site, &gateway, "b", 1);
    assert!(parsed(&cell(&site, "b", "next_run_at")) > ahead(0));
}

#[test]
fn an_error_in_one_schedule_does_not_stop_the_others() {
    let site = with_schedules(&["{id: a, every: 300ms}", "{id: b, every: 300ms, command: health}"]);
    let mut gateway = site.start();
    wait_for_starts(&site, &gateway, "a", 1);
    change_rows(
        &site,
        "CREATE TRIGGER refuse BEFORE INSERT ON job_queue WHEN NEW.dedupe_key='clock:poll:a'
         BEGIN SELECT RAISE(ABORT, 'refused by a test'); END",
    );
    let line = wait_for_line(&mut gateway, "a", "schedule could not be looked at; tried again at the next tick");
    assert_eq!(line["level"], "WARN");
    let count = || -> i64 { site.query("SELECT COUNT(*) FROM job_queue WHERE command='health'") };
    let (before, refused) = (count(), starts(&site, "a").len());
    several_ticks(&site, &gateway);
    assert!(count() > before, "{}", gateway.said());
    assert_eq!((starts(&site, "a").len(), gateway.get("/readyz").status), (refused, 200));
    change_rows(&site, "DROP TRIGGER refuse");
    wait_for_starts(&site, &gateway, "a", refused + 2);
}

#[test]
fn a_gateway_without_schedules_is_ready_and_says_so() {
    let site = Site::new().service(TICKS).plugin("hello", OK);
    let gateway = site.start();
    assert_eq!(gateway.get("/scheduler/jobs").body, json!({"jobs": []}));
    assert_eq!((gateway.get("/readyz").status, gateway.get("/readyz").body), (200, json!({"ready": true})));
}

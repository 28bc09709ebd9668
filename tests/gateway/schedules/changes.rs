//! What a reload with another schedule does.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{
    Row, ago, ahead, assert_apart, cell, change_rows, edit, left_behind, parsed, reload, several_ticks, shown, starts,
    wait_for_starts, wait_for_text, wait_until_idle, with_schedules,
};
use crate::site::eventually;

#[test]
fn a_shorter_interval_counts_from_the_last_run() {
    let site = with_schedules(&["{every: 1h}"]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    wait_until_idle(&site, &gateway);
    edit(&site, "every: 1h", "every: 1s");
    reload(&gateway);
    assert_apart(&wait_for_starts(&site, &gateway, "default", 3), TimeDelta::seconds(1));
    edit(&site, "every: 1s", "every: 1h");
    reload(&gateway);
    wait_until_idle(&site, &gateway);
    let offset = || {
        let [fired, success, next] =
            ["last_fired_at", "last_success_at", "next_run_at"].map(|column| parsed(&cell(&site, "default", column)));
        next - fired.max(success)
    };
    // The first tick of the new configuration may come after the answer.
    let seen = eventually(|| if offset() == TimeDelta::hours(1) { Ok(()) } else { Err(offset()) });
    seen.unwrap_or_else(|seen| panic!("the next run is {seen} after the last\n{}", gateway.said()));
    let count = starts(&site, "default").len();
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "default").len(), count);
}

#[test]
fn another_expression_or_zone_means_the_first_slot_from_now_on() {
    let site = with_schedules(&["{cron: \"0 0 1 1 *\", timezone: UTC}"]);
    left_behind(&site, &Row { id: "default", last_fired: None, next: Some(ahead(3600)) });
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(cell(&site, "default", "definition"), "cron 0 0 1 1 * tz=UTC");
    edit(&site, "0 0 1 1 *", "30 4 1 1 *");
    reload(&gateway);
    wait_for_text(
        &site,
        &gateway,
        "SELECT substr(next_run_at, 5, 15) FROM schedule_entries WHERE plugin='clock'",
        "-01-01 04:30:00",
    );
    edit(&site, "timezone: UTC", "timezone: Asia/Tokyo");
    reload(&gateway);
    wait_for_text(
        &site,
        &gateway,
        "SELECT substr(next_run_at, 5, 15) FROM schedule_entries WHERE plugin='clock'",
        "-12-31 19:30:00",
    );
    assert_eq!(starts(&site, "default").len(), 0);
}

#[test]
fn a_change_while_the_gateway_is_down_counts_too() {
    let site = with_schedules(&["{every: 1h}", "{id: first, after: 1h}"]);
    let mut gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    wait_until_idle(&site, &gateway);
    gateway.stop();
    edit(&site, "every: 1h", "every: 1s");
    edit(&site, "after: 1h", "after: 1s");
    let gateway = site.start_again();
    wait_for_starts(&site, &gateway, "default", 3);
    wait_for_starts(&site, &gateway, "first", 1);
}

#[test]
fn another_command_makes_a_schedule_new_and_keeps_what_has_run_once() {
    let site = with_schedules(&["{id: a, every: 1h, command: poll}", "{id: b, after: 300ms, command: poll}"]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "a", 1);
    wait_for_starts(&site, &gateway, "b", 1);
    wait_until_idle(&site, &gateway);
    edit(&site, "every: 1h, command: poll", "every: 1h, command: health");
    edit(&site, "after: 300ms, command: poll", "after: 300ms, command: health");
    reload(&gateway);
    let keys = "SELECT dedupe_key FROM job_queue WHERE command='health'";
    wait_for_text(&site, &gateway, keys, "clock:health:a");
    several_ticks(&site, &gateway);
    assert_eq!(site.column(keys), ["clock:health:a"]);
    assert_eq!(cell(&site, "b", "status"), "exhausted");
}

#[test]
fn payload_and_policies_take_effect_without_moving_the_schedule() {
    let site = with_schedules(&["{every: 1h, payload: {n: 1}}"]);
    left_behind(&site, &Row { id: "default", last_fired: Some(ago(60)), next: Some(ahead(1800)) });
    let stored = cell(&site, "default", "next_run_at");
    let gateway = site.start();
    edit(&site, "payload: {n: 1}", "payload: {n: 2}, if_running: queue, catch_up: run_all");
    reload(&gateway);
    several_ticks(&site, &gateway);
    assert_eq!((cell(&site, "default", "next_run_at"), starts(&site, "default").len()), (stored, 0));
    let past = ductile_model::format_db(ago(1));
    change_rows(&site, &format!("UPDATE schedule_entries SET next_run_at='{past}' WHERE plugin='clock'"));
    wait_for_text(&site, &gateway, "SELECT payload FROM job_queue WHERE plugin='clock'", r#"{"n":2}"#);
}

#[test]
fn a_schedule_that_is_taken_out_finds_its_state_again() {
    let site = with_schedules(&["{id: stays, every: 1h}", "{id: goes, every: 1h, command: health}"]);
    let gateway = site.start();
    wait_for_text(
        &site,
        &gateway,
        "SELECT COUNT(*) FROM job_queue WHERE plugin='clock' AND status='succeeded'",
        "Integer(2)",
    );
    let stored = cell(&site, "goes", "next_run_at");
    edit(&site, "      - {id: goes, every: 1h, command: health}\n", "");
    reload(&gateway);
    several_ticks(&site, &gateway);
    let jobs = gateway.get("/scheduler/jobs").body;
    assert!(!jobs.to_string().contains("goes"), "{jobs}");
    let listed: Value = serde_json::from_str(&site.run(&["schedule", "list", "clock", "--json"])).expect("JSON");
    let states: Vec<_> = listed["schedules"].as_array().expect("a list").iter().map(|row| &row["status"]).collect();
    assert_eq!(states, ["active", "not configured"]);
    site.write_config();
    reload(&gateway);
    several_ticks(&site, &gateway);
    assert_eq!(cell(&site, "goes", "next_run_at"), stored);
    assert_eq!(shown(&gateway, "goes")["status"], "scheduled");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE plugin='clock'"), 2);
}

#[test]
fn a_refused_reload_leaves_schedules_as_they_are() {
    let site = with_schedules(&["{every: 1h}"]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    wait_until_idle(&site, &gateway);
    let stored = cell(&site, "default", "next_run_at");
    edit(&site, "every: 1h", "cron: \"61 * * * *\"");
    let answer = gateway.post("/system/reload", &json!({}));
    assert_eq!(answer.status, 409, "{answer:?}");
    several_ticks(&site, &gateway);
    assert_eq!((cell(&site, "default", "next_run_at"), starts(&site, "default").len()), (stored, 1));
    assert_eq!(cell(&site, "default", "definition").split(' ').next(), Some("every"));
}

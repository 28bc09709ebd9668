//! What was missed while there was no gateway.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use ductile_model::format_wire;
use serde_json::json;

use super::{
    Row, ago, cell, change_rows, left_behind, list, logged, parsed, several_ticks, shown, starts, wait_for_starts,
    wait_until_idle, with_schedules, with_script,
};
use crate::site::{OK, Site, eventually};

const CAUGHT_UP: &str = "missed runs of a schedule made up for";

/// A gateway that was last there ten runs and a bit ago.
fn ten_minutes_down(policy: &str) -> (Site, DateTime<Utc>) {
    let site = with_schedules(&[&format!("{{every: 1m, catch_up: {policy}, if_running: queue}}")]);
    let fired = ago(603);
    left_behind(&site, &Row { id: "default", last_fired: Some(fired), next: Some(fired + TimeDelta::minutes(1)) });
    (site, fired)
}

fn caught_up(site: &Site) -> Vec<String> {
    site.column("SELECT dedupe_key FROM job_queue WHERE dedupe_key LIKE 'clock:poll:%:catchup:%' ORDER BY dedupe_key")
}

/// Keys of the jobs of these slots of an interval of one minute.
fn keys(fired: DateTime<Utc>, slots: std::ops::RangeInclusive<i32>) -> BTreeSet<String> {
    let slot = |n| format_wire(fired + TimeDelta::minutes(1) * n);
    slots.map(|n| format!("clock:poll:default:catchup:{}", slot(n))).collect()
}

#[test]
fn skip_makes_up_for_nothing_and_runs_once() {
    let (site, _) = ten_minutes_down("skip");
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    several_ticks(&site, &gateway);
    assert_eq!((starts(&site, "default").len(), caught_up(&site).len()), (1, 0));
    let line = &logged(&gateway, "default", "schedule ran late")[0];
    assert_eq!((&line["reason"], line["late_ms"].as_i64() >= Some(540_000)), (&json!("gateway_down"), true), "{line}");
    let shown = shown(&gateway, "default");
    assert_eq!(shown["slots_late"], 1, "{shown}");
}

#[test]
fn run_once_makes_up_for_all_with_one_job() {
    let (site, fired) = ten_minutes_down("run_once");
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(caught_up(&site), keys(fired, 1..=1).into_iter().collect::<Vec<_>>());
    assert_eq!(starts(&site, "default").len(), 0, "the next one is a minute ahead");
    let line = &logged(&gateway, "default", CAUGHT_UP)[0];
    assert_eq!((&line["policy"], &line["missed"], &line["enqueued"]), (&json!("run_once"), &json!(10), &json!(1)));
    wait_until_idle(&site, &gateway);
    let [last, next] = ["last_success_at", "next_run_at"].map(|column| parsed(&cell(&site, "default", column)));
    assert_eq!(next - last, TimeDelta::minutes(1));
}

#[test]
fn run_all_makes_up_for_each_run_with_a_job_of_its_own() {
    let (site, fired) = ten_minutes_down("run_all");
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(caught_up(&site).into_iter().collect::<BTreeSet<_>>(), keys(fired, 1..=10));
    let line = &logged(&gateway, "default", CAUGHT_UP)[0];
    assert_eq!((&line["policy"], &line["missed"], &line["enqueued"]), (&json!("run_all"), &json!(10), &json!(10)));
    assert_eq!(parsed(&cell(&site, "default", "last_fired_at")), fired + TimeDelta::minutes(10));
    wait_until_idle(&site, &gateway);
    assert_eq!(starts(&site, "default").len(), 0);
    let order = site.column("SELECT dedupe_key FROM job_queue WHERE plugin='clock' ORDER BY created_at, id");
    assert!(order.is_sorted(), "oldest first: {order:?}");
    gateway.kill_nine();
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(caught_up(&site).len(), 10, "{}", gateway.said());
}

#[test]
fn of_too_many_missed_runs_the_newest_hundred_are_made_up_for() {
    let site = with_schedules(&["{every: 1m, catch_up: run_all}"]);
    let fired = ago(500 * 60 + 3);
    left_behind(&site, &Row { id: "default", last_fired: Some(fired), next: Some(fired + TimeDelta::minutes(1)) });
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(caught_up(&site).into_iter().collect::<BTreeSet<_>>(), keys(fired, 401..=500));
    let warned = logged(&gateway, "default", "too many runs were missed: only the newest 100 are made up for");
    assert_eq!((&warned[0]["dropped"], &warned[0]["level"]), (&json!(400), &json!("WARN")));
    let shown = shown(&gateway, "default");
    assert_eq!(shown["slots_dropped"], 400, "{shown}");
    gateway.kill_nine();
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(caught_up(&site).len(), 100, "{}", gateway.said());
}

#[test]
fn a_kill_while_runs_are_made_up_for_neither_repeats_nor_loses_one() {
    let slow = "cat >/dev/null; sleep 0.05; echo '{\"status\":\"ok\",\"result\":\"x\"}'";
    let site = with_script(slow, &format!("parallelism: 2\n{}", list(&["{every: 1m, catch_up: run_all}"])));
    for round in 0..8 {
        let fired = ago(40 * 60 + 3);
        left_behind(&site, &Row { id: "default", last_fired: Some(fired), next: Some(fired + TimeDelta::minutes(1)) });
        change_rows(&site, "DELETE FROM job_queue WHERE plugin='clock'");
        // Early ones hit the start itself, late ones the jobs.
        site.write_config();
        let gateway = site.launch(&[]);
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..20 + 20 * round)));
        gateway.kill_nine();
        let gateway = site.start();
        several_ticks(&site, &gateway);
        let found = caught_up(&site);
        assert_eq!(found.len(), 40, "{found:?}\n{}", gateway.said());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), keys(fired, 1..=40));
        gateway.kill_nine();
    }
}

#[test]
fn only_runs_inside_the_window_are_made_up_for_and_none_when_the_command_is_broken() {
    // Two hours of which the window has one at most: nothing outside it is made up for.
    let now = Utc::now();
    let start = now - TimeDelta::minutes(62);
    let end = start + TimeDelta::minutes(30);
    let window = format!("{:02}:{:02}-{:02}:{:02}", start.hour(), start.minute(), end.hour(), end.minute());
    let site = with_schedules(&[
        &format!("{{every: 1m, catch_up: run_all, only_between: \"{window}\", timezone: UTC}}"),
        "{id: broken, every: 1m, catch_up: run_all, command: health}",
    ]);
    let fired = now - TimeDelta::minutes(120);
    left_behind(&site, &Row { id: "default", last_fired: Some(fired), next: Some(fired + TimeDelta::minutes(1)) });
    left_behind(&site, &Row { id: "broken", last_fired: Some(fired), next: Some(fired + TimeDelta::minutes(1)) });
    let at = ductile_model::format_db(now);
    change_rows(
        &site,
        &format!(
            "UPDATE schedule_entries SET command='health' WHERE schedule_id='broken';
             INSERT INTO circuit_breakers (plugin, command, state, failure_count, opened_at, updated_at)
             VALUES ('clock', 'health', 'open', 3, '{at}', '{at}')"
        ),
    );
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(caught_up(&site).len(), 30, "{:?}", caught_up(&site));
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE command='health'"), 0);
    assert_eq!(starts(&site, "default").len(), 0, "now is outside the window");
}

#[test]
fn a_reload_makes_up_for_nothing() {
    let site = with_schedules(&["{every: 1h, catch_up: run_once}"]);
    let mut gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    wait_until_idle(&site, &gateway);
    let last = ductile_model::format_db(ago(5 * 3600));
    change_rows(&site, &format!("UPDATE schedule_entries SET last_fired_at='{last}' WHERE plugin='clock'"));
    for _ in 0..3 {
        super::reload(&gateway);
    }
    several_ticks(&site, &gateway);
    assert_eq!((starts(&site, "default").len(), caught_up(&site).len()), (1, 0));
    gateway.stop();
    let gateway = site.start();
    let seen = eventually(|| if caught_up(&site).len() == 1 { Ok(()) } else { Err(()) });
    seen.unwrap_or_else(|()| panic!("a start does\n{}", gateway.said()));
}

#[test]
fn a_cron_slot_that_passed_without_a_gateway_runs_once_late_and_those_between_are_told_of() {
    // Half a day from now, so that no slot comes while this runs.
    let next = Utc::now() + TimeDelta::hours(12);
    let site = with_schedules(&[&format!("{{cron: \"{} {} * * *\", timezone: UTC}}", next.minute(), next.hour())]);
    let slot = next.with_second(0).and_then(|at| at.with_nanosecond(0)).expect("a minute") - TimeDelta::days(3);
    left_behind(&site, &Row { id: "default", last_fired: Some(slot - TimeDelta::days(1)), next: Some(slot) });
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "default").len(), 1, "{}", gateway.said());
    let late = &logged(&gateway, "default", "schedule ran late")[0];
    assert_eq!((&late["level"], &late["reason"]), (&json!("INFO"), &json!("gateway_down")), "{late}");
    assert_eq!(late["slot"], format_wire(slot));
    let lost = &logged(&gateway, "default", "slots of a schedule passed without a run")[0];
    assert_eq!((&lost["slots"], &lost["reason"]), (&json!(2), &json!("gateway_down")), "{lost}");
    let shown = shown(&gateway, "default");
    assert_eq!((&shown["slots_late"], &shown["slots_dropped"]), (&json!(1), &json!(2)), "{shown}");
    assert_eq!(parsed(&cell(&site, "default", "next_run_at")), slot + TimeDelta::days(3));
}

#[test]
fn one_shots_that_passed_without_a_gateway_run_once_late() {
    let site = with_script(OK, &list(&["{id: first, after: 1h}"]));
    left_behind(&site, &Row { id: "first", last_fired: None, next: Some(ago(7200)) });
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!((starts(&site, "first").len(), cell(&site, "first", "status").as_str()), (1, "exhausted"));
    assert_eq!(logged(&gateway, "first", "schedule ran late").len(), 1);
}

//! Parts of the day, days off, and zones, judged when a schedule is due.

use chrono::{Datelike, TimeDelta, Timelike, Utc};
use serde_json::json;

use super::{
    Row, ago, ahead, cell, edit, left_behind, logged, parsed, reload, several_ticks, shown, starts, wait_for_line,
    wait_for_starts, with_schedules,
};

/// A zone in which it is this hour now, and stays so over the whole hour.
fn zone_where_it_is(hour: u32) -> String {
    let offset = (i64::from(hour) - i64::from(Utc::now().hour()) + 36) % 24 - 12;
    // Their signs are the other way round.
    if offset > 0 { format!("Etc/GMT-{offset}") } else { format!("Etc/GMT+{}", -offset) }
}

#[test]
fn a_window_over_midnight_is_open_on_both_sides_of_it_and_closed_by_day() {
    let schedule = |id: &str, hour| {
        let zone = zone_where_it_is(hour);
        format!("{{id: {id}, every: 1h, if_running: queue, only_between: \"22:00-06:00\", timezone: {zone}}}")
    };
    let schedules = [schedule("evening", 22), schedule("night", 2), schedule("morning", 7), schedule("noon", 12)];
    let schedules: Vec<_> = schedules.iter().map(String::as_str).collect();
    let site = super::with_script(crate::site::OK, &format!("max_outstanding_polls: 9\n{}", super::list(&schedules)));
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "evening", 1);
    wait_for_starts(&site, &gateway, "night", 1);
    several_ticks(&site, &gateway);
    for id in ["morning", "noon"] {
        assert_eq!(starts(&site, id).len(), 0, "{id}");
        let held = logged(&gateway, id, "schedule skipped");
        assert_eq!(held.len(), 1, "told once: {held:?}");
        assert_eq!(held[0]["reason"], "outside_time_window");
    }
}

#[test]
fn an_interval_outside_its_window_stays_due_and_runs_once_inside() {
    // Two hours away from now on either side.
    let hour = |offset| (Utc::now() + TimeDelta::hours(offset)).hour();
    let closed = format!("only_between: \"{:02}:00-{:02}:00\"", hour(2), hour(4));
    let site = with_schedules(&[&format!("{{every: 1h, {closed}, timezone: UTC}}")]);
    let due = ago(60);
    left_behind(&site, &Row { id: "default", last_fired: Some(ago(3660)), next: Some(due) });
    let stored = cell(&site, "default", "next_run_at");
    let mut gateway = site.start();
    let line = wait_for_line(&mut gateway, "default", "schedule skipped");
    assert_eq!(line["reason"], "outside_time_window");
    several_ticks(&site, &gateway);
    assert_eq!((starts(&site, "default").len(), cell(&site, "default", "next_run_at")), (0, stored));
    edit(&site, &closed, &format!("only_between: \"{:02}:00-{:02}:00\"", hour(-2), hour(2)));
    reload(&gateway);
    wait_for_starts(&site, &gateway, "default", 1);
    let late = wait_for_line(&mut gateway, "default", "schedule ran late");
    assert!(late["late_ms"].as_i64() >= Some(60_000), "{late}");
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "default").len(), 1);
}

#[test]
fn a_cron_slot_on_a_day_off_is_dropped_and_an_interval_waits() {
    // Yesterday and tomorrow too, for a test that runs over midnight.
    let today = i64::from(Utc::now().weekday().num_days_from_sunday());
    let off = format!("not_on: [{}, {}, {}], timezone: UTC", (today + 6) % 7, today, (today + 1) % 7);
    let site = with_schedules(&[
        &format!("{{id: nightly, cron: \"0 3 * * *\", {off}}}"),
        &format!("{{id: daily, every: daily, {off}}}"),
        &format!("{{id: once, after: 1h, {off}}}"),
    ]);
    for id in ["nightly", "daily", "once"] {
        left_behind(&site, &Row { id, last_fired: None, next: Some(ago(1)) });
    }
    let kept = cell(&site, "daily", "next_run_at");
    let mut gateway = site.start();
    let skipped = wait_for_line(&mut gateway, "nightly", "schedule skipped");
    assert_eq!(skipped["reason"], "outside_day_constraint");
    several_ticks(&site, &gateway);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE plugin='clock'"), 0, "{}", gateway.said());
    let next = parsed(&cell(&site, "nightly", "next_run_at"));
    assert!(next > ahead(0) && next.hour() == 3, "{next}");
    assert_eq!(cell(&site, "daily", "next_run_at"), kept);
    assert_eq!(cell(&site, "once", "status"), "active");
    let shown = shown(&gateway, "nightly");
    assert_eq!((&shown["slots_dropped"], &shown["slots_late"]), (&json!(1), &json!(0)), "{shown}");
    edit(&site, &off, "timezone: UTC");
    edit(&site, &off, "timezone: UTC");
    reload(&gateway);
    wait_for_starts(&site, &gateway, "daily", 1);
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "nightly").len(), 0, "what is dropped is not made up for");
}

#[test]
fn a_preferred_window_moves_the_next_run_and_holds_nothing_back() {
    let start = Utc::now() + TimeDelta::hours(14);
    let end = start + TimeDelta::hours(1);
    let clock = |at: chrono::DateTime<Utc>| format!("{:02}:{:02}", at.hour(), at.minute());
    let window = format!("preferred_window: {{start: \"{}\", end: \"{}\"}}", clock(start), clock(end));
    let site = with_schedules(&[&format!("{{every: 24h, {window}, timezone: UTC}}")]);
    left_behind(&site, &Row { id: "default", last_fired: Some(ago(86_400)), next: Some(ago(1)) });
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    super::wait_until_idle(&site, &gateway);
    let next = parsed(&cell(&site, "default", "next_run_at"));
    assert_eq!((clock(next), next.second()), (clock(start), 0), "{next}");
    assert!(next - Utc::now() > TimeDelta::hours(24), "{next}");
}

#[test]
fn the_zone_is_that_of_the_process_unless_the_schedule_names_one() {
    let site = with_schedules(&[
        "{id: here, cron: \"0 9 * * *\"}",
        "{id: there, cron: \"0 9 * * *\", timezone: Europe/Berlin}",
    ]);
    let gateway = site.start_with(&[("TZ", "America/New_York")]);
    assert_eq!(shown(&gateway, "here")["timezone"], "America/New_York");
    assert_eq!(shown(&gateway, "there")["timezone"], "Europe/Berlin");
    let output = site
        .command(&["schedule", "next", "clock", "-n", "1", "--from", "2026-01-15T00:00:00Z", "--json"])
        .env("TZ", "America/New_York")
        .output()
        .expect("the binary");
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["schedules"][0]["runs"], json!(["2026-01-15T09:00:00-05:00"]), "{seen}");
    assert_eq!(seen["schedules"][0]["timezone"], "America/New_York");
    assert_eq!(seen["schedules"][1]["runs"], json!(["2026-01-15T09:00:00+01:00"]), "{seen}");
}

//! Coming runs, computed from the configuration alone, and what a configuration may not say.

use serde_json::Value;

use crate::site::{OK, Site, show};

fn site(schedules: &[&str]) -> Site {
    let site = Site::new().plugin_with("clock", OK, "", &super::list(schedules));
    site.write_config();
    site
}

/// The runs of each cron expression, in a zone.
fn cron(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    next(&format!("{{cron: \"{expression}\", timezone: {zone}}}"), from, count)
}

fn next(schedule: &str, from: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let said = site(&[schedule]).run(&["schedule", "next", "clock", "--from", from, "-n", &count, "--json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let runs = said["schedules"][0]["runs"].as_array().expect("runs");
    runs.iter().map(|run| run.as_str().expect("a time").to_owned()).collect()
}

/// The dates of the coming runs in UTC.
fn dates(expression: &str, from: &str, count: usize) -> Vec<String> {
    cron(expression, "UTC", from, count).iter().map(|run| run[..10].to_owned()).collect()
}

/// Friday.
const FROM: &str = "2025-11-21T00:00:00Z";

#[test]
fn weekdays_are_those_of_crontab() {
    let week = |expression: &str, count| dates(expression, FROM, count).join(" ").replace("2025-", "");
    assert_eq!(week("0 9 * * 1-5", 6), "11-21 11-24 11-25 11-26 11-27 11-28");
    assert_eq!(week("0 9 * * 0", 2), "11-23 11-30");
    assert_eq!(week("0 9 * * 7", 2), "11-23 11-30");
    assert_eq!(week("0 9 * * 5-7", 4), "11-21 11-22 11-23 11-28");
    assert_eq!(week("0 9 * * fri-mon", 5), "11-21 11-22 11-23 11-24 11-28");
    assert_eq!(week("0 9 * * 5-1", 5), "11-21 11-22 11-23 11-24 11-28");
    assert_eq!(week("0 0 * * fri-mon/2", 4), "11-21 11-23 11-28 11-30");
    assert_eq!(cron("@weekly", "UTC", FROM, 2), ["2025-11-23T00:00:00+00:00", "2025-11-30T00:00:00+00:00"]);
}

#[test]
fn days_of_month_and_of_week_match_either_way_unless_one_begins_with_a_star() {
    assert_eq!(
        dates("0 0 13 * 5", "2025-12-01T00:00:00Z", 6).join(" "),
        "2025-12-05 2025-12-12 2025-12-13 2025-12-19 2025-12-26 2026-01-02"
    );
    assert_eq!(dates("0 0 */2 * mon", FROM, 2), ["2025-12-01", "2025-12-15"]);
    assert_eq!(dates("0 0 1 nov-feb *", FROM, 4), ["2025-12-01", "2026-01-01", "2026-02-01", "2026-11-01"]);
}

#[test]
fn last_days_nearest_workdays_and_numbered_weekdays() {
    for (expression, first) in [
        ("0 0 L * *", "2025-11-30"),
        ("0 0 LW * *", "2025-11-28"),
        ("0 0 15W * *", "2025-12-15"),
        ("0 0 * * 5L", "2025-11-28"),
        ("0 0 * * fri#2", "2025-12-12"),
        ("0 0 L-1 * *", "2025-11-29"),
    ] {
        assert_eq!(dates(expression, FROM, 1), [first], "{expression}");
    }
    assert_eq!(dates("0 0 31W 4,5 *", "2027-04-01T00:00:00Z", 1), ["2027-05-31"]);
}

#[test]
fn a_nightly_job_runs_once_a_day_also_when_clocks_change() {
    let berlin = |expression, from, count| cron(expression, "Europe/Berlin", from, count);
    assert_eq!(
        berlin("30 2 * * *", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
    assert_eq!(
        berlin("30 2 * * *", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );
    assert_eq!(
        berlin("*/30 * * * *", "2026-03-29T00:00:00Z", 4),
        [
            "2026-03-29T01:00:00+01:00",
            "2026-03-29T01:30:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:30:00+02:00"
        ]
    );
    assert_eq!(
        berlin("*/30 * * * *", "2026-10-25T00:00:00Z", 5),
        [
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-25T03:00:00+01:00",
        ]
    );
}

#[test]
fn windows_and_days_off_are_left_out_of_the_coming_runs() {
    let night = "only_between: \"22:00-06:00\", timezone: UTC";
    let minutes = next(&format!("{{every: 1m, {night}}}"), "2026-01-15T05:58:00Z", 3);
    assert_eq!(minutes, ["2026-01-15T05:58:00+00:00", "2026-01-15T05:59:00+00:00", "2026-01-15T22:00:00+00:00"]);
    let hours = next(&format!("{{cron: \"0 */5 * * *\", {night}}}"), "2026-01-15T00:00:00Z", 4);
    assert_eq!(
        hours,
        [
            "2026-01-15T00:00:00+00:00",
            "2026-01-15T05:00:00+00:00",
            "2026-01-16T00:00:00+00:00",
            "2026-01-16T05:00:00+00:00"
        ]
    );
    let days = next("{cron: \"0 3 * * *\", not_on: [sunday], timezone: UTC}", "2026-01-17T00:00:00Z", 2);
    assert_eq!(days, ["2026-01-17T03:00:00+00:00", "2026-01-19T03:00:00+00:00"]);
    let once = next("{at: \"2026-03-01T08:00:00+01:00\", timezone: UTC}", "2026-01-17T00:00:00Z", 5);
    assert_eq!(once, ["2026-03-01T07:00:00+00:00"]);
}

/// What `config check` says of a configuration that it refuses.
fn refused(site: &Site) -> Vec<String> {
    site.write_config();
    let output = site.command(&["config", "check"]).output().expect("the binary");
    assert!(!output.status.success(), "{}", show(&output));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    said.lines().filter(|line| line.trim_start().starts_with("ERROR")).map(str::to_owned).collect()
}

#[test]
fn expressions_that_mean_nothing_are_refused_with_their_place() {
    for (expression, said) in [
        ("60 * * * *", "value 60 out of range [0,59]"),
        ("* * * *", "expected 5 fields"),
        ("0 0 30 2 *", ""),
        ("0 0 31W 2 *", ""),
        ("5-1 * * * *", "descending range"),
        ("*/0 * * * *", ""),
        ("a * * * *", ""),
        ("0 0 L-3W * *", ""),
        ("0 0 * * 8", ""),
        ("@reboot", "after"),
        ("@reboot", "every"),
    ] {
        let errors = refused(&site(&[&format!("{{cron: \"{expression}\"}}")]));
        assert_eq!(errors.len(), 1, "{expression}: {errors:?}");
        for part in ["plugin \"clock\"", "schedules[0]", said] {
            assert!(errors[0].contains(part), "{expression}: {errors:?}");
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let errors = refused(&site(&[
        "{id: a, cron: \"@daily\", catch_up: run_once}",
        "{id: b, every: 1h, command: handle}",
        "{id: c, every: 1h, not_on: [funday]}",
        "{id: d, every: 1h, timezone: Mars/One}",
        "{id: e, every: 1h, only_between: \"08:00-08:00\"}",
        "{every: 1h}",
        "{every: 2h}",
    ]));
    assert_eq!(errors.len(), 6, "{errors:#?}");
    for (place, said) in [
        (0, "is only supported for every schedules"),
        (1, "cannot be scheduled"),
        (2, "funday"),
        (3, "Mars/One"),
        (4, "only_between"),
        (6, "duplicate schedule id \"default\""),
    ] {
        let found = errors.iter().any(|line| line.contains(&format!("schedules[{place}]")) && line.contains(said));
        assert!(found, "schedules[{place}] {said}: {errors:#?}");
    }
}

#[test]
fn a_schedule_has_exactly_one_trigger() {
    let errors = refused(&site(&["{id: none}", "{id: two, every: 1h, after: 1m}", "{id: zero, every: 0s}"]));
    for said in [
        "schedules[0] requires one of every, cron, at, or after",
        "schedules[1] must set exactly one of every, cron, at, or after",
        "schedule interval must be positive",
    ] {
        assert!(errors.iter().any(|line| line.contains(said)), "{said}: {errors:#?}");
    }
}

#[test]
fn a_command_that_the_plugin_does_not_have_refuses_a_start() {
    let site = site(&["{id: sync, every: 1h, command: sync}"]);
    let (status, said) = site.start_refused();
    assert!(!status.success());
    for part in ["clock", "schedules[0]", "sync"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!site.path("data/ductile.db").exists(), "nothing was begun");
}

#[test]
fn schedules_of_a_plugin_that_is_off_are_only_warned_of_and_do_nothing() {
    let site = super::with_schedules(&["{id: a, every: 1h}"]);
    site.write_config();
    super::edit(&site, "clock:\n    enabled: true", "clock:\n    enabled: false");
    super::edit(&site, "{id: a, every: 1h}", "{id: a, every: never}");
    let said = site.run(&["config", "check"]);
    assert!(said.contains("WARN") && said.contains("schedules[0]"), "{said}");
    let gateway = site.start_again();
    super::several_ticks(&site, &gateway);
    let shown = gateway.get("/scheduler/jobs").body;
    assert_eq!(shown["jobs"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["jobs"][0]["plugin"], "witness");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM schedule_entries WHERE plugin='clock'"), 0);
}

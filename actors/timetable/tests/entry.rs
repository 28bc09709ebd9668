//! Schedules as values: when they are due, what holds them back, what was missed, what is coming.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can not go on may panic")]

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc, Weekday};
use ductile_timetable::{
    CatchUp, Cron, Entry, HeldBack, Interval, Overlap, Rule, Weekdays, Window, Zone, parse_interval,
};
use proptest::prelude::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn entry(rule: Rule, zone: &str) -> Entry {
    Entry {
        plugin: "p".into(),
        id: "x".into(),
        command: "poll".into(),
        payload: "{}".into(),
        max_attempts: 4,
        rule,
        zone: Zone::named(zone).unwrap(),
        only_between: None,
        not_on: Weekdays::default(),
        if_running: Overlap::Skip,
        catch_up: CatchUp::Skip,
    }
}

fn every(text: &str) -> Rule {
    Rule::Every(Interval { every: parse_interval(text).unwrap(), jitter: Duration::ZERO, preferred: None })
}

fn cron(text: &str) -> Rule {
    Rule::Cron(Cron::parse(text).unwrap())
}

fn days(days: &[Weekday]) -> Weekdays {
    let mut set = Weekdays::default();
    days.iter().for_each(|day| set.insert(*day));
    set
}

fn coming(entry: &Entry, from: &str, count: usize) -> Vec<String> {
    entry.upcoming(at(from)).take(count).map(|run| entry.zone.show(run)).collect()
}

#[test]
fn a_definition_is_mode_expression_and_the_zone_where_it_matters() {
    for (rule, definition) in [
        (cron("0  9 * * 1"), "cron 0 9 * * 1 tz=Europe/Berlin"),
        (every("60m"), "every 1h0m0s"),
        (every("hourly"), "every 1h0m0s"),
        (Rule::At(at("2026-01-01T00:00:00+01:00")), "at 2025-12-31T23:00:00Z"),
        (Rule::After(Duration::from_secs(600)), "after 10m0s"),
    ] {
        assert_eq!(entry(rule, "europe/berlin").definition(), definition);
    }
}

#[test]
fn what_was_never_seen_is_due_at_once_or_in_the_present_minute_or_at_its_time() {
    let now = at("2026-03-27T10:00:20Z");
    for (rule, due) in [
        (every("1h"), Some("2026-03-27T10:00:20Z")),
        (cron("* * * * *"), Some("2026-03-27T10:00:00Z")),
        (cron("0 10 * * *"), Some("2026-03-27T10:00:00Z")),
        (cron("59 9 * * *"), Some("2026-03-28T09:59:00Z")),
        (Rule::At(at("2020-01-01T00:00:00Z")), Some("2020-01-01T00:00:00Z")),
        (Rule::After(Duration::from_secs(60)), Some("2026-03-27T10:01:20Z")),
    ] {
        assert_eq!(entry(rule.clone(), "UTC").first_due(now), due.map(at), "{rule:?}");
    }
}

#[test]
fn after_firing_it_is_due_an_interval_later_at_the_next_slot_or_never() {
    let now = at("2026-03-27T10:00:00Z");
    assert_eq!(entry(every("1h"), "UTC").next_due(now, 0.3), Some(at("2026-03-27T11:00:00Z")));
    assert_eq!(entry(cron("0 10 * * *"), "UTC").next_due(now, 0.3), Some(at("2026-03-28T10:00:00Z")));
    assert_eq!(entry(Rule::At(now), "UTC").next_due(now, 0.3), None);
    assert_eq!(entry(Rule::After(Duration::from_secs(1)), "UTC").next_due(now, 0.3), None);
}

#[test]
fn a_changed_interval_counts_from_the_last_run_and_is_never_due_in_the_past() {
    let now = at("2026-03-27T10:00:00Z");
    let last = Some(at("2026-03-27T09:50:00Z"));
    let hourly = entry(every("1h"), "UTC");
    assert_eq!(hourly.due_after_change(now, last), Some(at("2026-03-27T10:50:00Z")));
    assert_eq!(hourly.due_after_change(now, None), Some(now));
    assert_eq!(entry(every("1m"), "UTC").due_after_change(now, last), Some(now));
    assert_eq!(entry(cron("0 10 * * *"), "UTC").due_after_change(now, last), Some(at("2026-03-28T10:00:00Z")));
    let once = entry(Rule::After(Duration::from_secs(60)), "UTC");
    assert_eq!(once.due_after_change(now, last), Some(at("2026-03-27T10:01:00Z")));
}

#[test]
fn days_and_windows_are_those_of_the_zone() {
    let mut entry = entry(every("1h"), "Europe/Berlin");
    entry.not_on = days(&[Weekday::Sun]);
    entry.only_between = Some(Window::parse("22:00-06:00").unwrap());
    for (time, held) in [
        ("2026-01-02T20:59:59Z", Some(HeldBack::Window)),
        ("2026-01-02T21:00:00Z", None),
        ("2026-01-03T04:59:59Z", None),
        ("2026-01-03T05:00:00Z", Some(HeldBack::Window)),
        ("2026-01-03T22:59:59Z", None),
        // It is Sunday in Berlin.
        ("2026-01-03T23:00:00Z", Some(HeldBack::Day)),
        ("2026-01-04T22:59:59Z", Some(HeldBack::Day)),
        ("2026-01-04T23:00:00Z", None),
    ] {
        assert_eq!(entry.held_back(at(time)), held, "{time}");
    }
}

#[test]
fn missed_runs_are_counted_from_the_last_one_and_the_newest_are_named() {
    let entry = entry(every("1m"), "UTC");
    let base = at("2026-03-27T10:00:00Z");
    assert_eq!(entry.missed(base, at("2026-03-27T10:00:59Z"), 100), None);
    let missed = entry.missed(base, at("2026-03-27T10:10:00Z"), 100).unwrap();
    assert_eq!((missed.total, missed.newest.len()), (10, 10));
    assert_eq!((missed.first, missed.newest[9]), (at("2026-03-27T10:01:00Z"), at("2026-03-27T10:10:00Z")));
    let missed = entry.missed(base, at("2026-03-27T18:20:30Z"), 100).unwrap();
    assert_eq!((missed.total, missed.newest.len()), (500, 100));
    assert_eq!((missed.newest[0], missed.newest[99]), (at("2026-03-27T16:41:00Z"), at("2026-03-27T18:20:00Z")));
    assert_eq!(entry.missed(at("2026-03-28T00:00:00Z"), base, 100), None, "a clock that was put back");
}

#[test]
fn runs_of_excluded_times_were_not_missed() {
    let mut entry = entry(every("1h"), "Europe/Berlin");
    entry.only_between = Some(Window::parse("06:00-23:00").unwrap());
    let missed = entry.missed(at("2026-01-01T21:30:00Z"), at("2026-01-02T08:00:00Z"), 100).unwrap();
    // 22:30 in Berlin was allowed; then from 06:30 to 08:30.
    assert_eq!(missed.total, 3);
    assert_eq!(missed.first, at("2026-01-02T05:30:00Z"));
    entry.not_on = days(&[Weekday::Fri]);
    assert_eq!(entry.missed(at("2026-01-01T21:30:00Z"), at("2026-01-02T08:00:00Z"), 100), None);
}

#[test]
fn years_of_missed_runs_are_counted_quickly() {
    let entry = entry(every("1s"), "UTC");
    let missed = entry.missed(at("2000-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"), 3).unwrap();
    assert_eq!(missed.total, (at("2026-01-01T00:00:00Z") - at("2000-01-01T00:00:00Z")).num_seconds() as u64);
    assert_eq!(missed.newest.len(), 3);
}

#[test]
fn coming_slots_of_a_cron_expression_pass_over_excluded_times() {
    let mut nightly = entry(cron("0 3 * * *"), "Europe/Berlin");
    nightly.not_on = days(&[Weekday::Sun]);
    assert_eq!(
        coming(&nightly, "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T03:00:00+01:00", "2026-03-30T03:00:00+02:00", "2026-03-31T03:00:00+02:00"]
    );
    let mut minutes = entry(cron("*/20 * * * *"), "UTC");
    minutes.only_between = Some(Window::parse("08:30-09:00").unwrap());
    assert_eq!(
        coming(&minutes, "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T08:40:00+00:00", "2026-03-29T08:40:00+00:00", "2026-03-30T08:40:00+00:00"]
    );
}

#[test]
fn coming_runs_of_an_interval_wait_for_excluded_times_to_end() {
    let mut entry = entry(every("90m"), "UTC");
    entry.only_between = Some(Window::parse("08:00-10:00").unwrap());
    assert_eq!(
        coming(&entry, "2026-03-27T05:00:00Z", 4),
        [
            "2026-03-27T08:00:00+00:00",
            "2026-03-27T09:30:00+00:00",
            "2026-03-28T08:00:00+00:00",
            "2026-03-28T09:30:00+00:00"
        ]
    );
}

#[test]
fn what_never_may_run_has_no_coming_runs() {
    let all = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
    for rule in [every("1h"), cron("0 * * * *"), Rule::At(at("2026-01-01T00:00:00Z"))] {
        let mut entry = entry(rule, "UTC");
        entry.not_on = days(&all);
        assert_eq!(entry.upcoming(at("2026-01-01T00:00:00Z")).next(), None);
    }
}

#[test]
fn slots_that_all_fall_on_excluded_times_never_come() {
    for (text, window) in [("0 0 * * *", "08:00-09:00"), ("0 * * * *", "08:10-08:20"), ("*/20 * * * *", "08:01-08:19")]
    {
        let mut entry = entry(cron(text), "Europe/London");
        entry.only_between = Some(Window::parse(window).unwrap());
        assert_eq!(entry.upcoming(at("2026-01-01T00:00:00Z")).next(), None, "{text}");
    }
    // This one does, if seldom.
    let mut leap = entry(cron("0 0 29 2 *"), "UTC");
    leap.not_on = days(&[Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat]);
    assert_eq!(coming(&leap, "2026-01-01T00:00:00Z", 1), ["2032-02-29T00:00:00+00:00"]);
}

#[test]
fn what_runs_once_is_coming_once() {
    let once = entry(Rule::At(at("2026-01-01T00:00:00Z")), "UTC");
    assert_eq!(coming(&once, "2026-01-01T00:00:00Z", 5), ["2026-01-01T00:00:00+00:00"]);
}

#[test]
fn slots_between_two_instants_are_counted_up_to_a_limit() {
    let minutes = entry(cron("* * * * *"), "UTC");
    let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T03:00:00Z"));
    assert_eq!(minutes.slots_between(from, to, 1_000), 180);
    assert_eq!(minutes.slots_between(from, to, 100), 100);
    assert_eq!(minutes.slots_between(to, from, 100), 0);
    assert_eq!(entry(every("1m"), "UTC").slots_between(from, to, 100), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: prop::test_runner::RngSeed::Fixed(5), ..ProptestConfig::default() })]

    /// Against a scan of every minute of a fortnight in which the clocks change.
    #[test]
    fn the_coming_runs_are_those_of_a_scan(
        minutes in prop::sample::select(vec![7_i64, 30, 45, 60, 90, 500]),
        start in 0_i64..10_000,
        (from, to) in (0_u32..24, 0_u32..24).prop_filter("not equal", |(from, to)| from != to),
        off in prop::sample::subsequence(vec![Weekday::Mon, Weekday::Thu, Weekday::Sun], 0..3),
        zone in prop::sample::select(vec!["UTC", "Europe/London", "America/New_York", "Australia/Lord_Howe"]),
    ) {
        let mut entry = entry(every(&format!("{minutes}m")), zone);
        entry.not_on = days(&off);
        entry.only_between = Some(Window::parse(&format!("{from:02}:00-{to:02}:30")).unwrap());
        let begin = at("2026-03-25T00:00:00Z") + TimeDelta::minutes(start);
        let end = begin + TimeDelta::days(14);
        let tz: chrono_tz::Tz = zone.parse().unwrap();
        let allowed = |at: DateTime<Utc>| {
            use chrono::{Datelike, Timelike};
            let wall = at.with_timezone(&tz);
            let minute = wall.hour() * 60 + wall.minute();
            let (open, close) = (from * 60, to * 60 + 30);
            let inside = if open < close { open <= minute && minute < close } else { minute >= open || minute < close };
            inside && !off.contains(&wall.weekday())
        };
        let mut expected = Vec::new();
        let mut due = begin;
        while due < end {
            if allowed(due) {
                expected.push(due);
                due += TimeDelta::minutes(minutes);
            } else {
                due += TimeDelta::minutes(1);
            }
        }
        let found: Vec<_> = entry.upcoming(begin).take_while(|run| *run < end).collect();
        prop_assert_eq!(found, expected);
    }
}

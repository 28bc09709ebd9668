//! Slots when the clocks are put forward or back.

use crate::{cron, shown, slots, utc};
use ductile_timetable::Zone;

#[test]
fn a_fixed_slot_in_a_gap_fires_once_behind_it() {
    assert_eq!(
        shown("30 2 * * *", "Europe/Berlin", "2026-03-28 02:00", 2),
        ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
    // Several slots of one gap, and one right behind it, make one run.
    assert_eq!(
        shown("0,15,30,45 2-3 * * *", "Europe/Berlin", "2026-03-28 22:00", 3),
        ["2026-03-29T03:00:00+02:00", "2026-03-29T03:15:00+02:00", "2026-03-29T03:30:00+02:00"]
    );
    // Half an hour, at Lord Howe.
    assert_eq!(
        shown("15 2 * * *", "Australia/Lord_Howe", "2025-10-04 00:00", 2),
        ["2025-10-05T02:30:00+11:00", "2025-10-06T02:15:00+11:00"]
    );
    // At midnight, in São Paulo.
    assert_eq!(
        shown("0 0 * * *", "America/Sao_Paulo", "2017-10-14 12:00", 2),
        ["2017-10-15T01:00:00-02:00", "2017-10-16T00:00:00-02:00"]
    );
}

#[test]
fn a_fixed_slot_that_comes_twice_fires_the_first_time() {
    assert_eq!(
        shown("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );
    // From within the hour that comes twice: 02:15 and 02:45, the first time.
    let second = ["2026-10-26T02:30:00+01:00"];
    assert_eq!(shown("30 2 * * *", "Europe/Berlin", "2026-10-25 00:15", 1), ["2026-10-25T02:30:00+02:00"]);
    assert_eq!(shown("30 2 * * *", "Europe/Berlin", "2026-10-25 00:30", 1), second);
    assert_eq!(shown("30 2 * * *", "Europe/Berlin", "2026-10-25 01:15", 1), second);
    // A quarter to midnight comes twice in São Paulo.
    assert_eq!(
        shown("45 23 * * *", "America/Sao_Paulo", "2018-02-17 12:00", 2),
        ["2018-02-17T23:45:00-02:00", "2018-02-18T23:45:00-03:00"]
    );
}

#[test]
fn a_periodic_schedule_fires_whenever_the_clocks_show_a_slot() {
    let berlin = Zone::named("Europe/Berlin").unwrap();
    let shown = |from: &str, to: &str, text: &str| -> Vec<String> {
        slots(&cron(text), &berlin, utc(from), utc(to)).iter().map(|at| berlin.show(*at)).collect()
    };
    assert_eq!(
        shown("2026-03-29 00:00", "2026-03-29 02:00", "*/30 * * * *"),
        [
            "2026-03-29T01:00:00+01:00",
            "2026-03-29T01:30:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:30:00+02:00"
        ]
    );
    let twice = [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
    ];
    assert_eq!(shown("2026-10-25 00:00", "2026-10-25 02:00", "*/30 * * * *"), twice);
    assert_eq!(shown("2026-10-25 00:00", "2026-10-25 02:00", "*/30 */2 * * *"), twice);
    assert_eq!(shown("2026-10-25 00:00", "2026-10-25 02:00", "@hourly"), [twice[0], twice[2]]);
}

#[test]
fn hours_that_are_written_out_are_fixed() {
    let berlin = Zone::named("Europe/Berlin").unwrap();
    let count = |text: &str| slots(&cron(text), &berlin, utc("2026-10-25 00:00"), utc("2026-10-25 02:00")).len();
    assert_eq!(count("0 * * * *"), 2);
    assert_eq!(count("0 */1 * * *"), 2);
    assert_eq!(count("0 0-23 * * *"), 1);
    assert_eq!(count("0 0/1 * * *"), 1);
    assert_eq!(count("0 *,2 * * *"), 1);
}

#[test]
fn the_slots_of_a_day_that_never_was_make_one_run() {
    // Samoa went from Thursday to Saturday.
    assert_eq!(
        shown("0 9,18 * * *", "Pacific/Apia", "2011-12-30 05:00", 3),
        ["2011-12-31T00:00:00+14:00", "2011-12-31T09:00:00+14:00", "2011-12-31T18:00:00+14:00"]
    );
    assert_eq!(shown("0 9 30 12 *", "Pacific/Apia", "2011-12-01 00:00", 1), ["2011-12-31T00:00:00+14:00"]);
    assert_eq!(shown("0 * 30 12 *", "Pacific/Apia", "2011-12-01 00:00", 1), ["2012-12-30T00:00:00+14:00"]);
}

#[test]
fn a_slot_is_a_whole_minute_on_clocks_that_are_seconds_off() {
    let monrovia = Zone::named("Africa/Monrovia").unwrap();
    let at = |text: &str, from: &str| cron(text).next_from(utc(from), &monrovia).unwrap();
    // Until 7 January 1972 it was 44 minutes and 30 seconds behind; then 00:00:00 was 00:44:30.
    assert_eq!(monrovia.wall(at("0 12 * * *", "1972-01-05 00:00")).to_string(), "1972-01-05 12:00:00");
    assert_eq!(at("30 0 * * *", "1972-01-06 12:00"), utc("1972-01-07 00:45"));
    assert_eq!(at("44 * * * *", "1972-01-07 00:30"), utc("1972-01-07 01:44"));
}

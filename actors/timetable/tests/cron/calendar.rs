//! Four years, leap day included, minute by minute.

use chrono_tz::Tz;
use ductile_timetable::Zone;

use crate::oracle::Oracle;
use crate::{cron, slots, utc};

const FROM: &str = "2026-07-01 00:00";
const TO: &str = "2030-07-01 00:00";

fn check(text: &str) {
    let found = slots(&cron(text), &Zone::utc(), utc(FROM), utc(TO));
    let expected = Oracle::new(text).slots(Tz::UTC, utc(FROM), utc(TO));
    assert_eq!(found, expected, "{text}");
}

/// Each value as it may be written, and lists, ranges, wrapped ranges and steps that begin with it.
fn writings(low: usize, high: usize, names: &[&str]) -> Vec<String> {
    let count = names.len();
    let mut found = Vec::new();
    for value in low..=high {
        let name = |distance: usize| names[(value - low + distance) % count];
        let number = |distance: usize| low + (value - low + distance) % count;
        found.extend([
            value.to_string(),
            name(0).to_owned(),
            name(0).to_uppercase(),
            format!("{value},{}", name(2)),
            format!("{}-{}", number(0), number(3)),
            format!("{}-{}", name(0), name(count - 1)),
            format!("{}-{}/2", name(0), name(3)),
            format!("{}-{}/3", number(0), number(count - 1)),
            format!("{value}/2"),
            format!("{}/3", name(0)),
            format!("*/{}", value + 1),
        ]);
    }
    found
}

#[test]
fn every_weekday_in_every_form_gives_the_slots_of_a_scan() {
    for field in writings(0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]) {
        check(&format!("7 5 * * {field}"));
    }
    for field in ["7", "7,1", "7-2", "5-7", "1-7", "0-7", "7-7", "7/2", "5-7/2", "sat-7", "7-wed/2", "*,3", "3,*"] {
        check(&format!("7 5 * * {field}"));
    }
}

#[test]
fn every_month_in_every_form_gives_the_slots_of_a_scan() {
    let names = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    for field in writings(1, 12, &names) {
        check(&format!("59 23 */9 {field} *"));
    }
}

#[test]
fn every_form_of_the_day_fields_gives_the_slots_of_a_scan() {
    let dates = ["*", "?", "13", "1,15,31", "10-20", "*/2", "*/40", "*,5", "5,*", "20/5", "3-29/13"];
    let special_dates = ["L", "L-1", "l-3", "L-29", "LW", "lw", "1W", "15W", "28w", "29W", "30W", "31W"];
    let weekdays = ["*", "?", "5", "sun", "fri-mon", "5-7", "*/2", "*/7", "*,1", "mon,*", "1/2", "fri-mon/2"];
    let special_weekdays = ["L", "5L", "friL", "7L", "0l", "fri#2", "0#1", "7#4", "1#5", "sat#3"];
    for date in dates.iter().chain(&special_dates) {
        for weekday in weekdays.iter().chain(&special_weekdays) {
            let text = format!("0 12 {date} * {weekday}");
            // Two that have no day in common never match.
            if ductile_timetable::Cron::parse(&text).is_ok() {
                check(&text);
            } else {
                assert!(Oracle::new(&text).slots(Tz::UTC, utc(FROM), utc(TO)).is_empty(), "{text}");
            }
        }
    }
}

#[test]
fn every_day_of_the_month_is_found_with_its_weekday() {
    for day in 1..=31 {
        for text in [format!("0 0 {day} * *"), format!("0 0 {day}W * *"), format!("0 0 {day}W * tue")] {
            check(&text);
        }
    }
    for offset in 1..=30 {
        check(&format!("0 0 L-{offset} * *"));
    }
}

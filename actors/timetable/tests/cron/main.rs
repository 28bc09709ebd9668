//! Cron expressions, beside an oracle of their own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod calendar;
mod forms;
mod oracle;
mod properties;
mod refusals;
mod shifts;

use chrono::{DateTime, NaiveDateTime, Utc};
use ductile_timetable::{Cron, Zone};

/// `2026-03-29 02:30`, UTC.
fn utc(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc()
}

fn cron(text: &str) -> Cron {
    Cron::parse(text).unwrap_or_else(|refused| panic!("{refused}"))
}

/// All slots from an instant on, up to another.
fn slots(cron: &Cron, zone: &Zone, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let first = cron.next_from(from, zone);
    std::iter::successors(first, |at| cron.next_after(*at, zone)).take_while(|at| *at < to).collect()
}

/// The first slots after an instant, as local times.
fn shown(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(text), Zone::named(zone).unwrap());
    let first = cron.next_after(utc(after), &zone);
    let slots = std::iter::successors(first, |at| cron.next_after(*at, &zone));
    slots.take(count).map(|at| zone.show(at)).collect()
}

/// The first slots after an instant, as days and times of UTC.
fn in_utc(text: &str, after: &str, count: usize) -> Vec<String> {
    let minutes = shown(text, "UTC", after, count);
    minutes.iter().map(|at| at.replace('T', " ").replace(":00+00:00", "")).collect()
}

//! Time zones.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use ductile_timetable::Zone;

const PRINT_ZONE: &str = "DUCTILE_TEST_PRINT_ZONE";

fn utc(text: &str) -> DateTime<Utc> {
    wall(text).and_utc()
}

fn wall(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
}

#[test]
fn a_zone_has_its_proper_name_however_it_is_written() {
    assert_eq!(Zone::named(" europe/BERLIN ").unwrap().name(), "Europe/Berlin");
    assert_eq!(Zone::named("utc").unwrap(), Zone::utc());
}

#[test]
fn what_names_no_zone_is_refused() {
    for name in ["Mars/One", "", " ", "+02:00", "Berlin", "Etc/Unknown", "../../etc/passwd", "EST5EDT,M3.2.0,M11.1.0"] {
        let refused = Zone::named(name).unwrap_err().to_string();
        assert_eq!(refused, format!("unknown time zone {name:?}: expected an IANA name such as Europe/Berlin"));
    }
}

#[test]
fn an_instant_is_shown_with_its_offset() {
    let berlin = Zone::named("Europe/Berlin").unwrap();
    assert_eq!(berlin.show(utc("2026-03-29 00:59")), "2026-03-29T01:59:00+01:00");
    assert_eq!(berlin.show(utc("2026-03-29 01:00")), "2026-03-29T03:00:00+02:00");
    assert_eq!(berlin.wall(utc("2026-03-29 01:00")), wall("2026-03-29 03:00"));
}

#[test]
fn a_time_that_comes_twice_is_the_first_and_one_that_never_comes_is_the_next() {
    for (zone, local, instant) in [
        ("Europe/Berlin", "2026-10-25 02:30", "2026-10-25 00:30"),
        ("Europe/Berlin", "2026-10-25 03:00", "2026-10-25 02:00"),
        ("Europe/Berlin", "2026-03-29 02:30", "2026-03-29 01:00"),
        ("America/Sao_Paulo", "2017-10-15 00:00", "2017-10-15 03:00"),
        ("America/Sao_Paulo", "2018-02-17 23:30", "2018-02-18 01:30"),
        ("Pacific/Apia", "2011-12-30 12:00", "2011-12-30 10:00"),
        ("Australia/Lord_Howe", "2025-04-06 01:45", "2025-04-05 14:45"),
    ] {
        assert_eq!(Zone::named(zone).unwrap().first_instant_of(wall(local)), utc(instant), "{zone} {local}");
    }
}

#[test]
fn a_day_starts_where_its_first_minute_is() {
    let day = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).unwrap();
    let start = |zone: &str, day| Zone::named(zone).unwrap().start_of(day);
    assert_eq!(start("Europe/Berlin", day(2026, 3, 29)), utc("2026-03-28 23:00"));
    assert_eq!(start("America/Sao_Paulo", day(2017, 10, 15)), utc("2017-10-15 03:00"));
    assert_eq!(start("America/Sao_Paulo", day(2018, 2, 18)), utc("2018-02-18 03:00"));
}

#[test]
fn no_time_is_too_early_or_too_late() {
    for name in ["UTC", "Asia/Tokyo", "America/New_York"] {
        let zone = Zone::named(name).unwrap();
        assert!(zone.first_instant_of(NaiveDateTime::MIN) <= zone.first_instant_of(NaiveDateTime::MAX));
        for end in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
            assert_eq!(zone.wall(end), end.naive_utc(), "{}", zone.show(end));
        }
    }
}

#[test]
fn offsets_are_those_of_another_reader_of_the_zone_data() {
    for zone in ["Europe/London", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu"] {
        let (ours, theirs) = (Zone::named(zone).unwrap(), zone.parse::<chrono_tz::Tz>().unwrap());
        let hours = std::iter::successors(Some(utc("1970-01-01 00:00")), |at| Some(*at + TimeDelta::hours(7)));
        for at in hours.take_while(|at| *at < utc("2037-01-01 00:00")) {
            assert_eq!(ours.wall(at), theirs.from_utc_datetime(&at.naive_utc()).naive_local(), "{zone} {at}");
        }
    }
}

#[test]
fn the_zone_of_a_process_is_that_of_its_environment() {
    // The environment belongs to a process, so the test starts itself once more for each.
    if std::env::var_os(PRINT_ZONE).is_some() {
        println!("zone={} misnamed={:?}", Zone::of_this_machine(), Zone::misnamed());
        return;
    }
    for (variable, directory, expected) in [
        ("Asia/Tokyo", "/usr/share/zoneinfo", "Asia/Tokyo"),
        ("Asia/Tokyo", "/nowhere", "Asia/Tokyo"),
        ("", "/usr/share/zoneinfo", "UTC"),
        ("Mars/One", "/usr/share/zoneinfo", "UTC"),
        ("EST5EDT,M3.2.0,M11.1.0", "/usr/share/zoneinfo", "local"),
    ] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_zone_of_a_process_is_that_of_its_environment", "--nocapture"])
            .env(PRINT_ZONE, "1")
            .env("TZ", variable)
            .env("TZDIR", directory)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let misnamed = (variable == "Mars/One").then_some(variable);
        assert!(printed.contains(&format!("zone={expected} misnamed={misnamed:?}\n")), "{variable:?}: {printed}");
    }
}

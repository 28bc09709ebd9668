//! Expressions at random, beside the oracle, around the shifts of several zones.

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use ductile_timetable::{Cron, Zone};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::oracle::Oracle;
use crate::{cron, slots, utc};

/// Zones, and days near which their clocks are put forward or back.
const SHIFTS: [(&str, &str); 17] = [
    ("UTC", "2028-02-29 00:00"),
    ("Europe/London", "2025-03-30 01:00"),
    ("Europe/London", "2025-10-26 01:00"),
    ("America/New_York", "2024-03-10 07:00"),
    ("America/New_York", "2024-11-03 06:00"),
    ("Australia/Lord_Howe", "2025-04-05 15:00"),
    ("Australia/Lord_Howe", "2025-10-04 15:30"),
    ("America/Sao_Paulo", "2017-10-15 03:00"),
    ("America/Sao_Paulo", "2018-02-18 02:00"),
    ("America/Sao_Paulo", "2018-11-04 03:00"),
    ("Pacific/Apia", "2011-12-30 10:00"),
    ("Pacific/Kwajalein", "1993-08-21 12:00"),
    ("Asia/Kathmandu", "1985-12-31 18:30"),
    ("Africa/Monrovia", "1972-01-07 00:44"),
    ("Africa/Casablanca", "2025-02-23 02:00"),
    ("America/Caracas", "2007-12-09 07:00"),
    ("Antarctica/Troll", "2025-03-30 01:00"),
];

fn config(cases: u32) -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(2026);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

fn member(low: u32, high: u32) -> impl Strategy<Value = String> {
    let value = low..=high;
    let range = (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let step = 1..=high + 3;
    prop_oneof![
        2 => value.clone().prop_map(|a| a.to_string()),
        1 => range.clone(),
        1 => (range, step.clone()).prop_map(|(range, step)| format!("{range}/{step}")),
        1 => (value, step.clone()).prop_map(|(a, step)| format!("{a}/{step}")),
        1 => step.prop_map(|step| format!("*/{step}")),
    ]
}

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("*".to_owned()),
        4 => member(low, high),
        1 => prop::collection::vec(member(low, high), 2..4).prop_map(|members| members.join(",")),
    ]
}

fn wrapped(low: u32, high: u32, names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let name = || prop::sample::select(names);
    prop_oneof![
        name().prop_map(str::to_owned),
        (name(), name()).prop_map(|(a, b)| format!("{a}-{b}")),
        (name(), name(), 1..5).prop_map(|(a, b, step)| format!("{a}-{b}/{step}")),
        (low..=high, low..=high).prop_map(|(a, b)| format!("{a}-{b}")),
    ]
}

fn date() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => field(1, 31),
        1 => prop::sample::select(&["?", "L", "LW", "l"][..]).prop_map(str::to_owned),
        1 => (1..=30).prop_map(|offset| format!("L-{offset}")),
        1 => (1..=31).prop_map(|day| format!("{day}W")),
    ]
}

fn month() -> impl Strategy<Value = String> {
    let names = &["jan", "Feb", "mar", "apr", "MAY", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    prop_oneof![4 => Just("*".to_owned()), 1 => field(1, 12), 1 => wrapped(1, 12, names)]
}

fn weekday() -> impl Strategy<Value = String> {
    let names = &["sun", "mon", "Tue", "WED", "thu", "fri", "sat"];
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => field(0, 6),
        2 => wrapped(0, 6, names),
        1 => Just("L".to_owned()),
        1 => (0..=7, 1..=5).prop_map(|(day, nth)| format!("{day}#{nth}")),
        1 => (0..=7).prop_map(|day| format!("{day}L")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 23), date(), month(), weekday())
        .prop_map(|(minute, hour, date, month, weekday)| format!("{minute} {hour} {date} {month} {weekday}"))
        .prop_filter("never matches", |text| Cron::parse(text).is_ok())
}

/// Something to look for, in the hours around a shift.
fn nightly() -> impl Strategy<Value = String> {
    let hours = prop_oneof![Just("0-3".to_owned()), Just("*".to_owned()), Just("*/2".to_owned()), field(0, 23)];
    (field(0, 59), hours).prop_map(|(minute, hour)| format!("{minute} {hour} * * *"))
}

fn compare(text: &str, (name, shift): (&str, &str), before: TimeDelta, length: TimeDelta) -> Result<(), TestCaseError> {
    let (zone, tz) = (Zone::named(name).unwrap(), name.parse::<Tz>().unwrap());
    let from = utc(shift) - before;
    let to = from + length;
    prop_assert_eq!(slots(&cron(text), &zone, from, to), Oracle::new(text).slots(tz, from, to), "{} {}", text, name);
    Ok(())
}

fn near(seconds: i64, nanoseconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds) + TimeDelta::nanoseconds(nanoseconds)
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn the_slots_around_a_shift_are_those_of_a_scan(
        text in nightly(), shift in prop::sample::select(&SHIFTS[..]), seconds in 0..60 * 60 * 36_i64,
    ) {
        compare(&text, shift, TimeDelta::seconds(seconds), TimeDelta::hours(60))?;
    }

    #[test]
    fn the_first_slot_from_any_instant_is_that_of_a_scan(
        text in nightly(), (name, shift) in prop::sample::select(&SHIFTS[..]),
        offsets in prop::collection::vec((-60 * 60 * 30..60 * 60 * 30_i64, 0..1_000_000_000_i64), 8),
    ) {
        let (zone, tz) = (Zone::named(name).unwrap(), name.parse::<Tz>().unwrap());
        let expected = Oracle::new(&text).slots(tz, utc(shift) - TimeDelta::days(2), utc(shift) + TimeDelta::days(12));
        let cron = cron(&text);
        let on_slots = expected.iter().take(8).copied();
        let anywhere = offsets.into_iter().map(|(seconds, nanoseconds)| utc(shift) + near(seconds, nanoseconds));
        for at in anywhere.chain(on_slots) {
            prop_assert_eq!(cron.next_from(at, &zone), expected.iter().copied().find(|slot| *slot >= at));
            prop_assert_eq!(cron.next_after(at, &zone), expected.iter().copied().find(|slot| *slot > at));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = Cron::parse(&text);
    }

    #[test]
    fn slots_rise_and_are_whole_minutes_on_the_clock(
        text in prop_oneof![
            "(@?[a-z0-9*/,?#LW-]{1,6}[ \t]{0,2}){1,6}",
            "([0-9*/,-]{1,4} ){2}[0-9*/,LW?-]{1,4} [0-9*/,-]{1,3} [0-7*/,#L?-]{1,3}",
            expression(),
        ],
        (name, shift) in prop::sample::select(&SHIFTS[..]),
    ) {
        if let Ok(cron) = Cron::parse(&text) {
            rise(&cron, &Zone::named(name).unwrap(), utc(shift) - TimeDelta::days(1));
        }
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn the_slots_of_a_year_are_those_of_a_scan(
        text in expression(), shift in prop::sample::select(&SHIFTS[..]), days in 0..300_i64,
    ) {
        let dense = text.starts_with('*') || text.split(' ').take(2).any(|field| field.contains(['/', '-', '*']));
        let (before, length) = if dense { (days % 9, 20) } else { (days, 400) };
        compare(&text, shift, TimeDelta::days(before), TimeDelta::days(length))?;
    }
}

fn rise(cron: &Cron, zone: &Zone, from: DateTime<Utc>) {
    assert_eq!(Cron::parse(&cron.to_string()).as_ref(), Ok(cron));
    let mut last = from;
    for _ in 0..50 {
        let next = cron.next_after(last, zone).expect("what can be read matches within fifty years");
        assert!(next > last, "{cron}: {last} {next}");
        assert_eq!((zone.wall(next).second(), zone.wall(next).nanosecond()), (0, 0), "{cron}: {next}");
        last = next;
    }
}

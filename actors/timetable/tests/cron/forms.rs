//! Every form of a field, with the slots that it means.

use crate::{cron, in_utc};

/// The days after 2025-11-21, a Friday.
fn days(text: &str, count: usize) -> Vec<String> {
    let slots = in_utc(text, "2025-11-21 00:00", count);
    slots.iter().map(|slot| slot.strip_suffix(" 00:00").expect(slot).to_owned()).collect()
}

fn check(rows: &[(&str, &[&str])]) {
    for (text, expected) in rows {
        assert_eq!(days(text, expected.len()), *expected, "{text}");
    }
}

/// The hours and minutes of the day after 2025-11-21.
fn times(text: &str) -> Vec<String> {
    let slots = in_utc(text, "2025-11-21 23:59", 24 * 60);
    slots.iter().filter_map(|slot| slot.strip_prefix("2025-11-22 ")).map(str::to_owned).collect()
}

#[test]
fn a_time_of_day_is_a_list_of_values_ranges_and_steps() {
    let rows: [(&str, &[&str]); 9] = [
        ("5 4 * * *", &["04:05"]),
        ("05 04 * * *", &["04:05"]),
        ("0,30 7-8 * * *", &["07:00", "07:30", "08:00", "08:30"]),
        ("0 */8 * * *", &["00:00", "08:00", "16:00"]),
        ("10-40/15 0 * * *", &["00:10", "00:25", "00:40"]),
        ("50/4 0 * * *", &["00:50", "00:54", "00:58"]),
        ("0 20/2,1,1 * * *", &["01:00", "20:00", "22:00"]),
        ("*/60 3 * * *", &["03:00"]),
        ("59/1000000000000000000000,7-9/99 23 * * *", &["23:07", "23:59"]),
    ];
    for (text, expected) in rows {
        assert_eq!(times(text), expected, "{text}");
    }
    assert_eq!(times("* * * * *").len(), 24 * 60);
    assert_eq!(times("*,5 3 * * *").len(), 60);
}

#[test]
fn weekdays_are_numbers_from_sunday_or_names_and_their_ranges_wrap_around() {
    check(&[
        ("0 0 * * 0", &["2025-11-23", "2025-11-30"]),
        ("0 0 * * 7", &["2025-11-23", "2025-11-30"]),
        ("0 0 * * SUN", &["2025-11-23", "2025-11-30"]),
        ("0 0 * * 1-5", &["2025-11-24", "2025-11-25", "2025-11-26", "2025-11-27", "2025-11-28", "2025-12-01"]),
        ("0 0 * * Mon-Fri", &["2025-11-24", "2025-11-25", "2025-11-26", "2025-11-27", "2025-11-28", "2025-12-01"]),
        ("0 0 * * 5-7", &["2025-11-22", "2025-11-23", "2025-11-28", "2025-11-29"]),
        ("0 0 * * fri-mon", &["2025-11-22", "2025-11-23", "2025-11-24", "2025-11-28"]),
        ("0 0 * * 5-1", &["2025-11-22", "2025-11-23", "2025-11-24", "2025-11-28"]),
        ("0 0 * * sat-sun", &["2025-11-22", "2025-11-23", "2025-11-29"]),
        ("0 0 * * 7-2", &["2025-11-23", "2025-11-24", "2025-11-25", "2025-11-30"]),
        ("0 0 * * 7-7", &["2025-11-23", "2025-11-30"]),
        ("0 0 * * fri-mon/2", &["2025-11-23", "2025-11-28", "2025-11-30"]),
        ("0 0 * * 5-7/2", &["2025-11-23", "2025-11-28", "2025-11-30"]),
        ("0 0 * * 4/2", &["2025-11-22", "2025-11-27", "2025-11-29"]),
        ("0 0 * * 7/3", &["2025-11-22", "2025-11-23", "2025-11-26", "2025-11-29"]),
        ("0 0 * * */7", &["2025-11-23", "2025-11-30"]),
        ("0 0 * * wed/9", &["2025-11-26", "2025-12-03"]),
        ("0 0 * * tue,7,4-5", &["2025-11-23", "2025-11-25", "2025-11-27", "2025-11-28", "2025-11-30"]),
    ]);
}

#[test]
fn months_are_numbers_or_names_and_their_ranges_wrap_around() {
    check(&[
        ("0 0 1 3 *", &["2026-03-01", "2027-03-01"]),
        ("0 0 1 MAR *", &["2026-03-01", "2027-03-01"]),
        ("0 0 1 nov-feb *", &["2025-12-01", "2026-01-01", "2026-02-01", "2026-11-01"]),
        ("0 0 1 11-2 *", &["2025-12-01", "2026-01-01", "2026-02-01", "2026-11-01"]),
        ("0 0 1 nov-feb/2 *", &["2026-01-01", "2026-11-01", "2027-01-01"]),
        ("0 0 1 */5 *", &["2026-01-01", "2026-06-01", "2026-11-01", "2027-01-01"]),
        ("0 0 1 10/2 *", &["2025-12-01", "2026-10-01", "2026-12-01"]),
        ("0 0 1 */99 *", &["2026-01-01", "2027-01-01"]),
        ("0 0 1 jul,8,10-oct *", &["2026-07-01", "2026-08-01", "2026-10-01", "2027-07-01"]),
    ]);
}

#[test]
fn the_special_days_of_a_month_are_found() {
    check(&[
        ("0 0 L * *", &["2025-11-30", "2025-12-31", "2026-01-31", "2026-02-28"]),
        ("0 0 l-2 * *", &["2025-11-28", "2025-12-29", "2026-01-29", "2026-02-26"]),
        ("0 0 L-30 * *", &["2025-12-01", "2026-01-01", "2026-03-01"]),
        ("0 0 LW * *", &["2025-11-28", "2025-12-31", "2026-01-30", "2026-02-27"]),
        ("0 0 15W * *", &["2025-12-15", "2026-01-15", "2026-02-16", "2026-03-16"]),
        ("0 0 1w * *", &["2025-12-01", "2026-01-01", "2026-02-02", "2026-03-02", "2026-04-01", "2026-05-01"]),
        ("0 0 1W 8 *", &["2026-08-03", "2027-08-02"]),
        ("0 0 31W 5 *", &["2026-05-29", "2027-05-31"]),
        ("0 0 * * 5L", &["2025-11-28", "2025-12-26"]),
        ("0 0 * * friL", &["2025-11-28", "2025-12-26"]),
        ("0 0 * * 7l", &["2025-11-30", "2025-12-28"]),
        ("0 0 * * 0L", &["2025-11-30", "2025-12-28"]),
        ("0 0 * * fri#2", &["2025-12-12", "2026-01-09"]),
        ("0 0 * * 5#5", &["2026-01-30", "2026-05-29"]),
        ("0 0 * * L", &["2025-11-22", "2025-11-29"]),
        ("0 0 ? * mon", &["2025-11-24", "2025-12-01"]),
        ("0 0 13 * ?", &["2025-12-13", "2026-01-13"]),
        ("0 0 ? * ?", &["2025-11-22", "2025-11-23"]),
    ]);
}

#[test]
fn either_day_field_is_enough_if_both_are_restricted() {
    check(&[
        ("0 0 13 * 5", &["2025-11-28", "2025-12-05", "2025-12-12", "2025-12-13", "2025-12-19"]),
        ("0 0 5,* * sun", &["2025-11-22", "2025-11-23", "2025-11-24"]),
        ("0 0 L * fri#1", &["2025-11-30", "2025-12-05", "2025-12-31"]),
        // The month has no day 31, but every Friday counts.
        ("0 0 31W 4 5", &["2026-04-03", "2026-04-10", "2026-04-17", "2026-04-24", "2027-04-02"]),
    ]);
}

#[test]
fn both_day_fields_must_match_if_one_begins_with_a_star() {
    check(&[
        ("0 0 */2 * mon", &["2025-12-01", "2025-12-15", "2025-12-29", "2026-01-05"]),
        ("0 0 13 * */5", &["2026-02-13", "2026-03-13", "2026-09-13", "2026-11-13"]),
        ("0 0 *,5 * sun", &["2025-11-23", "2025-11-30"]),
        ("0 0 */10 * */6", &["2025-12-21", "2026-01-11", "2026-01-31", "2026-02-01"]),
        ("0 0 L * */6", &["2025-11-30", "2026-01-31", "2026-02-28", "2026-05-31"]),
    ]);
}

#[test]
fn a_weekday_near_a_day_that_the_month_has_not_is_no_day() {
    assert_eq!(in_utc("0 0 31W 4,5 *", "2027-04-01 00:00", 1), ["2027-05-31 00:00"]);
    assert_eq!(in_utc("0 0 30W 2,3 *", "2027-02-01 00:00", 1), ["2027-03-30 00:00"]);
    // 28 February 2025 is a Friday.
    assert_eq!(in_utc("0 0 29W 2 *", "2025-02-01 00:00", 1), ["2028-02-29 00:00"]);
}

#[test]
fn nicknames_stand_for_their_fields() {
    for (nickname, fields) in [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        (" @WEEKLY ", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ] {
        let after = "2025-11-21 11:11";
        assert_eq!(in_utc(nickname, after, 30), in_utc(fields, after, 30), "{nickname}");
    }
    assert_eq!(in_utc("@weekly", "2025-11-21 00:00", 1), ["2025-11-23 00:00"]);
}

#[test]
fn an_expression_is_shown_with_single_blanks_in_lower_case() {
    assert_eq!(cron(" \t0   9\t* * MON-Fri \n").to_string(), "0 9 * * mon-fri");
    assert_eq!(cron(" @Daily ").to_string(), "@daily");
    assert_eq!(cron("0 9 L  * 5L"), cron("0 9 l * 5l"));
    assert_ne!(cron("0 9 * * 1"), cron("0 9 * * mon"));
}

#[test]
fn a_slot_counts_from_its_own_instant_but_not_after_it() {
    let (cron, zone) = (cron("30 9 * * *"), ductile_timetable::Zone::utc());
    let slot = crate::utc("2025-11-21 09:30");
    let (instant, day) = (chrono::TimeDelta::nanoseconds(1), chrono::TimeDelta::days(1));
    assert_eq!(cron.next_from(slot, &zone), Some(slot));
    assert_eq!(cron.next_after(slot - instant, &zone), Some(slot));
    assert_eq!(cron.next_after(slot, &zone), Some(slot + day));
    assert_eq!(cron.next_from(slot + instant, &zone), Some(slot + day));
}

#[test]
fn the_ends_of_time_have_no_next_slot() {
    use chrono::{DateTime, Utc};
    for name in ["UTC", "America/New_York", "Asia/Kolkata"] {
        let zone = ductile_timetable::Zone::named(name).unwrap();
        for text in ["0 12 * * *", "*/5 * * * *", "0 0 29 2 *"] {
            let cron = cron(text);
            assert_eq!(cron.next_after(DateTime::<Utc>::MAX_UTC, &zone), None);
            assert_eq!(cron.next_from(DateTime::<Utc>::MAX_UTC, &zone), None);
            assert!(cron.next_after(DateTime::<Utc>::MIN_UTC, &zone) > Some(DateTime::<Utc>::MIN_UTC));
        }
    }
}

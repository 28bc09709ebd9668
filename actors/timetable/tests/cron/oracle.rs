//! What crontab(5) says, as plainly as possible: every value of every field is looked at on its own, and every minute
//! on the face of the clock is looked up with `chrono-tz`. Nothing here is shared with what it judges.

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

pub(crate) struct Oracle {
    minutes: Vec<u32>,
    hours: Vec<u32>,
    months: Vec<u32>,
    dates: String,
    weekdays: String,
    periodic: bool,
}

impl Oracle {
    pub(crate) fn new(text: &str) -> Self {
        let text = text.to_lowercase();
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, date, month, weekday] = fields[..] else { panic!("{text}") };
        Self {
            minutes: values(minute, 0, 59, &[]),
            hours: values(hour, 0, 23, &[]),
            months: values(month, 1, 12, &MONTHS),
            dates: date.replace('?', "*"),
            weekdays: weekday.replace('?', "*"),
            periodic: hour == "*" || (hour.starts_with("*/") && !hour.contains(',')),
        }
    }

    /// Every slot from an instant on, up to another.
    pub(crate) fn slots(&self, zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut found = Vec::new();
        let first = from.date_naive() - Days::new(3);
        let days = first.iter_days().take_while(|day| *day <= to.date_naive() + Days::new(3));
        for day in days.filter(|day| self.has_day(*day)) {
            let start = day.and_hms_opt(0, 0, 0).unwrap();
            for minute in 0..24 * 60_u32 {
                if self.hours.contains(&(minute / 60)) && self.minutes.contains(&(minute % 60)) {
                    found.extend(self.instants(zone, start + TimeDelta::minutes(minute.into())));
                }
            }
        }
        found.retain(|at| (from..to).contains(at));
        found.sort();
        found.dedup();
        found
    }

    fn instants(&self, zone: Tz, wall: NaiveDateTime) -> Vec<DateTime<Utc>> {
        match zone.from_local_datetime(&wall) {
            MappedLocalTime::Single(at) => vec![at.to_utc()],
            MappedLocalTime::Ambiguous(first, second) if self.periodic => vec![first.to_utc(), second.to_utc()],
            MappedLocalTime::Ambiguous(first, _) => vec![first.to_utc()],
            MappedLocalTime::None if self.periodic => vec![],
            MappedLocalTime::None => {
                let later = (1..3 * 24 * 60).map(|minutes| wall + TimeDelta::minutes(minutes));
                let existing = later.filter_map(|wall| zone.from_local_datetime(&wall).earliest()).next();
                vec![existing.unwrap().to_utc()]
            }
        }
    }

    pub(crate) fn has_day(&self, day: NaiveDate) -> bool {
        let (date, weekday) = (has_date(&self.dates, day), has_weekday(&self.weekdays, day));
        let restricted = !self.dates.starts_with('*') && !self.weekdays.starts_with('*');
        self.months.contains(&day.month()) && if restricted { date || weekday } else { date && weekday }
    }
}

/// The values that a comma list names.
fn values(list: &str, low: u32, high: u32, names: &[&str]) -> Vec<u32> {
    let is_weekday = high == 6;
    let number = |text: &str| match names.iter().position(|name| *name == text) {
        Some(index) => low + u32::try_from(index).unwrap(),
        None => text.parse().unwrap(),
    };
    let mut found = Vec::new();
    for member in list.split(',') {
        let (range, step) = member.split_once('/').unwrap_or((member, "1"));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first), number(last)),
            None if range == "*" => (low, high),
            None if member.contains('/') => (number(range) % if is_weekday { 7 } else { 60 }, high),
            None => (number(range), number(range)),
        };
        let mut value = first;
        let mut steps = 0_u64;
        loop {
            if steps.is_multiple_of(step.parse().unwrap()) {
                found.push(if is_weekday { value % 7 } else { value });
            }
            if value == last {
                break;
            }
            steps += 1;
            // `5-7` ends on Sunday, and so does not begin the week anew.
            let largest = if last == 7 && is_weekday { 7 } else { high };
            value = if value >= largest { low + u32::from(value == 7 && is_weekday) } else { value + 1 };
        }
    }
    found
}

fn days_of_month(day: NaiveDate) -> impl Iterator<Item = NaiveDate> {
    let first = day.with_day(1).unwrap();
    first.iter_days().take_while(move |other| other.month() == first.month())
}

fn is_workday(day: NaiveDate) -> bool {
    !matches!(day.weekday(), Weekday::Sat | Weekday::Sun)
}

fn has_date(field: &str, day: NaiveDate) -> bool {
    if field == "l" || field.starts_with("l-") {
        let offset = field.strip_prefix("l-").map_or(0, |offset| offset.parse().unwrap());
        return days_of_month(day).last().unwrap() - Days::new(offset) == day;
    }
    if field == "lw" {
        return days_of_month(day).filter(|day| is_workday(*day)).last() == Some(day);
    }
    if let Some(wanted) = field.strip_suffix('w') {
        let Some(wanted) = day.with_day(wanted.parse().unwrap()) else { return false };
        let nearest = days_of_month(day).filter(|day| is_workday(*day)).min_by_key(|other| (*other - wanted).abs());
        return nearest == Some(day);
    }
    values(field, 1, 31, &[]).contains(&day.day())
}

fn has_weekday(field: &str, day: NaiveDate) -> bool {
    let is = |name: &str| values(name, 0, 6, &WEEKDAYS) == [day.weekday().num_days_from_sunday()];
    if field == "l" {
        return day.weekday() == Weekday::Sat;
    }
    let mut alike = days_of_month(day).filter(|other| other.weekday() == day.weekday());
    if let Some(name) = field.strip_suffix('l') {
        return is(name) && alike.last() == Some(day);
    }
    if let Some((name, nth)) = field.split_once('#') {
        return is(name) && alike.nth(nth.parse::<usize>().unwrap() - 1) == Some(day);
    }
    values(field, 0, 6, &WEEKDAYS).contains(&day.weekday().num_days_from_sunday())
}

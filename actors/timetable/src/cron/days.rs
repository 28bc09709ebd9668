//! The two day fields, put into the words of the library.
//!
//! It gets plain fields as lists, weekdays as names and one day field at a time: it numbers weekdays from 1, takes a
//! day too many into reversed ranges, and holds `*/n` for a restriction where crontab(5) does not.

use chrono::{Datelike, NaiveDate};

use super::error::{Fault, Problem};
use super::field::{self, DATE, WEEKDAY};

/// The days of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Days {
    dates: Calendar,
    weekdays: Calendar,
    rule: Rule,
}

/// Which of the two fields have to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Both,
    Either,
}

/// The days of one field, within the months of the expression.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Calendar {
    cron: saffron::Cron,
    needs: Option<NearestTo>,
}

/// The day of `nW`. The library also takes a day near the end of a month that has no day n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NearestTo(u8);

impl Days {
    pub(super) fn read(date: &str, months: u64, weekday: &str) -> Result<Self, Problem> {
        let (dates, needs) = dates(date)?;
        let weekdays = weekdays(weekday)?;
        let months = list(months, 1..=12, |month| month.to_string());
        Ok(Self {
            dates: Calendar::read(&format!("* * {dates} {months} *"), needs)?,
            weekdays: Calendar::read(&format!("* * * {months} {weekdays}"), None)?,
            rule: if is_unrestricted(date) || is_unrestricted(weekday) { Rule::Both } else { Rule::Either },
        })
    }

    pub(super) fn contain(&self, day: NaiveDate) -> bool {
        match self.rule {
            Rule::Both => self.dates.contains(day) && self.weekdays.contains(day),
            Rule::Either => self.dates.contains(day) || self.weekdays.contains(day),
        }
    }
}

impl Calendar {
    fn read(text: &str, needs: Option<NearestTo>) -> Result<Self, Problem> {
        let cron = text.parse().map_err(|_| Problem::Days)?;
        Ok(Self { cron, needs })
    }

    fn contains(&self, day: NaiveDate) -> bool {
        let exists = self.needs.is_none_or(|needs| needs.0 <= day.num_days_in_month());
        // The library knows UTC only, so the local day goes in as if it were one of UTC.
        exists && self.cron.contains(day.and_time(chrono::NaiveTime::MIN).and_utc())
    }
}

fn is_unrestricted(field: &str) -> bool {
    field.starts_with('*') || field == "?"
}

fn dates(text: &str) -> Result<(String, Option<NearestTo>), Problem> {
    special_dates(text).map_err(|fault| fault.of(DATE.name))?.map_or_else(
        || Ok((list(DATE.mask(text)?, 1..=31, |day| day.to_string()), None)),
        |(text, needs)| Ok((text, needs)),
    )
}

/// The forms that only this field has.
fn special_dates(text: &str) -> Result<Option<(String, Option<NearestTo>)>, Fault> {
    if let "*" | "?" = text {
        return Ok(Some(("*".to_owned(), None)));
    }
    if let "l" | "lw" = text {
        return Ok(Some((text.to_ascii_uppercase(), None)));
    }
    if let Some(offset) = text.strip_prefix("l-") {
        if offset.strip_suffix('w').is_some_and(field::is_number) {
            return Err(Fault::LastWithOffsetAndWeekday(text.to_owned()));
        }
        if field::is_number(offset) {
            return Ok(Some((format!("L-{}", field::in_range(offset, 1, 30)?), None)));
        }
    }
    if let Some(day) = text.strip_suffix('w').filter(|day| field::is_number(day)) {
        let day = DATE.value(day)?;
        return Ok(Some((format!("{day}W"), Some(NearestTo(day)))));
    }
    refuse_letters(text, ['l', 'w', '?']).map(|()| None)
}

fn weekdays(text: &str) -> Result<String, Problem> {
    let special = special_weekdays(text).map_err(|fault| fault.of(WEEKDAY.name))?;
    special.map_or_else(|| Ok(list(WEEKDAY.mask(text)?, 0..=6, weekday_name)), Ok)
}

/// The forms that only this field has.
fn special_weekdays(text: &str) -> Result<Option<String>, Fault> {
    match text {
        "*" | "?" => return Ok(Some("*".to_owned())),
        "l" => return Ok(Some(weekday_name(6))),
        _ => {}
    }
    if text.contains([',', '-', '/']) {
        return refuse_letters(text, ['l', '#', '?']).map(|()| None);
    }
    if let Some(day) = text.strip_suffix('l') {
        return Ok(Some(format!("{}L", weekday_name(WEEKDAY.value(day)?))));
    }
    let Some((day, nth)) = text.split_once('#') else { return Ok(None) };
    let day = weekday_name(WEEKDAY.value(day)?);
    if !field::is_number(nth) {
        return Err(Fault::Unreadable(text.to_owned()));
    }
    Ok(Some(format!("{day}#{}", field::in_range(nth, 1, 5)?)))
}

/// The special forms can not be parts of something larger.
fn refuse_letters<const N: usize>(text: &str, letters: [char; N]) -> Result<(), Fault> {
    if !text.contains([',', '-', '/']) {
        return Ok(());
    }
    let found = text.split([',', '/']).find(|member| member.contains(letters));
    found.map_or(Ok(()), |member| Err(Fault::NotAlone(member.to_owned())))
}

fn weekday_name(day: u8) -> String {
    let names = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    names[usize::from(day % 7)].to_owned()
}

fn list(mask: u64, values: std::ops::RangeInclusive<u8>, word: impl Fn(u8) -> String) -> String {
    values.filter(|value| mask >> value & 1 == 1).map(word).collect::<Vec<_>>().join(",")
}

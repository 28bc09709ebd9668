//! Cron expressions.
//!
//! The text is taken apart here, since the dialect is that of crontab(5) and not the one of the library; the library is
//! asked which days match. Times of day are bit masks, and zones are a matter of [`slots`].

mod days;
mod error;
mod field;
mod slots;

use std::fmt;

use chrono::{DateTime, Datelike, Days as DayCount, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};

pub use self::error::CronError;

use self::days::Days;
use self::error::Problem;
use self::field::{HOUR, MINUTE, MONTH};
use crate::Zone;

/// What each nickname stands for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A cron expression: five fields or a nickname. Two are equal if they are written alike, but for blanks and case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    months: u64,
    days: Days,
    pace: Pace,
}

/// What becomes of slots when the clocks are put forward or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// At hours of the day: each slot fires once, however often the clocks show it.
    Fixed,
    /// Every so often: it fires whenever the clocks show a slot.
    Periodic,
}

impl Cron {
    /// Reads an expression, such as `0 9 * * mon-fri` or `@daily`.
    ///
    /// # Errors
    /// It is not an expression, or there is no day on which it would match.
    ///
    /// # Examples
    /// ```
    /// use ductile_timetable::{Cron, Zone};
    ///
    /// let cron = Cron::parse("30 2 * * *")?;
    /// let noon = "2026-03-28T12:00:00Z".parse().expect("an instant");
    /// let next = cron.next_after(noon, &Zone::utc());
    /// assert_eq!(next, "2026-03-29T02:30:00Z".parse().ok());
    /// # Ok::<(), ductile_timetable::CronError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let cron = Self::read(text).map_err(|problem| CronError::new(text, problem))?;
        if cron.can_match() { Ok(cron) } else { Err(CronError::new(text, Problem::NeverMatches)) }
    }

    /// The first slot at or after an instant; none if there is none within fifty years.
    #[must_use]
    pub fn next_from(&self, at: DateTime<Utc>, zone: &Zone) -> Option<DateTime<Utc>> {
        match self.pace {
            Pace::Fixed => slots::next_fixed(self, at, zone),
            Pace::Periodic => slots::next_periodic(self, at, zone),
        }
    }

    /// The first slot after an instant; none if there is none within fifty years.
    #[must_use]
    pub fn next_after(&self, at: DateTime<Utc>, zone: &Zone) -> Option<DateTime<Utc>> {
        self.next_from(at.checked_add_signed(TimeDelta::nanoseconds(1))?, zone)
    }

    fn read(text: &str) -> Result<Self, Problem> {
        let text = text.trim_ascii().to_ascii_lowercase();
        let words: Vec<&str> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let canonical = words.join(" ");
        let fields = if canonical.starts_with('@') { long_form(&canonical)?.split(' ').collect() } else { words };
        let [minute, hour, date, month, weekday] = fields[..] else { return Err(Problem::FieldCount) };
        let months = MONTH.mask(month)?;
        Ok(Self {
            minutes: MINUTE.mask(minute)?,
            hours: HOUR.mask(hour)?,
            months,
            days: Days::read(date, months, weekday)?,
            pace: Pace::of(hour),
            text: canonical,
        })
    }

    /// In the 28 years from 2000 every day of the year, also 29 February, falls on every day of the week. So what
    /// matches no day of them matches none at all, and what does match comes again within 40 years.
    fn can_match(&self) -> bool {
        let start = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default();
        let end = NaiveDate::from_ymd_opt(2028, 1, 1).unwrap_or_default();
        self.next_wall(start.into(), end.into()).is_some()
    }

    /// The first slot on the clock face that is not before `from`, but before `end`.
    fn next_wall(&self, from: NaiveDateTime, end: NaiveDateTime) -> Option<NaiveDateTime> {
        let from = whole_minute(from)?;
        let (mut day, mut minute) = (from.date(), from.hour() * 60 + from.minute());
        while day <= end.date() {
            if self.months >> day.month() & 1 == 0 {
                (day, minute) = (first_of_next_month(day)?, 0);
                continue;
            }
            if let Some(slot) = self.next_in_day(minute).filter(|_| self.days.contain(day)) {
                let found = day.and_hms_opt(slot / 60, slot % 60, 0)?;
                return (found < end).then_some(found);
            }
            (day, minute) = (day.succ_opt()?, 0);
        }
        None
    }

    /// The first minute of a day, at or after this one, at which the clock shows a slot.
    fn next_in_day(&self, minute: u32) -> Option<u32> {
        let hour = minute / 60;
        let in_this_hour = first_bit(self.minutes, minute % 60).filter(|_| self.hours >> hour & 1 == 1);
        if let Some(minute) = in_this_hour {
            return Some(hour * 60 + minute);
        }
        Some(first_bit(self.hours, hour + 1)? * 60 + first_bit(self.minutes, 0)?)
    }
}

impl Pace {
    fn of(hour: &str) -> Self {
        match hour.strip_prefix('*') {
            Some(rest) if !rest.contains(',') => Self::Periodic,
            _ => Self::Fixed,
        }
    }
}

fn long_form(nickname: &str) -> Result<&'static str, Problem> {
    let found = NICKNAMES.iter().find(|(name, _)| *name == nickname);
    found.map(|(_, fields)| *fields).ok_or(Problem::Nickname)
}

/// The first bit that is set, from this one on.
fn first_bit(mask: u64, from: u32) -> Option<u32> {
    let rest = mask & u64::MAX.checked_shl(from)?;
    (rest != 0).then(|| rest.trailing_zeros())
}

/// This time, or the next one that is on a whole minute.
fn whole_minute(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    let minute = wall.with_nanosecond(0)?.with_second(0)?;
    if minute == wall { Some(minute) } else { minute.checked_add_signed(TimeDelta::minutes(1)) }
}

fn first_of_next_month(day: NaiveDate) -> Option<NaiveDate> {
    day.with_day(1)?.checked_add_days(DayCount::new(31))?.with_day(1)
}

impl fmt::Display for Cron {
    /// The text, with single blanks and in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

//! A daily window: from a minute of the day, included, to another one, excluded.

use chrono::{DateTime, NaiveTime, Timelike, Utc};

use crate::Zone;

/// A part of every day, in minutes of local time. It may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    start: NaiveTime,
    end: NaiveTime,
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not a start and an end.
    #[error("expected HH:MM-HH:MM, not {0:?}")]
    Form(String),
    /// Not a time of day.
    #[error("expected a time of day such as 08:00, not {0:?}")]
    Time(String),
    /// It would be empty, or all of the day.
    #[error("start and end are both {0}")]
    Equal(String),
}

/// Days that are looked at for the next start: more than clocks are ever put forward by.
const DAYS_AHEAD: usize = 4;

impl Window {
    /// Reads `HH:MM-HH:MM`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, WindowError> {
        let (start, end) = text.split_once('-').ok_or_else(|| WindowError::Form(text.to_owned()))?;
        Self::between(start.trim(), end.trim())
    }

    /// From one `HH:MM` to another.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn between(start: &str, end: &str) -> Result<Self, WindowError> {
        let window = Self { start: time_of_day(start)?, end: time_of_day(end)? };
        if window.start == window.end { Err(WindowError::Equal(start.to_owned())) } else { Ok(window) }
    }

    /// Whether a time of day lies in it.
    #[must_use]
    pub fn contains(&self, time: NaiveTime) -> bool {
        if self.start < self.end {
            self.start <= time && time < self.end
        } else {
            self.start <= time || time < self.end
        }
    }

    /// Whether an instant lies in it.
    #[must_use]
    pub fn is_open(&self, at: DateTime<Utc>, zone: &Zone) -> bool {
        self.contains(zone.wall(at).time())
    }

    /// The first instant from `at` on that lies in it.
    #[must_use]
    pub fn next_open(&self, at: DateTime<Utc>, zone: &Zone) -> DateTime<Utc> {
        if self.is_open(at, zone) {
            return at;
        }
        let today = zone.wall(at).date();
        let starts = today.iter_days().take(DAYS_AHEAD).map(|day| zone.first_instant_of(day.and_time(self.start)));
        // On a day whose clocks jump over the whole window there is none.
        starts.into_iter().find(|start| *start > at && self.is_open(*start, zone)).unwrap_or(at)
    }
}

fn time_of_day(text: &str) -> Result<NaiveTime, WindowError> {
    let is_full = text.len() == 5;
    let time = NaiveTime::parse_from_str(text, "%H:%M").ok().filter(|time| is_full && time.second() == 0);
    time.ok_or_else(|| WindowError::Time(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_start_belongs_to_it_and_the_end_does_not() {
        let day = Window::parse("08:00-18:00").unwrap();
        let night = Window::parse(" 22:00 - 06:00 ").unwrap();
        let time = |text: &str| text.parse::<NaiveTime>().unwrap();
        for (text, in_day, in_night) in [
            ("07:59:59", false, false),
            ("08:00:00", true, false),
            ("17:59:59.999", true, false),
            ("18:00:00", false, false),
            ("21:59:59", false, false),
            ("22:00:00", false, true),
            ("00:00:00", false, true),
            ("05:59:59", false, true),
            ("06:00:00", false, false),
        ] {
            assert_eq!((day.contains(time(text)), night.contains(time(text))), (in_day, in_night), "{text}");
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in ["", "08:00", "8:00-18:00", "08:00-24:00", "08:60-18:00", "08:00-08:00", "a-b", "08:00:00-09:00"] {
            assert!(Window::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn it_opens_at_its_local_start() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let window = Window::parse("06:00-23:00").unwrap();
        assert_eq!(window.next_open(at("2026-03-27T22:30:00Z"), &berlin), at("2026-03-28T05:00:00Z"));
        // Summer time began at night.
        assert_eq!(window.next_open(at("2026-03-28T22:30:00Z"), &berlin), at("2026-03-29T04:00:00Z"));
        assert_eq!(window.next_open(at("2026-03-28T12:30:01Z"), &berlin), at("2026-03-28T12:30:01Z"));
    }

    #[test]
    fn a_window_that_a_day_does_not_have_opens_on_the_next() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let window = Window::parse("02:00-03:00").unwrap();
        assert_eq!(window.next_open(at("2026-03-28T23:30:00Z"), &berlin), at("2026-03-30T00:00:00Z"));
        // Half of it is missing: it begins where the day goes on.
        let window = Window::parse("02:30-03:30").unwrap();
        assert_eq!(window.next_open(at("2026-03-28T23:30:00Z"), &berlin), at("2026-03-29T01:00:00Z"));
    }
}

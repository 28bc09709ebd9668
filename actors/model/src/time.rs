use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Utc};

/// Where a part of the program takes the wall clock from, so that tests can hold it.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> DateTime<Utc>;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<DateTime<Utc>>);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: DateTime<Utc>) -> Self {
        Self(Mutex::new(start))
    }

    /// Moves the clock forward (or back, when `by` is negative).
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stored form: UTC, `2026-01-02 03:04:05.000000120Z`, always 30 characters, so that text order is time order.
#[must_use]
pub fn format_db(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.9fZ").to_string()
}

/// The form shown outside: RFC 3339 in UTC with `T` and `Z`, and as many fraction digits as there are.
#[must_use]
pub fn format_wire(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Reads a stored time leniently: `T` or a space, 0 to 9 fraction digits, `Z`, an offset, or no zone (then UTC).
#[must_use]
pub fn parse_stored(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.with_timezone(&Utc));
    }
    let naive = text.strip_suffix('Z').unwrap_or(text);
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(naive, form).ok())
        .map(|naive| naive.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_has_thirty_characters_and_reads_back() {
        let at = parse_stored("2026-01-02T03:04:05.00000012Z").unwrap();
        let text = format_db(at);
        assert_eq!(text, "2026-01-02 03:04:05.000000120Z");
        assert_eq!(text.len(), 30);
        assert_eq!(parse_stored(&text), Some(at));
    }

    #[test]
    fn older_and_foreign_forms_are_read() {
        let expected = parse_stored("2026-01-02 03:04:05Z");
        assert!(expected.is_some());
        for text in ["2026-01-02 03:04:05", "2026-01-02T03:04:05", "2026-01-02T04:04:05+01:00"] {
            assert_eq!(parse_stored(text), expected, "{text}");
        }
        assert_eq!(parse_stored("yesterday"), None);
    }

    #[test]
    fn the_wire_form_ends_in_z() {
        let at = parse_stored("2026-01-02 03:04:05.120Z").unwrap();
        assert_eq!(format_wire(at), "2026-01-02T03:04:05.120Z");
    }
}

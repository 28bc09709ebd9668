//! Elapsed time from one run to the next.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::{DurationError, parse_duration};

use crate::window::Window;
use crate::{Zone, later};

const HOUR: Duration = Duration::from_secs(3600);

/// Time from one run to the next, with what may move it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// Elapsed time, not a position on the clock.
    pub every: Duration,
    /// Width of the random part, half of it either way.
    pub jitter: Duration,
    /// Where runs are moved to when that does not take an interval.
    pub preferred: Option<(Window, Zone)>,
}

/// Why a text is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntervalError {
    /// Neither a word nor a duration.
    #[error("{0}")]
    Duration(#[from] DurationError),
    /// It would never end.
    #[error("schedule interval must be positive")]
    NotPositive,
}

/// Reads a duration, or one of the words for some; a month is 30 days.
///
/// # Errors
/// What is wrong with it.
pub fn parse_interval(text: &str) -> Result<Duration, IntervalError> {
    let every = match text.trim().to_ascii_lowercase().as_str() {
        "hourly" => HOUR,
        "daily" => HOUR * 24,
        "weekly" => HOUR * 24 * 7,
        "monthly" => HOUR * 24 * 30,
        _ => parse_duration(text).map_err(|error| match error {
            DurationError::Negative(_) => IntervalError::NotPositive,
            other => IntervalError::Duration(other),
        })?,
    };
    if every.is_zero() { Err(IntervalError::NotPositive) } else { Ok(every) }
}

impl Interval {
    /// The next run after an instant. `chance` is uniform in `[0, 1]`.
    #[must_use]
    pub fn after(&self, from: DateTime<Utc>, chance: f64) -> DateTime<Utc> {
        let jitter = self.effective_jitter();
        let least = self.every - jitter / 2;
        self.settle(later(from, least + jitter.mul_f64(chance.clamp(0.0, 1.0))))
    }

    /// Moves an instant into the preferred window, if that opens soon enough.
    #[must_use]
    pub fn settle(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let Some((window, zone)) = &self.preferred else { return at };
        let opens = window.next_open(at, zone);
        if opens < later(at, self.every) { opens } else { at }
    }

    /// How far ahead a next run can be: what is further was computed by a clock that has been put back.
    #[must_use]
    pub fn furthest(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let moved = if self.preferred.is_some() { self.every } else { Duration::ZERO };
        later(later(now, self.every + self.effective_jitter()), moved)
    }

    /// Never more than the interval itself.
    fn effective_jitter(&self) -> Duration {
        self.jitter.min(self.every)
    }

    /// How many whole intervals fit between two instants.
    pub(crate) fn count(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
        let elapsed = (to - from).to_std().unwrap_or(Duration::ZERO);
        u64::try_from(elapsed.as_nanos() / self.every.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// The end of the `k`-th interval from an instant.
    pub(crate) fn slot(&self, from: DateTime<Utc>, k: u64) -> DateTime<Utc> {
        let nanos = self.every.as_nanos().saturating_mul(u128::from(k));
        let seconds = i64::try_from(nanos / 1_000_000_000).ok().and_then(TimeDelta::try_seconds);
        let rest = TimeDelta::nanoseconds(i64::try_from(nanos % 1_000_000_000).unwrap_or(0));
        let moved = seconds.and_then(|seconds| from.checked_add_signed(seconds + rest));
        moved.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn every(every: &str, jitter: &str) -> Interval {
        Interval { every: parse_interval(every).unwrap(), jitter: parse_duration(jitter).unwrap(), preferred: None }
    }

    #[test]
    fn words_and_durations_are_intervals() {
        for (text, hours) in [("hourly", 1), ("Daily", 24), ("WEEKLY", 168), ("monthly", 720), ("3d", 72), ("2w", 336)]
        {
            assert_eq!(parse_interval(text), Ok(HOUR * hours), "{text}");
        }
        assert_eq!(parse_interval("1.5h"), Ok(HOUR * 3 / 2));
        for text in ["0", "0s", "-5m"] {
            let error = parse_interval(text).unwrap_err().to_string();
            assert_eq!(error, "schedule interval must be positive", "{text}");
        }
        assert!(parse_interval("yearly").is_err());
    }

    #[test]
    fn jitter_moves_a_run_by_half_its_width_either_way() {
        let from = at("2026-01-01T00:00:00Z");
        let interval = every("1h", "30m");
        assert_eq!(interval.after(from, 0.0), at("2026-01-01T00:45:00Z"));
        assert_eq!(interval.after(from, 0.5), at("2026-01-01T01:00:00Z"));
        assert_eq!(interval.after(from, 1.0), at("2026-01-01T01:15:00Z"));
        // More than the interval counts as the interval.
        assert_eq!(every("1h", "5h").after(from, 0.0), at("2026-01-01T00:30:00Z"));
        assert_eq!(every("1h", "5h").after(from, 1.0), at("2026-01-01T01:30:00Z"));
    }

    #[test]
    fn a_preferred_window_moves_a_run_when_it_opens_within_an_interval() {
        let window = Window::parse("02:00-04:00").unwrap();
        let preferring = |every| Interval {
            every: parse_interval(every).unwrap(),
            jitter: Duration::ZERO,
            preferred: Some((window, Zone::utc())),
        };
        let from = at("2026-01-01T12:00:00Z");
        assert_eq!(preferring("24h").after(from, 0.5), at("2026-01-03T02:00:00Z"));
        assert_eq!(preferring("2h").after(from, 0.5), at("2026-01-01T14:00:00Z"));
        assert_eq!(preferring("15h").after(from, 0.5), at("2026-01-02T03:00:00Z"));
        assert_eq!(preferring("14h").settle(at("2026-01-01T12:00:00Z")), at("2026-01-01T12:00:00Z"));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let end = DateTime::<Utc>::MAX_UTC;
        assert_eq!(every("1h", "0").after(end, 1.0), end);
        assert_eq!(every("900w", "0").slot(end, u64::MAX), end);
    }
}

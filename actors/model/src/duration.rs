use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A bare number other than `0`.
    #[error("duration {0:?} needs a unit (ns, us, ms, s, m, h, d, w)")]
    NeedsUnit(String),
    /// Below zero.
    #[error("duration {0:?} is negative")]
    Negative(String),
    /// Anything else that does not read as number and unit.
    #[error("{0:?} is not a duration (examples: 90s, 1h30m, 30d)")]
    Malformed(String),
    /// Longer than the program can count.
    #[error("duration {0:?} is too long")]
    TooLong(String),
}

const UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
    ("w", 604_800 * NANOS_PER_SECOND),
];
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Reads one or more `<decimal><unit>` with the units `ns us µs ms s m h d w`; `0` needs no unit.
///
/// # Errors
/// Everything else, with the text that was wrong.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let trimmed = text.trim();
    let malformed = || DurationError::Malformed(text.to_owned());
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    if trimmed.starts_with('-') {
        return Err(DurationError::Negative(text.to_owned()));
    }
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(DurationError::NeedsUnit(text.to_owned()));
    }
    let mut rest = trimmed;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?.1;
        let nanos = decimal_times(number, scale).ok_or_else(malformed)?;
        total = total.checked_add(nanos).ok_or_else(|| DurationError::TooLong(text.to_owned()))?;
        rest = tail;
    }
    if trimmed.is_empty() {
        return Err(malformed());
    }
    let seconds = u64::try_from(total / NANOS_PER_SECOND).map_err(|_| DurationError::TooLong(text.to_owned()))?;
    // Kept below what chrono's arithmetic can add to a date.
    if seconds > MAX_SECONDS {
        return Err(DurationError::TooLong(text.to_owned()));
    }
    let nanos = u32::try_from(total % NANOS_PER_SECOND).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

/// A thousand years: far beyond any use, far within every clock type.
const MAX_SECONDS: u64 = 1000 * 366 * 86_400;

/// `number` (digits with at most one point) times `scale`, without going through floating point.
fn decimal_times(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let whole = digits(whole)?.checked_mul(scale)?;
    let part = digits(fraction)?.checked_mul(scale)? / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(part)
}

/// The one form in which durations are shown: `30s`, `1m0s`, `24h0m0s`, `1.5s`, `100ms`, `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < NANOS_PER_SECOND {
        let (unit, scale) = [("ms", 1_000_000), ("µs", 1_000), ("ns", 1)]
            .into_iter()
            .find(|(_, scale)| nanos >= *scale)
            .unwrap_or(("ns", 1));
        return format!("{}{unit}", decimal(nanos, scale));
    }
    let minutes = nanos / NANOS_PER_SECOND / 60;
    let seconds = decimal(nanos - minutes * 60 * NANOS_PER_SECOND, NANOS_PER_SECOND);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / scale` as a decimal without trailing zeros; `scale` is a power of ten.
fn decimal(value: u128, scale: u128) -> String {
    let whole = value / scale;
    let rest = value % scale;
    if rest == 0 {
        return whole.to_string();
    }
    let width = scale.to_string().len() - 1;
    let fraction = format!("{rest:0width$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_examples_are_read_and_shown() {
        for (text, shown) in [
            ("90s", "1m30s"),
            ("1h30m", "1h30m0s"),
            ("30d", "720h0m0s"),
            ("1.5h", "1h30m0s"),
            ("30s", "30s"),
            ("60s", "1m0s"),
            ("24h", "24h0m0s"),
            ("1500ms", "1.5s"),
            ("100ms", "100ms"),
            ("2w", "336h0m0s"),
            ("0", "0s"),
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn wrong_texts_say_what_is_wrong() {
        assert_eq!(parse_duration("30"), Err(DurationError::NeedsUnit("30".into())));
        assert_eq!(parse_duration("-5s"), Err(DurationError::Negative("-5s".into())));
        for text in ["", "s", "1x", "1.2.3s", "1 h", "one"] {
            assert!(matches!(parse_duration(text), Err(DurationError::Malformed(_))), "{text}");
        }
        assert!(matches!(parse_duration("99999999w"), Err(DurationError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(nanos in 0u64..u64::MAX / 2) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}

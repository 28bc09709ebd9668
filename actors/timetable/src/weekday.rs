//! Days of the week, as people write them.

use chrono::Weekday;

/// A set of days of the week.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weekdays(u8);

/// Why a text is no day of the week.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown weekday {0:?}: expected sun to sat, a full name, or a number from 0 (Sunday) to 7 (Sunday too)")]
pub struct WeekdayError(String);

impl Weekdays {
    /// Adds a day.
    pub fn insert(&mut self, day: Weekday) {
        self.0 |= bit(day);
    }

    /// Whether a day is one of them.
    #[must_use]
    pub fn contains(self, day: Weekday) -> bool {
        self.0 & bit(day) != 0
    }

    /// Whether it is no day at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it is every day.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.0.count_ones() == 7
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.num_days_from_sunday()
}

/// Reads a day: its name, a short form of it, or its number, 0 and 7 being Sunday.
///
/// # Errors
/// It is none of these.
pub fn parse_weekday(text: &str) -> Result<Weekday, WeekdayError> {
    let day = match text.trim().to_ascii_lowercase().as_str() {
        "0" | "7" | "sun" | "sunday" => Weekday::Sun,
        "1" | "mon" | "monday" => Weekday::Mon,
        "2" | "tue" | "tues" | "tuesday" => Weekday::Tue,
        "3" | "wed" | "wednesday" => Weekday::Wed,
        "4" | "thu" | "thurs" | "thursday" => Weekday::Thu,
        "5" | "fri" | "friday" => Weekday::Fri,
        "6" | "sat" | "saturday" => Weekday::Sat,
        _ => return Err(WeekdayError(text.to_owned())),
    };
    Ok(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_case_and_numbers_are_days() {
        for (text, day) in [
            ("sun", Weekday::Sun),
            ("0", Weekday::Sun),
            ("7", Weekday::Sun),
            ("Monday", Weekday::Mon),
            ("tues", Weekday::Tue),
            ("WED", Weekday::Wed),
            ("thurs", Weekday::Thu),
            (" 5 ", Weekday::Fri),
            ("Saturday", Weekday::Sat),
        ] {
            assert_eq!(parse_weekday(text), Ok(day), "{text}");
        }
        for text in ["", "8", "-1", "1.5", "1.0", "funday", "su", "satur", "07"] {
            assert!(parse_weekday(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut days = Weekdays::default();
        assert!(days.is_empty());
        days.insert(Weekday::Sun);
        days.insert(Weekday::Fri);
        assert!(days.contains(Weekday::Sun) && days.contains(Weekday::Fri) && !days.contains(Weekday::Mon));
        assert!(!days.is_empty() && !days.is_all());
    }
}

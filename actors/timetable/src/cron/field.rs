//! A field of an expression as a mask: bit n is set if it lists the value n.

use super::error::{Fault, Problem};

/// The values of a field and how they may be written.
pub(super) struct Field {
    pub(super) name: &'static str,
    low: u8,
    high: u8,
    /// The largest value that may be written: Sunday is also 7.
    highest: u8,
    names: &'static [&'static str],
    wrap: Wrap,
}

/// What a range with a larger first end means.
enum Wrap {
    Error,
    Around,
}

pub(super) const MINUTE: Field = Field::plain("minute", 0, 59);
pub(super) const HOUR: Field = Field::plain("hour", 0, 23);
pub(super) const DATE: Field = Field::plain("day of month", 1, 31);
pub(super) const MONTH: Field = Field {
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    wrap: Wrap::Around,
    ..Field::plain("month", 1, 12)
};
pub(super) const WEEKDAY: Field = Field {
    highest: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    wrap: Wrap::Around,
    ..Field::plain("day of week", 0, 6)
};

impl Field {
    const fn plain(name: &'static str, low: u8, high: u8) -> Self {
        Self { name, low, high, highest: high, names: &[], wrap: Wrap::Error }
    }

    /// The values of a comma list.
    pub(super) fn mask(&self, text: &str) -> Result<u64, Problem> {
        let masks = text.split(',').map(|member| self.member(member));
        masks.reduce(|all, one| Ok(all? | one?)).unwrap_or(Ok(0)).map_err(|fault| fault.of(self.name))
    }

    /// One value, as a bit number.
    pub(super) fn value(&self, text: &str) -> Result<u8, Fault> {
        self.written(text, text).map(|value| self.reduce(value))
    }

    fn member(&self, member: &str) -> Result<u64, Fault> {
        if member.is_empty() {
            return Err(Fault::EmptyMember);
        }
        let (range, step) = match member.split_once('/') {
            Some((range, step)) => (range, Some(read_step(step, member)?)),
            None => (member, None),
        };
        let (first, last) = match (range.split_once('-'), step) {
            _ if range == "*" => (self.low, self.high),
            (Some((first, last)), _) => self.range(first, last, member)?,
            (None, Some(_)) => (self.reduce(self.written(range, member)?), self.high),
            (None, None) => [self.reduce(self.written(range, member)?); 2].into(),
        };
        let values = (first..=last).step_by(step.unwrap_or(1));
        Ok(values.fold(0, |mask, value| mask | 1 << self.reduce(value)))
    }

    /// The ends of a range; the last is beyond the field if the range wraps around.
    fn range(&self, first: &str, last: &str, member: &str) -> Result<(u8, u8), Fault> {
        let (first, last) = (self.written(first, member)?, self.written(last, member)?);
        if first == last {
            return Ok((first, first));
        }
        match (self.reduce(first), &self.wrap) {
            (first, _) if first <= last => Ok((first, last)),
            (first, Wrap::Around) => Ok((first, last + self.span())),
            (_, Wrap::Error) => Err(Fault::DescendingRange(member.to_owned())),
        }
    }

    /// A value as it is written.
    fn written(&self, text: &str, member: &str) -> Result<u8, Fault> {
        if let Some(value) = (self.low..).zip(self.names).find_map(|(value, name)| (*name == text).then_some(value)) {
            return Ok(value);
        }
        if !is_number(text) {
            return Err(Fault::Unreadable(member.to_owned()));
        }
        in_range(text, self.low, self.highest)
    }

    fn reduce(&self, value: u8) -> u8 {
        if value > self.high { value - self.span() } else { value }
    }

    const fn span(&self) -> u8 {
        self.high - self.low + 1
    }
}

/// A number within these bounds.
pub(super) fn in_range(text: &str, low: u8, high: u8) -> Result<u8, Fault> {
    let number = text.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| Fault::OutOfRange { value: text.to_owned(), low, high })
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn read_step(text: &str, member: &str) -> Result<usize, Fault> {
    if !is_number(text) {
        return Err(Fault::Unreadable(member.to_owned()));
    }
    // A step that is too large for a number is beyond the field as well.
    match text.parse().unwrap_or(usize::MAX) {
        0 => Err(Fault::ZeroStep),
        step => Ok(step),
    }
}

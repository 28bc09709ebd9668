//! Numbers by their value, whatever their spelling and size.
//!
//! JSON numbers keep their digits here, so floats would lose some; and a crate for decimals would multiply out an
//! exponent that a stranger chose. Comparing needs neither: the digits are compared where they stand.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Number;

/// A number as 0.DIGITS × 10^scale, without leading and trailing zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal<'n> {
    negative: bool,
    whole: &'n [u8],
    fraction: &'n [u8],
    scale: i128,
}

impl<'n> Decimal<'n> {
    pub(crate) fn of(number: &'n Number) -> Self {
        let text = number.as_str();
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('0');
        let significant = fraction.trim_end_matches('0');
        let (whole, fraction, point) = match whole.len() {
            0 => {
                let digits = significant.trim_start_matches('0');
                (whole, digits, digits.len() as i128 - significant.len() as i128)
            }
            length if significant.is_empty() => (whole.trim_end_matches('0'), "", length as i128),
            length => (whole, significant, length as i128),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Self { negative: false, whole: &[], fraction: &[], scale: 0 };
        }
        let scale = power(exponent).saturating_add(point);
        Self { negative, whole: whole.as_bytes(), fraction: fraction.as_bytes(), scale }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).copied()
    }

    fn sign(&self) -> i8 {
        match (self.whole.is_empty() && self.fraction.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

/// The value of an exponent. One of more than 38 digits counts as the largest there is.
fn power(exponent: &str) -> i128 {
    let largest = if exponent.starts_with('-') { i128::MIN } else { i128::MAX };
    exponent.parse().unwrap_or(largest)
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = || self.scale.cmp(&other.scale).then_with(|| self.digits().cmp(other.digits()));
        self.sign().cmp(&other.sign()).then_with(|| if self.negative { magnitude().reverse() } else { magnitude() })
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal<'_> {}

/// Orders two numbers by value, without loss.
pub(crate) fn compare(a: &Number, b: &Number) -> Ordering {
    if a.as_str() == b.as_str() { Ordering::Equal } else { Decimal::of(a).cmp(&Decimal::of(b)) }
}

/// The number as a person writes it: without an exponent, unless that would take more than a few zeros.
pub(crate) fn plain(number: &Number) -> Cow<'_, str> {
    let text = number.as_str();
    let decimal = Decimal::of(number);
    let Ok(scale @ -5..=21) = i32::try_from(decimal.scale) else { return Cow::Borrowed(text) };
    if !text.contains(['e', 'E']) {
        return Cow::Borrowed(text);
    }
    let mut digits = decimal.digits().map(char::from);
    let mut plain = String::with_capacity(text.len() + 24);
    if decimal.negative {
        plain.push('-');
    }
    match scale {
        1.. => plain.extend((0..scale).map(|_| digits.next().unwrap_or('0'))),
        _ => plain.push('0'),
    }
    let mut rest = digits.peekable();
    if rest.peek().is_some() {
        plain.push('.');
        plain.extend((scale..0).map(|_| '0'));
        plain.extend(rest);
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::super::testing::number;
    use super::*;

    fn order(a: &str, b: &str) -> Ordering {
        compare(&Number::from_str(a).unwrap(), &Number::from_str(b).unwrap())
    }

    #[test]
    fn spelling_does_not_count() {
        let same = [
            &["30", "30.0", "3e1", "3.0E+1", "300e-1", "0.3e2", "30.000000000000000000000000"][..],
            &["0", "-0", "0.0", "0e99999999999999999999", "-0.000e-5"],
            &["-0.05", "-5e-2", "-0.50e-1"],
            &["1e99999999999999999999", "10e99999999999999999998", "0.1e100000000000000000000"],
            &["1e-99999999999999999999", "0.1e-99999999999999999998"],
        ];
        for group in same {
            for (a, b) in group.iter().flat_map(|a| group.iter().map(move |b| (a, b))) {
                assert_eq!(order(a, b), Ordering::Equal, "{a} {b}");
            }
        }
    }

    #[test]
    fn order_is_exact_where_floats_are_not_and_exponents_cost_nothing() {
        let ascending = [
            "-1e99999999999999999999",
            "-9007199254740993",
            "-9007199254740992",
            "-2",
            "-1.5",
            "-1e-99999999999999999999",
            "0",
            "1e-99999999999999999999",
            "1e-400",
            "0.1",
            "0.1000000000000000055511151231257827021181583404541015625",
            "0.11",
            "2",
            "10",
            "9007199254740992",
            "9007199254740993",
            "340282366920938463463374607431768211456",
            "1e400",
            "1e99999999999999999998",
            "1e99999999999999999999",
            "1.1e99999999999999999999",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(order(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        // Exponents that no machine integer holds.
        let beyond = |sign: &str| format!("1e{sign}{}", "9".repeat(100_000));
        assert_eq!(order(&beyond(""), &beyond("-")), Ordering::Greater);
    }

    #[test]
    fn numbers_are_written_without_exponent_while_that_is_short() {
        for (number, text) in [
            ("1e6", "1000000"),
            ("1.25E+1", "12.5"),
            ("-12.50e-1", "-1.25"),
            ("1e-3", "0.001"),
            ("0e9", "0"),
            ("1e20", "100000000000000000000"),
            ("30.0", "30.0"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("0.00000000001", "0.00000000001"),
        ] {
            assert_eq!(plain(&Number::from_str(number).unwrap()), text);
        }
        for far in ["1e400", "1e99999999999999999999", "1e-99999999999999999999"] {
            let number = Number::from_str(far).unwrap();
            assert!(plain(&number).len() <= far.len() + 1);
        }
    }

    proptest! {
        #[test]
        fn order_is_total(a in number(), b in number(), c in number()) {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn order_is_that_of_floats_where_these_are_exact(a in -1_000_000_i64..1_000_000, b in -1000_i64..1000) {
            // Halves, quarters and so on are exact in both worlds.
            for divisor in [1.0, 2.0, 8.0, 1024.0] {
                let (x, y) = (a as f64 / divisor, b as f64);
                let (left, right) = (Number::from_f64(x).unwrap(), Number::from_f64(y).unwrap());
                prop_assert_eq!(Some(compare(&left, &right)), x.partial_cmp(&y), "{} {}", left, right);
                prop_assert_eq!(compare(&right, &Number::from(b)), Ordering::Equal);
            }
        }

        #[test]
        fn plain_text_has_the_same_value(number in number()) {
            let again = Number::from_str(&plain(&number)).unwrap();
            prop_assert_eq!(compare(&again, &number), Ordering::Equal);
        }
    }
}

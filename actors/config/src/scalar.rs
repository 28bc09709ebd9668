//! Scalars and their types by the YAML 1.2 core schema.

use std::str::FromStr;

use serde_json::Number;

/// A scalar as it stands in a file, after substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Neither quoted nor a block: typed by its looks.
    pub(crate) plain: bool,
    /// Variables whose values are part of the text.
    pub(crate) vars: Vec<String>,
    /// Variables that are not set and were left in the text.
    pub(crate) unset: Vec<String>,
}

/// What the core schema makes of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Core {
    Null,
    Bool(bool),
    Number(Number),
    /// `.inf`, `.nan` and numbers that JSON has no form for.
    NoJson,
    Text,
}

impl Scalar {
    pub(crate) fn new(text: String, plain: bool) -> Self {
        Self { text, plain, vars: Vec::new(), unset: Vec::new() }
    }

    /// Nothing was written. A variable that is set to the empty text is something.
    pub(crate) fn is_null(&self) -> bool {
        self.core() == Core::Null
    }

    /// The type by the core schema.
    pub(crate) fn core(&self) -> Core {
        if !self.plain {
            return Core::Text;
        }
        match self.text.as_str() {
            "" if !self.vars.is_empty() => Core::Text,
            "" | "~" | "null" | "Null" | "NULL" => Core::Null,
            "true" | "True" | "TRUE" => Core::Bool(true),
            "false" | "False" | "FALSE" => Core::Bool(false),
            text => number(text),
        }
    }

    /// The text for a message. What came from the environment is not shown: it may be a secret.
    pub(crate) fn shown(&self) -> String {
        if self.vars.is_empty() { format!("{:?}", self.text) } else { "the value of a variable".to_owned() }
    }
}

fn number(text: &str) -> Core {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Core::NoJson;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_digit(radix))
        {
            return u128::from_str_radix(digits, radix).map_or(Core::NoJson, |n| exact(&n.to_string()));
        }
    }
    match decimal(unsigned) {
        Some(digits) if text.starts_with('-') => exact(&format!("-{digits}")),
        Some(digits) => exact(&digits),
        None => Core::Text,
    }
}

fn exact(digits: &str) -> Core {
    Number::from_str(digits).map_or(Core::NoJson, Core::Number)
}

/// An unsigned decimal in the form that JSON asks for, with all its digits.
fn decimal(text: &str) -> Option<String> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let no_digits = whole.is_empty() && fraction.unwrap_or_default().is_empty();
    if no_digits || !digits(whole) || !fraction.is_none_or(digits) {
        return None;
    }
    let mut json = whole.trim_start_matches('0').to_owned();
    if json.is_empty() {
        json.push('0');
    }
    if let Some(fraction) = fraction {
        json.push('.');
        json.push_str(if fraction.is_empty() { "0" } else { fraction });
    }
    if let Some(exponent) = exponent {
        let power = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if power.is_empty() || !digits(power) {
            return None;
        }
        json.push('e');
        json.push_str(exponent);
    }
    Some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Core {
        Scalar::new(text.to_owned(), true).core()
    }

    fn json(text: &str) -> String {
        match plain(text) {
            Core::Number(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn plain_scalars_are_typed_by_the_core_schema() {
        for (text, expected) in [
            ("12", "12"),
            ("+12", "12"),
            ("-007", "-7"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.50", "1.50"),
            (".5", "0.5"),
            ("5.", "5.0"),
            ("1e3", "1e+3"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
            ("1.2.3", "Text"),
            ("1_000", "Text"),
            ("0b11", "Text"),
            ("-", "Text"),
            (".", "Text"),
            ("1e", "Text"),
            (".inf", "NoJson"),
            ("-.INF", "NoJson"),
            (".nan", "NoJson"),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        assert_eq!(plain("~"), Core::Null);
        assert_eq!(plain("True"), Core::Bool(true));
        for text in ["yes", "no", "on", "off", "tRUE", "2026-01-05T10:00:00Z", "12:30"] {
            assert_eq!(plain(text), Core::Text, "{text}");
        }
    }

    #[test]
    fn quoted_scalars_are_texts_and_an_empty_variable_is_not_null() {
        assert_eq!(Scalar::new("12".into(), false).core(), Core::Text);
        let mut empty = Scalar::new(String::new(), true);
        assert!(empty.is_null());
        empty.vars.push("EMPTY".into());
        assert!(!empty.is_null());
    }
}

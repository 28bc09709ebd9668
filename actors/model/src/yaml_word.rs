//! What a plain word of YAML is, by the core schema of YAML 1.2.

/// The type of a plain word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum YamlWord {
    /// Nothing.
    Null,
    /// Exactly `true` or `false`, in one of three spellings each.
    Bool(bool),
    /// The same number in the digits of JSON, all of them.
    Number(String),
    /// A number that JSON has no form for: `.inf`, `.nan`, or more digits than an integer of another base may have.
    NoJson,
    /// Anything else.
    Text,
}

impl YamlWord {
    /// Reads a word that was neither quoted nor tagged.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" => Self::Bool(true),
            "false" | "False" | "FALSE" => Self::Bool(false),
            word => number(word),
        }
    }
}

fn number(word: &str) -> YamlWord {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(word, ".nan" | ".NaN" | ".NAN") {
        return YamlWord::NoJson;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = word.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_digit(radix))
        {
            return u128::from_str_radix(digits, radix).map_or(YamlWord::NoJson, |n| YamlWord::Number(n.to_string()));
        }
    }
    match decimal(unsigned) {
        Some(digits) if word.starts_with('-') => YamlWord::Number(format!("-{digits}")),
        Some(digits) => YamlWord::Number(digits),
        None => YamlWord::Text,
    }
}

/// An unsigned decimal in the form that JSON asks for, with all its digits. What JSON accepts stays as it is.
fn decimal(text: &str) -> Option<String> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at..])),
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
        let power = &exponent[1..];
        let power = power.strip_prefix(['+', '-']).unwrap_or(power);
        if power.is_empty() || !digits(power) {
            return None;
        }
        json.push_str(exponent);
    }
    Some(json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_typed_by_the_core_schema() {
        for (word, digits) in [
            ("12", "12"),
            ("+12", "12"),
            ("-007", "-7"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.50", "1.50"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("5.", "5.0"),
            ("1e3", "1e3"),
            ("1.E-3", "1.0E-3"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ] {
            assert_eq!(YamlWord::of(word), YamlWord::Number(digits.to_owned()), "{word}");
        }
        for word in [".inf", "-.INF", "+.Inf", ".nan", &format!("0x{}", "f".repeat(33))] {
            assert_eq!(YamlWord::of(word), YamlWord::NoJson, "{word}");
        }
        for word in ["1.2.3", "1_000", "0b11", "-", ".", "1e", "1e+", "0x", "+.nan", "12:30", "yes", "tRUE", "-0x1"] {
            assert_eq!(YamlWord::of(word), YamlWord::Text, "{word}");
        }
        assert_eq!(YamlWord::of("~"), YamlWord::Null);
        assert_eq!(YamlWord::of("True"), YamlWord::Bool(true));
    }

    proptest! {
        #[test]
        fn digits_are_always_a_number_of_json(word in "[-+]?[0-9.]{0,8}([eE][-+]?[0-9]{0,3})?") {
            if let YamlWord::Number(digits) = YamlWord::of(&word) {
                prop_assert!(serde_json::from_str::<serde_json::Number>(&digits).is_ok(), "{word} {digits}");
            }
        }

        #[test]
        fn a_number_of_json_keeps_its_digits(word in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?") {
            prop_assert_eq!(YamlWord::of(&word), YamlWord::Number(word));
        }
    }
}

//! Scalars and their types by the YAML 1.2 core schema.

use std::str::FromStr;

use ductile_model::YamlWord;
use serde_json::Number;

/// A scalar as it stands in a file, after substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Neither quoted nor a block: typed by its looks.
    pub(crate) plain: bool,
    /// What stood there before variables were replaced, when any was.
    written: Option<String>,
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
        Self { text, plain, written: None, vars: Vec::new(), unset: Vec::new() }
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
        if self.text.is_empty() && !self.vars.is_empty() {
            return Core::Text;
        }
        match YamlWord::of(&self.text) {
            YamlWord::Null => Core::Null,
            YamlWord::Bool(value) => Core::Bool(value),
            YamlWord::Number(digits) => Number::from_str(&digits).map_or(Core::NoJson, Core::Number),
            YamlWord::NoJson => Core::NoJson,
            YamlWord::Text => Core::Text,
        }
    }

    /// Takes the values of variables into the text.
    pub(crate) fn substitute(&mut self, text: String, vars: Vec<String>) {
        self.written = Some(std::mem::replace(&mut self.text, text));
        self.vars = vars;
    }

    /// The text as it stands in the file. What came from the environment may be a secret and is only named.
    pub(crate) fn written(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.text)
    }

    /// The text as a message quotes it.
    pub(crate) fn shown(&self) -> String {
        format!("{:?}", self.written())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Core {
        Scalar::new(text.to_owned(), true).core()
    }

    #[test]
    fn plain_scalars_are_typed_and_numbers_keep_their_digits() {
        for (text, expected) in [("0x1F", "31"), ("1.50", "1.50"), ("1e3", "1e+3"), ("-007", "-7")] {
            assert_eq!(plain(text), Core::Number(Number::from_str(expected).unwrap()), "{text}");
        }
        assert_eq!(plain("~"), Core::Null);
        assert_eq!(plain("True"), Core::Bool(true));
        assert_eq!(plain(".inf"), Core::NoJson);
        for text in ["yes", "no", "on", "off", "tRUE", "2026-01-05T10:00:00Z", "12:30"] {
            assert_eq!(plain(text), Core::Text, "{text}");
        }
    }

    #[test]
    fn quoted_scalars_are_texts_and_an_empty_variable_is_not_null() {
        assert_eq!(Scalar::new("12".into(), false).core(), Core::Text);
        let mut empty = Scalar::new(String::new(), true);
        assert!(empty.is_null());
        empty.substitute(String::new(), vec!["EMPTY".into()]);
        assert!(!empty.is_null());
    }
}

//! A plugin's memory as JSON text: pure functions. Values are moved as raw text, so every digit of a number survives.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Bytes a state, or one fact, may have.
pub(crate) const STATE_LIMIT: usize = 1 << 20;

/// Why a state was refused: the text of the failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateRefusal {
    #[error("plugin state exceeds max size ({STATE_LIMIT} bytes)")]
    TooLarge,
    #[error("state_updates is not a JSON object: {0}")]
    NotAnObject(String),
    #[error("the stored state of plugin {plugin:?} (table plugin_state) is not a JSON object: {cause}")]
    Unreadable { plugin: String, cause: String },
}

/// An object whose values keep their text. Of repeated keys the last counts, in the place of the first.
#[derive(Debug, Default)]
pub(crate) struct StateObject(Vec<(String, Box<RawValue>)>);

impl StateObject {
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn set(&mut self, key: String, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, present)) => *present = value,
            None => self.0.push((key, value)),
        }
    }

    /// Each top-level key of `newer` replaces; nothing below is merged.
    pub(crate) fn merge(&mut self, newer: Self) {
        for (key, value) in newer.0 {
            self.set(key, value);
        }
    }

    /// Compact JSON text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from("{");
        for (index, (key, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::Value::String(key.clone()).to_string());
            text.push(':');
            push_compact(&mut text, value.get());
        }
        text.push('}');
        text
    }
}

/// Appends valid JSON text without the white space between its tokens.
fn push_compact(out: &mut String, json: &str) {
    let mut in_string = false;
    let mut escaped = false;
    let mut kept_from = 0;
    for (at, byte) in json.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else if byte == b'"' {
            in_string = true;
        } else if byte.is_ascii_whitespace() {
            out.push_str(&json[kept_from..at]);
            kept_from = at + 1;
        }
    }
    out.push_str(&json[kept_from..]);
}

impl<'de> Deserialize<'de> for StateObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = StateObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StateObject, A::Error> {
                let mut object = StateObject::default();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    object.set(key, value);
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(old: &str, new: &str) -> String {
        let mut object = StateObject::parse(old).unwrap();
        object.merge(StateObject::parse(new).unwrap());
        object.to_text()
    }

    #[test]
    fn top_level_keys_are_replaced_and_nested_ones_are_not_merged() {
        assert_eq!(
            merged(r#"{"a":1,"b":{"x":1},"c":true}"#, r#"{ "b" : {"y" : 2}, "d": null }"#),
            r#"{"a":1,"b":{"y":2},"c":true,"d":null}"#
        );
    }

    #[test]
    fn digits_beyond_what_machine_numbers_hold_are_kept() {
        let text = r#"{"n":900719925474099312345678901234567890.10,"e":1E400,"z":-0}"#;
        assert_eq!(merged("{}", text), text);
    }

    #[test]
    fn of_repeated_keys_the_last_counts() {
        assert_eq!(merged("{}", r#"{"a":1,"b":2,"a":3}"#), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn white_space_inside_strings_stays() {
        assert_eq!(merged("{}", "{\"a\": [ \"x \\\" y\" ,\n 1 ] }"), r#"{"a":["x \" y",1]}"#);
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for text in ["[]", "1", "null", "{", "{\"a\":}", ""] {
            assert!(StateObject::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn compacting_changes_no_value(keys in proptest::collection::vec(("[a-c\"\\\\ ]{0,4}", any::<i64>()), 0..6)) {
            let mut expected = serde_json::Map::new();
            for (key, value) in &keys {
                expected.insert(key.clone(), serde_json::json!([value, key]));
            }
            let pretty = serde_json::to_string_pretty(&expected).unwrap();
            let compact = StateObject::parse(&pretty).unwrap().to_text();
            prop_assert_eq!(compact, serde_json::to_string(&expected).unwrap());
        }
    }
}

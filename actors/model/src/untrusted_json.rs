//! Reads JSON that somebody else wrote.
//!
//! `serde_json` passes numbers and raw texts through its data model as objects with one private key. Its `Value`
//! believes such a key in a text, too: it reads the string behind it as JSON of its own, with a fresh allowance of
//! depth. Here a key is a key, whatever its name, so that what is read is what was written, and no deeper than
//! `serde_json` allows.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Error, Map, Number, Value};

/// Key under which `serde_json` hands out a number with all its digits.
const NUMBER: &str = "$serde_json::private::Number";

/// The value that a text is.
///
/// # Errors
/// The text is no JSON, or nested too deep.
pub fn value(text: &str) -> Result<Value, Error> {
    let Literal(value) = serde_json::from_str(text)?;
    Ok(value)
}

/// The object that a text is.
///
/// # Errors
/// The text is no JSON, nested too deep, or something else than an object.
pub fn object(text: &str) -> Result<Map<String, Value>, Error> {
    match value(text)? {
        Value::Object(fields) => Ok(fields),
        other => Err(Error::custom(format!("invalid type: {}, expected an object", what(&other)))),
    }
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as it is written.
struct Literal(Value);

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values).map(Self)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(is.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Literal(entry)) = entries.next_element()? {
            list.push(entry);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = members.next_key_seed(Keys)? {
            let value = match key {
                Key::Name(name) => {
                    let Literal(value) = members.next_value()?;
                    fields.insert(name, value);
                    continue;
                }
                Key::Number => members.next_value_seed(BehindNumber)?,
            };
            match value {
                Behind::Digits(digits) => return digits.parse::<Number>().map(Value::Number).map_err(A::Error::custom),
                Behind::Member(value) => drop(fields.insert(NUMBER.to_owned(), value)),
            }
        }
        Ok(Value::Object(fields))
    }
}

enum Key {
    Number,
    Name(String),
}

/// Reads a key; most numbers come by here, so theirs is not copied.
struct Keys;

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Keys {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(if key == NUMBER { Key::Number } else { Key::Name(key.to_owned()) })
    }
}

enum Behind {
    /// Of a number in the text.
    Digits(String),
    /// Of a key that stands in the text.
    Member(Value),
}

/// Tells a number from an object that looks like one: only the digits of a number come as a string to keep, while
/// strings of the text are lent.
struct BehindNumber;

impl<'de> DeserializeSeed<'de> for BehindNumber {
    type Value = Behind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Behind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BehindNumber {
    type Value = Behind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Values.expecting(f)
    }

    fn visit_string<E>(self, digits: String) -> Result<Behind, E> {
        Ok(Behind::Digits(digits))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Behind, E> {
        Values.visit_str(text).map(Behind::Member)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Behind, E> {
        Values.visit_unit().map(Behind::Member)
    }

    fn visit_bool<E: serde::de::Error>(self, is: bool) -> Result<Behind, E> {
        Values.visit_bool(is).map(Behind::Member)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Behind, E> {
        Values.visit_i64(number).map(Behind::Member)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Behind, E> {
        Values.visit_u64(number).map(Behind::Member)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Behind, E> {
        Values.visit_f64(number).map(Behind::Member)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<Behind, A::Error> {
        Values.visit_seq(entries).map(Behind::Member)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Behind, A::Error> {
        Values.visit_map(members).map(Behind::Member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_holds_no_private_key_reads_as_ever(value in json()) {
            prop_assert_eq!(super::value(&value.to_string()).unwrap(), value);
        }
    }

    #[test]
    fn private_keys_are_keys_like_others_at_every_level() {
        for text in [
            r#"{"$serde_json::private::RawValue":"{\"b\":1}"}"#,
            r#"{"$serde_json::private::RawValue":"no json"}"#,
            r#"{"a":[{"$serde_json::private::RawValue":"1","b":2}]}"#,
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::Number":"one"}"#,
            r#"{"$serde_json::private::Number":"a\nb","b":2}"#,
            r#"{"$serde_json::private::Number":1}"#,
            r#"{"$serde_json::private::Number":null,"b":true}"#,
            r#"{"$serde_json::private::Number":{"$serde_json::private::Number":[1.50]}}"#,
        ] {
            assert_eq!(value(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_escape_hides_no_private_key() {
        let text = r#"{"\u0024serde_json::private::RawValue":"[1]","\u0024serde_json::private::Number":"2"}"#;
        assert_eq!(value(text).unwrap().to_string(), text.replace("\\u0024", "$"));
    }

    #[test]
    fn numbers_keep_their_digits_and_of_repeated_keys_the_last_counts() {
        let text = r#"{"a":1,"n":[12345678901234567890123,1.10,-0,1e400],"a":2}"#;
        assert_eq!(value(text).unwrap().to_string(), r#"{"a":2,"n":[12345678901234567890123,1.10,-0,1e+400]}"#);
    }

    #[test]
    fn an_object_is_nothing_else_and_nothing_follows_it() {
        assert_eq!(object("{}").unwrap(), Map::new());
        assert_eq!(object("[1]").unwrap_err().to_string(), "invalid type: array, expected an object");
        assert!(object("5").is_err() && object("{} {}").is_err() && object("{").is_err());
    }

    #[test]
    fn depth_has_an_end() {
        assert!(value(&format!("{}{}", "[".repeat(127), "]".repeat(127))).is_ok());
        assert!(value(&format!("{}{}", "[".repeat(128), "]".repeat(128))).is_err());
    }
}

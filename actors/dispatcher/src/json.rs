//! Handling of JSON text without taking it apart: numbers keep their digits, because nobody reads them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Deepest nesting of a value that is read.
pub(crate) const MAX_DEPTH: usize = 128;

/// Top-level keys of an object; of repeated keys the last counts.
pub(crate) type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Whether valid JSON text is an object.
pub(crate) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// The text without white space between its tokens.
pub(crate) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', ' ', '\t', '\n', '\r']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let length = if tail.starts_with('"') { string_length(tail) } else { 1 };
        if tail.starts_with('"') {
            out.push_str(&tail[..length]);
        }
        rest = &tail[length..];
    }
    out.push_str(rest);
    out
}

/// How deep a value is nested; a scalar is 0 deep.
pub(crate) fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0usize, 0);
    let mut rest = text;
    while let Some(at) = rest.find(['"', '{', '[', '}', ']']) {
        let tail = &rest[at..];
        let length = match tail.as_bytes().first() {
            Some(b'"') => string_length(tail),
            Some(b'{' | b'[') => {
                now += 1;
                deepest = deepest.max(now);
                1
            }
            _ => {
                now = now.saturating_sub(1);
                1
            }
        };
        rest = &tail[length..];
    }
    deepest
}

/// Bytes of the string at the start of the text, quotes included.
fn string_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Appends JSON text so that it stays on one line. A line break in valid JSON can only stand between tokens.
pub(crate) fn push_one_line(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// Appends a JSON string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string into memory can not fail.
    drop(serde_json::to_writer(out, text));
}

/// At most `limit` bytes of the text, cut between characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn compact_text_keeps_digits_and_strings() {
        let text = "{ \"a b\" : [ 1.50 , 1713740000123456789012 ],\n\t\"q\\\" \" : \" x \\\\\" }";
        assert_eq!(compact(text), "{\"a b\":[1.50,1713740000123456789012],\"q\\\" \":\" x \\\\\"}");
    }

    #[test]
    fn depth_counts_nesting_and_not_brackets_in_strings() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"{"a":[[]],"b":"[[[[{{{{\"[["}"#), 3);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((".{0,6}", inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn compacting_pretty_text_gives_what_was_never_pretty(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), value.to_string());
            let mut line = Vec::new();
            push_one_line(&mut line, &pretty);
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), value);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = (compact(&text), depth(&text), cut(&text, 7));
        }
    }
}

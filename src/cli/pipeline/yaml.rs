//! JSON values as YAML that looks like what people write.

use serde_json::{Map, Value};

/// The whole text, with a line break at its end.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => mapping(entries, 0, &mut out),
        Value::Array(items) if !items.is_empty() => list(items, 0, &mut out),
        other => out.push_str(&format!("{}\n", scalar(other))),
    }
    out
}

fn mapping(entries: &Map<String, Value>, depth: usize, out: &mut String) {
    for (key, value) in entries {
        let key = if is_plain(key) { key.clone() } else { Value::from(key.as_str()).to_string() };
        out.push_str(&format!("{:1$}{key}:", "", depth * 2));
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                out.push('\n');
                mapping(entries, depth + 1, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                list(items, depth + 1, out);
            }
            other => out.push_str(&format!(" {}\n", scalar(other))),
        }
    }
}

fn list(items: &[Value], depth: usize, out: &mut String) {
    let lead = " ".repeat(depth * 2);
    for item in items {
        let mut inner = String::new();
        match item {
            Value::Object(entries) if !entries.is_empty() => mapping(entries, depth + 1, &mut inner),
            Value::Array(items) if !items.is_empty() => list(items, depth + 1, &mut inner),
            other => inner = format!("{lead}  {}\n", scalar(other)),
        }
        // The dash stands where the first line of the item is indented.
        let rest = inner.get(lead.len() + 2..).unwrap_or_default();
        out.push_str(&format!("{lead}- {rest}"));
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) && !is_word(text) => text.clone(),
        // A JSON text is a YAML text in double quotes; empty mappings and lists are flow forms.
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
}

/// Words that would be something else without quotes, for some reader or other.
fn is_word(text: &str) -> bool {
    ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_blocks_and_doubtful_texts_in_quotes() {
        let value = json!({
            "name": "p", "on": "link.found", "timeout": "30s", "if": {"path": "payload.x", "op": "in", "value": [1, "no", null]},
            "steps": [{"id": "a", "with": {"m": "{payload.x}: \"y\""}}, {"split": [{"uses": "b"}]}], "none": {}
        });
        let expected = "name: p\non: link.found\ntimeout: \"30s\"\nif:\n  path: payload.x\n  op: in\n  value:\n    - 1\n    - \"no\"\n    - null\nsteps:\n  - id: a\n    with:\n      m: \"{payload.x}: \\\"y\\\"\"\n  - split:\n      - uses: b\nnone: {}\n";
        assert_eq!(text(&value), expected);
    }
}

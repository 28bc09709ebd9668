//! Hiding values: one redactor for everything that shows configuration.

use ductile_model::Secret;
use serde_json::{Map, Value};

use crate::keys::{Kind, Schema, root};
use crate::load::{Taint, dotted};

/// Stands for every hidden value.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// Shorter secrets are not searched for in texts: they would hide half of every page.
const SHORTEST_SEARCHED: usize = 8;

const TELLING: [&str; 9] =
    ["token", "secret", "password", "passwd", "passphrase", "api_key", "apikey", "private_key", "credential"];

/// Whether the name of a key in a free map, or of a variable, says that its value is a secret.
pub(crate) fn is_sensitive(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    if name.ends_with("_ref") || name == "dedupe_key" {
        return false;
    }
    TELLING.iter().any(|word| name.contains(word))
        || name.split('_').any(|word| word.ends_with("key") || matches!(word, "auth" | "oauth" | "authorization"))
}

/// A value that was hidden.
pub(crate) struct Hidden {
    /// Dotted path.
    pub(crate) purpose: String,
    /// What stood there.
    pub(crate) value: Value,
}

/// A copy with its secrets hidden.
pub(crate) struct Redacted {
    pub(crate) value: Value,
    pub(crate) hidden: Vec<Hidden>,
}

/// Hides what looks like a secret and what is known to be one.
pub(crate) struct Redactor {
    known: Vec<Secret>,
}

impl Redactor {
    /// Knows these values beside what names tell.
    pub(crate) fn new(known: impl IntoIterator<Item = Secret>) -> Self {
        Self { known: known.into_iter().filter(|secret| secret.expose().len() >= SHORTEST_SEARCHED).collect() }
    }

    /// A redacted copy of an effective configuration.
    pub(crate) fn configuration(&self, effective: &Value, taint: &Taint) -> Redacted {
        let mut pass = Pass { redactor: self, taint, path: Vec::new(), labels: Vec::new(), hidden: Vec::new() };
        let value = pass.value(Where::Table(root()), effective);
        Redacted { value, hidden: pass.hidden }
    }

    /// A redacted copy of what stands under one key of an effective configuration.
    pub(crate) fn section(&self, key: &str, value: &Value, taint: &Taint) -> Value {
        let mut pass = Pass { redactor: self, taint, path: Vec::new(), labels: Vec::new(), hidden: Vec::new() };
        let place = root().child(key).map_or(Where::Free, Where::Table);
        pass.under(key.to_owned(), key.to_owned(), |pass| pass.value(place, value))
    }

    /// A text as it may be shown; `None` when nothing in it has to be hidden.
    fn text(&self, text: &str) -> Option<String> {
        if self.known.iter().any(|secret| text.contains(secret.expose())) {
            return Some(REDACTED.to_owned());
        }
        hide_passwords(text)
    }
}

/// What is known about the part of the tree that is looked at.
#[derive(Clone, Copy)]
enum Where<'s> {
    Table(&'s Schema),
    Free,
}

struct Pass<'p> {
    redactor: &'p Redactor,
    taint: &'p Taint,
    path: Vec<String>,
    /// As `path`, indexes in brackets.
    labels: Vec<String>,
    hidden: Vec<Hidden>,
}

impl Pass<'_> {
    fn value(&mut self, place: Where<'_>, value: &Value) -> Value {
        let place = match place {
            Where::Table(schema) if matches!(schema.key.kind, Kind::Free | Kind::Any) => Where::Free,
            other => other,
        };
        let named = matches!(place, Where::Table(schema) if schema.key.path == "tokens.*.key");
        // Most configurations have none, and the path is long to hash.
        let tainted = !self.taint.values.is_empty() && self.taint.values.contains(&self.path);
        if named || tainted {
            return self.hide(value, REDACTED.to_owned());
        }
        match value {
            Value::Object(entries) => Value::Object(self.entries(place, entries)),
            Value::Array(items) => {
                let each = match place {
                    Where::Table(schema) => schema.each().map(Where::Table),
                    Where::Free => Some(Where::Free),
                };
                let each = each.unwrap_or(Where::Free);
                let items = items.iter().enumerate();
                items
                    .map(|(i, item)| self.under(i.to_string(), format!("[{i}]"), |pass| pass.value(each, item)))
                    .collect()
            }
            Value::String(text) => match self.redactor.text(text) {
                Some(shown) => self.hide(value, shown),
                None => value.clone(),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn entries(&mut self, place: Where<'_>, entries: &Map<String, Value>) -> Map<String, Value> {
        let mut shown = Map::with_capacity(entries.len());
        for (name, value) in entries {
            let child = match place {
                Where::Table(schema) => schema.child(name).map(Where::Table),
                Where::Free if is_sensitive(name) => None,
                Where::Free => Some(Where::Free),
            };
            let (hidden_name, value) = self.under(name.clone(), name.clone(), |pass| {
                let value = match child {
                    Some(child) => pass.value(child, value),
                    None => pass.hide(value, REDACTED.to_owned()),
                };
                let tainted = !pass.taint.keys.is_empty() && pass.taint.keys.contains(&pass.path);
                (if tainted { Some(REDACTED.to_owned()) } else { pass.redactor.text(name) }, value)
            });
            // Two hidden names must not swallow one another.
            let name = hidden_name.map_or_else(|| name.clone(), |hidden| numbered(&shown, hidden));
            shown.insert(name, value);
        }
        shown
    }

    fn hide(&mut self, value: &Value, shown: String) -> Value {
        let labels: Vec<_> = self.labels.iter().map(String::as_str).collect();
        self.hidden.push(Hidden { purpose: dotted(&labels), value: value.clone() });
        Value::from(shown)
    }

    fn under<T>(&mut self, segment: String, label: String, act: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        self.labels.push(label);
        let result = act(self);
        self.labels.pop();
        self.path.pop();
        result
    }
}

fn numbered(shown: &Map<String, Value>, name: String) -> String {
    let others = shown.keys().filter(|other| other.starts_with(&name)).count();
    if others == 0 { name } else { format!("{name} {}", others + 1) }
}

/// Hides the password of every `scheme://user:password@host` in a text.
fn hide_passwords(text: &str) -> Option<String> {
    let mut shown = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        match password(&after[..end]) {
            Some(range) => {
                shown.push_str(&after[..range.start]);
                shown.push_str(REDACTED);
                rest = &after[range.end..];
                found = true;
            }
            None => rest = after,
        }
    }
    shown.push_str(rest);
    found.then_some(shown)
}

/// Where the password stands in what follows `://`.
fn password(address: &str) -> Option<std::ops::Range<usize>> {
    let authority = &address[..address.find(['/', '?', '#']).unwrap_or(address.len())];
    let colon = authority.find(':')?;
    if let Some(at) = authority.rfind('@') {
        return (colon < at).then_some(colon + 1..at);
    }
    // A password may hold a slash that nobody escaped; a port may not.
    let port = !authority[colon + 1..].is_empty() && authority[colon + 1..].bytes().all(|b| b.is_ascii_digit());
    let at = address.rfind('@')?;
    (!port).then_some(colon + 1..at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn redacted(known: &[&str], value: &Value) -> Value {
        let known = known.iter().map(|text| Secret::new((*text).to_owned()));
        Redactor::new(known).configuration(value, &Taint::default()).value
    }

    #[test]
    fn telling_names_hide_and_names_of_names_do_not() {
        for name in
            ["token", "Api-Key", "MY_SECRET", "smtp_passwd", "key", "signing_key", "oauth", "x_auth", "AUTHORIZATION"]
        {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["dedupe_key", "api_key_ref", "keyboard", "author", "user", "path", "secret_ref"] {
            assert!(!is_sensitive(name), "{name}");
        }
    }

    #[test]
    fn free_maps_are_redacted_at_any_depth() {
        let shown = redacted(
            &[],
            &json!({"plugins": {"m": {"config": {
                "api_key": "k", "dedupe_key": "k1", "list": [{"password": ["x"]}], "credentials": {"a": 1}, "n": 5
            }}}}),
        );
        assert_eq!(
            shown["plugins"]["m"]["config"],
            json!({"api_key": "[REDACTED]", "dedupe_key": "k1", "list": [{"password": "[REDACTED]"}],
                   "credentials": "[REDACTED]", "n": 5})
        );
    }

    #[test]
    fn keys_of_the_table_are_shown_except_literal_secrets() {
        let shown = redacted(
            &[],
            &json!({"tokens": [{"name": "gh", "key": "abc"}], "secrets": {"age_key_file": "/k"},
                    "api": {"auth": {"tokens": [{"secret_ref": "api-token"}]}}}),
        );
        assert_eq!(shown["tokens"], json!([{"name": "gh", "key": "[REDACTED]"}]));
        assert_eq!(shown["secrets"]["age_key_file"], "/k");
        assert_eq!(shown["api"]["auth"]["tokens"][0]["secret_ref"], "api-token");
    }

    #[test]
    fn passwords_in_addresses_are_hidden() {
        for (text, shown) in [
            ("postgres://u:pw@h/db", "postgres://u:[REDACTED]@h/db"),
            ("a redis://:pw@h b amqp://x:y@z", "a redis://:[REDACTED]@h b amqp://x:[REDACTED]@z"),
            ("postgres://u:p/w@h/db", "postgres://u:[REDACTED]@h/db"),
            ("postgres://u:p@w@h/db", "postgres://u:[REDACTED]@h/db"),
        ] {
            assert_eq!(hide_passwords(text).as_deref(), Some(shown));
        }
        for text in ["https://h:8080/a@b", "https://user@host/", "u:pw@h", "https://h/x"] {
            assert_eq!(hide_passwords(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_contains_a_known_secret_is_hidden_whole() {
        let value =
            json!({"service": {"name": "x-hunter22-y"}, "plugins": {"m": {"config": {"hunter22": 1, "a": "ok"}}}});
        let shown = redacted(&["hunter22", "ok"], &value);
        assert_eq!(shown["service"]["name"], "[REDACTED]");
        assert_eq!(shown["plugins"]["m"]["config"], json!({"[REDACTED]": 1, "a": "ok"}));
    }

    proptest! {
        #[test]
        fn a_known_secret_never_survives(secret in "[a-z0-9]{8,20}", before in "[ -~]{0,10}", after in "[ -~]{0,10}") {
            let text = format!("{before}{secret}{after}");
            let value = json!({"plugins": {"m": {"config": {"a": [text.clone()], "b": {text: 1}}}}});
            let shown = redacted(&[&secret], &value).to_string();
            prop_assert!(!shown.contains(&secret));
        }
    }
}

//! Keeps delivered secret values out of what the gateway stores and shows of a job.

use ductile_model::Secret;
use zeroize::Zeroizing;

/// Shorter values would blot out ordinary text.
const SHORTEST: usize = 8;
const MARK: &str = "[REDACTED]";

/// The values that one attempt was given.
#[derive(Default)]
pub(crate) struct Guard {
    /// Name of the secret and a text that shows it; longest text first.
    needles: Vec<(String, Zeroizing<String>)>,
}

impl Guard {
    /// A guard over these values and the ways JSON writes them.
    pub(crate) fn new(secrets: &[(String, Secret)]) -> Self {
        let mut needles = Vec::new();
        for (name, value) in secrets.iter().filter(|(_, value)| value.expose().len() >= SHORTEST) {
            for form in forms(value.expose()) {
                needles.push((name.clone(), form));
            }
        }
        needles.sort_by_key(|(_, needle)| std::cmp::Reverse(needle.len()));
        needles.dedup_by(|a, b| a.1 == b.1);
        Self { needles }
    }

    /// Bytes of the longest text looked for: what is captured beyond a cap, so that a value is never cut in two
    /// before it is recognised.
    pub(crate) fn longest(&self) -> usize {
        self.needles.first().map_or(0, |(_, needle)| needle.len())
    }

    /// The text without any of the values.
    pub(crate) fn clean(&self, mut text: String) -> String {
        for (_, needle) in &self.needles {
            if text.contains(needle.as_str()) {
                text = text.replace(needle.as_str(), MARK);
            }
        }
        text
    }

    /// Names of the secrets whose value stands in the text, each once.
    pub(crate) fn names_in<'a>(&'a self, text: &'a str) -> Vec<&'a str> {
        let mut names: Vec<_> = self
            .needles
            .iter()
            .filter(|(_, needle)| text.contains(needle.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The value as it is and as a JSON string holds it: escaped where it must be, and escaped to ASCII.
fn forms(value: &str) -> [Zeroizing<String>; 3] {
    let mut escaped = Zeroizing::new(serde_json::to_string(value).unwrap_or_default());
    escaped.pop();
    if !escaped.is_empty() {
        escaped.remove(0);
    }
    let mut ascii = Zeroizing::new(String::with_capacity(escaped.len() * 6));
    for c in escaped.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    [Zeroizing::new(value.to_owned()), escaped, ascii]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(values: &[(&str, &str)]) -> Guard {
        let secrets: Vec<_> =
            values.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect();
        Guard::new(&secrets)
    }

    #[test]
    fn values_and_their_escaped_forms_disappear() {
        let guard = guard(&[("a", "pass\"wörd"), ("short", "1234567")]);
        let text = "x pass\"wörd y pass\\\"wörd z pass\\\"w\\u00f6rd 1234567".to_owned();
        assert_eq!(guard.clean(text), "x [REDACTED] y [REDACTED] z [REDACTED] 1234567");
    }

    #[test]
    fn a_value_that_holds_another_is_replaced_whole() {
        let guard = guard(&[("a", "abcdefgh"), ("b", "abcdefgh-ijkl")]);
        assert_eq!(guard.clean("abcdefgh-ijkl abcdefgh".to_owned()), "[REDACTED] [REDACTED]");
        assert_eq!(guard.names_in("abcdefgh-ijkl"), ["a", "b"]);
        assert_eq!(guard.longest(), 13);
    }
}

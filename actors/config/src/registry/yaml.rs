//! Reading a YAML mapping key by key, with every complaint kept.

use serde_yaml::{Mapping, Value};

/// Longest piece of an offending value that a message quotes.
const SHOWN_CHARS: usize = 80;

/// What was found wrong, and what is only odd, while one manifest is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Findings {
    pub(super) fn error(&mut self, message: impl Into<String>) {
        self.errors.push(message.into());
    }

    pub(super) fn warn(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }
}

/// A mapping and where it lies, such as `commands[0]`; the root of the document has an empty path.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    path: &'a str,
    map: &'a Mapping,
}

impl<'a> Node<'a> {
    pub(super) fn new(path: &'a str, map: &'a Mapping) -> Self {
        Self { path, map }
    }

    /// Full name of one of its keys.
    pub(super) fn name_of(self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value; a null counts as absent.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A value that must be there.
    pub(super) fn required(self, key: &str, findings: &mut Findings) -> Option<&'a Value> {
        let value = self.get(key);
        if value.is_none() {
            findings.error(format!("{} is required", self.name_of(key)));
        }
        value
    }

    /// Text, or nothing; any other type is an error.
    pub(super) fn text(self, key: &str, findings: &mut Findings) -> Option<&'a str> {
        let value = self.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            findings.error(format!("{} must be a string, not {}", self.name_of(key), show(value)));
        }
        text
    }

    /// Text that must be there.
    pub(super) fn required_text(self, key: &str, findings: &mut Findings) -> Option<&'a str> {
        self.required(key, findings)?;
        self.text(key, findings)
    }

    /// A boolean, or nothing; any other type is an error.
    pub(super) fn boolean(self, key: &str, findings: &mut Findings) -> Option<bool> {
        let value = self.get(key)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            findings.error(format!("{} must be true or false, not {}", self.name_of(key), show(value)));
        }
        boolean
    }

    /// A mapping, or nothing; any other type is an error.
    pub(super) fn mapping(self, key: &str, findings: &mut Findings) -> Option<&'a Mapping> {
        let value = self.get(key)?;
        let map = value.as_mapping();
        if map.is_none() {
            findings.error(format!("{} must be a mapping, not {}", self.name_of(key), show(value)));
        }
        map
    }

    /// A list; absent counts as empty, any other type is an error.
    pub(super) fn list(self, key: &str, findings: &mut Findings) -> &'a [Value] {
        match self.get(key) {
            None => &[],
            Some(Value::Sequence(list)) => list,
            Some(other) => {
                findings.error(format!("{} must be a list, not {}", self.name_of(key), show(other)));
                &[]
            }
        }
    }

    /// A list of non-blank names, each without the blanks around it; absent counts as empty.
    pub(super) fn names(self, key: &str, findings: &mut Findings) -> Vec<String> {
        let mut names = Vec::new();
        for (index, value) in self.list(key, findings).iter().enumerate() {
            match value.as_str().map(str::trim).filter(|name| !name.is_empty()) {
                Some(name) => names.push(name.to_owned()),
                None => findings.error(format!(
                    "{}[{index}] must be a non-blank string, not {}",
                    self.name_of(key),
                    show(value)
                )),
            }
        }
        names
    }

    /// Keys that nobody reads, by their full names.
    pub(super) fn unknown_keys(self, known: &[&str]) -> Vec<String> {
        self.map
            .keys()
            .filter(|key| key.as_str().is_none_or(|key| !known.contains(&key)))
            .map(|key| self.name_of(&key_text(key)))
            .collect()
    }

    /// Says which keys are ignored.
    pub(super) fn warn_unknown(self, known: &[&str], findings: &mut Findings) {
        for key in self.unknown_keys(known) {
            findings.warn(format!("unknown key {key:?} is ignored"));
        }
    }
}

/// The text of a mapping key.
pub(super) fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => show(other),
    }
}

/// A value as a message quotes it: compact JSON, cut when it is long.
pub(super) fn show(value: &Value) -> String {
    let text = match to_json(value) {
        Ok(json) => json.to_string(),
        Err(reason) => reason,
    };
    if text.chars().count() <= SHOWN_CHARS {
        return text;
    }
    let mut cut: String = text.chars().take(SHOWN_CHARS).collect();
    cut.push('…');
    cut
}

/// The same value as JSON, keys in their order.
///
/// # Errors
/// What JSON can not say.
pub(super) fn to_json(value: &Value) -> Result<serde_json::Value, String> {
    use serde_json::Value as Json;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(boolean) => Json::Bool(*boolean),
        Value::String(text) => Json::String(text.clone()),
        Value::Number(number) => number_to_json(number)?,
        Value::Sequence(list) => Json::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Mapping(map) => {
            let mut object = serde_json::Map::new();
            for (key, value) in map {
                object.insert(json_key(key)?, to_json(value)?);
            }
            Json::Object(object)
        }
        Value::Tagged(tagged) => return Err(format!("a value with the tag {}", tagged.tag)),
    })
}

fn number_to_json(number: &serde_yaml::Number) -> Result<serde_json::Value, String> {
    if let Some(integer) = number.as_i64() {
        return Ok(integer.into());
    }
    if let Some(integer) = number.as_u64() {
        return Ok(integer.into());
    }
    let float = number.as_f64().and_then(serde_json::Number::from_f64);
    float.map(serde_json::Value::Number).ok_or_else(|| format!("the number {number}, which JSON does not have"))
}

fn json_key(key: &Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(boolean) => Ok(boolean.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("a mapping with a key that is not a scalar".to_owned()),
    }
}

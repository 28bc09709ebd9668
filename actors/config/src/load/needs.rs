//! Keys that a section must have, as the table says.

use ductile_model::Problem;
use serde_json::{Map, Value};

use super::Context;
use crate::keys::{Kind, Need, Schema, root};

/// Looks at every section of the effective configuration.
pub(super) fn check(context: &Context<'_>, effective: &Value, problems: &mut Vec<Problem>) {
    Walk { context, problems, path: Vec::new() }.value(root(), effective);
}

struct Walk<'w> {
    context: &'w Context<'w>,
    problems: &'w mut Vec<Problem>,
    path: Vec<String>,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, value: &Value) {
        match value {
            _ if schema.is_judged_late() => {}
            Value::Object(entries) if matches!(schema.key.kind, Kind::Section | Kind::Map) => {
                for what in lacks(schema, entries) {
                    self.tell(&what);
                }
                for (name, value) in entries {
                    if let Some(child) = schema.child(name) {
                        self.under(name.clone(), |walk| walk.value(child, value));
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(each) = schema.each() {
                        self.under(format!("[{index}]"), |walk| walk.value(each, item));
                    }
                }
            }
            _ => {}
        }
    }

    fn tell(&mut self, what: &str) {
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        let message = format!("{}: {what}", self.context.called(&path));
        self.problems.push(self.context.problem("load", &path, message));
    }

    fn under(&mut self, segment: String, act: impl FnOnce(&mut Self)) {
        self.path.push(segment);
        act(self);
        self.path.pop();
    }
}

/// What one section lacks, or has too much of.
pub(super) fn lacks(schema: &Schema, entries: &Map<String, Value>) -> Vec<String> {
    let is_missing = |name: &str| !is_given(entries.get(name));
    let faults = schema.children.iter().filter_map(|(name, child)| match child.key.need {
        Need::Required if is_missing(name) => Some(format!("{name} is required")),
        Need::RequiredFor { key, values } if is_missing(name) => {
            let value = values.iter().find(|value| entries.get(key) == Some(&Value::from(**value)))?;
            Some(format!("{name} is required for {key} {value}"))
        }
        // The group is looked at once, where its first key stands.
        Need::OneOf(group) if group.first() == Some(name) => {
            match group.iter().filter(|name| !is_missing(name)).count() {
                0 => Some(format!("requires one of {}", alternatives(group))),
                1 => None,
                _ => Some(format!("must set exactly one of {}", alternatives(group))),
            }
        }
        Need::Optional | Need::Required | Need::RequiredFor { .. } | Need::OneOf(_) => None,
    });
    faults.collect()
}

/// Blank texts and empty lists say nothing.
pub(super) fn is_given(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.trim().is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// `a or b`; `a, b, or c`.
pub(super) fn alternatives(names: &[&str]) -> String {
    match names {
        [first, second] => format!("{first} or {second}"),
        [all @ .., last] => format!("{}, or {last}", all.join(", ")),
        [] => String::new(),
    }
}

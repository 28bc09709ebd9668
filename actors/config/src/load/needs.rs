//! Keys that a section must have, as the table says.

use ductile_model::Problem;
use serde_json::{Map, Value};

use super::Context;
use crate::keys::{Kind, Need, Schema, root};

/// Looks at every section of the effective configuration.
pub(super) fn check(
    context: &Context<'_>,
    effective: &Value,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    Walk { context, problems, warnings, path: Vec::new(), harmless: false }.value(root(), effective);
}

struct Walk<'w> {
    context: &'w Context<'w>,
    problems: &'w mut Vec<Problem>,
    warnings: &'w mut Vec<Problem>,
    path: Vec<String>,
    /// Below a plugin that is not enabled: it can not do anything wrong yet.
    harmless: bool,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, value: &Value) {
        match value {
            Value::Object(entries) if matches!(schema.key.kind, Kind::Section | Kind::Map) => {
                if schema.key.path == "plugins.*" {
                    self.harmless = entries.get("enabled") != Some(&Value::Bool(true));
                }
                self.section(schema, entries);
                for (name, value) in entries {
                    if let Some(child) = schema.child(name) {
                        self.under(name.clone(), |walk| walk.value(child, value));
                    }
                }
                if schema.key.path == "plugins.*" {
                    self.harmless = false;
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

    fn section(&mut self, schema: &Schema, entries: &Map<String, Value>) {
        for (name, child) in &schema.children {
            let is_missing = !is_given(entries.get(*name));
            match child.key.need {
                Need::Required if is_missing => self.tell(format_args!("{name} is required")),
                Need::RequiredFor { key, values } if is_missing => {
                    if let Some(value) = values.iter().find(|value| entries.get(key) == Some(&Value::from(**value))) {
                        self.tell(format_args!("{name} is required for {key} {value}"));
                    }
                }
                // The group is looked at once, where its first key stands.
                Need::OneOf(group) if group.first() == Some(name) => self.one_of(group, entries),
                Need::Optional | Need::Required | Need::RequiredFor { .. } | Need::OneOf(_) => {}
            }
        }
    }

    fn one_of(&mut self, group: &[&str], entries: &Map<String, Value>) {
        match group.iter().filter(|name| is_given(entries.get(**name))).count() {
            0 => self.tell(format_args!("requires one of {}", alternatives(group))),
            1 => {}
            _ => self.tell(format_args!("must set exactly one of {}", alternatives(group))),
        }
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        // The name of a plugin says more than the way to its entry.
        let message = match path.as_slice() {
            ["plugins", _, rest @ ..] => {
                let plugin = self.context.merged.shown_key(&path[..2]);
                format!("plugin {plugin:?}: {} {what}", super::dotted(rest))
            }
            entry => format!("{}: {what}", self.context.called(entry)),
        };
        if self.harmless {
            self.warnings.push(self.context.problem("schedule", &path, message));
        } else {
            self.problems.push(self.context.problem("load", &path, message));
        }
    }

    fn under(&mut self, segment: String, act: impl FnOnce(&mut Self)) {
        self.path.push(segment);
        act(self);
        self.path.pop();
    }
}

/// Blank texts and empty lists say nothing.
fn is_given(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.trim().is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// `a or b`; `a, b, or c`.
fn alternatives(names: &[&str]) -> String {
    match names {
        [first, second] => format!("{first} or {second}"),
        [all @ .., last] => format!("{}, or {last}", all.join(", ")),
        [] => String::new(),
    }
}

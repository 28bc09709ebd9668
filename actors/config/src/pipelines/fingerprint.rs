//! One form for everything that behaves alike, and the hash over it. The form is never built: its parts go into the hash
//! one by one, each with its length before it, so that no two forms can be taken for one another.

use blake3::Hasher;
use serde_json::Number;

use super::compile::Body;
use super::compiled::{Exit, NodeKind};
use super::shape::Shape;
use crate::scalar::{Core, Scalar};
use crate::yaml::{Data, Entry, Node as Yaml};

/// A hash that is being made.
pub(super) struct Form(Hasher);

impl Form {
    /// Of a thing of this kind.
    pub(super) fn new(kind: &str) -> Self {
        Self(Hasher::new()).text(kind)
    }

    /// Goes on with a text.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.add(text);
        self
    }

    /// Goes on with a text or with its absence.
    pub(super) fn maybe(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text("some").text(text),
            None => self.text("none"),
        }
    }

    /// Goes on with a mapping of texts: only the texts count, not how they are quoted.
    pub(super) fn texts(mut self, source: Option<&Yaml>) -> Self {
        let entries = sorted(source.map(Yaml::entries).unwrap_or_default());
        self.count(entries.len());
        for entry in entries {
            self.add(&entry.key.text);
            match entry.value.scalar() {
                Some(scalar) => self.add(&scalar.text),
                None => self.value(&entry.value),
            }
        }
        self
    }

    /// Goes on with a condition: keys that say nothing are left out, equal numbers are spelled alike.
    pub(super) fn condition(mut self, source: Option<&Yaml>) -> Self {
        match source {
            Some(source) => self.part(source),
            None => self.add("none"),
        }
        self
    }

    /// Goes on with any value.
    pub(super) fn with(mut self, value: &Yaml) -> Self {
        self.value(value);
        self
    }

    /// The hash.
    pub(super) fn finish(self) -> String {
        self.0.finalize().to_hex().to_string()
    }

    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    fn add(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn part(&mut self, source: &Yaml) {
        let mut entries = sorted(source.entries());
        entries.retain(|entry| match entry.key.text.as_str() {
            "all" | "any" => !entry.value.items().is_empty(),
            _ => !entry.value.is_null(),
        });
        self.count(entries.len());
        for entry in entries {
            self.add(&entry.key.text);
            match entry.key.text.as_str() {
                "all" | "any" => {
                    self.count(entry.value.items().len());
                    entry.value.items().iter().for_each(|item| self.part(item));
                }
                "not" => self.part(&entry.value),
                _ => self.value(&entry.value),
            }
        }
    }

    fn value(&mut self, value: &Yaml) {
        match &value.data {
            Data::Scalar(scalar) => self.scalar(scalar),
            Data::List(items) => {
                self.add("list");
                self.count(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Data::Map(entries) => {
                self.add("map");
                self.count(entries.len());
                for entry in sorted(entries) {
                    self.add(&entry.key.text);
                    self.value(&entry.value);
                }
            }
        }
    }

    fn scalar(&mut self, scalar: &Scalar) {
        match scalar.core() {
            Core::Null => self.add("null"),
            Core::Bool(value) => self.add(if value { "true" } else { "false" }),
            Core::Number(number) => {
                self.add("number");
                self.add(&spelled(&number));
            }
            Core::Text | Core::NoJson => {
                self.add("text");
                self.add(&scalar.text);
            }
        }
    }
}

fn sorted(entries: &[Entry]) -> Vec<&Entry> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by(|a, b| a.key.text.cmp(&b.key.text));
    entries
}

/// Hash over what happens in a pipeline, whoever starts it.
pub(super) fn body(name: &str, shape: &Shape, bodies: &[Body]) -> String {
    let id = |index: usize| -> &str { &shape.nodes[index].id };
    let exit = |exit: Exit| exit.event_type().unwrap_or_default();
    let mut form = Form::new("body").text(name);
    let mut order: Vec<usize> = (0..shape.nodes.len()).collect();
    order.sort_by(|a, b| id(*a).cmp(id(*b)));
    for index in order {
        let node = &shape.nodes[index];
        let (plugin, command) = node.job().unzip();
        let called = match &node.kind {
            NodeKind::Call(target) => Some(bodies[target.get()].hash.as_str()),
            NodeKind::Uses(_) | NodeKind::Relay(_) | NodeKind::Switch(_) => None,
        };
        form = form.text(&node.id).text(node.kind.as_str()).maybe(plugin).maybe(command).maybe(called);
        form = form.text(&shape.said[index]);
        form.count(node.edges.len());
        for edge in &node.edges {
            form = form.text(id(edge.to.get())).text(exit(edge.on));
        }
        form.count(node.terminals.len());
        for on in &node.terminals {
            form = form.text(exit(*on));
        }
    }
    form.count(shape.entries.len());
    shape.entries.iter().fold(form, |form, entry| form.text(id(entry.get()))).finish()
}

/// Digits without zeros at either end, and the power of ten behind them: `30`, `30.0` and `3e1` are `3e1`.
fn spelled(number: &Number) -> String {
    let text = number.to_string().to_ascii_lowercase();
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    // An exponent beyond any number is left as it is written.
    let Ok(exponent) = exponent.parse::<i64>() else { return text.to_owned() };
    let places = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let power =
        exponent.saturating_add(places(digits.len() - significant.len())).saturating_sub(places(fraction.len()));
    format!("{sign}{significant}e{power}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn equal_numbers_are_spelled_alike_and_others_are_not() {
        let spelled = |text: &str| super::spelled(&text.parse().unwrap());
        for same in ["30", "30.0", "3e1", "0.3e2", "3E+1"] {
            assert_eq!(spelled(same), "3e1", "{same}");
        }
        for (number, expected) in [("0", "0"), ("-0.0", "0"), ("-0.50", "-5e-1"), ("1000000", "1e6"), ("7", "7e0")] {
            assert_eq!(spelled(number), expected, "{number}");
        }
    }
}

//! Reading the fields of pipelines. Their steps are read in `steps`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ductile_model::parse_duration;

use super::Input;
use super::compiled::{ExecutionMode, Signal, Trigger};
use super::condition::{Condition, ConditionPlace};
use super::fault::Fault;
use super::findings::Findings;
use super::steps::{self, Step};
use crate::scalar::{Core, Scalar};
use crate::yaml::{Node, Place};

/// Category of what is wrong with a pipeline.
pub(super) const CATEGORY: &str = "pipelines";
/// In every warning about a plugin that can not run yet. With a gate such a warning is a refusal.
pub(crate) const NOT_ENABLED: &str = "which is discovered but not enabled";

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A pipeline as it was written.
pub(super) struct Authored<'n> {
    /// Place in the list.
    pub(super) position: usize,
    pub(super) name: Arc<str>,
    /// As messages name it; its name may come from a variable.
    pub(super) shown: &'n str,
    pub(super) trigger: Option<Trigger>,
    pub(super) from_plugin: Option<Arc<str>>,
    pub(super) gate: Option<Gate<'n>>,
    pub(super) max_depth: Option<u32>,
    pub(super) mode: ExecutionMode,
    pub(super) timeout: Duration,
    pub(super) steps: Vec<Step<'n>>,
    pub(super) calls: Vec<CallSite>,
}

/// A condition with what was written.
pub(super) struct Gate<'n> {
    pub(super) condition: Condition,
    pub(super) source: &'n Node,
}

/// A call of another pipeline.
pub(super) struct CallSite {
    /// Index into the authored pipelines.
    pub(super) target: usize,
    pub(super) place: Place,
    pub(super) field: String,
}

/// Who and where: what every message about a part of a pipeline begins with.
pub(super) struct Subject {
    /// `pipeline "p"`, or its place where it has no name.
    pub(super) called: String,
    /// `pipelines[3]`.
    pub(super) field: String,
}

/// Reads all pipelines. Those without a name of their own are reported and read for what else is wrong with them.
pub(super) fn read<'n>(input: &Input<'n>, findings: &mut Findings<'_>) -> Vec<Authored<'n>> {
    let items = input.merged.find(&["pipelines"]).map(Node::items).unwrap_or_default();
    let names = names(items, findings);
    let mut authored = Vec::with_capacity(names.len());
    for (position, item) in items.iter().enumerate() {
        let pipeline = Reader { input, names: &names, findings, item, position }.read();
        // The first one of a name stands for it.
        if names.get(&*pipeline.name) == Some(&authored.len()) {
            authored.push(pipeline);
        }
    }
    authored
}

/// Where the pipeline of a name will stand among those that have one.
fn names<'n>(items: &'n [Node], findings: &mut Findings<'_>) -> HashMap<&'n str, usize> {
    let mut names = HashMap::with_capacity(items.len());
    let mut firsts: Vec<&Node> = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let field = format!("pipelines[{position}]");
        let Some((name, scalar)) = text(item, "name") else {
            findings.error(CATEGORY, item.place, &field, format!("{field}: name is required"));
            continue;
        };
        match names.get(name) {
            None => {
                names.insert(name, firsts.len());
                firsts.push(item);
            }
            Some(first) => {
                let files = [firsts[*first].place, item.place].map(|place| findings.file(place));
                let shown = scalar.written().trim();
                let message = format!("duplicate pipeline name {shown:?} ({})", files.join(", "));
                findings.error(CATEGORY, item.place, &format!("{field}.name"), message);
            }
        }
    }
    names
}

/// The text of a key, trimmed; a blank one counts as absent.
pub(super) fn text<'n>(node: &'n Node, key: &str) -> Option<(&'n str, &'n Scalar)> {
    let scalar = node.get(key)?.scalar()?;
    let text = scalar.text.trim();
    (!text.is_empty()).then_some((text, scalar))
}

struct Reader<'r, 'f, 'n> {
    input: &'r Input<'n>,
    names: &'r HashMap<&'n str, usize>,
    findings: &'r mut Findings<'f>,
    item: &'n Node,
    position: usize,
}

impl<'n> Reader<'_, '_, 'n> {
    fn read(mut self) -> Authored<'n> {
        let item = self.item;
        let name = text(item, "name");
        let field = format!("pipelines[{}]", self.position);
        let shown = name.map_or("", |(_, scalar)| scalar.written().trim());
        let called = if name.is_some() { format!("pipeline {shown:?}") } else { field.clone() };
        let subject = Subject { called, field };
        let (trigger, place) = self.trigger(&subject);
        let from_plugin = self.source_plugin(&subject);
        let gate = item.get("if").and_then(|source| self.gate(&subject, source, place));
        let max_depth = self.max_depth(&subject);
        let timeout = self.timeout(&subject);
        let mode = match text(item, "execution_mode") {
            Some(("synchronous", _)) => ExecutionMode::Synchronous,
            _ => ExecutionMode::Async,
        };
        let steps = steps::read(self.input, self.names, self.findings, &subject, item);
        Authored {
            position: self.position,
            name: name.map_or("", |(name, _)| name).into(),
            shown,
            trigger,
            from_plugin,
            gate,
            max_depth,
            mode,
            timeout,
            steps: steps.list,
            calls: steps.calls,
        }
    }

    fn refuse(&mut self, subject: &Subject, key: &str, message: impl std::fmt::Display) {
        let place = self.item.entries().iter().find(|entry| entry.key.text == key).map(|entry| entry.place);
        let field = if place.is_some() { format!("{}.{key}", subject.field) } else { subject.field.clone() };
        let message = format!("{}: {message}", subject.called);
        self.findings.error(CATEGORY, place.unwrap_or(self.item.place), &field, message);
    }

    fn trigger(&mut self, subject: &Subject) -> (Option<Trigger>, ConditionPlace) {
        let hook_key = if self.item.get("on-hook").is_some() { "on-hook" } else { "on_hook" };
        if hook_key == "on-hook" && self.item.get("on_hook").is_some() {
            self.refuse(subject, "on_hook", "on-hook and on_hook mean the same; write only one of them");
        }
        match (text(self.item, "on"), text(self.item, hook_key)) {
            (Some(_), Some(_)) => {
                self.refuse(subject, hook_key, "on and on-hook are mutually exclusive");
                (None, ConditionPlace::Hook)
            }
            (None, None) => {
                self.refuse(subject, "", "on or on-hook is required");
                (None, ConditionPlace::Trigger)
            }
            (Some((event, scalar)), None) if event.starts_with("ductile.") => {
                let shown = scalar.shown();
                self.refuse(subject, "on", format!("on {shown}: types that begin with ductile. belong to the gateway"));
                (None, ConditionPlace::Trigger)
            }
            (Some((event, _)), None) => (Some(Trigger::Event(event.into())), ConditionPlace::Trigger),
            (None, Some((word, scalar))) => {
                let signal = Signal::parse(word);
                if signal.is_none() {
                    let known = Signal::ALL.map(Signal::as_str).join(", ");
                    let message = format!("on-hook must be one of {known}, not {}", scalar.shown());
                    self.refuse(subject, hook_key, message);
                }
                (signal.map(Trigger::Hook), ConditionPlace::Hook)
            }
        }
    }

    fn source_plugin(&mut self, subject: &Subject) -> Option<Arc<str>> {
        let (name, scalar) = text(self.item, "from_plugin")?;
        if self.input.registry.get(name).is_none() {
            let message = format!("from_plugin references unknown plugin {:?}", scalar.written().trim());
            self.refuse(subject, "from_plugin", message);
        }
        Some(name.into())
    }

    fn gate(&mut self, subject: &Subject, source: &'n Node, place: ConditionPlace) -> Option<Gate<'n>> {
        self.findings.ignored_of_condition(source, &format!("{}.if", subject.field));
        match Condition::parse(source, "if", place) {
            Ok(condition) => Some(Gate { condition, source }),
            Err(faults) => {
                tell(self.findings, subject, &format!("{}.if", subject.field), faults);
                None
            }
        }
    }

    fn max_depth(&mut self, subject: &Subject) -> Option<u32> {
        let scalar = self.item.get("max_depth")?.scalar()?;
        let depth = match scalar.core() {
            Core::Number(number) => number.as_i64().and_then(|depth| u32::try_from(depth).ok()),
            _ => None,
        };
        if depth.is_none() {
            self.refuse(subject, "max_depth", "max_depth must be >= 0 (0 means unlimited)");
        }
        depth
    }

    fn timeout(&mut self, subject: &Subject) -> Duration {
        let written = text(self.item, "timeout").and_then(|(text, _)| parse_duration(text).ok());
        if written.is_some_and(|timeout| timeout.is_zero()) {
            self.refuse(subject, "timeout", "timeout must be greater than 0");
        }
        written.unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// Passes on what was found in a part of a pipeline.
pub(super) fn tell(findings: &mut Findings<'_>, subject: &Subject, field: &str, faults: Vec<Fault>) {
    for fault in faults {
        findings.error(CATEGORY, fault.place, field, format!("{}: {}", subject.called, fault.message));
    }
}

//! Reading the steps of a pipeline.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Input;
use super::claims::Claims;
use super::compiled::DEFAULT_COMMAND;
use super::condition::{Condition, ConditionPlace};
use super::dsl::{CATEGORY, CallSite, Gate, NOT_ENABLED, Subject, tell, text};
use super::fault::Fault;
use super::findings::Findings;
use super::template::Template;
use crate::yaml::{Data, Entry, Node, Place};

/// A step as it was written, with the id of its node.
pub(super) struct Step<'n> {
    /// A group without a condition needs none.
    pub(super) id: Option<Arc<str>>,
    pub(super) gate: Option<Gate<'n>>,
    pub(super) kind: StepKind<'n>,
}

/// The mode of a step.
pub(super) enum StepKind<'n> {
    Uses(Box<UsesStep<'n>>),
    /// Index into the authored pipelines.
    Call(usize),
    Relay(&'n Node),
    Group(Order, Vec<Step<'n>>),
}

/// A plugin to run.
pub(super) struct UsesStep<'n> {
    pub(super) plugin: Arc<str>,
    pub(super) command: Arc<str>,
    pub(super) with: Vec<(Box<str>, Template)>,
    pub(super) with_source: Option<&'n Node>,
    pub(super) claims: Claims,
    pub(super) claims_source: Option<&'n Node>,
}

/// How the steps of a group follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    InTurn,
    SideBySide,
}

/// The keys that say what a step does, of which it has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Uses,
    Call,
    Relay,
    Steps,
    Split,
}

impl Mode {
    const ALL: [Self; 5] = [Self::Uses, Self::Call, Self::Relay, Self::Steps, Self::Split];

    fn key(self) -> &'static str {
        match self {
            Self::Uses => "uses",
            Self::Call => "call",
            Self::Relay => "relay",
            Self::Steps => "steps",
            Self::Split => "split",
        }
    }

    fn is_group(self) -> bool {
        matches!(self, Self::Steps | Self::Split)
    }

    fn is_written(self, step: &Node) -> bool {
        match self {
            Self::Uses | Self::Call => text(step, self.key()).is_some(),
            Self::Relay | Self::Steps | Self::Split => step.get(self.key()).is_some(),
        }
    }

    /// All modes that a step has.
    fn of(step: &Node) -> Vec<Self> {
        Self::ALL.into_iter().filter(|mode| mode.is_written(step)).collect()
    }
}

/// The steps of a pipeline and whom they call.
pub(super) struct Steps<'n> {
    pub(super) list: Vec<Step<'n>>,
    pub(super) calls: Vec<CallSite>,
}

/// Reads all steps of a pipeline.
pub(super) fn read<'n>(
    input: &Input<'n>,
    names: &HashMap<&'n str, usize>,
    findings: &mut Findings<'_>,
    subject: &Subject,
    pipeline: &'n Node,
) -> Steps<'n> {
    let mut reader = Reader { input, names, findings, subject, taken: HashSet::new(), unnamed: 0, calls: Vec::new() };
    let items = pipeline.get("steps").map(Node::items).unwrap_or_default();
    if items.is_empty() {
        let entry = pipeline.entries().iter().find(|entry| entry.key.text == "steps");
        let place = entry.map_or(pipeline.place, |entry| entry.place);
        reader.refuse(place, &subject.field, "steps is required and must not be empty");
    }
    reader.collect_ids(items, &format!("{}.steps", subject.field));
    let list = reader.list(items, &format!("{}.steps", subject.field));
    Steps { list, calls: reader.calls }
}

struct Reader<'r, 'f, 'n> {
    input: &'r Input<'n>,
    names: &'r HashMap<&'n str, usize>,
    findings: &'r mut Findings<'f>,
    subject: &'r Subject,
    /// Ids of nodes, those of switches included.
    taken: HashSet<String>,
    /// Steps that got a number instead of a name.
    unnamed: usize,
    calls: Vec<CallSite>,
}

impl<'n> Reader<'_, '_, 'n> {
    fn refuse(&mut self, place: Place, field: &str, message: impl std::fmt::Display) {
        self.findings.error(CATEGORY, place, field, format!("{}: {message}", self.subject.called));
    }

    /// About a step by its name instead of its place.
    fn refuse_step(&mut self, place: Place, field: &str, step: &str, message: impl std::fmt::Display) {
        self.findings.error(CATEGORY, place, field, format!("{} step {step:?}{message}", self.subject.called));
    }

    /// Written names come first: numbers pass over them wherever they stand.
    fn collect_ids(&mut self, items: &[Node], at: &str) {
        let mut found = Vec::new();
        gather_ids(items, at, &mut found);
        let mut switches = Vec::new();
        for (step, id, field) in found {
            let shown = step.get("id").and_then(Node::scalar).map_or(id, |scalar| scalar.written().trim());
            if !self.taken.insert(id.to_owned()) {
                self.refuse(place_of(step, "id"), &field, format_args!("duplicate step id {shown:?}"));
            } else if step.get("if").is_some() {
                switches.push((step, switch_id(id), switch_id(shown), field));
            }
        }
        for (step, id, shown, field) in switches {
            if !self.taken.insert(id) {
                self.refuse(place_of(step, "id"), &field, format_args!("duplicate step id {shown:?}"));
            }
        }
    }

    fn list(&mut self, items: &'n [Node], at: &str) -> Vec<Step<'n>> {
        items.iter().enumerate().filter_map(|(index, step)| self.step(step, &format!("{at}[{index}]"))).collect()
    }

    fn step(&mut self, step: &'n Node, field: &str) -> Option<Step<'n>> {
        let modes = Mode::of(step);
        let gate = step.get("if").and_then(|source| self.gate(source, field, modes.contains(&Mode::Uses)));
        let [mode] = modes.as_slice() else {
            self.refuse(step.place, field, "step must define exactly one of uses, call, relay, steps, or split");
            return None;
        };
        let id = self.id(step, *mode);
        self.only_on_uses(step, field, *mode);
        let kind = match mode {
            Mode::Uses => self.uses(step, field, id.as_deref().unwrap_or_default()),
            Mode::Call => self.call(step, field),
            Mode::Relay => step.get("relay").map(|definition| {
                let message = format!(
                    "{}: relay steps are checked, but this version does nothing with them yet",
                    self.subject.called
                );
                self.findings.warn("relay", step.place, field, message);
                StepKind::Relay(definition)
            }),
            Mode::Steps => self.group(step, field, *mode, Order::InTurn),
            Mode::Split => self.group(step, field, *mode, Order::SideBySide),
        };
        Some(Step { id, gate, kind: kind? })
    }

    fn gate(&mut self, source: &'n Node, field: &str, uses: bool) -> Option<Gate<'n>> {
        self.findings.ignored_of_condition(source, &format!("{field}.if"));
        match Condition::parse(source, "if", ConditionPlace::Step { uses }) {
            Ok(condition) => Some(Gate { condition, source }),
            Err(faults) => {
                tell(self.findings, self.subject, field, faults);
                None
            }
        }
    }

    /// The written id, else the next free number.
    fn id(&mut self, step: &Node, mode: Mode) -> Option<Arc<str>> {
        if let Some((id, _)) = text(step, "id") {
            return Some(id.into());
        }
        let gated = step.get("if").is_some();
        if mode.is_group() && !gated {
            return None;
        }
        loop {
            self.unnamed += 1;
            let id = format!("step_{}", self.unnamed);
            if self.taken.contains(&id) || (gated && self.taken.contains(&switch_id(&id))) {
                continue;
            }
            if gated {
                self.taken.insert(switch_id(&id));
            }
            self.taken.insert(id.clone());
            return Some(id.into());
        }
    }

    fn only_on_uses(&mut self, step: &Node, field: &str, mode: Mode) {
        if mode == Mode::Uses {
            return;
        }
        for key in ["command", "with", "baggage"] {
            if step.get(key).is_some() {
                let message = format!("{key} is only supported on uses steps");
                self.refuse(place_of(step, key), field, message);
            }
        }
    }

    fn uses(&mut self, step: &'n Node, field: &str, id: &str) -> Option<StepKind<'n>> {
        let with_source = step.get("with");
        let claims_source = step.get("baggage");
        let found = self.plugin(step, field, id);
        let with = with_source.map(|source| self.with(source, field)).unwrap_or_default();
        let claims = claims_source.map(|source| Claims::parse(source, "baggage"));
        let claims = match claims.transpose() {
            Ok(claims) => claims.unwrap_or_default(),
            Err(faults) => {
                tell(self.findings, self.subject, field, faults);
                return None;
            }
        };
        let (plugin, command) = found?;
        Some(StepKind::Uses(Box::new(UsesStep { plugin, command, with, with_source, claims, claims_source })))
    }

    /// Which plugin and which of its commands a step means.
    fn plugin(&mut self, step: &Node, field: &str, id: &str) -> Option<(Arc<str>, Arc<str>)> {
        let (wanted, scalar) = text(step, "uses")?;
        let shown_id = text(step, "id").map_or(id, |(_, scalar)| scalar.written().trim());
        let shown = scalar.written().trim();
        let place = place_of(step, "uses");
        if wanted.starts_with("core.") {
            let message = format!(" uses {shown:?}: core.* belongs to the gateway and can not be used");
            self.refuse_step(place, field, shown_id, message);
            return None;
        }
        let written = text(step, "command");
        let registry = self.input.registry;
        let (plugin, command) = match (registry.get(wanted), wanted.rsplit_once('.')) {
            (Some(plugin), _) => (plugin, written.map_or(DEFAULT_COMMAND, |(command, _)| command)),
            (None, Some((name, command)))
                if registry.get(name).is_some_and(|p| p.manifest.command(command).is_some()) =>
            {
                if written.is_some() {
                    let message = format!(": uses {shown:?} already names the command; remove command");
                    self.refuse_step(place_of(step, "command"), field, shown_id, message);
                    return None;
                }
                (registry.get(name)?, command)
            }
            (None, _) => {
                self.refuse_step(place, field, shown_id, format_args!(" references unknown plugin {shown:?}"));
                return None;
            }
        };
        if plugin.manifest.command(command).is_none() {
            let command = written.map_or(command, |(_, scalar)| scalar.written().trim());
            let message = format!(": plugin {shown:?} does not support command {command:?}");
            self.refuse_step(place, field, shown_id, message);
            return None;
        }
        if !self.input.plugins.get(&plugin.name).is_some_and(|config| config.enabled) {
            let message = format!("{} step {shown_id:?} uses plugin {shown:?}, {NOT_ENABLED}", self.subject.called);
            self.findings.warn(CATEGORY, place, field, message);
        }
        Some((plugin.name.as_str().into(), command.into()))
    }

    fn with(&mut self, source: &Node, field: &str) -> Vec<(Box<str>, Template)> {
        let Data::Map(entries) = &source.data else {
            self.refuse(source.place, field, "with must be a mapping of keys to templates");
            return Vec::new();
        };
        entries.iter().filter_map(|entry| self.template(entry, field)).collect()
    }

    fn template(&mut self, entry: &Entry, field: &str) -> Option<(Box<str>, Template)> {
        let parsed = match entry.value.scalar() {
            Some(scalar) => Template::of(scalar),
            None => Err("must be a single value".to_owned()),
        };
        match parsed {
            Ok(template) => Some((entry.key.text.as_str().into(), template)),
            Err(message) => {
                let message = format!("with.{}: {message}", entry.key.written());
                tell(self.findings, self.subject, field, vec![Fault { place: entry.place, message }]);
                None
            }
        }
    }

    fn call(&mut self, step: &Node, field: &str) -> Option<StepKind<'n>> {
        let (name, scalar) = text(step, "call")?;
        let place = place_of(step, "call");
        let Some(target) = self.names.get(name).copied() else {
            let message = format!("{} references unknown pipeline {:?}", self.subject.called, scalar.written().trim());
            self.findings.error(CATEGORY, place, field, message);
            return None;
        };
        self.calls.push(CallSite { target, place, field: field.to_owned() });
        Some(StepKind::Call(target))
    }

    fn group(&mut self, step: &'n Node, field: &str, mode: Mode, order: Order) -> Option<StepKind<'n>> {
        let key = mode.key();
        let items = step.get(key).map(Node::items).unwrap_or_default();
        if items.is_empty() {
            self.refuse(place_of(step, key), field, format_args!("{key} must not be empty"));
            return None;
        }
        Some(StepKind::Group(order, self.list(items, &format!("{field}.{key}"))))
    }
}

/// Id of the switch before a step.
pub(super) fn switch_id(step: &str) -> String {
    format!("{step}__switch")
}

/// Where a key of a step stands.
fn place_of(step: &Node, key: &str) -> Place {
    step.entries().iter().find(|entry| entry.key.text == key).map_or(step.place, |entry| entry.place)
}

/// Steps with a written id, in reading order.
fn gather_ids<'n>(items: &'n [Node], at: &str, found: &mut Vec<(&'n Node, &'n str, String)>) {
    for (index, step) in items.iter().enumerate() {
        let field = format!("{at}[{index}]");
        if let Some((id, _)) = text(step, "id") {
            found.push((step, id, field.clone()));
        }
        for key in ["steps", "split"] {
            if let Some(nested) = step.get(key) {
                gather_ids(nested.items(), &format!("{field}.{key}"), found);
            }
        }
    }
}

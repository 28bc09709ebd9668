//! From definitions to tables.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Input;
use super::compiled::{Entry, ExecutionMode, Node, NodeKind, Pipeline, PipelineIx, Pipelines, Signal, Trigger};
use super::dsl::{Authored, CATEGORY};
use super::findings::Findings;
use super::fingerprint::{self, Form};
use super::graph::{circle, walk};
use super::legacy::LegacyRoutes;
use super::shape::{Shape, shape};
use crate::redact::Redactor;

/// Reports calls that lead back, and gives an order in which a pipeline comes after those that it calls.
pub(super) fn check_calls(authored: &[Authored<'_>], findings: &mut Findings<'_>) -> Vec<usize> {
    let calls: Vec<Vec<usize>> = authored
        .iter()
        .map(|pipeline| {
            let mut targets: Vec<_> = pipeline.calls.iter().map(|call| call.target).collect();
            targets.sort_unstable();
            targets.dedup();
            targets
        })
        .collect();
    let found = walk(&calls);
    for cycle in &found.cycles {
        let shown = circle(cycle, |index| authored[index].shown);
        let next = cycle.get(1).or(cycle.first());
        let site = authored[cycle[0]].calls.iter().find(|call| Some(&call.target) == next);
        let (place, field) = site.map_or_else(Default::default, |site| (site.place, site.field.clone()));
        findings.error(CATEGORY, place, &field, format!("pipeline call cycle detected: {shown}"));
    }
    found.finished
}

/// Makes the tables of definitions that are right. `order` has a pipeline after those that it calls, `jobs`
/// is what each one begins with.
pub(super) fn build(
    input: &Input<'_>,
    authored: Vec<Authored<'_>>,
    order: &[usize],
    jobs: &[usize],
    legacy: LegacyRoutes,
) -> Pipelines {
    let indexes = by_name(&authored);
    let index = |position: usize| indexes[position];
    let mut definitions = definitions(input);
    let mut drafts: Vec<Option<Draft>> = Vec::new();
    drafts.resize_with(authored.len(), || None);
    let mut sources: Vec<_> = authored.into_iter().map(Some).collect();
    let mut bodies = vec![Body::default(); drafts.len()];
    for position in order {
        let Some(source) = sources[*position].take() else { continue };
        let place = index(*position);
        let definition = definitions.get_mut(source.position).map(Value::take).unwrap_or_default();
        let (draft, body) = draft(source, definition, jobs[*position], &index, &bodies);
        bodies[place.get()] = body;
        drafts[place.get()] = Some(draft);
    }
    let list = drafts.into_iter().flatten().enumerate().map(|(place, draft)| draft.finish(place)).collect();
    tables(list, legacy)
}

/// Where each of the definitions stands in the table.
fn by_name(authored: &[Authored<'_>]) -> Vec<PipelineIx> {
    let mut sorted: Vec<usize> = (0..authored.len()).collect();
    sorted.sort_by(|a, b| authored[*a].name.cmp(&authored[*b].name));
    let mut indexes = vec![PipelineIx::new(0); authored.len()];
    for (place, position) in sorted.into_iter().enumerate() {
        indexes[position] = PipelineIx::new(place);
    }
    indexes
}

/// What a caller has to know of a pipeline.
#[derive(Clone, Default)]
pub(super) struct Body {
    /// Nodes of its longest path.
    pub(super) depth: u32,
    /// Over everything that happens in it.
    pub(super) hash: String,
}

/// A pipeline that does not know its place yet.
struct Draft {
    name: Arc<str>,
    trigger: Trigger,
    from_plugin: Option<Arc<str>>,
    condition: Option<super::Condition>,
    mode: ExecutionMode,
    timeout: std::time::Duration,
    max_depth: u32,
    fingerprint: String,
    entry_count: usize,
    shape: Shape,
    definition: Value,
}

fn draft(
    source: Authored<'_>,
    definition: Value,
    entry_count: usize,
    index: &dyn Fn(usize) -> PipelineIx,
    bodies: &[Body],
) -> (Draft, Body) {
    let Authored { name, trigger, from_plugin, gate, max_depth, mode, timeout, steps, .. } = source;
    let shape = shape(steps, index);
    let depth = depth(&shape, bodies);
    let body = Body { depth, hash: fingerprint::body(&name, &shape, bodies) };
    // Definitions without a trigger were refused.
    let trigger = trigger.unwrap_or(Trigger::Hook(Signal::Finished));
    let max_depth = max_depth.unwrap_or(depth);
    let fingerprint = Form::new("pipeline")
        .text(&body.hash)
        .text(if matches!(trigger, Trigger::Hook(_)) { "hook" } else { "event" })
        .text(trigger.event_type())
        .maybe(from_plugin.as_deref())
        .condition(gate.as_ref().map(|gate| gate.source))
        .text(mode.as_str())
        .text(&timeout.as_nanos().to_string())
        .text(&max_depth.to_string())
        .finish();
    let fingerprint = format!("blake3:{fingerprint}");
    let condition = gate.map(|gate| gate.condition);
    let definition = in_order(definition);
    let draft = Draft {
        name,
        trigger,
        from_plugin,
        condition,
        mode,
        timeout,
        max_depth,
        fingerprint,
        entry_count,
        shape,
        definition,
    };
    (draft, body)
}

impl Draft {
    fn finish(self, place: usize) -> Pipeline {
        let by_id = self.shape.nodes.iter().map(|node| (Arc::clone(&node.id), node.index)).collect();
        Pipeline {
            name: self.name,
            index: PipelineIx::new(place),
            trigger: self.trigger,
            from_plugin: self.from_plugin,
            condition: self.condition,
            mode: self.mode,
            timeout: self.timeout,
            max_depth: self.max_depth,
            fingerprint: self.fingerprint,
            entry_count: self.entry_count,
            nodes: self.shape.nodes,
            by_id,
            entries: self.shape.entries,
            definition: self.definition,
        }
    }
}

/// Longest path, where a call counts what it calls.
fn depth(shape: &Shape, bodies: &[Body]) -> u32 {
    let mut below = vec![0_u32; shape.nodes.len()];
    // Edges lead to higher indexes, so the last node comes first.
    for node in shape.nodes.iter().rev() {
        let own = match &node.kind {
            NodeKind::Call(target) => bodies[target.get()].depth,
            NodeKind::Uses(_) | NodeKind::Relay(_) | NodeKind::Switch(_) => 1,
        };
        let next = node.edges.iter().map(|edge| below[edge.to.get()]).max().unwrap_or(0);
        below[node.index.get()] = own.saturating_add(next);
    }
    shape.entries.iter().map(|entry| below[entry.get()]).max().unwrap_or(0)
}

/// Definitions by their place in the list, with defaults and without secrets.
fn definitions(input: &Input<'_>) -> Vec<Value> {
    let Some(written) = input.effective.get("pipelines") else { return Vec::new() };
    match Redactor::new(input.known.iter().cloned()).section("pipelines", written, input.taint) {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Keys in the order in which people write them.
fn in_order(definition: Value) -> Value {
    const KEYS: [&str; 17] = [
        "name",
        "on",
        "on-hook",
        "from_plugin",
        "max_depth",
        "execution_mode",
        "timeout",
        "id",
        "uses",
        "command",
        "call",
        "relay",
        "if",
        "with",
        "baggage",
        "steps",
        "split",
    ];
    let Value::Object(mut entries) = definition else { return definition };
    if let Some(signal) = entries.remove("on_hook") {
        entries.insert("on-hook".to_owned(), signal);
    }
    let mut ordered = Map::with_capacity(entries.len());
    for key in KEYS {
        let Some(value) = entries.remove(key) else { continue };
        let value = match value {
            Value::Array(steps) if matches!(key, "steps" | "split") => steps.into_iter().map(in_order).collect(),
            other => other,
        };
        ordered.insert(key.to_owned(), value);
    }
    ordered.append(&mut entries);
    Value::Object(ordered)
}

fn tables(list: Vec<Pipeline>, legacy: LegacyRoutes) -> Pipelines {
    let mut pipelines = Pipelines { legacy, ..Pipelines::default() };
    for pipeline in &list {
        pipelines.by_name.insert(Arc::clone(&pipeline.name), pipeline.index);
        let entries = pipeline.entries.iter().map(|node| Entry { pipeline: pipeline.index, node: *node });
        match &pipeline.trigger {
            Trigger::Event(event) => pipelines.by_event.entry(Arc::clone(event)).or_default().extend(entries),
            Trigger::Hook(signal) => pipelines.by_signal.entry(*signal).or_default().extend(entries),
        }
    }
    let node = |entry: &Entry| -> &Node { list[entry.pipeline.get()].node_at(entry.node) };
    // The list is sorted by name, so its indexes are in the order of the names.
    let by_route = |entries: &mut Vec<Entry>| {
        entries.sort_by(|a, b| (&node(a).id, a.pipeline.get()).cmp(&(&node(b).id, b.pipeline.get())));
    };
    pipelines.by_event.values_mut().for_each(by_route);
    pipelines.by_signal.values_mut().for_each(by_route);
    pipelines.list = list;
    pipelines
}

//! The nodes and edges of one pipeline.

use std::sync::Arc;

use super::claims::Claims;
use super::compiled::{Edge, Exit, Node, NodeIx, NodeKind, PipelineIx, Relay, Switch, Uses};
use super::dsl::Gate;
use super::fingerprint::Form;
use super::steps::{Order, Step, StepKind, UsesStep, switch_id};
use crate::load::json as as_json;

/// The graph of one pipeline.
pub(super) struct Shape {
    /// In reading order: edges lead from lower to higher indexes.
    pub(super) nodes: Vec<Node>,
    /// By route id.
    pub(super) entries: Vec<NodeIx>,
    /// Hashes over what each node does, as far as that was written, whatever its spelling.
    pub(super) said: Vec<String>,
}

/// A part of the graph with open ends.
struct Part {
    entries: Vec<NodeIx>,
    exits: Vec<(NodeIx, Exit)>,
}

/// Makes the graph of a list of steps. `index` gives a called pipeline its place in the table.
pub(super) fn shape(steps: Vec<Step<'_>>, index: &dyn Fn(usize) -> PipelineIx) -> Shape {
    let mut builder = Builder { nodes: Vec::new(), said: Vec::new(), index };
    let part = builder.in_turn(steps);
    let Builder { mut nodes, said, .. } = builder;
    for (node, exit) in part.exits {
        nodes[node.get()].terminals.push(exit);
    }
    let ids: Vec<Arc<str>> = nodes.iter().map(|node| Arc::clone(&node.id)).collect();
    for node in &mut nodes {
        node.edges.sort_by(|a, b| (&ids[a.to.get()], a.on).cmp(&(&ids[b.to.get()], b.on)));
        node.terminals.sort();
    }
    let mut entries = part.entries;
    entries.sort_by(|a, b| ids[a.get()].cmp(&ids[b.get()]));
    Shape { nodes, entries, said }
}

struct Builder<'b> {
    nodes: Vec<Node>,
    said: Vec<String>,
    index: &'b dyn Fn(usize) -> PipelineIx,
}

impl Builder<'_> {
    fn in_turn(&mut self, steps: Vec<Step<'_>>) -> Part {
        let mut whole: Option<Part> = None;
        for step in steps {
            let next = self.step(step);
            whole = Some(match whole {
                None => next,
                Some(before) => {
                    self.join(&before.exits, &next.entries);
                    Part { entries: before.entries, exits: next.exits }
                }
            });
        }
        whole.unwrap_or(Part { entries: Vec::new(), exits: Vec::new() })
    }

    fn side_by_side(&mut self, steps: Vec<Step<'_>>) -> Part {
        let mut whole = Part { entries: Vec::new(), exits: Vec::new() };
        for step in steps {
            let branch = self.step(step);
            whole.entries.extend(branch.entries);
            whole.exits.extend(branch.exits);
        }
        whole
    }

    fn join(&mut self, exits: &[(NodeIx, Exit)], entries: &[NodeIx]) {
        for (from, on) in exits {
            self.nodes[from.get()].edges.extend(entries.iter().map(|to| Edge { to: *to, on: *on }));
        }
    }

    fn step(&mut self, step: Step<'_>) -> Part {
        let Step { id, gate, kind } = step;
        let Some(gate) = gate else { return self.bare(id, kind) };
        let switch = self.switch(&switch_id(id.as_deref().unwrap_or_default()), gate, &kind);
        let mut part = self.bare(id, kind);
        self.join(&[(switch, Exit::True)], &part.entries);
        part.exits.push((switch, Exit::False));
        Part { entries: vec![switch], exits: part.exits }
    }

    fn switch(&mut self, id: &str, gate: Gate<'_>, kind: &StepKind<'_>) -> NodeIx {
        let plugin = match kind {
            StepKind::Uses(uses) => Some(&uses.plugin),
            StepKind::Call(_) | StepKind::Relay(_) | StepKind::Group(..) => None,
        };
        let said = Form::new("switch").condition(Some(gate.source)).maybe(plugin.map(|plugin| &**plugin)).finish();
        // A configuration that nobody reads is not handed over: it would be parsed for every event.
        let config_of = plugin.filter(|_| gate.condition.reads_config()).cloned();
        self.add(id.into(), NodeKind::Switch(Switch { condition: gate.condition, config_of }), Claims::default(), said)
    }

    /// A step without its condition.
    fn bare(&mut self, id: Option<Arc<str>>, kind: StepKind<'_>) -> Part {
        let id = id.unwrap_or_default();
        let node = match kind {
            StepKind::Group(Order::InTurn, steps) => return self.in_turn(steps),
            StepKind::Group(Order::SideBySide, steps) => return self.side_by_side(steps),
            StepKind::Uses(uses) => self.uses(id, *uses),
            StepKind::Call(target) => {
                let kind = NodeKind::Call((self.index)(target));
                self.add(id, kind, Claims::default(), String::new())
            }
            StepKind::Relay(source) => {
                let definition = as_json(source);
                let said = Form::new("relay").with(source).finish();
                self.add(id, NodeKind::Relay(Relay { definition }), Claims::default(), said)
            }
        };
        Part { entries: vec![node], exits: vec![(node, Exit::Any)] }
    }

    fn uses(&mut self, id: Arc<str>, step: UsesStep<'_>) -> NodeIx {
        let said = Form::new("uses").texts(step.with_source).texts(step.claims_source).finish();
        let uses = Uses { plugin: step.plugin, command: step.command, with: step.with };
        self.add(id, NodeKind::Uses(uses), step.claims, said)
    }

    fn add(&mut self, id: Arc<str>, kind: NodeKind, claims: Claims, said: String) -> NodeIx {
        let index = NodeIx::new(self.nodes.len());
        self.nodes.push(Node { id, index, kind, claims, edges: Vec::new(), terminals: Vec::new() });
        self.said.push(said);
        index
    }
}

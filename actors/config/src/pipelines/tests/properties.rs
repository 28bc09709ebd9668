//! Rules that hold for every tree of steps.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::World;
use crate::pipelines::{Exit, NodeKind, Pipeline};

/// A step, before it is written down.
#[derive(Debug, Clone)]
enum Tree {
    Uses { plugin: usize, text: u8 },
    Call,
    Relay,
    Group { split: bool, steps: Vec<Gated> },
}

#[derive(Debug, Clone)]
struct Gated {
    tree: Tree,
    gate: Option<u8>,
    id: bool,
}

const PLUGINS: [&str; 3] = ["a", "b", "c"];

fn steps() -> impl Strategy<Value = Vec<Gated>> {
    let leaf = prop_oneof![
        6 => (0..PLUGINS.len(), any::<u8>()).prop_map(|(plugin, text)| Tree::Uses { plugin, text }),
        1 => Just(Tree::Call),
        1 => Just(Tree::Relay),
    ];
    let gated = |tree: BoxedStrategy<Tree>| {
        let parts = (tree, proptest::option::weighted(0.4, any::<u8>()), any::<bool>());
        parts.prop_map(|(tree, gate, id)| Gated { tree, gate, id }).boxed()
    };
    let step = gated(leaf.boxed()).prop_recursive(4, 24, 4, move |inner| {
        let group = (any::<bool>(), prop::collection::vec(inner, 1..4));
        gated(group.prop_map(|(split, steps)| Tree::Group { split, steps }).boxed())
    });
    prop::collection::vec(step, 1..5)
}

/// Writes steps down, with keys in one order or the other.
struct Writer {
    reverse: bool,
    ids: usize,
}

impl Writer {
    fn object(&self, mut entries: Vec<(&str, Value)>) -> Value {
        if self.reverse {
            entries.reverse();
        }
        Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
    }

    fn steps(&mut self, steps: &[Gated]) -> Value {
        steps.iter().map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: &Gated) -> Value {
        let mut entries = Vec::new();
        if step.id {
            self.ids += 1;
            entries.push(("id", json!(format!("named{}", self.ids))));
        }
        match &step.tree {
            Tree::Uses { plugin, text } => {
                entries.push(("uses", json!(PLUGINS[*plugin])));
                let with = vec![("k", json!(text.to_string())), ("l", json!("x"))];
                entries.push(("with", self.object(with)));
            }
            Tree::Call => entries.push(("call", json!("inner"))),
            Tree::Relay => entries.push(("relay", json!({"to": "r"}))),
            Tree::Group { split, steps } => {
                let nested = self.steps(steps);
                entries.push((if *split { "split" } else { "steps" }, nested));
            }
        }
        if let Some(value) = step.gate {
            let atom = vec![("path", json!("payload.x")), ("op", json!("eq")), ("value", json!(value))];
            entries.push(("if", self.object(atom)));
        }
        self.object(entries)
    }

    fn file(&mut self, steps: &[Gated]) -> Vec<Value> {
        let written = self.steps(steps);
        let outer = vec![("name", json!("outer")), ("on", json!("x")), ("steps", written)];
        let inner =
            vec![("name", json!("inner")), ("on", json!("y")), ("steps", json!([{"uses": "a"}, {"uses": "b"}]))];
        vec![self.object(outer), self.object(inner)]
    }
}

fn world() -> World {
    World::new(&PLUGINS)
}

fn fingerprint(pipelines: &[Value]) -> String {
    let text = json!({ "pipelines": pipelines }).to_string();
    world().pipelines(&text).get("outer").unwrap().fingerprint.clone()
}

fn plain(steps: &[Gated]) -> Vec<Value> {
    Writer { reverse: false, ids: 0 }.file(steps)
}

fn reachable(pipeline: &Pipeline) -> HashSet<String> {
    let mut open = pipeline.entries().to_vec();
    let mut seen = HashSet::new();
    while let Some(index) = open.pop() {
        let node = pipeline.node_at(index);
        if seen.insert(node.id.to_string()) {
            open.extend(node.edges.iter().map(|edge| edge.to));
        }
    }
    seen
}

/// Takes away nodes to which nothing leads any more; what is left is on a cycle.
fn left_on_cycles(pipeline: &Pipeline) -> usize {
    let mut incoming = vec![0; pipeline.nodes().len()];
    let place = |index| pipeline.nodes().iter().position(|node| node.index == index).unwrap();
    for edge in pipeline.nodes().iter().flat_map(|node| &node.edges) {
        incoming[place(edge.to)] += 1;
    }
    let mut free: Vec<_> = (0..incoming.len()).filter(|node| incoming[*node] == 0).collect();
    let mut taken = 0;
    while let Some(node) = free.pop() {
        taken += 1;
        for edge in &pipeline.nodes()[node].edges {
            let to = place(edge.to);
            incoming[to] -= 1;
            if incoming[to] == 0 {
                free.push(to);
            }
        }
    }
    incoming.len() - taken
}

proptest! {
    #[test]
    fn graphs_have_no_cycle_no_lost_node_and_no_dead_exit(steps in steps()) {
        let all = world().pipelines(&json!({ "pipelines": plain(&steps) }).to_string());
        let pipeline = all.get("outer").unwrap();
        prop_assert_eq!(left_on_cycles(pipeline), 0);
        prop_assert_eq!(reachable(pipeline).len(), pipeline.nodes().len());
        for node in pipeline.nodes() {
            let exits: &[Exit] = match node.kind {
                NodeKind::Switch(_) => &[Exit::True, Exit::False],
                _ => &[Exit::Any],
            };
            for exit in exits {
                let followed = node.edges.iter().any(|edge| edge.on == *exit);
                prop_assert!(followed != node.terminals.contains(exit), "{} is left by {:?}", node.id, exit);
            }
            prop_assert!(node.edges.iter().all(|edge| exits.contains(&edge.on)));
            prop_assert!(node.terminals.iter().all(|exit| exits.contains(exit)));
            prop_assert_eq!(pipeline.node(&node.id).unwrap().index, node.index);
        }
        let routes = pipeline.routes(&all);
        let distinct: HashSet<_> = routes.iter().map(|route| &route.id).collect();
        prop_assert_eq!(distinct.len(), routes.len());
        prop_assert!(routes.is_sorted_by_key(|route| route.id.clone()));
    }

    #[test]
    fn fingerprints_do_not_depend_on_the_order_of_keys_and_pipelines_or_on_layout(steps in steps()) {
        let one = plain(&steps);
        let mut other = Writer { reverse: true, ids: 0 }.file(&steps);
        other.reverse();
        other.insert(0, json!({"name": "unrelated", "on": "z", "steps": [{"uses": "c"}]}));
        let first = fingerprint(&one);
        prop_assert_eq!(&first, &fingerprint(&other));
        let text = format!("{:#}", json!({ "pipelines": one }));
        let pretty = world().pipelines(&text).get("outer").unwrap().fingerprint.clone();
        prop_assert_eq!(first, pretty);
    }

    #[test]
    fn fingerprints_differ_when_behaviour_differs(steps in steps(), change in 0_usize..8) {
        let before = plain(&steps);
        let mut after = before.clone();
        match change {
            0 => after[0]["on"] = json!("other"),
            1 => after[0]["max_depth"] = json!(1_000_000),
            2 => after[0]["from_plugin"] = json!("a"),
            3 => after[0]["if"] = json!({"path": "payload.x", "op": "exists"}),
            4 => after[0]["timeout"] = json!("31s"),
            5 => after[0]["execution_mode"] = json!("synchronous"),
            6 => after[0]["steps"].as_array_mut().unwrap().push(json!({"id": "more", "uses": "a"})),
            _ => after[0]["steps"].as_array_mut().unwrap().insert(0, json!({"id": "more", "uses": "a"})),
        }
        prop_assert_ne!(fingerprint(&before), fingerprint(&after));
    }
}

#[test]
fn fingerprints_see_what_behaves_alike_and_what_does_not() {
    let of = |steps: &str| {
        let text = format!(
            "pipelines:\n  - {{name: outer, on: x, steps: [{steps}]}}\n  - {{name: inner, on: y, steps: [{{uses: a}}]}}\n"
        );
        world().pipelines(&text).get("outer").unwrap().fingerprint.clone()
    };
    let gate = |value: &str| format!("{{uses: a, if: {{path: payload.x, op: eq, value: {value}}}}}");
    for (one, same) in [
        ("{uses: a}".to_owned(), "{id: step_1, uses: a.handle}".to_owned()),
        ("{uses: a}".to_owned(), "{steps: [{uses: a, command: handle}]}".to_owned()),
        ("{uses: a, with: {k: 30}}".to_owned(), "{uses: a, with: {k: '30'}}".to_owned()),
        (gate("30"), gate("30.0")),
        (
            "{split: [{id: m, uses: a}, {id: n, uses: b}]}".to_owned(),
            "{split: [{id: n, uses: b}, {id: m, uses: a}]}".to_owned(),
        ),
    ] {
        assert_eq!(of(&one), of(&same), "{one} and {same}");
    }
    for (one, other) in [
        ("{uses: a}".to_owned(), "{uses: b}".to_owned()),
        ("{uses: a}".to_owned(), "{uses: a, command: poll}".to_owned()),
        ("{uses: a}".to_owned(), "{id: s, uses: a}".to_owned()),
        ("{uses: a}, {uses: b}".to_owned(), "{split: [{uses: a}, {uses: b}]}".to_owned()),
        ("{uses: a, with: {k: x}}".to_owned(), "{uses: a, with: {k: y}}".to_owned()),
        ("{uses: a, baggage: {k: payload.x}}".to_owned(), "{uses: a, baggage: {k: payload.y}}".to_owned()),
        ("{relay: {to: r}}".to_owned(), "{relay: {to: s}}".to_owned()),
        (gate("30"), gate("'30'")),
        (gate("30"), gate("31")),
        (gate("3e1"), gate("'3e1'")),
        (gate("[a, b]"), gate("[b, a]")),
    ] {
        assert_ne!(of(&one), of(&other), "{one} and {other}");
    }
}

#[test]
fn a_caller_changes_with_what_it_calls_but_not_with_who_else_starts_that() {
    let of = |inner: &str| {
        let text =
            format!("pipelines:\n  - {{name: outer, on: x, steps: [{{call: inner}}]}}\n  - {{name: inner, {inner}}}\n");
        world().pipelines(&text).get("outer").unwrap().fingerprint.clone()
    };
    let first = of("on: y, steps: [{uses: a}]");
    assert!(first.starts_with("blake3:") && first.len() == 7 + 64);
    assert_eq!(first, of("on-hook: job.failed, from_plugin: a, timeout: 5s, max_depth: 9, steps: [{uses: a}]"));
    assert_ne!(first, of("on: y, steps: [{uses: b}]"));
}

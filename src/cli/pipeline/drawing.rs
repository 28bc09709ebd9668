//! A pipeline as boxes and lines, with what it calls drawn inside of it, and the languages for such drawings.

use std::collections::{HashMap, HashSet};

use ductile_config::{Exit, NodeKind, Pipeline, Pipelines};

use super::trigger;

/// Beyond this a call is one box: pipelines that call each other many times would never fit a page.
const LARGEST: usize = 2_000;

/// Boxes and lines.
pub(super) struct Drawing {
    title: String,
    start: String,
    items: Vec<Item>,
    lines: Vec<Line>,
    entries: Vec<usize>,
}

enum Item {
    Box { key: usize, path: String, label: Vec<String>, is_switch: bool },
    Group { key: usize, path: String, label: String, items: Vec<Self> },
}

struct Line {
    from: usize,
    to: usize,
    label: Option<&'static str>,
}

/// The inside of a pipeline: where lines come in and go out.
struct Inside {
    items: Vec<Item>,
    entries: Vec<usize>,
    exits: Vec<(usize, Exit)>,
}

/// What lines to and from a node end at.
enum Ends {
    Box(usize),
    Group(Inside),
}

/// The word at a line.
pub(super) fn label(exit: Exit) -> Option<&'static str> {
    match exit {
        Exit::Any => None,
        Exit::True => Some("true"),
        Exit::False => Some("false"),
    }
}

/// Draws a pipeline.
pub(super) fn draw(pipeline: &Pipeline, all: &Pipelines) -> Drawing {
    let mut pen = Pen { all, lines: Vec::new(), keys: 0 };
    let Inside { items, entries, .. } = pen.inside(pipeline, "");
    Drawing { title: pipeline.name.to_string(), start: trigger(pipeline), items, lines: pen.lines, entries }
}

struct Pen<'p> {
    all: &'p Pipelines,
    lines: Vec<Line>,
    keys: usize,
}

impl Pen<'_> {
    fn key(&mut self) -> usize {
        self.keys += 1;
        self.keys - 1
    }

    fn inside(&mut self, pipeline: &Pipeline, prefix: &str) -> Inside {
        let mut items = Vec::new();
        let mut ends = Vec::new();
        for node in pipeline.nodes() {
            let path = format!("{prefix}{}", node.id);
            let called = match &node.kind {
                NodeKind::Call(target) => Some(self.all.at(*target)),
                _ => None,
            };
            let key = self.key();
            match called {
                Some(called) if self.keys + called.nodes().len() <= LARGEST => {
                    let mut inside = self.inside(called, &format!("{path}/"));
                    let label = format!("{}: call {}", node.id, called.name);
                    items.push(Item::Group { key, path, label, items: std::mem::take(&mut inside.items) });
                    ends.push(Ends::Group(inside));
                }
                _ => {
                    let mut label = vec![node.id.to_string()];
                    label.extend(does(node, self.all));
                    let is_switch = matches!(node.kind, NodeKind::Switch(_));
                    items.push(Item::Box { key, path, label, is_switch });
                    ends.push(Ends::Box(key));
                }
            }
        }
        let mut place = HashMap::new();
        for (index, node) in pipeline.nodes().iter().enumerate() {
            place.insert(node.index, index);
        }
        for (node, from) in pipeline.nodes().iter().zip(&ends) {
            for edge in &node.edges {
                let to = place.get(&edge.to).and_then(|index| ends.get(*index));
                self.join(&from.exits(edge.on), to.map(Ends::entries).unwrap_or_default());
            }
        }
        let at = |index| place.get(index).and_then(|index| ends.get(*index));
        let entries = pipeline.entries().iter().filter_map(at).flat_map(Ends::entries).copied().collect();
        let exits = pipeline.nodes().iter().zip(&ends);
        let exits = exits.flat_map(|(node, end)| node.terminals.iter().flat_map(|exit| end.exits(*exit))).collect();
        Inside { items, entries, exits }
    }

    fn join(&mut self, exits: &[(usize, Exit)], entries: &[usize]) {
        for (from, exit) in exits {
            self.lines.extend(entries.iter().map(|to| Line { from: *from, to: *to, label: label(*exit) }));
        }
    }
}

impl Ends {
    fn entries(&self) -> &[usize] {
        match self {
            Self::Box(key) => std::slice::from_ref(key),
            Self::Group(inside) => &inside.entries,
        }
    }

    /// A call is left by the exits of what it called.
    fn exits(&self, on: Exit) -> Vec<(usize, Exit)> {
        match self {
            Self::Box(key) => vec![(*key, on)],
            Self::Group(inside) => inside.exits.clone(),
        }
    }
}

/// What a node does, beyond its id. A switch says that by its form.
pub(super) fn does(node: &ductile_config::Node, all: &Pipelines) -> Option<String> {
    match &node.kind {
        NodeKind::Uses(uses) if &*uses.command == ductile_config::DEFAULT_COMMAND => Some(uses.plugin.to_string()),
        NodeKind::Uses(uses) => Some(format!("{} {}", uses.plugin, uses.command)),
        NodeKind::Call(target) => Some(format!("call {}", all.at(*target).name)),
        NodeKind::Relay(_) => Some("relay".to_owned()),
        NodeKind::Switch(_) => None,
    }
}

impl Drawing {
    /// A Mermaid flowchart.
    pub(super) fn mermaid(&self) -> String {
        let mut out = format!("flowchart TD\n  start([\"{}\"])\n", mermaid_text(&self.start));
        mermaid_items(&self.items, 1, &mut out);
        for entry in &self.entries {
            out.push_str(&format!("  start --> n{entry}\n"));
        }
        for Line { from, to, label } in &self.lines {
            let label = label.map(|label| format!("|{label}|")).unwrap_or_default();
            out.push_str(&format!("  n{from} -->{label} n{to}\n"));
        }
        out
    }

    /// A directed graph for Graphviz.
    pub(super) fn dot(&self) -> String {
        let mut names = Names::default();
        names.collect(&self.items);
        let start = names.unique("start".to_owned());
        let mut out = format!("digraph {} {{\n  rankdir=TB;\n", dot_text(&self.title));
        out.push_str(&format!("  {} [label={}, shape=oval];\n", dot_text(&start), dot_text(&self.start)));
        dot_items(&self.items, 1, &names, &mut out);
        for entry in &self.entries {
            out.push_str(&format!("  {} -> {};\n", dot_text(&start), names.quoted(*entry)));
        }
        for Line { from, to, label } in &self.lines {
            let label = label.map(|label| format!(" [label={}]", dot_text(label))).unwrap_or_default();
            out.push_str(&format!("  {} -> {}{label};\n", names.quoted(*from), names.quoted(*to)));
        }
        out.push_str("}\n");
        out
    }
}

fn mermaid_items(items: &[Item], depth: usize, out: &mut String) {
    let lead = " ".repeat(depth * 2);
    for item in items {
        match item {
            Item::Box { key, label, is_switch, .. } => {
                let label: Vec<_> = label.iter().map(|line| mermaid_text(line)).collect();
                let label = label.join("<br/>");
                let (open, close) = if *is_switch { ("{", "}") } else { ("[", "]") };
                out.push_str(&format!("{lead}n{key}{open}\"{label}\"{close}\n"));
            }
            Item::Group { key, label, items, .. } => {
                out.push_str(&format!("{lead}subgraph g{key}[\"{}\"]\n", mermaid_text(label)));
                mermaid_items(items, depth + 1, out);
                out.push_str(&format!("{lead}end\n"));
            }
        }
    }
}

fn mermaid_text(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;").replace('\n', " ")
}

fn dot_items(items: &[Item], depth: usize, names: &Names, out: &mut String) {
    let lead = " ".repeat(depth * 2);
    for item in items {
        match item {
            Item::Box { key, label, is_switch, .. } => {
                let shape = if *is_switch { "diamond" } else { "box" };
                let label = dot_text(&label.join("\n"));
                out.push_str(&format!("{lead}{} [label={label}, shape={shape}];\n", names.quoted(*key)));
            }
            Item::Group { path, label, items, .. } => {
                out.push_str(&format!("{lead}subgraph {} {{\n", dot_text(&format!("cluster_{path}"))));
                out.push_str(&format!("{lead}  label={};\n", dot_text(label)));
                dot_items(items, depth + 1, names, out);
                out.push_str(&format!("{lead}}}\n"));
            }
        }
    }
}

fn dot_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Names of boxes: their ids, inside of a call behind the id of the call.
#[derive(Default)]
struct Names {
    by_key: HashMap<usize, String>,
    taken: HashSet<String>,
}

impl Names {
    fn collect(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Box { key, path, .. } => {
                    let name = self.unique(path.clone());
                    self.by_key.insert(*key, name);
                }
                Item::Group { items, .. } => self.collect(items),
            }
        }
    }

    fn unique(&mut self, mut name: String) -> String {
        while !self.taken.insert(name.clone()) {
            name.push('\'');
        }
        name
    }

    fn quoted(&self, key: usize) -> String {
        dot_text(self.by_key.get(&key).map_or("", String::as_str))
    }
}

//! Jobs that caused each other, drawn as a tree.

use std::collections::BTreeMap;

use super::short;
use crate::cli::report::Form;

/// A job as it is drawn.
pub(crate) struct Node<'a> {
    pub(crate) id: &'a str,
    /// `None` for the root.
    pub(crate) parent: Option<&'a str>,
    pub(crate) label: String,
}

impl<'a> Node<'a> {
    /// The usual label: what ran, as which step, and how it ended.
    pub(crate) fn new(id: &'a str, parent: Option<&'a str>, what: Named<'_>, form: Form) -> Self {
        let Named { plugin, command, step, status } = what;
        let step = if step.is_empty() { String::new() } else { format!(" [{step}]") };
        let label = format!("{plugin}:{command}{step}  {}  {}", form.status(status), short(id));
        Self { id, parent, label }
    }
}

/// What stands in a label.
pub(crate) struct Named<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) command: &'a str,
    /// Empty outside of a pipeline.
    pub(crate) step: &'a str,
    pub(crate) status: &'a str,
}

/// The children of each job, in the order in which they were given.
type Children<'a> = BTreeMap<&'a str, Vec<&'a Node<'a>>>;

/// One line per job: the roots, and below each what it caused.
pub(crate) fn lines(nodes: &[Node<'_>]) -> Vec<String> {
    let mut children = Children::new();
    for node in nodes {
        if let Some(parent) = node.parent {
            children.entry(parent).or_default().push(node);
        }
    }
    let mut lines = Vec::with_capacity(nodes.len());
    for root in nodes.iter().filter(|node| node.parent.is_none()) {
        lines.push(root.label.clone());
        branches(root.id, "", &children, &mut lines);
    }
    lines
}

/// Goes as deep as the tree, which has at most as many levels as it has jobs.
fn branches(parent: &str, before: &str, children: &Children<'_>, lines: &mut Vec<String>) {
    let Some(jobs) = children.get(parent) else { return };
    for (index, child) in jobs.iter().enumerate() {
        let is_last = index + 1 == jobs.len();
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("{before}{branch}{}", child.label));
        branches(child.id, &format!("{before}{below}"), children, lines);
    }
}

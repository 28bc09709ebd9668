//! A pipeline as a tree for a terminal: what follows a node stands below it, a node that was shown already is only named.

use std::collections::HashSet;

use ductile_config::{Exit, Node, NodeIx, NodeKind, Pipeline, PipelineIx, Pipelines};

use super::drawing::{does, label};
use super::{depth, trigger};

/// The pipeline, and behind it each pipeline that it calls.
pub(super) fn text(pipeline: &Pipeline, all: &Pipelines) -> String {
    let mut out = String::new();
    let head =
        format!("{}  on {}, {}, depth {}", pipeline.name, trigger(pipeline), pipeline.mode.as_str(), depth(pipeline));
    let mut waiting = vec![pipeline.index];
    let mut seen: HashSet<PipelineIx> = waiting.iter().copied().collect();
    let mut next = 0;
    while let Some(index) = waiting.get(next) {
        let shown = all.at(*index);
        next += 1;
        if next == 1 {
            out.push_str(&format!("{head}\n"));
        } else {
            out.push_str(&format!("\n{}  (called)\n", shown.name));
        }
        Tree { pipeline: shown, all, out: &mut out, shown: HashSet::new() }.children(
            &shown.entries().iter().map(|entry| Child { label: None, to: Some(*entry) }).collect::<Vec<_>>(),
            "",
        );
        for node in shown.nodes() {
            if let NodeKind::Call(target) = &node.kind
                && seen.insert(*target)
            {
                waiting.push(*target);
            }
        }
    }
    out
}

struct Tree<'t> {
    pipeline: &'t Pipeline,
    all: &'t Pipelines,
    out: &'t mut String,
    shown: HashSet<NodeIx>,
}

/// What follows a node; nothing, where the pipeline ends.
#[derive(Clone, Copy)]
struct Child {
    label: Option<&'static str>,
    to: Option<NodeIx>,
}

impl Tree<'_> {
    fn children(&mut self, children: &[Child], lead: &str) {
        for (index, child) in children.iter().enumerate() {
            let is_last = index + 1 == children.len();
            let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.child(*child, &format!("{lead}{branch}"), &format!("{lead}{below}"));
        }
    }

    /// `first` leads the line of the child itself, `lead` those below it.
    fn child(&mut self, mut child: Child, first: &str, lead: &str) {
        let mut first = first.to_owned();
        loop {
            let word = child.label.map(|label| format!("{label} → ")).unwrap_or_default();
            let Some(index) = child.to else {
                self.out.push_str(&format!("{first}{word}end\n"));
                return;
            };
            let node = self.pipeline.node_at(index);
            if !self.shown.insert(index) {
                self.out.push_str(&format!("{first}{word}{}  (see above)\n", node.id));
                return;
            }
            let what = does(node, self.all).unwrap_or_else(|| "switch".to_owned());
            let end = if node.terminals.contains(&Exit::Any) { "  (end)" } else { "" };
            self.out.push_str(&format!("{first}{word}{}: {what}{end}\n", node.id));
            match followers(node).as_slice() {
                // A chain goes straight down instead of ever further to the right.
                [only] if only.label.is_none() => {
                    child = *only;
                    first = format!("{lead}↓ ");
                }
                several => return self.children(several, lead),
            }
        }
    }
}

fn followers(node: &Node) -> Vec<Child> {
    let edges = node.edges.iter().map(|edge| (edge.on, Some(edge.to)));
    let ends = node.terminals.iter().filter(|exit| **exit != Exit::Any).map(|exit| (*exit, None));
    let mut followers: Vec<_> = edges.chain(ends).collect();
    followers.sort_by_key(|(on, _)| *on);
    followers.into_iter().map(|(on, to)| Child { label: label(on), to }).collect()
}

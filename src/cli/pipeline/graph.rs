//! One pipeline as a graph.

use clap::ValueEnum;
use ductile_config::{NodeKind, Pipeline, Pipelines};
use serde_json::{Value, json};

use super::{drawing, tree};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, Form};

/// Languages for graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A tree for eyes.
    Text,
    /// A Mermaid flowchart.
    Mermaid,
    /// For Graphviz.
    Dot,
}

pub(super) fn run(
    pipeline: &Pipeline,
    all: &Pipelines,
    format: Option<Format>,
    common: &Common,
) -> Result<u8, Failure> {
    if common.json {
        report::json(&document(pipeline, all));
        return Ok(0);
    }
    let default = match Form::of_stdout(common.no_color) {
        Form::Plain => Format::Mermaid,
        Form::Terminal { .. } => Format::Text,
    };
    let text = match format.unwrap_or(default) {
        Format::Text => tree::text(pipeline, all),
        Format::Mermaid => drawing::draw(pipeline, all).mermaid(),
        Format::Dot => drawing::draw(pipeline, all).dot(),
    };
    report::text(&text);
    Ok(0)
}

fn document(pipeline: &Pipeline, all: &Pipelines) -> Value {
    let id = |index| &*pipeline.node_at(index).id;
    let nodes = pipeline.nodes().iter().map(|node| {
        let called = match &node.kind {
            NodeKind::Call(target) => Some(&*all.at(*target).name),
            _ => None,
        };
        let (plugin, command) = node.job().unzip();
        json!({"id": &*node.id, "kind": node.kind.as_str(), "plugin": plugin, "command": command, "call": called})
    });
    let edges = pipeline.nodes().iter().flat_map(|node| {
        node.edges.iter().map(|edge| json!({"from": &*node.id, "to": id(edge.to), "event_type": edge.on.event_type()}))
    });
    json!({
        "nodes": nodes.collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
        "entries": pipeline.entries().iter().map(|entry| id(*entry)).collect::<Vec<_>>(),
        "terminals": pipeline.ends().collect::<Vec<_>>(),
    })
}

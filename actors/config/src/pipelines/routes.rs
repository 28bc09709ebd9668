//! The compiled table in the form in which people and programs see it.

use serde::Serialize;
use serde_json::Value;

use super::compiled::{Exit, Node, NodeKind, Pipeline, Pipelines, Trigger};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// Unique in its pipeline.
    pub id: String,
    /// What is matched.
    pub source: RouteSource,
    /// What comes of it.
    pub destination: Destination,
}

/// What a route matches. What is absent is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RouteSource {
    /// Event type that starts the pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Signal that starts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_signal: Option<String>,
    /// Plugin that must have emitted the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_plugin: Option<String>,
    /// Pipeline of the finished step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The finished step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
    /// The only event type that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Cap of the depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth_lt: Option<u32>,
    /// Condition of the pipeline as written.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<Value>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Destination {
    /// A job.
    Uses {
        /// Its node.
        step_id: String,
        /// Plugin, or a built-in one.
        plugin: String,
        /// Command.
        command: String,
    },
    /// Another pipeline in place.
    Call {
        /// Its node.
        step_id: String,
        /// Name of the other pipeline.
        call_pipeline: String,
    },
    /// Out of the pipeline.
    Terminal,
}

impl Pipeline {
    /// The whole table of this pipeline, by id.
    #[must_use]
    pub fn routes(&self, all: &Pipelines) -> Vec<Route> {
        let mut routes: Vec<Route> = self.entries.iter().map(|entry| self.entry(self.node_at(*entry), all)).collect();
        for node in &self.nodes {
            let edges = node.edges.iter().map(|edge| {
                let to = self.node_at(edge.to);
                Route {
                    id: format!("edge:{}->{}", node.id, to.id),
                    source: self.leaving(node, edge.on),
                    destination: destination(to, all),
                }
            });
            routes.extend(edges);
            routes.extend(node.terminals.iter().map(|exit| Route {
                id: format!("terminal:{}", terminal(node, *exit)),
                source: self.leaving(node, *exit),
                destination: Destination::Terminal,
            }));
        }
        routes.sort_by(|a, b| a.id.cmp(&b.id));
        routes
    }

    /// Cap of the depth; `None` when there is none.
    #[must_use]
    pub fn depth_limit(&self) -> Option<u32> {
        Some(self.max_depth).filter(|depth| *depth > 0)
    }

    /// Ends of the pipeline: ids of nodes, behind an `@` the one event type that ends there.
    pub fn ends(&self) -> impl Iterator<Item = String> {
        self.nodes.iter().flat_map(|node| node.terminals.iter().map(|exit| terminal(node, *exit)))
    }

    fn entry(&self, node: &Node, all: &Pipelines) -> Route {
        let mut source = RouteSource {
            source_plugin: self.from_plugin.as_deref().map(str::to_owned),
            depth_lt: self.depth_limit(),
            condition: self.definition.get("if").cloned(),
            ..RouteSource::default()
        };
        match &self.trigger {
            Trigger::Event(event) => source.trigger = Some(event.to_string()),
            Trigger::Hook(signal) => source.hook_signal = Some(signal.as_str().to_owned()),
        }
        Route { id: format!("entry:{}", node.id), source, destination: destination(node, all) }
    }

    fn leaving(&self, node: &Node, on: Exit) -> RouteSource {
        RouteSource {
            pipeline: Some(self.name.to_string()),
            step_id: Some(node.id.to_string()),
            event_type: on.event_type().map(str::to_owned),
            depth_lt: self.depth_limit(),
            ..RouteSource::default()
        }
    }
}

fn terminal(node: &Node, exit: Exit) -> String {
    exit.event_type().map_or_else(|| node.id.to_string(), |event_type| format!("{}@{event_type}", node.id))
}

fn destination(node: &Node, all: &Pipelines) -> Destination {
    let step_id = node.id.to_string();
    match (&node.kind, node.job()) {
        (_, Some((plugin, command))) => {
            Destination::Uses { step_id, plugin: plugin.to_owned(), command: command.to_owned() }
        }
        (NodeKind::Call(target), None) => {
            Destination::Call { step_id, call_pipeline: all.at(*target).name.to_string() }
        }
        (_, None) => Destination::Terminal,
    }
}

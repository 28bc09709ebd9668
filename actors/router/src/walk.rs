//! Where an event goes in the compiled graph: through edges, into calls and out of them again.

use ductile_config::{Node, NodeKind, Pipeline, Pipelines};

use crate::RouteError;
use crate::instance::Frame;

/// A node that becomes a job.
#[derive(Clone)]
pub(crate) struct Arrival<'p> {
    pub(crate) pipeline: &'p Pipeline,
    pub(crate) node: &'p Node,
    /// What runs it.
    pub(crate) plugin: &'p str,
    pub(crate) command: &'p str,
    /// Calls that are open there.
    pub(crate) calls: Vec<Frame>,
}

/// The nodes that an event reaches which leaves a node: those of its edges, and those behind the calls that end with
/// it.
pub(crate) fn leave<'p>(
    all: &'p Pipelines,
    pipeline: &'p Pipeline,
    node: &'p Node,
    calls: &[Frame],
    kind: &str,
    reached: &mut Vec<Arrival<'p>>,
) -> Result<(), RouteError> {
    for edge in node.edges.iter().filter(|edge| edge.on.takes(kind)) {
        enter(all, pipeline, pipeline.node_at(edge.to), calls, reached);
    }
    let ends = node.terminals.iter().any(|exit| exit.takes(kind));
    let Some((frame, outer)) = calls.split_last().filter(|_| ends) else { return Ok(()) };
    let (caller, call) = find(all, &frame.pipeline, &frame.step)?;
    leave(all, caller, call, outer, kind, reached)
}

/// The nodes that become jobs when a node is reached: itself, or the entries of what it calls.
pub(crate) fn enter<'p>(
    all: &'p Pipelines,
    pipeline: &'p Pipeline,
    node: &'p Node,
    calls: &[Frame],
    reached: &mut Vec<Arrival<'p>>,
) {
    if let Some((plugin, command)) = node.job() {
        reached.push(Arrival { pipeline, node, plugin, command, calls: calls.to_vec() });
    }
    let NodeKind::Call(target) = &node.kind else { return };
    let frame = Frame { pipeline: pipeline.name.to_string(), step: node.id.to_string() };
    let calls: Vec<Frame> = calls.iter().cloned().chain([frame]).collect();
    let target = all.at(*target);
    for entry in target.entries() {
        enter(all, target, target.node_at(*entry), &calls, reached);
    }
}

/// The nodes that become jobs when a pipeline starts.
pub(crate) fn entries<'p>(all: &'p Pipelines, pipeline: &'p Pipeline) -> Vec<Arrival<'p>> {
    let mut reached = Vec::new();
    for entry in pipeline.entries() {
        enter(all, pipeline, pipeline.node_at(*entry), &[], &mut reached);
    }
    reached
}

/// Whether its pipeline, and with it every call that is open, may end at a node.
pub(crate) fn is_last(all: &Pipelines, pipeline: &str, step: &str, calls: &[Frame]) -> bool {
    let ends = |pipeline: &str, step: &str| find(all, pipeline, step).is_ok_and(|(_, node)| !node.terminals.is_empty());
    ends(pipeline, step) && calls.iter().all(|frame| ends(&frame.pipeline, &frame.step))
}

/// A step by its names.
pub(crate) fn find<'p>(all: &'p Pipelines, pipeline: &str, step: &str) -> Result<(&'p Pipeline, &'p Node), RouteError> {
    let found = all.get(pipeline).and_then(|found| found.node(step).map(|node| (found, node)));
    found.ok_or_else(|| RouteError::Gone { pipeline: pipeline.to_owned(), step: step.to_owned() })
}

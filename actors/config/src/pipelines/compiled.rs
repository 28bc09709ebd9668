//! What definitions become: fixed tables that the router reads. Nothing here changes after a load.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::claims::Claims;
use super::condition::Condition;
use super::legacy::LegacyRoutes;
use super::template::Template;

/// Type of the event by which a switch passes an event on to the step that it gates.
pub const SWITCH_TRUE: &str = "ductile.switch.true";
/// Type of the event by which a switch leads an event past the step that it gates.
pub const SWITCH_FALSE: &str = "ductile.switch.false";
/// Plugin of switch nodes, which need no process.
pub const SWITCH_PLUGIN: &str = "core.switch";
/// Plugin of relay nodes, which need no process.
pub const RELAY_PLUGIN: &str = "core.relay";
/// Command of nodes that name none.
pub const DEFAULT_COMMAND: &str = "handle";

/// Names a pipeline within its [`Pipelines`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PipelineIx(u32);

/// Names a node within its [`Pipeline`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NodeIx(u32);

impl PipelineIx {
    pub(super) fn new(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

impl NodeIx {
    pub(super) fn new(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

/// A node where a pipeline begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The pipeline.
    pub pipeline: PipelineIx,
    /// The node in it.
    pub node: NodeIx,
}

/// All pipelines of a plan, and its older routes.
#[derive(Default)]
pub struct Pipelines {
    /// By name.
    pub(super) list: Vec<Pipeline>,
    pub(super) by_name: HashMap<Arc<str>, PipelineIx>,
    pub(super) by_event: HashMap<Arc<str>, Vec<Entry>>,
    pub(super) by_signal: HashMap<Signal, Vec<Entry>>,
    pub(super) legacy: LegacyRoutes,
}

impl Pipelines {
    /// Whether no pipeline is defined. There may be older routes all the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many pipelines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Pipeline> {
        self.list.iter()
    }

    /// The pipeline of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Pipeline> {
        self.by_name.get(name).map(|index| self.at(*index))
    }

    /// The pipeline at an index that came from this very table.
    #[must_use]
    pub fn at(&self, index: PipelineIx) -> &Pipeline {
        &self.list[index.get()]
    }

    /// Entry nodes of the pipelines that an event of this type starts, by route id, then by name of the pipeline.
    #[must_use]
    pub fn started_by(&self, event_type: &str) -> &[Entry] {
        self.by_event.get(event_type).map_or(&[], Vec::as_slice)
    }

    /// Entry nodes of the pipelines that the end of a job starts, in the same order.
    #[must_use]
    pub fn hooked_on(&self, signal: Signal) -> &[Entry] {
        self.by_signal.get(&signal).map_or(&[], Vec::as_slice)
    }

    /// Target plugins of the older routes of an event of a plugin, in the order of the configuration.
    #[must_use]
    pub fn routes(&self, plugin: &str, event_type: &str) -> &[Arc<str>] {
        self.legacy.targets(plugin, event_type)
    }

    /// All older routes: plugin, event type, target plugin.
    pub fn older_routes(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.legacy.iter()
    }

    /// Logs what was compiled. Separate from compiling, so that looking at a configuration stays quiet.
    pub fn log(&self) {
        for pipeline in self.iter() {
            let (name, nodes, depth) = (&*pipeline.name, pipeline.nodes.len(), pipeline.max_depth);
            let fingerprint = pipeline.fingerprint.as_str();
            match &pipeline.trigger {
                Trigger::Event(trigger) => {
                    tracing::info!(name, %trigger, nodes, depth, fingerprint, "pipeline registered");
                }
                Trigger::Hook(signal) => {
                    let hook_signal = signal.as_str();
                    tracing::info!(name, hook_signal, nodes, depth, fingerprint, "pipeline registered");
                }
            }
        }
    }
}

impl fmt::Debug for Pipelines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.list.iter().map(|pipeline| (&pipeline.name, &pipeline.fingerprint))).finish()
    }
}

/// One compiled pipeline.
pub struct Pipeline {
    /// Unique in the whole configuration.
    pub name: Arc<str>,
    /// Its place in the table.
    pub index: PipelineIx,
    /// What starts it.
    pub trigger: Trigger,
    /// Only events of this plugin start it.
    pub from_plugin: Option<Arc<str>>,
    /// Only events for which this holds start it.
    pub condition: Option<Condition>,
    /// How explicit starts run it.
    pub mode: ExecutionMode,
    /// How long a synchronous start waits.
    pub timeout: Duration,
    /// Cap of an instance's depth, authored or computed; 0 = none.
    pub max_depth: u32,
    /// `blake3:<hex>`; differs whenever behaviour can differ, and only then.
    pub fingerprint: String,
    /// Jobs that a start makes; calls count what they begin with.
    pub entry_count: usize,
    /// In reading order: edges lead from lower to higher indexes.
    pub(super) nodes: Vec<Node>,
    pub(super) by_id: HashMap<Arc<str>, NodeIx>,
    pub(super) entries: Vec<NodeIx>,
    /// As written, defaults filled in, secrets hidden.
    pub(super) definition: Value,
}

impl Pipeline {
    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.by_id.get(id).map(|index| self.node_at(*index))
    }

    /// The node at an index that came from this very pipeline.
    #[must_use]
    pub fn node_at(&self, index: NodeIx) -> &Node {
        &self.nodes[index.get()]
    }

    /// All nodes, in reading order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where it begins, by route id.
    #[must_use]
    pub fn entries(&self) -> &[NodeIx] {
        &self.entries
    }

    /// The definition as written, with defaults and without secrets: for people.
    #[must_use]
    pub fn definition(&self) -> &Value {
        &self.definition
    }
}

/// One thing to do.
pub struct Node {
    /// Unique in its pipeline.
    pub id: Arc<str>,
    /// Its place in the pipeline.
    pub index: NodeIx,
    /// What it does.
    pub kind: NodeKind,
    /// What becomes durable when its job is created.
    pub claims: Claims,
    /// What follows, by route id.
    pub edges: Vec<Edge>,
    /// On which events the pipeline is left after this node.
    pub terminals: Vec<Exit>,
}

impl Node {
    /// Plugin and command of its job; a call has none.
    #[must_use]
    pub fn job(&self) -> Option<(&str, &str)> {
        match &self.kind {
            NodeKind::Uses(uses) => Some((&uses.plugin, &uses.command)),
            NodeKind::Switch(_) => Some((SWITCH_PLUGIN, DEFAULT_COMMAND)),
            NodeKind::Relay(_) => Some((RELAY_PLUGIN, DEFAULT_COMMAND)),
            NodeKind::Call(_) => None,
        }
    }
}

/// What a node does.
pub enum NodeKind {
    /// Runs a plugin.
    Uses(Uses),
    /// Runs another pipeline in place.
    Call(PipelineIx),
    /// Sends to another gateway.
    Relay(Relay),
    /// Decides whether the step behind it runs.
    Switch(Switch),
}

impl NodeKind {
    /// The word in graphs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Uses(_) => "uses",
            Self::Call(_) => "call",
            Self::Relay(_) => "relay",
            Self::Switch(_) => "switch",
        }
    }
}

/// A plugin with its command.
pub struct Uses {
    /// Configured name.
    pub plugin: Arc<str>,
    /// Command of its manifest.
    pub command: Arc<str>,
    /// Keys of the payload that are replaced.
    pub with: Vec<(Box<str>, Template)>,
}

/// A condition before a step.
pub struct Switch {
    /// What has to hold.
    pub condition: Condition,
    /// Plugin whose operator configuration is `config.*`, if the condition reads any of it.
    pub config_of: Option<Arc<str>>,
}

/// A message to another gateway.
pub struct Relay {
    /// As written.
    pub definition: Value,
}

/// What follows a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    /// The node that follows.
    pub to: NodeIx,
    /// The events that lead there.
    pub on: Exit,
}

/// The events by which a node is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Exit {
    /// All.
    Any,
    /// Only [`SWITCH_TRUE`].
    True,
    /// Only [`SWITCH_FALSE`].
    False,
}

impl Exit {
    /// The one type that is taken; `None` = every type.
    #[must_use]
    pub fn event_type(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::True => Some(SWITCH_TRUE),
            Self::False => Some(SWITCH_FALSE),
        }
    }

    /// Whether an event of this type leaves here.
    #[must_use]
    pub fn takes(self, event_type: &str) -> bool {
        self.event_type().is_none_or(|only| only == event_type)
    }
}

/// What starts a pipeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// An event of this type.
    Event(Arc<str>),
    /// The end of a job.
    Hook(Signal),
}

impl Trigger {
    /// Type of the event that stands for the start: the event type itself, or the word of the signal.
    #[must_use]
    pub fn event_type(&self) -> &str {
        match self {
            Self::Event(event_type) => event_type,
            Self::Hook(signal) => signal.as_str(),
        }
    }
}

/// How a job ended, as far as hooks care.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signal {
    /// It succeeded.
    Completed,
    /// It failed for good.
    Failed,
    /// It ran out of time for good.
    TimedOut,
    /// Any of these.
    Finished,
}

impl Signal {
    /// All of them, as messages list them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::TimedOut, Self::Finished];

    /// The word in configurations and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "job.completed",
            Self::Failed => "job.failed",
            Self::TimedOut => "job.timed_out",
            Self::Finished => "job.finished",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == word)
    }
}

/// How an explicit start is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExecutionMode {
    /// At once.
    Async,
    /// When the jobs are done.
    Synchronous,
}

impl ExecutionMode {
    /// The word in configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Synchronous => "synchronous",
        }
    }
}

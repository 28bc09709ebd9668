//! Who talks to whom: what plugins emit, and where the routes lead it.

use std::collections::{BTreeMap, BTreeSet};

use ductile_config::{Destination, Family, Pipeline, Pipelines};
use ductile_model::{VERSION, format_wire};
use serde::Serialize;

use crate::context::Context;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::state::Api;

/// Steps of the gateway itself are no plugins.
const BUILT_IN: &str = "core.";

#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    signal: String,
    command: String,
}

#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    plugin: String,
    command: String,
}

#[derive(Default)]
struct Ports {
    inputs: BTreeSet<Port>,
    outputs: BTreeSet<Port>,
}

#[derive(Default, Serialize)]
struct Ends {
    producers: BTreeSet<End>,
    consumers: BTreeSet<End>,
}

#[derive(Serialize)]
struct PluginView<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    active: bool,
    inputs: &'a BTreeSet<Port>,
    outputs: &'a BTreeSet<Port>,
}

#[derive(Serialize)]
struct SignalView<'a> {
    name: &'a str,
    #[serde(flatten)]
    ends: &'a Ends,
}

#[derive(Serialize)]
struct Topology<'a> {
    version: &'static str,
    captured_at: String,
    plugins: Vec<PluginView<'a>>,
    signals: Vec<SignalView<'a>>,
}

/// `GET /topology`.
pub(crate) fn show(api: &Api, context: &Context) -> Result<Reply, ApiError> {
    api.require(context, Family::SystemRead)?;
    let map = Map::of(api);
    let plugins = map.plugins.iter().map(|(name, ports)| {
        let registered = api.plan.registry.get(name);
        PluginView {
            name,
            version: registered.map(|plugin| plugin.manifest.version.as_str()),
            active: registered.is_some(),
            inputs: &ports.inputs,
            outputs: &ports.outputs,
        }
    });
    let signals = map.signals.iter().map(|(name, ends)| SignalView { name, ends });
    Reply::ok(&Topology {
        version: VERSION,
        captured_at: format_wire(api.clock.now()),
        plugins: plugins.collect(),
        signals: signals.collect(),
    })
}

#[derive(Default)]
struct Map {
    plugins: BTreeMap<String, Ports>,
    signals: BTreeMap<String, Ends>,
}

impl Map {
    fn of(api: &Api) -> Self {
        let mut map = Self::default();
        for plugin in api.plan.registry.iter() {
            map.plugins.entry(plugin.name.clone()).or_default();
            for command in &plugin.manifest.commands {
                command.emits.iter().for_each(|signal| map.emits(&plugin.name, &command.name, signal));
            }
        }
        for pipeline in api.plan.pipelines.iter() {
            map.consumed(pipeline, &api.plan.pipelines);
        }
        for (from, event_type, to) in api.plan.pipelines.older_routes() {
            map.plugins.entry(from.to_owned()).or_default();
            map.takes(to, "handle", event_type);
        }
        map
    }

    /// The plugin steps that the routes of a pipeline lead a signal to.
    fn consumed(&mut self, pipeline: &Pipeline, all: &Pipelines) {
        for route in pipeline.routes(all) {
            let Destination::Uses { plugin, command, .. } = &route.destination else { continue };
            let source = &route.source;
            let signal = source.event_type.as_ref().or(source.trigger.as_ref()).or(source.hook_signal.as_ref());
            if let Some(signal) = signal
                && !plugin.starts_with(BUILT_IN)
            {
                self.takes(plugin, command, signal);
            }
        }
    }

    fn emits(&mut self, plugin: &str, command: &str, signal: &str) {
        let port = Port { signal: signal.to_owned(), command: command.to_owned() };
        self.plugins.entry(plugin.to_owned()).or_default().outputs.insert(port);
        let end = End { plugin: plugin.to_owned(), command: command.to_owned() };
        self.signals.entry(signal.to_owned()).or_default().producers.insert(end);
    }

    fn takes(&mut self, plugin: &str, command: &str, signal: &str) {
        let port = Port { signal: signal.to_owned(), command: command.to_owned() };
        self.plugins.entry(plugin.to_owned()).or_default().inputs.insert(port);
        let end = End { plugin: plugin.to_owned(), command: command.to_owned() };
        self.signals.entry(signal.to_owned()).or_default().consumers.insert(end);
    }
}

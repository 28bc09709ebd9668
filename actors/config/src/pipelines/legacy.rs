//! Older routes: an event of one plugin is handed to another.

use std::collections::HashMap;
use std::sync::Arc;

use super::Input;
use super::dsl::{NOT_ENABLED, text};
use super::findings::Findings;
use super::graph::{circle, walk};
use crate::yaml::{Node, Place};

const CATEGORY: &str = "routes";

/// Targets by plugin and event type.
#[derive(Default)]
pub(super) struct LegacyRoutes(HashMap<Arc<str>, ByType>);

type ByType = HashMap<Arc<str>, Vec<Arc<str>>>;

impl LegacyRoutes {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().flat_map(|(plugin, types)| {
            types
                .iter()
                .flat_map(move |(kind, targets)| targets.iter().map(move |target| (&**plugin, &**kind, &**target)))
        })
    }

    pub(super) fn targets(&self, plugin: &str, event_type: &str) -> &[Arc<str>] {
        self.0.get(plugin).and_then(|types| types.get(event_type)).map_or(&[], Vec::as_slice)
    }
}

struct Written<'n> {
    from: &'n str,
    to: &'n str,
    place: Place,
    field: String,
}

/// Reads and checks all of them.
pub(super) fn read(input: &Input<'_>, findings: &mut Findings<'_>) -> LegacyRoutes {
    let items = input.merged.find(&["routes"]).map(Node::items).unwrap_or_default();
    let mut routes = LegacyRoutes::default();
    let mut written = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let field = format!("routes[{position}]");
        // A route that lacks one of them was refused before.
        let Some([from, event, to]) = keys(item) else { continue };
        for (key, plugin) in [("from", from), ("to", to)] {
            check_plugin(input, item, &field, (key, plugin), findings);
        }
        routes.0.entry(from.into()).or_default().entry(event.into()).or_default().push(to.into());
        written.push(Written { from, to, place: item.place, field });
    }
    check_cycles(&written, findings);
    routes
}

fn keys(item: &Node) -> Option<[&str; 3]> {
    Some([text(item, "from")?.0, text(item, "event_type")?.0, text(item, "to")?.0])
}

fn check_plugin(input: &Input<'_>, item: &Node, field: &str, (key, plugin): (&str, &str), findings: &mut Findings<'_>) {
    let Some((_, scalar)) = text(item, key) else { return };
    let shown = scalar.written().trim();
    let place = item.get(key).map_or(item.place, |node| node.place);
    let field = format!("{field}.{key}");
    if input.registry.get(plugin).is_none() {
        findings.error(CATEGORY, place, &field, format!("{field} references unknown plugin {shown:?}"));
        return;
    }
    match input.plugins.get(plugin) {
        None => {
            let message = format!("{field} references plugin {shown:?}, which is not configured under plugins");
            findings.error(CATEGORY, place, &field, message);
        }
        Some(config) if !config.enabled => {
            findings.warn(CATEGORY, place, &field, format!("{field} references plugin {shown:?}, {NOT_ENABLED}"));
        }
        Some(_) => {}
    }
}

fn check_cycles(written: &[Written<'_>], findings: &mut Findings<'_>) {
    let mut names: Vec<&str> = written.iter().flat_map(|route| [route.from, route.to]).collect();
    names.sort_unstable();
    names.dedup();
    let index = |name: &str| names.binary_search(&name).unwrap_or(0);
    let mut successors = vec![Vec::new(); names.len()];
    for route in written {
        let (from, to) = (index(route.from), index(route.to));
        if !successors[from].contains(&to) {
            successors[from].push(to);
        }
    }
    for cycle in walk(&successors).cycles {
        let shown = circle(&cycle, |plugin| names[plugin]);
        let (first, second) = (names[cycle[0]], names[cycle.get(1).copied().unwrap_or(cycle[0])]);
        let route = written.iter().find(|route| route.from == first && route.to == second);
        let (place, field) = route.map_or((Place::default(), ""), |route| (route.place, route.field.as_str()));
        findings.error(CATEGORY, place, field, format!("{field}: route cycle detected: {shown}"));
    }
}

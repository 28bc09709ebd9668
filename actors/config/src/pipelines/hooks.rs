//! Hooks that start each other.

use std::collections::{BTreeMap, HashSet};

use super::Input;
use super::compiled::{NodeKind, PipelineIx, Pipelines, Signal};
use super::findings::Findings;
use super::graph::{circle, walk};

/// Warns where the end of a plugin's job leads, through hook pipelines, to a job of the same plugin. Each round only
/// ends at `service.hook_max_depth`.
pub(super) fn warn_of_cycles(pipelines: &Pipelines, input: &Input<'_>, findings: &mut Findings<'_>) {
    let telling = input.plugins.iter().filter(|(_, config)| config.enabled && config.notify_on_complete);
    let names: Vec<&str> = telling.map(|(name, _)| name.as_str()).collect();
    let places: BTreeMap<&str, usize> = names.iter().enumerate().map(|(index, name)| (*name, index)).collect();
    let successors: Vec<Vec<usize>> = names
        .iter()
        .map(|plugin| {
            let mut next: Vec<usize> =
                started_by_end_of(plugin, pipelines).iter().filter_map(|name| places.get(name).copied()).collect();
            next.sort_unstable();
            next.dedup();
            next
        })
        .collect();
    for cycle in walk(&successors).cycles {
        let shown = circle(&cycle, |index| names[index]);
        let path = ["plugins", names[cycle[0]], "notify_on_complete"];
        let message = format!(
            "plugins with notify_on_complete start each other through hook pipelines: {shown}; only \
             service.hook_max_depth ends that"
        );
        let place = input.merged.place_of(&path);
        findings.warn("hook_cycles", place, &input.merged.shown_path(&path), message);
    }
}

/// Plugins of the entry jobs of all hook pipelines that match. A switch tells nobody about its end, so the step behind
/// it does not count.
fn started_by_end_of<'p>(plugin: &str, pipelines: &'p Pipelines) -> Vec<&'p str> {
    let mut found = Vec::new();
    let mut seen: HashSet<PipelineIx> = HashSet::new();
    let hooked = Signal::ALL.iter().flat_map(|signal| pipelines.hooked_on(*signal)).map(|entry| entry.pipeline);
    let matches = |index: &PipelineIx| pipelines.at(*index).from_plugin.as_deref().is_none_or(|only| only == plugin);
    let mut open: Vec<PipelineIx> = hooked.filter(matches).collect();
    while let Some(index) = open.pop() {
        if !seen.insert(index) {
            continue;
        }
        let pipeline = pipelines.at(index);
        for entry in pipeline.entries() {
            match &pipeline.node_at(*entry).kind {
                NodeKind::Uses(uses) => found.push(&*uses.plugin),
                // However often it is called, it is looked at once.
                NodeKind::Call(target) => open.push(*target),
                NodeKind::Relay(_) | NodeKind::Switch(_) => {}
            }
        }
    }
    found
}

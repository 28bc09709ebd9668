//! Aliases: a second name for the code of a plugin, with configuration, state and limits of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use ductile_model::Problem;

use super::{Plugin, Registry};
use crate::PluginConfig;
use crate::yaml::Node;

/// Names of plugins that came from variables, with how they are written: messages show the latter.
#[derive(Debug, Default)]
pub(crate) struct Shown(BTreeMap<String, String>);

impl Shown {
    /// Looks at the names of all entries and at what they use.
    pub(crate) fn of(merged: &Node) -> Self {
        let entries = merged.find(&["plugins"]).map(Node::entries).unwrap_or_default();
        let names = entries.iter().flat_map(|entry| {
            let uses = entry.value.get("uses").and_then(Node::scalar);
            std::iter::once(&entry.key).chain(uses)
        });
        let varying = names.filter(|name| !name.vars.is_empty());
        Self(varying.map(|name| (name.text.clone(), name.written().to_owned())).collect())
    }

    fn name<'n>(&'n self, name: &'n str) -> &'n str {
        self.0.get(name).map_or(name, String::as_str)
    }
}

/// Registers every alias of the configuration. What is wrong with an enabled one is an error, with a disabled one a
/// warning: it can not do harm until somebody enables it.
pub(super) fn register(
    registry: &mut Registry,
    plugins: &BTreeMap<String, PluginConfig>,
    shown: &Shown,
    warnings: &mut Vec<Problem>,
    errors: &mut Vec<Problem>,
) {
    // Resolved against discovered plugins only, before any alias takes a name away from one of them.
    let mut resolved = Vec::new();
    for (alias, config) in plugins {
        let Some(uses) = &config.uses else { continue };
        match resolve(alias, plugins, registry, shown) {
            Ok(base) => resolved.push((alias, uses, base)),
            Err(reason) => {
                let problem =
                    Problem::new("plugin_refs", reason).at_field(format!("plugins.{}.uses", shown.name(alias)));
                if config.enabled { errors.push(problem) } else { warnings.push(problem) }
            }
        }
    }
    for (alias, uses, base) in resolved {
        let name = shown.name(alias);
        if let Some(hidden) = registry.plugins.get(alias) {
            warnings.push(
                Problem::new(
                    "plugin_refs",
                    format!(
                        "plugins.{name} uses {:?}, so the discovered plugin {name:?} at {} is hidden by that alias",
                        shown.name(uses),
                        hidden.dir.display()
                    ),
                )
                .at_field(format!("plugins.{name}.uses")),
            );
        }
        let plugin = Plugin { name: alias.clone(), uses: Some(uses.clone()), ..Plugin::clone(&base) };
        registry.plugins.insert(alias.clone(), Arc::new(plugin));
    }
}

/// Follows a chain of aliases to the plugin at its end.
fn resolve(
    alias: &str,
    plugins: &BTreeMap<String, PluginConfig>,
    registry: &Registry,
    shown: &Shown,
) -> Result<Arc<Plugin>, String> {
    let mut chain = vec![alias];
    loop {
        let current = chain[chain.len() - 1];
        let Some(next) = plugins.get(current).and_then(|config| config.uses.as_deref()) else {
            return registry.get(current).cloned().ok_or_else(|| unknown(alias, current, registry, shown));
        };
        if next == current {
            return Err(format!("plugins.{} uses itself", shown.name(current)));
        }
        if chain.contains(&next) {
            chain.push(next);
            return Err(format!(
                "plugins.{} is part of a cycle of aliases or leads into one: {}",
                shown.name(alias),
                chain.iter().map(|name| shown.name(name)).collect::<Vec<_>>().join(" -> ")
            ));
        }
        chain.push(next);
    }
}

fn unknown(alias: &str, base: &str, registry: &Registry, shown: &Shown) -> String {
    let mut message = format!(
        "plugins.{} uses {:?}, which was not found in the configured plugin roots",
        shown.name(alias),
        shown.name(base)
    );
    if let Some(rejected) = registry.rejection_of(base) {
        message.push_str(&format!(" ({} was left out: {})", rejected.path.display(), rejected.reason));
    }
    message
}

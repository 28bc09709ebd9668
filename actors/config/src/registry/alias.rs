//! Aliases: a second name for the code of a plugin, with configuration, state and limits of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use ductile_model::Problem;

use super::{Plugin, Registry};
use crate::PluginConfig;

/// Registers every alias of the configuration. What is wrong with an enabled one is an error, with a disabled one a
/// warning: it can not do harm until somebody enables it.
pub(super) fn register(
    registry: &mut Registry,
    plugins: &BTreeMap<String, PluginConfig>,
    warnings: &mut Vec<Problem>,
    errors: &mut Vec<Problem>,
) {
    // Resolved against discovered plugins only, before any alias takes a name away from one of them.
    let mut resolved = Vec::new();
    for (alias, config) in plugins {
        let Some(uses) = &config.uses else { continue };
        match resolve(alias, plugins, registry) {
            Ok(base) => resolved.push((alias, uses, base)),
            Err(reason) => {
                let problem = Problem::new("plugin_refs", reason).at_field(format!("plugins.{alias}.uses"));
                if config.enabled { errors.push(problem) } else { warnings.push(problem) }
            }
        }
    }
    for (alias, uses, base) in resolved {
        if let Some(hidden) = registry.plugins.get(alias) {
            warnings.push(
                Problem::new(
                    "plugin_refs",
                    format!(
                        "plugins.{alias} uses {uses:?}, so the discovered plugin {alias:?} at {} is hidden by that alias",
                        hidden.dir.display()
                    ),
                )
                .at_field(format!("plugins.{alias}.uses")),
            );
        }
        let plugin = Plugin { name: alias.clone(), uses: Some(uses.clone()), ..Plugin::clone(&base) };
        registry.plugins.insert(alias.clone(), Arc::new(plugin));
    }
}

/// Follows a chain of aliases to the plugin at its end.
fn resolve(alias: &str, plugins: &BTreeMap<String, PluginConfig>, registry: &Registry) -> Result<Arc<Plugin>, String> {
    let mut chain = vec![alias];
    loop {
        let current = chain[chain.len() - 1];
        let Some(next) = plugins.get(current).and_then(|config| config.uses.as_deref()) else {
            return registry.get(current).cloned().ok_or_else(|| unknown(alias, current, registry));
        };
        if next == current {
            return Err(format!("plugins.{current} uses itself"));
        }
        if chain.contains(&next) {
            chain.push(next);
            return Err(format!(
                "plugins.{alias} is part of a cycle of aliases or leads into one: {}",
                chain.join(" -> ")
            ));
        }
        chain.push(next);
    }
}

fn unknown(alias: &str, base: &str, registry: &Registry) -> String {
    let mut message = format!("plugins.{alias} uses {base:?}, which was not found in the configured plugin roots");
    if let Some(rejected) = registry.rejection_of(base) {
        message.push_str(&format!(" ({} was left out: {})", rejected.path.display(), rejected.reason));
    }
    message
}

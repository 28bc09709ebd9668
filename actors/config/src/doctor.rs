//! Checks that need the discovered plugins.

use std::collections::HashMap;
use std::net::IpAddr;

use ductile_model::Problem;
use serde_json::value::RawValue;

use crate::load::{Loaded, dotted};
use crate::plan::Posture;
use crate::{ListenAddr, Manifest, PluginConfig, Registry, check_scope};

/// What the doctor found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// Text of the warning, and with the gate on of the refusal, for an open listener without encryption.
pub(crate) const CLEARTEXT: &str = "bearer tokens travel in cleartext; put a TLS-terminating proxy in front";

/// Examines a loaded configuration together with its plugins.
pub(crate) fn examine(loaded: &Loaded, registry: &Registry) -> Report {
    let mut visit = Visit { loaded, registry, report: Report::default() };
    visit.plugins();
    visit.listener();
    visit.scopes();
    visit.unused();
    visit.report
}

/// Keys that the manifest requires and that are absent or null.
pub(crate) fn missing_keys(manifest: &Manifest, config: &PluginConfig) -> Vec<String> {
    if manifest.required_config_keys.is_empty() {
        return Vec::new();
    }
    let present: HashMap<String, &RawValue> = serde_json::from_str(config.config.get()).unwrap_or_default();
    let is_there = |key: &String| present.get(key).is_some_and(|value| value.get() != "null");
    manifest.required_config_keys.iter().filter(|key| !is_there(key)).cloned().collect()
}

struct Visit<'v> {
    loaded: &'v Loaded,
    registry: &'v Registry,
    report: Report,
}

impl Visit<'_> {
    fn problem(&self, category: &'static str, path: &[&str], message: impl Into<String>) -> Problem {
        let problem = Problem::new(category, message).at_field(dotted(path));
        self.loaded.files.at(problem, self.loaded.merged.place_of(path))
    }

    fn plugins(&mut self) {
        let loaded = self.loaded;
        for (name, config) in &loaded.config.plugins {
            let path = ["plugins", name.as_str()];
            let Some(plugin) = self.registry.get(name) else {
                if config.enabled {
                    let message = self.not_found(name, config);
                    let problem = self.problem("plugin_refs", &path, message);
                    self.report.errors.push(problem);
                }
                continue;
            };
            let missing = missing_keys(&plugin.manifest, config);
            if config.enabled && !missing.is_empty() {
                let message = format!("plugin {name:?} is missing required config keys: {}", missing.join(", "));
                let problem = self.problem("plugin_refs", &["plugins", name, "config"], message);
                self.report.errors.push(problem);
            }
            if let Some(parallelism) = config.parallelism
                && parallelism > 1
                && !plugin.manifest.concurrency_safe
            {
                let message = format!(
                    "plugin {name:?} runs up to {parallelism} jobs at once although its manifest says concurrency_safe: \
                     false"
                );
                let problem = self.problem("plugin_refs", &["plugins", name, "parallelism"], message);
                self.report.warnings.push(problem);
            }
        }
    }

    fn not_found(&self, name: &str, config: &PluginConfig) -> String {
        let wanted = config.uses.as_deref().unwrap_or(name);
        let mut message = match &config.uses {
            Some(base) => format!("plugin {name:?} uses {base:?}, which was not found in configured plugin roots"),
            None => format!("plugin {name:?} in config but not found in configured plugin roots"),
        };
        let rejected = self.registry.rejected().iter().find(|rejected| {
            rejected.name.as_deref() == Some(wanted) || rejected.path.file_name().is_some_and(|file| file == wanted)
        });
        if let Some(rejected) = rejected {
            message.push_str(&format!(" ({} was left out: {})", rejected.path.display(), rejected.reason));
        }
        message
    }

    fn listener(&mut self) {
        let api = &self.loaded.config.api;
        if api.enabled && self.loaded.posture != Posture::Closed && !is_loopback(&api.listen) {
            let message = format!("api.listen {}: {CLEARTEXT}", api.listen);
            let problem = self.problem("api", &["api", "listen"], message);
            self.report.warnings.push(problem);
        }
    }

    fn scopes(&mut self) {
        let loaded = self.loaded;
        for (token, entry) in loaded.config.api.tokens.iter().enumerate() {
            for (scope, word) in entry.scopes.iter().enumerate() {
                let Some(found) = check_scope(word, self.registry) else { continue };
                let (token, scope) = (format!("[{token}]"), format!("[{scope}]"));
                let path = ["api", "auth", "tokens", token.as_str(), "scopes", scope.as_str()];
                let problem = self.problem("token_scopes", &path, found.message);
                let list = if found.is_error { &mut self.report.errors } else { &mut self.report.warnings };
                list.push(problem);
            }
        }
    }

    fn unused(&mut self) {
        let loaded = self.loaded;
        let configured = &loaded.config.plugins;
        for plugin in self.registry.iter().filter(|plugin| plugin.uses.is_none()) {
            let used = configured.contains_key(&plugin.name)
                || configured.values().any(|config| config.uses.as_deref() == Some(plugin.name.as_str()));
            if !used {
                let message = format!("plugin {:?} discovered but not referenced in config", plugin.name);
                let problem = Problem::new("unused", message).at_field(format!("plugins.{}", plugin.name));
                self.report.warnings.push(problem);
            }
        }
    }
}

/// Whether an address is only reachable from this machine.
pub(crate) fn is_loopback(listen: &ListenAddr) -> bool {
    listen.host.eq_ignore_ascii_case("localhost")
        || listen.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

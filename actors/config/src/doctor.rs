//! Checks that need the discovered plugins.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ductile_model::{CORE_PRINCIPAL, Problem, is_principal};
use ductile_timetable::Entry;
use serde_json::value::RawValue;

use crate::load::{Loaded, Vault};
use crate::plan::{Posture, Standing};
use crate::yaml::Node;
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
    visit.principals();
    visit.listener();
    visit.scopes();
    visit.unused();
    visit.not_built();
    visit.report
}

/// Schedules that can never run because of what was discovered; one for a plugin that was not.
pub(crate) fn unrunnable(loaded: &Loaded, registry: &Registry) -> Vec<Problem> {
    let plugins = loaded.schedules.chunk_by(|a, b| a.plugin == b.plugin);
    plugins.flat_map(|schedules| unrunnable_of(loaded, registry, schedules)).collect()
}

fn unrunnable_of(loaded: &Loaded, registry: &Registry, schedules: &[Arc<Entry>]) -> Vec<Problem> {
    let Some(name) = schedules.first().map(|schedule| schedule.plugin.as_str()) else { return Vec::new() };
    let plugin = registry.get(name);
    let shown = loaded.merged.shown_key(&["plugins", name]);
    // All of them compiled, so that they stand in the list as they do in the configuration.
    let wrong = schedules
        .iter()
        .enumerate()
        .filter(|(_, schedule)| plugin.is_none_or(|plugin| plugin.manifest.command(&schedule.command).is_none()));
    let problems = wrong.map(|(index, schedule)| {
        let at = format!("[{index}]");
        let path = ["plugins", name, "schedules", at.as_str(), "command"];
        let command = loaded.merged.shown(&path).unwrap_or_else(|| format!("{:?}", schedule.command));
        let what = match plugin {
            Some(_) => format!("plugin {shown:?} does not support command {command}"),
            None => {
                format!("plugin {shown:?} was not found in configured plugin roots, so command {command} can not run")
            }
        };
        let message = format!("plugin {shown:?}: schedules{at}: {what}");
        let problem = Problem::new("schedule", message).at_field(loaded.merged.shown_path(&path));
        loaded.files.at(problem, loaded.merged.place_of(&path))
    });
    problems.take(if plugin.is_none() { 1 } else { usize::MAX }).collect()
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
        let problem = Problem::new(category, message).at_field(self.loaded.merged.shown_path(path));
        self.loaded.files.at(problem, self.loaded.merged.place_of(path))
    }

    fn plugins(&mut self) {
        let loaded = self.loaded;
        for (name, config) in &loaded.config.plugins {
            let path = ["plugins", name.as_str()];
            let shown = loaded.merged.shown_key(&path);
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
                let message = format!("plugin {shown:?} is missing required config keys: {}", missing.join(", "));
                let problem = self.problem("plugin_refs", &["plugins", name, "config"], message);
                self.report.errors.push(problem);
            }
            if let Some(parallelism) = config.parallelism
                && parallelism > 1
                && !plugin.manifest.concurrency_safe
            {
                let message = format!(
                    "plugin {shown:?} runs up to {parallelism} jobs at once although its manifest says concurrency_safe: \
                     false"
                );
                let problem = self.problem("plugin_refs", &["plugins", name, "parallelism"], message);
                self.report.warnings.push(problem);
            }
        }
    }

    fn not_found(&self, name: &str, config: &PluginConfig) -> String {
        let wanted = config.uses.as_deref().unwrap_or(name);
        let merged = &self.loaded.merged;
        let shown = merged.shown_key(&["plugins", name]);
        let mut message = match merged.shown(&["plugins", name, "uses"]) {
            Some(base) => format!("plugin {shown:?} uses {base}, which was not found in configured plugin roots"),
            None => format!("plugin {shown:?} in config but not found in configured plugin roots"),
        };
        let rejected = self.registry.rejected().iter().find(|rejected| {
            rejected.name.as_deref() == Some(wanted) || rejected.path.file_name().is_some_and(|file| file == wanted)
        });
        if let Some(rejected) = rejected {
            message.push_str(&format!(" ({} was left out: {})", rejected.path.display(), rejected.reason));
        }
        message
    }

    /// What is configured and checked, and does nothing in this version.
    fn not_built(&mut self) {
        const SECTIONS: [(&str, &[&str]); 3] =
            [("webhooks", &["webhooks", "endpoints"]), ("relay", &["instances"]), ("relay", &["remote_ingress"])];
        for (category, path) in SECTIONS {
            self.warn_not_built(category, path);
        }
    }

    fn warn_not_built(&mut self, category: &'static str, path: &[&str]) {
        let is_empty = |node: &Node| node.entries().is_empty() && node.items().is_empty();
        if self.loaded.merged.find(path).is_some_and(|node| !is_empty(node)) {
            let shown = self.loaded.merged.shown_path(path);
            let message = format!("{shown} is checked, but this version does nothing with it yet");
            let problem = self.problem(category, path, message);
            self.report.warnings.push(problem);
        }
    }

    /// Who gets whose secrets, as far as that looks like a mistake.
    fn principals(&mut self) {
        let loaded = self.loaded;
        let mut taken: HashMap<&str, String> = HashMap::new();
        for (name, config) in loaded.config.plugins.iter().filter(|(_, config)| config.enabled) {
            let shown = loaded.merged.shown_key(&["plugins", name]);
            let written = ["plugins", name.as_str(), "vault_principal"];
            let principal = config.vault_principal.as_deref().unwrap_or(name);
            let named = loaded.merged.shown(&written).unwrap_or_else(|| format!("{shown:?}"));
            let mut found = Vec::new();
            if config.vault_principal.is_none() && config.requires_vault && !may_act_as(name) {
                found.push(format!(
                    "plugin {shown:?} requires the vault, but its name is no name of a principal; set vault_principal"
                ));
            }
            if let Some(first) = taken.insert(principal, shown.clone()) {
                found.push(format!(
                    "plugins {first:?} and {shown:?} get the same secrets: both act as principal {named}"
                ));
            }
            match self.standing(principal) {
                Standing::Unregistered if config.vault_principal.is_some() => {
                    found.push(format!("plugin {shown:?}: vault_principal {named} is not registered in the vault"));
                }
                Standing::Consumer => found.push(format!(
                    "plugin {shown:?} acts as principal {named}, which is registered as a consumer and not as a plugin"
                )),
                Standing::Unregistered | Standing::Plugin | Standing::Gateway | Standing::Untold => {}
            }
            for message in found {
                let problem = self.problem("plugin_refs", &written, message);
                self.report.warnings.push(problem);
            }
        }
    }

    fn standing(&self, principal: &str) -> Standing {
        match &self.loaded.vault {
            Vault::Open(projection) => projection.standing(principal),
            Vault::Blind | Vault::Absent => Standing::Untold,
        }
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
            let token = format!("[{token}]");
            // None for words that come from a file.
            let list = loaded.merged.find(&["api", "auth", "tokens", token.as_str(), "scopes"]);
            let written: Vec<_> = list.map(|list| list.scalars().collect()).unwrap_or_default();
            for (index, word) in entry.scopes.iter().enumerate() {
                let Some(found) = check_scope(word, self.registry) else { continue };
                let (index, scalar) = written.get(index).map_or((index, None), |(at, scalar)| (*at, Some(*scalar)));
                let message = match scalar.filter(|scalar| !scalar.vars.is_empty()) {
                    Some(scalar) => format!("scope {}: its value is not a scope that grants anything", scalar.shown()),
                    None => found.message,
                };
                let scope = format!("[{index}]");
                let path = ["api", "auth", "tokens", token.as_str(), "scopes", scope.as_str()];
                let problem = self.problem("token_scopes", &path, message);
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

/// Whether a plugin may act as the principal of that name.
fn may_act_as(name: &str) -> bool {
    is_principal(name) && name != CORE_PRINCIPAL
}

/// Whether an address is only reachable from this machine.
pub(crate) fn is_loopback(listen: &ListenAddr) -> bool {
    listen.host.eq_ignore_ascii_case("localhost")
        || listen.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

//! Plugins to compile against, for tests and fuzzers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Compiled, Input, Pipelines, compile};
use crate::load::{Files, Taint, json as as_json};
use crate::registry::Registry;
use crate::yaml::{Node, parse};
use crate::{Command, CommandType, Manifest, Plugin, PluginConfig};

/// Plugins and how they are configured.
pub(crate) struct World {
    registry: Registry,
    plugins: BTreeMap<String, PluginConfig>,
}

impl World {
    /// Enabled plugins with the commands `poll` and `handle`.
    pub(crate) fn new(names: &[&str]) -> Self {
        let world = Self { registry: Registry::default(), plugins: BTreeMap::new() };
        names.iter().fold(world, |world, name| world.plugin(name, &["poll", "handle"], json!({"enabled": true})))
    }

    pub(crate) fn plugin(mut self, name: &str, commands: &[&str], config: Value) -> Self {
        let command = |name: &&str| Command {
            name: (*name).to_owned(),
            kind: CommandType::Write,
            description: None,
            idempotent: None,
            retry_safe: None,
            input_schema: None,
            output_schema: None,
            emits: Vec::new(),
        };
        let manifest = Manifest {
            name: name.to_owned(),
            version: "1".to_owned(),
            description: None,
            concurrency_safe: true,
            commands: commands.iter().map(command).collect(),
            fact_outputs: Vec::new(),
            required_config_keys: Vec::new(),
            stopwatch_max_subs: 1,
            path: "/p/manifest.yaml".into(),
            bytes: Arc::from([]),
        };
        let plugin = Plugin {
            name: name.to_owned(),
            uses: None,
            manifest: Arc::new(manifest),
            dir: "/p".into(),
            entrypoint: "/p/run".into(),
        };
        self.registry.plugins.insert(name.to_owned(), Arc::new(plugin));
        let mut whole = json!({
            "enabled": false, "requires_vault": false, "config": {}, "timeouts": {}, "max_outstanding_polls": 1,
            "retry": {"max_attempts": 4, "backoff_base": "30s"}, "notify_on_complete": false,
            "circuit_breaker": {"threshold": 3, "reset_after": "30m"},
        });
        for (key, value) in config.as_object().unwrap() {
            whole[key] = value.clone();
        }
        self.plugins.insert(name.to_owned(), serde_json::from_value(whole).unwrap());
        self
    }

    /// Compiles one file.
    pub(crate) fn compile(&self, text: &str) -> Compiled {
        self.compile_node(&parse(text.as_bytes(), 0).unwrap())
    }

    /// Compiles what was read from one file.
    pub(crate) fn compile_node(&self, merged: &Node) -> Compiled {
        let mut files = Files::default();
        files.add("/c/config.yaml".into(), Vec::new());
        let input = Input {
            files: &files,
            merged,
            effective: &as_json(merged),
            taint: &Taint::default(),
            known: Vec::new(),
            plugins: &self.plugins,
            registry: &self.registry,
        };
        compile(&input)
    }

    /// Compiles one file without a mistake.
    pub(crate) fn pipelines(&self, text: &str) -> Arc<Pipelines> {
        let compiled = self.compile(text);
        assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
        compiled.pipelines
    }

    /// What is wrong with a file, one a line.
    pub(crate) fn errors(&self, text: &str) -> Vec<String> {
        let compiled = self.compile(text);
        assert!(compiled.pipelines.is_empty());
        compiled.errors.iter().map(ToString::to_string).collect()
    }
}

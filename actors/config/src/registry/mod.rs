//! The plugin registry: discovery, manifests, aliases.
//!
//! A candidate directory is judged alone: one bad plugin is left out with its reason and never disturbs the others.
//! What the operator wrote (roots, aliases) is judged strictly: a mistake there refuses the whole load.

mod alias;
mod commands;
mod discover;
mod facts;
mod manifest;
mod schema;
mod trust;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use alias::Shown;
pub(crate) use discover::{Discovery, discover};

/// The only version of the plugin protocol that is spoken.
pub(crate) const PROTOCOL: u64 = 2;

/// A plugin under its configured name; an alias has its own.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Manifest name, or the alias.
    pub name: String,
    /// For an alias: the name it was told to use.
    pub uses: Option<String>,
    /// What the plugin says about itself.
    pub manifest: Arc<Manifest>,
    /// Its directory.
    pub dir: PathBuf,
    /// Its executable, absolute.
    pub entrypoint: PathBuf,
}

/// A checked `manifest.yaml`.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Identity.
    pub name: String,
    /// Free text, as written.
    pub version: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether two of its jobs may run together.
    pub concurrency_safe: bool,
    /// In manifest order, at least one.
    pub commands: Vec<Command>,
    /// What becomes a fact.
    pub fact_outputs: Vec<FactRule>,
    /// Keys that must be present and not null in `config`.
    pub required_config_keys: Vec<String>,
    /// Sub-spans kept, 1 to 256.
    pub stopwatch_max_subs: u32,
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

impl Manifest {
    /// The command of that name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == name)
    }
}

/// One command of a manifest.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its name.
    pub name: String,
    /// Whether it has side effects outside.
    pub kind: CommandType,
    /// Free text.
    pub description: Option<String>,
    /// Published hint.
    pub idempotent: Option<bool>,
    /// Published hint.
    pub retry_safe: Option<bool>,
    /// Full JSON Schema of the input.
    pub input_schema: Option<serde_json::Value>,
    /// Full JSON Schema of the output.
    pub output_schema: Option<serde_json::Value>,
    /// Types of the events that it may emit, as documented.
    pub emits: Vec<String>,
}

/// `type` of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandType {
    /// No external side effects.
    Read,
    /// Anything else.
    Write,
}

impl CommandType {
    /// The word of the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// One entry of `fact_outputs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactRule {
    /// Command whose `state_updates` become the fact.
    pub command: String,
    /// Type of the fact.
    pub fact_type: String,
}

/// A directory that looked like a plugin and was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The directory.
    pub path: PathBuf,
    /// Manifest name, when it could be read.
    pub name: Option<String>,
    /// Why.
    pub reason: String,
}

/// All plugins of a plan, by configured name.
#[derive(Debug, Default)]
pub struct Registry {
    pub(crate) plugins: BTreeMap<String, Arc<Plugin>>,
    pub(crate) rejected: Vec<Rejected>,
}

impl Registry {
    /// The plugin or alias of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.plugins.get(name)
    }

    /// All plugins and aliases, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.values()
    }

    /// What was left out, and why.
    #[must_use]
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// The rejected directory that explains why `name` was not discovered: by manifest name, else by directory name.
    #[must_use]
    pub fn rejection_of(&self, name: &str) -> Option<&Rejected> {
        let by_manifest = self.rejected.iter().find(|rejected| rejected.name.as_deref() == Some(name));
        by_manifest.or_else(|| self.rejected.iter().find(|rejected| rejected.path.file_name() == Some(name.as_ref())))
    }

    /// Logs what was loaded. Separate from discovery, so that looking at a configuration stays quiet.
    pub fn log(&self) {
        for plugin in self.iter() {
            match &plugin.uses {
                None => tracing::info!(
                    plugin = %plugin.name,
                    path = %plugin.dir.display(),
                    version = %plugin.manifest.version,
                    protocol = PROTOCOL,
                    "loaded plugin"
                ),
                Some(uses) => {
                    tracing::info!(plugin = %plugin.name, uses = %uses, "plugin alias registered");
                }
            }
        }
    }
}

//! A plan: everything a generation needs to know, made once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ductile_model::{Problem, Refusal, Secret, SnapshotId};
use ductile_timetable::Entry;

use crate::doctor::{self, Report};
use crate::load::{self, Loaded};
use crate::pipelines::{self, Compiled, Pipelines};
use crate::registry::Shown;
use crate::symlinks::{self, Link};
use crate::{Config, Plugin, PluginConfig, Registry, Scopes, admission, registry, snapshot};

/// How the root file was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// By a flag.
    Explicit,
    /// By `DUCTILE_CONFIG_DIR`.
    Env,
    /// By looking in the usual places.
    AutoDiscovered,
}

impl SourceKind {
    /// The word in logs, answers and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Env => "env",
            Self::AutoDiscovered => "auto-discovered",
        }
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The first file read, absolute.
    pub root_file: PathBuf,
    /// Its directory.
    pub config_dir: PathBuf,
    /// How it was chosen.
    pub kind: SourceKind,
}

/// The environment a load may look at. A parameter, so that tests need not touch the process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Process variables that are valid UTF-8.
    pub vars: BTreeMap<String, String>,
    /// Home directory, from `HOME` or the account database.
    pub home: Option<PathBuf>,
}

/// Where the vault and its key may lie, after merge and path resolution.
#[derive(Debug, Clone)]
pub struct VaultPlaces {
    /// The blob.
    pub vault_file: PathBuf,
    /// A key named by variable or key: it must be there.
    pub named_key: Option<PathBuf>,
    /// Default places, first match wins, none = no key.
    pub default_keys: Vec<PathBuf>,
}

/// Opens the vault for a load. Implemented above, so that this crate needs no cryptography.
pub trait SecretProvider: Send + Sync {
    /// Called at most once per load, after the merge. `None`: there is no vault (or, for an inspecting load, no key).
    ///
    /// # Errors
    /// Key or blob refused; the problem names path and remedy.
    fn open(&self, places: &VaultPlaces, purpose: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem>;
}

/// The names and values the gateway itself may use from the vault.
pub trait SecretProjection: Send + Sync {
    /// Value of an active, visible secret, or why there is none (`revoked`, `not in the vault`, …).
    ///
    /// # Errors
    /// The cause in words, never a value.
    fn resolve(&self, name: &str) -> Result<Secret, &'static str>;

    /// Key for one-way fingerprints of values.
    fn fingerprint_key(&self) -> [u8; 32];

    /// What a principal is registered as. Who does not tell is not asked again.
    fn standing(&self, _principal: &str) -> Standing {
        Standing::Untold
    }
}

/// What a principal of the vault is registered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A plugin.
    Plugin,
    /// Somebody who reads secrets for the configuration.
    Consumer,
    /// The gateway itself.
    Gateway,
    /// Nothing.
    Unregistered,
    /// The vault does not say.
    Untold,
}

/// What a load is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A start or a reload: everything must resolve.
    Admitting,
    /// Looking only: what can not be resolved is a warning.
    Inspecting,
}

/// What runs, decided once per start or reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posture {
    /// API with at least one token.
    Gateway,
    /// API wanted, no token yet, vault present: only secrets can be managed.
    ManagementOnly,
    /// No API.
    Closed,
}

impl Posture {
    /// The word in logs and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::ManagementOnly => "management-only",
            Self::Closed => "closed",
        }
    }
}

/// A resolved API token. The value itself is not kept.
#[derive(Debug, Clone)]
pub struct ApiToken {
    /// Configured name, else the first 8 hex digits of the digest.
    pub label: String,
    /// BLAKE3 of the bearer value.
    pub digest: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
}

/// Content of the row that is recorded when a generation becomes active. JSON columns are text.
#[derive(Debug, Clone)]
pub struct SnapshotRecord {
    /// Fresh id.
    pub id: SnapshotId,
    /// `blake3:…` over the effective configuration.
    pub config_hash: String,
    /// `blake3:…` over the bytes read.
    pub source_hash: String,
    /// Root file.
    pub source_path: String,
    /// `explicit`, `env` or `auto-discovered`.
    pub source: &'static str,
    /// `semantics` column.
    pub semantics: String,
    /// `plugin_fingerprints` column.
    pub plugin_fingerprints: String,
    /// `sanitized_config` column.
    pub sanitized_config: String,
    /// `secret_fingerprints` column.
    pub secret_fingerprints: String,
}

/// Everything a generation knows about its configuration. Immutable.
#[derive(Debug)]
pub struct Plan {
    /// Where it came from.
    pub source: Source,
    /// All files read, sorted.
    pub files: Vec<PathBuf>,
    /// What it says.
    pub config: Config,
    /// What it can run.
    pub registry: Registry,
    /// What runs after an event. Empty in a plan that was made only to look at and has errors in its pipelines.
    pub pipelines: Arc<Pipelines>,
    /// What is due by itself: schedules of enabled plugins, in the order of plugin names and then as configured.
    pub schedules: Arc<[Arc<Entry>]>,
    /// Who may call.
    pub tokens: Vec<ApiToken>,
    /// What runs.
    pub posture: Posture,
    /// What is worth a warning: unknown keys, left-over variables, rejected plugins, …
    pub warnings: Vec<Problem>,
    /// What the doctor calls an error but no gate refuses.
    pub doctor_errors: Vec<Problem>,
    /// Process environment plus the overlay of this load's environment files.
    pub environment: BTreeMap<String, String>,
    /// The row recorded on activation.
    pub snapshot: SnapshotRecord,
}

/// Why a job of this plugin and command can not run, in the words of its `last_error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Neither discovered nor an alias.
    #[error("plugin {0:?} not found in registry")]
    NotFound(String),
    /// Discovered, but without `enabled: true`.
    #[error("plugin {0:?} is not enabled")]
    NotEnabled(String),
    /// Keys its manifest requires are missing.
    #[error("plugin {plugin:?} is missing required config keys: {}", keys.join(", "))]
    MissingKeys {
        /// Configured name.
        plugin: String,
        /// What is missing.
        keys: Vec<String>,
    },
    /// The manifest has no such command.
    #[error("plugin {plugin:?} does not support command {command:?}")]
    NoCommand {
        /// Configured name.
        plugin: String,
        /// What was asked for.
        command: String,
    },
}

impl Plan {
    /// Plugin, its configuration and its command, when that can run.
    ///
    /// # Errors
    /// Why it can not.
    pub fn runnable(
        &self,
        plugin: &str,
        command: &str,
    ) -> Result<(&Arc<Plugin>, &PluginConfig, &crate::Command), Unavailable> {
        let found = self.registry.get(plugin).ok_or_else(|| Unavailable::NotFound(plugin.to_owned()))?;
        let config = self.config.plugins.get(plugin).filter(|config| config.enabled);
        let config = config.ok_or_else(|| Unavailable::NotEnabled(plugin.to_owned()))?;
        let keys = doctor::missing_keys(&found.manifest, config);
        if !keys.is_empty() {
            return Err(Unavailable::MissingKeys { plugin: plugin.to_owned(), keys });
        }
        let command = found
            .manifest
            .command(command)
            .ok_or_else(|| Unavailable::NoCommand { plugin: plugin.to_owned(), command: command.to_owned() })?;
        Ok((found, config, command))
    }

    /// How many jobs of this configured name may run at once.
    #[must_use]
    pub fn lane_cap(&self, plugin: &str) -> u32 {
        lane_cap(&self.config, &self.registry, plugin)
    }
}

/// What is written, else 1 for a plugin that must not run beside itself, else all workers.
pub(crate) fn lane_cap(config: &Config, registry: &Registry, plugin: &str) -> u32 {
    let workers = config.service.max_workers.max(1);
    let written = config.plugins.get(plugin).and_then(|config| config.parallelism);
    let serial = registry.get(plugin).is_some_and(|plugin| !plugin.manifest.concurrency_safe);
    written.unwrap_or(if serial { 1 } else { workers }).clamp(1, workers)
}

/// Everything up to the gates, which only an admitting load passes through.
pub(crate) struct Prepared {
    pub(crate) loaded: Loaded,
    pub(crate) registry: Registry,
    pub(crate) doctor: Report,
    pub(crate) compiled: Compiled,
    /// Schedules that can never run.
    pub(crate) unrunnable: Vec<Problem>,
    pub(crate) links: Vec<Link>,
}

/// The full procedure from files to a plan.
///
/// # Errors
/// All problems of the first phase that has one.
pub fn plan(
    source: &Source,
    env: &Environment,
    secrets: &dyn SecretProvider,
    purpose: Purpose,
) -> Result<Plan, Refusal> {
    let loaded =
        load::load(source, env, secrets, purpose).map_err(|failed| Refusal::rejected("load", failed.problems))?;
    let prepared = prepare(source, loaded, purpose)?;
    if purpose == Purpose::Admitting {
        let mut problems = admission::refusals(&prepared);
        // No gate is needed for these: a pipeline or a schedule that is wrong is never left out in silence.
        problems.extend(prepared.compiled.errors.iter().chain(&prepared.unrunnable).cloned());
        if !problems.is_empty() {
            return Err(Refusal::rejected("admission", problems));
        }
    }
    Ok(finish(source, prepared))
}

/// A configuration and its plugins, but none of its secrets.
#[derive(Debug)]
pub struct Outline {
    /// What it says.
    pub config: Config,
    /// What it can run.
    pub registry: Registry,
    /// Schedules of enabled plugins, in the order of plugin names and then as configured.
    pub schedules: Arc<[Arc<Entry>]>,
}

/// Reads a configuration for commands that only check names against it. Works without the key to its secrets.
///
/// # Errors
/// All problems of the first phase that has one.
pub fn outline(source: &Source, env: &Environment) -> Result<Outline, Refusal> {
    let understood =
        load::read(source, env, &mut Vec::new()).map_err(|problems| Refusal::rejected("load", problems))?;
    let schedules = understood.schedules().map_err(|problems| Refusal::rejected("load", problems))?;
    let config = understood.config;
    let shown = Shown::of(&understood.merged);
    let allowed = config.service.allow_symlinks;
    let found = registry::discover(&config.plugin_roots, &config.plugins, &shown, allowed)
        .map_err(|problems| Refusal::rejected("plugins", problems))?;
    Ok(Outline { config, registry: found.registry, schedules })
}

/// Symlinks, plugins and the doctor, for a configuration that loads.
pub(crate) fn prepare(source: &Source, mut loaded: Loaded, purpose: Purpose) -> Result<Prepared, Refusal> {
    let files = loaded.files.0.iter().map(|file| file.path.as_path());
    let links = symlinks::scan(source, files);
    let allowed = loaded.config.service.allow_symlinks;
    let refused: Vec<_> = links.iter().filter_map(|link| link.refusal(allowed)).collect();
    if purpose == Purpose::Admitting && !refused.is_empty() {
        return Err(Refusal::rejected("symlinks", refused));
    }
    loaded.warnings.extend(links.iter().map(Link::warning));
    let config = &loaded.config;
    let shown = Shown::of(&loaded.merged);
    let discovered = registry::discover(&config.plugin_roots, &config.plugins, &shown, allowed)
        .map_err(|problems| Refusal::rejected("plugins", problems))?;
    let registry::Discovery { registry, warnings } = discovered;
    loaded.warnings.extend(warnings);
    let mut doctor = doctor::examine(&loaded, &registry);
    loaded.warnings.append(&mut doctor.warnings);
    let unrunnable = doctor::unrunnable(&loaded, &registry);
    let mut compiled = pipelines::compile(&pipelines::Input {
        files: &loaded.files,
        merged: &loaded.merged,
        effective: &loaded.effective,
        taint: &loaded.taint,
        known: snapshot::known_values(&loaded),
        plugins: &loaded.config.plugins,
        registry: &registry,
    });
    loaded.warnings.append(&mut compiled.warnings);
    Ok(Prepared { loaded, registry, doctor, compiled, unrunnable, links })
}

fn finish(source: &Source, prepared: Prepared) -> Plan {
    let Prepared { loaded, registry, mut doctor, compiled, unrunnable, .. } = prepared;
    doctor.errors.extend(compiled.errors);
    doctor.errors.extend(unrunnable);
    let snapshot = snapshot::record(source, &loaded, &registry);
    let mut files: Vec<_> = loaded.files.0.iter().map(|file| file.path.clone()).collect();
    files.sort();
    Plan {
        source: source.clone(),
        files,
        config: loaded.config,
        registry,
        pipelines: compiled.pipelines,
        schedules: loaded.schedules,
        tokens: loaded.tokens,
        posture: loaded.posture,
        warnings: loaded.warnings,
        doctor_errors: doctor.errors,
        environment: loaded.environment,
        snapshot,
    }
}

//! From files to a checked effective configuration.
//!
//! The phases run in order and a phase with a problem ends the load after all its problems have been found. Nothing
//! outside the memory of the load changes.

mod collect;
mod convert;
mod envfile;
mod fill;
pub(crate) mod interpolate;
mod leftover;
mod merge;
mod needs;
pub(crate) mod paths;
mod references;
mod schedules;
mod shape;
mod tokens;
mod validate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ductile_model::{Problem, Refusal, Secret};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use collect::Files;
pub(crate) use convert::{json, listen};
pub(crate) use fill::Taint;
pub(crate) use interpolate::is_name;

use crate::Config;
use crate::keys;
use crate::plan::{ApiToken, Environment, Posture, Purpose, SecretProjection, SecretProvider, Source, VaultPlaces};
use crate::yaml::{Data, Entry, Node};

/// A configuration that passed every check which needs no plugins.
pub(crate) struct Loaded {
    pub(crate) files: Files,
    pub(crate) merged: Node,
    pub(crate) effective: Value,
    pub(crate) taint: Taint,
    pub(crate) config: Config,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) tokens: Vec<ApiToken>,
    pub(crate) secrets: Vec<UsedSecret>,
    pub(crate) vault: Vault,
    pub(crate) posture: Posture,
    /// Those of enabled plugins, in the order of plugin names and then as configured.
    pub(crate) schedules: Arc<[Arc<ductile_timetable::Entry>]>,
    pub(crate) warnings: Vec<Problem>,
}

/// A load that ended early.
pub(crate) struct Failed {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// A secret that the configuration names.
pub(crate) struct UsedSecret {
    /// Dotted path of the key that names it, as it was written.
    pub(crate) purpose: String,
    /// Its name, as it was written.
    pub(crate) name: String,
    /// Where it was found.
    pub(crate) origin: SecretOrigin,
    /// What it is, when it was found.
    pub(crate) value: Option<Secret>,
}

/// Which table answered for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretOrigin {
    Vault,
    LegacyTable,
}

/// What a load knows about the vault.
pub(crate) enum Vault {
    /// Decrypted.
    Open(Arc<dyn SecretProjection>),
    /// There is a blob, but a load that only looks has no key.
    Blind,
    /// None was made yet.
    Absent,
}

impl Vault {
    pub(crate) fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// Reads, merges and checks.
pub(crate) fn load(
    source: &Source,
    env: &Environment,
    provider: &dyn SecretProvider,
    purpose: Purpose,
) -> Result<Loaded, Failed> {
    let mut warnings = Vec::new();
    run(source, env, provider, purpose, &mut warnings)
        .map_err(|problems| Failed { problems: placed(problems), warnings })
}

/// Problems in the order of files and lines.
fn placed(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    problems
}

fn run(
    source: &Source,
    env: &Environment,
    provider: &dyn SecretProvider,
    purpose: Purpose,
    warnings: &mut Vec<Problem>,
) -> Result<Loaded, Vec<Problem>> {
    let Understood { mut files, merged, mut effective, taint, mut config, environment } = read(source, env, warnings)?;
    let vault = open_vault(source, env, &config, provider, purpose)?;
    let mut problems = Vec::new();
    let bases = convert::Bases { config_dir: &source.config_dir, home: env.home.as_deref() };
    tokens::read_scope_files(&mut files, &merged, &mut effective, bases, &mut problems, warnings);
    config.api.tokens = decode(&effective)?.api.tokens;
    let context = Context { files: &files, merged: &merged, config: &config, vault: &vault, purpose };
    let mut secrets = Vec::new();
    validate::validate(&context, &mut problems, warnings);
    needs::check(&context, &effective, &mut problems);
    let schedules = schedules::compile(&context, &effective, &mut problems, warnings);
    let tokens = tokens::resolve(&context, &mut secrets, &mut problems, warnings);
    references::resolve(&context, &mut secrets, &mut problems, warnings);
    stop_at(problems)?;

    let posture = posture(&config, &vault);
    let warnings = std::mem::take(warnings);
    Ok(Loaded {
        files,
        merged,
        effective,
        taint,
        config,
        environment,
        tokens,
        secrets,
        vault,
        posture,
        schedules,
        warnings,
    })
}

/// What the files say together, before any rule between keys and before the vault.
pub(crate) struct Understood {
    pub(crate) files: Files,
    pub(crate) merged: Node,
    pub(crate) effective: Value,
    pub(crate) taint: Taint,
    pub(crate) config: Config,
    environment: BTreeMap<String, String>,
}

impl Understood {
    /// The schedules of enabled plugins; nothing else is checked.
    pub(crate) fn schedules(&self) -> Result<Arc<[Arc<ductile_timetable::Entry>]>, Vec<Problem>> {
        let Self { files, merged, effective, config, .. } = self;
        let context = Context { files, merged, config, vault: &Vault::Absent, purpose: Purpose::Inspecting };
        let mut problems = Vec::new();
        let schedules = schedules::compile(&context, effective, &mut problems, &mut Vec::new());
        stop_at(placed(problems)).map(|()| schedules)
    }
}

pub(crate) fn read(
    source: &Source,
    env: &Environment,
    warnings: &mut Vec<Problem>,
) -> Result<Understood, Vec<Problem>> {
    if source.root_file.to_str().is_none() {
        let message = "the path of the configuration is not valid UTF-8";
        return Err(vec![Problem::new("load", message).at_file(source.root_file.clone(), None)]);
    }
    let mut collected = collect::collect(source, env);
    warnings.append(&mut collected.warnings);
    stop_at(std::mem::take(&mut collected.problems))?;
    let variables = collected.variables(env)?;
    let collect::Collected { files, trees, .. } = collected;
    let bases = convert::Bases { config_dir: &source.config_dir, home: env.home.as_deref() };
    let trees = understand(trees, &variables, &files, bases, warnings)?;
    let merged = merge::merge(trees, keys::root(), &files, warnings);
    let environment = variables.all();
    stop_at(leftover::check(&merged, &files, warnings))?;
    let fill::Effective { value: effective, taint } = fill::fill(&merged, bases, &files, warnings);
    let config = decode(&effective)?;
    Ok(Understood { files, merged, effective, taint, config, environment })
}

/// Where a configuration keeps its vault and the key to it. Works before there is a vault, when a whole load would
/// still be refused because nothing that it names can be found.
///
/// # Errors
/// All problems of the first phase that has one.
pub fn vault_places(source: &Source, env: &Environment) -> Result<VaultPlaces, Refusal> {
    let found = read(source, env, &mut Vec::new())
        .and_then(|understood| places(source, env, &understood.config).map_err(|problem| vec![problem]));
    found.map_err(|problems| Refusal::rejected("load", problems))
}

/// Where a configuration keeps its state. Works as early as [`vault_places`]: no secret needs to be found for it.
///
/// # Errors
/// All problems of the first phase that has one.
pub fn state_path(source: &Source, env: &Environment) -> Result<PathBuf, Refusal> {
    let understood = read(source, env, &mut Vec::new()).map_err(|problems| Refusal::rejected("load", problems))?;
    Ok(understood.config.state.path)
}

/// What the checks of the last phase look at.
pub(crate) struct Context<'c> {
    files: &'c Files,
    merged: &'c Node,
    config: &'c Config,
    vault: &'c Vault,
    purpose: Purpose,
}

impl Context<'_> {
    /// A problem at the deepest part of a path that was written.
    fn problem(&self, category: &'static str, path: &[&str], message: impl Into<String>) -> Problem {
        let problem = Problem::new(category, message).at_field(self.merged.shown_path(path));
        self.files.at(problem, self.merged.place_of(path))
    }

    /// The scalar at a path as a message quotes it; `default` when none was written there.
    fn shown(&self, path: &[&str], default: &str) -> String {
        self.merged.shown(path).unwrap_or_else(|| format!("{default:?}"))
    }

    /// An entry with what a person calls it.
    fn called(&self, entry: &[&str]) -> String {
        let node = self.merged.find(entry);
        let name = ["path", "name"].iter().find_map(|key| Some(node?.get(key)?.scalar()?.written()));
        let place = self.merged.shown_path(entry);
        name.map_or_else(|| place.clone(), |name| format!("{place} ({name})"))
    }

    /// The vault exists and is to be filled through the gateway itself: there is no API token yet.
    fn is_bootstrap(&self) -> bool {
        self.config.api.enabled && self.config.api.tokens.is_empty() && self.vault.is_present()
    }

    /// Whether a secret that can not be found is only worth a warning.
    fn tolerates_missing_secrets(&self) -> bool {
        let blind = matches!(self.vault, Vault::Blind) && self.purpose == Purpose::Inspecting;
        blind || self.is_bootstrap()
    }
}

/// Joins segments; an index stands directly behind its list.
pub(crate) fn dotted(path: &[&str]) -> String {
    let mut joined = String::new();
    for segment in path {
        if !joined.is_empty() && !segment.starts_with('[') {
            joined.push('.');
        }
        joined.push_str(segment);
    }
    joined
}

fn stop_at(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Substitutes variables and checks types, file by file.
fn understand(
    mut trees: Vec<Node>,
    variables: &interpolate::Variables<'_>,
    files: &Files,
    bases: convert::Bases<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<Node>, Vec<Problem>> {
    let mut shape = shape::Shape { files, bases, problems: Vec::new(), ignored: Vec::new() };
    for tree in &mut trees {
        let mut faults = Vec::new();
        interpolate::interpolate(tree, variables, &mut faults);
        let file = tree.place.file;
        let faults = faults.into_iter().map(|f| files.fault(crate::yaml::Place { file, line: f.line }, f.message));
        shape.problems.extend(faults);
        wrap_endpoint_list(tree);
        shape.check(keys::root(), tree, "");
    }
    warnings.append(&mut shape.ignored);
    stop_at(shape.problems)?;
    Ok(trees)
}

/// `webhooks` may be a bare list of endpoints.
fn wrap_endpoint_list(tree: &mut Node) {
    let Data::Map(entries) = &mut tree.data else { return };
    let Some(webhooks) = entries.iter_mut().find(|entry| entry.key.text == "webhooks") else { return };
    if matches!(webhooks.value.data, Data::List(_)) {
        let place = webhooks.value.place;
        let list = std::mem::replace(&mut webhooks.value, Node::empty_map(place));
        let key = crate::scalar::Scalar::new("endpoints".to_owned(), true);
        webhooks.value.data = Data::Map(vec![Entry { key, place, value: list }]);
    }
}

fn decode(effective: &Value) -> Result<Config, Vec<Problem>> {
    let mut config = Config::deserialize(effective).map_err(|error| {
        vec![Problem::new("load", format!("the checked configuration does not decode ({error}); this is a defect"))]
    })?;
    let mut seen = std::collections::HashSet::new();
    config.plugin_roots.retain(|root| seen.insert(root.clone()));
    Ok(config)
}

fn open_vault(
    source: &Source,
    env: &Environment,
    config: &Config,
    provider: &dyn SecretProvider,
    purpose: Purpose,
) -> Result<Vault, Vec<Problem>> {
    let places = places(source, env, config).map_err(|problem| vec![problem])?;
    let opened = provider.open(&places, purpose).map_err(|problem| vec![problem])?;
    Ok(match opened {
        Some(projection) => Vault::Open(projection),
        None if purpose == Purpose::Inspecting && places.vault_file.exists() => Vault::Blind,
        None => Vault::Absent,
    })
}

fn places(source: &Source, env: &Environment, config: &Config) -> Result<VaultPlaces, Problem> {
    let home = env.home.as_deref();
    let variable = env.vars.get("DUCTILE_AGE_KEY_FILE").filter(|value| !value.trim().is_empty());
    let from_variable = variable.map(|value| {
        let expanded = paths::expand(value.trim(), home)
            .and_then(|path| std::path::absolute(path).map_err(|error| error.to_string()));
        expanded
            .map(|path| paths::clean(&path))
            .map_err(|error| Problem::new("load", format!("DUCTILE_AGE_KEY_FILE can not be used: {error}")))
    });
    let mut default_keys = vec![source.config_dir.join("age.key")];
    default_keys.extend(home.map(|home| home.join(".config/ductile/age.key")));
    Ok(VaultPlaces {
        vault_file: config.secrets.vault_file.clone(),
        named_key: from_variable.transpose()?.or_else(|| config.secrets.age_key_file.clone()),
        default_keys,
    })
}

/// Decided here, once, for everybody.
fn posture(config: &Config, vault: &Vault) -> Posture {
    match (config.api.enabled, config.api.tokens.is_empty(), vault.is_present()) {
        (false, _, _) => Posture::Closed,
        (true, false, _) => Posture::Gateway,
        // Without a vault this is refused before it gets here.
        (true, true, _) => Posture::ManagementOnly,
    }
}

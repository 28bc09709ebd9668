//! Looking at the pipelines of a configuration without starting anything and without any of its secrets.

use std::sync::Arc;

use ductile_model::{Problem, Refusal, Secret};
use serde_json::Value;

use super::{Compiled, Input, Pipelines, compile};
use crate::load::{self, Understood};
use crate::plan::{Environment, Source};
use crate::registry::{self, Registry, Shown};
use crate::{Config, snapshot};

/// A configuration whose pipelines can be compiled.
pub struct PipelineDraft {
    understood: Understood,
    registry: Registry,
    ignored: Vec<Problem>,
}

/// What came of compiling.
#[derive(Debug)]
pub struct PipelineReport {
    /// Empty when there is an error.
    pub pipelines: Arc<Pipelines>,
    /// By file, then position.
    pub errors: Vec<Problem>,
    /// What a start would only log.
    pub warnings: Vec<Problem>,
}

/// Reads the files and discovers the plugins. Works without the key to the secrets of the configuration.
///
/// # Errors
/// All problems of the first phase that has one.
pub fn draft(source: &Source, env: &Environment) -> Result<PipelineDraft, Refusal> {
    let mut warnings = Vec::new();
    let understood = load::read(source, env, &mut warnings).map_err(|problems| Refusal::rejected("load", problems))?;
    let config = &understood.config;
    let shown = Shown::of(&understood.merged);
    let found = registry::discover(&config.plugin_roots, &config.plugins, &shown, config.service.allow_symlinks)
        .map_err(|problems| Refusal::rejected("plugins", problems))?;
    warnings.retain(|warning| warning.category == "strict_decode" && is_ours(&warning.field));
    Ok(PipelineDraft { understood, registry: found.registry, ignored: warnings })
}

/// Whether a key belongs to the lists that are looked at here.
fn is_ours(field: &str) -> bool {
    field.starts_with("pipelines[") || field.starts_with("routes[")
}

impl PipelineDraft {
    /// Compiles the pipelines.
    #[must_use]
    pub fn compile(&self) -> PipelineReport {
        let Understood { files, merged, effective, taint, config, .. } = &self.understood;
        let known = legacy_keys(effective);
        let plugins = &config.plugins;
        let input = Input { files, merged, effective, taint, known, plugins, registry: &self.registry };
        let Compiled { pipelines, errors, mut warnings } = compile(&input);
        warnings.extend(self.ignored.iter().cloned());
        PipelineReport { pipelines, errors, warnings }
    }

    /// What the configuration says.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.understood.config
    }

    /// The plugins that were found.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Secrets that stand in the configuration itself.
fn legacy_keys(effective: &Value) -> Vec<Secret> {
    snapshot::legacy_keys(effective).map(|key| Secret::new(key.to_owned())).collect()
}

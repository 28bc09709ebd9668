//! Which plugins want to be initialised.

use serde_json::Value;

use crate::Plan;
use crate::snapshot::canonical;

/// Name of the command that provisions a plugin.
const INIT: &str = "init";
/// Hex digits of the digest in a key.
const DIGITS: usize = 16;

/// A plugin instance whose manifest declares `init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitJob {
    /// Configured name.
    pub plugin: String,
    /// Changes when the manifest or the configuration of the instance changes: with it as dedupe key, `init` runs on
    /// first sight and after a change, not at every start.
    pub dedupe_key: String,
}

impl Plan {
    /// One job for each instance that is enabled, loaded and declares `init`.
    #[must_use]
    pub fn init_jobs(&self) -> Vec<InitJob> {
        let wanting = self.registry.iter().filter_map(|plugin| {
            let (plugin, config, _) = self.runnable(&plugin.name, INIT).ok()?;
            let config: Value = serde_json::from_str(config.config.get()).unwrap_or_default();
            let mut digest = blake3::Hasher::new();
            digest.update(&plugin.manifest.bytes).update(b"\0").update(canonical(&config).as_bytes());
            let digest = digest.finalize().to_hex();
            let dedupe_key = format!("{INIT}:{}:{}", plugin.name, &digest[..DIGITS]);
            Some(InitJob { plugin: plugin.name.clone(), dedupe_key })
        });
        wanting.collect()
    }
}

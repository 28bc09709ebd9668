//! The record of a configuration that becomes active.

use ductile_model::{Secret, SnapshotId};
use serde_json::{Map, Value, json};

use crate::Registry;
use crate::load::{Files, Loaded, SecretOrigin, UsedSecret, Vault};
use crate::plan::{SnapshotRecord, Source, lane_cap};
use crate::redact::{Hidden, REDACTED, Redacted, Redactor};

const FORMAT: u32 = 1;

/// Makes the record. Everything in it may be shown.
pub(crate) fn record(source: &Source, loaded: &Loaded, registry: &Registry) -> SnapshotRecord {
    let mut effective = loaded.effective.clone();
    complete(&mut effective, loaded, registry);
    let Redacted { value: sanitized, hidden } =
        Redactor::new(known_values(loaded)).configuration(&effective, &loaded.taint);
    let key = match &loaded.vault {
        Vault::Open(projection) => Some(projection.fingerprint_key()),
        Vault::Blind | Vault::Absent => None,
    };
    let fingerprints = secret_fingerprints(&loaded.secrets, &hidden, key.as_ref());
    let hashed = json!({
        "sanitized_config": sanitized,
        "secret_fingerprints": fingerprints,
        "snapshot_format": FORMAT,
    });
    SnapshotRecord {
        id: SnapshotId::generate(),
        config_hash: format!("blake3:{}", blake3::hash(canonical(&hashed).as_bytes()).to_hex()),
        source_hash: source_hash(&loaded.files),
        source_path: source.root_file.display().to_string(),
        source: source.kind.as_str(),
        semantics: canonical(&semantics()),
        plugin_fingerprints: canonical(&plugin_fingerprints(loaded, registry)),
        sanitized_config: canonical(&sanitized),
        secret_fingerprints: canonical(&fingerprints),
    }
}

/// JSON with sorted keys and without white space, so that equal values are equal texts.
pub(crate) fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
                Value::Object(entries.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

/// Defaults that only the plugin itself or its name can tell.
fn complete(effective: &mut Value, loaded: &Loaded, registry: &Registry) {
    let plugins = effective.get_mut("plugins").and_then(Value::as_object_mut);
    for (name, plugin) in plugins.into_iter().flatten() {
        if let Value::Object(plugin) = plugin {
            plugin.entry("vault_principal").or_insert_with(|| Value::from(name.as_str()));
            let cap = lane_cap(&loaded.config, registry, name);
            plugin.entry("parallelism").or_insert_with(|| Value::from(cap));
        }
    }
}

/// Values that must not be readable anywhere in the record.
pub(crate) fn known_values(loaded: &Loaded) -> Vec<Secret> {
    let named = loaded.secrets.iter().filter_map(|secret| secret.value.clone());
    named.chain(legacy_keys(&loaded.effective).map(|value| Secret::new(value.to_owned()))).collect()
}

/// Values that stand in the older table of named secrets.
pub(crate) fn legacy_keys(effective: &Value) -> impl Iterator<Item = &str> {
    let table = effective.get("tokens").and_then(Value::as_array);
    table.into_iter().flatten().filter_map(|entry| entry.get("key")?.as_str())
}

fn secret_fingerprints(used: &[UsedSecret], hidden: &[Hidden], key: Option<&[u8; 32]>) -> Value {
    let mut rows: Vec<Map<String, Value>> = Vec::with_capacity(used.len() + hidden.len());
    for secret in used {
        let origin = match secret.origin {
            SecretOrigin::Vault => "vault",
            SecretOrigin::LegacyTable => "tokens.yaml",
        };
        let value = secret.value.as_ref().map(Secret::expose);
        rows.push(row(&secret.purpose, Some(&secret.name), origin, value, key));
    }
    for found in hidden {
        let origin = match found.purpose.split(['.', '[']).next() {
            Some("tokens") => "tokens.yaml",
            Some("plugins") => "plugin_config",
            _ => "config",
        };
        let text = match &found.value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => canonical(other),
        };
        rows.push(row(&found.purpose, None, origin, Some(&text), key));
    }
    rows.sort_by_cached_key(|row| canonical(&json!([row.get("purpose"), row.get("ref"), row.get("source")])));
    Value::Array(rows.into_iter().map(Value::Object).collect())
}

fn row(
    purpose: &str,
    name: Option<&str>,
    origin: &str,
    value: Option<&str>,
    key: Option<&[u8; 32]>,
) -> Map<String, Value> {
    let value = value.filter(|value| !value.is_empty());
    let mut row = Map::new();
    row.insert("purpose".to_owned(), Value::from(purpose));
    row.extend(name.map(|name| ("ref".to_owned(), Value::from(name))));
    row.insert("source".to_owned(), Value::from(origin));
    row.insert("present".to_owned(), Value::from(value.is_some()));
    row.extend(value.map(|value| ("fingerprint".to_owned(), Value::from(fingerprint(purpose, value, key)))));
    row
}

/// One way. With a vault the key makes guessing useless to whoever has only the record.
fn fingerprint(purpose: &str, value: &str, key: Option<&[u8; 32]>) -> String {
    let (prefix, mut hasher) = match key {
        Some(key) => ("secretfp_blake3k:", blake3::Hasher::new_keyed(key)),
        None => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"ductile config secret fingerprint v1\0");
            ("secretfp_blake3:", hasher)
        }
    };
    hasher.update(purpose.as_bytes()).update(b"\0").update(value.as_bytes());
    format!("{prefix}{}", hasher.finalize().to_hex())
}

fn source_hash(files: &Files) -> String {
    let mut files: Vec<_> = files.0.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(file.path.as_os_str().as_encoded_bytes()).update(b"\0").update(&file.bytes).update(b"\0");
    }
    format!("blake3:{}", hasher.finalize().to_hex())
}

fn plugin_fingerprints(loaded: &Loaded, registry: &Registry) -> Value {
    let taint = &loaded.taint;
    let text = |text: &str, is_secret: bool| Value::from(if is_secret { REDACTED } else { text });
    let rows = loaded.config.plugins.iter().map(|(name, config)| {
        let reason = match registry.get(name) {
            Some(_) => "configured plugin missing from .checksums plugin_fingerprints",
            None => "configured plugin was not discovered",
        };
        let mut row = json!({
            "plugin": text(name, taint.keys.contains(["plugins", name].map(str::to_owned).as_slice())),
            "enabled": config.enabled,
            "available": false,
            "unavailable_reason": reason,
        });
        if let (Some(uses), Value::Object(row)) = (&config.uses, &mut row) {
            let is_secret = taint.values.contains(["plugins", name, "uses"].map(str::to_owned).as_slice());
            row.insert("uses".to_owned(), text(uses, is_secret));
        }
        row
    });
    rows.collect()
}

/// What this version promises about data that is stored.
fn semantics() -> Value {
    json!({
        "baggage_bulk_import": "author_namespace_required",
        "baggage_durability": "author_explicit_claims",
        "baggage_immutability": "deep_accretion_immutable_paths",
        "baggage_transition": "explicit_claims_only",
        "plugin_retry_field": "v2_boundary_compatibility_signal",
        "retry_policy_owner": "core",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vault writes this form too, from another tree. Both are held to the same cases.
    #[test]
    fn canonical_text_has_sorted_keys_and_keeps_numbers() {
        let cases: Value = serde_json::from_str(include_str!("../../model/testdata/canonical.json")).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        for case in cases {
            assert_eq!(canonical(&case["value"]), case["canonical"].as_str().unwrap());
        }
        assert!(cases.len() > 3);
    }

    #[test]
    fn fingerprints_depend_on_key_purpose_and_value() {
        let all = [
            fingerprint("p", "v", None),
            fingerprint("p", "w", None),
            fingerprint("q", "v", None),
            fingerprint("p", "v", Some(&[1; 32])),
            fingerprint("p", "v", Some(&[2; 32])),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all[0].starts_with("secretfp_blake3:") && all[3].starts_with("secretfp_blake3k:"));
    }
}

//! References to secrets, API tokens, posture, the record.

use std::sync::atomic::Ordering;

use super::site::Site;
use crate::{Posture, Purpose, plan};

const ONE_TOKEN: &str = "api: {enabled: true, auth: {tokens: [{name: a, secret_ref: tok, scopes: ['*']}]}}\n";

#[test]
fn an_api_token_is_kept_as_a_digest_only() {
    let site = Site::new().secret("tok", "bearer-value\n").config(ONE_TOKEN);
    let plan = site.plan().unwrap();
    assert_eq!(plan.posture, Posture::Gateway);
    assert_eq!(plan.tokens[0].label, "a");
    assert_eq!(plan.tokens[0].digest, *blake3::hash(b"bearer-value").as_bytes());
    assert!(!format!("{plan:?}").contains("bearer-value"));
    assert_eq!(site.vault.opened.load(Ordering::Relaxed), 1, "one load opens the vault once");
}

#[test]
fn a_literal_token_is_refused_naming_entry_and_remedy() {
    for token in ["abc", "\"${T}\"", "\"${UNSET}\"", ""] {
        let site = Site::new()
            .var("T", "abc")
            .config(&format!("api: {{enabled: true, auth: {{tokens: [{{token: {token}, scopes: ['*']}}]}}}}\n"));
        let refusal = site.refusal();
        assert!(
            refusal.contains(
                "api.auth.tokens[0]: a literal token value is not allowed; store it in the vault and use secret_ref"
            ),
            "{refusal}"
        );
        assert!(refusal.starts_with("refused: load: api.auth.tokens[0]"), "{refusal}");
    }
}

#[test]
fn a_token_without_a_usable_secret_is_refused_with_the_cause() {
    let refusal = |site: Site| site.config(ONE_TOKEN).refusal();
    let text = refusal(Site::new().empty_vault());
    assert!(text.contains("api.auth.tokens[0]: secret_ref \"tok\" not found in the vault"), "{text}");
    let text = refusal(Site::new().answer("tok", Err("revoked")));
    assert!(text.contains("api.auth.tokens[0]: secret_ref \"tok\" can not be used: revoked"), "{text}");
    let text = refusal(Site::new().secret("tok", " \n"));
    assert!(text.contains("has an empty value"), "{text}");
    let text = refusal(Site::new());
    assert!(text.contains("there is no vault at"), "{text}");
    let site = Site::new().empty_vault().config("api: {enabled: true, auth: {tokens: [{name: x}]}}\n");
    assert!(site.refusal().contains("api.auth.tokens[0]: secret_ref is required"));
}

#[test]
fn token_entries_are_checked_against_each_other() {
    let site = Site::new()
        .secret("t1", "same-value")
        .secret("t2", "same-value")
        .config("api: {enabled: true, auth: {tokens: [{name: a, secret_ref: t1}, {name: b, secret_ref: t2}]}}\n");
    let plan = site.plan().unwrap();
    assert_eq!(plan.tokens.len(), 1);
    let warnings = site.warnings();
    assert!(
        warnings.contains("api.auth.tokens[1] (\"b\") has the same value as api.auth.tokens[0] (\"a\")"),
        "{warnings}"
    );
    let site = Site::new()
        .secret("t1", "v1")
        .secret("t2", "v2")
        .config("api: {enabled: true, auth: {tokens: [{name: a, secret_ref: t1}, {name: a, secret_ref: t2}]}}\n");
    assert!(site.refusal().contains("name \"a\" is already taken by api.auth.tokens[0]"));
}

#[test]
fn scopes_come_from_the_list_or_from_a_checked_document() {
    let document = r#"{"scopes": ["jobs:ro"], "metadata": {"description": ""}}"#;
    let hash = format!("blake3:{}", blake3::hash(document.as_bytes()).to_hex());
    let entry = |rest: &str| format!("api: {{enabled: true, auth: {{tokens: [{{secret_ref: tok, {rest}}}]}}}}\n");
    let site = || Site::new().secret("tok", "v").file("scopes/a.json", document);
    let good = site().config(&entry(&format!("scopes_file: scopes/a.json, scopes_hash: '{hash}'")));
    let plan = good.plan().unwrap();
    assert_eq!(plan.config.api.tokens[0].scopes, ["jobs:ro"]);
    assert!(plan.files.contains(&good.path("scopes/a.json")));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    let unhashed = site().config(&entry("scopes_file: scopes/a.json"));
    assert!(unhashed.warnings().contains("scopes_file has no scopes_hash"));
    let wrong = site().config(&entry("scopes_file: scopes/a.json, scopes_hash: 'blake3:00'"));
    assert!(wrong.refusal().contains("does not match: expected blake3:00, found blake3:"));
    let both = site().config(&entry("scopes: [], scopes_file: scopes/a.json"));
    assert!(both.refusal().contains("api.auth.tokens[0]: scopes and scopes_file can not both be given"));
    let missing = site().config(&entry("scopes_file: scopes/none.json"));
    assert!(missing.refusal().contains("none.json"));
    let array = site().file("scopes/a.json", r#"["system:ro"]"#).config(&entry("scopes_file: scopes/a.json"));
    assert_eq!(array.plan().unwrap().config.api.tokens[0].scopes, ["system:ro"]);
    let broken = site().file("scopes/a.json", "[1]").config(&entry("scopes_file: scopes/a.json"));
    assert!(broken.refusal().contains("every scope must be a string"));
}

#[test]
fn an_enabled_api_without_tokens_needs_a_vault_to_start_from() {
    let site = Site::new().config("api: {enabled: true}\n");
    let refusal = site.refusal();
    assert!(refusal.contains("no API tokens configured"), "{refusal}");
    assert!(refusal.contains("no vault to bootstrap from"), "{refusal}");
    let site = site.empty_vault();
    assert_eq!(site.plan().unwrap().posture, Posture::ManagementOnly);
    assert!(site.check().errors.is_empty());
}

#[test]
fn references_elsewhere_name_location_and_secret() {
    let hooks = "webhooks: {endpoints: [{path: /hook/gh, plugin: p, secret_ref: gh_hook, scheme: github}]}\n";
    let site = Site::new().empty_vault().config(hooks);
    let refusal = site.refusal();
    assert!(
        refusal.contains("webhooks.endpoints[0] (/hook/gh): secret_ref \"gh_hook\" not found in the vault"),
        "{refusal}"
    );
    assert!(Site::new().secret("gh_hook", "v").config(hooks).plan().is_ok());
    let plugin = "plugins: {m: {enabled: false, config: {smtp_ref: pw}}}\n";
    assert!(
        Site::new().empty_vault().config(plugin).refusal().contains("plugins.m.config.smtp_ref: secret_ref \"pw\"")
    );
    let number = "plugins: {m: {enabled: false, config: {smtp_ref: 5}}}\n";
    assert!(Site::new().empty_vault().config(number).refusal().contains("plugins.m.config.smtp_ref must be a string"));
}

#[test]
fn missing_references_are_warnings_while_the_first_token_is_still_to_come() {
    let text = "webhooks: {endpoints: [{path: /h, plugin: p, secret_ref: gh, scheme: github}]}\n";
    let site = Site::new().empty_vault().config(&format!("api: {{enabled: true}}\n{text}"));
    assert!(site.warnings().contains("secret_ref \"gh\" not found in the vault"));
    let site = Site::new().secret("tok", "v").config(&format!("{ONE_TOKEN}{text}"));
    assert!(site.refusal().contains("secret_ref \"gh\" not found in the vault"));
}

#[test]
fn a_load_that_only_looks_works_without_the_key() {
    let site = Site::new().config(ONE_TOKEN).file("vault.age", "blob");
    let plan = site.inspect().unwrap();
    assert_eq!(plan.posture, Posture::Gateway);
    assert!(plan.tokens.is_empty());
    assert!(plan.warnings.iter().any(|warning| warning.message.contains("can not be read without its key")));
}

#[test]
fn the_older_table_answers_for_names_that_the_vault_does_not_have() {
    let table = "tokens: [{name: gh, key: \"${PIN}\"}]\n";
    let hook = "webhooks: {endpoints: [{path: /h, plugin: p, secret_ref: gh, scheme: github}]}\n";
    let site = Site::new().var("PIN", "12345678").empty_vault().config(&format!("{table}{hook}"));
    let warnings = site.warnings();
    assert!(warnings.contains("ductile vault import"), "{warnings}");
    let site = site.answer("gh", Err("revoked"));
    assert!(site.refusal().contains("can not be used: revoked"), "{}", site.refusal());
    let site = site.secret("gh", "from-vault");
    assert!(site.warnings().contains("the vault value is used"));
    let site = Site::new()
        .var("PIN", "x")
        .empty_vault()
        .config("tokens: [{name: tok, key: \"${PIN}\"}]\napi: {enabled: true, auth: {tokens: [{secret_ref: tok}]}}\n");
    assert!(site.refusal().contains("api.auth.tokens[0]: secret_ref \"tok\" not found"));
}

#[test]
fn an_entry_of_the_older_table_without_a_value_is_no_secret() {
    let hook = "webhooks: {endpoints: [{path: /h, plugin: p, secret_ref: gh, scheme: github}]}\n";
    for key in ["\"${GH_UNSET}\"", "\"x${GH_UNSET}\"", "\"${BLANK}\"", "' '"] {
        let table = format!("tokens: [{{name: gh, key: {key}}}]\n");
        let site = Site::new().var("BLANK", " \t").empty_vault().config(&format!("{table}{hook}"));
        let refusal = site.refusal();
        assert!(
            refusal.contains("(/h): secret_ref \"gh\" not found in the vault, and tokens[0] has no value"),
            "{key}: {refusal}"
        );
    }
}

#[test]
fn no_secret_reaches_the_record() {
    let site = Site::new().var("MY_KEY", "abc123").secret("tok", "bearer-value-1").config(&format!(
        "{ONE_TOKEN}plugins:\n  m:\n    enabled: false\n    config:\n      api_key: ${{MY_KEY}}\n      greeting: \
         ${{MY_KEY}}\n      \"${{MY_KEY}}\": 1\n      dsn: postgres://u:pw@h/db\n      copy: x bearer-value-1 y\n      \
         dedupe_key: k1\n"
    ));
    let record = site.plan().unwrap().snapshot;
    let all = format!("{record:?}");
    for value in ["abc123", "bearer-value-1", ":pw@"] {
        assert!(!all.contains(value), "{value} in {all}");
    }
    let config: serde_json::Value = serde_json::from_str(&record.sanitized_config).unwrap();
    let config = &config["plugins"]["m"]["config"];
    assert_eq!(config["api_key"], "[REDACTED]");
    assert_eq!(config["greeting"], "[REDACTED]");
    assert_eq!(config["copy"], "[REDACTED]");
    assert_eq!(config["dsn"], "postgres://u:[REDACTED]@h/db");
    assert_eq!(config["dedupe_key"], "k1");
    let rows: serde_json::Value = serde_json::from_str(&record.secret_fingerprints).unwrap();
    let row = |purpose: &str| rows.as_array().unwrap().iter().find(|row| row["purpose"] == purpose).unwrap().clone();
    assert_eq!(row("plugins.m.config.api_key")["source"], "plugin_config");
    let token = row("api.auth.tokens[0].secret_ref");
    assert_eq!((token["ref"].as_str(), token["source"].as_str()), (Some("tok"), Some("vault")));
    assert!(token["fingerprint"].as_str().unwrap().starts_with("secretfp_blake3k:"));
}

#[test]
fn the_hash_follows_the_meaning_and_the_secrets_but_not_the_text() {
    let hash = |site: &Site| site.plan().unwrap().snapshot.config_hash;
    let site = Site::new().secret("tok", "value-one").config(ONE_TOKEN);
    let first = hash(&site);
    assert_eq!(first, hash(&site));
    let before = site.plan().unwrap().snapshot;
    let site = site.config(&format!("# a comment\n{ONE_TOKEN}"));
    let after = site.plan().unwrap().snapshot;
    assert_eq!(before.config_hash, after.config_hash);
    assert_ne!(before.source_hash, after.source_hash);
    assert_ne!(before.id, after.id);
    let site = site.secret("tok", "value-two");
    assert_ne!(first, hash(&site));
    assert_eq!(after.source, "explicit");
    let semantics: serde_json::Value = serde_json::from_str(&after.semantics).unwrap();
    assert_eq!(semantics["retry_policy_owner"], "core");
}

#[test]
fn a_refused_vault_refuses_every_load() {
    struct Broken;
    impl crate::SecretProvider for Broken {
        fn open(
            &self,
            places: &crate::VaultPlaces,
            _: Purpose,
        ) -> Result<Option<std::sync::Arc<dyn crate::SecretProjection>>, ductile_model::Problem> {
            Err(ductile_model::Problem::new("vault", format!("{} is broken", places.vault_file.display())))
        }
    }
    let site = Site::new();
    for purpose in [Purpose::Admitting, Purpose::Inspecting] {
        assert!(plan(&site.source(), &site.env(), &Broken, purpose).unwrap_err().to_string().contains("is broken"));
    }
}

#[test]
fn the_key_is_looked_for_where_it_was_named() {
    struct Spy(std::sync::Mutex<Option<crate::VaultPlaces>>);
    impl crate::SecretProvider for Spy {
        fn open(
            &self,
            places: &crate::VaultPlaces,
            _: Purpose,
        ) -> Result<Option<std::sync::Arc<dyn crate::SecretProjection>>, ductile_model::Problem> {
            *self.0.lock().unwrap() = Some(places.clone());
            Ok(None)
        }
    }
    let places = |site: &Site| {
        let spy = Spy(std::sync::Mutex::new(None));
        plan(&site.source(), &site.env(), &spy, Purpose::Admitting).unwrap();
        spy.0.into_inner().unwrap().unwrap()
    };
    let site = Site::new();
    let found = places(&site);
    assert_eq!(found.named_key, None);
    assert_eq!(found.default_keys, [site.path("age.key"), site.path("home/.config/ductile/age.key")]);
    let site = site.config("secrets: {age_key_file: keys/k}\n");
    assert_eq!(places(&site).named_key, Some(site.path("keys/k")));
    let site = site.var("DUCTILE_AGE_KEY_FILE", "~/other.key");
    assert_eq!(places(&site).named_key, Some(site.path("home/other.key")));
}

#[test]
fn the_places_of_the_vault_are_known_before_there_is_one() {
    let site = Site::new().config(&format!("{ONE_TOKEN}secrets: {{vault_file: v/vault.age}}\n"));
    assert!(site.plan().is_err());
    let places = crate::vault_places(&site.source(), &site.env()).unwrap();
    assert_eq!(places.vault_file, site.path("v/vault.age"));
}

#[test]
fn the_place_of_the_state_is_known_before_there_is_a_vault() {
    let site = Site::new().config(&format!("{ONE_TOKEN}database: {{path: data/x.db}}\n"));
    assert!(site.plan().is_err());
    assert_eq!(crate::state_path(&site.source(), &site.env()).unwrap(), site.path("data/x.db"));
    let site = site.config("state: {path: [1]}\n");
    let refusal = crate::state_path(&site.source(), &site.env()).unwrap_err();
    assert!(refusal.to_string().contains("state.path must be a single value"), "{refusal}");
}

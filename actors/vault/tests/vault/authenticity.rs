//! Knowing the public recipient is not enough to make a vault.

use std::fs;

use ductile_vault::NewIdentity;
use serde_json::{Map, Value};

use crate::site::{Site, chmod, now, set};

const GENERATION_ONLY: &str = "generation: 9\nprincipals: {mailer: {kind: plugin, status: active}}\nsecrets:\n  \
                               planted: {value: evil, authorized_principals: [mailer], status: active}\n";

const LEGACY: &str = "principals:\n  core: {kind: gateway, status: active, nonce: \
                      Zk3Zk3Zk3Zk3Zk3Zk3Zk3Zk3Zk3Zk3Zk3Zk3Zk3Zk3A}\nsecrets:\n  old: {value: v, status: active}\n";

#[test]
fn a_numbered_document_without_proof_is_refused() {
    let text = Site::with_document(GENERATION_ONLY).refusal();
    assert!(text.contains("not authentic") && text.contains("ductile vault adopt"), "{text}");
    assert!(!text.contains("evil"), "{text}");
}

#[test]
fn forged_proof_is_refused() {
    let site = Site::new();
    let own = &site.genesis.recipient;
    let stranger = NewIdentity::generate().recipient;
    let zeros = "0".repeat(64);
    for auth in [
        "{}".to_owned(),
        format!("{{{own}: \"{zeros}\"}}"),
        format!("{{{own}: \"\"}}"),
        format!("{{{own}: 17}}"),
        format!("{{{own}: null}}"),
        format!("{{{stranger}: \"{zeros}\"}}"),
    ] {
        for document in [GENERATION_ONLY, LEGACY] {
            site.forge(&format!("{document}auth: {auth}\n"));
            let text = site.refusal();
            assert!(text.contains("not authentic") && text.contains("ductile vault adopt"), "{auth}: {text}");
        }
    }
}

#[test]
fn a_proof_does_not_carry_over_to_a_changed_document() {
    let site = Site::new();
    site.open().set(set("s", "one"), now()).unwrap();
    let plaintext = site.plaintext();
    site.forge(&plaintext);
    assert_eq!(site.open().resolve("s").unwrap().expose(), "one", "the unchanged document is still authentic");
    for (from, to) in [
        ("value: \"one\"", "value: \"two\""),
        ("generation: 2", "generation: 3"),
        ("roll_count: 0", "roll_count: \"0\""),
        ("secrets:\n", "surplus: 1\nsecrets:\n"),
    ] {
        let changed = plaintext.replacen(from, to, 1);
        assert_ne!(changed, plaintext, "{from}");
        site.forge(&changed);
        assert!(site.refusal().contains("not authentic"), "{to}");
    }
}

#[test]
fn a_document_of_before_is_accepted_and_the_next_save_adds_number_and_proof() {
    let site = Site::with_document(LEGACY);
    let vault = site.open();
    assert!(vault.is_legacy());
    assert_eq!((vault.generation(), vault.resolve("old").unwrap().expose()), (0, "v"));
    let vault = vault.set(set("new", "w"), now()).unwrap();
    assert!(!vault.is_legacy());
    let vault = site.open();
    assert!(!vault.is_legacy());
    assert_eq!((vault.generation(), vault.resolve("old").unwrap().expose()), (1, "v"));
}

#[test]
fn a_document_without_a_nonce_has_no_key_for_fingerprints_of_plugins() {
    let site = Site::with_document("secrets: {}\n");
    let other = Site::with_document("secrets: {}\n");
    assert!(site.open().core_nonce().unwrap_err().to_string().contains("nonce"));
    assert_ne!(site.open().nonce(), [0; 32]);
    assert_ne!(site.open().nonce(), other.open().nonce());
    assert_eq!(site.open().nonce(), site.open().nonce());
}

/// Says again, with other tools, what the proof is made of.
#[test]
fn the_proof_is_a_keyed_hash_over_the_canonical_json_of_the_rest() {
    use age::secrecy::ExposeSecret as _;
    let site = Site::new();
    site.open().set(set("s", "ü \"quoted\"\n"), now()).unwrap();
    let mut document: Map<String, Value> = serde_yaml::from_str(&site.plaintext()).unwrap();
    let auth = document.shift_remove("auth").unwrap();

    let text = site.age_identity().to_string();
    let (_, secret) = bech32::decode(text.expose_secret()).unwrap();
    let key = blake3::derive_key("ductile vault document v1", &secret);
    let canonical = serde_json::to_string(&document).unwrap();
    let expected = blake3::keyed_hash(&key, canonical.as_bytes()).to_hex();
    assert_eq!(auth[&site.genesis.recipient].as_str(), Some(expected.as_str()));
}

#[test]
fn every_identity_of_the_key_file_gets_a_proof_and_opens_the_blob() {
    let site = Site::new();
    let added = NewIdentity::generate();
    let first = fs::read_to_string(site.key()).unwrap();
    fs::write(site.key(), format!("{first}{}", added.key_file.expose())).unwrap();
    site.open().set(set("s", "v"), now()).unwrap();
    fs::write(site.key(), added.key_file.expose()).unwrap();
    chmod(&site.key(), 0o600);
    assert_eq!(site.open().resolve("s").unwrap().expose(), "v");
    fs::write(site.key(), first).unwrap();
    assert_eq!(site.open().resolve("s").unwrap().expose(), "v");
}

//! The first blob.

use std::fs;
use std::os::unix::fs::symlink;

use ductile_vault::{ADMIN_TOKEN, Vault};
use serde_json::Value;

use crate::site::{Site, chmod, error_text, mode, now};

#[test]
fn the_first_blob_is_private_and_armored_and_the_token_has_43_characters() {
    let site = Site::new();
    assert!(site.bytes().starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
    assert_eq!(mode(&site.blob()), 0o600);
    assert_eq!(site.genesis.admin_token.expose().len(), 43);
    assert_eq!(site.genesis.recipient, site.identities().recipients()[0]);
    assert_eq!(site.other_files(), Vec::<String>::new());
    assert!(!format!("{:?}", site.genesis).contains(site.genesis.admin_token.expose()));
}

#[test]
fn age_and_yaml_alone_show_what_the_first_blob_holds() {
    let site = Site::new();
    let document: Value = serde_yaml::from_str(&site.plaintext()).unwrap();
    let core = &document["principals"]["core"];
    assert_eq!((&core["kind"], &core["status"]), (&Value::from("gateway"), &Value::from("active")));
    assert_eq!(core["nonce"].as_str().unwrap().len(), 43);
    let token = &document["secrets"][ADMIN_TOKEN];
    assert_eq!(token["value"], site.genesis.admin_token.expose());
    assert_eq!(token["authorized_principals"], Value::Array(Vec::new()));
    assert_eq!((&token["pattern"], &token["status"]), (&Value::from("auto"), &Value::from("active")));
    assert_eq!(token["created_at"], "2026-01-05T10:11:12Z");
    assert_eq!(document["generation"].to_string(), "1");
    assert_eq!(document["auth"][&site.genesis.recipient].as_str().unwrap().len(), 64);
    let fact = &document["audit_pending"][0];
    assert_eq!(fact["op"], "init");
    assert_eq!(fact["actor"], "cli");
    assert_eq!(fact["outcome"], "ok");
    assert_eq!(fact["created_at"], "2026-01-05 10:11:12.000000345Z");
    assert_eq!(document["audit_pending"].as_array().unwrap().len(), 1);
}

#[test]
fn an_existing_blob_is_never_initialised_again() {
    let site = Site::new();
    let before = site.bytes();
    let text = error_text(Vault::genesis(&site.blob(), &site.key(), now()));
    assert!(text.contains("there is a vault already"), "{text}");
    assert_eq!(site.bytes(), before);
    assert_eq!(site.other_files(), Vec::<String>::new());
}

#[test]
fn anything_of_that_name_counts_as_existing() {
    let site = Site::new();
    let target = site.dir.path().join("elsewhere.age");
    let link = site.dir.path().join("link.age");
    symlink(&target, &link).unwrap();
    assert!(Vault::genesis(&link, &site.key(), now()).is_err());
    assert!(link.is_symlink() && !target.exists());

    let empty = site.dir.path().join("empty.age");
    fs::write(&empty, "").unwrap();
    assert!(Vault::genesis(&empty, &site.key(), now()).is_err());
    assert_eq!(fs::read(&empty).unwrap(), b"");
    assert!(Vault::genesis(site.dir.path(), &site.key(), now()).is_err());
}

#[test]
fn a_loose_key_makes_no_vault() {
    let site = Site::new();
    fs::remove_file(site.blob()).unwrap();
    chmod(&site.key(), 0o640);
    let text = error_text(Vault::genesis(&site.blob(), &site.key(), now()));
    assert!(text.contains("chmod 600"), "{text}");
    assert!(!site.blob().exists());
}

#[test]
fn two_vaults_have_different_nonces_and_tokens() {
    let (one, two) = (Site::new(), Site::new());
    assert_ne!(one.open().nonce(), two.open().nonce());
    assert_eq!(one.open().nonce(), *one.open().core_nonce().unwrap());
    assert!(one.genesis.admin_token != two.genesis.admin_token);
}

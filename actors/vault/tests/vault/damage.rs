//! A blob that is not whole is an error, never an empty store.

use std::fs;

use ductile_vault::{Identities, NewIdentity, Vault};

use crate::site::{Site, chmod, error_text, now, set};

#[test]
fn every_truncation_is_refused() {
    let site = Site::new();
    let whole = site.bytes();
    for length in (0..whole.len() - 1).step_by(37) {
        fs::write(site.blob(), &whole[..length]).unwrap();
        let text = site.refusal();
        assert!(text.contains("vault.age"), "{length}: {text}");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let site = Site::new();
    let binary = {
        let recipient: age::x25519::Recipient = site.genesis.recipient.parse().unwrap();
        age::encrypt(&recipient, site.plaintext().as_bytes()).unwrap()
    };
    fs::write(site.blob(), &binary).unwrap();
    assert_eq!(site.open().generation(), 1, "binary age is read as well");
    for at in (0..binary.len()).step_by(23) {
        let mut bad = binary.clone();
        bad[at] ^= 0x04;
        fs::write(site.blob(), &bad).unwrap();
        let text = site.refusal();
        assert!(!text.contains(site.genesis.admin_token.expose()), "{at}: {text}");
    }
}

#[test]
fn another_key_does_not_open_it_and_is_told_so() {
    let site = Site::new();
    let other = site.dir.path().join("other.key");
    fs::write(&other, NewIdentity::generate().key_file.expose()).unwrap();
    chmod(&other, 0o600);
    let text = error_text(Vault::open(&site.blob(), &Identities::read(&other).unwrap()));
    assert!(text.contains("vault.age") && text.contains("none of the identities"), "{text}");
}

#[test]
fn plain_text_and_missing_files_are_refused() {
    let site = Site::new();
    fs::write(site.blob(), "secrets: {}\n").unwrap();
    assert!(site.refusal().contains("not an age-encrypted file"));
    fs::remove_file(site.blob()).unwrap();
    assert!(site.refusal().contains("vault.age"));
    fs::create_dir(site.blob()).unwrap();
    assert!(site.refusal().contains("not a regular file"));
}

#[test]
fn a_damaged_document_is_refused_and_not_quoted() {
    for document in [
        "",
        "hunter2",
        "- hunter2\n",
        "secrets: {s: {value: hunter2, status: active, value: hunter2}}\n",
        "secrets: {s: {value: hunter2, status: hunter2}}\n",
        "secrets: {s: {value: [hunter2], status: active}}\n",
        "secrets:\n  s: {value: \"hunter2, status: active}\n",
        "secrets:\n\ts: hunter2\n",
        "secrets: {}\n---\nsecrets: {hunter2: {}}\n",
        "secrets: {}\nsecrets: {}\n",
        "principals: {hunter2: {kind: hunter2, status: active}}\n",
        "auth: hunter2\n",
        "auth: [hunter2]\n",
    ] {
        let site = Site::with_document(document);
        let text = site.refusal();
        assert!(text.contains("vault.age"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_document_that_is_no_text_is_refused() {
    let site = Site::new();
    let recipient: age::x25519::Recipient = site.genesis.recipient.parse().unwrap();
    fs::write(site.blob(), age::encrypt_and_armor(&recipient, b"secrets: {\xff}").unwrap()).unwrap();
    assert!(site.refusal().contains("not UTF-8"));
}

#[test]
fn blanks_before_the_envelope_are_tolerated() {
    let site = Site::new();
    let padded = [b" \r\n\t\n".as_slice(), &site.bytes()].concat();
    fs::write(site.blob(), padded).unwrap();
    assert_eq!(site.open().generation(), 1);
}

#[test]
fn no_debug_text_shows_a_value() {
    let site = Site::new();
    let vault = site.open().set(set("s", "hunter2"), now()).unwrap();
    let request = set("s", "hunter2");
    let composed = vault.compose("core", false);
    let shown = format!("{vault:?} {request:?} {:?} {:?} {composed:?}", vault.resolve("s"), vault.audit_pending());
    assert!(!shown.contains("hunter2") && !shown.contains("AGE-SECRET"), "{shown}");
    let error = vault.set(set("s", "hunter3"), now()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
}

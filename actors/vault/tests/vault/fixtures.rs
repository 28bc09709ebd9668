//! Files written once and kept: every later version must still read them.

use std::fs;
use std::path::{Path, PathBuf};

use ductile_vault::{Composed, Identities, Vault};
use tempfile::TempDir;

use crate::site::{chmod, now, set};

/// The stored files in a directory of their own: a checkout does not keep modes.
fn stored(blob: &str) -> (TempDir, PathBuf, Identities) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let dir = TempDir::new().unwrap();
    for name in ["age.key", blob] {
        fs::copy(from.join(name), dir.path().join(name)).unwrap();
        chmod(&dir.path().join(name), 0o600);
    }
    let identities = Identities::read(&dir.path().join("age.key")).unwrap();
    let path = dir.path().join(blob);
    (dir, path, identities)
}

#[test]
fn a_stored_vault_stays_readable() {
    let (_dir, path, identities) = stored("vault.age");
    let vault = Vault::open(&path, &identities).unwrap();
    assert!(!vault.is_legacy());
    assert_eq!(vault.generation(), 5);
    assert_eq!(vault.resolve("webhook").unwrap().expose(), " sp\u{e4}ce \"quoted\"\nand more\n");
    let Ok(Composed::Secrets(secrets)) = vault.compose("mailer", true) else { panic!("no secrets") };
    assert_eq!((secrets[0].0.as_str(), secrets[0].1.expose()), ("smtp_pw", "0x1"));
    assert_eq!(secrets.len(), 1);
    assert!(vault.core_nonce().is_ok());
    assert_eq!(vault.audit_pending().len(), 5);
    assert_eq!(vault.set(set("more", "v"), now()).unwrap().generation(), 6);
}

#[test]
fn a_stored_vault_of_before_stays_readable() {
    let (_dir, path, identities) = stored("legacy.age");
    let vault = Vault::open(&path, &identities).unwrap();
    assert!(vault.is_legacy());
    assert_eq!(vault.resolve("webhook").unwrap().expose(), "line one\nline two\n");
    let Ok(Composed::Secrets(secrets)) = vault.compose("mailer", true) else { panic!("no secrets") };
    assert_eq!((secrets[0].0.as_str(), secrets[0].1.expose()), ("smtp_pw", "yes"));
    assert!(vault.core_nonce().is_ok());
    assert_eq!(vault.set(set("more", "v"), now()).unwrap().generation(), 1);
}

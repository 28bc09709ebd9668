//! What is handed out, and to whom.

use std::io::Write;
use std::sync::{Arc, Mutex};

use ductile_vault::{Composed, Denied, Vault};

use crate::site::Site;

const DOCUMENT: &str = r#"
principals:
  core: {kind: gateway, status: active}
  hub: {kind: gateway, status: active}
  mailer: {kind: plugin, status: active}
  idle: {kind: plugin, status: active}
  starved: {kind: plugin, status: active}
  gone: {kind: plugin, status: revoked}
  relay: {kind: consumer, status: active}
  lost: {kind: consumer, status: revoked}
secrets:
  core-admin-token: {value: admin, status: active, authorized_principals: [mailer]}
  zeta: {value: z, status: active, authorized_principals: [idle-not, mailer]}
  alpha: {value: a, status: active, authorized_principals: [mailer, core]}
  other: {value: o, status: active, authorized_principals: [relay]}
  revoked: {value: "", status: revoked, authorized_principals: [mailer, starved]}
  stale: {value: old, status: revoked, authorized_principals: [mailer, core]}
  empty: {value: "", status: active, authorized_principals: [mailer, core]}
  orphan: {value: x, status: active, orphaned: true, authorized_principals: [mailer]}
  abandoned: {value: x, status: active, orphaned: true}
  free: {value: f, status: active}
  for-hub: {value: h, status: active, authorized_principals: [hub]}
  for-lost: {value: l, status: active, authorized_principals: [lost]}
  for-nobody: {value: l, status: active, authorized_principals: [nobody, mailer]}
  for-plugins: {value: l, status: active, authorized_principals: [mailer, gone]}
"#;

fn vault() -> Vault {
    Site::with_document(DOCUMENT).open()
}

fn names(composed: Result<Composed, Denied>) -> Vec<(String, String)> {
    match composed.unwrap() {
        Composed::Secrets(list) => list.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect(),
        Composed::NotAPrincipal => panic!("not a principal"),
    }
}

fn denied(vault: &Vault, principal: &str, requires: bool) -> String {
    vault.compose(principal, requires).unwrap_err().to_string()
}

#[test]
fn a_plugin_gets_exactly_what_it_is_granted_and_what_is_alive() {
    let expected = [("alpha", "a"), ("for-nobody", "l"), ("for-plugins", "l"), ("zeta", "z")];
    let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    for requires in [false, true] {
        assert_eq!(names(vault().compose("mailer", requires)), expected);
    }
    assert_eq!(names(vault().compose("relay", false)), [("other".to_owned(), "o".to_owned())]);
}

#[test]
fn who_is_no_principal_runs_without_unless_it_needs_the_vault() {
    let vault = vault();
    for stranger in ["stranger", "", "Mailer", "core-admin-token"] {
        assert!(matches!(vault.compose(stranger, false), Ok(Composed::NotAPrincipal)));
        assert_eq!(
            denied(&vault, stranger, true),
            format!(
                "secret composition failed: vault: plugin requires vault secrets but its principal is \
                 unknown/unregistered: \"{stranger}\""
            )
        );
    }
}

#[test]
fn the_revoked_and_the_gateway_itself_are_denied() {
    let vault = vault();
    for requires in [false, true] {
        assert_eq!(
            denied(&vault, "gone", requires),
            "secret composition failed: vault: principal is not active: \"gone\" is revoked"
        );
        for gateway in ["core", "hub"] {
            let text = denied(&vault, gateway, requires);
            assert!(text.starts_with("secret composition failed: vault: ") && text.contains(gateway), "{text}");
        }
    }
}

#[test]
fn a_plugin_with_nothing_to_get_runs_unless_it_needs_the_vault() {
    let vault = vault();
    for principal in ["idle", "starved"] {
        assert_eq!(names(vault.compose(principal, false)), []);
        assert_eq!(
            denied(&vault, principal, true),
            format!(
                "secret composition failed: vault: plugin requires vault secrets but none could be delivered: \
                 \"{principal}\""
            )
        );
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_withheld_grant_is_logged_with_its_reason() {
    let vault = vault();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, || drop(vault.compose("mailer", false)));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let withheld: Vec<&str> = text.lines().filter(|line| line.contains("secret withheld from plugin")).collect();
    assert_eq!(withheld.len(), 4, "{text}");
    for (secret, reason) in [
        ("revoked", "secret_revoked"),
        ("stale", "secret_revoked"),
        ("empty", "secret_empty"),
        ("orphan", "secret_orphaned"),
    ] {
        let found = withheld.iter().any(|line| {
            line.contains("WARN")
                && line.contains("principal=\"mailer\"")
                && line.contains(&format!("secret={secret} "))
                && line.contains(&format!("reason=\"{reason}\""))
        });
        assert!(found, "{secret}: {text}");
    }
    assert!(!text.contains("admin"), "a reserved secret is not even withheld: {text}");
}

#[test]
fn a_reference_of_the_configuration_resolves_or_says_why_not() {
    let vault = vault();
    for (name, value) in [("free", "f"), ("alpha", "a"), ("other", "o"), ("for-hub", "h")] {
        assert_eq!(vault.resolve(name).unwrap().expose(), value, "{name}");
    }
    for (name, cause) in [
        ("absent", "not in the vault"),
        ("revoked", "revoked"),
        ("stale", "revoked"),
        ("empty", "empty"),
        ("orphan", "orphaned"),
        ("abandoned", "orphaned"),
        ("core-admin-token", "reserved"),
        ("for-plugins", "granted only to plugins"),
        ("for-lost", "granted to no active gateway or consumer"),
        ("for-nobody", "granted to no active gateway or consumer"),
    ] {
        assert_eq!(vault.resolve(name).unwrap_err(), cause, "{name}");
    }
}

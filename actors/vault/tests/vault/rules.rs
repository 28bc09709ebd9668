//! What may be changed, and what may not.

use ductile_vault::{ADMIN_TOKEN, SetSecret, Vault};
use serde_json::Value;

use crate::site::{Site, error_code, error_text, grant, now, set};

fn entry(site: &Site, name: &str) -> Value {
    let document: Value = serde_yaml::from_str(&site.plaintext()).unwrap();
    document["secrets"][name].clone()
}

fn grants(site: &Site, name: &str) -> Vec<String> {
    serde_json::from_value(entry(site, name)["authorized_principals"].clone()).unwrap()
}

fn with_mailer(site: &Site) -> Vault {
    site.open().register_principal("mailer", "plugin", now()).unwrap()
}

/// A document with everything that can not be made by setting and registering alone.
fn with_revoked() -> Site {
    Site::with_document(
        "principals:\n  gone: {kind: plugin, status: revoked}\n  mailer: {kind: plugin, status: active}\nsecrets:\n  dead: \
         {value: \"\", status: revoked}\n  kept: {value: v, status: active, authorized_principals: [gone]}\n  orphan: \
         {value: v, status: active, orphaned: true}\n",
    )
}

#[test]
fn a_grant_to_nobody_is_refused_naming_both_and_nothing_is_stored() {
    let site = Site::new();
    let before = site.bytes();
    let mut request = set("smtp_pw", "hunter2");
    request.authorized_principals = Some(vec!["ghost".into()]);
    let text = error_text(site.open().set(request.clone(), now()));
    assert!(text.starts_with("vault: unknown principal: "), "{text}");
    assert!(text.contains("ghost") && text.contains("smtp_pw") && !text.contains("hunter2"), "{text}");
    assert_eq!(error_code(site.open().set(request, now())), "unknown_principal");
    assert_eq!(site.bytes(), before);
}

#[test]
fn grants_are_left_replaced_or_cleared_as_asked() {
    let site = Site::new();
    let vault = with_mailer(&site).register_principal("backup-2", "plugin", now()).unwrap();
    let mut request = set("s", "v");
    request.authorized_principals = Some(vec!["mailer".into(), "backup-2".into(), "mailer".into()]);
    let vault = vault.set(request, now()).unwrap();
    assert_eq!(grants(&site, "s"), ["mailer", "backup-2"], "order is kept, repetitions are not");
    let vault = vault.set(SetSecret { auto: Some(true), ..set("s", "") }, now()).unwrap();
    assert_eq!(grants(&site, "s"), ["mailer", "backup-2"], "not mentioned, not changed");
    let vault = vault.set(grant("s", &["core"]), now()).unwrap();
    assert_eq!(grants(&site, "s"), ["core"]);
    vault.set(grant("s", &[]), now()).unwrap();
    assert_eq!(grants(&site, "s"), Vec::<String>::new());
}

#[test]
fn a_value_changes_by_roll_only() {
    let site = Site::new();
    let vault = site.open().set(set("s", "one"), now()).unwrap();
    assert_eq!(error_text(vault.set(set("s", "two"), now())), "vault: value is roll-only: secret \"s\"");
    assert_eq!(error_code(vault.set(set("s", "two"), now())), "value_immutable");
    let mut request = set("s", "one");
    request.description = Some("for the relay".into());
    vault.set(request, now()).unwrap();
    assert_eq!(entry(&site, "s")["value"], "one");
    assert_eq!(entry(&site, "s")["description"], "for the relay");
}

#[test]
fn an_auto_secret_gets_a_value_and_a_manual_one_needs_one() {
    let site = Site::new();
    let auto = |name: &str, value: &str| SetSecret { auto: Some(true), ..set(name, value) };
    let vault = site.open().set(auto("minted", ""), now()).unwrap();
    assert_eq!(vault.resolve("minted").unwrap().expose().len(), 43);
    let vault = vault.set(auto("given", "mine"), now()).unwrap();
    assert_eq!(vault.resolve("given").unwrap().expose(), "mine");
    for request in [set("manual", ""), grant("manual", &[])] {
        assert_eq!(error_text(vault.set(request, now())), "vault: empty value: secret \"manual\"");
    }
    let minted = vault.resolve("minted").unwrap();
    let vault = vault.set(auto("minted", ""), now()).unwrap();
    assert!(vault.resolve("minted").unwrap() == minted, "an update never mints");
}

#[test]
fn what_belongs_to_the_gateway_is_refused_everywhere() {
    let site = Site::new();
    let vault = site.open();
    let before = site.bytes();
    for name in ["core", ADMIN_TOKEN] {
        assert_eq!(error_code(vault.set(set(name, "v"), now())), "reserved");
        assert_eq!(error_code(vault.set(grant(name, &[]), now())), "reserved");
        assert_eq!(error_code(vault.register_principal(name, "gateway", now())), "reserved");
        assert_eq!(vault.resolve(name).unwrap_err(), "reserved");
        assert!(vault.compose("core", false).is_err());
    }
    assert_eq!(site.bytes(), before);
}

#[test]
fn names_are_checked_and_bad_ones_not_repeated() {
    let site = Site::new();
    let vault = site.open();
    let long = "a".repeat(129);
    for name in ["", "-a", "a-", "_a", "a_", "Hunter2", "a b", "a.b", "ü", "a/b", long.as_str()] {
        let text = error_text(vault.set(set(name, "v"), now()));
        assert!(text.starts_with("vault: invalid name: "), "{text}");
        assert!(!text.contains("Hunter2"), "{text}");
    }
    for name in ["", "-a", "a-", "a--b", "a_b", "Hunter2", "a b", long.as_str()] {
        assert_eq!(error_code(vault.register_principal(name, "plugin", now())), "invalid_name", "{name}");
        assert_eq!(error_code(vault.set(grant("s", &[name]), now())), "invalid_name", "{name}");
    }
    let longest = "a".repeat(128);
    let vault = vault.register_principal(&longest, "consumer", now()).unwrap();
    vault.set(set("0a-_b9", "v"), now()).unwrap().set(set(&longest, "v"), now()).unwrap();
}

#[test]
fn principals_are_registered_once_and_of_known_kinds() {
    let site = Site::new();
    let vault = with_mailer(&site);
    let text = error_text(vault.register_principal("mailer", "consumer", now()));
    assert_eq!(text, "vault: principal already registered: \"mailer\"");
    for kind in ["core", "", "Plugin", "hunter2"] {
        let text = error_text(vault.register_principal("other", kind, now()));
        assert!(text.starts_with("vault: invalid principal kind: ") && !text.contains("hunter2"), "{text}");
    }
    let gone = with_revoked();
    assert_eq!(error_code(gone.open().register_principal("gone", "plugin", now())), "duplicate_principal");
}

#[test]
fn the_revoked_stay_as_they_are() {
    let site = with_revoked();
    let vault = site.open();
    for request in [set("dead", "new"), grant("dead", &[])] {
        assert_eq!(error_text(vault.set(request, now())), "vault: secret is revoked: \"dead\"");
    }
    let mut request = set("fresh", "v");
    request.authorized_principals = Some(vec!["gone".into()]);
    assert_eq!(error_text(vault.set(request, now())), "vault: principal is not active: \"gone\" is revoked");
    vault.set(grant("kept", &["gone", "mailer"]), now()).unwrap();
    assert_eq!(grants(&site, "kept"), ["gone", "mailer"], "who has a grant already may keep it");
}

#[test]
fn an_orphan_is_adopted_by_naming_somebody_only() {
    let site = with_revoked();
    let vault = site.open().set(grant("orphan", &[]), now()).unwrap();
    assert_eq!(vault.resolve("orphan").unwrap_err(), "orphaned");
    let vault = vault.set(grant("orphan", &["mailer"]), now()).unwrap();
    assert_eq!(entry(&site, "orphan").get("orphaned"), None);
    assert!(matches!(vault.compose("mailer", true), Ok(ductile_vault::Composed::Secrets(s)) if s[0].0 == "orphan"));
}

#[test]
fn values_and_descriptions_have_limits() {
    let site = Site::new();
    let vault = site.open();
    let described = |text: &str| SetSecret { description: Some(text.into()), ..set("s", "v") };
    for request in
        [set("s", &"x".repeat(64 * 1024 + 1)), set("s", "a\0b"), described(&"x".repeat(1025)), described("a\0b")]
    {
        let text = error_text(vault.set(request, now()));
        assert!(text.starts_with("vault: invalid value: secret \"s\""), "{text}");
        assert!(text.len() < 200, "{text}");
    }
    vault.set(described(&"x".repeat(1024)), now()).unwrap();
}

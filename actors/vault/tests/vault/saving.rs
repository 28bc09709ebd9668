//! Changes reach the disk whole, or not at all.

use std::fs;
use std::os::unix::fs::symlink;

use ductile_vault::{VaultError, VaultLock};
use proptest::prelude::*;

use crate::site::{Site, chmod, error_text, grant, mode, now, secret, set};

#[test]
fn values_that_yaml_likes_to_bend_survive() {
    let site = Site::new();
    let pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n+/=\n-----END PRIVATE KEY-----\n";
    let long = "x".repeat(64 * 1024);
    let values = [
        "  leading and trailing  ",
        "yes",
        "0x1",
        "null",
        "~",
        "1e3",
        "on",
        "- a",
        "a: b",
        "# no comment",
        "'",
        "\"\\\"",
        "\\n",
        "%",
        "@at",
        "`tick`",
        "{a: b}",
        "[1]",
        "&anchor",
        "*alias",
        "!tag",
        "|",
        ">",
        "?",
        "...",
        "---",
        "\t",
        "\n",
        "\r\n",
        " \n \n",
        "ünïcödé 🦆",
        "\u{85}\u{2028}\u{feff}\u{7f}\u{1}",
        "2026-01-05T10:11:12Z",
        pem,
        long.as_str(),
    ];
    let mut vault = site.open();
    for (at, value) in values.iter().enumerate() {
        vault = vault.set(set(&format!("s{at}"), value), now()).unwrap();
    }
    let reopened = site.open();
    for (at, value) in values.iter().enumerate() {
        assert!(reopened.resolve(&format!("s{at}")).unwrap().expose() == *value, "{value:?}");
    }
    assert_eq!(reopened.generation(), 1 + values.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_value_survives_the_disk(value in "[^\0]{1,80}", description in "[^\0]{0,40}") {
        let site = Site::new();
        let mut request = set("s", &value);
        request.description = Some(description);
        site.open().set(request, now()).unwrap();
        let read = site.open().resolve("s").unwrap();
        prop_assert_eq!(read.expose(), value);
    }
}

#[test]
fn a_save_keeps_the_old_value_in_the_hands_of_who_has_it() {
    let site = Site::new();
    let before = site.open();
    let after = before.set(set("s", "v"), now()).unwrap();
    assert_eq!(before.resolve("s").unwrap_err(), "not in the vault");
    assert_eq!(after.resolve("s").unwrap().expose(), "v");
    assert_eq!(mode(&site.blob()), 0o600);
    assert_eq!(site.other_files(), Vec::<String>::new());
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let site = Site::new();
    let vault = site.open().set(set("s", "v"), now()).unwrap();
    let before = site.bytes();
    let same = vault.set(set("s", "v"), now()).unwrap();
    assert_eq!(site.bytes(), before);
    assert_eq!(same.generation(), vault.generation());
}

#[test]
fn a_blob_changed_by_somebody_else_is_not_overwritten() {
    let site = Site::new();
    let vault = site.open();
    let other = site.open().set(set("theirs", "v"), now()).unwrap();
    let before = site.bytes();
    let result = vault.set(set("mine", "v"), now());
    assert!(matches!(result, Err(VaultError::Modified { .. })));
    let text = error_text(vault.register_principal("mailer", "plugin", now()));
    assert!(text.starts_with("vault: blob modified externally: ") && text.contains("reload or a restart"), "{text}");
    assert_eq!(site.bytes(), before);
    assert_eq!(other.resolve("theirs").unwrap().expose(), "v");

    let both = vault.reopen().unwrap().set(set("mine", "v"), now()).unwrap();
    assert_eq!(both.resolve("theirs").unwrap().expose(), "v");
}

#[test]
fn of_two_changes_to_one_state_the_second_is_refused() {
    let site = Site::new();
    let vault = site.open();
    let results: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|at| {
                let vault = vault.clone();
                scope.spawn(move || vault.set(set(&format!("s{at}"), "v"), now()).is_ok())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|saved| **saved).count(), 1, "{results:?}");
    assert_eq!(site.open().generation(), 2);
}

#[test]
fn a_missing_blob_is_written_anew() {
    let site = Site::new();
    let vault = site.open();
    fs::remove_file(site.blob()).unwrap();
    vault.set(set("s", "v"), now()).unwrap();
    assert_eq!(site.open().resolve("s").unwrap().expose(), "v");
}

#[test]
fn a_failed_save_leaves_the_old_blob_and_the_old_state() {
    let site = Site::new();
    let config = site.dir.path().join("config");
    fs::create_dir(&config).unwrap();
    let blob = config.join("vault.age");
    fs::rename(site.blob(), &blob).unwrap();
    let vault = ductile_vault::Vault::open(&blob, &site.identities()).unwrap();
    let before = fs::read(&blob).unwrap();

    let away = site.dir.path().join("away");
    fs::rename(&config, &away).unwrap();
    let text = error_text(vault.set(set("s", "hunter2"), now()));
    assert!(text.contains("config") && !text.contains("hunter2"), "{text}");
    fs::rename(&away, &config).unwrap();

    assert_eq!(fs::read(&blob).unwrap(), before);
    assert_eq!(vault.resolve("s").unwrap_err(), "not in the vault");
    assert_eq!(vault.generation(), 1);
    assert_eq!(vault.audit_pending().len(), 1);
    vault.set(set("s", "v"), now()).unwrap();
}

#[test]
fn a_save_that_can_not_take_the_place_of_the_blob_leaves_no_trace() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root may write everywhere");
        return;
    }
    let site = Site::new();
    let vault = site.open();
    let before = site.bytes();
    chmod(site.dir.path(), 0o500);
    let result = vault.set(set("s", "v"), now());
    chmod(site.dir.path(), 0o700);
    assert!(result.is_err());
    assert_eq!(site.bytes(), before);
    assert_eq!(site.other_files(), Vec::<String>::new());
}

#[test]
fn a_link_to_the_blob_is_kept_and_its_target_written() {
    let site = Site::new();
    let link = site.dir.path().join("link.age");
    symlink("vault.age", &link).unwrap();
    let vault = ductile_vault::Vault::open(&link, &site.identities()).unwrap();
    assert_eq!(vault.path(), link);
    vault.set(set("s", "v"), now()).unwrap();
    assert!(link.is_symlink());
    assert_eq!(site.open().resolve("s").unwrap().expose(), "v");
}

#[test]
fn a_loose_mode_of_the_blob_is_tightened_by_the_next_save() {
    let site = Site::new();
    chmod(&site.blob(), 0o644);
    site.open().set(set("s", "v"), now()).unwrap();
    assert_eq!(mode(&site.blob()), 0o600);
}

#[test]
fn what_root_writes_belongs_to_the_owner_of_the_directory() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root writes for others");
        return;
    }
    let site = Site::new();
    std::os::unix::fs::chown(site.dir.path(), Some(4242), Some(4343)).unwrap();
    let _lock = VaultLock::acquire(&site.blob()).unwrap();
    site.open().set(set("s", "v"), now()).unwrap();
    for name in ["vault.age", "vault.age.lock"] {
        let meta = fs::metadata(site.dir.path().join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4242, 4343), "{name}");
    }
}

#[test]
fn each_change_leaves_its_fact_in_the_same_document() {
    let site = Site::new();
    let vault = site.open().register_principal("mailer", "plugin", now()).unwrap();
    let vault = vault.set(set("s", "hunter2"), now()).unwrap();
    let mut request = grant("s", &["mailer"]);
    request.auto = Some(true);
    request.value = Some(secret("hunter2"));
    vault.set(request, now()).unwrap();

    let vault = site.open();
    let facts = vault.audit_pending();
    let seen: Vec<_> = facts
        .iter()
        .map(|f| (f.op.as_str(), f.principal.as_deref(), f.secret_name.as_deref(), f.detail.as_deref().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            ("init", None, None, "generation=1"),
            ("register", Some("mailer"), None, "kind=plugin generation=2"),
            ("set", None, Some("s"), "pattern=unchanged generation=3"),
            ("set", None, Some("s"), "pattern=auto generation=4"),
        ]
    );
    assert!(facts.iter().all(|fact| fact.actor == "cli" && fact.outcome == "ok"));
    assert!(!format!("{facts:?}").contains("hunter2"));
}

#[test]
fn what_an_unknown_version_added_survives_a_save() {
    let site = Site::with_document(
        "future: {deep: [1, two]}\nprincipals: {p: {kind: plugin, status: active, rank: 7}}\nsecrets:\n  old: {value: v, \
         status: active, colour: red}\n",
    );
    site.open().set(grant("old", &["p"]), now()).unwrap();
    let document: serde_json::Value = serde_yaml::from_str(&site.plaintext()).unwrap();
    assert_eq!(document["future"]["deep"][1], "two");
    assert_eq!(document["principals"]["p"]["rank"].to_string(), "7");
    assert_eq!(document["secrets"]["old"]["colour"], "red");
    assert_eq!(document["secrets"]["old"]["authorized_principals"][0], "p");
}

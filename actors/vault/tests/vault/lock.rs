//! One writer at a time.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use ductile_vault::VaultLock;
use rustix::fs::FlockOperation;

use crate::site::{Site, error_text, mode};

const CHILD: &str = "VAULT_TEST_LOCK_OF";
const THIS_TEST: &str = "lock::another_process_is_kept_out_until_the_holder_is_gone";

#[test]
fn another_process_is_kept_out_until_the_holder_is_gone() {
    // The test program starts itself once more; this is what the other process does.
    if let Some(blob) = std::env::var_os(CHILD) {
        let outcome = VaultLock::acquire(blob.as_ref());
        println!("outcome={}", outcome.as_ref().map_or_else(ToString::to_string, |_| "got it".into()));
        return;
    }
    let site = Site::new();
    let other = || {
        let program = std::env::current_exe().unwrap();
        let output =
            Command::new(program).args(["--exact", THIS_TEST, "--nocapture"]).env(CHILD, site.blob()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let lock = VaultLock::acquire(&site.blob()).unwrap();
    let seen = other();
    assert!(seen.contains("the gateway appears to be running"), "{seen}");
    assert!(seen.contains(&format!("(pid {})", std::process::id())), "{seen}");
    assert!(seen.contains("stop the service"), "{seen}");
    drop(lock);
    let seen = other();
    assert!(seen.contains("outcome=got it"), "{seen}");
}

#[test]
fn a_second_handle_is_refused_also_by_way_of_a_link() {
    let site = Site::new();
    let link = site.dir.path().join("link.age");
    symlink("vault.age", &link).unwrap();
    let lock = VaultLock::acquire(&site.blob()).unwrap();
    for path in [site.blob(), link] {
        let text = error_text(VaultLock::acquire(&path));
        assert!(text.contains("vault.age.lock"), "{text}");
    }
    drop(lock);
    VaultLock::acquire(&site.blob()).unwrap();
}

#[test]
fn the_lock_file_is_private_and_stays() {
    let site = Site::new();
    let path = site.dir.path().join("vault.age.lock");
    drop(VaultLock::acquire(&site.blob()).unwrap());
    assert_eq!(mode(&path), 0o600);
    crate::site::chmod(&path, 0o666);
    drop(VaultLock::acquire(&site.blob()).unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_vault_that_is_not_there_yet_can_be_locked() {
    let site = Site::new();
    let lock = VaultLock::acquire(&site.dir.path().join("new.age")).unwrap();
    assert!(VaultLock::acquire(&site.dir.path().join("new.age")).is_err());
    drop(lock);
    assert!(VaultLock::acquire(&site.dir.path().join("missing/new.age")).is_err());
}

#[test]
fn a_link_in_the_place_of_the_lock_is_not_followed() {
    let site = Site::new();
    let elsewhere = site.dir.path().join("elsewhere");
    symlink(&elsewhere, site.dir.path().join("vault.age.lock")).unwrap();
    assert!(VaultLock::acquire(&site.blob()).is_err());
    assert!(!elsewhere.exists());
}

#[test]
fn the_next_holder_removes_what_a_killed_writer_left_and_nothing_else() {
    let site = Site::new();
    let file = |name: &str| fs::write(site.dir.path().join(name), "x").unwrap();
    for name in
        [".vault-aB3xYz", ".vault-0", ".vault-prod.age", ".vault-", ".vault-other", ".vault-other.lock", "vault-a"]
    {
        file(name);
    }
    fs::create_dir(site.dir.path().join(".vault-dir")).unwrap();
    symlink("age.key", site.dir.path().join(".vault-link")).unwrap();
    file(".vault-busy");
    let busy = fs::File::open(site.dir.path().join(".vault-busy")).unwrap();
    rustix::fs::flock(&busy, FlockOperation::LockExclusive).unwrap();

    let _lock = VaultLock::acquire(&site.blob()).unwrap();
    assert_eq!(
        site.other_files(),
        [
            ".vault-",
            ".vault-busy",
            ".vault-dir",
            ".vault-link",
            ".vault-other",
            ".vault-other.lock",
            ".vault-prod.age",
            "vault-a"
        ]
    );
}

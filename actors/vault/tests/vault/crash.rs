//! A writer that is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use ductile_vault::{Identities, Vault, VaultLock};

use crate::site::{Site, now, set};

const CHILD: &str = "VAULT_TEST_WRITE_TO";
const THIS_TEST: &str = "crash::a_killed_writer_leaves_a_whole_blob_with_all_that_was_acknowledged";
const ROUNDS: u64 = 12;

/// What the process does that will be killed: save after save, each one told once it is done.
fn write_until_killed(dir: &std::path::Path) {
    let _lock = VaultLock::acquire(&dir.join("vault.age")).unwrap();
    let mut vault = Vault::open(&dir.join("vault.age"), &Identities::read(&dir.join("age.key")).unwrap()).unwrap();
    for _ in 0..10_000 {
        vault = vault.set(set(&format!("s{}", vault.generation()), "value"), now()).unwrap();
        println!("saved={}", vault.generation());
    }
}

#[test]
fn a_killed_writer_leaves_a_whole_blob_with_all_that_was_acknowledged() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return write_until_killed(dir.as_ref());
    }
    let site = Site::new();
    for round in 0..ROUNDS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", THIS_TEST, "--nocapture"])
            .env(CHILD, site.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            acknowledged.extend(line.split_once("saved=").map(|(_, number)| number.parse::<u64>().unwrap()));
            if acknowledged.len() as u64 == 1 + round % 4 {
                writer.kill().unwrap();
            }
        }
        writer.wait().unwrap();

        let vault = site.open();
        let last = *acknowledged.last().unwrap();
        assert!(vault.generation() >= last, "{} of {last}", vault.generation());
        assert!(vault.resolve(&format!("s{}", last - 1)).is_ok());
        assert_eq!(vault.audit_pending().len() as u64, vault.generation(), "each save has its fact, exactly once");
        drop(VaultLock::acquire(&site.blob()).unwrap());
        assert_eq!(site.other_files(), Vec::<String>::new(), "the next holder cleans up");
    }
}

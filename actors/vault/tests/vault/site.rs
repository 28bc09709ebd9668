//! A directory with a key and a vault, and the means to tamper with both.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use age::x25519;
use chrono::{DateTime, TimeZone as _, Utc};
use ductile_model::Secret;
use ductile_vault::{Genesis, Identities, SetSecret, Vault, generate_identity};
use tempfile::TempDir;

pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) genesis: Genesis,
}

impl Site {
    /// A key and a fresh vault.
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        generate_identity(&dir.path().join("age.key")).unwrap();
        let genesis = Vault::genesis(&dir.path().join("vault.age"), &dir.path().join("age.key"), now()).unwrap();
        Self { dir, genesis }
    }

    /// A key and a vault with this document, as somebody without the key of the gateway could have made it.
    pub(crate) fn with_document(text: &str) -> Self {
        let site = Self::new();
        site.forge(text);
        site
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("age.key")
    }

    pub(crate) fn blob(&self) -> PathBuf {
        self.dir.path().join("vault.age")
    }

    pub(crate) fn identities(&self) -> Identities {
        Identities::read(&self.key()).unwrap()
    }

    pub(crate) fn open(&self) -> Vault {
        Vault::open(&self.blob(), &self.identities()).unwrap()
    }

    /// The text of the error that opening ends with.
    pub(crate) fn refusal(&self) -> String {
        match Vault::open(&self.blob(), &self.identities()) {
            Ok(_) => panic!("the vault was opened"),
            Err(error) => format!("{error} {error:?}"),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(self.blob()).unwrap()
    }

    pub(crate) fn age_identity(&self) -> x25519::Identity {
        let text = fs::read_to_string(self.key()).unwrap();
        text.lines().find(|line| line.starts_with("AGE-")).unwrap().parse().unwrap()
    }

    /// What age alone makes of the blob.
    pub(crate) fn plaintext(&self) -> String {
        String::from_utf8(age::decrypt(&self.age_identity(), &self.bytes()).unwrap()).unwrap()
    }

    /// Encrypts a document to the public recipient, with no more knowledge than that.
    pub(crate) fn forge(&self, text: &str) {
        let recipient: x25519::Recipient = self.genesis.recipient.parse().unwrap();
        fs::write(self.blob(), age::encrypt_and_armor(&recipient, text.as_bytes()).unwrap()).unwrap();
    }

    /// Names of all files beside the key, the blob and its lock.
    pub(crate) fn other_files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["age.key", "vault.age", "vault.age.lock"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 5, 10, 11, 12).unwrap() + chrono::TimeDelta::nanoseconds(345)
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

pub(crate) fn set(name: &str, value: &str) -> SetSecret {
    SetSecret { name: name.into(), value: Some(secret(value)), ..SetSecret::default() }
}

pub(crate) fn grant(name: &str, principals: &[&str]) -> SetSecret {
    let principals = principals.iter().map(|name| (*name).to_owned()).collect();
    SetSecret { name: name.into(), authorized_principals: Some(principals), ..SetSecret::default() }
}

pub(crate) fn error_text<T>(result: Result<T, ductile_vault::VaultError>) -> String {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn error_code<T>(result: Result<T, ductile_vault::VaultError>) -> &'static str {
    match result {
        Err(ductile_vault::VaultError::Rule(rule)) => rule.code(),
        Err(error) => panic!("not a broken rule: {error}"),
        Ok(_) => panic!("it was accepted"),
    }
}

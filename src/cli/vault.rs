//! `ductile vault`: genesis, and secrets while no gateway runs.

mod locks;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use chrono::Utc;
use clap::{Args, Subcommand};
use ductile_config::vault_places;
use ductile_vault::{Genesis, Identities, SetSecret, Vault, VaultError};
use serde_json::json;
use zeroize::Zeroizing;

use super::args::Common;
use super::report::{self, Failure, note};
use super::secret_input;
use locks::Locks;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Create the vault; prints its admin token, once
    #[command(
        long_about = "Create the vault: one age-encrypted file with the principal `core` and the admin token. The token is printed \
                      on stdout, once. An existing file is never replaced.",
        after_help = "Example:\n  ductile secrets keygen --out age.key\n  ductile vault init --vault vault.age --key age.key\n\nExit codes: 0 created, 1 refused."
    )]
    Init(Places),
    /// Put a secret into the vault while no gateway runs; the value comes from stdin
    #[command(
        long_about = "Create a secret, or change its grants, in a vault that no running gateway holds. The value is read from stdin, \
                      on a terminal as one line that is not shown; its final line ends are removed. The value of an existing secret can not be changed this way.",
        after_help = "Example:\n  openssl rand -hex 32 | ductile vault set --vault vault.age --key age.key --name api-token\n\nExit codes: 0 stored, 1 refused; nothing is changed then."
    )]
    Set(Set),
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    places: Places,
    /// Name of the secret
    #[arg(long)]
    name: Option<String>,
    /// Principals that receive it, comma-separated; empty = none
    #[arg(long, value_name = "A,B")]
    principal: Option<String>,
    /// Who makes the value: `manual` (stdin) or `auto` (the gateway)
    #[arg(long, value_name = "manual|auto")]
    pattern: Option<String>,
    /// Free text
    #[arg(long)]
    description: Option<String>,
    /// Keep final line ends of the value
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Places {
    /// The vault file
    #[arg(long, value_name = "FILE")]
    vault: Option<PathBuf>,
    /// The age key file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    crate::harden::this_process();
    match action {
        Action::Init(places) => init(&places, common),
        Action::Set(arguments) => set(arguments, common),
    }
}

fn set(arguments: Set, common: &Common) -> Result<u8, Failure> {
    let name = arguments.name.ok_or_else(|| Failure::usage("vault set: --name is required"))?;
    let auto = match arguments.pattern.as_deref() {
        None => None,
        Some("manual") => Some(false),
        Some("auto") => Some(true),
        Some(other) => {
            return Err(Failure::usage(format!("vault: invalid secret pattern: {other:?} (manual or auto)")));
        }
    };
    let (vault_file, key_file) = both(&arguments.places, common)?;
    // Before anything is asked for or made: a lock beside a vault that is not there would only be litter.
    must_exist(&vault_file)?;
    let value = secret_input::read(arguments.raw)?;
    let authorized_principals = arguments
        .principal
        .map(|list| list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect());
    let set = SetSecret { name: name.clone(), value, authorized_principals, auto, description: arguments.description };
    let locks = Locks::take(&vault_file, common)?;
    let identities = Identities::read(&key_file).map_err(refused)?;
    Vault::open(&vault_file, &identities).and_then(|vault| vault.set(set, Utc::now())).map_err(refused)?;
    drop(locks);
    note(format_args!("Set secret \"{name}\" offline."));
    if common.json {
        report::json(&json!({"name": name, "status": "set"}));
    }
    Ok(0)
}

fn must_exist(vault_file: &Path) -> Result<(), Failure> {
    match vault_file.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::missing(format!(
            "vault: there is no vault at {}; make one with `ductile vault init`",
            vault_file.display()
        ))),
        // What else may be wrong with it is said by who opens it.
        _ => Ok(()),
    }
}

fn init(places: &Places, common: &Common) -> Result<u8, Failure> {
    let (vault_file, key_file) = both(places, common)?;
    let locks = Locks::take(&vault_file, common)?;
    let genesis = Vault::genesis(&vault_file, &key_file, Utc::now()).map_err(refused)?;
    drop(locks);
    note(format_args!("Vault created: {}", vault_file.display()));
    note(format_args!("The admin token below is shown once. Keep it, and a copy of the key file, in a safe place."));
    report::only_copy(&shown(&vault_file, &genesis, common)).map_err(|error| {
        Failure::unprinted(format!(
            "the vault {} was created and stays, but its admin token could not be written to stdout ({error}) and is shown \
             only once: `ductile vault rotate-admin-token`, in a coming version, issues another one; until something is in \
             the vault, it can also be removed and made again",
            vault_file.display()
        ))
    })?;
    Ok(0)
}

fn shown(vault_file: &Path, genesis: &Genesis, common: &Common) -> Zeroizing<String> {
    let token = genesis.admin_token.expose();
    Zeroizing::new(if common.json {
        let vault = vault_file.display().to_string();
        format!("{:#}\n", json!({"vault": vault, "recipient": genesis.recipient, "admin_token": token}))
    } else {
        format!("{token}\n")
    })
}

/// Vault and key: both flags, or both from the configuration.
fn both(places: &Places, common: &Common) -> Result<(PathBuf, PathBuf), Failure> {
    match (&places.vault, &places.key) {
        (Some(vault), Some(key)) => Ok((vault.clone(), key.clone())),
        (None, None) => from_config(common),
        _ => Err(Failure::usage("name BOTH --vault and --key, or neither to take them from the configuration")),
    }
}

/// Places from the configuration. Only the places: before genesis nothing that names a secret can be resolved.
fn from_config(common: &Common) -> Result<(PathBuf, PathBuf), Failure> {
    let environment = crate::environment();
    let source = common.locate(&environment).map_err(Failure::config)?;
    let places = vault_places(&source, &environment).map_err(Failure::config)?;
    let default = || places.default_keys.iter().find(|key| key.exists()).cloned();
    let key = places.named_key.clone().or_else(default).unwrap_or_else(|| source.config_dir.join("age.key"));
    Ok((places.vault_file, key))
}

fn refused(error: VaultError) -> Failure {
    match &error {
        VaultError::Locked(_) | VaultError::Modified { .. } => Failure::try_again(error),
        VaultError::Io { .. } | VaultError::Random(_) => Failure::cannot_create(error),
        VaultError::Refused { .. } | VaultError::Rule(_) => Failure::config(error),
    }
}

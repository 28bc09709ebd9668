//! `ductile vault`: genesis, and secrets while no gateway runs.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use chrono::Utc;
use clap::{Args, Subcommand};
use ductile_config::{Purpose, locate, plan, vault_places};
use ductile_model::Secret;
use ductile_vault::{Identities, SetSecret, Vault, VaultError, VaultLock};

use super::args::Common;
use super::report::{self, Failure};
use crate::gateway::pid_lock::{LockState, PidLock, lock_path, lock_state};
use crate::gateway::secrets::VaultSource;

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
        long_about = "Create a secret, or change its grants, in a vault that no running gateway holds. The value is read from stdin \
                      and its final line ends are removed. The value of an existing secret can not be changed this way.",
        after_help = "Example:\n  openssl rand -hex 32 | ductile vault set --vault vault.age --key age.key --name api-token\n\nExit codes: 0 stored, 1 refused; nothing is changed then."
    )]
    Set {
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
    },
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
        Action::Set { places, name, principal, pattern, description, raw } => {
            let name = name.ok_or_else(|| Failure::usage("vault set: --name is required"))?;
            let auto = match pattern.as_deref() {
                None => None,
                Some("manual") => Some(false),
                Some("auto") => Some(true),
                Some(other) => {
                    return Err(Failure::usage(format!("vault: invalid secret pattern: {other:?} (manual or auto)")));
                }
            };
            let (vault_file, key_file) = both(&places, common)?;
            let value = read_value(raw)?;
            let principals = principal.map(|list| {
                list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
            });
            let set = SetSecret { name: name.clone(), value, authorized_principals: principals, auto, description };
            let (_pid, _lock) = lock(&vault_file, common)?;
            let identities = Identities::read(&key_file).map_err(refused)?;
            Vault::open(&vault_file, &identities).and_then(|vault| vault.set(set, Utc::now())).map_err(refused)?;
            eprintln!("Set secret \"{name}\" offline.");
            if common.json {
                report::json(&serde_json::json!({"name": name, "status": "set"}));
            }
            Ok(0)
        }
    }
}

fn init(places: &Places, common: &Common) -> Result<u8, Failure> {
    let (vault_file, key_file) = both(places, common)?;
    let (_pid, _lock) = lock(&vault_file, common)?;
    let genesis = Vault::genesis(&vault_file, &key_file, Utc::now()).map_err(refused)?;
    eprintln!("Vault created: {}", vault_file.display());
    eprintln!("The admin token below is shown once. Keep it, and a copy of the key file, in a safe place.");
    if common.json {
        report::json(&serde_json::json!({
            "vault": vault_file.display().to_string(),
            "recipient": genesis.recipient,
            "admin_token": genesis.admin_token.expose(),
        }));
    } else {
        report::line(format_args!("{}", genesis.admin_token.expose()));
    }
    Ok(0)
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
    let explicit = common.explicit_config()?;
    let source = locate(explicit.map(PathBuf::as_path), &environment).map_err(Failure::config)?;
    let places = vault_places(&source, &environment).map_err(Failure::config)?;
    let default = || places.default_keys.iter().find(|key| key.exists()).cloned();
    let key = places.named_key.clone().or_else(default).unwrap_or_else(|| source.config_dir.join("age.key"));
    Ok((places.vault_file, key))
}

/// The gateway's PID lock, where a configuration names this vault, and the vault's own lock: nobody else writes.
fn lock(vault_file: &Path, common: &Common) -> Result<(Option<PidLock>, VaultLock), Failure> {
    let pid = match configured_database(vault_file, common)? {
        Some(database) => {
            let path = lock_path(&database);
            if let LockState::Held(pid) = lock_state(&path) {
                let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                return Err(Failure::try_again(format!(
                    "the gateway appears to be running{pid}: stop the service first"
                )));
            }
            // Only a lock that is there is taken: no directory is made for a database that does not exist yet.
            path.exists().then(|| PidLock::acquire(&path)).transpose().map_err(Failure::try_again)?
        }
        None => None,
    };
    let lock = VaultLock::acquire(vault_file).map_err(refused)?;
    Ok((pid, lock))
}

fn configured_database(vault_file: &Path, common: &Common) -> Result<Option<PathBuf>, Failure> {
    let environment = crate::environment();
    let explicit = common.explicit_config()?;
    let Ok(source) = locate(explicit.map(PathBuf::as_path), &environment) else { return Ok(None) };
    let Ok(plan) = plan(&source, &environment, &VaultSource::default(), Purpose::Inspecting) else { return Ok(None) };
    let absolute = std::path::absolute(vault_file).map_err(Failure::internal)?;
    Ok((plan.config.secrets.vault_file == absolute).then(|| plan.config.state.path.clone()))
}

fn read_value(raw: bool) -> Result<Option<Secret>, Failure> {
    if std::io::stdin().is_terminal() {
        eprintln!("Type the value, then Ctrl-D:");
    }
    let mut value = String::new();
    std::io::stdin()
        .read_to_string(&mut value)
        .map_err(|error| Failure::usage(format!("vault set: the value on stdin can not be read: {error}")))?;
    if !raw {
        value.truncate(value.trim_end_matches(['\r', '\n']).len());
    }
    Ok((!value.is_empty()).then(|| Secret::new(value)))
}

fn refused(error: VaultError) -> Failure {
    match &error {
        VaultError::Locked(_) | VaultError::Modified { .. } => Failure::try_again(error),
        VaultError::Io { .. } | VaultError::Random(_) => Failure::cannot_create(error),
        VaultError::Refused { .. } | VaultError::Rule(_) => Failure::config(error),
    }
}

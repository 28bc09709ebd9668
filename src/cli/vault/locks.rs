//! Who writes to a vault keeps everybody else from doing so, a gateway first of all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ductile_config::{Environment, state_path, vault_places};
use ductile_vault::VaultLock;

use super::refused;
use crate::cli::args::Common;
use crate::cli::report::Failure;
use crate::gateway::pid_lock::{LockState, PidLock, lock_path, lock_state};

/// The gateway's lock, where a configuration names this vault, and the vault's own: nobody else writes.
pub(super) struct Locks {
    pid: Option<PidLock>,
    _vault: VaultLock,
}

impl Locks {
    pub(super) fn take(vault_file: &Path, common: &Common) -> Result<Self, Failure> {
        let pid = gateway_lock(vault_file, common)?.map(|path| take_gateway_lock(&path)).transpose()?.flatten();
        let vault = VaultLock::acquire(vault_file).map_err(refused)?;
        Ok(Self { pid, _vault: vault })
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        if let Some(pid) = &self.pid {
            pid.release();
        }
    }
}

fn take_gateway_lock(path: &Path) -> Result<Option<PidLock>, Failure> {
    if let LockState::Held(pid) = lock_state(path) {
        let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        return Err(Failure::try_again(format!(
            "the gateway appears to be running{pid}: {} is locked; stop the service and try again, nothing was changed",
            path.display()
        )));
    }
    // Only a lock that is there is taken: who runs this need not be who runs the gateway, and a file or directory made
    // here would be in its way.
    path.exists().then(|| PidLock::acquire(path)).transpose().map_err(Failure::try_again)
}

/// The lock of the gateway that uses this vault; `None` when no configuration says that one does. Nothing of it needs
/// a secret, so that it is known before there is a vault.
fn gateway_lock(vault_file: &Path, common: &Common) -> Result<Option<PathBuf>, Failure> {
    let environment = crate::environment();
    let unknown = |cause: String| {
        Failure::config(format!(
            "{cause}\nso it is not known whether a gateway uses {}: mend the configuration, or name the right one with \
             --config; nothing was changed",
            vault_file.display()
        ))
    };
    let source = match common.locate(&environment) {
        Ok(source) => source,
        Err(problem) if is_named(common, &environment) => return Err(unknown(problem.to_string())),
        Err(_) => return Ok(None),
    };
    let places = vault_places(&source, &environment).map_err(|refusal| unknown(refusal.to_string()))?;
    if settled(&places.vault_file) != settled(vault_file) {
        return Ok(None);
    }
    let database = state_path(&source, &environment).map_err(|refusal| unknown(refusal.to_string()))?;
    Ok(Some(lock_path(&database)))
}

/// Whether somebody said where the configuration is, as against looking in the usual places.
fn is_named(common: &Common, environment: &Environment) -> bool {
    let variable = environment.vars.get("DUCTILE_CONFIG_DIR");
    common.named_config().is_some() || variable.is_some_and(|value| !value.trim().is_empty())
}

/// The same for all ways to one file: links and `..` are resolved as far as there is something.
fn settled(path: &Path) -> PathBuf {
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (parent.canonicalize(), path.file_name().map(OsString::from)) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

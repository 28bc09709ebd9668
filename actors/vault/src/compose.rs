//! What may be handed out, and to whom.

use ductile_model::Secret;

use crate::document::{Document, Kind, SecretEntry, Status};
use crate::rules::is_reserved;

/// What a plugin gets.
#[derive(Debug)]
pub enum Composed {
    /// No vault, or the principal is not registered: the request has no `secrets`.
    NotAPrincipal,
    /// The principal is active: these, possibly none, sorted by name.
    Secrets(Vec<(String, Secret)>),
}

/// Why a job gets no secrets and must not run: the whole text of its `last_error`, `secret composition failed: `
/// included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

impl Denied {
    /// Puts the words in front that all refusals share.
    fn because(reason: &str) -> Self {
        Self(format!("secret composition failed: {reason}"))
    }

    fn unregistered(principal: &str) -> Self {
        Self::because(&format!(
            "vault: plugin requires vault secrets but its principal is unknown/unregistered: {principal:?}"
        ))
    }
}

/// The answer when no vault is loaded.
pub(crate) fn without_vault(principal: &str, requires_vault: bool) -> Result<Composed, Denied> {
    if requires_vault { Err(Denied::unregistered(principal)) } else { Ok(Composed::NotAPrincipal) }
}

/// How a granted secret stands.
enum Delivery {
    Deliver,
    Withhold(&'static str),
}

impl SecretEntry {
    fn delivery(&self) -> Delivery {
        if self.status == Status::Revoked {
            Delivery::Withhold("secret_revoked")
        } else if self.orphaned {
            Delivery::Withhold("secret_orphaned")
        } else if self.value.is_empty() {
            Delivery::Withhold("secret_empty")
        } else {
            Delivery::Deliver
        }
    }
}

impl Document {
    /// The secrets of a principal for one spawn. The principal is judged first, then each of its grants.
    pub(crate) fn compose(&self, name: &str, requires_vault: bool) -> Result<Composed, Denied> {
        let Some(principal) = self.principals.get(name) else {
            return without_vault(name, requires_vault);
        };
        if principal.kind == Kind::Gateway || is_reserved(name) {
            return Err(Denied::because(&format!(
                "vault: principal of kind gateway gets no secrets delivered: {name:?}"
            )));
        }
        if principal.status == Status::Revoked {
            return Err(Denied::because(&format!("vault: principal is not active: {name:?} is revoked")));
        }
        let secrets = self.deliverable(name);
        if secrets.is_empty() && requires_vault {
            return Err(Denied::because(&format!(
                "vault: plugin requires vault secrets but none could be delivered: {name:?}"
            )));
        }
        Ok(Composed::Secrets(secrets))
    }

    fn deliverable(&self, principal: &str) -> Vec<(String, Secret)> {
        let granted = self
            .secrets
            .iter()
            .filter(|(name, entry)| !is_reserved(name) && entry.grants.iter().any(|grantee| grantee == principal));
        let mut secrets = Vec::new();
        for (name, entry) in granted {
            match entry.delivery() {
                Delivery::Deliver => secrets.push((name.clone(), entry.value.clone())),
                Delivery::Withhold(reason) => {
                    tracing::warn!(principal, secret = %name, reason, "secret withheld from plugin");
                }
            }
        }
        secrets
    }

    /// The value that a reference of the gateway's own configuration stands for, or why there is none.
    pub(crate) fn resolve(&self, name: &str) -> Result<Secret, &'static str> {
        if is_reserved(name) {
            return Err("reserved");
        }
        let entry = self.secrets.get(name).ok_or("not in the vault")?;
        if entry.status == Status::Revoked {
            return Err("revoked");
        }
        if entry.orphaned {
            return Err("orphaned");
        }
        if entry.value.is_empty() {
            return Err("empty");
        }
        self.check_audience(entry)?;
        Ok(entry.value.clone())
    }

    /// A secret without grants is for the configuration; with grants, one of them must be somebody who reads it there.
    fn check_audience(&self, entry: &SecretEntry) -> Result<(), &'static str> {
        let mut only_plugins = true;
        for grantee in &entry.grants {
            match self.principals.get(grantee) {
                Some(principal) if principal.kind == Kind::Plugin => {}
                Some(principal) if principal.status == Status::Active => return Ok(()),
                _ => only_plugins = false,
            }
        }
        match (entry.grants.is_empty(), only_plugins) {
            (true, _) => Ok(()),
            (false, true) => Err("granted only to plugins"),
            (false, false) => Err("granted to no active gateway or consumer"),
        }
    }
}

//! The first blob.

use std::path::Path;

use chrono::{DateTime, Utc};
use ductile_model::Secret;

use crate::blob::{self, Placement};
use crate::document::{AuditFact, Document, Kind, Pattern, PrincipalEntry, SecretEntry};
use crate::key::Identities;
use crate::vault::next_generation;
use crate::{ADMIN_TOKEN, CORE, Vault, VaultError, random};

/// What genesis hands out, once.
#[derive(Debug)]
pub struct Genesis {
    /// The vault admin token.
    pub admin_token: Secret,
    /// Public recipient of the blob (the first, when the key file has several).
    pub recipient: String,
}

impl Vault {
    /// Makes the first blob: principal `core` with a fresh nonce and the admin token. The caller holds the
    /// [`VaultLock`](crate::VaultLock).
    ///
    /// # Errors
    /// The blob exists in any form, the key is refused, or it can not be written.
    pub fn genesis(vault_file: &Path, key_file: &Path, now: DateTime<Utc>) -> Result<Genesis, VaultError> {
        let identities = Identities::read(key_file)?;
        let admin_token = random::mint()?;
        let mut document = Document::default();
        document.principals.insert(CORE.into(), PrincipalEntry::new(Kind::Gateway, Some(random::mint()?)));
        let token = SecretEntry::new(admin_token.clone(), Pattern::Auto, now);
        document.secrets.insert(ADMIN_TOKEN.into(), token);
        next_generation(vault_file, &mut document, AuditFact::by_command("init", now))?;
        blob::write(vault_file, &identities, &document, Placement::CreateOnly)?;
        let recipient = identities.recipients().into_iter().next().unwrap_or_default();
        Ok(Genesis { admin_token, recipient })
    }
}

//! The decrypted vault and what can be asked of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use ductile_model::Secret;
use zeroize::Zeroizing;

use crate::auth::Standing;
use crate::blob::{self, Fingerprint, Placement};
use crate::document::{AuditFact, Document, Word as _};
use crate::key::Identities;
use crate::rules::{Change, SetSecret};
use crate::{CORE, Composed, Denied, VaultError, random};

/// Separates the stand-in for a missing nonce from every other use of the identity.
const STAND_IN_CONTEXT: &str = "ductile vault without a nonce v1";

/// The decrypted document. Cheap to clone; a clone sees the state it was made from.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    /// As it was named.
    path: PathBuf,
    /// The file itself, links resolved once.
    target: PathBuf,
    identities: Identities,
    document: Document,
    /// Of the bytes on disk that this document came from.
    fingerprint: Fingerprint,
    standing: Standing,
    /// One change at a time, among all states that descend from one opening of the file.
    saving: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault([REDACTED])")
    }
}

impl Vault {
    /// Reads, decrypts, authenticates and parses the blob.
    ///
    /// # Errors
    /// Anything less than a whole, authentic document.
    pub fn open(vault_file: &Path, identities: &Identities) -> Result<Self, VaultError> {
        let target = vault_file.canonicalize().map_err(VaultError::io("cannot open", vault_file))?;
        let opened = blob::open(vault_file, &target, identities)?;
        if opened.standing == Standing::Legacy {
            tracing::warn!(
                path = %vault_file.display(),
                "vault document is from before documents were authenticated; the next save adds the proof"
            );
        }
        Ok(Self {
            inner: Arc::new(Inner {
                path: vault_file.to_path_buf(),
                target,
                identities: identities.clone(),
                document: opened.document,
                fingerprint: opened.fingerprint,
                standing: opened.standing,
                saving: Arc::default(),
            }),
        })
    }

    /// Reads the file again, with the identities this vault was opened with.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn reopen(&self) -> Result<Self, VaultError> {
        Self::open(&self.inner.path, &self.inner.identities)
    }

    /// Where the blob lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.inner.path.clone()
    }

    /// Number of the save that made this document; 0 for one from before there were numbers.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.document.generation.unwrap_or(0)
    }

    /// Whether the document is from before documents were authenticated. Once a numbered one of this gateway has been
    /// recorded, such a document must not be used.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.inner.standing == Standing::Legacy
    }

    /// Facts that are saved with the document and not yet known to be in the audit log, oldest first.
    #[must_use]
    pub fn audit_pending(&self) -> &[AuditFact] {
        &self.inner.document.audit_pending
    }

    /// Applies a set and saves durably. The caller holds the [`VaultLock`](crate::VaultLock).
    ///
    /// # Errors
    /// A broken rule (nothing changed), or the save failed (nothing changed).
    pub fn set(&self, set: SetSecret, now: DateTime<Utc>) -> Result<Self, VaultError> {
        let mut document = self.inner.document.clone();
        if document.set(&set, now)? == Change::Nothing {
            return Ok(self.clone());
        }
        let pattern = set.pattern().map_or("unchanged", |pattern| pattern.word());
        let mut fact = AuditFact::by_command("set", now);
        fact.detail = Some(format!("pattern={pattern}"));
        fact.secret_name = Some(set.name);
        self.save(document, fact)
    }

    /// Registers a principal of kind `plugin`, `consumer` or `gateway` and saves durably. The caller holds the
    /// [`VaultLock`](crate::VaultLock).
    ///
    /// # Errors
    /// As [`Vault::set`].
    pub fn register_principal(&self, name: &str, kind: &str, now: DateTime<Utc>) -> Result<Self, VaultError> {
        let mut document = self.inner.document.clone();
        document.register(name, kind)?;
        let mut fact = AuditFact::by_command("register", now);
        fact.principal = Some(name.into());
        fact.detail = Some(format!("kind={kind}"));
        self.save(document, fact)
    }

    /// The changed document on disk first, then in the value that is handed back: who holds the old value sees
    /// nothing of a change that was not saved.
    fn save(&self, mut document: Document, fact: AuditFact) -> Result<Self, VaultError> {
        let inner = &self.inner;
        let _one_at_a_time = inner.saving.lock().unwrap_or_else(PoisonError::into_inner);
        match blob::is_unchanged(&inner.target, &inner.fingerprint)? {
            Some(true) => {}
            Some(false) => return Err(VaultError::Modified { path: inner.path.clone() }),
            None => tracing::warn!(path = %inner.path.display(), "the vault file is gone; it is written anew"),
        }
        next_generation(&inner.path, &mut document, fact)?;
        let fingerprint = blob::write(&inner.target, &inner.identities, &document, Placement::Replace)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: inner.path.clone(),
                target: inner.target.clone(),
                identities: inner.identities.clone(),
                document,
                fingerprint,
                standing: Standing::Authentic,
                saving: Arc::clone(&inner.saving),
            }),
        })
    }

    /// Value for a `secret_ref` of the gateway's own configuration, or why there is none.
    ///
    /// # Errors
    /// The cause in words.
    pub fn resolve(&self, name: &str) -> Result<Secret, &'static str> {
        self.inner.document.resolve(name)
    }

    /// The word for the kind of a registered principal, active or revoked: `plugin`, `consumer` or `gateway`.
    #[must_use]
    pub fn principal_kind(&self, name: &str) -> Option<&'static str> {
        self.inner.document.principals.get(name).map(|principal| principal.kind.word())
    }

    /// The key that fingerprints of plugins are made with: the 32-byte nonce of `core`.
    ///
    /// # Errors
    /// The document has none, or a damaged one: then there must be no fingerprint, rather than one anybody can make.
    pub fn core_nonce(&self) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let core = self.inner.document.principals.get(CORE);
        core.and_then(|core| core.nonce.as_ref()).and_then(random::unmint).ok_or_else(|| {
            VaultError::refused(&self.inner.path, "principal \"core\" has no usable nonce; fingerprints need one")
        })
    }

    /// A key for fingerprints of configuration values: the nonce of `core`, or, in a document without one, a key that
    /// only a holder of the identity can make. To attest plugins, use [`Vault::core_nonce`].
    #[must_use]
    pub fn nonce(&self) -> [u8; 32] {
        match (self.core_nonce(), self.inner.identities.iter().next()) {
            (Ok(nonce), _) => *nonce,
            (Err(_), Some(identity)) => blake3::derive_key(STAND_IN_CONTEXT, identity.secret()),
            // A key file without identities is refused when it is read.
            (Err(_), None) => blake3::derive_key(STAND_IN_CONTEXT, &self.inner.fingerprint),
        }
    }

    /// Composes the secrets of a principal.
    ///
    /// # Errors
    /// The job must fail.
    pub fn compose(&self, principal: &str, requires_vault: bool) -> Result<Composed, Denied> {
        self.inner.document.compose(principal, requires_vault)
    }
}

/// Counts a save and puts its fact into the same document, so that neither is ever without the other.
pub(crate) fn next_generation(path: &Path, document: &mut Document, mut fact: AuditFact) -> Result<(), VaultError> {
    let generation = document.generation.unwrap_or(0).checked_add(1);
    let generation =
        generation.ok_or_else(|| VaultError::refused(path, "the generation can not be counted further"))?;
    document.generation = Some(generation);
    let detail = fact.detail.take().map_or_else(String::new, |detail| format!("{detail} "));
    fact.detail = Some(format!("{detail}generation={generation}"));
    document.audit_pending.push(fact);
    Ok(())
}

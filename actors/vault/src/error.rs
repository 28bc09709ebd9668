//! What can go wrong with a vault.

use std::fmt;
use std::path::{Path, PathBuf};

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The blob and its lock.
    Vault,
    /// A file with age identities.
    Key,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vault => "vault",
            Self::Key => "age key",
        })
    }
}

/// Why the vault could not be used. No variant ever holds a value or an excerpt of the document.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A file could not be read or written.
    #[error("{subject}: {what} {path}: {source}", path = path.display())]
    Io {
        /// Which of the two files it is about.
        subject: Subject,
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file or the blob is refused.
    #[error("{subject}: {path}: {reason}", path = path.display())]
    Refused {
        /// Which of the two files it is about.
        subject: Subject,
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The file on disk is not the one that was read last; nothing was written.
    #[error(
        "vault: blob modified externally: {path}: it is not the file that was last read or written here; \
         nothing was changed, and a reload or a restart adopts the file on disk",
        path = path.display()
    )]
    Modified {
        /// The blob.
        path: PathBuf,
    },
    /// A rule of the document was broken by the request; nothing was changed.
    #[error("vault: {0}")]
    Rule(#[from] RuleError),
    /// Somebody else holds the vault.
    #[error("vault: {0}")]
    Locked(String),
    /// The operating system gave no random bytes; nothing was made up instead.
    #[error("vault: the operating system gave no random bytes: {0}")]
    Random(String),
}

impl VaultError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { subject: Subject::Vault, what, path, source }
    }

    pub(crate) fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { subject: Subject::Vault, path: path.to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn key_io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { subject: Subject::Key, what, path, source }
    }

    pub(crate) fn key_refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { subject: Subject::Key, path: path.to_path_buf(), reason: reason.into() }
    }
}

/// A broken rule of the document. A name that is no legal name is never repeated: it may be a mistyped value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The name of a principal or secret is not legal.
    #[error("invalid name: {0}")]
    InvalidName(&'static str),
    /// Not a kind of principal.
    #[error("invalid principal kind: use plugin, consumer or gateway")]
    InvalidKind,
    /// Belongs to the gateway itself.
    #[error("reserved entity: {0:?}")]
    Reserved(String),
    /// There is one of that name, active or revoked.
    #[error("principal already registered: {0:?}")]
    DuplicatePrincipal(String),
    /// A grant to a principal that is not registered.
    #[error("unknown principal: {principal:?}, named by secret {secret:?}; register it first")]
    UnknownPrincipal {
        /// The secret that was to be granted.
        secret: String,
        /// The principal that is missing.
        principal: String,
    },
    /// A new grant to a revoked principal.
    #[error("principal is not active: {0:?} is revoked")]
    PrincipalInactive(String),
    /// The secret is revoked for good.
    #[error("secret is revoked: {0:?}")]
    SecretRevoked(String),
    /// Another value for an existing secret.
    #[error("value is roll-only: secret {0:?}")]
    ValueImmutable(String),
    /// A manual secret needs a value.
    #[error("empty value: secret {0:?}")]
    EmptyValue(String),
    /// The value or the description is too long or holds a NUL.
    #[error("invalid value: secret {secret:?}: {reason}")]
    InvalidValue {
        /// The secret.
        secret: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl RuleError {
    /// Short stable word for the rule, as answers and audit rows show it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "invalid_name",
            Self::InvalidKind => "invalid_kind",
            Self::Reserved(_) => "reserved",
            Self::DuplicatePrincipal(_) => "duplicate_principal",
            Self::UnknownPrincipal { .. } => "unknown_principal",
            Self::PrincipalInactive(_) => "principal_inactive",
            Self::SecretRevoked(_) => "secret_revoked",
            Self::ValueImmutable(_) => "value_immutable",
            Self::EmptyValue(_) => "empty_value",
            Self::InvalidValue { .. } => "invalid_value",
        }
    }
}

//! The vault: one age-encrypted file, decrypted only in the memory of the gateway, written only by its owner.
//!
//! **Owns** the decrypted document, its file, and the lock that makes it the only writer.
//!
//! **Promises.** A blob that can not be read, decrypted, parsed or authenticated is an error, never an empty store.
//! A kill at any instant leaves the old or the new blob whole. No value appears in a message, log, error or `Debug`.
//! A change is either saved durably or did not happen, in memory as on disk.
//!
//! **When it dies**, the actor re-reads the blob; until then jobs that need secrets fail retryably.
//!
//! **Not here:** who may ask for a change (the callers check that), and writing the pending audit facts of the
//! document into the database.
//!
//! From the file to the answer: `key` opens the key file, `crypt` the age envelope, `reader` turns the text into a
//! tree (`node`), `auth` checks that it was written by a holder of the key, `document` gives it types, `rules`
//! changes it, `compose` answers from it; on the way back `writer` and `blob` make the new file.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod actor;
mod auth;
mod blob;
mod compose;
mod crypt;
mod document;
mod error;
mod files;
mod genesis;
mod key;
mod lock;
mod node;
mod random;
mod reader;
mod rules;
mod vault;
mod writer;

pub use actor::{Keeper, VaultActor, VaultArgs, VaultHandle, VaultMsg};
pub use compose::{Composed, Denied};
pub use document::AuditFact;
pub use error::{RuleError, Subject, VaultError};
pub use genesis::Genesis;
pub use key::{Identities, NewIdentity, find_key, generate_identity};
pub use lock::VaultLock;
pub use rules::SetSecret;
pub use vault::Vault;

/// Reserved name of the admin token's secret.
pub const ADMIN_TOKEN: &str = "core-admin-token";

/// Reserved name of the gateway's own principal.
pub(crate) use ductile_model::CORE_PRINCIPAL as CORE;

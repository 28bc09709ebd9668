//! The rules by which a document may change. All of them are checked before anything is changed.

use chrono::{DateTime, Utc};
use ductile_model::{Secret, is_principal};

use crate::document::{Document, Kind, Pattern, PrincipalEntry, SecretEntry, Status, Word as _, stamp};
use crate::{ADMIN_TOKEN, CORE, RuleError, VaultError, random};

const MAX_NAME: usize = 128;
const MAX_VALUE: usize = 64 * 1024;
const MAX_DESCRIPTION: usize = 1024;

/// What belongs to the gateway itself; asked by every path that changes or shows something.
const RESERVED: &[&str] = &[CORE, ADMIN_TOKEN];

/// Whether a name of a principal or secret belongs to the gateway itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Create or partial update of a secret.
#[derive(Clone, Debug, Default)]
pub struct SetSecret {
    /// Its name.
    pub name: String,
    /// Its value; absent or empty = unchanged, or minted for a new `auto` secret.
    pub value: Option<Secret>,
    /// Absent = unchanged, empty = cleared.
    pub authorized_principals: Option<Vec<String>>,
    /// Whether the gateway mints the value; absent = unchanged, `manual` for a new secret.
    pub auto: Option<bool>,
    /// Free text.
    pub description: Option<String>,
}

impl SetSecret {
    pub(crate) fn pattern(&self) -> Option<Pattern> {
        self.auto.map(|auto| if auto { Pattern::Auto } else { Pattern::Manual })
    }

    fn given_value(&self) -> Option<&Secret> {
        self.value.as_ref().filter(|value| !value.is_empty())
    }
}

/// Whether an accepted request made a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Changed,
    Nothing,
}

impl Document {
    /// Creates a secret or updates parts of it.
    pub(crate) fn set(&mut self, set: &SetSecret, now: DateTime<Utc>) -> Result<Change, VaultError> {
        check_secret_name(&set.name)?;
        check_texts(set)?;
        self.check_grants(set)?;
        match self.secrets.get_mut(&set.name) {
            None => {
                let entry = new_secret(set, now)?;
                self.secrets.insert(set.name.clone(), entry);
                Ok(Change::Changed)
            }
            Some(entry) => Ok(update_secret(entry, set, now)?),
        }
    }

    /// Registers a principal.
    pub(crate) fn register(&mut self, name: &str, kind: &str) -> Result<(), RuleError> {
        check_principal_name(name)?;
        let kind = Kind::from_word(kind).ok_or(RuleError::InvalidKind)?;
        if is_reserved(name) {
            return Err(RuleError::Reserved(name.into()));
        }
        if self.principals.contains_key(name) {
            return Err(RuleError::DuplicatePrincipal(name.into()));
        }
        self.principals.insert(name.into(), PrincipalEntry::new(kind, None));
        Ok(())
    }

    /// A grant needs a registered principal, and a new one an active principal.
    fn check_grants(&self, set: &SetSecret) -> Result<(), RuleError> {
        for name in set.authorized_principals.iter().flatten() {
            check_principal_name(name)?;
            let Some(principal) = self.principals.get(name) else {
                return Err(RuleError::UnknownPrincipal { secret: set.name.clone(), principal: name.clone() });
            };
            let has_it = self.secrets.get(&set.name).is_some_and(|entry| entry.grants.contains(name));
            if principal.status == Status::Revoked && !has_it {
                return Err(RuleError::PrincipalInactive(name.clone()));
            }
        }
        Ok(())
    }
}

fn new_secret(set: &SetSecret, now: DateTime<Utc>) -> Result<SecretEntry, VaultError> {
    let pattern = set.pattern().unwrap_or(Pattern::Manual);
    let value = match (set.given_value(), pattern) {
        (Some(value), _) => value.clone(),
        (None, Pattern::Auto) => random::mint()?,
        (None, Pattern::Manual) => return Err(RuleError::EmptyValue(set.name.clone()).into()),
    };
    let mut entry = SecretEntry::new(value, pattern, now);
    entry.grants = without_repetitions(set.authorized_principals.as_deref().unwrap_or_default());
    entry.description.clone_from(&set.description);
    Ok(entry)
}

fn update_secret(entry: &mut SecretEntry, set: &SetSecret, now: DateTime<Utc>) -> Result<Change, RuleError> {
    if entry.status == Status::Revoked {
        return Err(RuleError::SecretRevoked(set.name.clone()));
    }
    if set.given_value().is_some_and(|value| !same(value, &entry.value)) {
        return Err(RuleError::ValueImmutable(set.name.clone()));
    }
    let mut change = Change::Nothing;
    if let Some(grants) = &set.authorized_principals {
        let grants = without_repetitions(grants);
        // An orphan becomes deliverable only by naming somebody; clearing it must not open it to everybody.
        let orphaned = entry.orphaned && grants.is_empty();
        replace(&mut entry.grants, grants, &mut change);
        replace(&mut entry.orphaned, orphaned, &mut change);
    }
    if let Some(pattern) = set.pattern() {
        replace(&mut entry.pattern, pattern, &mut change);
    }
    if let Some(description) = &set.description {
        replace(&mut entry.description, Some(description.clone()), &mut change);
    }
    if change == Change::Changed {
        entry.updated_at = Some(stamp(now));
    }
    Ok(change)
}

fn replace<T: PartialEq>(slot: &mut T, new: T, change: &mut Change) {
    if *slot != new {
        *slot = new;
        *change = Change::Changed;
    }
}

fn without_repetitions(names: &[String]) -> Vec<String> {
    let mut seen: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !seen.contains(name) {
            seen.push(name.clone());
        }
    }
    seen
}

/// Compares without telling by its duration where two values differ.
fn same(one: &Secret, other: &Secret) -> bool {
    blake3::hash(one.expose().as_bytes()) == blake3::hash(other.expose().as_bytes())
}

fn check_texts(set: &SetSecret) -> Result<(), RuleError> {
    let invalid = |reason| Err(RuleError::InvalidValue { secret: set.name.clone(), reason });
    if let Some(value) = &set.value {
        if value.expose().len() > MAX_VALUE {
            return invalid("longer than 64 KiB");
        }
        if value.expose().contains('\0') {
            return invalid("holds a NUL character");
        }
    }
    if let Some(description) = &set.description {
        if description.len() > MAX_DESCRIPTION {
            return invalid("its description is longer than 1 KiB");
        }
        if description.contains('\0') {
            return invalid("its description holds a NUL character");
        }
    }
    Ok(())
}

fn check_secret_name(name: &str) -> Result<(), RuleError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    let legal = bytes.len() <= MAX_NAME && bytes.iter().all(|b| inner(*b)) && edge(bytes.first()) && edge(bytes.last());
    if !legal {
        return Err(RuleError::InvalidName(
            "a secret is named with lower-case letters, digits, '-' and '_', the last two not at the ends, \
             at most 128 bytes",
        ));
    }
    if is_reserved(name) {
        return Err(RuleError::Reserved(name.into()));
    }
    Ok(())
}

fn check_principal_name(name: &str) -> Result<(), RuleError> {
    if is_principal(name) {
        return Ok(());
    }
    Err(RuleError::InvalidName(
        "a principal is named with lower-case letters and digits, in parts joined by single '-', at most 128 bytes",
    ))
}

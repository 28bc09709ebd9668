//! The file of the vault: read as a whole, replaced as a whole.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::document::Document;
use crate::key::Identities;
use crate::node::Map;
use crate::{VaultError, auth, crypt, files, reader, writer};

/// How the temporary file of a writer begins; letters and digits follow.
const TEMPORARY: &str = ".vault-";

/// SHA-256 of the bytes of a blob.
pub(crate) type Fingerprint = [u8; 32];

/// What is at the place of the new blob.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The old blob, or nothing.
    Replace,
    /// Nothing; whatever is found there, a dangling link included, is left alone.
    CreateOnly,
}

/// A blob that was read and found good.
pub(crate) struct Opened {
    pub(crate) document: Document,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) standing: auth::Standing,
}

/// Reads, decrypts, authenticates and types a blob. `named` is the path that errors name.
pub(crate) fn open(named: &Path, target: &Path, identities: &Identities) -> Result<Opened, VaultError> {
    let content = files::read_regular(target)?;
    let plaintext = identities.decrypt(named, &content)?;
    let refused = |reason: String| VaultError::refused(named, reason);
    let text = std::str::from_utf8(&plaintext).map_err(|_| refused("the document is not UTF-8".into()))?;
    let mut map = reader::read(text).map_err(|damage| refused(damage.to_string()))?;
    let standing = auth::verify(&mut map, identities).map_err(refused)?;
    let document = Document::decode(map).map_err(|reason| refused(format!("the document is damaged: {reason}")))?;
    Ok(Opened { document, fingerprint: fingerprint(&content), standing })
}

fn fingerprint(content: &[u8]) -> Fingerprint {
    Sha256::digest(content).into()
}

/// Whether the file at `target` is still the one with this fingerprint; `None` when it is gone.
pub(crate) fn is_unchanged(target: &Path, known: &Fingerprint) -> Result<Option<bool>, VaultError> {
    match files::read_regular(target) {
        Ok(content) => Ok(Some(fingerprint(&content) == *known)),
        Err(VaultError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the document durably. A kill at any instant leaves what was there before, or the new blob whole.
pub(crate) fn write(
    target: &Path,
    identities: &Identities,
    document: &Document,
    placement: Placement,
) -> Result<Fingerprint, VaultError> {
    let parent = files::parent_of(target);
    // Opened first: once the blob has its name, nothing but the flush may fail.
    let directory = File::open(&parent).map_err(VaultError::io("cannot open directory", &parent))?;
    let sealed = seal(target, identities, document)?;
    let temporary = write_temporary(&parent, &directory, &sealed.ciphertext)?;
    prove(temporary.path(), identities, &sealed)?;
    place(temporary, target, placement)?;
    directory.sync_all().map_err(VaultError::io("cannot flush directory", &parent))?;
    Ok(fingerprint(&sealed.ciphertext))
}

struct Sealed {
    ciphertext: Vec<u8>,
    plaintext: blake3::Hash,
}

fn seal(target: &Path, identities: &Identities, document: &Document) -> Result<Sealed, VaultError> {
    let failed = || VaultError::io("cannot encrypt", target);
    let mut map: Map = document.encode();
    map.insert(auth::AUTH.into(), auth::sign(&map, identities).map_err(failed())?);
    let mut hasher = blake3::Hasher::new();
    writer::write(&map, &mut hasher).map_err(failed())?;
    let ciphertext = crypt::encrypt(identities, |out| writer::write(&map, out)).map_err(failed())?;
    Ok(Sealed { ciphertext, plaintext: hasher.finalize() })
}

fn write_temporary(parent: &Path, directory: &File, ciphertext: &[u8]) -> Result<NamedTempFile, VaultError> {
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .suffix("")
        .tempfile_in(parent)
        .map_err(VaultError::io("cannot create a file in", parent))?;
    // Tells the one who cleans up that this file is in use. Without the lock it is merely a little less safe.
    let _ = rustix::fs::flock(temporary.as_file(), FlockOperation::NonBlockingLockExclusive);
    let path = temporary.path().to_path_buf();
    temporary.write_all(ciphertext).map_err(VaultError::io("cannot write", &path))?;
    let file = temporary.as_file();
    files::adopt_owner(file, directory).map_err(VaultError::io("cannot give to the owner of its directory", &path))?;
    file.sync_all().map_err(VaultError::io("cannot flush", &path))?;
    Ok(temporary)
}

/// What was written is read back and opened before the old blob is given up.
fn prove(path: &Path, identities: &Identities, sealed: &Sealed) -> Result<(), VaultError> {
    let content = files::read_regular(path)?;
    let plaintext = identities.decrypt(path, &content)?;
    if *content != sealed.ciphertext || blake3::hash(&plaintext) != sealed.plaintext {
        return Err(VaultError::refused(path, "what was written does not read back; the old blob was kept"));
    }
    Ok(())
}

fn place(temporary: NamedTempFile, target: &Path, placement: Placement) -> Result<(), VaultError> {
    let placed = match placement {
        Placement::Replace => temporary.persist(target),
        Placement::CreateOnly => temporary.persist_noclobber(target),
    };
    match placed {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            let reason = "there is a vault already, or a link of that name; it was left as it is";
            Err(VaultError::refused(target, reason))
        }
        Err(error) => Err(VaultError::io("cannot put in place", target)(error.error)),
    }
}

/// Removes what killed writers left beside `target`. Called by the holder of the lock only; best effort.
pub(crate) fn remove_leftovers(target: &Path) {
    let Ok(entries) = fs::read_dir(files::parent_of(target)) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && is_leftover(&entry.path(), target) && is_abandoned(&entry.path()) {
            match fs::remove_file(entry.path()) {
                Ok(()) => {
                    tracing::info!(path = %entry.path().display(), "removed left-over file of an interrupted save")
                }
                Err(error) => tracing::warn!(path = %entry.path().display(), %error, "cannot remove left-over file"),
            }
        }
    }
}

/// Only names that a writer makes; and never a blob, should somebody have called one like that.
fn is_leftover(path: &Path, target: &Path) -> bool {
    let random = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix(TEMPORARY));
    let made_here = random.is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric()));
    made_here && path.file_name() != target.file_name() && !beside_lock(path)
}

fn beside_lock(path: &Path) -> bool {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    PathBuf::from(lock).exists()
}

fn is_abandoned(path: &Path) -> bool {
    files::open_for_reading(path)
        .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

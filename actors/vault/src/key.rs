//! Key files: who may have them, what they hold, and making new ones.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use age::x25519;
use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use ductile_model::{Secret, is_age_encrypted};
use zeroize::Zeroizing;

use crate::{VaultError, files};

const MAX_KEY_FILE: u64 = 64 * 1024;

/// The age identities of a key file. Never printed. Cheap to clone.
#[derive(Clone)]
pub struct Identities(Arc<Vec<OwnIdentity>>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities([REDACTED])")
    }
}

/// One identity, with what is needed of it again and again.
pub(crate) struct OwnIdentity {
    private: x25519::Identity,
    public: x25519::Recipient,
    secret: Zeroizing<[u8; 32]>,
}

impl OwnIdentity {
    fn new(private: x25519::Identity) -> Option<Self> {
        let secret = secret_bytes(&private)?;
        Some(Self { public: private.to_public(), private, secret })
    }

    pub(crate) fn private(&self) -> &x25519::Identity {
        &self.private
    }

    pub(crate) fn public(&self) -> &x25519::Recipient {
        &self.public
    }

    /// The public recipient as text.
    pub(crate) fn recipient(&self) -> String {
        self.public.to_string()
    }

    /// The 32 bytes that the text form of the identity stands for.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

/// age keeps the bytes to itself, but writes them down in a standard form.
fn secret_bytes(identity: &x25519::Identity) -> Option<Zeroizing<[u8; 32]>> {
    let text = identity.to_string();
    let checked = CheckedHrpstring::new::<Bech32>(text.expose_secret()).ok()?;
    let mut secret = Zeroizing::new([0_u8; 32]);
    let mut bytes = checked.byte_iter();
    for slot in secret.iter_mut() {
        *slot = bytes.next()?;
    }
    bytes.next().is_none().then_some(secret)
}

impl Identities {
    /// Reads and checks a key file: a regular file, no group or other bits, owned by the user or root, at most
    /// 64 KiB, at least one X25519 identity.
    ///
    /// # Errors
    /// What is wrong with the file and how to mend it.
    pub fn read(path: &Path) -> Result<Self, VaultError> {
        let file = files::open_for_reading(path).map_err(VaultError::key_io("cannot open key file", path))?;
        // Looked at through the descriptor: the path could be another file by now.
        let meta = file.metadata().map_err(VaultError::key_io("cannot examine key file", path))?;
        check_custody(path, &meta)?;
        let content = read_limited(path, &file)?;
        Self::parse(path, &content)
    }

    pub(crate) fn parse(path: &Path, content: &[u8]) -> Result<Self, VaultError> {
        if is_age_encrypted(content) {
            let reason = "the key file is itself encrypted, with a passphrase or to another key; \
                          decrypt it to a file of mode 0600 and name that";
            return Err(VaultError::key_refused(path, reason));
        }
        let text =
            std::str::from_utf8(content).map_err(|_| VaultError::key_refused(path, "the key file is not text"))?;
        let mut identities = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity = line.parse::<x25519::Identity>().ok().and_then(OwnIdentity::new).ok_or_else(|| {
                let reason = format!("line {} of the key file is not an X25519 identity (AGE-SECRET-KEY-1…)", at + 1);
                VaultError::key_refused(path, reason)
            })?;
            identities.push(identity);
        }
        if identities.is_empty() {
            let reason = "the key file holds no identity; make one with 'ductile secrets keygen'";
            return Err(VaultError::key_refused(path, reason));
        }
        Ok(Self(Arc::new(identities)))
    }

    /// Public recipients, in file order.
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        self.iter().map(OwnIdentity::recipient).collect()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, OwnIdentity> {
        self.0.iter()
    }
}

fn check_custody(path: &Path, meta: &Metadata) -> Result<(), VaultError> {
    if !meta.is_file() {
        return Err(VaultError::key_refused(path, "the key file is not a regular file"));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let reason = format!("the key file has mode {mode:04o}, others may read it; chmod 600 {}", path.display());
        return Err(VaultError::key_refused(path, reason));
    }
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user && meta.uid() != 0 {
        let reason = format!("the key file belongs to uid {}; it must belong to uid {user} or to root", meta.uid());
        return Err(VaultError::key_refused(path, reason));
    }
    Ok(())
}

fn read_limited(path: &Path, file: &File) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE as usize + 2));
    file.take(MAX_KEY_FILE + 1).read_to_end(&mut content).map_err(VaultError::key_io("cannot read key file", path))?;
    if content.len() as u64 > MAX_KEY_FILE {
        return Err(VaultError::key_refused(path, "the key file is larger than 64 KiB"));
    }
    Ok(content)
}

/// Finds the key: a named file decides, for good or ill; else the first default location that exists; else none.
///
/// # Errors
/// The file that decides is missing (if named) or refused.
pub fn find_key(named: Option<&Path>, defaults: &[PathBuf]) -> Result<Option<(PathBuf, Identities)>, VaultError> {
    if let Some(path) = named {
        return Ok(Some((path.to_path_buf(), Identities::read(path)?)));
    }
    for path in defaults {
        match path.symlink_metadata() {
            Ok(_) => return Ok(Some((path.clone(), Identities::read(path)?))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(VaultError::key_io("cannot examine key file", path)(error)),
        }
    }
    Ok(None)
}

/// A fresh identity that lies nowhere yet.
pub struct NewIdentity {
    /// The three lines of a key file.
    pub key_file: Secret,
    /// Its public recipient.
    pub recipient: String,
}

impl NewIdentity {
    /// Makes an identity.
    #[must_use]
    pub fn generate() -> Self {
        let identity = x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        let private = identity.to_string();
        // One allocation of the final size, so that no part of the key stays behind in a smaller one.
        let mut text = String::with_capacity(256);
        for part in ["# created by ductile secrets keygen\n# public key: ", &recipient, "\n"] {
            text.push_str(part);
        }
        text.push_str(private.expose_secret());
        text.push('\n');
        Self { key_file: Secret::new(text), recipient }
    }
}

/// How the temporary file of a new key begins.
const TEMPORARY: &str = ".age-key-";

/// Makes a new identity and writes it to `path` (0600, never over an existing file). Returns the public recipient.
/// The directory must exist.
///
/// A kill at any instant leaves nothing at `path`, or the key whole.
///
/// # Errors
/// The file exists or can not be written.
pub fn generate_identity(path: &Path) -> Result<String, VaultError> {
    let parent = files::parent_of(path);
    // Opened first: once the key has its name, nothing but the flush may fail.
    let directory = File::open(&parent).map_err(|error| no_directory(&parent, error))?;
    let identity = NewIdentity::generate();
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(&parent)
        .map_err(VaultError::key_io("cannot create a file in", &parent))?;
    temporary
        .write_all(identity.key_file.expose().as_bytes())
        .and_then(|()| files::adopt_owner(temporary.as_file(), &directory))
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(VaultError::key_io("cannot write key file", path))?;
    temporary.persist_noclobber(path).map_err(|error| not_placed(path, error.error))?;
    directory.sync_all().map_err(VaultError::key_io("cannot flush directory", &parent))?;
    Ok(identity.recipient)
}

fn no_directory(parent: &Path, error: io::Error) -> VaultError {
    if error.kind() == io::ErrorKind::NotFound {
        return VaultError::key_refused(parent, "there is no such directory; create it and try again");
    }
    VaultError::key_io("cannot open directory", parent)(error)
}

fn not_placed(path: &Path, error: io::Error) -> VaultError {
    if error.kind() == io::ErrorKind::AlreadyExists {
        let reason = "there is a file already, or a link of that name; it was left as it is";
        return VaultError::key_refused(path, reason);
    }
    VaultError::key_io("cannot create key file", path)(error)
}

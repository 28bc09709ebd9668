//! The lock beside the blob that makes its holder the only writer.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::{VaultError, blob, files};

/// Exclusive lock beside the blob; released when dropped.
///
/// The file of the lock is never unlinked: who unlinks a locked file lets two holders in, each with a file of its own.
#[derive(Debug)]
pub struct VaultLock {
    held: File,
}

impl Drop for VaultLock {
    /// Closing alone would not do: a process that is being started holds a copy of every descriptor for a moment.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.held, FlockOperation::Unlock);
    }
}

impl VaultLock {
    /// Takes the lock without waiting, and removes what a killed writer left beside the blob.
    ///
    /// # Errors
    /// Held by another process, or the file can not be opened.
    pub fn acquire(vault_file: &Path) -> Result<Self, VaultError> {
        let target = locked_target(vault_file);
        let path = lock_path(&target);
        let file = open_lock_file(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(VaultError::Locked(held_by(&path, &file))),
            Err(error) => return Err(VaultError::io("cannot lock", &path)(error.into())),
        }
        note_holder(&file);
        blob::remove_leftovers(&target);
        Ok(Self { held: file })
    }
}

/// Two ways to one blob must meet at one lock, so links are resolved as far as they lead somewhere.
fn locked_target(vault_file: &Path) -> PathBuf {
    if let Ok(target) = vault_file.canonicalize() {
        return target;
    }
    match (files::parent_of(vault_file).canonicalize(), vault_file.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => vault_file.to_path_buf(),
    }
}

fn lock_path(target: &Path) -> PathBuf {
    let mut path = OsString::from(target);
    path.push(".lock");
    path.into()
}

fn open_lock_file(path: &Path) -> Result<File, VaultError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|error| VaultError::io("cannot open lock file", path)(error.into()))?;
    let meta = file.metadata().map_err(VaultError::io("cannot examine lock file", path))?;
    if !meta.is_file() {
        return Err(VaultError::refused(path, "the lock file is not a regular file"));
    }
    if meta.mode() & 0o077 != 0 {
        // Who may open the file may hold the lock: best effort, since only its owner can mend that.
        drop(file.set_permissions(fs::Permissions::from_mode(0o600)));
    }
    let directory = files::parent_of(path);
    let directory = File::open(&directory).map_err(VaultError::io("cannot open directory", &directory))?;
    files::adopt_owner(&file, &directory).map_err(VaultError::io("cannot give lock file to the owner of", path))?;
    Ok(file)
}

/// Leaves the process id for whoever finds the lock held. Nothing depends on it.
fn note_holder(mut file: &File) {
    let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    drop(noted);
}

fn held_by(path: &Path, file: &File) -> String {
    let mut text = String::new();
    let read = file.take(16).read_to_string(&mut text);
    let holder = match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(pid) => format!(" (pid {pid})"),
        None => String::new(),
    };
    format!(
        "the gateway appears to be running{holder}: {} is locked; stop the service and try again, nothing was changed",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_in_a_starting_process_does_not_keep_the_lock() {
        let dir = tempfile::TempDir::new().unwrap();
        let blob = dir.path().join("vault.age");
        let lock = VaultLock::acquire(&blob).unwrap();
        let _inherited = lock.held.try_clone().unwrap();
        assert!(VaultLock::acquire(&blob).is_err());
        drop(lock);
        assert!(VaultLock::acquire(&blob).is_ok());
    }
}

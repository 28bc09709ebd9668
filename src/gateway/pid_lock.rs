//! The lock that makes a process the only gateway of its state database.
//!
//! The advisory lock is the truth, never the file or its content: a file that a killed process left behind is no
//! obstacle, and the descriptor is close-on-exec, so no plugin can keep the lock alive.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long a start waits for a command that only looks whether the lock is held.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// A live process has it.
    #[error("Failed to acquire PID lock (another instance may be running): {path} is held{}",
        pid.map(|pid| format!(" by pid {pid}")).unwrap_or_default(), path = path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder, when its pid can be read.
        pid: Option<u32>,
    },
    /// The file can not be opened or written.
    #[error("PID lock {path}: {source}", path = path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The lock, held until dropped or released.
#[derive(Debug)]
pub(crate) struct PidLock {
    path: PathBuf,
    file: File,
}

/// Where the lock of a state database lies: beside it, with the extension replaced.
pub(crate) fn lock_path(database: &Path) -> PathBuf {
    database.with_extension("pid")
}

impl PidLock {
    /// Takes the lock and writes this process's pid into it. A missing directory is created.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        let give_up = Instant::now() + PATIENCE;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(io(error.into()));
            }
            if Instant::now() >= give_up {
                return Err(LockError::Held { path: path.to_owned(), pid: read_pid(&mut file) });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut write = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())?;
            file.sync_data()
        };
        write().map_err(io)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The lock file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file at the path is still the one that is locked.
    pub(crate) fn is_intact(&self) -> bool {
        let (Ok(held), Ok(named)) = (self.file.metadata(), std::fs::metadata(&self.path)) else {
            return false;
        };
        (held.dev(), held.ino()) == (named.dev(), named.ino())
    }

    /// Empties the file: the stop was clean. The lock itself ends with the descriptor; the file stays.
    pub(crate) fn release(&self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(path = %self.path.display(), %error, "could not empty the PID lock file");
        }
    }
}

/// The state of a lock, seen from another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LockState {
    /// Nobody holds it.
    Free,
    /// A live process holds it; its pid, when the content is a number.
    Held(Option<u32>),
    /// The file is there but can not be looked at.
    Unreadable(String),
}

/// Looks whether a lock is held, by trying a shared lock and releasing it at once.
pub(crate) fn lock_state(path: &Path) -> LockState {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return LockState::Free,
        Err(error) => return LockState::Unreadable(error.to_string()),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => LockState::Free,
        Err(rustix::io::Errno::WOULDBLOCK) => LockState::Held(read_pid(&mut file)),
        Err(error) => LockState::Unreadable(error.to_string()),
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/gateway.pid");
        let lock = PidLock::acquire(&path).unwrap();
        assert_eq!(lock_state(&path), LockState::Held(Some(std::process::id())));
        let error = PidLock::acquire(&path).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        lock.release();
        drop(lock);
        assert_eq!(lock_state(&path), LockState::Free);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        PidLock::acquire(&path).unwrap();
    }

    #[test]
    fn a_file_left_by_a_crash_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.pid");
        std::fs::write(&path, "99999\n").unwrap();
        assert_eq!(lock_state(&path), LockState::Free);
        let lock = PidLock::acquire(&path).unwrap();
        assert!(lock.is_intact());
        std::fs::remove_file(&path).unwrap();
        assert!(!lock.is_intact());
    }
}

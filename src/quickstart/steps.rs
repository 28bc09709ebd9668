//! The notes of a quickstart: which steps are done. Written first, and after every step, by rename.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the notes; they tell our directory from a foreign one.
pub(super) const NOTES: &str = ".quickstart.json";
/// Name of the file whose lock lets one run at a time make something.
const LOCK: &str = ".quickstart.lock";

/// What a deployment is made of, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Directories,
    Key,
    Vault,
    Token,
    Plugins,
    Watched,
    Config,
}

impl Step {
    pub(super) const ALL: [Self; 7] =
        [Self::Directories, Self::Key, Self::Vault, Self::Token, Self::Plugins, Self::Watched, Self::Config];
}

/// What may lie in a directory of ours before the notes do: a run was cut off at its very beginning.
pub(super) fn is_beginning(path: &Path, dir: &Path) -> bool {
    path == dir.join(LOCK) || path == temporary(&dir.join(NOTES))
}

/// Waits until no other run makes something in this directory, and keeps others waiting until it is dropped. Never
/// unlinked: two runs could each hold a file of their own.
pub(super) fn lock(dir: &Path) -> std::io::Result<File> {
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK))?;
    file.lock()?;
    Ok(file)
}

/// Content of the notes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Notes {
    /// Address written into the configuration.
    pub(super) listen: String,
    pub(super) done: Vec<Step>,
}

impl Notes {
    /// Reads the notes of a directory; `None` when it has none.
    pub(super) fn read(dir: &Path) -> std::io::Result<Option<Self>> {
        match fs::read(dir.join(NOTES)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the notes whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        write_whole(&dir.join(NOTES), &text, 0o600)
    }
}

/// Writes a file so that a kill at any instant leaves the old content or the new one, never a part. The caller holds
/// the lock: what lies under the temporary name was left by a run that was cut off.
pub(super) fn write_whole(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let temporary = temporary(path);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Where a file is made before it gets its name.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.tmp"))
}

//! The little that reading and writing a guarded file needs.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use zeroize::Zeroizing;

use crate::VaultError;

/// Opens for reading without waiting at a pipe or taking a terminal over.
pub(crate) fn open_for_reading(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Reads a whole regular file into a buffer that is never moved, so that wiping it leaves no copy behind.
pub(crate) fn read_regular(path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let file = open_for_reading(path).map_err(VaultError::io("cannot open", path))?;
    let meta = file.metadata().map_err(VaultError::io("cannot examine", path))?;
    if !meta.is_file() {
        return Err(VaultError::refused(path, "not a regular file"));
    }
    let size = usize::try_from(meta.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::new());
    bytes
        .try_reserve_exact(size.saturating_add(1))
        .map_err(|_| VaultError::refused(path, "too large to be read into memory"))?;
    (&file).read_to_end(&mut bytes).map_err(VaultError::io("cannot read", path))?;
    Ok(bytes)
}

/// The directory a file lies in.
pub(crate) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Gives a new file the owner and group of the directory it goes to, when root writes it: a service under another
/// account must be able to read what its administrator wrote. Others can not give files away and do not try.
pub(crate) fn adopt_owner(file: &File, directory: &File) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (wanted, found) = (directory.metadata()?, file.metadata()?);
    if (wanted.uid(), wanted.gid()) != (found.uid(), found.gid()) {
        let (uid, gid) = (Uid::from_raw(wanted.uid()), Gid::from_raw(wanted.gid()));
        rustix::fs::fchown(file.as_fd(), Some(uid), Some(gid))?;
    }
    Ok(())
}

//! Whether the files of a plugin may be trusted: no way out by symlinks or `..`, nothing that anybody may write.
//!
//! All paths are compared by component. A string prefix would let `/opt/p` contain `/opt/p2/x`.

use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// A root as it was given, and where it really is.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// What messages and plugin paths begin with: the root as given, or its target when it is a symlink.
    pub(super) path: PathBuf,
    /// Free of symlinks.
    pub(super) real: PathBuf,
}

/// A symlink that was met and accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Symlink {
    pub(super) kind: &'static str,
    pub(super) path: PathBuf,
    pub(super) resolved: PathBuf,
}

/// What to do about symlinks, and which ones were met.
#[derive(Debug)]
pub(super) struct SymlinkPolicy {
    allowed: bool,
    pub(super) met: Vec<Symlink>,
}

impl SymlinkPolicy {
    pub(super) fn new(allowed: bool) -> Self {
        Self { allowed, met: Vec::new() }
    }

    /// Refuses or notes the first symlink among the components of `relative` below `base`.
    fn judge_below(&mut self, kind: &'static str, base: &Path, relative: &Path) -> Result<(), String> {
        let mut path = base.to_owned();
        for component in relative.components() {
            path.push(component);
            if is_symlink(&path) {
                return self.judge(kind, base.join(relative));
            }
        }
        Ok(())
    }

    fn judge(&mut self, kind: &'static str, path: PathBuf) -> Result<(), String> {
        let resolved = resolve(&path)?;
        if !self.allowed {
            return Err(format!(
                "symlink detected: {kind} {} resolves to {} (service.allow_symlinks: true accepts that)",
                path.display(),
                resolved.display()
            ));
        }
        self.met.push(Symlink { kind, path, resolved });
        Ok(())
    }
}

/// Looks at a root. Symlinks among its ancestors do not count: where `/tmp` or a home lies is the system's choice.
///
/// # Errors
/// Why it can not be used, naming the path.
pub(super) fn open_root(given: &Path, symlinks: &mut SymlinkPolicy) -> Result<Root, String> {
    // Without a trailing slash, which would make the system follow a symlink unseen.
    let given: PathBuf = given.components().collect();
    let metadata = fs::metadata(&given).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("plugin root does not exist: {}", given.display()),
        _ => format!("plugin root can not be read: {}: {error}", given.display()),
    })?;
    if !metadata.is_dir() {
        return Err(format!("plugin root is not a directory: {}", given.display()));
    }
    let real = resolve(&given)?;
    if !is_symlink(&given) {
        return Ok(Root { path: given, real });
    }
    symlinks.judge("plugin_root", given)?;
    Ok(Root { path: real.clone(), real })
}

/// Judges a plugin directory and its manifest file.
///
/// # Errors
/// The first reason not to trust them, naming the path.
pub(super) fn check_directory(root: &Root, dir: &Path, symlinks: &mut SymlinkPolicy) -> Result<(), String> {
    let relative = dir.strip_prefix(&root.path).unwrap_or(Path::new(""));
    symlinks.judge_below("plugin_dir", &root.path, relative)?;
    symlinks.judge_below("plugin_manifest", dir, Path::new("manifest.yaml"))?;
    refuse_world_writable("plugin root", &root.path)?;
    let mut path = root.path.clone();
    for component in relative.components() {
        path.push(component);
        let what = if path == dir { "plugin directory" } else { "directory" };
        refuse_world_writable(what, &path)?;
    }
    refuse_world_writable("manifest", &dir.join("manifest.yaml"))
}

/// Judges the entry point and gives its absolute path.
///
/// # Errors
/// The first reason not to run it, naming the path.
pub(super) fn check_entrypoint(
    root: &Root,
    dir: &Path,
    entrypoint: &str,
    symlinks: &mut SymlinkPolicy,
) -> Result<PathBuf, String> {
    let relative = relative_entrypoint(entrypoint)?;
    let path = dir.join(&relative);
    let metadata = stat_entrypoint(&path)?;
    symlinks.judge_below("plugin_entrypoint", dir, &relative)?;
    let resolved = resolve(&path)?;
    let real_dir = resolve(dir)?;
    if !resolved.starts_with(&root.real) || !resolved.starts_with(&real_dir) {
        return Err(format!(
            "entrypoint lies outside of its plugin directory: {} resolves to {}",
            path.display(),
            resolved.display()
        ));
    }
    if !metadata.is_file() {
        return Err(format!("entrypoint is not a regular file: {}", path.display()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("entrypoint is not executable: {} (chmod +x)", path.display()));
    }
    for between in resolved.ancestors().skip(1).take_while(|ancestor| *ancestor != real_dir) {
        refuse_world_writable("directory", between)?;
    }
    refuse_world_writable("entrypoint", &resolved)?;
    Ok(path)
}

fn relative_entrypoint(entrypoint: &str) -> Result<PathBuf, String> {
    let path = Path::new(entrypoint);
    if path.is_absolute() {
        return Err(format!("entrypoint must be relative to its plugin directory: {entrypoint}"));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(format!("entrypoint contains path traversal: {entrypoint}"));
    }
    Ok(path.components().filter(|component| *component != Component::CurDir).collect())
}

fn stat_entrypoint(path: &Path) -> Result<Metadata, String> {
    fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("entrypoint does not exist: {}", path.display()),
        _ => format!("entrypoint can not be read: {}: {error}", path.display()),
    })
}

/// A sticky bit is no excuse: it keeps others from removing files, not from adding them.
fn refuse_world_writable(what: &str, path: &Path) -> Result<(), String> {
    let metadata =
        fs::metadata(path).map_err(|error| format!("{what} can not be read: {}: {error}", path.display()))?;
    if metadata.permissions().mode() & 0o002 != 0 {
        return Err(format!("{what} is world-writable: {} (chmod o-w)", path.display()));
    }
    Ok(())
}

fn is_symlink(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

fn resolve(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize().map_err(|error| format!("can not resolve {}: {error}", path.display()))
}

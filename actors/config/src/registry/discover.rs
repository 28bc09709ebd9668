//! From plugin roots to a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ductile_model::Problem;

use super::trust::{self, Root, SymlinkPolicy};
use super::{Plugin, Registry, Rejected, Shown, alias, manifest};
use crate::PluginConfig;

const MANIFEST: &str = "manifest.yaml";

/// Never entered below a root: what lies there is never a plugin of ours, and often huge.
const SKIPPED: &[&str] = &["node_modules", "venv", "__pycache__"];

/// Files that tell of a plugin whose manifest was forgotten.
const TELLTALES: &[&str] = &["run.py", "run.sh", "run.js", "run.ts", "main.go", "main.py", "index.js", "index.ts"];

/// A complete registry and what is worth telling about it.
#[derive(Debug)]
pub(crate) struct Discovery {
    pub(crate) registry: Registry,
    /// For the log of a start or reload and for the report of a check.
    pub(crate) warnings: Vec<Problem>,
}

/// Scans all roots, judges every candidate and registers the aliases. Reads the disk: not for an async thread.
///
/// # Errors
/// All unusable roots, or all broken aliases. A bad candidate is only left out.
pub(crate) fn discover(
    roots: &[PathBuf],
    plugins: &BTreeMap<String, PluginConfig>,
    shown: &Shown,
    allow_symlinks: bool,
) -> Result<Discovery, Vec<Problem>> {
    let mut scan = Scan::new(allow_symlinks);
    let roots = scan.open_roots(roots)?;
    for root in &roots {
        scan.walk(root)?;
    }
    let Scan { mut registry, mut warnings, .. } = scan;
    let mut errors = Vec::new();
    alias::register(&mut registry, plugins, shown, &mut warnings, &mut errors);
    if errors.is_empty() { Ok(Discovery { registry, warnings }) } else { Err(errors) }
}

struct Scan {
    allow_symlinks: bool,
    registry: Registry,
    warnings: Vec<Problem>,
    /// Directories already judged: roots may lie inside each other.
    seen: BTreeSet<PathBuf>,
}

impl Scan {
    fn new(allow_symlinks: bool) -> Self {
        Self { allow_symlinks, registry: Registry::default(), warnings: Vec::new(), seen: BTreeSet::new() }
    }

    fn open_roots(&mut self, given: &[PathBuf]) -> Result<Vec<Root>, Vec<Problem>> {
        let mut roots: Vec<Root> = Vec::new();
        let mut problems = Vec::new();
        let mut symlinks = SymlinkPolicy::new(self.allow_symlinks);
        for path in given {
            match trust::open_root(path, &mut symlinks) {
                Ok(root) if roots.iter().any(|known| known.real == root.real) => {}
                Ok(root) => roots.push(root),
                Err(reason) => problems.push(root_problem(reason)),
            }
        }
        self.tell_symlinks(symlinks);
        if roots.is_empty() && problems.is_empty() {
            problems.push(root_problem("no usable plugin root; name at least one directory".to_owned()));
        }
        if problems.is_empty() { Ok(roots) } else { Err(problems) }
    }

    /// A root and everything below it, depth first. The levels are kept in a list and not on the stack, because how
    /// deep a tree goes is up to whoever made it.
    fn walk(&mut self, root: &Root) -> Result<(), Vec<Problem>> {
        let names = sorted_names(&root.path).map_err(|error| {
            vec![root_problem(format!("plugin root can not be read: {}: {error}", root.path.display()))]
        })?;
        let mut levels = vec![Level { dir: root.path.clone(), names: names.into_iter() }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let path = level.dir.join(&name);
            if name == MANIFEST && is_candidate_file(&path) {
                self.judge(root, &level.dir);
            } else if is_entered(&name) && is_real_directory(&path) {
                levels.extend(self.enter(root, path));
            }
        }
        Ok(())
    }

    fn enter(&mut self, root: &Root, dir: PathBuf) -> Option<Level> {
        let names = match sorted_names(&dir) {
            Ok(names) => names,
            Err(error) => {
                let message = format!("plugin subdirectory can not be read and is skipped: {}: {error}", dir.display());
                self.warn(&dir, message);
                return None;
            }
        };
        if dir.parent() == Some(&root.path) {
            self.tell_missing_manifest(&dir, &names);
        }
        Some(Level { dir, names: names.into_iter() })
    }

    fn tell_missing_manifest(&mut self, dir: &Path, names: &[OsString]) {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        if has(MANIFEST) {
            return;
        }
        if let Some(telltale) = TELLTALES.iter().find(|telltale| has(telltale)) {
            self.warn(
                dir,
                format!("missing manifest.yaml: path {} holds {telltale} but is ignored as a plugin", dir.display()),
            );
        }
    }

    fn judge(&mut self, root: &Root, dir: &Path) {
        let identity = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        if !self.seen.insert(identity) {
            return;
        }
        let mut symlinks = SymlinkPolicy::new(self.allow_symlinks);
        let loaded = load(root, dir, &mut symlinks);
        self.tell_symlinks(symlinks);
        match loaded {
            Ok((plugin, warnings)) => self.accept(plugin, warnings),
            Err(rejected) => {
                self.warn(
                    dir,
                    format!(
                        "failed to load plugin: path {}, root {}, error: {}",
                        dir.display(),
                        root.path.display(),
                        rejected.reason
                    ),
                );
                self.registry.rejected.push(rejected);
            }
        }
    }

    fn accept(&mut self, plugin: Plugin, warnings: Vec<String>) {
        if let Some(kept) = self.registry.plugins.get(&plugin.name) {
            let message = format!(
                "plugin {:?} was found twice: ignored_path {}, kept_path {}",
                plugin.name,
                plugin.dir.display(),
                kept.dir.display()
            );
            self.warn(&plugin.dir, message);
            return;
        }
        for warning in warnings {
            self.warn(&plugin.manifest.path, format!("manifest of plugin {:?}: {warning}", plugin.name));
        }
        self.registry.plugins.insert(plugin.name.clone(), Arc::new(plugin));
    }

    fn tell_symlinks(&mut self, symlinks: SymlinkPolicy) {
        for symlink in symlinks.met {
            let message = format!(
                "symlink detected: kind {}, path {}, resolved {}",
                symlink.kind,
                symlink.path.display(),
                symlink.resolved.display()
            );
            self.warnings.push(Problem::new("symlinks", message).at_file(symlink.path, None));
        }
    }

    fn warn(&mut self, path: &Path, message: String) {
        self.warnings.push(Problem::new("plugin_refs", message).at_file(path, None));
    }
}

/// A directory that is being walked, and what is left of it.
struct Level {
    dir: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

fn root_problem(reason: String) -> Problem {
    Problem::new("load", reason).at_field("plugin_roots")
}

fn load(root: &Root, dir: &Path, symlinks: &mut SymlinkPolicy) -> Result<(Plugin, Vec<String>), Rejected> {
    let path = dir.join(MANIFEST);
    let reject = |name, reason| Rejected { path: dir.to_owned(), name, reason };
    // Read before it is judged, so that a refusal can be told by the plugin's own name.
    let bytes: Arc<[u8]> = match read_manifest(&path) {
        Ok(bytes) => bytes.into(),
        Err(reason) => return Err(reject(None, reason)),
    };
    let with_name = |reason| reject(manifest::peek_name(&bytes), reason);
    trust::check_directory(root, dir, symlinks).map_err(with_name)?;
    let parsed = manifest::parse(&path, Arc::clone(&bytes)).map_err(with_name)?;
    let entrypoint = trust::check_entrypoint(root, dir, &parsed.entrypoint, symlinks).map_err(with_name)?;
    let plugin = Plugin {
        name: parsed.manifest.name.clone(),
        uses: None,
        manifest: Arc::new(parsed.manifest),
        dir: dir.to_owned(),
        entrypoint,
    };
    Ok((plugin, parsed.warnings))
}

fn read_manifest(path: &Path) -> Result<Vec<u8>, String> {
    let fault = |error: io::Error| format!("manifest can not be read: {}: {error}", path.display());
    if !fs::metadata(path).map_err(fault)?.is_file() {
        return Err(format!("manifest is not a regular file: {}", path.display()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fault)?;
    file.take(manifest::MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > manifest::MAX_BYTES {
        return Err(format!("manifest is larger than {} bytes: {}", manifest::MAX_BYTES, path.display()));
    }
    Ok(bytes)
}

fn sorted_names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// A symlinked manifest is a candidate too: it is refused or accepted with its reason, not passed over in silence.
fn is_candidate_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() || metadata.is_symlink())
}

fn is_entered(name: &OsString) -> bool {
    !name.as_encoded_bytes().starts_with(b".") && !SKIPPED.iter().any(|skipped| name == skipped)
}

fn is_real_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;

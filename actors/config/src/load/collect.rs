//! Reading: the root file, what it includes, and environment files, each exactly once.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use ductile_model::{Problem, is_age_encrypted};

use super::interpolate::{Variables, references};
use super::{envfile, paths};
use crate::plan::{Environment, Source};
use crate::yaml::{self, Fault, Node, Place};

const MAX_FILES: usize = 1000;
const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// All files of a load, in the order in which they were read.
#[derive(Debug, Default)]
pub(crate) struct Files(pub(crate) Vec<SourceFile>);

impl Files {
    /// A problem in category `load` at a line of one of the files.
    pub(crate) fn fault(&self, place: Place, message: impl Into<String>) -> Problem {
        self.at(Problem::new("load", message), place)
    }

    /// The same problem at its place; an unknown place adds nothing.
    pub(crate) fn at(&self, problem: Problem, place: Place) -> Problem {
        match self.0.get(place.file) {
            Some(file) if place.line > 0 => problem.at_file(file.path.clone(), Some(place.line)),
            _ => problem,
        }
    }

    pub(crate) fn path(&self, place: Place) -> Option<&Path> {
        self.0.get(place.file).map(|file| file.path.as_path())
    }

    /// Keeps a file and gives its index.
    pub(crate) fn add(&mut self, path: PathBuf, bytes: Vec<u8>) -> usize {
        self.0.push(SourceFile { path, bytes });
        self.0.len() - 1
    }
}

/// What collecting found.
pub(crate) struct Collected {
    pub(crate) files: Files,
    /// Trees of the YAML files in load order, not yet interpolated.
    pub(crate) trees: Vec<Node>,
    /// Environment files in load order.
    env_files: Vec<usize>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// Reads everything. Problems are kept, so that all of them are told together.
pub(crate) fn collect(source: &Source, env: &Environment) -> Collected {
    let found = Collected {
        files: Files::default(),
        trees: Vec::new(),
        env_files: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let mut collector = Collector { source, env, found, seen: Vec::new(), ancestors: Vec::new() };
    collector.visit(&source.root_file, None);
    collector.found
}

impl Collected {
    /// Reads the environment files that were collected: among them the first definition of a name wins.
    pub(crate) fn variables<'e>(&self, env: &'e Environment) -> Result<Variables<'e>, Vec<Problem>> {
        let mut variables = Variables { process: &env.vars, overlay: std::collections::BTreeMap::new() };
        let mut problems = Vec::new();
        for index in &self.env_files {
            match envfile::parse(&self.files.0[*index].bytes) {
                Ok(pairs) => {
                    for (name, value) in pairs {
                        variables.overlay.entry(name).or_insert(value);
                    }
                }
                Err(faults) => problems.extend(
                    faults.into_iter().map(|f| self.files.fault(Place { file: *index, line: f.line }, f.message)),
                ),
            }
        }
        if problems.is_empty() { Ok(variables) } else { Err(problems) }
    }
}

/// Where a file was asked for.
struct Wish<'w> {
    key: String,
    place: Place,
    from: &'w Path,
    /// What was written, when it holds variables: their values are not shown.
    written: Option<String>,
}

impl Wish<'_> {
    fn shown(&self, path: &Path) -> String {
        self.written.as_ref().map_or_else(|| path.display().to_string(), |written| format!("{written:?}"))
    }
}

struct Collector<'s> {
    source: &'s Source,
    env: &'s Environment,
    found: Collected,
    /// Every YAML file with the file that included it.
    seen: Vec<(PathBuf, PathBuf)>,
    ancestors: Vec<PathBuf>,
}

impl Collector<'_> {
    fn problem(&mut self, wish: &Wish<'_>, message: impl Into<String>) {
        let problem = self.found.files.fault(wish.place, message);
        self.found.problems.push(problem);
    }

    fn visit(&mut self, path: &Path, wish: Option<&Wish<'_>>) {
        if let Some(wish) = wish
            && let Err(message) = self.may_enter(path, wish)
        {
            return self.problem(wish, message);
        }
        if self.seen.len() >= MAX_FILES {
            let message = format!("more than {MAX_FILES} files are included");
            if !self.found.problems.iter().any(|problem| problem.message == message) {
                self.found.problems.push(Problem::new("load", message));
            }
            return;
        }
        let declared_in = wish.map_or(PathBuf::new(), |wish| wish.from.to_owned());
        self.seen.push((path.to_owned(), declared_in));
        let Some(index) = self.read(path, wish) else { return };
        match yaml::parse(&self.found.files.0[index].bytes, index) {
            Err(faults) => self.found.problems.extend(file_problems(path, faults)),
            Ok(tree) => {
                let (includes, env_files) =
                    (wishes(&tree, &["include"]), wishes(&tree, &["environment_vars", "include"]));
                self.found.trees.push(tree);
                self.take_env_files(path, env_files);
                self.ancestors.push(path.to_owned());
                self.take_includes(path, includes);
                self.ancestors.pop();
            }
        }
    }

    fn may_enter(&self, path: &Path, wish: &Wish<'_>) -> Result<(), String> {
        let name = |path: &Path| self.short(path);
        if let Some(start) = self.ancestors.iter().position(|ancestor| ancestor == path) {
            let mut cycle: Vec<_> = self.ancestors[start..].iter().map(|p| name(p)).collect();
            cycle.push(name(path));
            return Err(format!("circular include: {}", cycle.join(" -> ")));
        }
        match self.seen.iter().find(|(seen, _)| seen == path) {
            Some((_, first)) => {
                Err(format!("{} included twice (from {} and {})", name(path), name(first), name(wish.from)))
            }
            None => Ok(()),
        }
    }

    /// Relative to the configuration directory when it lies below.
    fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.source.config_dir).unwrap_or(path).display().to_string()
    }

    fn read(&mut self, path: &Path, wish: Option<&Wish<'_>>) -> Option<usize> {
        match read_file(path) {
            Ok(bytes) => Some(self.found.files.add(path.to_owned(), bytes)),
            Err(message) => {
                match wish {
                    Some(wish) => self.problem(
                        wish,
                        format!("{}: {}: {message} (declared in {})", wish.key, wish.shown(path), wish.from.display()),
                    ),
                    None => {
                        let message = format!("the configuration file can not be read: {message}");
                        self.found.problems.push(Problem::new("load", message).at_file(path, None));
                    }
                }
                None
            }
        }
    }

    fn take_includes(&mut self, from: &Path, entries: Vec<(String, Node)>) {
        for (key, node) in entries {
            let wish = Wish { key, place: node.place, from, written: None };
            let Some(text) = self.entry_text(&wish, &node) else { continue };
            if text.contains("${") {
                let message = format!("{}: environment interpolation is not allowed in include paths", wish.key);
                self.problem(&wish, message);
                continue;
            }
            match self.place(&text, from) {
                Err(message) => self.problem(&wish, format!("{}: {message}", wish.key)),
                Ok(path) if path.is_dir() => match fragments_in(&path) {
                    Ok(files) => files.iter().for_each(|file| self.visit(file, Some(&wish))),
                    Err(error) => {
                        let message =
                            format!("{}: {}: {error} (declared in {})", wish.key, path.display(), from.display());
                        self.problem(&wish, message);
                    }
                },
                Ok(path) => self.visit(&path, Some(&wish)),
            }
        }
    }

    fn take_env_files(&mut self, from: &Path, entries: Vec<(String, Node)>) {
        for (key, node) in entries {
            let mut wish = Wish { key, place: node.place, from, written: None };
            let Some(written) = self.entry_text(&wish, &node) else { continue };
            let Some(text) = self.process_variables(&wish, &written) else { continue };
            let varies = references(&written).next().is_some();
            wish.written = varies.then_some(written);
            match self.place(&text, from) {
                Err(message) => {
                    let hidden = wish.written.as_ref().map(|written| format!("{written:?} is not a usable path"));
                    self.problem(&wish, format!("{}: {}", wish.key, hidden.unwrap_or(message)));
                }
                Ok(path) => {
                    // The same file may be named by several fragments; it is read once.
                    if self.found.env_files.iter().any(|index| self.found.files.0[*index].path == path) {
                        continue;
                    }
                    if let Some(index) = self.read(&path, Some(&wish)) {
                        self.found.env_files.push(index);
                    }
                }
            }
        }
    }

    /// Only the process environment is known while environment files are still being found.
    fn process_variables(&mut self, wish: &Wish<'_>, text: &str) -> Option<String> {
        let mut replaced = text.to_owned();
        for reference in references(text) {
            let Some(value) = self.env.vars.get(reference.name) else {
                let message = format!(
                    "{}: environment variable ${{{}}} is not set in the process environment",
                    wish.key, reference.name
                );
                self.problem(wish, message);
                return None;
            };
            replaced = replaced.replace(&text[reference.range.clone()], value);
            let warning = format!(
                "{} depends on the environment variable {}; prefer a fixed path or ~/",
                wish.key, reference.name
            );
            let problem = self.found.files.at(Problem::new("env_vars", warning), wish.place);
            self.found.warnings.push(problem);
        }
        Some(replaced)
    }

    fn entry_text(&mut self, wish: &Wish<'_>, node: &Node) -> Option<String> {
        match node.scalar() {
            Some(scalar) if !scalar.is_null() && !scalar.text.trim().is_empty() => Some(scalar.text.clone()),
            _ => {
                self.problem(wish, format!("{} must be a path", wish.key));
                None
            }
        }
    }

    fn place(&self, text: &str, from: &Path) -> Result<PathBuf, String> {
        let base = from.parent().unwrap_or(Path::new("/"));
        paths::resolve(text, base, self.env.home.as_deref())
    }
}

/// The entries of a list with their dotted names. A value that is no list is reported by the type check.
fn wishes(tree: &Node, path: &[&str]) -> Vec<(String, Node)> {
    let items = tree.find(path).map(Node::items).unwrap_or_default();
    items.iter().enumerate().map(|(i, node)| (format!("{}[{i}]", path.join(".")), node.clone())).collect()
}

fn file_problems(path: &Path, faults: Vec<Fault>) -> impl Iterator<Item = Problem> {
    let path = path.to_owned();
    faults.into_iter().map(move |fault| Problem::new("load", fault.message).at_file(path.clone(), Some(fault.line)))
}

/// The `*.yaml` files of a directory in byte order, without hidden ones.
fn fragments_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if !bytes.starts_with(b".") && bytes.ends_with(b".yaml") && !directory.join(&name).is_dir() {
            names.push(name);
        }
    }
    names.sort_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// The bytes of a regular file within the size limit that is not encrypted.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|error| match fs::symlink_metadata(path) {
        Ok(link) if link.is_symlink() => format!("the symlink leads nowhere ({error})"),
        _ => error.to_string(),
    })?;
    // Opening a pipe or a device could wait for ever.
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("the file is larger than 10 MiB".to_owned());
    }
    if is_age_encrypted(&bytes) {
        return Err("the file is age-encrypted; encrypted configuration files are not supported by this version yet; \
                    decrypt it or keep the values in the vault"
            .to_owned());
    }
    Ok(bytes)
}

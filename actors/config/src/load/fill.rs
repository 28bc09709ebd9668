//! The effective configuration as JSON: every key of the table, defaults filled in.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ductile_model::Problem;
use serde_json::{Map, Value};

use super::collect::Files;
use super::convert::{Bases, boolean, convert, json};
use crate::keys::{Fallback, Kind, Schema, root};
use crate::redact::is_sensitive;
use crate::scalar::Scalar;
use crate::yaml::{Data, Entry, Node};

/// Places in the effective configuration whose text came from a variable with a telling name.
#[derive(Debug, Default)]
pub(crate) struct Taint {
    pub(crate) values: HashSet<Vec<String>>,
    pub(crate) keys: HashSet<Vec<String>>,
}

/// The effective configuration with what is known about its texts.
pub(crate) struct Effective {
    pub(crate) value: Value,
    pub(crate) taint: Taint,
}

/// Fills the whole tree. Types have been checked, but for what is judged later.
pub(crate) fn fill(merged: &Node, bases: Bases<'_>, files: &Files, warnings: &mut Vec<Problem>) -> Effective {
    let mut filler = Filler { bases, path: Vec::new(), taint: Taint::default() };
    let value = filler.node(root(), Some(merged)).unwrap_or_else(|| Value::Object(Map::new()));
    let mut effective = Effective { value, taint: filler.taint };
    Completion { merged, bases, files, warnings, value: &mut effective.value }.run();
    effective
}

struct Filler<'f> {
    bases: Bases<'f>,
    path: Vec<String>,
    taint: Taint,
}

impl Filler<'_> {
    fn node(&mut self, schema: &Schema, node: Option<&Node>) -> Option<Value> {
        let Some(node) = node else { return self.fallback(schema) };
        match (schema.key.kind, &node.data) {
            (Kind::Section, data) if matches!(data, Data::Map(_)) || node.is_null() || !schema.is_judged_late() => {
                Some(self.section(schema, Some(node)))
            }
            (Kind::Map, Data::Map(entries)) => {
                let each = schema.each()?;
                let filled = entries.iter().filter_map(|entry| self.named(each, entry)).collect();
                Some(Value::Object(filled))
            }
            (Kind::List | Kind::Steps, Data::List(items)) => {
                let each = schema.each()?;
                let mut filled = Vec::with_capacity(items.len());
                for item in items {
                    let value = self.under(filled.len().to_string(), |filler| filler.node(each, Some(item)));
                    filled.extend(value);
                }
                Some(Value::Array(filled))
            }
            (Kind::Free, Data::Map(_)) | (Kind::Any, _) => {
                self.mark(node);
                Some(json(node))
            }
            (kind, Data::Scalar(scalar)) if !scalar.is_null() => {
                match convert(kind, scalar, self.bases).ok().flatten() {
                    Some(value) => {
                        self.mark(node);
                        Some(value)
                    }
                    None => self.unread(schema, node),
                }
            }
            _ => self.unread(schema, node),
        }
    }

    /// What does not convert gets its default, or stays as it was written where it is only judged later.
    fn unread(&mut self, schema: &Schema, node: &Node) -> Option<Value> {
        if schema.is_judged_late() && !node.is_null() {
            self.mark(node);
            return Some(json(node));
        }
        self.fallback(schema)
    }

    fn section(&mut self, schema: &Schema, node: Option<&Node>) -> Value {
        let mut filled = Map::new();
        for (name, child) in &schema.children {
            let written = node.and_then(|node| node.get(name));
            if let Some(value) = self.under((*name).to_owned(), |filler| filler.node(child, written)) {
                filled.insert((*name).to_owned(), value);
            }
        }
        for entry in node.map(Node::entries).unwrap_or_default() {
            if !schema.children.contains_key(entry.key.text.as_str())
                && let Some(each) = schema.each()
            {
                filled.extend(self.named(each, entry));
            }
        }
        Value::Object(filled)
    }

    fn named(&mut self, schema: &Schema, entry: &Entry) -> Option<(String, Value)> {
        let name = entry.key.text.clone();
        let value = self.under(name.clone(), |filler| {
            filler.mark_key(&entry.key);
            filler.node(schema, Some(&entry.value))
        });
        Some((name, value?))
    }

    fn fallback(&mut self, schema: &Schema) -> Option<Value> {
        match (schema.key.fallback, schema.key.kind) {
            (Fallback::Nothing | Fallback::Computed, _) => None,
            (Fallback::Empty, Kind::Section) => Some(self.section(schema, None)),
            (Fallback::Empty, Kind::List | Kind::Steps) => Some(Value::Array(Vec::new())),
            (Fallback::Empty, _) => Some(Value::Object(Map::new())),
            (Fallback::Text(text), kind) => {
                // A default 0 stands for itself, whatever a written one means.
                let zero = (text == "0").then(|| Value::from("0s"));
                convert(kind, &Scalar::new(text.to_owned(), true), self.bases).ok().flatten().or(zero)
            }
        }
    }

    fn under<T>(&mut self, segment: String, act: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let result = act(self);
        self.path.pop();
        result
    }

    fn mark(&mut self, node: &Node) {
        match &node.data {
            Data::Scalar(scalar) => {
                if scalar.vars.iter().any(|name| is_sensitive(name)) {
                    self.taint.values.insert(self.path.clone());
                }
            }
            Data::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.under(index.to_string(), |filler| filler.mark(item));
                }
            }
            Data::Map(entries) => {
                for entry in entries {
                    self.under(entry.key.text.clone(), |filler| {
                        filler.mark_key(&entry.key);
                        filler.mark(&entry.value);
                    });
                }
            }
        }
    }

    fn mark_key(&mut self, key: &Scalar) {
        if key.vars.iter().any(|name| is_sensitive(name)) {
            self.taint.keys.insert(self.path.clone());
        }
    }
}

/// Defaults that follow from other keys, from the machine or from what lies on the disk.
struct Completion<'c> {
    merged: &'c Node,
    bases: Bases<'c>,
    files: &'c Files,
    warnings: &'c mut Vec<Problem>,
    value: &'c mut Value,
}

impl Completion<'_> {
    fn run(mut self) {
        self.workers();
        self.listen();
        self.state();
        self.default_to(&["secrets", "vault_file"], || Value::from(text(&self.bases.config_dir.join("vault.age"))));
        let state = PathBuf::from(self.text(&["state", "path"]).unwrap_or_default());
        self.default_to(&["api", "management_socket"], || Value::from(text(&state.with_file_name("vault-admin.sock"))));
        self.burst();
        self.admission();
        self.endpoint_names();
    }

    fn written(&self, path: &[&str]) -> Option<&Scalar> {
        self.merged.find(path)?.scalar().filter(|scalar| !scalar.is_null())
    }

    fn text(&self, path: &[&str]) -> Option<String> {
        at(self.value, path)?.as_str().map(str::to_owned)
    }

    fn set(&mut self, path: &[&str], value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let parent = parents.iter().try_fold(&mut *self.value, |value, segment| value.get_mut(*segment));
        if let Some(Value::Object(parent)) = parent {
            parent.insert((*last).to_owned(), value);
        }
    }

    fn default_to(&mut self, path: &[&str], value: impl FnOnce() -> Value) {
        if at(self.value, path).is_none() {
            let value = value();
            self.set(path, value);
        }
    }

    fn warn(&mut self, category: &'static str, path: &[&str], message: impl Into<String>) {
        let problem = Problem::new(category, message).at_field(path.join("."));
        self.warnings.push(self.files.at(problem, self.merged.place_of(path)));
    }

    fn workers(&mut self) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.default_to(&["service", "max_workers"], || Value::from(processors.saturating_sub(1).max(1)));
    }

    fn listen(&mut self) {
        let port = at(self.value, &["service", "api_port"]).and_then(Value::as_u64);
        if port.is_some() && at(self.value, &["api", "listen"]).is_some() {
            self.warn("api", &["service", "api_port"], "service.api_port is ignored because api.listen is set too");
        }
        let default = port.map_or("127.0.0.1:8080".to_owned(), |port| format!("127.0.0.1:{port}"));
        self.default_to(&["api", "listen"], || Value::from(default));
    }

    fn state(&mut self) {
        for path in [["state", "path"], ["database", "path"]] {
            let beside = self.written(&path).and_then(|scalar| beside_config_dir(&scalar.text, self.bases.config_dir));
            if let Some(beside) = beside {
                tracing::info!(path = %beside.display(), "state path resolved beside the config dir");
                self.set(&path, Value::from(text(&beside)));
            }
        }
        let (state, database) = (self.text(&["state", "path"]), self.text(&["database", "path"]));
        let path = match (state, database) {
            (Some(state), database) => {
                if database.is_some_and(|database| database != state) {
                    let message = "database.path is ignored because state.path is set to another file";
                    self.warn("service", &["database", "path"], message);
                }
                state
            }
            (None, Some(database)) => database,
            (None, None) => self.default_state(),
        };
        self.set(&["state", "path"], Value::from(path));
    }

    fn default_state(&mut self) -> String {
        let default = self.bases.config_dir.join("ductile.db");
        let older = self.bases.config_dir.join("data").join("state.db");
        if !default.exists() && older.exists() {
            let message = format!("state.path is not set; using the existing {}", older.display());
            self.warn("service", &["state", "path"], message);
            return text(&older);
        }
        text(&default)
    }

    fn burst(&mut self) {
        let rate = at(self.value, &["api", "rate_limit", "requests_per_second"]).and_then(Value::as_f64).unwrap_or(0.0);
        let burst = (rate * 2.0).ceil().clamp(0.0, f64::from(u32::MAX));
        self.default_to(&["api", "rate_limit", "burst"], || Value::from(burst as u64));
    }

    fn admission(&mut self) {
        if self.written(&["service", "strict_mode"]).and_then(boolean) != Some(true) {
            return;
        }
        let path = ["service", "strict_mode"];
        if self.merged.find(&["service", "admission"]).is_some_and(|node| !node.is_null()) {
            let message = "service.strict_mode is deprecated and ignored because service.admission is set";
            return self.warn("service", &path, message);
        }
        self.warn("service", &path, "service.strict_mode is deprecated; write the gates under service.admission");
        for gate in [
            "verify_integrity_on_boot",
            "fail_on_drift",
            "validate_config_on_boot",
            "require_api_auth",
            "fail_on_sidedoor",
        ] {
            self.set(&["service", "admission", gate], Value::Bool(true));
        }
    }

    fn endpoint_names(&mut self) {
        let endpoints = self.value.get_mut("webhooks").and_then(|w| w.get_mut("endpoints"));
        for endpoint in endpoints.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(endpoint) = endpoint
                && let Some(path) = endpoint.get("path").cloned()
            {
                endpoint.entry("name").or_insert(path);
            }
        }
    }
}

/// A relative path whose directory is missing below the configuration directory but exists beside it.
fn beside_config_dir(written: &str, config_dir: &Path) -> Option<PathBuf> {
    let written = written.trim();
    if written.is_empty() || written.starts_with('~') || Path::new(written).is_absolute() {
        return None;
    }
    let below = super::paths::clean(&config_dir.join(written));
    let beside = super::paths::clean(&config_dir.parent()?.join(written));
    let has_directory = |path: &Path| path.parent().is_some_and(Path::is_dir);
    (!has_directory(&below) && has_directory(&beside)).then_some(beside)
}

/// Follows object keys.
fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, segment| value.get(*segment))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

//! `${NAME}` that nothing replaced.

use ductile_model::Problem;

use super::collect::Files;
use super::convert::boolean;
use crate::keys::{Kind, Schema, root};
use crate::scalar::Scalar;
use crate::yaml::{Data, Node, Place};

/// Errors where a left-over can not work; a warning everywhere else.
pub(super) fn check(merged: &Node, files: &Files, warnings: &mut Vec<Problem>) -> Vec<Problem> {
    let mut search = Search { files, warnings, problems: Vec::new(), plugin: None };
    search.node(Some(root()), merged, "");
    search.problems
}

struct Search<'s> {
    files: &'s Files,
    warnings: &'s mut Vec<Problem>,
    problems: Vec<Problem>,
    /// The enabled plugin whose `config` is looked at.
    plugin: Option<String>,
}

impl Search<'_> {
    fn node(&mut self, schema: Option<&Schema>, node: &Node, path: &str) {
        match &node.data {
            Data::Scalar(scalar) => self.scalar(schema, scalar, node.place, path),
            Data::List(items) => {
                let each = schema.and_then(Schema::each);
                for (index, item) in items.iter().enumerate() {
                    self.node(each, item, &format!("{path}[{index}]"));
                }
            }
            Data::Map(entries) => {
                for entry in entries {
                    let name = entry.key.text.as_str();
                    let shown = entry.key.written();
                    let field = if path.is_empty() { shown.to_owned() } else { format!("{path}.{shown}") };
                    let child = schema.and_then(|schema| schema.child(name));
                    let entered = self.enter_plugin_config(schema, child, node, path);
                    self.scalar(None, &entry.key, entry.place, &field);
                    self.node(child, &entry.value, &field);
                    if entered {
                        self.plugin = None;
                    }
                }
            }
        }
    }

    fn enter_plugin_config(
        &mut self,
        schema: Option<&Schema>,
        child: Option<&Schema>,
        parent: &Node,
        path: &str,
    ) -> bool {
        let is_config = child.is_some_and(|child| child.key.path == "plugins.*.config");
        let enabled = parent.get("enabled").and_then(Node::scalar).and_then(boolean) == Some(true);
        if schema.is_none() || !is_config || !enabled {
            return false;
        }
        self.plugin = path.strip_prefix("plugins.").map(str::to_owned);
        true
    }

    fn scalar(&mut self, schema: Option<&Schema>, scalar: &Scalar, place: Place, path: &str) {
        let vital = schema.is_some_and(|schema| {
            matches!(schema.key.kind, Kind::Path | Kind::Listen | Kind::Url | Kind::SecretRef)
                || schema.key.path.ends_with(".scopes_file")
        });
        for name in &scalar.unset {
            let missing = format!("environment variable ${{{name}}} is not set");
            match &self.plugin {
                Some(plugin) => self.problem(place, path, format!("plugin {plugin:?}: {missing}")),
                None if vital => self.problem(place, path, missing),
                None => {
                    let message = format!("{missing}; the text stays as it is written");
                    let problem = Problem::new("env_vars", message).at_field(path);
                    self.warnings.push(self.files.at(problem, place));
                }
            }
        }
    }

    fn problem(&mut self, place: Place, path: &str, message: String) {
        self.problems.push(self.files.fault(place, message).at_field(path));
    }
}

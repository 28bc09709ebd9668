//! Names of secrets in the configuration, and what they stand for.

use ductile_model::{Problem, Secret};

use super::{Context, SecretOrigin, UsedSecret, Vault};
use crate::keys::{Kind, Schema, root};
use crate::scalar::{Core, Scalar};
use crate::yaml::{Data, Node};

/// What the vault says to a name.
pub(super) enum Finding {
    Value(Secret),
    /// The rest of a sentence that begins with the name.
    Missing(String),
}

/// Asks the vault. An empty value is as good as none.
pub(super) fn look_up(context: &Context<'_>, name: &str) -> Finding {
    let missing = |cause: &str| Finding::Missing(cause.to_owned());
    match context.vault {
        Vault::Absent => {
            let file = context.config.secrets.vault_file.display();
            Finding::Missing(format!("not found in the vault: there is no vault at {file}; run `ductile vault init`"))
        }
        Vault::Blind => missing("not checked: the vault can not be read without its key"),
        Vault::Open(projection) => match projection.resolve(name) {
            Ok(value) if value.expose().trim().is_empty() => missing("has an empty value"),
            Ok(value) => Finding::Value(value),
            Err("not in the vault") => missing("not found in the vault"),
            Err(cause) => Finding::Missing(format!("can not be used: {cause}")),
        },
    }
}

/// Resolves every reference outside `api.auth.tokens`.
pub(super) fn resolve(
    context: &Context<'_>,
    secrets: &mut Vec<UsedSecret>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let mut walk =
        Walk { context, legacy: legacy_table(context.merged), secrets, problems, warnings, path: Vec::new() };
    walk.node(root(), context.merged);
    walk.plugin_configs();
    walk.warn_about_the_legacy_table();
}

struct LegacyEntry {
    name: String,
    /// The name as a message quotes it.
    shown: String,
    /// `None`: a variable of it is not set, or nothing is left of it without blanks.
    value: Option<Secret>,
    index: usize,
}

fn legacy_table(merged: &Node) -> Vec<LegacyEntry> {
    let items = merged.find(&["tokens"]).map(Node::items).unwrap_or_default().iter().enumerate();
    items
        .filter_map(|(index, node)| {
            let (name, key) = (node.get("name")?.scalar()?, node.get("key")?.scalar()?);
            // What is left of an unset variable is a text that everybody can guess.
            let is_usable = key.unset.is_empty() && !key.text.trim().is_empty();
            let value = is_usable.then(|| Secret::new(key.text.clone()));
            Some(LegacyEntry { name: name.text.clone(), shown: name.shown(), value, index })
        })
        .collect()
}

struct Walk<'w> {
    context: &'w Context<'w>,
    legacy: Vec<LegacyEntry>,
    secrets: &'w mut Vec<UsedSecret>,
    problems: &'w mut Vec<Problem>,
    warnings: &'w mut Vec<Problem>,
    path: Vec<String>,
}

impl Walk<'_> {
    fn node(&mut self, schema: &Schema, node: &Node) {
        if schema.key.path == "api.auth.tokens" {
            return;
        }
        match (schema.key.kind, &node.data) {
            (Kind::SecretRef, Data::Scalar(scalar)) if !scalar.is_null() => self.reference(scalar),
            (Kind::Section | Kind::Map, Data::Map(entries)) => {
                for entry in entries {
                    if let Some(child) = schema.child(&entry.key.text) {
                        self.under(entry.key.text.clone(), |walk| walk.node(child, &entry.value));
                    }
                }
            }
            (Kind::List, Data::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(each) = schema.each() {
                        self.under(format!("[{index}]"), |walk| walk.node(each, item));
                    }
                }
            }
            _ => {}
        }
    }

    /// A key of a plugin's `config` that ends in `_ref` names a secret.
    fn plugin_configs(&mut self) {
        let merged = self.context.merged;
        for plugin in merged.find(&["plugins"]).map(Node::entries).unwrap_or_default() {
            let config = plugin.value.get("config").map(Node::entries).unwrap_or_default();
            for entry in config.iter().filter(|entry| entry.key.text.ends_with("_ref")) {
                self.path = ["plugins", &plugin.key.text, "config", &entry.key.text].map(str::to_owned).to_vec();
                match entry.value.scalar() {
                    Some(scalar) if scalar.core() == Core::Text => self.reference(scalar),
                    _ => {
                        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
                        let place = merged.shown_path(&path);
                        let message = format!("{place} must be a string: the name of a vault secret");
                        self.problems.push(self.context.problem("load", &path, message));
                    }
                }
            }
        }
        self.path.clear();
    }

    fn reference(&mut self, name: &Scalar) {
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        let purpose = self.context.merged.shown_path(&path);
        let found = self.find(&name.text);
        let (origin, value) = match found {
            Ok((origin, value)) => (origin, Some(value)),
            Err(cause) => {
                let message = format!("{}: secret_ref {} {cause}", self.location(&path), name.shown());
                if self.context.tolerates_missing_secrets() {
                    self.warnings.push(self.context.problem("load", &path, message));
                } else {
                    self.problems.push(self.context.problem("load", &path, message));
                }
                (SecretOrigin::Vault, None)
            }
        };
        self.secrets.push(UsedSecret { purpose, name: name.written().to_owned(), origin, value });
    }

    /// The vault first. The older table only answers for names that the vault does not have at all.
    fn find(&self, name: &str) -> Result<(SecretOrigin, Secret), String> {
        let unknown = match self.context.vault {
            Vault::Open(projection) => matches!(projection.resolve(name), Err("not in the vault")),
            Vault::Absent => true,
            Vault::Blind => false,
        };
        let mut named = self.legacy.iter().filter(|entry| entry.name == name).peekable();
        let unusable = named.peek().map(|entry| entry.index);
        let legacy = named.find_map(|entry| entry.value.clone());
        match (look_up(self.context, name), legacy, unusable) {
            (Finding::Value(value), _, _) => Ok((SecretOrigin::Vault, value)),
            (Finding::Missing(_), Some(value), _) if unknown => Ok((SecretOrigin::LegacyTable, value)),
            (Finding::Missing(cause), None, Some(index)) if unknown => {
                Err(format!("{cause}, and tokens[{index}] has no value: its variable is not set, or empty"))
            }
            (Finding::Missing(cause), _, _) => Err(cause),
        }
    }

    /// The entry that holds the reference, with what a person calls it.
    fn location(&self, path: &[&str]) -> String {
        let end = path.iter().rposition(|segment| segment.starts_with('[')).map_or(path.len(), |at| at + 1);
        let end = if path.first() == Some(&"plugins") { path.len() } else { end };
        self.context.called(&path[..end])
    }

    fn warn_about_the_legacy_table(&mut self) {
        let Some(first) = self.legacy.first() else { return };
        let index = format!("[{}]", first.index);
        let message = "the tokens: table is deprecated; move its secrets into the vault with `ductile vault import`";
        self.warnings.push(self.context.problem("load", &["tokens", &index], message));
        let Vault::Open(projection) = self.context.vault else { return };
        for entry in &self.legacy {
            if projection.resolve(&entry.name).is_ok() {
                let index = format!("[{}]", entry.index);
                let message =
                    format!("secret {} is in the vault and in tokens[]; the vault value is used", entry.shown);
                self.warnings.push(self.context.problem("load", &["tokens", &index], message));
            }
        }
    }

    fn under(&mut self, segment: String, act: impl FnOnce(&mut Self)) {
        self.path.push(segment);
        act(self);
        self.path.pop();
    }
}

//! API tokens: their scope documents and their values.

use std::collections::HashMap;
use std::path::Path;

use ductile_model::Problem;
use serde_json::Value;

use super::collect::{Files, read_file};
use super::convert::Bases;
use super::references::{Finding, look_up};
use super::{Context, SecretOrigin, UsedSecret, paths};
use crate::Scopes;
use crate::plan::{ApiToken, Purpose};
use crate::scalar::Scalar;
use crate::yaml::Node;

const TOKENS: [&str; 3] = ["api", "auth", "tokens"];

/// Reads the scope document of every API token that names one and writes its scopes into the effective tokens. The
/// documents of the older table are read too: they grant nothing, but they belong to the configuration.
pub(super) fn read_scope_files(
    files: &mut Files,
    merged: &Node,
    effective: &mut Value,
    bases: Bases<'_>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let api = effective.pointer_mut("/api/auth/tokens").and_then(Value::as_array_mut);
    let mut reader = Reader { files, merged, bases, problems, warnings };
    for (index, token) in api.into_iter().flatten().enumerate() {
        let at = format!("[{index}]");
        let path = ["api", "auth", "tokens", at.as_str()];
        let written = |key: &str| token.get(key).is_some();
        if written("scopes") && written("scopes_file") {
            reader.problem(&path, format!("{}: scopes and scopes_file can not both be given", super::dotted(&path)));
        } else if let Some(scopes) = reader.document(&path, token)
            && let Value::Object(token) = token
        {
            token.insert("scopes".to_owned(), Value::from(scopes));
        }
    }
    let legacy = effective.pointer_mut("/tokens").and_then(Value::as_array_mut);
    for (index, token) in legacy.into_iter().flatten().enumerate() {
        reader.document(&["tokens", &format!("[{index}]")], token);
    }
}

struct Reader<'r> {
    files: &'r mut Files,
    merged: &'r Node,
    bases: Bases<'r>,
    problems: &'r mut Vec<Problem>,
    warnings: &'r mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, path: &[&str], message: String) {
        let problem = Problem::new("load", message).at_field(super::dotted(path));
        self.problems.push(self.files.at(problem, self.merged.place_of(path)));
    }

    fn document(&mut self, path: &[&str], token: &Value) -> Option<Vec<String>> {
        let name = token.get("scopes_file")?.as_str()?;
        let at = super::dotted(path);
        let written = |key: &str| self.merged.find(path)?.get(key)?.scalar();
        // What came from a variable is named as it was written, everything else by its whole path.
        let variable = written("scopes_file").filter(|scalar| !scalar.vars.is_empty()).map(Scalar::shown);
        let shown = |file: &Path| variable.clone().unwrap_or_else(|| file.display().to_string());
        let expected_hash = written("scopes_hash").map_or(String::new(), |scalar| scalar.written().to_owned());
        let resolved = paths::resolve(name, self.bases.config_dir, self.bases.home);
        let resolved = resolved.map_err(|error| variable.clone().unwrap_or(error));
        let read = resolved.and_then(|file| {
            let known = self.files.0.iter().position(|known| known.path == file);
            match known {
                Some(index) => Ok(index),
                None => read_file(&file)
                    .map(|bytes| self.files.add(file.clone(), bytes))
                    .map_err(|error| format!("{}: {error}", shown(&file))),
            }
        });
        let checked = read.and_then(|index| {
            let file = &self.files.0[index];
            let hash = format!("blake3:{}", blake3::hash(&file.bytes).to_hex());
            match token.get("scopes_hash").and_then(Value::as_str) {
                None => {
                    let message = format!("{at}: scopes_file has no scopes_hash; a changed file would go unnoticed");
                    let problem = Problem::new("token_scopes", message).at_field(&at);
                    self.warnings.push(self.files.at(problem, self.merged.place_of(path)));
                }
                Some(expected) if expected == hash => {}
                Some(_) => {
                    let file = shown(&file.path);
                    return Err(format!(
                        "scopes_hash of {file} does not match: expected {expected_hash}, found {hash}"
                    ));
                }
            }
            scopes(&file.bytes).map_err(|error| format!("{}: {error}", shown(&file.path)))
        });
        checked.map_err(|error| self.problem(path, format!("{at}: scopes_file: {error}"))).ok()
    }
}

/// `{"scopes":[…], "metadata":…}` or a bare array.
fn scopes(bytes: &[u8]) -> Result<Vec<String>, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("not valid JSON: {error}"))?;
    let list = if document.is_object() { document.get("scopes") } else { Some(&document) };
    let words = list.and_then(Value::as_array).ok_or("must be a JSON array or an object with \"scopes\"")?;
    let words = words.iter().map(|word| word.as_str().map(str::to_owned));
    words.collect::<Option<_>>().ok_or_else(|| "every scope must be a string".to_owned())
}

/// Checks every entry and turns values into digests. The values are not kept here.
pub(super) fn resolve(
    context: &Context<'_>,
    secrets: &mut Vec<UsedSecret>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Vec<ApiToken> {
    let mut resolved: Vec<ApiToken> = Vec::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut digests: HashMap<[u8; 32], usize> = HashMap::new();
    let describe = |index: usize| {
        let at = format!("[{index}]");
        match context.merged.shown(&["api", "auth", "tokens", at.as_str(), "name"]) {
            Some(name) => format!("api.auth.tokens[{index}] ({name})"),
            None => format!("api.auth.tokens[{index}]"),
        }
    };
    for (index, entry) in context.config.api.tokens.iter().enumerate() {
        let at = format!("[{index}]");
        let path = [TOKENS[0], TOKENS[1], TOKENS[2], at.as_str()];
        let place = super::dotted(&path);
        let shown = |key: &str, text: &str| context.shown(&[TOKENS[0], TOKENS[1], TOKENS[2], at.as_str(), key], text);
        let mut refuse = |message: String| problems.push(context.problem("load", &path, message));
        if let Some(name) = &entry.name
            && let Some(first) = names.insert(name, index)
        {
            let name = shown("name", name);
            refuse(format!("{place}: name {name} is already taken by api.auth.tokens[{first}]"));
        }
        let written = context.merged.find(&path).map(Node::entries).unwrap_or_default();
        if written.iter().any(|entry| entry.key.text == "token") {
            refuse(format!("{place}: a literal token value is not allowed; store it in the vault and use secret_ref"));
            continue;
        }
        if entry.secret_ref.trim().is_empty() {
            refuse(format!("{place}: secret_ref is required: the name of the vault secret with the bearer value"));
            continue;
        }
        let purpose = format!("{place}.secret_ref");
        let reference = context.merged.find(&path).and_then(|token| token.get("secret_ref")?.scalar());
        let name = reference.map_or(entry.secret_ref.as_str(), Scalar::written).to_owned();
        let mut used = UsedSecret { purpose, name, origin: SecretOrigin::Vault, value: None };
        match look_up(context, &entry.secret_ref) {
            Finding::Value(value) => {
                let digest = *blake3::hash(value.expose().trim().as_bytes()).as_bytes();
                let first = *digests.entry(digest).or_insert(index);
                used.value = Some(value);
                if first == index {
                    resolved.push(token(entry, digest));
                } else {
                    let message =
                        format!("{} has the same value as {}; the first one wins", describe(index), describe(first));
                    warnings.push(context.problem("api", &path, message));
                }
            }
            Finding::Missing(cause) => {
                let message = format!("{place}: secret_ref {:?} {cause}", used.name);
                if context.purpose == Purpose::Inspecting && context.tolerates_missing_secrets() {
                    warnings.push(context.problem("api", &path, message));
                } else {
                    problems.push(context.problem("load", &path, message));
                }
            }
        }
        secrets.push(used);
    }
    resolved
}

fn token(entry: &crate::ApiTokenEntry, digest: [u8; 32]) -> ApiToken {
    let label = entry.name.clone().unwrap_or_else(|| hex::encode(&digest[..4]));
    ApiToken { label, digest, scopes: Scopes::parse(&entry.scopes) }
}

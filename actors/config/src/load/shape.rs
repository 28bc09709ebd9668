//! Checking one file against the table: types, and keys that nobody reads.

use ductile_model::Problem;

use super::collect::Files;
use super::convert::{Bases, convert};
use crate::keys::{Kind, Schema, root};
use crate::scalar::{Core, Scalar};
use crate::yaml::{Data, Entry, Node, Place};

/// Looks at one interpolated file.
pub(crate) struct Shape<'s> {
    pub(crate) files: &'s Files,
    pub(crate) bases: Bases<'s>,
    pub(crate) problems: Vec<Problem>,
    /// Keys that are not in the table.
    pub(crate) ignored: Vec<Problem>,
}

impl Shape<'_> {
    /// Checks everything below `node`.
    pub(crate) fn check(&mut self, schema: &Schema, node: &Node, path: &str) {
        let known = self.problems.len();
        self.look(schema, node, path);
        if schema.is_judged_late() {
            self.problems.truncate(known);
        }
    }

    fn look(&mut self, schema: &Schema, node: &Node, path: &str) {
        if node.is_null() && !matches!(schema.key.kind, Kind::Any | Kind::Free) {
            return;
        }
        match (schema.key.kind, &node.data) {
            (Kind::Section | Kind::Map, Data::Map(entries)) => {
                for entry in entries {
                    self.entry(schema, entry, path);
                }
            }
            (Kind::List | Kind::Steps, Data::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(each) = schema.each() {
                        self.check(each, item, &format!("{path}[{index}]"));
                    }
                }
            }
            (Kind::Free, Data::Map(_)) | (Kind::Any, _) => self.free(node, path),
            (Kind::Free, Data::Scalar(scalar)) if scalar.is_null() => {}
            (Kind::Section | Kind::Map | Kind::Free, _) => self.wrong(node.place, path, "must be a mapping"),
            (Kind::List | Kind::Steps, _) => self.wrong(node.place, path, "must be a list"),
            (kind, Data::Scalar(scalar)) => self.scalar(kind, scalar, node.place, path),
            (_, Data::Map(_)) => self.wrong(node.place, path, "must be a single value, not a mapping"),
            (_, Data::List(_)) => self.wrong(node.place, path, "must be a single value, not a list"),
        }
    }

    fn scalar(&mut self, kind: Kind, scalar: &Scalar, place: Place, path: &str) {
        // An unset variable in a text is judged when all files are together.
        let later = matches!(kind, Kind::Text | Kind::SecretRef | Kind::Url | Kind::Path | Kind::Listen);
        match scalar.unset.first() {
            Some(_) if later => {}
            Some(name) => {
                self.wrong(place, path, format!("needs a value: environment variable ${{{name}}} is not set"))
            }
            None => {
                if let Err(message) = convert(kind, scalar, self.bases) {
                    self.wrong(place, path, message);
                }
            }
        }
    }

    fn entry(&mut self, schema: &Schema, entry: &Entry, path: &str) {
        let name = entry.key.text.as_str();
        let shown = entry.key.written();
        let field = if path.is_empty() { shown.to_owned() } else { format!("{path}.{shown}") };
        match schema.child(name) {
            Some(child) => self.check(child, &entry.value, &field),
            None if is_retired(schema.key.path, name) => {}
            None => {
                let message = format!("ignored config key {field:?}{}", hint(schema, name));
                let problem = Problem::new("strict_decode", message).at_field(field);
                self.ignored.push(self.files.at(problem, entry.place));
            }
        }
    }

    fn free(&mut self, node: &Node, path: &str) {
        for (place, path) in unfit(node, path) {
            self.wrong(place, &path, UNFIT);
        }
    }

    fn wrong(&mut self, place: Place, path: &str, message: impl std::fmt::Display) {
        self.problems.push(self.files.fault(place, format!("{path} {message}")).at_field(path));
    }
}

/// What is wrong with a value that [`unfit`] finds.
pub(super) const UNFIT: &str = "is a number that JSON can not hold; put it in quotes to pass it as text";

/// Free values end up as JSON, which has no infinity. Places and paths of those that can not.
pub(super) fn unfit(node: &Node, path: &str) -> Vec<(Place, String)> {
    match &node.data {
        Data::Scalar(scalar) if scalar.core() == Core::NoJson => vec![(node.place, path.to_owned())],
        Data::Scalar(_) => Vec::new(),
        Data::List(items) => {
            items.iter().enumerate().flat_map(|(index, item)| unfit(item, &format!("{path}[{index}]"))).collect()
        }
        Data::Map(entries) => {
            let values = entries.iter().map(|entry| (&entry.value, format!("{path}.{}", entry.key.written())));
            values.flat_map(|(value, path)| unfit(value, &path)).collect()
        }
    }
}

/// Keys that are no longer read but have an error of their own.
fn is_retired(parent: &str, name: &str) -> bool {
    matches!((parent, name), ("plugins.*", "schedule") | ("api.auth.tokens.*", "token"))
}

fn hint(schema: &Schema, name: &str) -> String {
    if schema.key.path.is_empty() && root().find(&["service", name]).is_some() {
        return format!(" (did you mean \"service.{name}\"?)");
    }
    let mut near = schema.children.keys().filter(|key| strsim::levenshtein(key, name) <= 2);
    let meant = match (near.next(), near.next()) {
        (Some(only), None) => format!(" (did you mean {only:?}?)"),
        _ => String::new(),
    };
    let advice = match (schema.key.path, name) {
        ("plugins.*", "timeout") => "; use timeouts.<command>",
        ("plugins.*", "max_attempts") => "; use retry.max_attempts",
        ("pipelines.*", "on_events") => "; not supported: write one pipeline per event type",
        ("plugins.*", "stopwatch" | "concurrency_safe") => "; it belongs to the plugin's manifest",
        _ => "",
    };
    format!("{meant}{advice}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::yaml::parse;

    fn look(text: &str) -> (Vec<String>, Vec<String>) {
        let mut files = Files::default();
        files.add("/c/x.yaml".into(), Vec::new());
        let node = parse(text.as_bytes(), 0).unwrap();
        let bases = Bases { config_dir: Path::new("/c"), home: None };
        let mut shape = Shape { files: &files, bases, problems: Vec::new(), ignored: Vec::new() };
        shape.check(root(), &node, "");
        let lines = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
        (lines(shape.problems), lines(shape.ignored))
    }

    #[test]
    fn unknown_keys_are_named_with_file_line_path_and_a_hint() {
        let text = "log_level: debug\nplugins:\n  echo:\n    timeout: 5s\n    max_attempts: 2\n    stopwatch: {}\n    \
                    enabeld: true\n    config: {anything: {at: all}}\n    timeouts: {whatever: 1s}\nzzz: 1\n";
        let (problems, ignored) = look(text);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            ignored,
            [
                "/c/x.yaml:1: ignored config key \"log_level\" (did you mean \"service.log_level\"?)",
                "/c/x.yaml:4: ignored config key \"plugins.echo.timeout\" (did you mean \"timeouts\"?); use \
                 timeouts.<command>",
                "/c/x.yaml:5: ignored config key \"plugins.echo.max_attempts\"; use retry.max_attempts",
                "/c/x.yaml:6: ignored config key \"plugins.echo.stopwatch\"; it belongs to the plugin's manifest",
                "/c/x.yaml:7: ignored config key \"plugins.echo.enabeld\" (did you mean \"enabled\"?)",
                "/c/x.yaml:10: ignored config key \"zzz\"",
            ]
        );
    }

    #[test]
    fn unknown_keys_in_nested_pipeline_steps_are_found() {
        let (problems, ignored) = look(
            "pipelines:\n  - name: p\n    on: x\n    steps:\n      - split:\n          - {uses: a, wiht: {x: 1}}\n",
        );
        assert!(problems.is_empty());
        assert_eq!(
            ignored,
            ["/c/x.yaml:6: ignored config key \"pipelines[0].steps[0].split[0].wiht\" (did you mean \"with\"?)"]
        );
    }

    #[test]
    fn wrong_types_name_the_key_and_what_is_accepted() {
        let (problems, _) = look(
            "service:\n  max_workers: many\n  tick_interval: 30\n  log_level: loud\n  admission: yes\napi:\n  \
             listen: nowhere\n  max_body_size: 0\n  allowed_origins: x\nplugins: []\n",
        );
        assert_eq!(
            problems,
            [
                "/c/x.yaml:2: service.max_workers must be a whole number of at least 1, not \"many\"",
                "/c/x.yaml:3: service.tick_interval is wrong: duration \"30\" needs a unit (ns, us, ms, s, m, h, d, w)",
                "/c/x.yaml:4: service.log_level must be one of debug, info, warn, error, not \"loud\"",
                "/c/x.yaml:5: service.admission must be a mapping",
                "/c/x.yaml:7: api.listen must be host:port with port 0 to 65535, not \"nowhere\"",
                "/c/x.yaml:8: api.max_body_size must be a size: a positive number of bytes, or one with KB, MB or GB, \
                 not \"0\"",
                "/c/x.yaml:9: api.allowed_origins must be a list",
                "/c/x.yaml:10: plugins must be a mapping",
            ]
        );
    }
}

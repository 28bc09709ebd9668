//! Dotted paths into payload, context and configuration.

use serde_json::Value;

use super::fault::quoted;
use super::scope::Scope;
use crate::scalar::Scalar;

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Payload,
    Context,
    Config,
}

/// A path such as `payload.items.0.url`, or a root alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    root: Root,
    /// Without blanks around its parts; split again whenever it is followed, which needs no memory.
    text: Box<str>,
}

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathFault {
    #[error("unsupported root {0:?}")]
    Root(String),
    #[error("path contains empty segment")]
    EmptySegment,
}

impl Root {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Context => "context",
            Self::Config => "config",
        }
    }
}

impl PathFault {
    /// The message about a scalar of the file.
    pub(crate) fn about(&self, scalar: &Scalar) -> String {
        match self {
            Self::Root(root) => Self::Root(quoted(root, scalar).to_owned()).to_string(),
            Self::EmptySegment => self.to_string(),
        }
    }
}

impl Path {
    /// Reads a path; blanks around the parts do not count.
    pub(crate) fn parse(text: &str) -> Result<Self, PathFault> {
        let mut parts = text.split('.').map(str::trim);
        let root = match parts.next().unwrap_or_default() {
            "payload" => Root::Payload,
            "context" => Root::Context,
            "config" => Root::Config,
            other => return Err(PathFault::Root(other.to_owned())),
        };
        let mut clean = String::with_capacity(text.len());
        clean.push_str(root.word());
        for part in parts {
            if part.is_empty() {
                return Err(PathFault::EmptySegment);
            }
            clean.push('.');
            clean.push_str(part);
        }
        Ok(Self { root, text: clean.into() })
    }

    pub(crate) fn root(&self) -> Root {
        self.root
    }

    /// Whether it is a root alone.
    pub(crate) fn is_bare(&self) -> bool {
        self.text.len() == self.root.word().len()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The value it leads to; `None` when it can not be followed. A null at its end is a value.
    pub(crate) fn resolve<'a>(&self, scope: &Scope<'a>) -> Option<&'a Value> {
        let start = match self.root {
            Root::Payload => scope.payload,
            Root::Context => scope.context,
            Root::Config => scope.config,
        };
        self.text.split('.').skip(1).try_fold(start?, step)
    }
}

fn step<'a>(value: &'a Value, segment: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(segment),
        // `parse` alone would take a sign as well.
        Value::Array(items) if segment.bytes().all(|b| b.is_ascii_digit()) => items.get(segment.parse::<usize>().ok()?),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::value;
    use super::*;

    fn resolve<'a>(path: &str, payload: &'a Value) -> Option<&'a Value> {
        Path::parse(path).unwrap().resolve(&Scope { payload: Some(payload), ..Scope::default() })
    }

    #[test]
    fn keys_of_objects_and_indexes_of_lists_are_followed_and_nothing_else() {
        let payload = json!({"a": [{"b": null}, 2], "0": "key", "text": "x"});
        assert_eq!(resolve("payload.a.0.b", &payload), Some(&Value::Null));
        assert_eq!(resolve(" payload . a . 001 ", &payload), Some(&json!(2)));
        assert_eq!(resolve("payload.0", &payload), Some(&json!("key")));
        assert_eq!(resolve("payload", &payload), Some(&payload));
        let far = format!("payload.a.{}", "9".repeat(400));
        for absent in
            ["payload.a.2", "payload.a.+1", "payload.a.-1", "payload.a.b", "payload.text.0", "payload.x", &far]
        {
            assert_eq!(resolve(absent, &payload), None, "{absent}");
        }
    }

    #[test]
    fn each_root_is_read_from_its_own_value_and_absent_without_it() {
        let (context, config) = (json!({"x": 1}), json!({"x": 2}));
        let scope = Scope { payload: None, context: Some(&context), config: Some(&config) };
        let read = |path| Path::parse(path).unwrap().resolve(&scope).cloned();
        assert_eq!((read("payload"), read("payload.x")), (None, None));
        assert_eq!((read("context.x"), read("config.x")), (Some(json!(1)), Some(json!(2))));
    }

    #[test]
    fn other_roots_and_empty_segments_are_refused() {
        for (text, message) in [
            ("event.x", "unsupported root \"event\""),
            ("Payload.x", "unsupported root \"Payload\""),
            ("", "unsupported root \"\""),
            (".x", "unsupported root \"\""),
            ("payload..x", "path contains empty segment"),
            ("payload. ", "path contains empty segment"),
        ] {
            assert_eq!(Path::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_root_that_came_from_the_environment_is_only_named() {
        let mut scalar = Scalar::new("${ROOT}.x".into(), true);
        scalar.substitute("hunter2.x".into(), vec!["ROOT".into()]);
        let message = Path::parse(&scalar.text).unwrap_err().about(&scalar);
        assert_eq!(message, "unsupported root \"${ROOT}.x\"");
    }

    proptest! {
        #[test]
        fn resolution_is_that_of_a_json_pointer(
            payload in value(),
            segments in proptest::collection::vec("[ab]|[0-3]|00|é", 1..5),
        ) {
            // Pointers know no leading zeros in an index.
            prop_assume!(!segments.iter().any(|s| s == "00"));
            let pointer: String = segments.iter().map(|segment| format!("/{segment}")).collect();
            let path = format!("payload.{}", segments.join("."));
            prop_assert_eq!(resolve(&path, &payload), payload.pointer(&pointer));
        }

        #[test]
        fn no_text_panics(text in "[payloadcntexfig. 0-9é{}]{0,40}", payload in value()) {
            if let Ok(path) = Path::parse(&text) {
                let scope = Scope { payload: Some(&payload), context: Some(&payload), config: Some(&payload) };
                let _ = path.resolve(&scope);
                prop_assert_eq!(&Path::parse(path.text()), &Ok(path.clone()));
            }
        }
    }
}

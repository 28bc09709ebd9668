//! Texts with references, for remapped payload keys.

use std::fmt::Write;

use serde_json::Value;

use super::decimal::plain;
use super::path::{Path, PathFault, Root};
use super::scope::Scope;
use crate::scalar::Scalar;

/// A text in which `{path}` stands for a value; `{{` and `}}` are braces.
#[derive(Debug)]
pub struct Template {
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// One reference and nothing else: the value keeps its type.
    Lone(Path),
    Text(Box<[Part]>),
}

#[derive(Debug)]
enum Part {
    Literal(Box<str>),
    Value(Path),
}

/// A path that leads nowhere in what it was read from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resolve {path:?}: path not found")]
pub struct PathNotFound {
    path: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum TemplateFault {
    #[error("unclosed {{ in template")]
    Unclosed,
    #[error("unexpected }} in template")]
    Unexpected,
    #[error("nested {{ in template")]
    Nested,
    #[error("empty template path")]
    Empty,
    #[error(transparent)]
    Path(#[from] PathFault),
}

impl Template {
    /// Reads the text of a template.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        read(text).map_err(|fault| fault.to_string())
    }

    /// Reads a template of the file; what came from the environment is not quoted in the message.
    pub(crate) fn of(scalar: &Scalar) -> Result<Self, String> {
        read(&scalar.text).map_err(|fault| match fault {
            TemplateFault::Path(fault) => fault.about(scalar),
            other => other.to_string(),
        })
    }

    /// Puts the values in.
    ///
    /// # Errors
    ///
    /// A referenced path leads nowhere.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, PathNotFound> {
        match &self.form {
            Form::Lone(path) => find(path, scope).cloned(),
            Form::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Literal(literal) => text.push_str(literal),
                        Part::Value(path) => write_value(&mut text, find(path, scope)?),
                    }
                }
                Ok(Value::String(text))
            }
        }
    }
}

fn find<'a>(path: &Path, scope: &Scope<'a>) -> Result<&'a Value, PathNotFound> {
    path.resolve(scope).ok_or_else(|| PathNotFound { path: path.text().to_owned() })
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&plain(number)),
        Value::String(value) => text.push_str(value),
        // Writing into a string can not fail.
        Value::Array(_) | Value::Object(_) => drop(write!(text, "{value}")),
    }
}

fn read(text: &str) -> Result<Template, TemplateFault> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = brace.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if let Some(inner) = brace.strip_prefix('{') {
            let (path, after) = reference(inner)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Value(path));
            rest = after;
        } else {
            return Err(TemplateFault::Unexpected);
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    let form = match <[Part; 1]>::try_from(parts) {
        Ok([Part::Value(path)]) => Form::Lone(path),
        Ok(one) => Form::Text(one.into()),
        Err(parts) => Form::Text(parts.into()),
    };
    Ok(Template { form })
}

/// The path up to the closing brace, and the text behind it.
fn reference(inner: &str) -> Result<(Path, &str), TemplateFault> {
    let at = inner.find(['{', '}']).ok_or(TemplateFault::Unclosed)?;
    let (path, brace) = inner.split_at(at);
    let after = brace.strip_prefix('}').ok_or(TemplateFault::Nested)?;
    if path.trim().is_empty() {
        return Err(TemplateFault::Empty);
    }
    let path = Path::parse(path)?;
    match path.root() {
        Root::Payload | Root::Context => Ok((path, after)),
        Root::Config => Err(PathFault::Root(Root::Config.word().to_owned()).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::value;
    use super::*;

    fn render(text: &str, payload: &Value) -> Value {
        let context = json!({"site": "e.test"});
        let scope = Scope { payload: Some(payload), context: Some(&context), config: None };
        Template::parse(text).unwrap().render(&scope).unwrap()
    }

    #[test]
    fn a_lone_reference_keeps_the_type_and_any_other_text_is_a_string() {
        let payload: Value = serde_json::from_str(
            r#"{"count": 3, "big": 1000000, "exp": 1e6, "yes": true, "none": null, "list": [1, {"a": "b"}], "s": "t"}"#,
        )
        .unwrap();
        assert_eq!(render("{payload.count}", &payload), json!(3));
        assert_eq!(render("{ payload.list }", &payload), json!([1, {"a": "b"}]));
        assert_eq!(render("{payload.none}", &payload), Value::Null);
        assert_eq!(render("{payload}", &payload), payload);
        assert_eq!(render("{context}", &payload), json!({"site": "e.test"}));
        for (template, text) in [
            ("n={payload.big}", "n=1000000"),
            ("n={payload.exp}", "n=1000000"),
            ("{payload.count} ", "3 "),
            ("{payload.yes}/{payload.none}/{payload.s}", "true//t"),
            ("{payload.count}{payload.count}", "33"),
            ("l={payload.list}", r#"l=[1,{"a":"b"}]"#),
            ("{context.site}: {payload.s}", "e.test: t"),
            ("short", "short"),
            ("", ""),
            ("5", "5"),
        ] {
            assert_eq!(render(template, &payload), json!(text), "{template}");
        }
    }

    #[test]
    fn doubled_braces_are_braces() {
        let payload = json!({"x": "{payload.x}"});
        for (template, text) in [
            ("{{x}}", "{x}"),
            ("{{{payload.x}}}", "{{payload.x}}"),
            ("{{{{", "{{"),
            ("}}{{", "}{"),
            ("{{payload.x}}", "{payload.x}"),
        ] {
            assert_eq!(render(template, &payload), json!(text), "{template}");
        }
    }

    #[test]
    fn braces_and_roots_are_checked_when_read() {
        for (template, message) in [
            ("{", "unclosed { in template"),
            ("a {payload.x", "unclosed { in template"),
            ("{{{", "unclosed { in template"),
            ("}", "unexpected } in template"),
            ("{payload.x}}", "unexpected } in template"),
            ("{}", "empty template path"),
            ("{ }", "empty template path"),
            ("{payload.{x}}", "nested { in template"),
            ("{payload.x {{", "nested { in template"),
            ("{config.x}", "unsupported root \"config\""),
            ("{x}", "unsupported root \"x\""),
            ("{payload.}", "path contains empty segment"),
        ] {
            assert_eq!(Template::parse(template).unwrap_err(), message, "{template}");
        }
        let mut scalar = Scalar::new("{${KEY}}".into(), true);
        scalar.substitute("{hunter2}".into(), vec!["KEY".into()]);
        assert_eq!(Template::of(&scalar).unwrap_err(), "unsupported root \"{${KEY}}\"");
    }

    #[test]
    fn a_missing_path_is_named() {
        for (template, scope) in [("{payload.x}", Scope::default()), ("a{ payload.x }", Scope::default())] {
            let error = Template::parse(template).unwrap().render(&scope).unwrap_err();
            assert_eq!(error.to_string(), "resolve \"payload.x\": path not found");
        }
    }

    proptest! {
        #[test]
        fn literal_text_survives(text in any::<String>()) {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(render(&escaped, &Value::Null), Value::String(text));
        }

        #[test]
        fn texts_around_references_survive(before in "[^{}]{0,9}", after in "[^{}]{1,9}", inner in any::<String>()) {
            let payload = json!({"x": inner});
            let rendered = render(&format!("{before}{{payload.x}}{after}"), &payload);
            prop_assert_eq!(rendered, Value::String(format!("{before}{inner}{after}")));
        }

        #[test]
        fn a_lone_reference_is_the_value_itself(payload in value()) {
            prop_assert_eq!(render("{payload}", &payload), payload);
        }

        #[test]
        fn no_template_panics(text in "([{}]|payload|context|config|[.] |x|é){0,12}", payload in value()) {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.render(&Scope { payload: Some(&payload), ..Scope::default() });
            }
        }
    }
}

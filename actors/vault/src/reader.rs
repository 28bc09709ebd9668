//! From text to tree: one YAML document, nothing in it guessed, nothing of it repeated in an error.
//!
//! Built on the events of the parser rather than on a deserialiser, because every text must land in memory that is
//! wiped, duplicate keys must be seen, and an error may tell where, but never what was written there.

use std::borrow::Cow;

use ductile_model::{Secret, YamlWord};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::node::{Map, Node};

/// Deeper nesting than any document of ours; guards the stack of everything that walks the tree.
const MAX_DEPTH: usize = 32;

/// Longest key. Escaped, it stays within the 1024 characters that YAML allows to a key without its own line.
const MAX_KEY_BYTES: usize = 250;

/// Where and why the text is no document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document is damaged at line {line}, column {column}: {what}")]
pub(crate) struct Damage {
    line: usize,
    column: usize,
    what: &'static str,
}

impl Damage {
    fn at(span: Span, what: &'static str) -> Self {
        Self { line: span.start.line(), column: span.start.col() + 1, what }
    }
}

/// Reads the top-level mapping of the only document in `text`.
pub(crate) fn read(text: &str) -> Result<Map, Damage> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Damage {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            what: "not valid YAML",
        })?;
        builder.take(event).map_err(|what| Damage::at(span, what))?;
    }
    match builder.root {
        Some(Node::Map(map)) => Ok(map),
        _ => Err(Damage { line: 1, column: 1, what: "the document is not a mapping" }),
    }
}

enum Open {
    List(Vec<Node>),
    Map { map: Map, key: Option<String> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), &'static str> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.start_document(),
            Event::Alias(_) => Err("aliases are not accepted"),
            Event::Scalar(text, style, _, tag) => {
                let node = scalar(text, style, tag.as_deref())?;
                self.put(node)
            }
            Event::SequenceStart(_, tag) => {
                check_collection_tag(tag.as_deref(), "seq")?;
                self.push(Open::List(Vec::new()))
            }
            Event::MappingStart(_, tag) => {
                check_collection_tag(tag.as_deref(), "map")?;
                self.push(Open::Map { map: Map::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn start_document(&mut self) -> Result<(), &'static str> {
        self.documents += 1;
        if self.documents > 1 { Err("only one document is accepted") } else { Ok(()) }
    }

    fn push(&mut self, open: Open) -> Result<(), &'static str> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err("a key must be a text");
        }
        if self.open.len() >= MAX_DEPTH {
            return Err("nested too deeply");
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), &'static str> {
        match self.open.pop() {
            Some(Open::List(items)) => self.put(Node::List(items)),
            Some(Open::Map { map, .. }) => self.put(Node::Map(map)),
            None => Err("not valid YAML"),
        }
    }

    fn put(&mut self, node: Node) -> Result<(), &'static str> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map { map, key }) => match key.take() {
                None => *key = Some(key_of(node, map)?),
                Some(name) => {
                    map.insert(name, node);
                }
            },
        }
        Ok(())
    }
}

fn key_of(node: Node, map: &Map) -> Result<String, &'static str> {
    let Node::Text(text) = node else {
        return Err("a key must be a text");
    };
    if text.expose().len() > MAX_KEY_BYTES {
        return Err("a key is too long");
    }
    if map.contains_key(text.expose()) {
        return Err("duplicate key");
    }
    Ok(text.expose().to_owned())
}

fn check_collection_tag(tag: Option<&Tag>, wanted: &str) -> Result<(), &'static str> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == wanted => Ok(()),
        Some(_) => Err("unknown tag"),
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, &'static str> {
    let text = Secret::new(text.into_owned());
    match tag {
        None if style == ScalarStyle::Plain => plain(text),
        None => Ok(Node::Text(text)),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Node::Text(text)),
        Some(_) => Err("unknown tag"),
    }
}

/// By the core schema, where it leaves no doubt about the value.
fn plain(text: Secret) -> Result<Node, &'static str> {
    Ok(match YamlWord::of(text.expose()) {
        YamlWord::Null => Node::Null,
        YamlWord::Bool(value) => Node::Bool(value),
        YamlWord::Number(digits) => Node::Number(digits),
        YamlWord::NoJson => return Err("a number that can not be kept exactly"),
        YamlWord::Text => Node::Text(text),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(
            text in prop_oneof![any::<String>(), "[a-c :\\-?,&*!|>'\"%@#\\[\\]{}\n\t.~0-9\\\\]{0,120}"],
        ) {
            // Whatever it is, it is a mapping or a refusal that does not repeat it.
            if let Err(damage) = read(&text) {
                prop_assert!(damage.to_string().starts_with("the document is damaged at line "));
            }
        }
    }

    fn one(text: &str) -> Node {
        read(&format!("k: {text}\n")).unwrap().remove("k").unwrap()
    }

    #[test]
    fn plain_words_follow_the_core_schema() {
        for (text, node) in [
            ("~", Node::Null),
            ("", Node::Null),
            ("True", Node::Bool(true)),
            ("17", Node::Number("17".into())),
            ("-1.50", Node::Number("-1.50".into())),
            ("0x1F", Node::Number("31".into())),
            ("0o17", Node::Number("15".into())),
            ("007", Node::Number("7".into())),
            (".5", Node::Number("0.5".into())),
            ("123456789012345678901234567890", Node::Number("123456789012345678901234567890".into())),
            ("yes", Node::text("yes")),
            ("2026-01-05T10:11:12Z", Node::text("2026-01-05T10:11:12Z")),
            ("\"17\"", Node::text("17")),
            ("!!str 17", Node::text("17")),
            ("1-2", Node::text("1-2")),
        ] {
            assert!(one(text) == node, "{text}");
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused_with_its_place_and_without_its_text() {
        for (text, what) in [
            ("a: hunter2\na: b\n", "duplicate key"),
            ("a: hunter2\n---\nb: c\n", "only one document is accepted"),
            ("a: &x hunter2\nb: *x\n", "aliases are not accepted"),
            ("a: !hunter2 b\n", "unknown tag"),
            ("a: !!binary hunter2\n", "unknown tag"),
            ("17: hunter2\n", "a key must be a text"),
            ("[hunter2]: b\n", "a key must be a text"),
            ("hunter2\n", "the document is not a mapping"),
            ("", "the document is not a mapping"),
            ("a: .inf\n", "a number that can not be kept exactly"),
            ("a: \"hunter2\n", "not valid YAML"),
            ("a: hunter2\n b: c\n", "not valid YAML"),
        ] {
            let damage = read(text).unwrap_err();
            assert_eq!(damage.what, what, "{text}");
            assert!(!damage.to_string().contains("hunter2"), "{damage}");
        }
        let deep = format!("a: {}{}\n", "[".repeat(60), "]".repeat(60));
        assert_eq!(read(&deep).unwrap_err().what, "nested too deeply");
        let duplicate = read("a: 1\nb:\n  c: 1\n  c: 2\n").unwrap_err();
        assert_eq!((duplicate.line, duplicate.column), (4, 3));
    }
}

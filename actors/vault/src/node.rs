//! The document as a tree without meaning: what is on the wire of the file, unknown parts included.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use ductile_model::Secret;

/// Entries in the order of their bytes, which is the order they are written and authenticated in.
pub(crate) type Map = BTreeMap<String, Node>;

/// One value of the tree. Texts are wiped when dropped.
#[derive(Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    /// The digits as a JSON number.
    Number(String),
    Text(Secret),
    List(Vec<Node>),
    Map(Map),
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl Node {
    /// A text that is no secret by itself.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Secret::new(text.into()))
    }
}

/// Writes the one form that is authenticated: JSON with sorted keys and without blanks.
pub(crate) fn write_canonical(map: &Map, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{")?;
    for (at, (key, node)) in map.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        write_json_text(key, out)?;
        out.write_all(b":")?;
        write_canonical_node(node, out)?;
    }
    out.write_all(b"}")
}

fn write_canonical_node(node: &Node, out: &mut dyn Write) -> io::Result<()> {
    match node {
        Node::Null => out.write_all(b"null"),
        Node::Bool(true) => out.write_all(b"true"),
        Node::Bool(false) => out.write_all(b"false"),
        Node::Number(digits) => out.write_all(digits.as_bytes()),
        Node::Text(text) => write_json_text(text.expose(), out),
        Node::Map(map) => write_canonical(map, out),
        Node::List(items) => {
            out.write_all(b"[")?;
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.write_all(b",")?;
                }
                write_canonical_node(item, out)?;
            }
            out.write_all(b"]")
        }
    }
}

/// Piece by piece into `out`, so that no second copy of the text is made.
fn write_json_text(text: &str, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_sorted_tight_json() {
        let inner = Map::from([("z".into(), Node::Null), ("a".into(), Node::List(vec![Node::Bool(true)]))]);
        let map = Map::from([
            ("b".into(), Node::Number("017".trim_start_matches('0').into())),
            ("a\"".into(), Node::text("line\nü\u{1}")),
            ("c".into(), Node::Map(inner)),
        ]);
        let mut out = Vec::new();
        write_canonical(&map, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, r#"{"a\"":"line\nü\u0001","b":17,"c":{"a":[true],"z":null}}"#);
    }

    /// The record of a configuration has this form too, made of another tree. Both are held to the same cases.
    #[test]
    fn the_canonical_form_is_the_one_of_the_whole_gateway() {
        let cases = crate::reader::read(include_str!("../../model/testdata/canonical.json")).unwrap();
        let Some(Node::List(cases)) = cases.get("cases") else { panic!("no cases") };
        for case in cases {
            let Node::Map(case) = case else { panic!("no case") };
            let (Node::Map(value), Node::Text(expected)) = (&case["value"], &case["canonical"]) else {
                panic!("no value or no text")
            };
            let mut out = Vec::new();
            write_canonical(value, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected.expose());
        }
        assert!(cases.len() > 3);
    }
}

//! From tree to text: block mappings with sorted keys, everything below a list in one line, every text in double
//! quotes. Nothing depends on how a reader guesses the type of a bare word.

use std::io::{self, Write};

use crate::node::{Map, Node};

/// Bare words that some reader of YAML takes for something else than a text.
const AMBIGUOUS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Writes a whole document.
pub(crate) fn write(map: &Map, out: &mut dyn Write) -> io::Result<()> {
    if map.is_empty() {
        return out.write_all(b"{}\n");
    }
    write_block(map, 0, out)
}

fn write_block(map: &Map, indent: usize, out: &mut dyn Write) -> io::Result<()> {
    for (key, node) in map {
        write!(out, "{:indent$}", "")?;
        write_key(key, out)?;
        match node {
            Node::Map(inner) if !inner.is_empty() => {
                out.write_all(b":\n")?;
                write_block(inner, indent + 2, out)?;
            }
            node => {
                out.write_all(b": ")?;
                write_flow(node, out)?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

fn write_flow(node: &Node, out: &mut dyn Write) -> io::Result<()> {
    match node {
        Node::Null => out.write_all(b"null"),
        Node::Bool(true) => out.write_all(b"true"),
        Node::Bool(false) => out.write_all(b"false"),
        Node::Number(digits) => out.write_all(digits.as_bytes()),
        Node::Text(text) => write_quoted(text.expose(), out),
        Node::List(items) => {
            out.write_all(b"[")?;
            for (at, item) in items.iter().enumerate() {
                separate(at, out)?;
                write_flow(item, out)?;
            }
            out.write_all(b"]")
        }
        Node::Map(map) => {
            out.write_all(b"{")?;
            for (at, (key, node)) in map.iter().enumerate() {
                separate(at, out)?;
                write_key(key, out)?;
                out.write_all(b": ")?;
                write_flow(node, out)?;
            }
            out.write_all(b"}")
        }
    }
}

fn separate(at: usize, out: &mut dyn Write) -> io::Result<()> {
    if at > 0 { out.write_all(b", ") } else { Ok(()) }
}

fn write_key(key: &str, out: &mut dyn Write) -> io::Result<()> {
    let bare = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        && !AMBIGUOUS.contains(&key);
    if bare { out.write_all(key.as_bytes()) } else { write_quoted(key, out) }
}

fn write_quoted(text: &str, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut rest = text;
    while let Some(at) = rest.find(needs_escape) {
        out.write_all(&rest.as_bytes()[..at])?;
        let mut chars = rest[at..].chars();
        if let Some(c) = chars.next() {
            write_escape(c, out)?;
        }
        rest = chars.as_str();
    }
    out.write_all(rest.as_bytes())?;
    out.write_all(b"\"")
}

/// Quotes, and whatever YAML does not count as printable or takes for the end of a line.
fn needs_escape(c: char) -> bool {
    matches!(c,
        '"' | '\\' | '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
        | '\u{fffe}' | '\u{ffff}')
}

fn write_escape(c: char, out: &mut dyn Write) -> io::Result<()> {
    match c {
        '"' => out.write_all(b"\\\""),
        '\\' => out.write_all(b"\\\\"),
        '\n' => out.write_all(b"\\n"),
        '\r' => out.write_all(b"\\r"),
        '\t' => out.write_all(b"\\t"),
        c if u32::from(c) <= 0xff => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{:04x}", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::read;

    fn written(map: &Map) -> String {
        let mut out = Vec::new();
        write(map, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_text_is_sorted_and_quoted() {
        let entry = Map::from([
            ("value".into(), Node::text(" p@\"s\\s\n")),
            ("authorized_principals".into(), Node::List(vec![Node::text("mailer"), Node::text("x")])),
            ("roll_count".into(), Node::Number("2".into())),
        ]);
        let map = Map::from([
            ("secrets".into(), Node::Map(Map::from([("yes".into(), Node::Map(entry))]))),
            ("principals".into(), Node::Map(Map::new())),
            ("generation".into(), Node::Number("17".into())),
        ]);
        let expected = "generation: 17\nprincipals: {}\nsecrets:\n  \"yes\":\n    authorized_principals: \
                        [\"mailer\", \"x\"]\n    roll_count: 2\n    value: \" p@\\\"s\\\\s\\n\"\n";
        assert_eq!(written(&map), expected);
        assert!(read(expected).unwrap() == map);
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[ \t\r\n\"'\\\\:#{}\\[\\],&*!|>%@`~0-9a-z-]{0,40}",
            "[\u{0}-\u{a0}\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}]{0,12}",
        ]
    }

    fn node() -> impl Strategy<Value = Node> {
        let leaf = prop_oneof![
            Just(Node::Null),
            any::<bool>().prop_map(Node::Bool),
            any::<i64>().prop_map(|n| Node::Number(n.to_string())),
            text().prop_map(Node::text),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Node::List),
                prop::collection::btree_map(key(), inner, 0..4).prop_map(Node::Map),
            ]
        })
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![text(), "[a-z0-9_-]{1,8}"].prop_filter("keys are short", |key| key.len() <= 250)
    }

    proptest! {
        #[test]
        fn every_tree_survives_being_written_and_read(map in prop::collection::btree_map(key(), node(), 0..5)) {
            let text = written(&map);
            prop_assert!(read(&text).as_ref() == Ok(&map), "{text}");
        }

        #[test]
        fn another_reader_of_yaml_sees_the_same_texts(texts in prop::collection::vec(text(), 0..5)) {
            let map = Map::from([("k".into(), Node::List(texts.iter().cloned().map(Node::text).collect()))]);
            let seen: std::collections::BTreeMap<String, Vec<String>> = serde_yaml::from_str(&written(&map)).unwrap();
            prop_assert_eq!(&seen["k"], &texts);
        }
    }
}

//! One YAML file as a tree that remembers where everything stands and how it was quoted.
//!
//! References `${NAME}` are hidden from the parser behind plain words and put back into the parsed scalars, so that
//! they are legal in every position, unquoted flow lists included, and can never change the shape of the tree.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use crate::load::dotted;
use crate::load::interpolate::references;
use crate::scalar::Scalar;

/// Deeper trees are refused, so that walking one never exhausts the stack.
const MAX_DEPTH: usize = 100;
/// Nodes that aliases of one file may copy in all.
const MAX_ALIASED_NODES: usize = 100_000;

/// A line of a loaded file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Index into the loaded files.
    pub(crate) file: usize,
    /// From 1.
    pub(crate) line: usize,
}

/// A value of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) data: Data,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Scalar,
    pub(crate) place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// A mapping without keys.
    pub(crate) fn empty_map(place: Place) -> Self {
        Self { place, data: Data::Map(Vec::new()) }
    }

    /// Null, that is: nothing was written.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(scalar) if scalar.is_null())
    }

    /// The entries of a mapping; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            Data::Scalar(_) | Data::List(_) => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            Data::Scalar(_) | Data::Map(_) => &[],
        }
    }

    /// The scalar, when it is one.
    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.data {
            Data::Scalar(scalar) => Some(scalar),
            Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The value of a key, null counting as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key.text == key).map(|entry| &entry.value).filter(|v| !v.is_null())
    }

    /// Follows segments: a key, or `[index]` of a list.
    pub(crate) fn find(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, segment| node.step(segment))
    }

    /// The place of the deepest part of the path that was written.
    pub(crate) fn place_of(&self, path: &[&str]) -> Place {
        let mut node = self;
        let mut place = Place::default();
        for segment in path {
            let entry_place = node.entries().iter().find(|e| e.key.text == *segment).map(|e| e.place);
            let Some(next) = node.step(segment) else { return entry_place.unwrap_or(place) };
            place = entry_place.unwrap_or(next.place);
            node = next;
        }
        place
    }

    /// A path for a person: keys whose text came from a variable are shown as they were written.
    pub(crate) fn shown_path(&self, path: &[&str]) -> String {
        dotted(&self.shown_segments(path))
    }

    /// The last key of a path, shown in the same way.
    pub(crate) fn shown_key(&self, path: &[&str]) -> String {
        self.shown_segments(path).last().map_or(String::new(), |key| (*key).to_owned())
    }

    fn shown_segments<'n>(&'n self, path: &[&'n str]) -> Vec<&'n str> {
        let mut node = Some(self);
        let mut shown = Vec::with_capacity(path.len());
        for segment in path {
            let entry = node.and_then(|node| node.entries().iter().find(|entry| entry.key.text == *segment));
            shown.push(entry.map_or(*segment, |entry| entry.key.written()));
            node = node.and_then(|node| node.step(segment));
        }
        shown
    }

    /// The scalar at a path as a message quotes it.
    pub(crate) fn shown(&self, path: &[&str]) -> Option<String> {
        self.find(path)?.scalar().map(Scalar::shown)
    }

    /// The scalars of a list with the places they have in it; null counts as absent.
    pub(crate) fn scalars(&self) -> impl Iterator<Item = (usize, &Scalar)> {
        let items = self.items().iter().enumerate();
        items.filter_map(|(index, node)| Some((index, node.scalar().filter(|scalar| !scalar.is_null())?)))
    }

    fn step(&self, segment: &str) -> Option<&Node> {
        match segment.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(index) if matches!(self.data, Data::List(_)) => self.items().get(index.parse::<usize>().ok()?),
            _ => self.entries().iter().find(|entry| entry.key.text == segment).map(|entry| &entry.value),
        }
    }

    fn count(&self) -> usize {
        1 + match &self.data {
            Data::Scalar(_) => 0,
            Data::List(items) => items.iter().map(Self::count).sum(),
            Data::Map(entries) => entries.iter().map(|entry| 1 + entry.value.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.data {
            Data::Scalar(_) => 0,
            Data::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Data::Map(entries) => entries.iter().map(|entry| entry.value.depth()).max().unwrap_or(0),
        }
    }
}

/// What is wrong with the text of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Reads the bytes of one file as one mapping; an empty file is an empty mapping.
pub(crate) fn parse(bytes: &[u8], file: usize) -> Result<Node, Vec<Fault>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
        vec![Fault { line, message: "the file is not valid UTF-8".to_owned() }]
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (masked, mask) = Mask::over(text);
    let root = Builder::new(file, &mask).run(&masked)?;
    match root {
        None => Ok(Node::empty_map(Place { file, line: 1 })),
        Some(node) if node.is_null() => Ok(Node::empty_map(node.place)),
        Some(node) if matches!(node.data, Data::Map(_)) => Ok(node),
        Some(node) => Err(vec![Fault {
            line: node.place.line,
            message: "the top of the file must be a mapping (key: value)".to_owned(),
        }]),
    }
}

/// Stand-ins for `${NAME}` that are plain words to YAML.
struct Mask {
    prefix: String,
    names: Vec<String>,
}

impl Mask {
    const END: char = 'Z';

    fn over(text: &str) -> (Cow<'_, str>, Self) {
        let found: Vec<_> = references(text).collect();
        if found.is_empty() {
            return (Cow::Borrowed(text), Self { prefix: String::new(), names: Vec::new() });
        }
        // A prefix that the text does not contain; each round is longer, so this ends.
        let mut prefix = "dvQ".to_owned();
        while text.contains(&prefix) {
            prefix.push('Q');
        }
        let mut masked = String::with_capacity(text.len() + found.len() * 8);
        let mut names = Vec::with_capacity(found.len());
        let mut end = 0;
        for reference in found {
            masked.push_str(&text[end..reference.range.start]);
            masked.push_str(&format!("{prefix}{}{}", names.len(), Self::END));
            names.push(reference.name.to_owned());
            end = reference.range.end;
        }
        masked.push_str(&text[end..]);
        (Cow::Owned(masked), Self { prefix, names })
    }

    fn restore(&self, text: &str) -> String {
        if self.names.is_empty() || !text.contains(&self.prefix) {
            return text.to_owned();
        }
        let mut parts = text.split(self.prefix.as_str());
        let mut restored = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let stand_in = part
                .split_once(Self::END)
                .and_then(|(index, rest)| Some((self.names.get(index.parse::<usize>().ok()?)?, rest)));
            match stand_in {
                Some((name, rest)) => {
                    restored.push_str(&format!("${{{name}}}"));
                    restored.push_str(rest);
                }
                None => {
                    restored.push_str(&self.prefix);
                    restored.push_str(part);
                }
            }
        }
        restored
    }
}

struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, lines: HashMap<String, usize>, merges: Vec<Node>, key: Option<Key> },
}

enum Key {
    Named(Scalar, Place),
    Merge,
}

struct Builder<'m> {
    file: usize,
    mask: &'m Mask,
    faults: Vec<Fault>,
    anchors: HashMap<usize, Node>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    aliased: usize,
}

/// The file can not be read any further.
struct Stop;

impl<'m> Builder<'m> {
    fn new(file: usize, mask: &'m Mask) -> Self {
        Self {
            file,
            mask,
            faults: Vec::new(),
            anchors: HashMap::new(),
            open: Vec::new(),
            root: None,
            documents: 0,
            aliased: 0,
        }
    }

    fn run(mut self, text: &str) -> Result<Option<Node>, Vec<Fault>> {
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let went_on = match next {
                Ok((event, span)) => self.take(event, span.start.line()),
                Err(error) => self.stop(error.marker().line(), syntax(&error)),
            };
            if went_on.is_err() {
                break;
            }
        }
        if self.faults.is_empty() { Ok(self.root) } else { Err(self.faults) }
    }

    fn fault(&mut self, line: usize, message: impl Into<String>) {
        self.faults.push(Fault { line: line.max(1), message: message.into() });
    }

    fn stop(&mut self, line: usize, message: impl Into<String>) -> Result<(), Stop> {
        self.fault(line, message);
        Err(Stop)
    }

    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Stop> {
        let place = Place { file: self.file, line };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return self.stop(line, "the file holds more than one YAML document");
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.is_text(tag.as_deref(), line);
                let scalar = Scalar::new(self.mask.restore(&text), plain);
                self.add(Node { place, data: Data::Scalar(scalar) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.is_text(tag.as_deref(), line);
                self.enter(Open { place, anchor, content: Content::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                self.is_text(tag.as_deref(), line);
                let content =
                    Content::Map { entries: Vec::new(), lines: HashMap::new(), merges: Vec::new(), key: None };
                self.enter(Open { place, anchor, content })
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(anchor) => self.alias(anchor, place),
        }
    }

    /// Whether a tag makes a plain scalar a text; tags beyond the core ones are a fault.
    fn is_text(&mut self, tag: Option<&Tag>, line: usize) -> bool {
        let Some(tag) = tag else { return false };
        let core = tag.is_yaml_core_schema()
            && matches!(tag.suffix.as_str(), "str" | "int" | "float" | "bool" | "null" | "map" | "seq");
        let unspecific = tag.handle == "!" && tag.suffix.is_empty();
        if !core && !unspecific {
            self.fault(line, format!("tag {}{} is not supported", tag.handle, tag.suffix));
        }
        !core || tag.suffix == "str"
    }

    fn enter(&mut self, open: Open) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            return self.stop(open.place.line, format!("the file is nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push(open);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Stop> {
        let Some(Open { place, anchor, content }) = self.open.pop() else { return Ok(()) };
        let data = match content {
            Content::List(items) => Data::List(items),
            Content::Map { mut entries, merges, .. } => {
                for source in merges {
                    self.merge_key(&mut entries, source);
                }
                Data::Map(entries)
            }
        };
        self.add(Node { place, data }, anchor)
    }

    /// `<<`: keys written beside it win, and of several sources the first.
    fn merge_key(&mut self, entries: &mut Vec<Entry>, source: Node) {
        match source.data {
            Data::Map(merged) => {
                let present: HashSet<String> = entries.iter().map(|entry| entry.key.text.clone()).collect();
                entries.extend(merged.into_iter().filter(|entry| !present.contains(&entry.key.text)));
            }
            Data::List(sources) if sources.iter().all(|node| matches!(node.data, Data::Map(_))) => {
                for source in sources {
                    self.merge_key(entries, source);
                }
            }
            Data::List(_) | Data::Scalar(_) => {
                self.fault(source.place.line, "the value of a merge key << must be a mapping or a list of mappings");
            }
        }
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Stop> {
        let Some(target) = self.anchors.get(&anchor) else {
            return self.stop(place.line, "an alias refers to a node that contains it");
        };
        self.aliased += target.count();
        if self.aliased > MAX_ALIASED_NODES || self.open.len() + target.depth() > MAX_DEPTH {
            return self.stop(place.line, "aliases expand to an unreasonable size");
        }
        let node = target.clone();
        self.add(node, 0)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, lines, merges, key } => match key.take() {
                Some(Key::Merge) => merges.push(node),
                Some(Key::Named(name, place)) => entries.push(Entry { key: name, place, value: node }),
                None => match node.data {
                    Data::Scalar(name) if name.plain && name.text == "<<" => *key = Some(Key::Merge),
                    Data::Scalar(name) if !name.is_null() => {
                        let first = lines.insert(name.text.clone(), node.place.line);
                        let text = name.text.clone();
                        *key = Some(Key::Named(name, node.place));
                        if let Some(line) = first {
                            self.fault(
                                node.place.line,
                                format!("key {text:?} is written twice (first in line {line})"),
                            );
                        }
                    }
                    Data::Scalar(_) | Data::List(_) | Data::Map(_) => {
                        return self.stop(node.place.line, "a mapping key must be a text");
                    }
                },
            },
        }
        Ok(())
    }
}

fn syntax(error: &ScanError) -> String {
    format!("not valid YAML: {}", error.info())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn faults(text: &str) -> Vec<(usize, String)> {
        parse(text.as_bytes(), 0).unwrap_err().into_iter().map(|fault| (fault.line, fault.message)).collect()
    }

    fn text<'n>(node: &'n Node, path: &[&str]) -> &'n str {
        &node.find(path).unwrap().scalar().unwrap().text
    }

    #[test]
    fn values_know_their_line_and_whether_they_were_quoted() {
        let root = parse(b"a: 1\nb:\n  - 'x'\n  - y\n", 3).unwrap();
        let quoted = root.find(&["b", "[0]"]).unwrap();
        assert_eq!(quoted.place, Place { file: 3, line: 3 });
        assert!(!quoted.scalar().unwrap().plain);
        assert!(root.find(&["b", "[1]"]).unwrap().scalar().unwrap().plain);
        assert_eq!(root.place_of(&["b", "[1]"]).line, 4);
        assert_eq!(root.place_of(&["b", "missing"]).line, 2);
    }

    #[test]
    fn references_are_legal_in_every_position() {
        let root = parse(b"a: ${X}\nb: [${X}, 'q ${Y}', ${Z}-${X}]\n${K}: {${X}: ${Y}}\nc: | # ${C}\n  t ${X}\n", 0);
        let root = root.unwrap();
        assert_eq!(text(&root, &["a"]), "${X}");
        assert_eq!(text(&root, &["b", "[0]"]), "${X}");
        assert_eq!(text(&root, &["b", "[1]"]), "q ${Y}");
        assert_eq!(text(&root, &["b", "[2]"]), "${Z}-${X}");
        assert_eq!(text(&root, &["${K}", "${X}"]), "${Y}");
        assert_eq!(text(&root, &["c"]), "t ${X}\n");
    }

    #[test]
    fn an_empty_file_is_an_empty_mapping() {
        for empty in ["", "# nothing\n", "---\n", "~\n", "\u{feff}# x"] {
            assert!(parse(empty.as_bytes(), 0).unwrap().entries().is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn anchors_aliases_and_merge_keys_work_within_a_file() {
        let root =
            parse(b"base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: *b\nlist: {<<: [{x: 8}, *b]}\n", 0).unwrap();
        assert_eq!(text(&root, &["one", "x"]), "1");
        assert_eq!(text(&root, &["one", "y"]), "3");
        assert_eq!(text(&root, &["two", "y"]), "2");
        assert_eq!(text(&root, &["list", "x"]), "8");
        assert_eq!(text(&root, &["list", "y"]), "2");
        assert_eq!(root.find(&["one"]).unwrap().entries().len(), 2);
    }

    #[test]
    fn broken_files_are_refused_with_their_line() {
        assert_eq!(faults("a: 1\nb: 2\na: 3\n"), [(3, "key \"a\" is written twice (first in line 1)".to_owned())]);
        assert_eq!(faults("a: 1\n---\nb: 2\n"), [(2, "the file holds more than one YAML document".to_owned())]);
        assert_eq!(faults("\n- a\n"), [(2, "the top of the file must be a mapping (key: value)".to_owned())]);
        assert_eq!(faults("? [a]\n: b\n")[0].1, "a mapping key must be a text");
        assert!(faults("a: [1, 2\nb: {")[0].1.starts_with("not valid YAML"));
        assert!(faults("a: !exec x\n")[0].1.contains("tag !exec is not supported"));
        let not_utf8 = parse(b"a: 1\nb: \xff\n", 0).unwrap_err();
        assert_eq!((not_utf8[0].line, not_utf8[0].message.as_str()), (2, "the file is not valid UTF-8"));
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*l{}", level - 1);
            bomb.push_str(&format!("l{level}: &l{level} [{}]\n", vec![previous; 9].join(", ")));
        }
        assert!(faults(&bomb).iter().any(|(_, message)| message == "aliases expand to an unreasonable size"));
        let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(faults(&deep)[0].1, "the file is nested deeper than 100 levels");
        assert_eq!(faults("a: &a [*a]\n")[0].1, "an alias refers to a node that contains it");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z:${}\\[\\]{},&*!#|>'\" \n\t%@]{0,60}") {
            let _ = parse(text.as_bytes(), 0);
        }
    }
}

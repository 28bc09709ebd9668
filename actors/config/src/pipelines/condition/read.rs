//! Conditions as they are written in a file.

use std::cmp::Ordering;

use serde_json::Value;

use super::super::fault::{Fault, quoted};
use super::{Atom, Condition, ConditionPlace, Needle, Op, Path, Predicate, Root, Test};
use crate::load::json;
use crate::scalar::{Core, Scalar};
use crate::yaml::{Data, Node, Place};

const MAX_DEPTH: usize = 3;
const MAX_NODES: usize = 20;
/// Memory that a compiled pattern may take. Counted repetitions of `\w` are large: one for mail addresses needs 3 MB.
const MAX_PATTERN_BYTES: usize = 10 << 20;
/// Memory that matching may take to be fast; with less it is slower, still in one pass.
const MAX_CACHE_BYTES: usize = 2 << 20;
const MAX_PATTERN_DEPTH: u32 = 100;

const ATOM_KEYS: [&str; 3] = ["path", "op", "value"];

const NO_PATH: &str = "path must include one of payload.*, context.*, or config.*";

impl ConditionPlace {
    /// Why a root can not be used here.
    fn refuses(self, root: Root) -> Option<&'static str> {
        match (self, root) {
            (_, Root::Payload)
            | (Self::Step { .. } | Self::Trigger, Root::Context)
            | (Self::Step { uses: true }, Root::Config) => None,
            (Self::Hook, Root::Context) => {
                Some("on-hook trigger predicate cannot reference context.* — context is not available at hook time")
            }
            (Self::Hook, Root::Config) => {
                Some("on-hook trigger predicate cannot reference config.* — only the if of a uses step can")
            }
            (Self::Trigger, Root::Config) => {
                Some("trigger predicate cannot reference config.* — only the if of a uses step can")
            }
            (Self::Step { uses: false }, Root::Config) => {
                Some("predicate cannot reference config.* — only the if of a uses step can")
            }
        }
    }
}

impl Condition {
    /// Reads, checks and compiles a condition; `at` is its position for messages, such as `if`.
    pub(crate) fn parse(node: &Node, at: &str, place: ConditionPlace) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader { place, nodes: 0, faults: Vec::new() };
        let root = reader.predicate(node, at, 1);
        if reader.nodes > MAX_NODES {
            reader.fault(node.place, at, format!("maximum predicate count exceeded ({MAX_NODES})"));
        }
        match root {
            Some(root) if reader.faults.is_empty() => Ok(Self { root }),
            _ => Err(reader.faults),
        }
    }

    /// Keys that no part of a condition has, with their whole positions. They change nothing in what it means.
    pub(crate) fn unknown_keys(node: &Node, at: &str) -> Vec<(Place, String)> {
        let mut found = Vec::new();
        unknown_keys(node, at, 1, &mut found);
        found
    }
}

fn unknown_keys(node: &Node, at: &str, depth: usize, found: &mut Vec<(Place, String)>) {
    // Deeper conditions are refused as they are.
    if depth > MAX_DEPTH {
        return;
    }
    for entry in node.entries() {
        let position = format!("{at}.{}", entry.key.written());
        match entry.key.text.as_str() {
            "all" | "any" => {
                for (index, part) in entry.value.items().iter().enumerate() {
                    unknown_keys(part, &format!("{position}[{index}]"), depth + 1, found);
                }
            }
            "not" => unknown_keys(&entry.value, &position, depth + 1, found),
            key if ATOM_KEYS.contains(&key) => {}
            _ => found.push((entry.place, position)),
        }
    }
}

struct Reader {
    place: ConditionPlace,
    /// Conditions met so far; none is read beyond the limit.
    nodes: usize,
    faults: Vec<Fault>,
}

impl Reader {
    fn fault(&mut self, place: Place, position: &str, message: impl std::fmt::Display) {
        self.faults.push(Fault::at(place, position, message));
    }

    fn predicate(&mut self, node: &Node, at: &str, depth: usize) -> Option<Predicate> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return None;
        }
        if depth > MAX_DEPTH {
            self.fault(node.place, at, format!("maximum nesting depth exceeded ({MAX_DEPTH})"));
            return None;
        }
        let mut forms = forms(node);
        match (forms.next(), forms.next()) {
            (Some(Form::Atom), None) => self.atom(node, at).map(Predicate::Atom),
            (Some(Form::All(list)), None) => self.parts(list, &format!("{at}.all"), depth).map(Predicate::All),
            (Some(Form::Any(list)), None) => self.parts(list, &format!("{at}.any"), depth).map(Predicate::Any),
            (Some(Form::Not(part)), None) => {
                let part = self.predicate(part, &format!("{at}.not"), depth + 1)?;
                Some(Predicate::Not(Box::new(part)))
            }
            (None, _) | (_, Some(_)) => {
                self.fault(node.place, at, "must define exactly one of atomic predicate, all, any, or not");
                None
            }
        }
    }

    fn parts(&mut self, list: &Node, at: &str, depth: usize) -> Option<Box<[Predicate]>> {
        if list.items().is_empty() {
            self.fault(list.place, at, "must be a list of conditions");
            return None;
        }
        let mut parts = Vec::new();
        for (index, item) in list.items().iter().enumerate() {
            // No `?`: the other parts may have faults of their own.
            parts.push(self.predicate(item, &format!("{at}[{index}]"), depth + 1));
            if self.nodes > MAX_NODES {
                return None;
            }
        }
        parts.into_iter().collect()
    }

    fn atom(&mut self, node: &Node, at: &str) -> Option<Atom> {
        let path = self.path(node, &format!("{at}.path"));
        let op = self.op(node, &format!("{at}.op"));
        let test = self.test(node, op?, &format!("{at}.value"));
        Some(Atom { path: path?, op: op?, test: test? })
    }

    fn path(&mut self, node: &Node, at: &str) -> Option<Path> {
        let written = node.get("path");
        let place = written.map_or(node.place, |path| path.place);
        let Some(scalar) = written.and_then(Node::scalar).filter(|scalar| scalar.text.contains('.')) else {
            self.fault(place, at, NO_PATH);
            return None;
        };
        match Path::parse(&scalar.text) {
            Ok(path) => match self.place.refuses(path.root()) {
                None => Some(path),
                Some(reason) => {
                    self.fault(place, at, reason);
                    None
                }
            },
            Err(fault) => {
                self.fault(place, at, fault.about(scalar));
                None
            }
        }
    }

    fn op(&mut self, node: &Node, at: &str) -> Option<Op> {
        let Some(written) = node.get("op") else {
            self.fault(node.place, at, "op is required");
            return None;
        };
        let word = written.scalar().map_or("", |scalar| scalar.text.as_str());
        let op = Op::of(word);
        if op.is_none() {
            let shown = written.scalar().map_or("", |scalar| quoted(word, scalar));
            self.fault(written.place, at, format!("unsupported operator {shown:?}"));
        }
        op
    }

    fn test(&mut self, node: &Node, op: Op, at: &str) -> Option<Test> {
        let test = match (node.get("value"), op) {
            (None, Op::Exists) => return Some(Test::Present),
            (None, _) => Err((node.place, format!("value is required for {}", op.word()))),
            (Some(value), _) => test(op, value).map_err(|message| (value.place, message)),
        };
        test.map_err(|(place, message)| self.fault(place, at, message)).ok()
    }
}

/// One of the ways to write a condition.
enum Form<'n> {
    Atom,
    All(&'n Node),
    Any(&'n Node),
    Not(&'n Node),
}

/// The ways that were used; an empty list counts as absent.
fn forms(node: &Node) -> impl Iterator<Item = Form<'_>> {
    let is_empty = |value: &Node| matches!(&value.data, Data::List(items) if items.is_empty());
    let list = |key| node.get(key).filter(|value| !is_empty(value));
    let atom = ATOM_KEYS.iter().any(|key| node.get(key).is_some()).then_some(Form::Atom);
    [atom, list("all").map(Form::All), list("any").map(Form::Any), node.get("not").map(Form::Not)].into_iter().flatten()
}

fn test(op: Op, value: &Node) -> Result<Test, String> {
    let wrong = |what: &str| format!("value must be {what} for {}", op.word());
    let number = |accepts| match value.scalar().map(Scalar::core) {
        Some(Core::Number(bound)) => Ok(Test::Number(accepts, bound)),
        _ => Err(wrong("a number")),
    };
    let text = |fits| match string(value) {
        Some(scalar) => Ok(Test::Text(fits, Needle::new(&scalar.text))),
        None => Err(wrong("a string")),
    };
    match op {
        Op::Exists => Err("value is not allowed for exists".to_owned()),
        Op::Eq => Ok(Test::Same(json(value))),
        Op::Neq => Ok(Test::Different(json(value))),
        Op::In => match json(value) {
            Value::Array(items) => Ok(Test::OneOf(items)),
            _ => Err(wrong("an array")),
        },
        Op::Gt => number(Ordering::is_gt),
        Op::Gte => number(Ordering::is_ge),
        Op::Lt => number(Ordering::is_lt),
        Op::Lte => number(Ordering::is_le),
        Op::Contains => text(Needle::is_in),
        Op::StartsWith => text(Needle::starts),
        Op::EndsWith => text(Needle::ends),
        Op::Regex => pattern(string(value).ok_or_else(|| wrong("a string"))?).map(Test::Pattern),
    }
}

fn string(value: &Node) -> Option<&Scalar> {
    value.scalar().filter(|scalar| scalar.core() == Core::Text)
}

fn pattern(scalar: &Scalar) -> Result<regex::Regex, String> {
    anchored(&scalar.text).map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => format!("pattern takes more than {limit} bytes when compiled"),
        error if scalar.vars.is_empty() => format!("value must be a regular expression: {}", reason(&error)),
        _ => "value must be a regular expression".to_owned(),
    })
}

/// Compiles a pattern for whole strings.
fn anchored(pattern: &str) -> Result<regex::Regex, regex::Error> {
    // By itself first: `a)(b` would be legal within the parentheses below.
    compile(pattern)?;
    match compile(&format!(r"\A(?:{pattern})\z")) {
        // It ends in a comment of the x flag, which swallowed the parenthesis and itself ends with the line. Anywhere
        // else a line break would be part of the pattern.
        Err(regex::Error::Syntax(_)) => compile(&format!("\\A(?:{pattern}\n)\\z")),
        done => done,
    }
}

fn compile(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_CACHE_BYTES)
        .nest_limit(MAX_PATTERN_DEPTH)
        .build()
}

/// The last line of the crate's message; those before draw the pattern.
fn reason(error: &regex::Error) -> String {
    let message = error.to_string();
    let last = message.lines().next_back().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

//! Values that a step keeps for all steps behind it.

use serde_json::Value;
use serde_json::map::Map;

use super::fault::Fault;
use super::path::{Path, Root};
use super::scope::Scope;
use crate::scalar::Scalar;
use crate::yaml::{Data, Node, Place};

/// Deeper targets are refused: what is stored has to stay within the nesting that JSON readers accept.
const MAX_TARGET_SEGMENTS: usize = 32;

/// The claims of one step, checked.
#[derive(Debug, Default)]
pub struct Claims {
    bulk: Option<Claim>,
    /// In the order of their targets.
    mappings: Vec<Claim>,
}

#[derive(Debug)]
struct Claim {
    target: Target,
    source: Path,
}

/// A dotted path below the context.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target(Box<str>);

/// Why claims can not be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resolve baggage {target} from {path:?}: {reason}")]
pub struct ClaimError {
    target: String,
    path: String,
    reason: &'static str,
}

impl Claim {
    fn error(&self, reason: &'static str) -> ClaimError {
        ClaimError { target: self.target.0.to_string(), path: self.source.text().to_owned(), reason }
    }

    fn value<'a>(&self, scope: &Scope<'a>) -> Result<&'a Value, ClaimError> {
        self.source.resolve(scope).ok_or_else(|| self.error("path not found"))
    }
}

impl Target {
    /// Whether the other one lies inside of this one, or is the same.
    fn holds(&self, other: &Self) -> bool {
        other.0.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Puts a value there; whatever is in the way and no object gives way.
    fn put(&self, root: &mut Map<String, Value>, value: Value) {
        let (parents, last) = self.0.rsplit_once('.').map_or((None, &*self.0), |(parents, last)| (Some(parents), last));
        let mut map = root;
        for segment in parents.into_iter().flat_map(|parents| parents.split('.')) {
            let slot = map.entry(segment).or_insert(Value::Null);
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(inner) = slot else { return };
            map = inner;
        }
        map.insert(last.to_owned(), value);
    }
}

impl Claims {
    /// Reads and checks the mapping of a step; `at` is its position for messages.
    pub(crate) fn parse(node: &Node, at: &str) -> Result<Self, Vec<Fault>> {
        if node.is_null() {
            return Ok(Self::default());
        }
        let Data::Map(_) = &node.data else {
            return Err(vec![Fault::at(node.place, at, "must be a mapping of targets to source paths")]);
        };
        Reader { at, faults: Vec::new() }.read(node)
    }

    /// Whether nothing is claimed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bulk.is_none() && self.mappings.is_empty()
    }

    /// The claimed values as one nested object: the bulk, then the mappings over it in the order of their targets.
    ///
    /// # Errors
    ///
    /// A source leads nowhere, or the source of the bulk is no object.
    pub fn collect(&self, scope: &Scope<'_>) -> Result<Map<String, Value>, ClaimError> {
        let mut claimed = Map::new();
        if let Some(bulk) = &self.bulk {
            let value = bulk.value(scope)?;
            if !value.is_object() {
                return Err(bulk.error("not an object"));
            }
            bulk.target.put(&mut claimed, value.clone());
        }
        for claim in &self.mappings {
            claim.target.put(&mut claimed, claim.value(scope)?.clone());
        }
        Ok(claimed)
    }

    /// The part of a path into the collected object that the configuration names. What follows are keys of a payload.
    #[must_use]
    pub fn written<'p>(&self, path: &'p str) -> &'p str {
        let targets = || self.bulk.iter().chain(&self.mappings).map(|claim| &*claim.target.0);
        let below = |whole: &str, part: &str| whole.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
        if targets().any(|target| target == path || below(target, path)) {
            return path;
        }
        let longest = targets().filter(|target| below(path, target)).map(str::len).max();
        &path[..longest.unwrap_or(0)]
    }
}

/// A mapping as it was found.
struct Mapping<'n> {
    claim: Claim,
    place: Place,
    /// The target as it is written.
    shown: &'n str,
}

struct Reader<'a> {
    at: &'a str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn read(mut self, node: &Node) -> Result<Claims, Vec<Fault>> {
        let bulk = self.bulk(node);
        let mut mappings = Vec::new();
        for entry in node.entries().iter().filter(|entry| !matches!(entry.key.text.as_str(), "from" | "namespace")) {
            let shown = entry.key.written();
            let position = format!("{}.{shown}", self.at);
            let target = self.target(&entry.key, entry.place, &position);
            let source = self.source(&entry.value, &position);
            if let (Some(target), Some(source)) = (target, source) {
                mappings.push(Mapping { claim: Claim { target, source }, place: entry.place, shown });
            }
        }
        mappings.sort_by(|a, b| a.claim.target.cmp(&b.claim.target));
        self.overlaps(bulk.as_ref(), &mappings);
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        Ok(Claims { bulk, mappings: mappings.into_iter().map(|mapping| mapping.claim).collect() })
    }

    fn fault(&mut self, place: Place, position: &str, message: impl std::fmt::Display) {
        self.faults.push(Fault::at(place, position, message));
    }

    /// The two keys that keep a whole object.
    fn bulk(&mut self, node: &Node) -> Option<Claim> {
        let entry = |key: &str| node.entries().iter().find(|entry| entry.key.text == key);
        let source = entry("from").and_then(|from| self.bulk_source(&from.value));
        let target = entry("namespace").and_then(|namespace| {
            let position = format!("{}.namespace", self.at);
            match namespace.value.scalar().filter(|scalar| !scalar.is_null() && !scalar.text.trim().is_empty()) {
                Some(scalar) => self.target(scalar, namespace.value.place, &position),
                None => {
                    self.fault(namespace.place, &position, "must be a target path");
                    None
                }
            }
        });
        match (entry("from"), entry("namespace")) {
            (Some(from), None) => {
                let position = format!("{}.from", self.at);
                self.fault(from.place, &position, "baggage from requires namespace");
            }
            (None, Some(namespace)) => {
                let position = format!("{}.namespace", self.at);
                self.fault(namespace.place, &position, "baggage namespace requires from");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        Some(Claim { target: target?, source: source? })
    }

    fn bulk_source(&mut self, node: &Node) -> Option<Path> {
        let position = format!("{}.from", self.at);
        let source = self.source(node, &position)?;
        if source.root() == Root::Payload {
            return Some(source);
        }
        self.fault(node.place, &position, "baggage from must be payload or payload.<path>");
        None
    }

    fn source(&mut self, node: &Node, position: &str) -> Option<Path> {
        let scalar = node.scalar().filter(|scalar| !scalar.is_null() && !scalar.text.trim().is_empty());
        let Some(scalar) = scalar else {
            self.fault(node.place, position, "must be a source path such as payload.url");
            return None;
        };
        if scalar.text.trim_start().starts_with('{') {
            self.fault(node.place, position, "a source path is written without braces");
            return None;
        }
        match Path::parse(&scalar.text) {
            Ok(path) if path.root() == Root::Payload || (path.root() == Root::Context && !path.is_bare()) => Some(path),
            Ok(path) if path.root() == Root::Context => {
                self.fault(node.place, position, "context alone can not be claimed: it is inherited as it is");
                None
            }
            Ok(path) => {
                self.fault(node.place, position, format!("unsupported root {:?}", path.root().word()));
                None
            }
            Err(fault) => {
                self.fault(node.place, position, fault.about(scalar));
                None
            }
        }
    }

    fn target(&mut self, scalar: &Scalar, place: Place, position: &str) -> Option<Target> {
        let text = scalar.text.as_str();
        let first = text.split('.').next().unwrap_or_default();
        let problem = if !text.split('.').all(is_name) {
            "each part of a target must be letters, digits and underscores, and not begin with a digit"
        } else if first == "ductile" || first.starts_with("ductile_") {
            "a target must not begin with ductile: that is the gateway's own"
        } else if text.split('.').count() > MAX_TARGET_SEGMENTS {
            "a target must not have more than 32 parts"
        } else {
            return Some(Target(text.into()));
        };
        self.fault(place, position, problem);
        None
    }

    /// In the order of their texts, a target stands right before those inside of it: a dot sorts before all else.
    fn overlaps(&mut self, bulk: Option<&Claim>, mappings: &[Mapping<'_>]) {
        let mut outer: Option<&Mapping<'_>> = None;
        for mapping in mappings {
            let Mapping { claim, place, shown } = mapping;
            let position = format!("{}.{shown}", self.at);
            match outer.filter(|outer| outer.claim.target.holds(&claim.target)) {
                Some(outer) => {
                    self.fault(*place, &position, format!("target {:?} is a prefix of this one", outer.shown))
                }
                None => outer = Some(mapping),
            }
            if bulk.is_some_and(|bulk| claim.target.holds(&bulk.target)) {
                self.fault(*place, &position, "this target would replace all that from puts below namespace");
            }
        }
    }
}

fn is_name(segment: &str) -> bool {
    segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && segment.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{node, value};
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        Claims::parse(&node(yaml), "baggage").unwrap_err().into_iter().map(|fault| fault.message).collect()
    }

    fn collect(yaml: &str, payload: &Value) -> Result<Value, String> {
        let context = json!({"kept": {"k": 1}});
        let scope = Scope { payload: Some(payload), context: Some(&context), config: Some(payload) };
        let claims = Claims::parse(&node(yaml), "baggage").unwrap();
        claims.collect(&scope).map(Value::Object).map_err(|error| error.to_string())
    }

    #[test]
    fn mappings_and_bulk_become_one_object_and_mappings_win() {
        let payload = json!({"url": "u", "meta": {"title": "old", "deep": 1, "a.b": true}, "none": null});
        let yaml = "{web.url: payload.url, from: payload.meta, namespace: page, page.title: payload.url,
            page.deep.er: context.kept.k, none: payload.none, all: payload}";
        let mut expected = json!({"page": {"title": "u", "deep": {"er": 1}, "a.b": true}, "none": null});
        expected["web"] = json!({"url": "u"});
        expected["all"] = payload.clone();
        assert_eq!(collect(yaml, &payload).unwrap(), expected);
        let order: Vec<_> = collect(yaml, &payload).unwrap().as_object().unwrap().keys().cloned().collect();
        assert_eq!(order, ["page", "all", "none", "web"], "the bulk first, then by target");
    }

    #[test]
    fn a_path_is_named_as_far_as_it_is_written() {
        let yaml = "{web.url: payload.url, from: payload.meta, namespace: page, page.title: payload.url}";
        let claims = Claims::parse(&node(yaml), "baggage").unwrap();
        for (path, written) in [
            ("web.url", "web.url"),
            ("web.url.key.of.a.payload", "web.url"),
            ("web", "web"),
            ("page.key", "page"),
            ("page.titles", "page"),
            ("page.title", "page.title"),
            ("page.title.x", "page.title"),
            ("website", ""),
        ] {
            assert_eq!(claims.written(path), written);
        }
    }

    #[test]
    fn a_missing_source_is_an_error_that_names_both_ends() {
        let payload = json!({"text": "t", "list": []});
        for (yaml, message) in [
            ("web.url: payload.url", "resolve baggage web.url from \"payload.url\": path not found"),
            ("{from: payload.meta, namespace: page}", "resolve baggage page from \"payload.meta\": path not found"),
            ("{from: payload.text, namespace: page}", "resolve baggage page from \"payload.text\": not an object"),
            ("{from: payload.list, namespace: a.b}", "resolve baggage a.b from \"payload.list\": not an object"),
            ("{a: payload.text, b: context.x}", "resolve baggage b from \"context.x\": path not found"),
        ] {
            assert_eq!(collect(yaml, &payload).unwrap_err(), message);
        }
    }

    #[test]
    fn claims_are_checked_when_read_and_all_faults_are_told() {
        let name = "each part of a target must be letters, digits and underscores, and not begin with a digit";
        let own = "a target must not begin with ductile: that is the gateway's own";
        let source = "must be a source path such as payload.url";
        for (yaml, position, message) in [
            ("a-b: payload.x", ".a-b", name),
            ("1a: payload.x", ".1a", name),
            ("\"\": payload.x", ".", name),
            ("a..b: payload.x", ".a..b", name),
            ("ductile.x: payload.x", ".ductile.x", own),
            ("ductile_x: payload.x", ".ductile_x", own),
            ("a: ''", ".a", source),
            ("a: ~", ".a", source),
            ("a: [payload.x]", ".a", source),
            ("a: x.y", ".a", "unsupported root \"x\""),
            ("a: config.y", ".a", "unsupported root \"config\""),
            ("a: payload.", ".a", "path contains empty segment"),
            ("a: '{payload.x}'", ".a", "a source path is written without braces"),
            ("a: context", ".a", "context alone can not be claimed: it is inherited as it is"),
            ("namespace: page", ".namespace", "baggage namespace requires from"),
            ("from: payload.x", ".from", "baggage from requires namespace"),
            ("{from: context.x, namespace: a}", ".from", "baggage from must be payload or payload.<path>"),
            ("{from: payload, namespace: ductile}", ".namespace", own),
            ("{from: payload, namespace: []}", ".namespace", "must be a target path"),
            ("{a.b: payload.x, a: payload.y}", ".a.b", "target \"a\" is a prefix of this one"),
            (
                "{from: payload, namespace: a.b, a: payload.y}",
                ".a",
                "this target would replace all that from puts below namespace",
            ),
        ] {
            assert_eq!(faults(yaml), [format!("baggage{position}: {message}")], "{yaml}");
        }
        assert_eq!(faults("{a-b: x, c: ''}").len(), 3);
        assert_eq!(faults("{a: payload, a.b: payload, a.c: payload, ab: payload, a_b.c: payload}").len(), 2);
        assert_eq!(faults(&format!("{}: payload", ["a"; 33].join("."))).len(), 1);
    }

    #[test]
    fn something_other_than_a_mapping_is_refused_and_nothing_claims_nothing() {
        let root = node("x: [a]");
        let found = Claims::parse(&root.entries()[0].value, "baggage").unwrap_err();
        assert_eq!(found[0].message, "baggage: must be a mapping of targets to source paths");
        assert!(Claims::parse(&node(""), "baggage").unwrap().is_empty() && Claims::default().is_empty());
        assert!(!Claims::parse(&node("{a: payload}"), "baggage").unwrap().is_empty());
    }

    /// Every leaf as a list of keys; good enough to compare what was put where.
    fn naive(claims: &[(Vec<String>, Value)]) -> Value {
        fn put(into: Value, path: &[String], value: Value) -> Value {
            let [first, rest @ ..] = path else { return value };
            let mut map = match into {
                Value::Object(map) => map,
                _ => Map::new(),
            };
            let inner = map.remove(first).unwrap_or(Value::Null);
            map.insert(first.clone(), put(inner, rest, value));
            Value::Object(map)
        }
        claims.iter().fold(json!({}), |whole, (path, value)| put(whole, path, value.clone()))
    }

    proptest! {
        #[test]
        fn the_object_is_that_of_a_naive_reading(
            bulk in proptest::collection::hash_map("[ab]", value(), 0..3),
            targets in proptest::collection::hash_set(proptest::collection::vec("[ab]", 1..4), 0..6),
            values in proptest::collection::vec(value(), 6),
        ) {
            let payload = json!({"bulk": bulk, "v": values});
            let mut yaml = "from: payload.bulk\nnamespace: b\n".to_owned();
            let mut all = vec![(vec!["b".to_owned()], payload["bulk"].clone())];
            let mut sorted: Vec<_> = targets.iter().cloned().collect();
            sorted.sort();
            for (index, target) in sorted.iter().enumerate() {
                yaml.push_str(&format!("{}: payload.v.{index}\n", target.join(".")));
                all.push((target.clone(), values[index].clone()));
            }
            let clash = sorted.iter().any(|a| {
                ["b".to_owned()].starts_with(a) || sorted.iter().any(|b| a != b && b.starts_with(a))
            });
            let claims = Claims::parse(&node(&yaml), "baggage");
            prop_assert_eq!(claims.is_err(), clash);
            if let Ok(claims) = claims {
                let scope = Scope { payload: Some(&payload), ..Scope::default() };
                prop_assert_eq!(Value::Object(claims.collect(&scope).unwrap()), naive(&all));
            }
        }
    }
}

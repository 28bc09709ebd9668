//! Baggage: what a pipeline has collected. It only ever grows.

use ductile_config::json_equal;
use serde_json::{Map, Value};

/// Bytes that the accumulated object of a context may have.
pub const CONTEXT_LIMIT: usize = 1_048_576;

/// Levels of a value that can be read.
const DEEPEST: usize = 127;

/// The key that belongs to the gateway.
pub(crate) const CONTROL: &str = "ductile";

/// Why a context can not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaggageError {
    /// What a step claims is not there.
    #[error("apply baggage claims for {pipeline}:{step}: {cause}")]
    Claim {
        /// Pipeline.
        pipeline: String,
        /// Step.
        step: String,
        /// What is not there.
        cause: String,
    },
    /// A path that is inherited would change; as far as the configuration names it.
    #[error("baggage path \"{0}\" is immutable: inherited value differs from child value")]
    Immutable(String),
    /// It is nested so deep that it could not be read again.
    #[error("accumulated context is nested deeper than {DEEPEST} levels")]
    TooDeep,
    /// It is too large.
    #[error("accumulated context exceeds max size ({CONTEXT_LIMIT} bytes)")]
    TooLarge {
        /// Bytes it would have.
        bytes: usize,
    },
}

/// Adds what was claimed to inherited values: new paths are added, objects merge key by key, equal values are accepted.
/// `written` gives the part of a path that the configuration names; the rest came with a payload and is not told.
pub(crate) fn accrete(
    inherited: &mut Map<String, Value>,
    new: Map<String, Value>,
    written: impl FnOnce(&str) -> String,
) -> Result<(), BaggageError> {
    add(inherited, new, &mut Vec::new()).map_err(|path| BaggageError::Immutable(written(&path)))
}

fn add(into: &mut Map<String, Value>, new: Map<String, Value>, path: &mut Vec<String>) -> Result<(), String> {
    for (key, value) in new {
        match (into.get_mut(&key), value) {
            (None, value) => drop(into.insert(key, value)),
            (Some(Value::Object(present)), Value::Object(more)) => {
                path.push(key);
                add(present, more, path)?;
                path.pop();
            }
            (Some(present), value) if json_equal(present, &value) => {}
            _ => {
                path.push(key);
                return Err(path.join("."));
            }
        }
    }
    Ok(())
}

/// How deep a value is nested; a scalar is 0 deep.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The stored text of an accumulated object, the control object at its end.
pub(crate) fn text(mut baggage: Map<String, Value>, control: Map<String, Value>) -> Result<String, BaggageError> {
    baggage.shift_remove(CONTROL);
    baggage.insert(CONTROL.to_owned(), Value::Object(control));
    let baggage = Value::Object(baggage);
    if depth(&baggage) > DEEPEST {
        return Err(BaggageError::TooDeep);
    }
    let text = baggage.to_string();
    if text.len() > CONTEXT_LIMIT { Err(BaggageError::TooLarge { bytes: text.len() }) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    fn accreted(inherited: Value, new: Value) -> Result<Value, BaggageError> {
        let mut inherited = map(inherited);
        accrete(&mut inherited, map(new), str::to_owned).map(|()| Value::Object(inherited))
    }

    #[test]
    fn new_paths_are_added_objects_merge_and_equal_values_are_accepted() {
        let before = json!({"web": {"url": "u"}, "n": 30, "list": [1, 2]});
        let after = accreted(before, json!({"web": {"words": 3}, "n": 30.0, "list": [1, 2.0], "x": null})).unwrap();
        assert_eq!(after, json!({"web": {"url": "u", "words": 3}, "n": 30, "list": [1, 2], "x": null}));
    }

    #[test]
    fn an_inherited_path_never_changes() {
        for (before, new, path) in [
            (json!({"web": {"url": "u"}}), json!({"web": {"url": "v"}}), "web.url"),
            (json!({"origin_user": "ann"}), json!({"origin_user": null}), "origin_user"),
            (json!({"list": [1]}), json!({"list": [1, 2]}), "list"),
            (json!({"web": {"url": "u"}}), json!({"web": 1}), "web"),
            (json!({"web": 1}), json!({"web": {"url": "u"}}), "web"),
        ] {
            let error = accreted(before, new).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("baggage path \"{path}\" is immutable: inherited value differs from child value")
            );
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_its_size() {
        let fits = map(json!({"x": "y".repeat(CONTEXT_LIMIT - 30)}));
        assert!(text(fits, Map::new()).is_ok());
        let error = text(map(json!({"x": "y".repeat(CONTEXT_LIMIT)})), Map::new()).unwrap_err();
        assert_eq!(error.to_string(), "accumulated context exceeds max size (1048576 bytes)");
        assert!(matches!(error, BaggageError::TooLarge { bytes } if bytes > CONTEXT_LIMIT));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                objects_of(inner).prop_map(Value::Object),
            ]
        })
    }

    fn objects_of(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::vec(("[a-c]", values), 0..4).prop_map(|entries| entries.into_iter().collect())
    }

    /// Every path that ends in something else than an object, with what stands there.
    fn leaves(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| leaves(&format!("{prefix}/{key}"), value, out)),
            other => out.push((prefix.to_owned(), other.clone())),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_claimed_what_was_inherited_stays(before in objects_of(values()), new in objects_of(values())) {
            let mut after = before.clone();
            let grown = accrete(&mut after, new.clone(), str::to_owned);
            let after = Value::Object(after);
            let mut inherited = Vec::new();
            leaves("", &Value::Object(before.clone()), &mut inherited);
            for (path, value) in &inherited {
                prop_assert_eq!(after.pointer(path), Some(value));
            }
            let mut claimed = Vec::new();
            leaves("", &Value::Object(new), &mut claimed);
            if grown.is_ok() {
                for (path, value) in &claimed {
                    prop_assert!(json_equal(after.pointer(path).unwrap(), value));
                }
            }
        }

        #[test]
        fn the_same_again_changes_nothing(before in objects_of(values())) {
            let mut after = before.clone();
            accrete(&mut after, before.clone(), str::to_owned).unwrap();
            prop_assert_eq!(after, before);
        }
    }
}

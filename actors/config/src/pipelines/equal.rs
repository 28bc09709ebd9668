//! Equality of JSON values.

use serde_json::Value;

use super::decimal::compare;

/// Whether two values are the same JSON: of one type, numbers by value whatever their spelling (30 = 30.0 = 3e1), texts
/// exactly, lists and objects deeply.
#[must_use]
pub fn json_equal(a: &Value, b: &Value) -> bool {
    // Nested values wait here, not on the stack of the thread; flat ones take no memory.
    let mut waiting = Vec::new();
    if !alike(a, b, &mut waiting) {
        return false;
    }
    while let Some((a, b)) = waiting.pop() {
        let same = match (a, b) {
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b, &mut waiting))
            }
            (Value::Object(a), Value::Object(b)) => {
                let mut same = |(key, a)| b.get(key).is_some_and(|b| alike(a, b, &mut waiting));
                a.len() == b.len() && a.iter().all(&mut same)
            }
            _ => false,
        };
        if !same {
            return false;
        }
    }
    true
}

/// Decides all but what is inside of lists and objects, which is left for later.
fn alike<'v>(a: &'v Value, b: &'v Value, waiting: &mut Vec<(&'v Value, &'v Value)>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => compare(a, b).is_eq(),
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            waiting.push((a, b));
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{respelled, value};
    use super::*;

    fn equal(a: &str, b: &str) -> bool {
        json_equal(&serde_json::from_str(a).unwrap(), &serde_json::from_str(b).unwrap())
    }

    #[test]
    fn values_are_compared_deeply_and_nothing_is_coerced() {
        assert!(equal(r#"{"a": [1, {"b": 30}], "c": null}"#, r#"{"c": null, "a": [1.0, {"b": 3e1}]}"#));
        assert!(equal("9007199254740993", "9007199254740993.0"));
        for (a, b) in [
            ("9007199254740993", "9007199254740992"),
            ("30", r#""30""#),
            ("0", "false"),
            ("0", "null"),
            (r#""a""#, r#""A""#),
            ("[]", "{}"),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":null}"#, r#"{"b":null}"#),
            (r#"{"a":[[1]]}"#, r#"{"a":[[2]]}"#),
        ] {
            assert!(!equal(a, b) && !equal(b, a), "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn equality_is_an_equivalence(a in value(), b in value(), c in value()) {
            prop_assert!(json_equal(&a, &a));
            prop_assert_eq!(json_equal(&a, &b), json_equal(&b, &a));
            if json_equal(&a, &b) && json_equal(&b, &c) {
                prop_assert!(json_equal(&a, &c));
            }
        }

        #[test]
        fn other_spellings_of_numbers_and_other_orders_of_keys_are_equal(a in value()) {
            let (b, c) = (respelled(&a), respelled(&respelled(&a)));
            prop_assert!(json_equal(&a, &b) && json_equal(&b, &a) && json_equal(&a, &c));
        }

        #[test]
        fn equality_of_floats_is_theirs_where_they_are_exact(a in -64_i32..64, b in -64_i32..64) {
            let (x, y) = (f64::from(a) / 4.0, f64::from(b));
            prop_assert_eq!(json_equal(&Value::from(x), &Value::from(y)), x == y);
            prop_assert_eq!(json_equal(&Value::from(x), &Value::from(b)), x == y);
        }
    }
}

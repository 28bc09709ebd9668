//! What the tests of the small languages share, and random definitions for all of them.

use std::str::FromStr;

use proptest::prelude::*;
use serde_json::map::Map;
use serde_json::{Number, Value};

use super::fuzzing;
use crate::yaml::{self, Node};

/// The top of a YAML text.
pub(super) fn node(yaml: &str) -> Node {
    yaml::parse(yaml.as_bytes(), 0).unwrap()
}

/// Numbers in all spellings, many of them of one value.
pub(super) fn number() -> impl Strategy<Value = Number> {
    let texts = prop_oneof![
        "-?(0|[1-9][0-9]{0,2})(\\.[0-9]{1,3})?([eE][+-]?[0-3])?",
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,25})?",
    ];
    texts.prop_map(|text| Number::from_str(&text).unwrap())
}

/// Small JSON values, with keys and texts that often meet.
pub(super) fn value() -> impl Strategy<Value = Value> {
    let flat = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number().prop_map(Value::Number),
        "[abA1é]{0,2}".prop_map(Value::String),
    ];
    flat.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec(("[ab0-3é]", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// The same value with its numbers written in another way and its keys in the opposite order.
pub(super) fn respelled(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(shifted(number)),
        Value::Array(items) => Value::Array(items.iter().map(respelled).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().rev().map(|(key, value)| (key.clone(), respelled(value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// One more zero, and an exponent less by one.
fn shifted(number: &Number) -> Number {
    let (mantissa, exponent) = number.as_str().split_once(['e', 'E']).unwrap_or((number.as_str(), "0"));
    let exponent: i128 = exponent.parse().unwrap();
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let text = match whole.trim_start_matches('-') {
        // A leading zero is no JSON, so the point moves the other way.
        "0" => format!("{mantissa}{}0e{exponent}", if mantissa.contains('.') { "" } else { "." }),
        _ => format!("{whole}{}.{}0e{}", &fraction[..1], &fraction[1..], exponent - 1),
    };
    Number::from_str(&text).unwrap()
}

/// Words of the three languages in any order, so that many texts are nearly right.
fn definition() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(vec![
        "all: ",
        "any: ",
        "not: ",
        "path: ",
        "op: ",
        "value: ",
        "from: ",
        "namespace: ",
        "a.b: ",
        "ductile.x: ",
        "eq",
        "in",
        "gt",
        "regex",
        "contains",
        "exists",
        "payload.a",
        "context.a.0",
        "config.b",
        "payload",
        "'(?x)a|b{1,9} # '",
        "1e99",
        "-0.5",
        "~",
        "[",
        "]",
        "{",
        "}",
        "{{",
        "}}",
        ", ",
        "\n",
        "\n  ",
        "- ",
        "${X}",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<: ",
        "é",
        ".",
    ]);
    proptest::collection::vec(word, 0..25).prop_map(|words| words.concat())
}

/// Conditions of the right shape, nested beyond what is allowed.
fn condition() -> impl Strategy<Value = String> {
    let path = "(payload|context|config|x)(\\.[ab0-3]{1,2}){0,3}";
    let op = "exists|eq|neq|in|gt|gte|lt|lte|contains|startswith|endswith|regex|like";
    let atom = (path, op, value()).prop_map(|(path, op, value)| match op.as_str() {
        "exists" => format!("{{path: {path}, op: exists}}"),
        _ => format!("{{path: {path}, op: {op}, value: {value}}}"),
    });
    atom.prop_recursive(4, 30, 6, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..6).prop_map(|parts| parts.join(", "));
        prop_oneof![
            list.clone().prop_map(|parts| format!("{{all: [{parts}]}}")),
            list.prop_map(|parts| format!("{{any: [{parts}]}}")),
            inner.prop_map(|part| format!("{{not: {part}}}")),
        ]
    })
}

/// A file with everything that pipelines can have, in ASCII.
const FILE: &str = "
pipelines:
  - {name: one, on: x, from_plugin: a, max_depth: 3, timeout: 5s, execution_mode: synchronous, steps: [{id: s, uses: a,
     if: {all: [{path: payload.n, op: gte, value: 2}]}, with: {m: '{payload.n}'}, baggage: {k.n: payload.n}}, {call: two}]}
  - {name: two, on: y, if: {path: payload.n, op: exists}, steps: [{split: [{uses: b}, {steps: [{uses: c}, {uses: a.poll}]}]}]}
  - {name: three, on-hook: job.failed, steps: [{uses: c}]}
routes: [{from: a, event_type: z, to: b}]
";

const TOKENS: [&str; 16] = [
    "",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ", ",
    "\n",
    "- ",
    "~",
    "one",
    "two",
    "s",
    "call: one",
    "uses: c",
    "999999999999999999999",
];

#[test]
fn the_fuzz_entries_read_what_they_are_given() {
    assert!(fuzzing::condition(b"{path: payload.a, op: eq, value: 30}\0{\"a\": 30.0}"));
    assert!(!fuzzing::condition(b"{path: payload.a, op: eq}\0{}"));
    assert!(fuzzing::template(b"a {payload.a}\0{\"a\": 1}") && !fuzzing::template(b"{\0"));
    assert!(fuzzing::claims(b"{a.b: payload.a}\0{\"a\": 1}") && !fuzzing::claims(b"a: [\0"));
    assert!(fuzzing::pipelines(b"pipelines: [{name: p, on: x, steps: [{uses: a}, {split: [{uses: b}, {uses: c}]}]}]"));
    assert!(fuzzing::pipelines(FILE.as_bytes()));
    assert!(!fuzzing::pipelines(b"pipelines: [{name: p, on: x, steps: [{uses: d}]}]"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_bytes_break_a_language(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::condition(&input);
        fuzzing::template(&input);
        fuzzing::claims(&input);
        fuzzing::pipelines(&input);
    }

    #[test]
    fn no_nearly_right_definition_breaks_a_language(text in definition(), payload in value()) {
        let input = format!("{text}\0{payload}");
        fuzzing::condition(input.as_bytes());
        fuzzing::template(input.as_bytes());
        fuzzing::claims(input.as_bytes());
    }

    #[test]
    fn no_nearly_right_file_breaks_the_compiler(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..12, prop::sample::select(TOKENS.to_vec())), 1..6),
    ) {
        let mut text = FILE.to_owned();
        for (at, cut, token) in edits {
            let at = at.index(text.len());
            let end = text.len().min(at + cut);
            text.replace_range(at..end, token);
        }
        fuzzing::pipelines(text.as_bytes());
    }

    #[test]
    fn no_condition_and_payload_break_each_other(text in condition(), payload in value()) {
        fuzzing::condition(format!("{text}\0{payload}").as_bytes());
    }
}

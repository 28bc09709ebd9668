//! Entry points for fuzzers, which the tests also call. The input is a definition, a zero byte, and a payload as JSON.
//!
//! Each returns whether the definition was accepted. What may never happen is a panic, or a refusal without a reason.

use serde_json::Value;

use super::condition::ConditionPlace;
use super::world::World;
use super::{Claims, Condition, Scope, Template};
use crate::yaml;

fn split(input: &[u8]) -> (&[u8], Option<Value>) {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let payload = input.get(end + 1..).and_then(|payload| serde_json::from_slice(payload).ok());
    (&input[..end], payload)
}

fn scope(payload: Option<&Value>) -> Scope<'_> {
    Scope { payload, context: payload, config: payload }
}

/// Compiles a whole file against the plugins `a`, `b` and `c`, and lists the routes of what comes out.
pub fn pipelines(input: &[u8]) -> bool {
    let Ok(node) = yaml::parse(input, 0) else { return false };
    let compiled = World::new(&["a", "b", "c"]).compile_node(&node);
    assert!(compiled.errors.is_empty() || compiled.pipelines.is_empty(), "all of them, or none");
    for pipeline in compiled.pipelines.iter() {
        let routes = pipeline.routes(&compiled.pipelines);
        assert!(!pipeline.nodes().is_empty() && !routes.is_empty(), "a pipeline leads somewhere");
    }
    compiled.errors.is_empty()
}

/// Reads a condition in each place it may stand in, and evaluates it.
pub fn condition(input: &[u8]) -> bool {
    let (definition, payload) = split(input);
    let Ok(node) = yaml::parse(definition, 0) else { return false };
    let _ = Condition::unknown_keys(&node, "if");
    let mut accepted = false;
    for place in [
        ConditionPlace::Step { uses: true },
        ConditionPlace::Step { uses: false },
        ConditionPlace::Trigger,
        ConditionPlace::Hook,
    ] {
        match Condition::parse(&node, "if", place) {
            Ok(condition) => {
                accepted = true;
                let first = condition.holds(&scope(payload.as_ref()));
                assert_eq!(first, condition.holds(&scope(payload.as_ref())), "the same question, the same answer");
            }
            Err(faults) => assert!(!faults.is_empty(), "a refusal has a reason"),
        }
    }
    accepted
}

/// Reads a template and renders it.
pub fn template(input: &[u8]) -> bool {
    let (definition, payload) = split(input);
    let Ok(text) = std::str::from_utf8(definition) else { return false };
    match Template::parse(text) {
        Ok(template) => {
            let rendered = template.render(&scope(payload.as_ref()));
            if !text.contains(['{', '}']) {
                assert_eq!(rendered, Ok(Value::from(text)), "literal text stays as it is");
            }
            true
        }
        Err(message) => {
            assert!(!message.is_empty(), "a refusal has a reason");
            false
        }
    }
}

/// Reads claims and collects them.
pub fn claims(input: &[u8]) -> bool {
    let (definition, payload) = split(input);
    let Ok(node) = yaml::parse(definition, 0) else { return false };
    match Claims::parse(&node, "baggage") {
        Ok(claims) => {
            if let Ok(claimed) = claims.collect(&scope(payload.as_ref())) {
                assert_eq!(claimed.is_empty(), claims.is_empty(), "what is claimed is there");
            }
            true
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal has a reason");
            false
        }
    }
}

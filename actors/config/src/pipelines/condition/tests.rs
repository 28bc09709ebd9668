//! What conditions mean, and what is refused.

use serde_json::{Value, json};

use super::super::testing::node;
use super::ConditionPlace::{Hook, Step, Trigger};
use super::{Condition, ConditionPlace, Scope};

const USES: ConditionPlace = Step { uses: true };

fn faults_in(yaml: &str, place: ConditionPlace) -> Vec<String> {
    let faults = Condition::parse(&node(yaml), "if", place).unwrap_err();
    faults.into_iter().map(|fault| fault.message).collect()
}

fn faults(yaml: &str) -> Vec<String> {
    faults_in(yaml, USES)
}

fn evaluate(yaml: &str, payload: &str) -> Result<bool, String> {
    let payload: Value = serde_json::from_str(payload).unwrap();
    let scope = Scope { payload: Some(&payload), ..Scope::default() };
    Condition::parse(&node(yaml), "if", USES).unwrap().holds(&scope).map_err(|error| error.to_string())
}

/// Evaluates `payload.x op value`.
fn holds(op: &str, value: &str, x: &str) -> bool {
    evaluate(&format!("path: payload.x\nop: {op}\nvalue: {value}\n"), &format!("{{\"x\": {x}}}")).unwrap()
}

#[test]
fn equality_takes_numbers_by_value_and_coerces_nothing() {
    for (value, x) in [
        ("30", "30.0"),
        ("30", "3e1"),
        ("0x1E", "30"),
        ("9007199254740993", "9007199254740993"),
        ("'30'", "\"30\""),
        ("[1, {a: ~}]", "[1.0, {\"a\": null}]"),
        ("true", "true"),
    ] {
        assert!(holds("eq", value, x) && !holds("neq", value, x), "{value} {x}");
    }
    for (value, x) in [
        ("30", "\"30\""),
        ("'30'", "30"),
        ("9007199254740993", "9007199254740992"),
        ("a", "\"A\""),
        ("yes", "true"),
        ("0", "null"),
    ] {
        assert!(!holds("eq", value, x) && holds("neq", value, x), "{value} {x}");
    }
}

#[test]
fn in_matches_an_element_and_a_null_of_its_list_matches_what_is_absent() {
    assert!(holds("in", "[1, b, [c]]", "1.0") && holds("in", "[1, b, [c]]", "[\"c\"]"));
    assert!(!holds("in", "[1, b]", "\"1\"") && !holds("in", "[]", "null"));
    assert!(holds("in", "[~]", "null") && !holds("in", "[a]", "null"));
    assert_eq!(evaluate("{path: payload.y, op: in, value: [~]}", "{}"), Ok(true));
}

#[test]
fn absent_is_null_to_equality_and_false_to_the_rest() {
    for (op, value, expected) in [
        ("eq", "1", false),
        ("neq", "1", true),
        ("in", "[1]", false),
        ("gt", "1", false),
        ("lte", "1", false),
        ("contains", "''", false),
        ("startswith", "''", false),
        ("endswith", "a", false),
        ("regex", "'.*'", false),
    ] {
        let yaml = format!("{{path: payload.x, op: {op}, value: {value}}}");
        assert_eq!(evaluate(&yaml, "{}"), Ok(expected), "{op} on an absent path");
        assert_eq!(evaluate(&yaml, "{\"x\": null}"), Ok(expected), "{op} on null");
    }
    let exists = "{path: payload.x, op: exists}";
    assert_eq!(evaluate(exists, "{}"), Ok(false));
    assert_eq!(evaluate(exists, "{\"x\": null}"), Ok(true));
    assert!(!Condition::parse(&node(exists), "if", USES).unwrap().holds(&Scope::default()).unwrap());
}

#[test]
fn numbers_are_ordered_without_loss() {
    for (op, results) in [
        ("gt", [false, false, true]),
        ("gte", [false, true, true]),
        ("lt", [true, false, false]),
        ("lte", [true, true, false]),
    ] {
        let given = ["9007199254740992", "9007199254740993.0", "9007199254740994"];
        let found = given.map(|x| holds(op, "9007199254740993", x));
        assert_eq!(found, results, "{op}");
    }
    assert!(holds("gt", "1", "1e999999999999") && holds("lt", "1e-999999999", "-5"));
}

#[test]
fn texts_are_found_without_regard_to_case() {
    assert!(holds("contains", "ÄPFEL", "\"Rote äpfel\"") && holds("contains", "''", "\"\""));
    assert!(holds("startswith", "rote", "\"ROTE äpfel\"") && !holds("startswith", "äpfel", "\"rote äpfel\""));
    assert!(holds("endswith", "PFEL", "\"rote Äpfel\"") && !holds("endswith", "rote", "\"rote äpfel\""));
}

#[test]
fn a_pattern_matches_the_whole_string() {
    for (pattern, text, expected) in [
        ("ab+", "xabb", false),
        ("ab+", "abb", true),
        ("ab+", "abbx", false),
        ("(?i)AB+", "abb", true),
        ("a|ab", "ab", true),
        ("a", "a\\n", false),
        ("(?m)^a$", "b\\na", false),
        ("(?s).*", "a\\nb", true),
        ("", "", true),
        ("", "a", false),
        ("(?x)a b # c", "ab", true),
        ("(?x)a b # c", "ab\\n", false),
    ] {
        assert_eq!(holds("regex", &format!("{pattern:?}"), &format!("\"{text}\"")), expected, "{pattern:?} {text:?}");
    }
}

#[test]
fn patterns_that_do_not_compile_or_are_too_large_are_refused() {
    for (pattern, message) in [
        ("(?=a)", "value must be a regular expression: look-around"),
        (r"(a)\1", "value must be a regular expression: backreferences are not supported"),
        ("a)(b", "value must be a regular expression: unopened group"),
        ("(", "value must be a regular expression: unclosed group"),
        ("(?x)(a # c", "value must be a regular expression: unclosed group"),
        (r"(\w{100}){100}", "pattern takes more than 10485760 bytes when compiled"),
        ("((a{1000}){1000}){1000}", "pattern takes more than"),
    ] {
        let found = faults(&format!("{{path: payload.x, op: regex, value: '{pattern}'}}"));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(&format!("if.value: {message}")), "{}", found[0]);
    }
    let deep = format!("{}a{}", "(".repeat(200), ")".repeat(200));
    assert_eq!(faults(&format!("{{path: payload.x, op: regex, value: '{deep}'}}")).len(), 1);
    // What people write fits.
    assert!(holds("regex", r"'[\w.+-]{1,64}@(\w{1,32}\.){1,4}\w{2,16}'", "\"ann@mail.e.test\""));
}

#[test]
fn a_present_value_of_another_type_is_an_error_that_does_not_show_it() {
    for (op, value, x, message) in [
        ("gt", "1", "\"hunter2\"", "gt needs a number, but the value is a string"),
        ("lte", "1", "[]", "lte needs a number, but the value is an array"),
        ("contains", "a", "12", "contains needs a string, but the value is a number"),
        ("endswith", "a", "{}", "endswith needs a string, but the value is an object"),
        ("regex", "a", "true", "regex needs a string, but the value is a boolean"),
    ] {
        let yaml = format!("{{path: payload.x, op: {op}, value: {value}}}");
        let error = evaluate(&yaml, &format!("{{\"x\": {x}}}")).unwrap_err();
        assert_eq!(error, format!("path \"payload.x\": {message}"));
    }
}

#[test]
fn composites_stop_at_the_first_decision() {
    let bad = "{path: payload.s, op: gt, value: 1}";
    let (yes, no) = ("{path: payload.s, op: exists}", "{path: payload.t, op: exists}");
    let result = |yaml: String| evaluate(&yaml, "{\"s\": \"text\"}");
    assert_eq!(result(format!("all: [{no}, {bad}]")), Ok(false));
    assert_eq!(result(format!("any: [{yes}, {bad}]")), Ok(true));
    assert!(result(format!("all: [{yes}, {bad}]")).is_err() && result(format!("any: [{no}, {bad}]")).is_err());
    assert!(result(format!("not: {bad}")).is_err());
    assert_eq!(result(format!("{{all: [{yes}, {{any: [{no}, {yes}]}}], any: [], not: ~}}")), Ok(true));
    assert_eq!(result(format!("not: {{all: [{yes}, {yes}]}}")), Ok(false));
}

#[test]
fn a_condition_has_exactly_one_form() {
    let one = "must define exactly one of atomic predicate, all, any, or not";
    for yaml in
        ["{}", "{all: [], any: []}", "{foo: 1}", "{path: payload.x, op: exists, not: {}}", "{all: [1], any: [2]}"]
    {
        assert_eq!(faults(yaml), [format!("if: {one}")], "{yaml}");
    }
    assert_eq!(faults("all: [{path: payload.x, op: exists}, ~]"), [format!("if.all[1]: {one}")]);
    assert_eq!(faults("not: {}"), [format!("if.not: {one}")]);
    assert_eq!(faults("any: text"), ["if.any: must be a list of conditions"]);
    let root = node("if: true");
    assert_eq!(Condition::parse(&root.entries()[0].value, "if", USES).unwrap_err()[0].message, format!("if: {one}"));
}

#[test]
fn every_fault_is_told_with_its_position_and_line() {
    let yaml = "all:\n  - {path: x.y, op: eq, value: 1}\n  - not: {path: payload, op: like}\n  - any: [{op: exists}]\n";
    let found = Condition::parse(&node(yaml), "if", USES).unwrap_err();
    let found: Vec<_> = found.into_iter().map(|fault| (fault.place.line, fault.message)).collect();
    let no_path = "path must include one of payload.*, context.*, or config.*";
    assert_eq!(
        found,
        [
            (2, "if.all[0].path: unsupported root \"x\"".to_owned()),
            (3, format!("if.all[1].not.path: {no_path}")),
            (3, "if.all[1].not.op: unsupported operator \"like\"".to_owned()),
            (4, format!("if.all[2].any[0].path: {no_path}")),
        ]
    );
    assert_eq!(faults("{path: payload..x, op: exists}"), ["if.path: path contains empty segment"]);
    assert_eq!(faults("{path: payload.x}"), ["if.op: op is required"]);
}

#[test]
fn values_are_checked_against_their_operator() {
    for (op, value, message) in [
        ("exists", "1", "value is not allowed for exists"),
        ("eq", "~", "value is required for eq"),
        ("neq", "", "value is required for neq"),
        ("in", "1", "value must be an array for in"),
        ("in", "{a: 1}", "value must be an array for in"),
        ("gt", "'1'", "value must be a number for gt"),
        ("lte", ".inf", "value must be a number for lte"),
        ("contains", "1", "value must be a string for contains"),
        ("startswith", "[a]", "value must be a string for startswith"),
        ("endswith", "true", "value must be a string for endswith"),
        ("regex", "1", "value must be a string for regex"),
    ] {
        let yaml = format!("path: payload.x\nop: {op}\nvalue: {value}\n");
        assert_eq!(faults(&yaml), [format!("if.value: {message}")], "{op}");
    }
}

#[test]
fn four_levels_and_twenty_one_nodes_are_refused() {
    let atom = "{path: payload.x, op: exists}";
    assert_eq!(evaluate(&format!("all: [{{not: {atom}}}]"), "{}"), Ok(true));
    let four = faults(&format!("all: [{{any: [{{not: {atom}}}]}}]"));
    assert_eq!(four, ["if.all[0].any[0].not: maximum nesting depth exceeded (3)"]);
    let list = |count| format!("any: [{}]", vec![atom; count].join(", "));
    assert_eq!(evaluate(&list(19), "{}"), Ok(false));
    for count in [20, 5000] {
        assert_eq!(faults(&list(count)), ["if: maximum predicate count exceeded (20)"]);
    }
    let deep = format!("{}{atom}{}", "{not: ".repeat(90), "}".repeat(90));
    assert_eq!(faults(&deep), ["if.not.not.not: maximum nesting depth exceeded (3)"]);
}

#[test]
fn roots_are_those_of_the_place() {
    let condition = |root: &str| format!("{{path: {root}.x, op: exists}}");
    for place in [USES, Step { uses: false }, Trigger, Hook] {
        assert!(Condition::parse(&node(&condition("payload")), "if", place).is_ok());
    }
    for place in [USES, Step { uses: false }, Trigger] {
        assert!(Condition::parse(&node(&condition("context")), "if", place).is_ok());
    }
    let hook = "if.path: on-hook trigger predicate cannot reference context.* — context is not available at hook time";
    assert_eq!(faults_in(&condition("context"), Hook), [hook]);
    for place in [Step { uses: false }, Trigger, Hook] {
        assert!(faults_in(&condition("config"), place)[0].contains("cannot reference config.*"));
    }
    let config = json!({"x": 1});
    let scope = Scope { config: Some(&config), ..Scope::default() };
    assert!(Condition::parse(&node(&condition("config")), "if", USES).unwrap().holds(&scope).unwrap());
}

#[test]
fn what_came_from_the_environment_is_not_quoted() {
    for key in ["path", "op", "value"] {
        let mut root = node("{path: payload.x, op: regex, value: a}");
        let crate::yaml::Data::Map(entries) = &mut root.data else { unreachable!("a mapping") };
        let entry = entries.iter_mut().find(|entry| entry.key.text == key).unwrap();
        let mut scalar = crate::scalar::Scalar::new("${PIN}".into(), true);
        scalar.substitute("hunter2.(".into(), vec!["PIN".into()]);
        entry.value.data = crate::yaml::Data::Scalar(scalar);
        let found = Condition::parse(&root, "if", USES).unwrap_err();
        assert!(found.len() == 1 && !found[0].message.contains("hunter2"), "{found:?}");
    }
}

#[test]
fn keys_that_no_condition_has_are_told_but_do_not_count() {
    let yaml =
        "all:\n- {path: payload.x, op: exists, vlaue: 1}\n- not: {any: [{path: payload.x, op: exists}], all_of: []}\n";
    let found = Condition::unknown_keys(&node(yaml), "if");
    let found: Vec<_> = found.into_iter().map(|(place, key)| (place.line, key)).collect();
    assert_eq!(found, [(2, "if.all[0].vlaue".to_owned()), (3, "if.all[1].not.all_of".to_owned())]);
    assert!(Condition::parse(&node("{path: payload.x, op: exists, more: 1}"), "if", USES).is_ok());
}

//! The table against whole loads.

use serde_json::Value;

use super::site::Site;
use crate::keys::{Key, Kind, Need, Schema, keys, root};

/// A value of the kind that is nobody's default, as flow YAML, with its form in the record.
fn sample(key: &Key) -> (String, Value) {
    let text = |text: &str| (text.to_owned(), Value::from(text));
    let number = |n: i64| (n.to_string(), Value::from(n));
    // Values that other rules narrow down.
    match key.path {
        "service.job_queue_retention" => return ("49h".to_owned(), Value::from("49h0m0s")),
        "service.dedupe_ttl" => return ("48h".to_owned(), Value::from("48h0m0s")),
        "service.plugin_env_passthrough.*" => return text("SOME_NAME"),
        "api.allowed_origins.*" => return text("https://a.example"),
        "plugins.*.uses" => return text("base"),
        "plugins.*.run_as" => return text("some-name"),
        "plugins.*.parallelism" => return number(1),
        "plugins.*.schedules.*.cron" => return text("0 3 * * *"),
        "plugins.*.schedules.*.at" => return text("2030-01-05T10:00:00+01:00"),
        "plugins.*.schedules.*.only_between" => return text("08:00-18:00"),
        "plugins.*.schedules.*.not_on.*" => return text("sunday"),
        "plugins.*.schedules.*.timezone" => return text("Europe/Berlin"),
        "plugins.*.schedules.*.preferred_window.start" => return text("08:00"),
        "plugins.*.schedules.*.preferred_window.end" => return text("18:00"),
        "pipelines.*.max_depth" => return number(7),
        "service.max_workers" => return number(7),
        "tokens.*.key" => return ("literal-value".to_owned(), Value::from("[REDACTED]")),
        path if path.starts_with("service.admission") || path == "service.strict_mode" => {
            let on = matches!(path, "service.admission.require_api_auth" | "service.strict_mode");
            return (on.to_string(), Value::from(on));
        }
        _ => {}
    }
    match key.kind {
        Kind::Bool => {
            let default = matches!(key.fallback, crate::keys::Fallback::Text("true"));
            ((!default).to_string(), Value::from(!default))
        }
        Kind::Int { min, max, .. } => number((min + 17).min(max).max(min).max(if max == 599 { 201 } else { 0 })),
        Kind::Number => ("1.25".to_owned(), "1.25".parse::<serde_json::Number>().unwrap().into()),
        Kind::Duration { .. } | Kind::Interval => ("17m".to_owned(), Value::from("17m0s")),
        Kind::Size | Kind::Amount => ("3KB".to_owned(), Value::from(3072)),
        Kind::Path => text("/some/where"),
        Kind::Listen => text("127.0.0.9:99"),
        Kind::Url => text("https://peer.example"),
        Kind::Word(words) => text(words[words.len() - 1]),
        Kind::SecretRef => text("known"),
        Kind::Name { .. } => text("some-other-name"),
        Kind::Free => ("{x: 1}".to_owned(), serde_json::json!({"x": 1})),
        Kind::Any if key.path.ends_with(".if") => {
            let text = "{path: payload.y, op: eq, value: [2]}".to_owned();
            (text, serde_json::json!({"path": "payload.y", "op": "eq", "value": [2]}))
        }
        Kind::Any => ("{y: [2]}".to_owned(), serde_json::json!({"y": [2]})),
        Kind::Text | Kind::NumberOrText => text("some-text"),
        Kind::Section | Kind::Map | Kind::List | Kind::Steps => unreachable!("{} has no value of its own", key.path),
    }
}

/// Flow YAML with a value for every key below, and the same in the form of the record. Steps end after two levels. Of
/// keys that exclude one another, `choice` tells which one is written.
fn everything(schema: &Schema, depth: usize, choice: usize) -> (String, Value) {
    match schema.key.kind {
        Kind::Section => {
            let chosen = |name: &str, key: &Key| match name {
                // Only intervals can be made up for.
                "catch_up" => is_choice("every", schema.children["every"].key, choice),
                _ => is_choice(name, key, choice),
            };
            let keys = schema.children.iter().filter(|(name, child)| is_shown(child.key) && chosen(name, child.key));
            let keys = keys.filter(|(_, child)| !matches!(child.key.kind, Kind::Steps) || depth < 2);
            let pairs: Vec<_> = keys.map(|(name, child)| (*name, everything(child, depth, choice))).collect();
            let text = pairs.iter().map(|(name, (text, _))| format!("{name}: {text}")).collect::<Vec<_>>().join(", ");
            (format!("{{{text}}}"), pairs.into_iter().map(|(name, (_, value))| (name.to_owned(), value)).collect())
        }
        Kind::Map => {
            let (text, value) = everything(schema.each().unwrap(), depth, choice);
            (format!("{{some-name: {text}}}"), serde_json::json!({"some-name": value}))
        }
        Kind::List | Kind::Steps => {
            let depth = depth + usize::from(schema.key.kind == Kind::Steps);
            let (text, value) = everything(schema.each().unwrap(), depth, choice);
            (format!("[{text}]"), serde_json::json!([value]))
        }
        _ => sample(schema.key),
    }
}

/// Whether a key may be written: of those that exclude one another only one is.
fn is_choice(name: &str, key: &Key, choice: usize) -> bool {
    match key.need {
        Need::OneOf(group) => group[choice % group.len()] == name,
        _ => true,
    }
}

/// Keys that name files, or that exclude another key, have tests of their own.
fn is_shown(key: &Key) -> bool {
    !matches!(
        key.path,
        "include"
            | "environment_vars"
            | "plugin_roots"
            | "api.auth.tokens.*.scopes_file"
            | "api.auth.tokens.*.scopes_hash"
            | "tokens.*.scopes_file"
            | "tokens.*.scopes_hash"
    )
}

/// Whether `whole` holds everything that `part` says.
fn assert_holds(whole: &Value, part: &Value, path: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                let found = whole.get(name).unwrap_or_else(|| panic!("{path}.{name} is not in the record"));
                assert_holds(found, value, &format!("{path}.{name}"));
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{path}");
            for (index, (whole, part)) in whole.iter().zip(part).enumerate() {
                assert_holds(whole, part, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(whole.to_string(), part.to_string(), "{path}"),
    }
}

#[test]
fn every_key_set_to_another_value_shows_in_the_record() {
    let longest = keys().iter().map(|key| if let Need::OneOf(group) = key.need { group.len() } else { 1 });
    for choice in 0..longest.max().unwrap() {
        let (text, expected) = everything(root(), 0, choice);
        assert!(text.contains("max_outstanding_polls"));
        let site = Site::new()
            .secret("known", "value-of-known")
            .plugin("base", "")
            .config("include: [all.yaml]\n")
            .file("all.yaml", &text);
        let plan = site.inspect().unwrap_or_else(|refusal| panic!("{refusal}"));
        let ignored: Vec<_> = plan.warnings.iter().filter(|w| w.category == "strict_decode").collect();
        assert!(ignored.is_empty(), "{ignored:?}");
        let record: Value = serde_json::from_str(&plan.snapshot.sanitized_config).unwrap();
        assert_holds(&record, &expected, "");
    }
}

#[test]
fn the_sampled_values_are_not_the_defaults() {
    for key in keys() {
        let crate::keys::Fallback::Text(default) = key.fallback else { continue };
        if key.path.starts_with("service.admission") || matches!(key.kind, Kind::Section | Kind::List) {
            continue;
        }
        let (text, _) = sample(key);
        assert_ne!(text, default, "{}", key.path);
    }
}

#[test]
fn an_unknown_key_beside_the_known_ones_of_each_section_is_reported() {
    for (path, schema) in sections(root(), String::new(), 0) {
        if schema.key.path == "plugins.*.timeouts" {
            continue;
        }
        let mut text = "{unknownkey: 1}".to_owned();
        for segment in path.split('.').filter(|segment| !segment.is_empty()).rev() {
            text = if segment == "[0]" { format!("[{text}]") } else { format!("{{{segment}: {text}}}") };
        }
        let site = Site::new().config("include: [x.yaml]\n").file("x.yaml", &text);
        let report = site.check();
        let field = format!("{path}.unknownkey").replace(".[", "[");
        let field = field.trim_start_matches('.');
        let found = report.warnings.iter().any(|w| w.category == "strict_decode" && w.field == field);
        assert!(found, "{field} is not reported: {report:?}");
    }
}

/// All sections with a concrete path.
fn sections(schema: &Schema, path: String, depth: usize) -> Vec<(String, &Schema)> {
    let mut found = Vec::new();
    let join = |segment: &str| format!("{path}.{segment}");
    match schema.key.kind {
        Kind::Section => {
            for (name, child) in &schema.children {
                found.extend(sections(child, join(name), depth));
            }
            found.push((path, schema));
        }
        Kind::Map => found.extend(sections(schema.each().unwrap(), join("some-name"), depth)),
        Kind::List => found.extend(sections(schema.each().unwrap(), join("[0]"), depth)),
        Kind::Steps if depth < 2 => found.extend(sections(schema.each().unwrap(), join("[0]"), depth + 1)),
        _ => {}
    }
    found
}

//! Schemas of a command: full JSON Schema is taken as it is, the compact form is spelled out.

use serde_json::{Map, Value as Json, json};
use serde_yaml::{Mapping, Value};

use super::yaml::{key_text, show, to_json};

/// Words that JSON Schema itself defines. The old `id` is missing on purpose: it is a far too common property name.
const KEYWORDS: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "$schema",
    "$vocabulary",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "description",
    "else",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "readOnly",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "writeOnly",
];

/// The full schema that a manifest value stands for. `key` is its full name, for the refusal.
///
/// # Errors
/// Names the key and the offending value.
pub(super) fn expand(key: &str, value: &Value) -> Result<Json, String> {
    match value {
        Value::Bool(boolean) => Ok(Json::Bool(*boolean)),
        Value::Mapping(map) if is_full(map) => to_json(value).map_err(|reason| format!("{key}: {reason}")),
        Value::Mapping(map) => expand_compact(key, map),
        other => Err(format!("{key} must be a mapping or a boolean, not {}", show(other))),
    }
}

fn is_full(map: &Mapping) -> bool {
    let is_map = |key: &str| map.get(key).is_some_and(Value::is_mapping);
    let is_list = |key: &str| map.get(key).is_some_and(Value::is_sequence);
    map.contains_key("$ref")
        || map.contains_key("$schema")
        || is_map("properties")
        || is_map("items")
        || ["oneOf", "anyOf", "allOf"].into_iter().any(is_list)
        || (map.contains_key("type") && map.keys().all(is_keyword))
}

fn is_keyword(key: &Value) -> bool {
    key.as_str().is_some_and(|key| KEYWORDS.contains(&key) || key.starts_with("x-"))
}

fn expand_compact(key: &str, map: &Mapping) -> Result<Json, String> {
    let mut properties = Map::new();
    for (name, value) in map {
        let name = key_text(name);
        let schema = match value {
            Value::String(type_name) => json!({ "type": type_name }),
            Value::Mapping(_) | Value::Bool(_) => to_json(value).map_err(|reason| format!("{key}.{name}: {reason}"))?,
            other => {
                return Err(format!("{key}.{name} must be a type name or a schema, not {}", show(other)));
            }
        };
        properties.insert(name, schema);
    }
    Ok(json!({ "type": "object", "properties": properties }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(yaml: &str) -> Json {
        expand("input_schema", &serde_yaml::from_str(yaml).unwrap()).unwrap()
    }

    #[test]
    fn the_compact_form_becomes_an_object_schema_with_its_properties_in_order() {
        let schema = expanded("{url: string, depth: integer}");
        assert_eq!(
            schema.to_string(),
            r#"{"type":"object","properties":{"url":{"type":"string"},"depth":{"type":"integer"}}}"#
        );
        assert_eq!(expanded("{}"), json!({"type": "object", "properties": {}}));
    }

    #[test]
    fn a_property_called_type_stays_a_property() {
        let schema = expanded("{url: string, type: string}");
        assert_eq!(schema["properties"], json!({"url": {"type": "string"}, "type": {"type": "string"}}));
    }

    #[test]
    fn a_property_given_as_a_map_is_taken_as_its_schema() {
        let schema = expanded("{tags: {type: array, items: {type: string}}, any: true}");
        assert_eq!(schema["properties"]["tags"], json!({"type": "array", "items": {"type": "string"}}));
        assert_eq!(schema["properties"]["any"], json!(true));
    }

    #[test]
    fn full_schemas_are_published_as_they_are() {
        for yaml in [
            "true",
            "{$ref: '#/x'}",
            "{$schema: 'https://json-schema.org/draft/2020-12/schema', a: 1}",
            "{properties: {a: {type: string}}}",
            "{items: {type: string}}",
            "{oneOf: [{type: string}]}",
            "{anyOf: []}",
            "{allOf: []}",
            "{type: object}",
            "{type: string, description: words, x-order: 3, minLength: 1}",
        ] {
            let value: Value = serde_yaml::from_str(yaml).unwrap();
            assert_eq!(expanded(yaml), to_json(&value).unwrap(), "{yaml}");
        }
    }

    #[test]
    fn keywords_with_the_wrong_shape_are_properties() {
        assert_eq!(expanded("{properties: string}")["properties"], json!({"properties": {"type": "string"}}));
        assert_eq!(expanded("{items: array, oneOf: string}")["properties"]["items"], json!({"type": "array"}));
    }

    #[test]
    fn other_values_are_refused_with_key_and_value() {
        let refuse = |yaml: &str| expand("commands[0].input_schema", &serde_yaml::from_str(yaml).unwrap()).unwrap_err();
        assert_eq!(refuse("words"), "commands[0].input_schema must be a mapping or a boolean, not \"words\"");
        assert_eq!(refuse("{url: 3}"), "commands[0].input_schema.url must be a type name or a schema, not 3");
    }
}

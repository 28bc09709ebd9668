//! `commands` of a manifest, in its three forms.

use serde_yaml::{Mapping, Value};

use super::schema;
use super::yaml::{Findings, Node, key_text, show};
use super::{Command, CommandType};

const KEYS: &[&str] =
    &["name", "type", "description", "idempotent", "retry_safe", "input_schema", "output_schema", "values"];

/// Reads all commands, in manifest order.
pub(super) fn read(root: Node<'_>, findings: &mut Findings) -> Vec<Command> {
    let mut commands = Vec::new();
    match root.required("commands", findings) {
        None => return commands,
        Some(Value::Sequence(list)) => read_list(list, &mut commands, findings),
        Some(Value::Mapping(map)) => read_map(map, &mut commands, findings),
        Some(other) => {
            findings.error(format!("commands must be a mapping or a list, not {}", show(other)));
            return commands;
        }
    }
    if commands.is_empty() && findings.errors.is_empty() {
        findings.error("commands must declare at least one command");
    }
    commands
}

fn read_list(list: &[Value], commands: &mut Vec<Command>, findings: &mut Findings) {
    let mut bare = 0;
    for (index, entry) in list.iter().enumerate() {
        let path = format!("commands[{index}]");
        match entry {
            Value::String(name) => {
                bare += 1;
                let empty = Mapping::new();
                add(Node::new(&path, &empty), name, commands, findings);
            }
            Value::Mapping(map) => {
                let node = Node::new(&path, map);
                if let Some(name) = node.required_text("name", findings) {
                    add(node, name, commands, findings);
                }
            }
            other => findings.error(format!("{path} must be a mapping or a name, not {}", show(other))),
        }
    }
    if bare > 0 {
        findings.warn(
            "commands is a list of bare names, an old form; every such command counts as type write, so better say \
             {name: …, type: read or write}",
        );
    }
}

fn read_map(map: &Mapping, commands: &mut Vec<Command>, findings: &mut Findings) {
    let empty = Mapping::new();
    for (key, entry) in map {
        let name = key_text(key);
        let path = format!("commands.{}", name.trim());
        let node = match entry {
            Value::Null => Node::new(&path, &empty),
            Value::Mapping(inner) => Node::new(&path, inner),
            other => {
                findings.error(format!("{path} must be a mapping, not {}", show(other)));
                continue;
            }
        };
        if let Some(inner) = node.text("name", findings)
            && inner.trim() != name.trim()
        {
            findings.error(format!("{path}.name {:?} does not agree with its key {:?}", inner.trim(), name.trim()));
        }
        add(node, &name, commands, findings);
    }
}

fn add(node: Node<'_>, name: &str, commands: &mut Vec<Command>, findings: &mut Findings) {
    let name = name.trim();
    if !is_command_name(name) {
        findings.error(format!(
            "{} {name:?} is not a command name: an ASCII letter, then letters, digits, _ or -",
            node.name_of("name")
        ));
        return;
    }
    if commands.iter().any(|command| command.name == name) {
        findings.error(format!("{} {name:?} is declared twice", node.name_of("name")));
        return;
    }
    node.warn_unknown(KEYS, findings);
    let emits = read_values(node, name, findings);
    commands.push(Command {
        name: name.to_owned(),
        kind: read_kind(node, findings),
        description: node.text("description", findings).map(str::to_owned),
        idempotent: node.boolean("idempotent", findings),
        retry_safe: node.boolean("retry_safe", findings),
        input_schema: read_schema(node, "input_schema", findings),
        output_schema: read_schema(node, "output_schema", findings),
        emits,
    });
}

pub(super) fn is_command_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

fn read_kind(node: Node<'_>, findings: &mut Findings) -> CommandType {
    let Some(value) = node.get("type") else { return CommandType::Write };
    match value.as_str() {
        Some("read") => CommandType::Read,
        Some("write") => CommandType::Write,
        _ => {
            findings.error(format!("{} must be read or write, not {}", node.name_of("type"), show(value)));
            CommandType::Write
        }
    }
}

fn read_schema(node: Node<'_>, key: &str, findings: &mut Findings) -> Option<serde_json::Value> {
    match schema::expand(&node.name_of(key), node.get(key)?) {
        Ok(schema) => Some(schema),
        Err(reason) => {
            findings.error(reason);
            None
        }
    }
}

/// `values` tells pipeline authors what a command takes and gives. Nothing at run time depends on it; the types of its
/// events are kept for those who ask who talks to whom.
fn read_values(command: Node<'_>, name: &str, findings: &mut Findings) -> Vec<String> {
    let mut emits = Vec::new();
    let Some(values) = command.mapping("values", findings) else { return emits };
    let path = command.name_of("values");
    let node = Node::new(&path, values);
    node.warn_unknown(&["consume", "emit"], findings);
    check_value_names(node, "consume", name, findings);
    for (index, entry) in node.list("emit", findings).iter().enumerate() {
        let path = format!("{path}.emit[{index}]");
        let Value::Mapping(map) = entry else {
            findings.error(format!("{path} of command {name:?} must be a mapping, not {}", show(entry)));
            continue;
        };
        let emit = Node::new(&path, map);
        emit.warn_unknown(&["event", "values"], findings);
        match emit.required_text("event", findings).map(str::trim) {
            Some("") => findings.error(format!("{} of command {name:?} must not be blank", emit.name_of("event"))),
            Some(event) => emits.push(event.to_owned()),
            None => {}
        }
        check_value_names(emit, "values", name, findings);
    }
    emits
}

fn check_value_names(node: Node<'_>, key: &str, command: &str, findings: &mut Findings) {
    for (index, value) in node.list(key, findings).iter().enumerate() {
        if !value.as_str().is_some_and(|name| is_value_name(name.trim())) {
            findings.error(format!(
                "{}[{index}] of command {command:?}: {} is not payload.<name> or payload.*",
                node.name_of(key),
                show(value)
            ));
        }
    }
}

/// `payload`, `payload.*`, or `payload.` and further segments.
fn is_value_name(name: &str) -> bool {
    let is_segment = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    match name.strip_prefix("payload") {
        Some("" | ".*") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(|path| path.split('.').all(is_segment)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_yaml(yaml: &str) -> (Vec<Command>, Findings) {
        let map: Mapping = serde_yaml::from_str(yaml).unwrap();
        let mut findings = Findings::default();
        let commands = read(Node::new("", &map), &mut findings);
        (commands, findings)
    }

    fn names(commands: &[Command]) -> Vec<&str> {
        commands.iter().map(|command| command.name.as_str()).collect()
    }

    fn errors(yaml: &str) -> Vec<String> {
        read_yaml(yaml).1.errors
    }

    #[test]
    fn a_list_of_objects_keeps_its_order_and_its_types() {
        let (commands, findings) =
            read_yaml("commands: [{name: poll, type: write}, {name: ' health ', type: read}, {name: handle}]");
        assert_eq!(names(&commands), ["poll", "health", "handle"]);
        assert_eq!(
            commands.iter().map(|c| c.kind).collect::<Vec<_>>(),
            [CommandType::Write, CommandType::Read, CommandType::Write]
        );
        assert!(findings.errors.is_empty() && findings.warnings.is_empty(), "{findings:?}");
    }

    #[test]
    fn a_map_keeps_its_order_and_takes_a_null_as_no_keys() {
        let (commands, findings) = read_yaml("commands: {poll: {type: read, name: poll}, handle: null, a: {}}");
        assert_eq!(names(&commands), ["poll", "handle", "a"]);
        assert_eq!(commands[0].kind, CommandType::Read);
        assert_eq!(commands[1].kind, CommandType::Write);
        assert!(findings.errors.is_empty(), "{findings:?}");
    }

    #[test]
    fn a_list_of_bare_names_loads_with_a_warning() {
        let (commands, findings) = read_yaml("commands: [poll, health]");
        assert_eq!(names(&commands), ["poll", "health"]);
        assert!(commands.iter().all(|command| command.kind == CommandType::Write));
        assert_eq!(findings.warnings.len(), 1);
        assert!(findings.warnings[0].contains("bare names"));
    }

    #[test]
    fn hints_and_schemas_are_kept() {
        let (commands, findings) = read_yaml(
            "commands: [{name: handle, description: d, idempotent: true, retry_safe: false, input_schema: {u: string}, \
             output_schema: false}]",
        );
        assert!(findings.errors.is_empty(), "{findings:?}");
        let command = &commands[0];
        assert_eq!(command.description.as_deref(), Some("d"));
        assert_eq!((command.idempotent, command.retry_safe), (Some(true), Some(false)));
        assert_eq!(command.input_schema.as_ref().unwrap()["properties"]["u"]["type"], "string");
        assert_eq!(command.output_schema, Some(serde_json::Value::Bool(false)));
    }

    #[test]
    fn refusals_name_key_and_value() {
        for (yaml, expected) in [
            ("a: 1", "commands is required"),
            ("commands: []", "commands must declare at least one command"),
            ("commands: 3", "commands must be a mapping or a list, not 3"),
            ("commands: [{type: read}]", "commands[0].name is required"),
            ("commands: [3]", "commands[0] must be a mapping or a name, not 3"),
            ("commands: [{name: a}, {name: a}]", "commands[1].name \"a\" is declared twice"),
            ("commands: {a: {type: reed}}", "commands.a.type must be read or write, not \"reed\""),
            ("commands: {a: {name: b}}", "commands.a.name \"b\" does not agree with its key \"a\""),
            ("commands: {a: read}", "commands.a must be a mapping, not \"read\""),
            ("commands: [{name: a, idempotent: 'yes'}]", "commands[0].idempotent must be true or false, not \"yes\""),
        ] {
            assert_eq!(errors(yaml), [expected], "{yaml}");
        }
        assert!(errors("commands: [1x]")[0].contains("commands[0].name \"1x\" is not a command name"));
        assert!(errors("commands: [_x]")[0].contains("is not a command name"));
    }

    #[test]
    fn unknown_keys_are_named_in_a_warning() {
        let (_, findings) = read_yaml("commands: [{name: a, timeout: 3}]");
        assert_eq!(findings.warnings, ["unknown key \"commands[0].timeout\" is ignored"]);
    }

    #[test]
    fn value_names_are_payload_paths_only() {
        let ok = "commands: [{name: a, values: {consume: [payload, payload.*, payload.a-b.c_1], emit: [{event: \
                  '<configured event_type>', values: [payload.x]}]}}]";
        assert!(errors(ok).is_empty(), "{:?}", errors(ok));
        for bad in ["context.x", "payload.", "payload.a..b", "payloadx", "payload.a.*", "'payload.a b'", "3"] {
            let errors = errors(&format!("commands: [{{name: a, values: {{consume: [{bad}]}}}}]"));
            assert_eq!(errors.len(), 1, "{bad}");
            assert!(errors[0].starts_with("commands[0].values.consume[0] of command \"a\": "), "{errors:?}");
        }
        let blank = errors("commands: [{name: a, values: {emit: [{event: ' '}]}}]");
        assert_eq!(blank, ["commands[0].values.emit[0].event of command \"a\" must not be blank"]);
        assert_eq!(
            errors("commands: [{name: a, values: {emit: [{values: [payload.x]}]}}]"),
            ["commands[0].values.emit[0].event is required"]
        );
    }
}

//! `fact_outputs` of a manifest.

use serde_yaml::Value;

use super::yaml::{Findings, Node, show};
use super::{Command, FactRule};

/// Reads all rules, in manifest order. A rule with anything unknown in it is refused, because a condition that is
/// quietly ignored would record facts that the author did not mean.
pub(super) fn read(root: Node<'_>, commands: &[Command], findings: &mut Findings) -> Vec<FactRule> {
    let list = root.list("fact_outputs", findings).iter().enumerate();
    list.filter_map(|(index, entry)| read_rule(&format!("fact_outputs[{index}]"), entry, commands, findings)).collect()
}

fn read_rule(path: &str, entry: &Value, commands: &[Command], findings: &mut Findings) -> Option<FactRule> {
    let Value::Mapping(map) = entry else {
        findings.error(format!("{path} must be a mapping, not {}", show(entry)));
        return None;
    };
    let rule = Node::new(path, map);
    refuse_unknown(rule, path, &["when", "from", "fact_type", "compatibility_view"], findings);
    check_from(rule, path, findings);
    check_view(rule, path, findings);
    let command = read_command(rule, path, commands, findings);
    let fact_type = read_fact_type(rule, path, findings);
    Some(FactRule { command: command?, fact_type: fact_type? })
}

fn refuse_unknown(node: Node<'_>, path: &str, known: &[&str], findings: &mut Findings) {
    for key in node.unknown_keys(known) {
        findings.error(format!("{path}: unknown key {key:?}"));
    }
}

fn read_command(rule: Node<'_>, path: &str, commands: &[Command], findings: &mut Findings) -> Option<String> {
    rule.required("when", findings)?;
    let when_path = rule.name_of("when");
    let when = Node::new(&when_path, rule.mapping("when", findings)?);
    refuse_unknown(when, path, &["command"], findings);
    let command = when.required_text("command", findings)?.trim();
    if !commands.iter().any(|declared| declared.name == command) {
        findings.error(format!("{path}: when.command {command:?} is not declared in commands"));
        return None;
    }
    Some(command.to_owned())
}

fn check_from(rule: Node<'_>, path: &str, findings: &mut Findings) {
    if let Some(from) = rule.required_text("from", findings)
        && from.trim() != "state_updates"
    {
        findings.error(format!("{path}: from {from:?} is not supported (only state_updates)"));
    }
}

fn read_fact_type(rule: Node<'_>, path: &str, findings: &mut Findings) -> Option<String> {
    let fact_type = rule.required_text("fact_type", findings)?.trim();
    if fact_type.is_empty() {
        findings.error(format!("{path}: fact_type must not be blank"));
        return None;
    }
    Some(fact_type.to_owned())
}

fn check_view(rule: Node<'_>, path: &str, findings: &mut Findings) {
    let view = rule.text("compatibility_view", findings).map_or("", str::trim);
    if !matches!(view, "" | "mirror_object") {
        findings.error(format!("{path}: compatibility_view {view:?} is not supported (only mirror_object)"));
    }
}

#[cfg(test)]
mod tests {
    use serde_yaml::Mapping;

    use super::*;

    fn read_yaml(yaml: &str) -> (Vec<FactRule>, Vec<String>) {
        let map: Mapping =
            serde_yaml::from_str(&format!("{{commands: [{{name: poll}}], fact_outputs: {yaml}}}")).unwrap();
        let mut findings = Findings::default();
        let root = Node::new("", &map);
        let commands = super::super::commands::read(root, &mut findings);
        let rules = read(root, &commands, &mut findings);
        (rules, findings.errors)
    }

    #[test]
    fn several_rules_of_one_command_are_legal_and_keep_their_order() {
        let (rules, errors) = read_yaml(
            "[{when: {command: poll}, from: state_updates, fact_type: x.b}, {when: {command: ' poll '}, \
             from: state_updates, fact_type: x.a, compatibility_view: mirror_object}, {when: {command: poll}, \
             from: state_updates, fact_type: x.c, compatibility_view: ''}]",
        );
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(rules.iter().map(|r| r.fact_type.as_str()).collect::<Vec<_>>(), ["x.b", "x.a", "x.c"]);
        assert!(rules.iter().all(|rule| rule.command == "poll"));
    }

    #[test]
    fn refusals_name_the_entry_by_index_with_key_and_value() {
        for (rule, expected) in [
            (
                "{when: {command: handle}, from: state_updates, fact_type: t}",
                "fact_outputs[0]: when.command \"handle\" is not declared in commands",
            ),
            (
                "{when: {command: poll}, from: payload, fact_type: t}",
                "fact_outputs[0]: from \"payload\" is not supported (only state_updates)",
            ),
            (
                "{when: {command: poll}, from: state_updates, fact_type: ' '}",
                "fact_outputs[0]: fact_type must not be blank",
            ),
            (
                "{when: {command: poll}, from: state_updates, fact_type: t, compatibility_view: merge}",
                "fact_outputs[0]: compatibility_view \"merge\" is not supported (only mirror_object)",
            ),
            ("{from: state_updates, fact_type: t}", "fact_outputs[0].when is required"),
            ("{when: {}, from: state_updates, fact_type: t}", "fact_outputs[0].when.command is required"),
            ("{when: {command: poll}, fact_type: t}", "fact_outputs[0].from is required"),
            ("{when: {command: poll}, from: state_updates}", "fact_outputs[0].fact_type is required"),
            (
                "{when: {command: poll}, from: state_updates, fact_type: t, only: x}",
                "fact_outputs[0]: unknown key \"fact_outputs[0].only\"",
            ),
            ("words", "fact_outputs[0] must be a mapping, not \"words\""),
        ] {
            assert_eq!(read_yaml(&format!("[{rule}]")).1, [expected], "{rule}");
        }
    }
}

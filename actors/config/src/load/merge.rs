//! Several files become one tree. Whether a key is written decides, never its value.

use ductile_model::Problem;

use super::collect::Files;
use super::convert::boolean;
use crate::keys::{Merge, Schema};
use crate::yaml::{Data, Entry, Node};

/// Merges trees in load order.
pub(crate) fn merge(trees: Vec<Node>, schema: &Schema, files: &Files, warnings: &mut Vec<Problem>) -> Node {
    let mut merger = Merger { files, warnings, path: Vec::new() };
    let mut trees = trees.into_iter();
    let mut base = trees.next().unwrap_or_else(|| Node::empty_map(Default::default()));
    for tree in trees {
        merger.node(Some(schema), &mut base, tree);
    }
    base
}

struct Merger<'m> {
    files: &'m Files,
    warnings: &'m mut Vec<Problem>,
    path: Vec<String>,
}

impl Merger<'_> {
    fn node(&mut self, schema: Option<&Schema>, base: &mut Node, over: Node) {
        let rule = schema.map_or(Merge::Last, |schema| schema.key.merge);
        match (rule, &mut base.data, over.data) {
            (Merge::Recurse | Merge::Replace, Data::Map(entries), Data::Map(more)) => {
                for entry in more {
                    self.entry(rule, schema, entries, entry);
                }
            }
            (Merge::Append, Data::List(items), Data::List(more)) => items.extend(more),
            (Merge::Sticky, Data::Scalar(scalar), _) if boolean(scalar) == Some(true) => {}
            (_, _, data) => *base = Node { place: over.place, data },
        }
    }

    fn entry(&mut self, rule: Merge, schema: Option<&Schema>, entries: &mut Vec<Entry>, entry: Entry) {
        let Some(present) = entries.iter_mut().find(|present| present.key.text == entry.key.text) else {
            entries.push(entry);
            return;
        };
        let name = entry.key.text.clone();
        if rule == Merge::Replace {
            self.warn_replaced(schema, present, &entry);
            *present = entry;
            return;
        }
        // A section that is given as null counts as absent.
        if entry.value.is_null() {
            return;
        }
        if present.value.is_null() {
            *present = entry;
            return;
        }
        let child = schema.and_then(|schema| schema.child(&name));
        let scalar = matches!(entry.value.data, Data::Scalar(_));
        if scalar && child.is_none_or(|child| child.key.merge != Merge::Sticky) {
            present.place = entry.place;
        }
        self.path.push(name);
        self.node(child, &mut present.value, entry.value);
        self.path.pop();
    }

    fn warn_replaced(&mut self, schema: Option<&Schema>, first: &Entry, second: &Entry) {
        let map = schema.map_or("", |schema| schema.key.path);
        let field = format!("{map}.{}", second.key.written());
        let name = |entry: &Entry| self.files.path(entry.place).map_or(String::new(), |p| p.display().to_string());
        let message = format!(
            "{field} is defined in {} and again in {}; the later definition replaces the earlier one as a whole",
            name(first),
            name(second)
        );
        let problem = Problem::new("load", message).at_field(field);
        self.warnings.push(self.files.at(problem, second.place));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys;
    use crate::load::convert::json;
    use crate::yaml::parse;

    fn merged(texts: &[&str]) -> (serde_json::Value, Vec<Problem>) {
        let mut files = Files::default();
        let trees = texts.iter().enumerate().map(|(index, text)| {
            files.add(format!("/c/{index}.yaml").into(), Vec::new());
            parse(text.as_bytes(), index).unwrap()
        });
        let trees = trees.collect();
        let mut warnings = Vec::new();
        let node = merge(trees, keys::root(), &files, &mut warnings);
        (json(&node), warnings)
    }

    #[test]
    fn sections_merge_key_by_key_and_presence_decides() {
        let (value, warnings) = merged(&[
            "service: {name: a, admission: {fail_on_drift: true}}\napi: {enabled: true, max_queue_depth: 7}\n",
            "service: {admission: {refuse_cleartext: yes}, allow_symlinks: true}\napi: {enabled: false, max_queue_depth: 0}\n",
            "service:\napi:\n  listen: ''\n",
        ]);
        assert_eq!(value["service"]["name"], "a");
        assert_eq!(value["service"]["admission"]["fail_on_drift"], true);
        assert_eq!(value["service"]["admission"]["refuse_cleartext"], "yes");
        assert_eq!(value["api"]["enabled"], false);
        assert_eq!(value["api"]["max_queue_depth"].to_string(), "0");
        assert_eq!(value["api"]["listen"], "");
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_repeated_plugin_is_replaced_as_a_whole_with_a_warning_naming_both_files() {
        let (value, warnings) =
            merged(&["plugins: {a: {enabled: true, uses: x}, b: {}}\n", "plugins:\n  a: {enabled: false}\n"]);
        assert_eq!(value["plugins"]["a"], serde_json::json!({"enabled": false}));
        assert!(value["plugins"]["b"].is_object());
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].message.contains("/c/0.yaml") && warnings[0].message.contains("/c/1.yaml"));
        assert_eq!(warnings[0].line, Some(2));
    }

    #[test]
    fn lists_are_appended_in_load_order_and_require_key_id_sticks() {
        let (value, _) = merged(&[
            "routes: [{from: a}]\nremote_ingress: {require_key_id: true}\n",
            "routes: [{from: b}, {from: c}]\nremote_ingress: {require_key_id: false, listen_path: /x}\n",
        ]);
        let froms: Vec<_> = value["routes"].as_array().unwrap().iter().map(|r| r["from"].as_str().unwrap()).collect();
        assert_eq!(froms, ["a", "b", "c"]);
        assert_eq!(value["remote_ingress"]["require_key_id"], true);
        assert_eq!(value["remote_ingress"]["listen_path"], "/x");
    }

    proptest! {
        #[test]
        fn the_last_file_that_writes_a_scalar_wins(values in prop::collection::vec(prop::option::of(0u32..5), 1..6)) {
            let texts: Vec<String> = values
                .iter()
                .map(|v| v.map_or("service: {}\n".to_owned(), |v| format!("service: {{max_workers: {v}}}\n")))
                .collect();
            let (merged, _) = merged(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let last = values.iter().rev().flatten().next();
            let found = merged["service"].get("max_workers").map(ToString::to_string);
            prop_assert_eq!(found, last.map(ToString::to_string));
        }
    }
}

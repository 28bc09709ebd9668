//! `${NAME}`: finding and replacing.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use crate::scalar::Scalar;
use crate::yaml::{Data, Fault, Node};

/// One `${NAME}` in a text.
pub(crate) struct Reference<'t> {
    pub(crate) range: Range<usize>,
    pub(crate) name: &'t str,
}

/// All references of a text, from left to right.
pub(crate) fn references(text: &str) -> impl Iterator<Item = Reference<'_>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        while let Some(at) = text[from..].find("${") {
            let start = from + at;
            let name_start = start + 2;
            from = name_start;
            let length = text[name_start..].find('}')?;
            let name = &text[name_start..name_start + length];
            if is_name(name) {
                from = name_start + length + 1;
                return Some(Reference { range: start..from, name });
            }
        }
        None
    })
}

/// Whether a text is the name of a variable.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Process environment first, then what the environment files of this load say.
#[derive(Debug)]
pub(crate) struct Variables<'e> {
    pub(crate) process: &'e BTreeMap<String, String>,
    pub(crate) overlay: BTreeMap<String, String>,
}

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.process.get(name).or_else(|| self.overlay.get(name)).map(String::as_str)
    }

    /// Both together, the process winning.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        let mut all = self.overlay.clone();
        all.extend(self.process.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }
}

/// Substitutes in every key and scalar below `node`. The shape of the tree can not change.
pub(crate) fn interpolate(node: &mut Node, variables: &Variables<'_>, faults: &mut Vec<Fault>) {
    match &mut node.data {
        Data::Scalar(scalar) => substitute(scalar, variables),
        Data::List(items) => {
            for item in items {
                interpolate(item, variables, faults);
            }
        }
        Data::Map(entries) => {
            let mut changed = false;
            for entry in entries.iter_mut() {
                substitute(&mut entry.key, variables);
                changed |= !entry.key.vars.is_empty();
                interpolate(&mut entry.value, variables, faults);
            }
            let mut seen = HashSet::new();
            for entry in entries.iter().filter(|_| changed) {
                if !seen.insert(entry.key.text.as_str()) {
                    let message = "a key is written twice after its variables are replaced".to_owned();
                    faults.push(Fault { line: entry.place.line, message });
                }
            }
        }
    }
}

fn substitute(scalar: &mut Scalar, variables: &Variables<'_>) {
    let mut text = String::new();
    let mut end = 0;
    let mut vars = Vec::new();
    let mut unset = Vec::new();
    for reference in references(&scalar.text) {
        match variables.get(reference.name) {
            Some(value) => {
                text.push_str(&scalar.text[end..reference.range.start]);
                text.push_str(value);
                end = reference.range.end;
                vars.push(reference.name.to_owned());
            }
            None => unset.push(reference.name.to_owned()),
        }
    }
    if !vars.is_empty() {
        text.push_str(&scalar.text[end..]);
        scalar.substitute(text, vars);
    }
    scalar.unset = unset;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::parse;

    fn with(text: &str, process: &[(&str, &str)]) -> Node {
        let process = process.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut node = parse(text.as_bytes(), 0).unwrap();
        let mut faults = Vec::new();
        interpolate(&mut node, &Variables { process: &process, overlay: BTreeMap::new() }, &mut faults);
        assert!(faults.is_empty());
        node
    }

    fn shape(node: &Node) -> String {
        match &node.data {
            Data::Scalar(_) => "s".to_owned(),
            Data::List(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(",")),
            Data::Map(entries) => {
                format!("{{{}}}", entries.iter().map(|e| shape(&e.value)).collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn only_braced_names_are_references() {
        let names: Vec<_> = references("${A} $B ${c.d} ${} ${_x1}${2} ${A b} ${${IN}} ${").map(|r| r.name).collect();
        assert_eq!(names, ["A", "_x1", "IN"]);
    }

    #[test]
    fn a_value_is_not_scanned_again_and_unset_ones_stay() {
        let node = with("a: ${A} ${U}\n", &[("A", "${B}"), ("B", "no")]);
        let scalar = node.find(&["a"]).unwrap().scalar().unwrap();
        assert_eq!(scalar.text, "${B} ${U}");
        assert_eq!(scalar.unset, ["U"]);
        assert_eq!(scalar.vars, ["A"]);
        assert_eq!(scalar.shown(), "\"${A} ${U}\"");
    }

    proptest! {
        #[test]
        fn a_value_never_changes_the_shape_of_a_file(evil in "[-a-z:\\[\\]{},&*!#|>'\" \n\t$]{0,40}") {
            let text = "a: ${EVIL}\nb: [${EVIL}, \"${EVIL}\"]\nc: {d: '${EVIL}'}\n";
            let harmless = with(text, &[("EVIL", "x")]);
            let node = with(text, &[("EVIL", &evil)]);
            prop_assert_eq!(shape(&node), shape(&harmless));
            prop_assert_eq!(&node.find(&["a"]).unwrap().scalar().unwrap().text, &evil);
        }
    }
}

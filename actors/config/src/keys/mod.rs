//! The one table of configuration keys and the tree made of it.
//!
//! Decoding, defaults, merging, unknown-key reports, the snapshot and the list of keys that need a restart all read
//! this table. A key that is not in it does not exist.

mod table;

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Fixed keys; merged key by key.
    Section,
    /// Entries named by the user; an entry is replaced as a whole.
    Map,
    /// Items; appended in load order.
    List,
    /// A list of pipeline steps, which hold steps again.
    Steps,
    /// A mapping that is not looked into, or null.
    Free,
    /// Any value; not looked into.
    Any,
    /// Any scalar, as written.
    Text,
    /// Name of a vault secret.
    SecretRef,
    /// Absolute http or https URL.
    Url,
    /// true/false, yes/no, on/off.
    Bool,
    /// Whole number within bounds.
    Int { min: i64, max: i64, zero: Zero },
    /// Decimal number, not negative.
    Number,
    /// Number with unit.
    Duration { zero: Zero },
    /// Bytes, with or without unit.
    Size,
    /// Whole number from 0 or a size.
    Amount,
    /// File path; `~` and relative ones are resolved.
    Path,
    /// `host:port`.
    Listen,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A duration, or `hourly`, `daily`, `weekly`, `monthly`.
    Interval,
    /// Letters and digits in parts joined by hyphens, and none of the reserved ones.
    Name { longest: usize, reserved: &'static [&'static str] },
    /// Number or text, kept as it is.
    NumberOrText,
}

/// What a written 0 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zero {
    /// The default.
    Default,
    /// Nothing special.
    Itself,
}

/// What holds when the key is absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fallback {
    /// The key stays absent.
    Nothing,
    /// The value that this text would give.
    Text(&'static str),
    /// An empty mapping or list; for a section: one made of its own defaults.
    Empty,
    /// Worked out from other keys.
    Computed,
}

/// From when on a changed value is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// From the swap on.
    Swap,
    /// For jobs enqueued after the swap.
    Enqueue,
    /// The new address is bound before the swap.
    Rebind,
    /// At the next cold start.
    Boot,
    /// Never in this process: such a reload is refused.
    Restart,
}

/// How values of several files become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Key by key.
    Recurse,
    /// Union of names; a repeated one is replaced.
    Replace,
    /// One list after the other.
    Append,
    /// The later file wins.
    Last,
    /// Once true, always true.
    Sticky,
}

/// Whether a section may do without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It may.
    Optional,
    /// It may not.
    Required,
    /// It may not where another key of the section has one of these values.
    RequiredFor { key: &'static str, values: &'static [&'static str] },
    /// The section must have exactly one of these keys, of which this is one.
    OneOf(&'static [&'static str]),
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted; `*` is a name chosen by the user or an item of a list.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) fallback: Fallback,
    pub(crate) reload: Reload,
    pub(crate) merge: Merge,
    pub(crate) need: Need,
}

/// The table as a tree.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) key: &'static Key,
    /// Keys with a fixed name.
    pub(crate) children: BTreeMap<&'static str, Schema>,
    each: Option<Box<Schema>>,
}

static ROOT_KEY: Key = Key {
    path: "",
    kind: Kind::Section,
    fallback: Fallback::Empty,
    reload: Reload::Swap,
    merge: Merge::Recurse,
    need: Need::Optional,
};

static ROOT: LazyLock<Schema> = LazyLock::new(|| tree(|path| (!path.starts_with(STEP)).then_some(path)));
static STEP_SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| tree(|path| path.strip_prefix(STEP).and_then(|rest| rest.strip_prefix('.'))));

/// The row of the schedules of a plugin.
pub(crate) const SCHEDULES: &str = "plugins.*.schedules";

/// First segment of the rows that describe one pipeline step.
const STEP: &str = "<step>";

/// The tree of the whole configuration.
pub(crate) fn root() -> &'static Schema {
    &ROOT
}

/// All rows.
pub(crate) fn keys() -> &'static [Key] {
    table::KEYS
}

fn tree(select: impl Fn(&'static str) -> Option<&'static str>) -> Schema {
    let mut root = Schema::of(&ROOT_KEY);
    // A row comes after the row of its parent.
    for key in table::KEYS {
        if let Some(path) = select(key.path) {
            root.insert(path, key);
        }
    }
    root
}

impl Schema {
    fn of(key: &'static Key) -> Self {
        Self { key, children: BTreeMap::new(), each: None }
    }

    fn insert(&mut self, path: &'static str, key: &'static Key) {
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        let child = if head == "*" {
            &mut **self.each.get_or_insert_with(|| Box::new(Self::of(key)))
        } else {
            self.children.entry(head).or_insert_with(|| Self::of(key))
        };
        if let Some(rest) = rest {
            child.insert(rest, key);
        }
    }

    /// What a named key holds; `None` for an unknown one.
    pub(crate) fn child(&self, name: &str) -> Option<&Schema> {
        self.children.get(name).or(self.each.as_deref())
    }

    /// What an entry or item holds, whatever its name.
    pub(crate) fn each(&self) -> Option<&Schema> {
        match self.key.kind {
            Kind::Steps => Some(&STEP_SCHEMA),
            _ => self.each.as_deref(),
        }
    }

    /// Whether its values are judged after the merge: schedules may be wrong while their plugin is not enabled.
    pub(crate) fn is_judged_late(&self) -> bool {
        self.key.path.starts_with(SCHEDULES)
    }

    /// Follows a concrete path.
    pub(crate) fn find(&self, path: &[&str]) -> Option<&Schema> {
        path.iter().try_fold(self, |schema, segment| schema.child(segment))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_has_its_own_path_and_a_parent_before_it() {
        let mut seen = HashSet::new();
        for key in keys() {
            if let Some((parent, _)) = key.path.rsplit_once('.') {
                assert!(parent == STEP || seen.contains(parent), "{} has no parent row", key.path);
            }
            assert!(seen.insert(key.path), "{} stands twice in the table", key.path);
        }
    }

    #[test]
    fn the_keys_that_a_need_speaks_of_stand_in_the_same_section() {
        for key in keys() {
            let Some((section, name)) = key.path.rsplit_once('.') else { continue };
            let row = |name: &str| keys().iter().find(|other| other.path == format!("{section}.{name}"));
            match key.need {
                Need::OneOf(group) => {
                    assert!(group.contains(&name), "{} is not in its own group", key.path);
                    for other in group {
                        assert_eq!(row(other).map(|row| row.need), Some(key.need), "{section}.{other}");
                    }
                }
                Need::RequiredFor { key: other, values } => {
                    let Some(Kind::Word(words)) = row(other).map(|row| row.kind) else { panic!("{}", key.path) };
                    assert!(values.iter().all(|value| words.contains(value)), "{}", key.path);
                }
                Need::Optional | Need::Required => {}
            }
        }
    }

    #[test]
    fn list_items_and_named_entries_are_found_by_any_name() {
        assert_eq!(root().find(&["plugins", "echo", "retry", "max_attempts"]).unwrap().key.reload, Reload::Enqueue);
        assert_eq!(root().find(&["plugins", "echo", "timeouts", "sync"]).unwrap().key.path, "plugins.*.timeouts.*");
        assert!(root().find(&["service", "nope"]).is_none());
        let steps = root().find(&["pipelines", "*", "steps"]).unwrap();
        let nested = steps.each().unwrap().child("split").unwrap();
        assert!(nested.each().unwrap().child("uses").is_some());
    }
}

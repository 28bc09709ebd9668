//! What an API token may do.
//!
//! Every scope word is read into one small enum, first its long form, then its meaning; [`Scopes`] adds the meanings
//! up with their implications. The doctor judges words by the same reading, so the two can not disagree.

use std::collections::{BTreeMap, BTreeSet};

use crate::{CommandType, Registry};

/// A group of routes that one scope word opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `jobs:status:ro`.
    JobStatus,
    /// `jobs:result:ro`.
    JobResult,
    /// `jobs:logs:ro`.
    JobLogs,
    /// `jobs:tree:ro`.
    JobTree,
    /// `jobs:rw`.
    JobWrite,
    /// `events:meta:ro`.
    EventsMeta,
    /// `events:payload:ro`.
    EventsPayload,
    /// `metrics:ro`.
    Metrics,
    /// `system:ro`.
    SystemRead,
    /// `system:rw`.
    SystemWrite,
}

/// First words that are resources of the gateway and never plugin names.
const RESOURCES: &[&str] = &["plugin", "pipeline", "jobs", "events", "system", "metrics", "queue", "healthz"];

/// A grant that belongs to no single plugin or pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grant {
    Family(Family),
    /// The catalogue entry of every plugin.
    Catalog,
    /// Every command of type `read`.
    ReadCommands,
    /// Every command.
    Commands,
    /// Every pipeline.
    Pipelines,
}

const JOBS_READ: &[Grant] = &[
    Grant::Family(Family::JobStatus),
    Grant::Family(Family::JobResult),
    Grant::Family(Family::JobLogs),
    Grant::Family(Family::JobTree),
];
const EVENTS_READ: &[Grant] = &[Grant::Family(Family::EventsMeta), Grant::Family(Family::EventsPayload)];

/// Every scope word that stands for itself, with all that it implies.
const WORDS: &[(&str, &[Grant])] = &[
    (
        "*",
        &[
            Grant::Family(Family::JobStatus),
            Grant::Family(Family::JobResult),
            Grant::Family(Family::JobLogs),
            Grant::Family(Family::JobTree),
            Grant::Family(Family::JobWrite),
            Grant::Family(Family::EventsMeta),
            Grant::Family(Family::EventsPayload),
            Grant::Family(Family::Metrics),
            Grant::Family(Family::SystemRead),
            Grant::Family(Family::SystemWrite),
            Grant::Catalog,
            Grant::ReadCommands,
            Grant::Commands,
            Grant::Pipelines,
        ],
    ),
    ("plugin:rw", &[Grant::Catalog, Grant::ReadCommands, Grant::Commands, Grant::Pipelines]),
    ("plugin:ro", &[Grant::Catalog]),
    ("plugin:invoke:ro", &[Grant::ReadCommands]),
    ("plugin:catalog:ro", &[Grant::Catalog]),
    ("pipeline:rw", &[Grant::Pipelines]),
    (
        "jobs:rw",
        &[
            Grant::Family(Family::JobWrite),
            Grant::Family(Family::JobStatus),
            Grant::Family(Family::JobResult),
            Grant::Family(Family::JobLogs),
            Grant::Family(Family::JobTree),
        ],
    ),
    ("jobs:ro", JOBS_READ),
    ("jobs:status:ro", &[Grant::Family(Family::JobStatus)]),
    ("jobs:result:ro", &[Grant::Family(Family::JobResult)]),
    ("jobs:logs:ro", &[Grant::Family(Family::JobLogs)]),
    ("jobs:tree:ro", &[Grant::Family(Family::JobTree)]),
    ("events:rw", EVENTS_READ),
    ("events:ro", EVENTS_READ),
    ("events:meta:ro", &[Grant::Family(Family::EventsMeta)]),
    ("events:payload:ro", &[Grant::Family(Family::EventsPayload)]),
    (
        "system:rw",
        &[Grant::Family(Family::SystemWrite), Grant::Family(Family::SystemRead), Grant::Family(Family::Metrics)],
    ),
    ("system:ro", &[Grant::Family(Family::SystemRead), Grant::Family(Family::Metrics)]),
    ("metrics:ro", &[Grant::Family(Family::Metrics)]),
];

/// What one scope word means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// One of [`WORDS`].
    Plain(&'static [Grant]),
    /// A whole resource in a form that exists but opens no route.
    Idle,
    Plugin(String, Access),
    AllowPipeline(String),
    DenyPipeline(String),
    Unknown(Fault),
}

/// What a word says about one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Access {
    Read,
    All,
    Allow(String),
    Deny(String),
}

/// Why a word means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NoColon,
    Access,
}

fn read_word(word: &str) -> Word {
    let short = short_form(word);
    if let Some((_, grants)) = WORDS.iter().find(|(known, _)| *known == short) {
        return Word::Plain(grants);
    }
    let Some((subject, access)) = short.split_once(':') else { return Word::Unknown(Fault::NoColon) };
    match (subject, access.split_once(':')) {
        ("", _) | (_, Some((_, ""))) => Word::Unknown(Fault::Access),
        ("pipeline", Some(("allow", name))) => Word::AllowPipeline(name.to_owned()),
        ("pipeline", Some(("deny", name))) => Word::DenyPipeline(name.to_owned()),
        (resource, _) if RESOURCES.contains(&resource) => match access {
            "ro" | "rw" => Word::Idle,
            _ => Word::Unknown(Fault::Access),
        },
        (plugin, Some(("allow", command))) => Word::Plugin(plugin.to_owned(), Access::Allow(command.to_owned())),
        (plugin, Some(("deny", command))) => Word::Plugin(plugin.to_owned(), Access::Deny(command.to_owned())),
        (plugin, None) if access == "ro" => Word::Plugin(plugin.to_owned(), Access::Read),
        (plugin, None) if access == "rw" => Word::Plugin(plugin.to_owned(), Access::All),
        _ => Word::Unknown(Fault::Access),
    }
}

/// The short form of `read:`, `admin:` and `trigger:` words; any other word as it is.
fn short_form(word: &str) -> String {
    match word.split_once(':') {
        Some(("read", resource)) if RESOURCES.contains(&resource) => format!("{resource}:ro"),
        Some(("admin", "*")) => "*".to_owned(),
        Some(("admin", resource)) if RESOURCES.contains(&resource) => format!("{resource}:rw"),
        Some(("trigger", target)) => match target.split_once(':') {
            Some((plugin, command)) => format!("{plugin}:allow:{command}"),
            None => format!("{target}:allow:*"),
        },
        _ => word.to_owned(),
    }
}

/// Some names, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    listed: BTreeSet<String>,
}

impl Names {
    fn add(&mut self, name: String) {
        if name == "*" {
            self.all = true;
        } else {
            self.listed.insert(name);
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.all || self.listed.contains(name)
    }

    fn is_empty(&self) -> bool {
        !self.all && self.listed.is_empty()
    }
}

/// What the words say about one plugin, added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct PluginRule {
    /// The widest of `ro` and `rw`.
    access: Option<CommandType>,
    allow: Names,
    deny: Names,
}

impl PluginRule {
    fn apply(&mut self, access: Access) {
        match access {
            Access::Read => self.access = self.access.or(Some(CommandType::Read)),
            Access::All => self.access = Some(CommandType::Write),
            Access::Allow(command) => self.allow.add(command),
            Access::Deny(command) => self.deny.add(command),
        }
    }

    fn grants(&self, command: &str, kind: CommandType) -> bool {
        let by_access = match self.access {
            Some(CommandType::Write) => true,
            Some(CommandType::Read) => kind == CommandType::Read,
            None => false,
        };
        by_access || self.allow.contains(command)
    }
}

/// The checked scopes of one token, implications worked out.
#[derive(Debug, Clone, Default)]
pub struct Scopes {
    grants: BTreeSet<Grant>,
    plugins: BTreeMap<String, PluginRule>,
    allowed_pipelines: Names,
    denied_pipelines: Names,
}

impl Scopes {
    /// Reads scope words; unknown ones grant nothing.
    #[must_use]
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Self {
        let mut scopes = Self::default();
        for word in words {
            match read_word(word.as_ref()) {
                Word::Plain(grants) => scopes.grants.extend(grants),
                Word::Plugin(plugin, access) => scopes.plugins.entry(plugin).or_default().apply(access),
                Word::AllowPipeline(name) => scopes.allowed_pipelines.add(name),
                Word::DenyPipeline(name) => scopes.denied_pipelines.add(name),
                Word::Idle | Word::Unknown(_) => {}
            }
        }
        scopes
    }

    /// Whether a group of routes is open.
    #[must_use]
    pub fn allows(&self, family: Family) -> bool {
        self.has(Grant::Family(family))
    }

    /// Whether the catalogue entry of a plugin may be read.
    #[must_use]
    pub fn allows_catalog(&self, plugin: &str) -> bool {
        self.has(Grant::Catalog) || self.plugins.get(plugin).is_some_and(|rule| rule.access.is_some())
    }

    /// Whether a command may be run; `deny` beats every grant.
    #[must_use]
    pub fn allows_command(&self, plugin: &str, command: &str, kind: CommandType) -> bool {
        let rule = self.plugins.get(plugin);
        if rule.is_some_and(|rule| rule.deny.contains(command)) {
            return false;
        }
        self.has(Grant::Commands)
            || (kind == CommandType::Read && self.has(Grant::ReadCommands))
            || rule.is_some_and(|rule| rule.grants(command, kind))
    }

    /// Whether any command at all might be runnable: the check before a name is looked up.
    #[must_use]
    pub fn allows_some_command(&self) -> bool {
        self.has(Grant::Commands)
            || self.has(Grant::ReadCommands)
            || self.plugins.values().any(|rule| rule.access.is_some() || !rule.allow.is_empty())
    }

    /// Whether any pipeline may be triggered at all: what the routes ask before they look for a name.
    #[must_use]
    pub fn allows_some_pipeline(&self) -> bool {
        self.has(Grant::Pipelines) || self.allowed_pipelines.all || !self.allowed_pipelines.listed.is_empty()
    }

    /// Whether a pipeline may be triggered; `deny` beats every grant.
    #[must_use]
    pub fn allows_pipeline(&self, name: &str) -> bool {
        !self.denied_pipelines.contains(name) && (self.has(Grant::Pipelines) || self.allowed_pipelines.contains(name))
    }

    fn has(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }
}

/// What the doctor says about one scope word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeProblem {
    /// Error or warning.
    pub is_error: bool,
    /// The sentence, naming the word.
    pub message: String,
}

impl ScopeProblem {
    fn error(message: String) -> Self {
        Self { is_error: true, message }
    }

    fn warning(message: String) -> Self {
        Self { is_error: false, message }
    }
}

/// Judges one scope word against what can be run. Unknown words grant nothing, so a mistake is safe but worth telling.
#[must_use]
pub fn check_scope(word: &str, registry: &Registry) -> Option<ScopeProblem> {
    match read_word(word) {
        Word::Plain(_) | Word::AllowPipeline(_) | Word::DenyPipeline(_) => None,
        Word::Idle => Some(ScopeProblem::warning(format!("scope {word:?} opens no route"))),
        Word::Unknown(Fault::NoColon) => {
            Some(ScopeProblem::error(format!("scope {word:?} is not <plugin or resource>:<access> (and not *)")))
        }
        Word::Unknown(Fault::Access) => Some(ScopeProblem::error(format!(
            "scope {word:?} has an unknown access word (accepted: ro, rw, allow:<command>, deny:<command>, or a scope \
             of the gateway such as jobs:ro)"
        ))),
        Word::Plugin(plugin, access) => check_plugin_scope(word, &plugin, &access, registry),
    }
}

fn check_plugin_scope(word: &str, plugin: &str, access: &Access, registry: &Registry) -> Option<ScopeProblem> {
    let Some(found) = registry.get(plugin) else {
        return Some(ScopeProblem::error(format!("scope {word:?} names the unknown plugin {plugin:?}")));
    };
    let lacks = |command: &str| command != "*" && found.manifest.command(command).is_none();
    match access {
        Access::Allow(command) if lacks(command) => {
            Some(ScopeProblem::error(format!("scope {word:?}: plugin {plugin:?} has no command {command:?}")))
        }
        Access::Deny(command) if lacks(command) => Some(ScopeProblem::warning(format!(
            "scope {word:?} denies nothing: plugin {plugin:?} has no command {command:?}"
        ))),
        _ => None,
    }
}

#[cfg(test)]
#[path = "scopes_tests.rs"]
mod tests;

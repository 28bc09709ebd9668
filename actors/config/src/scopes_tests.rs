use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::{Command, Manifest, Plugin};

const FAMILIES: &[(Family, &str)] = &[
    (Family::JobStatus, "status"),
    (Family::JobResult, "result"),
    (Family::JobLogs, "logs"),
    (Family::JobTree, "tree"),
    (Family::JobWrite, "job-write"),
    (Family::EventsMeta, "meta"),
    (Family::EventsPayload, "payload"),
    (Family::Metrics, "metrics"),
    (Family::SystemRead, "system"),
    (Family::SystemWrite, "system-write"),
];

/// Everything a single word opens, as one line.
fn opened_by(word: &str) -> String {
    let scopes = Scopes::parse(&[word]);
    let mut open: Vec<&str> =
        FAMILIES.iter().filter(|(family, _)| scopes.allows(*family)).map(|(_, name)| *name).collect();
    let rest = [
        (scopes.allows_catalog("echo"), "catalog"),
        (scopes.allows_command("echo", "health", CommandType::Read), "run-read"),
        (scopes.allows_command("echo", "poll", CommandType::Write), "run-write"),
        (scopes.allows_pipeline("notes"), "pipeline"),
    ];
    open.extend(rest.iter().filter(|(open, _)| *open).map(|(_, name)| *name));
    open.join(" ")
}

#[test]
fn every_scope_word_opens_exactly_what_the_table_says() {
    let everything = "status result logs tree job-write meta payload metrics system system-write catalog run-read \
                      run-write pipeline";
    for (word, expected) in [
        ("*", everything),
        ("plugin:rw", "catalog run-read run-write pipeline"),
        ("plugin:ro", "catalog"),
        ("plugin:invoke:ro", "run-read"),
        ("plugin:catalog:ro", "catalog"),
        ("pipeline:rw", "pipeline"),
        ("pipeline:allow:notes", "pipeline"),
        ("pipeline:allow:other", ""),
        ("pipeline:allow:*", "pipeline"),
        ("jobs:rw", "status result logs tree job-write"),
        ("jobs:ro", "status result logs tree"),
        ("jobs:status:ro", "status"),
        ("jobs:result:ro", "result"),
        ("jobs:logs:ro", "logs"),
        ("jobs:tree:ro", "tree"),
        ("events:rw", "meta payload"),
        ("events:ro", "meta payload"),
        ("events:meta:ro", "meta"),
        ("events:payload:ro", "payload"),
        ("system:rw", "metrics system system-write"),
        ("system:ro", "metrics system"),
        ("metrics:ro", "metrics"),
        // One plugin.
        ("echo:ro", "catalog run-read"),
        ("echo:rw", "catalog run-read run-write"),
        ("echo:allow:poll", "run-write"),
        ("echo:allow:health", "run-read"),
        ("echo:allow:*", "run-read run-write"),
        ("echo:deny:poll", ""),
        ("other:rw", ""),
        // Long forms.
        ("read:jobs", "status result logs tree"),
        ("read:plugin", "catalog"),
        ("read:events", "meta payload"),
        ("read:system", "metrics system"),
        ("read:metrics", "metrics"),
        ("admin:jobs", "status result logs tree job-write"),
        ("admin:plugin", "catalog run-read run-write pipeline"),
        ("admin:pipeline", "pipeline"),
        ("admin:system", "metrics system system-write"),
        ("admin:*", everything),
        ("trigger:echo", "run-read run-write"),
        ("trigger:echo:poll", "run-write"),
        ("trigger:echo:*", "run-read run-write"),
        // Nothing at all.
        ("", ""),
        ("jobs", ""),
        ("echo", ""),
        (":rw", ""),
        ("echo:", ""),
        ("echo:allow", ""),
        ("echo:allow:", ""),
        ("echo:RW", ""),
        (" *", ""),
        ("read:*", ""),
        ("read:echo", ""),
        ("plugin:allow:poll", ""),
        ("queue:rw", ""),
        ("healthz:ro", ""),
        ("metrics:rw", ""),
        ("jobs:status:rw", ""),
        ("jobs:allow:*", ""),
        ("pipeline:ro", ""),
        ("pipeline:deny:notes", ""),
    ] {
        assert_eq!(opened_by(word), expected, "{word:?}");
    }
}

#[test]
fn no_words_open_nothing() {
    let scopes = Scopes::parse::<&str>(&[]);
    assert!(FAMILIES.iter().all(|(family, _)| !scopes.allows(*family)));
    assert!(!scopes.allows_some_command());
    assert!(!scopes.allows_pipeline("notes"));
}

#[test]
fn deny_beats_every_grant_in_any_order() {
    for words in [
        ["*", "echo:deny:poll"],
        ["echo:deny:poll", "*"],
        ["echo:rw", "echo:deny:poll"],
        ["echo:allow:poll", "echo:deny:poll"],
        ["plugin:rw", "echo:deny:*"],
        ["trigger:echo", "echo:deny:*"],
    ] {
        assert!(!Scopes::parse(&words).allows_command("echo", "poll", CommandType::Write), "{words:?}");
    }
    let scopes = Scopes::parse(&["echo:rw", "echo:deny:poll"]);
    assert!(scopes.allows_command("echo", "handle", CommandType::Write));
    assert!(!scopes.allows_command("other", "handle", CommandType::Write));
    let all_but_one = Scopes::parse(&["*", "pipeline:deny:notes"]);
    assert!(!all_but_one.allows_pipeline("notes"));
    assert!(all_but_one.allows_pipeline("other"));
    assert!(!Scopes::parse(&["*", "pipeline:deny:*"]).allows_pipeline("other"));
}

#[test]
fn the_wider_of_two_words_about_one_plugin_counts() {
    for words in [["echo:ro", "echo:rw"], ["echo:rw", "echo:ro"]] {
        assert!(Scopes::parse(&words).allows_command("echo", "poll", CommandType::Write), "{words:?}");
    }
}

#[test]
fn the_check_before_the_lookup_sees_every_kind_of_run_grant() {
    for word in ["*", "plugin:rw", "plugin:invoke:ro", "echo:ro", "echo:rw", "echo:allow:poll", "trigger:echo"] {
        assert!(Scopes::parse(&[word]).allows_some_command(), "{word}");
    }
    for word in ["plugin:ro", "jobs:rw", "pipeline:rw", "echo:deny:poll", "system:rw"] {
        assert!(!Scopes::parse(&[word]).allows_some_command(), "{word}");
    }
}

fn registry() -> Registry {
    let command = |name: &str, kind| Command {
        name: name.to_owned(),
        kind,
        description: None,
        idempotent: None,
        retry_safe: None,
        input_schema: None,
        output_schema: None,
        emits: Vec::new(),
    };
    let manifest = Manifest {
        name: "echo".to_owned(),
        version: String::new(),
        description: None,
        concurrency_safe: true,
        commands: vec![command("poll", CommandType::Write), command("health", CommandType::Read)],
        fact_outputs: Vec::new(),
        required_config_keys: Vec::new(),
        stopwatch_max_subs: 32,
        path: PathBuf::from("/p/echo/manifest.yaml"),
        bytes: Arc::from([]),
    };
    let plugin = Plugin {
        name: "echo".to_owned(),
        uses: None,
        manifest: Arc::new(manifest),
        dir: PathBuf::from("/p/echo"),
        entrypoint: PathBuf::from("/p/echo/run"),
    };
    let mut registry = Registry::default();
    registry.plugins.insert("echo".to_owned(), Arc::new(plugin));
    registry
}

#[test]
fn the_doctor_tells_errors_from_warnings_and_names_the_word() {
    let registry = registry();
    for word in [
        "*",
        "jobs:ro",
        "plugin:invoke:ro",
        "echo:ro",
        "echo:rw",
        "echo:allow:poll",
        "echo:allow:*",
        "echo:deny:health",
        "echo:deny:*",
        "trigger:echo:poll",
        "admin:*",
        "read:jobs",
        "pipeline:allow:notes",
    ] {
        assert_eq!(check_scope(word, &registry), None, "{word}");
    }
    for (word, is_error, part) in [
        ("echo", true, "is not <plugin or resource>:<access>"),
        ("", true, "is not <plugin or resource>:<access>"),
        ("nope:rw", true, "unknown plugin \"nope\""),
        ("nope:deny:poll", true, "unknown plugin \"nope\""),
        ("trigger:nope", true, "unknown plugin \"nope\""),
        ("echo:run", true, "unknown access word"),
        ("echo:allow", true, "unknown access word"),
        ("jobs:status:rw", true, "unknown access word"),
        ("plugin:allow:poll", true, "unknown access word"),
        ("echo:allow:handle", true, "has no command \"handle\""),
        ("echo:deny:handle", false, "has no command \"handle\""),
        ("queue:ro", false, "opens no route"),
    ] {
        let problem = check_scope(word, &registry).unwrap();
        assert_eq!(problem.is_error, is_error, "{word}");
        assert!(problem.message.contains(part), "{word}: {}", problem.message);
        assert!(problem.message.contains(&format!("{word:?}")), "{word}: {}", problem.message);
    }
}

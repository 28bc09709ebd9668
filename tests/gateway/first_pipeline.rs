//! The pipeline that a new user sees first.

use std::fs;
use std::path::Path;
use std::process::Output;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::first_minutes::{contents, quickstart};
use super::terminal::Terminal;
use crate::site::{ductile, free_address, show};

/// A job in the database of a deployment.
#[derive(Debug)]
struct Row {
    plugin: String,
    /// Empty outside of a pipeline.
    step: String,
    status: String,
    /// Plugin and step of the job that caused it.
    parent: String,
}

/// All jobs, in the order in which they were queued.
fn rows(dir: &Path) -> Vec<Row> {
    let connection = Connection::open(dir.join("data/ductile.db")).expect("the database");
    let mut statement = connection
        .prepare(
            "SELECT job.plugin, ifnull(own.step_id, ''), job.status,
                    ifnull(cause.plugin || '/' || ifnull(its.step_id, ''), '-')
             FROM job_queue job LEFT JOIN event_context own ON own.id = job.event_context_id
             LEFT JOIN job_queue cause ON cause.id = job.parent_job_id
             LEFT JOIN event_context its ON its.id = cause.event_context_id ORDER BY job.rowid",
        )
        .expect("a statement");
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Row { plugin: row.get(0)?, step: row.get(1)?, status: row.get(2)?, parent: row.get(3)? })
    };
    statement.query_map([], read).expect("rows").map(|row| row.expect("a row")).collect()
}

/// Makes a deployment with an address of its own: tests that run side by side would all choose the usual one.
fn first_run(dir: &Path) -> Output {
    let output = quickstart(dir, &["--once", "--listen", &free_address()]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    output
}

/// Side by side is in no order.
fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut sorted: Vec<String> = texts.collect();
    sorted.sort();
    sorted
}

#[test]
fn the_first_run_goes_through_a_condition_and_a_split_in_two_languages() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let output = first_run(&dir);
    let rows = rows(&dir);
    let told = rows.iter().map(|Row { plugin, step, status, parent }| format!("{plugin}/{step} {status} {parent}"));
    assert_eq!(
        sorted(told),
        [
            "core.switch/long_enough__switch succeeded file_read/read",
            "echo/quote succeeded core.switch/long_enough__switch",
            "echo/tell succeeded word_count/count",
            "file_read/read succeeded file_watch/",
            "file_watch/ succeeded -",
            "word_count/count succeeded core.switch/long_enough__switch",
        ]
    );
    let steps = rows.iter().filter(|row| !row.step.is_empty());
    let mut languages = sorted(steps.filter_map(|row| first_line(&dir.join("plugins").join(&row.plugin))));
    languages.dedup();
    assert_eq!(languages, ["#!/bin/sh", "#!/usr/bin/env python3"]);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let tree = tree_in(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(tree.len(), rows.len(), "{}", show(&output));
    assert_eq!(tree, tree_in(&readme), "README.md shows what is printed");
}

/// How the program of a plugin begins; `None` for a step without a plugin.
fn first_line(plugin: &Path) -> Option<String> {
    let program = ["run.sh", "run.py"].into_iter().map(|name| plugin.join(name)).find(|program| program.exists())?;
    Some(fs::read_to_string(program).expect("a program").lines().next().expect("a line").to_owned())
}

/// The tree in a text, without ids and times, which differ from run to run.
fn tree_in(text: &str) -> Vec<String> {
    // Of a line like "├─ a:b [c]  succeeded  <id>  <result> at <time>".
    let plain = |line: &str| {
        let (what, rest) = line.split_once("  succeeded  ").expect("a job");
        let (_, result) = rest.split_once("  ").expect("an id and a result");
        format!("{what}: {}", result.split(" at 2").next().expect("a result"))
    };
    let indent = text.lines().find_map(|line| line.find("file_watch:poll  ")).expect("a tree");
    let lines = text.lines().skip_while(|line| !line.trim_start().starts_with("file_watch:poll  "));
    lines.take_while(|line| line.contains("  succeeded  ")).map(|line| plain(&line[indent..])).collect()
}

#[test]
fn the_condition_lets_a_large_file_through_and_a_small_one_not() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    first_run(&dir);
    let run = || {
        let before = rows(&dir).len();
        let output = quickstart(&dir, &["--once"]);
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        let steps = sorted(rows(&dir).split_off(before).into_iter().map(|row| row.step));
        (steps.join(" "), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let watched = dir.join("watched/hello.txt");
    for (content, steps, told) in [
        ("tiny\n", " long_enough__switch read", "  the condition does not hold\n"),
        ("this one is long enough\n", " count long_enough__switch quote read tell", "  the condition holds\n"),
    ] {
        fs::write(&watched, content).expect("a file");
        let (ran, text) = run();
        assert_eq!(ran, steps, "{content}{text}");
        assert!(text.contains(told), "{text}");
    }
    // There is nothing to read in a file that is gone: the pipeline does not start, and nothing fails.
    fs::remove_file(watched).expect("a file");
    let (ran, text) = run();
    assert_eq!(ran, "", "{text}");
    assert!(text.contains("1 file(s) checked, 1 event(s)"), "{text}");
}

#[test]
fn a_second_run_finds_no_change_says_so_and_starts_no_pipeline() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    first_run(&dir);
    let (made, ran) = (contents(&dir), rows(&dir).len());
    let output = quickstart(&dir, &["--once"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Change it before the next one:"), "{}", show(&output));
    assert_eq!((contents(&dir), rows(&dir).len()), (made, ran + 1));
}

#[test]
fn a_deployment_of_an_older_version_without_a_pipeline_is_used_as_it_is() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    first_run(&dir);
    fs::remove_file(dir.join("config/pipelines.yaml")).expect("a file");
    for plugin in ["file_read", "word_count"] {
        fs::remove_dir_all(dir.join("plugins").join(plugin)).expect("a plugin");
    }
    let edit = |file: &str, change: &dyn Fn(&str) -> String| {
        let path = dir.join("config").join(file);
        fs::write(&path, change(&fs::read_to_string(&path).expect("a file"))).expect("a file");
    };
    edit("config.yaml", &|text| text.replace("  - pipelines.yaml\n", ""));
    edit("plugins.yaml", &|text| {
        let (watch, rest) = text.split_once("  # Reads a file that an event names").expect("file_read");
        format!("{watch}{}", &rest[rest.find("  # Says what it is told").expect("echo")..])
    });
    fs::write(dir.join("watched/hello.txt"), "changed, and long enough for the condition").expect("a file");
    let before = contents(&dir);
    let output = quickstart(&dir, &["--once", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(contents(&dir), before);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["created"], document["tree"].as_array().map(Vec::len)), (&json!([]), Some(1)), "{document}");
    assert!(!document["commands"].to_string().contains("pipeline graph"), "{document}");
}

#[test]
fn on_a_terminal_the_tree_has_colours_when_they_are_wanted() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let mut command = ductile(&["quickstart", "--once", "--listen", &free_address(), "--dir"]);
    let seen = Terminal::open().show(command.arg(&dir).env_remove("NO_COLOR"));
    assert!(seen.contains("└─ file_read:handle [read]  \u{1b}[32msucceeded\u{1b}[0m  "), "{seen}");
    fs::write(dir.join("watched/hello.txt"), "tiny").expect("a file");
    let seen = Terminal::open().show(command.env("NO_COLOR", "1"));
    assert!(seen.contains("└─ file_read:handle [read]  succeeded  ") && !seen.contains('\u{1b}'), "{seen}");
}

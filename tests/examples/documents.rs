//! The shell blocks of the documents work as printed, and the answers printed below them have the right form.
//!
//! Every ` ```sh ` block of README.md and docs/*.md is run in a shell of its own, in the order of the document, beside a
//! gateway that `ductile quickstart` made. The shell finds `ductile`, and these variables: `API` and `TOKEN`, `JOB` (the
//! first job), and `DUCTILE_CONFIG_DIR`. A ` ```json ` block right behind it shows the last line of its output: what it
//! shows must be there, with the same types. Blocks that are not to be run stand in [`NOT_RUN`]; shell in other fences is
//! not looked at.

use std::env;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::site::{ductile, free_address, show};

/// Blocks that are not run: the document, how the block begins, and why.
const NOT_RUN: [(&str, &str, &str); 3] = [
    ("README.md", "cargo run --release -- quickstart", "builds the program and runs all tests, this one among them"),
    ("README.md", "mkdir -m 700 /etc/", "writes to /etc; the tests of the examples run the same commands elsewhere"),
    ("docs/plugins.md", "#!/bin/sh", "a file and no command; plugins/_lib/test_guide.py runs it"),
];

#[test]
fn every_command_in_the_documents_works_and_answers_as_printed() {
    let mut not_run: Vec<_> = NOT_RUN.iter().map(|(document, begin, _)| (*document, *begin)).collect();
    let mut run = 0;
    for document in documents() {
        let name = document.strip_prefix(repository()).expect("a path in the repository").display().to_string();
        let fences = fences(&fs::read_to_string(&document).expect("a document"));
        let mut wanted = Vec::new();
        for (index, fence) in fences.iter().enumerate().filter(|(_, fence)| fence.language == "sh") {
            let exempt =
                not_run.iter().position(|(document, begin)| *document == name && fence.text.starts_with(*begin));
            match exempt {
                Some(exempt) => drop(not_run.remove(exempt)),
                None => wanted.push((fence, fences.get(index + 1).filter(|next| next.language == "json"))),
            }
        }
        if wanted.is_empty() {
            continue;
        }
        let gateway = Quickstart::start();
        for (fence, answer) in wanted {
            let place = format!("{name}:{}", fence.line);
            let output = gateway.shell(&fence.text);
            assert!(output.status.success(), "{place}: {}", show(&output));
            let said = String::from_utf8(output.stdout).expect("UTF-8");
            // Only a refusal names its request in the body, and curl does not fail for one.
            assert!(!said.contains("\"request_id\""), "{place}: {said}");
            if let Some(answer) = answer {
                let shown = json(&answer.text, &format!("{name}:{}", answer.line));
                let seen = json(said.lines().last().unwrap_or_default(), &place);
                assert_shows(&shown, &seen, &format!("{name}:{}", answer.line));
            }
            run += 1;
        }
    }
    assert!(not_run.is_empty(), "no longer in the documents: {not_run:?}");
    assert!(run >= 10, "only {run} blocks were found");
}

#[test]
fn json_in_the_documents_is_valid() {
    for document in documents() {
        for fence in fences(&fs::read_to_string(&document).expect("a document")) {
            if fence.language == "json" {
                json(&fence.text, &format!("{}:{}", document.display(), fence.line));
            }
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            assert!(path.exists(), "{}: {target}", document.display());
            if !heading.is_empty() {
                let there = fs::read_to_string(&path).expect("a document");
                assert!(headings(&there).any(|known| known == heading), "{}: {target}", document.display());
            }
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("docs")).expect("the documents");
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| repository().join(name)));
    found.sort();
    found
}

/// A fenced block.
struct Fence {
    language: String,
    text: String,
    /// Where it begins.
    line: usize,
}

fn fences(document: &str) -> Vec<Fence> {
    let mut found = Vec::new();
    let mut open: Option<Fence> = None;
    for (index, line) in document.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Fence { language: language.to_owned(), text: String::new(), line: index + 1 });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(fence)) => {
                fence.text.push_str(line);
                fence.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// Names under which headings can be linked to.
fn headings(document: &str) -> impl Iterator<Item = String> {
    document.lines().filter_map(|line| line.strip_prefix('#')).map(|line| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let plain = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        plain.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

fn json(text: &str, place: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}: {text}"))
}

/// Everything that is shown is there, with the same type. Of a list the first items are compared.
fn assert_shows(shown: &Value, seen: &Value, place: &str) {
    match (shown, seen) {
        (Value::Object(shown), Value::Object(seen)) => {
            for (key, value) in shown {
                let there = seen.get(key).unwrap_or_else(|| panic!("{place}: no {key:?} in {seen:?}"));
                assert_shows(value, there, &format!("{place} {key}"));
            }
        }
        (Value::Array(shown), Value::Array(seen)) => {
            let Some(first) = shown.first() else { return };
            let there = seen.first().unwrap_or_else(|| panic!("{place}: the list is empty"));
            assert_shows(first, there, &format!("{place} [0]"));
        }
        _ => assert_eq!(kind(shown), kind(seen), "{place}: {shown} was shown, and there is {seen}"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// A running deployment.
struct Quickstart {
    place: TempDir,
    child: Child,
    /// What it printed when it was ready.
    told: Value,
}

impl Quickstart {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mut child = ductile(&["quickstart", "--json", "--listen", &free_address(), "--dir"])
            .arg(place.path().join("deployment"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary");
        let mut stdout = child.stdout.take().expect("stdout");
        let mut text = String::new();
        let told = loop {
            let mut chunk = [0; 65536];
            let read = stdout.read(&mut chunk).expect("output");
            assert!(read > 0, "quickstart ended early: {text}");
            text.push_str(&String::from_utf8_lossy(&chunk[..read]));
            if let Ok(told) = serde_json::from_str(&text) {
                break told;
            }
        };
        Self { place, child, told }
    }

    /// Runs commands that stop at the first one that fails.
    fn shell(&self, commands: &str) -> Output {
        let told = |key: &str| self.told[key].as_str().unwrap_or_else(|| panic!("no {key}: {}", self.told)).to_owned();
        let program = Path::new(env!("CARGO_BIN_EXE_ductile")).parent().expect("a directory");
        let usual = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(program.to_owned()).chain(env::split_paths(&usual)));
        Command::new("sh")
            .args(["-euc", commands])
            .current_dir(self.place.path())
            .env("PATH", path.expect("a search path"))
            .env("HOME", "/nonexistent")
            .env("DUCTILE_CONFIG_DIR", Path::new(&told("dir")).join("config"))
            .env("API", told("api_url"))
            .env("TOKEN", told("token"))
            .env("JOB", told("job_id"))
            .env_remove("DUCTILE_API_URL")
            .env_remove("DUCTILE_API_KEY")
            .stdin(Stdio::null())
            .output()
            .expect("sh")
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

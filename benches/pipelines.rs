//! Compiling a thousand pipelines with ten thousand steps: alone, and with the reading of their file. Prints times;
//! asserts nothing.
//!
//! `cargo bench --bench pipelines`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test or bench that can not go on may panic")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ductile_config::{Environment, draft, locate};

const PIPELINES: usize = 1_000;
const ROUNDS: usize = 10;

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let steps = site(dir.path());
    println!("compiler, {PIPELINES} pipelines, {steps} steps, best of {ROUNDS}");
    let environment = Environment::default();
    let source = locate(Some(dir.path()), &environment).expect("a configuration");
    let mut read = Duration::MAX;
    let mut compile = Duration::MAX;
    let mut nodes = 0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let draft = draft(&source, &environment).expect("a configuration that loads");
        read = read.min(began.elapsed());
        let began = Instant::now();
        let report = draft.compile();
        compile = compile.min(began.elapsed());
        assert!(report.errors.is_empty(), "{:?}", report.errors.first());
        nodes = report.pipelines.iter().map(|pipeline| pipeline.nodes().len()).sum();
    }
    println!("  read the file            {:>10.1} ms", millis(read));
    println!("  compile                  {:>10.1} ms, {nodes} nodes", millis(compile));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Writes a configuration in which steps have conditions, templates and claims, and pipelines call each other.
fn site(dir: &Path) -> usize {
    let plugin = dir.join("plugins/work");
    fs::create_dir_all(&plugin).expect("a directory");
    let manifest = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: work\nversion: '1'\nprotocol: 2\nentrypoint: \
                    run.sh\ncommands:\n  - {name: handle}\n";
    fs::write(plugin.join("manifest.yaml"), manifest).expect("a manifest");
    fs::write(plugin.join("run.sh"), "#!/bin/sh\n").expect("a script");
    fs::set_permissions(plugin.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("an execute bit");
    let mut text = "plugin_roots: [./plugins]\nplugins: {work: {enabled: true}}\npipelines:\n".to_owned();
    let mut steps = 0;
    for pipeline in 0..PIPELINES {
        let called = (pipeline + 1) % PIPELINES;
        writeln!(text, "  - name: p{pipeline}\n    on: event.{}\n    steps:", pipeline % 100).expect("a text");
        for step in 0..6 {
            text.push_str(
                "      - uses: work\n        if: {all: [{path: payload.words, op: gte, value: 200}, {path: context.user, op: \
                 exists}]}\n        with: {message: \"{context.web.url}: {payload.result}\"}\n",
            );
            writeln!(text, "        baggage: {{web.n{step}: payload.words}}").expect("a text");
        }
        text.push_str("      - split:\n          - uses: work\n          - uses: work\n");
        // Chains of ten, so that nothing leads back.
        let last = if called.is_multiple_of(10) { "uses: work".to_owned() } else { format!("call: p{called}") };
        writeln!(text, "      - {last}").expect("a text");
        steps += 10;
    }
    fs::write(dir.join("config.yaml"), text).expect("a configuration");
    steps
}

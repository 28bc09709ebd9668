//! `ductile pipeline`, and what `config check` and a start say about pipelines.

use std::process::Output;

use serde_json::{Value, json};

use crate::site::{Site, ductile, show};
use crate::terminal::Terminal;

const ARTICLE: &str = r#"
pipelines:
  - name: article
    on: link.found
    steps:
      - id: fetch
        uses: web_fetch
        baggage: {origin_user: payload.user, web.url: payload.url}
      - id: sum
        uses: summarizer
        if: {path: payload.words, op: gte, value: 200}
        baggage: {web.words: payload.words}
        with: {style: "short"}
      - split:
          - id: tell
            uses: notify
            with: {message: "{context.web.url}: {payload.result}"}
          - id: keep
            uses: archive
  - name: nightly
    on-hook: job.failed
    from_plugin: web_fetch
    execution_mode: synchronous
    timeout: 90s
    max_depth: 0
    steps:
      - id: all
        call: article
      - uses: notify
"#;

/// A site with the plugins of the example. Nothing is started in it.
fn site(pipelines: &str) -> Site {
    let plugins = ["web_fetch", "summarizer", "notify", "archive"];
    let site = plugins.iter().fold(Site::new(), |site, name| site.plugin(name, "echo '{}'"));
    let site = site.extra(pipelines);
    site.write_config();
    site
}

/// The same without the key to the secrets.
fn locked_site(pipelines: &str) -> Site {
    let site = site(pipelines);
    std::fs::remove_file(site.path("config/age.key")).expect("the key");
    site
}

fn run(site: &Site, args: &[&str]) -> Output {
    site.command(args).output().expect("the binary")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn document(site: &Site, args: &[&str]) -> Value {
    serde_json::from_str(&site.run(&[args, &["--json"]].concat())).expect("JSON")
}

#[test]
fn list_tells_what_starts_each_pipeline_and_how_it_runs() {
    let site = locked_site(ARTICLE);
    assert_eq!(
        site.run(&["pipeline", "list"]),
        "NAME     TRIGGER          MODE         NODES  DEPTH\n\
         article  link.found       async        5      4\n\
         nightly  hook:job.failed  synchronous  2      unlimited\n"
    );
    let list = document(&site, &["pipeline", "list"]);
    let fingerprints: Vec<_> = [0, 1].map(|n| list["pipelines"][n]["fingerprint"].as_str().expect("a text")).to_vec();
    assert!(fingerprints.iter().all(|text| text.starts_with("blake3:") && text.len() == 71), "{fingerprints:?}");
    assert_eq!(
        list,
        json!({"pipelines": [
            {"name": "article", "trigger": "link.found", "hook_signal": null, "from_plugin": null,
             "execution_mode": "async", "timeout": "30s", "max_depth": 4, "steps": 5, "fingerprint": fingerprints[0]},
            {"name": "nightly", "trigger": null, "hook_signal": "job.failed", "from_plugin": "web_fetch",
             "execution_mode": "synchronous", "timeout": "1m30s", "max_depth": 0, "steps": 2,
             "fingerprint": fingerprints[1]},
        ]})
    );
    assert!(!site.path("data").exists(), "no database is needed or made");
}

#[test]
fn nothing_configured_is_an_empty_list() {
    let site = locked_site("");
    assert_eq!(site.run(&["pipeline", "list"]), "");
    assert_eq!(document(&site, &["pipeline", "list"]), json!({"pipelines": []}));
    assert_eq!(site.run(&["pipeline", "validate"]), "Pipelines valid.\n");
}

#[test]
fn show_gives_the_definition_and_the_routes() {
    let site = locked_site(ARTICLE);
    let shown = document(&site, &["pipeline", "show", "article"]);
    assert_eq!(shown["definition"]["steps"][1]["with"], json!({"style": "short"}));
    assert_eq!(shown["definition"]["timeout"], "30s");
    let routes = shown["compiled_routes"].as_array().expect("a list");
    let ids: Vec<_> = routes.iter().map(|route| route["id"].as_str().expect("a text")).collect();
    assert_eq!(
        ids,
        [
            "edge:fetch->sum__switch",
            "edge:sum->keep",
            "edge:sum->tell",
            "edge:sum__switch->keep",
            "edge:sum__switch->sum",
            "edge:sum__switch->tell",
            "entry:fetch",
            "terminal:keep",
            "terminal:tell",
        ]
    );
    assert_eq!(
        routes[4],
        json!({
            "id": "edge:sum__switch->sum",
            "source": {"pipeline": "article", "step_id": "sum__switch", "event_type": "ductile.switch.true", "depth_lt": 4},
            "destination": {"kind": "uses", "step_id": "sum", "plugin": "summarizer", "command": "handle"},
        })
    );
    let text = site.run(&["pipeline", "show", "article"]);
    for part in [
        "name: article\non: link.found\n",
        "  - id: fetch\n    uses: web_fetch\n    baggage:\n      origin_user: payload.user\n",
        "      - id: tell\n        uses: notify\n        with:\n          message: \"{context.web.url}: {payload.result}\"\n",
        "depth: 4\n",
        "  edge:sum__switch->sum    ductile.switch.true   summarizer handle\n",
        "  terminal:tell            any event             end\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_pipeline_that_is_not_there_is_said_with_a_hint() {
    let site = site(ARTICLE);
    for args in [&["pipeline", "show", "articel"][..], &["pipeline", "graph", "articel"]] {
        let output = run(&site, args);
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(error, "pipeline \"articel\" not found; did you mean \"article\"?\n");
    }
    let output = run(&site, &["pipeline", "show", "x", "--json"]);
    let error: Value = serde_json::from_str(&said(&output)).expect("JSON");
    assert_eq!((error["code"].as_u64(), output.status.code()), (Some(66), Some(1)));
    let output = ductile(&["pipeline", "list", "--config", "/nowhere"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
}

#[test]
fn graph_speaks_mermaid_and_dot_with_both_ways_out_of_a_switch() {
    let site = site(ARTICLE);
    let mermaid = site.run(&["pipeline", "graph", "article"]);
    assert_eq!(
        mermaid,
        "flowchart TD\n  start([\"link.found\"])\n  n0[\"fetch<br/>web_fetch\"]\n  n1{\"sum__switch\"}\n  \
         n2[\"sum<br/>summarizer\"]\n  n3[\"tell<br/>notify\"]\n  n4[\"keep<br/>archive\"]\n  start --> n0\n  n0 --> n1\n  \
         n1 -->|false| n4\n  n1 -->|true| n2\n  n1 -->|false| n3\n  n2 --> n4\n  n2 --> n3\n"
    );
    for same in [&["pipeline", "graph", "article", "--format", "mermaid"][..], &["pipeline", "visualize", "article"]] {
        assert_eq!(site.run(same), mermaid);
    }
    let dot = site.run(&["pipeline", "graph", "article", "--format", "dot"]);
    for line in [
        "digraph \"article\" {\n",
        "  \"sum__switch\" [label=\"sum__switch\", shape=diamond];\n",
        "  \"sum__switch\" -> \"sum\" [label=\"true\"];\n",
        "  \"sum__switch\" -> \"keep\" [label=\"false\"];\n",
        "  \"start\" -> \"fetch\";\n",
    ] {
        assert!(dot.contains(line), "{line}\n{dot}");
    }
    assert!(dot.ends_with("}\n"), "{dot}");
}

#[test]
fn graph_draws_a_call_as_a_graph_of_its_own_inside() {
    let site = site(ARTICLE);
    let mermaid = site.run(&["pipeline", "graph", "nightly"]);
    for line in [
        "  start([\"hook:job.failed\"])\n",
        "  subgraph g0[\"all: call article\"]\n    n1[\"fetch<br/>web_fetch\"]\n",
        "  end\n  n6[\"step_1<br/>notify\"]\n",
        "  start --> n1\n",
        "  n4 --> n6\n  n5 --> n6\n",
    ] {
        assert!(mermaid.contains(line), "{line}\n{mermaid}");
    }
    let dot = site.run(&["pipeline", "graph", "nightly", "--format", "dot"]);
    for line in ["  subgraph \"cluster_all\" {\n    label=\"all: call article\";\n", "  \"all/keep\" -> \"step_1\";\n"]
    {
        assert!(dot.contains(line), "{line}\n{dot}");
    }
}

#[test]
fn graph_as_json_lists_nodes_and_edges() {
    let site = locked_site(ARTICLE);
    let graph = document(&site, &["pipeline", "graph", "nightly"]);
    assert_eq!(
        graph,
        json!({
            "nodes": [
                {"id": "all", "kind": "call", "plugin": null, "command": null, "call": "article"},
                {"id": "step_1", "kind": "uses", "plugin": "notify", "command": "handle", "call": null},
            ],
            "edges": [{"from": "all", "to": "step_1", "event_type": null}],
            "entries": ["all"],
            "terminals": ["step_1"],
        })
    );
    let graph = document(&site, &["pipeline", "graph", "article"]);
    let edge = json!({"from": "sum__switch", "to": "sum", "event_type": "ductile.switch.true"});
    assert!(graph["edges"].as_array().expect("a list").contains(&edge), "{graph}");
    assert_eq!(graph["nodes"][1]["plugin"], "core.switch");
}

#[test]
fn graph_is_a_tree_on_a_terminal() {
    let site = site(ARTICLE);
    let tree = "article  on link.found, async, depth 4\n└─ fetch: web_fetch\n   ↓ sum__switch: switch\n   ├─ true → sum: \
                summarizer\n   │  ├─ keep: archive  (end)\n   │  └─ tell: notify  (end)\n   ├─ false → keep  (see above)\n   \
                └─ false → tell  (see above)\n";
    assert_eq!(Terminal::open().show(&mut site.command(&["pipeline", "graph", "article"])), tree);
    assert_eq!(site.run(&["pipeline", "graph", "article", "--format", "text"]), tree);
    let called = site.run(&["pipeline", "graph", "nightly", "--format", "text"]);
    let head = "nightly  on hook:job.failed, synchronous, depth unlimited\n└─ all: call article\n   ↓ step_1: notify  \
                (end)\n\narticle  (called)\n└─ fetch: web_fetch\n";
    assert!(called.starts_with(head), "{called}");
}

/// What can be wrong without looking into conditions, templates and claims.
const WRONG: &str = r"
pipelines:
  - name: other
    on: y
    steps: [{uses: notify}]
  - name: wrong
    on: x
    steps:
      - {uses: notify, call: other}
      - {steps: []}
      - {call: other, with: {a: b}}
      - {id: s, uses: nobody}
";

#[test]
fn validate_and_config_check_tell_all_errors_at_once() {
    let site = site(WRONG);
    let step = "pipelines[1].steps";
    let expected = [
        format!("{step}[0]: pipeline \"wrong\": step must define exactly one of uses, call, relay, steps, or split"),
        format!("{step}[1]: pipeline \"wrong\": steps must not be empty"),
        format!("{step}[2]: pipeline \"wrong\": with is only supported on uses steps"),
        format!("{step}[3]: pipeline \"wrong\" step \"s\" references unknown plugin \"nobody\""),
    ];
    for args in [&["config", "check"][..], &["pipeline", "validate"], &["pipeline", "check"]] {
        let output = run(&site, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
        let text = said(&output);
        let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  ERROR [pipelines] ")).collect();
        assert_eq!(found.len(), expected.len(), "{args:?}: {text}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.starts_with(expected.as_str()) && found.contains("config.yaml:"), "{args:?}: {found}");
        }
    }
    let output = run(&site, &["pipeline", "validate", "--json"]);
    let report: Value = serde_json::from_str(&said(&output)).expect("JSON");
    assert_eq!((&report["valid"], report["errors"].as_array().map(Vec::len)), (&json!(false), Some(4)));
    assert_eq!(report["errors"][2]["field"], "pipelines[1].steps[2]");
    let output = run(&site, &["pipeline", "list"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("the pipelines do not compile:\n"),
        "{}",
        show(&output)
    );
}

#[test]
fn a_start_refuses_pipelines_that_are_wrong() {
    let calls = "pipelines:\n  - {name: a, on: x, steps: [{call: b}]}\n  - {name: b, on: y, steps: [{call: a}]}\n";
    for (pipelines, cause) in [
        (WRONG, "references unknown plugin \"nobody\""),
        (calls, "pipeline call cycle detected: a -> b -> a"),
        ("pipelines: [{name: a, on: x, steps: [{call: a}]}]", "pipeline call cycle detected: a -> a"),
        (
            "pipelines: [{name: p, on: x, steps: [{id: s, uses: sync_only}]}]",
            "pipeline \"p\" step \"s\": plugin \"sync_only\" does not support command \"handle\"",
        ),
    ] {
        let site =
            Site::new().plugin("notify", "echo '{}'").plugin_entry("sync_only", "enabled: true").extra(pipelines);
        site.install("sync_only", "echo '{}'", "");
        let manifest = site.path("plugins/sync_only/manifest.yaml");
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        std::fs::write(&manifest, text.replace("name: handle,", "name: sync,")).expect("a manifest");
        let (status, error) = site.start_refused();
        assert_eq!(status.code(), Some(78), "{error}");
        assert!(error.contains("refused: pipelines: pipelines[") && error.contains(cause), "{error}");
    }
}

#[test]
fn two_files_with_one_name_are_both_named() {
    let pipelines = |name: &str| format!("pipelines: [{{name: {name}, on: x, steps: [{{uses: notify}}]}}]\n");
    let site = Site::new().plugin("notify", "echo '{}'").extra("include: [a.yaml, b.yaml]");
    for file in ["a.yaml", "b.yaml"] {
        std::fs::write(site.config().join(file), pipelines("x")).expect("a file");
    }
    site.write_config();
    let output = run(&site, &["config", "check"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(said(&output).contains("duplicate pipeline name \"x\" (a.yaml, b.yaml)"), "{}", show(&output));
    let (status, error) = site.start_refused();
    assert_eq!(status.code(), Some(78), "{error}");
    assert!(error.contains("duplicate pipeline name \"x\" (a.yaml, b.yaml)"), "{error}");
}

#[test]
fn a_start_logs_each_pipeline_and_a_reload_refuses_a_wrong_one() {
    let plugins = ["web_fetch", "summarizer", "notify", "archive"];
    let site = plugins.iter().fold(Site::new(), |site, name| site.plugin(name, "echo '{}'")).extra(ARTICLE);
    let gateway = site.start();
    let lines = gateway.said();
    let line = lines.lines().find(|line| line.contains("pipeline registered") && line.contains("article"));
    let line: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{lines}"))).expect("JSON");
    assert_eq!((&line["name"], &line["trigger"]), (&json!("article"), &json!("link.found")), "{line}");
    assert_eq!((&line["nodes"], &line["depth"]), (&json!(5), &json!(4)), "{line}");
    assert!(line["fingerprint"].as_str().is_some_and(|text| text.starts_with("blake3:")), "{line}");
    let config = site.config().join("config.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("uses: summarizer", "uses: nobody")).expect("the configuration");
    let output = run(&site, &["system", "reload"]);
    assert!(!output.status.success(), "{}", show(&output));
    let cause = "pipeline \"article\" step \"sum\" references unknown plugin \"nobody\"";
    assert!(show(&output).contains(cause), "{}", show(&output));
}
// Goes into tests/gateway/pipeline_command.rs after the merge with the branch of LANGUAGE.

#[test]
fn language_errors() {
    let all_seven = r#"
pipelines:
  - name: other
    on: y
    steps: [{uses: notify}]
  - name: wrong
    on: x
    steps:
      - {uses: notify, call: other}
      - {steps: []}
      - {call: other, with: {a: b}}
      - {id: s, uses: nobody}
      - {uses: notify, if: {path: payload.x, op: is, value: 1}}
      - {uses: notify, with: {k: "{payload.x"}}
      - {uses: notify, baggage: {ductile.x: payload.x}}
"#;
    let site = site(all_seven);
    for args in [&["config", "check"][..], &["pipeline", "validate"]] {
        let output = run(&site, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
        let text = said(&output);
        let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  ERROR [pipelines] ")).collect();
        assert_eq!(found.len(), 7, "{args:?}: {text}");
        for (step, part) in [
            "step must define exactly one of uses, call, relay, steps, or split",
            "steps must not be empty",
            "with is only supported on uses steps",
            "pipeline \"wrong\" step \"s\" references unknown plugin \"nobody\"",
            "unsupported operator \"is\"",
            "with.k: unclosed { in template",
            "ductile",
        ]
        .iter()
        .enumerate()
        {
            let place = format!("pipelines[1].steps[{step}]: pipeline \"wrong\"");
            assert!(found[step].starts_with(&place) && found[step].contains(part), "{args:?}: {}", found[step]);
        }
    }
    let deep = "{not: {not: {not: {path: payload.x, op: exists}}}}";
    let wide = format!("{{any: [{}]}}", vec!["{path: payload.x, op: exists}"; 20].join(", "));
    for (condition, limit) in
        [(deep, "maximum nesting depth exceeded (3)"), (wide.as_str(), "maximum predicate count exceeded (20)")]
    {
        for place in ["pipeline", "step"] {
            let (outer, inner) = if place == "pipeline" { (condition, None) } else { ("~", Some(condition)) };
            let inner = inner.unwrap_or("~");
            let one = format!("pipelines: [{{name: p, on: x, if: {outer}, steps: [{{uses: notify, if: {inner}}}]}}]");
            let site = self::site(&one);
            let output = run(&site, &["config", "check"]);
            assert_eq!(output.status.code(), Some(1), "{place}: {}", show(&output));
            assert!(said(&output).contains(limit), "{place}: {}", show(&output));
        }
    }
}

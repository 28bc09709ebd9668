//! Everything that is refused, and in which words.

use serde_json::json;

use super::World;
use crate::tests::site::Site;

fn world() -> World {
    World::new(&["a", "b"]).plugin("only_sync", &["sync"], json!({"enabled": true}))
}

/// The only error of one pipeline, without file and line.
fn only(pipeline: &str) -> String {
    let errors = world().errors(&format!("pipelines: [{{{pipeline}}}]\n"));
    let [error] = errors.as_slice() else { panic!("{pipeline}: {errors:?}") };
    error.strip_prefix("/c/config.yaml:1: ").unwrap_or_else(|| panic!("{error} has no place")).to_owned()
}

#[test]
fn fields_of_a_pipeline_are_judged_in_the_documented_words() {
    let steps = "steps: [{uses: a}]";
    let signals = "job.completed, job.failed, job.timed_out, job.finished";
    for (fields, expected) in [
        ("on: x".to_owned(), "pipelines[0]: name is required".to_owned()),
        ("name: ' ', on: x".to_owned(), "pipelines[0]: name is required".to_owned()),
        ("name: p".to_owned(), "pipelines[0]: pipeline \"p\": on or on-hook is required".to_owned()),
        ("name: p, on: ' '".to_owned(), "pipelines[0]: pipeline \"p\": on or on-hook is required".to_owned()),
        (
            "name: p, on: x, on-hook: job.failed".to_owned(),
            "pipelines[0].on-hook: pipeline \"p\": on and on-hook are mutually exclusive".to_owned(),
        ),
        (
            "name: p, on: x, on_hook: job.failed".to_owned(),
            "pipelines[0].on_hook: pipeline \"p\": on and on-hook are mutually exclusive".to_owned(),
        ),
        (
            "name: p, on-hook: job.failed, on_hook: job.failed".to_owned(),
            "pipelines[0].on_hook: pipeline \"p\": on-hook and on_hook mean the same; write only one of them".to_owned(),
        ),
        (
            "name: p, on: ductile.switch.true".to_owned(),
            "pipelines[0].on: pipeline \"p\": on \"ductile.switch.true\": types that begin with ductile. belong to the \
             gateway"
                .to_owned(),
        ),
        (
            "name: p, on-hook: job.done".to_owned(),
            format!("pipelines[0].on-hook: pipeline \"p\": on-hook must be one of {signals}, not \"job.done\""),
        ),
        (
            "name: p, on: x, max_depth: -1".to_owned(),
            "pipelines[0].max_depth: pipeline \"p\": max_depth must be >= 0 (0 means unlimited)".to_owned(),
        ),
        (
            "name: p, on: x, timeout: 0s".to_owned(),
            "pipelines[0].timeout: pipeline \"p\": timeout must be greater than 0".to_owned(),
        ),
        (
            "name: p, on: x, from_plugin: nobody".to_owned(),
            "pipelines[0].from_plugin: pipeline \"p\": from_plugin references unknown plugin \"nobody\"".to_owned(),
        ),
    ] {
        assert_eq!(only(&format!("{fields}, {steps}")), expected);
    }
    for empty in ["name: p, on: x", "name: p, on: x, steps: []", "name: p, on: x, steps: ~"] {
        let expected = "pipelines[0]: pipeline \"p\": steps is required and must not be empty";
        assert_eq!(only(empty), expected, "{empty}");
    }
}

#[test]
fn steps_are_judged_in_the_documented_words() {
    let at = "pipelines[0].steps[0]: pipeline \"p\"";
    for (step, expected) in [
        ("{}", ": step must define exactly one of uses, call, relay, steps, or split"),
        ("~", ": step must define exactly one of uses, call, relay, steps, or split"),
        ("{uses: a, call: p}", ": step must define exactly one of uses, call, relay, steps, or split"),
        ("{uses: ' '}", ": step must define exactly one of uses, call, relay, steps, or split"),
        ("{steps: [], split: [{uses: a}]}", ": step must define exactly one of uses, call, relay, steps, or split"),
        ("{steps: []}", ": steps must not be empty"),
        ("{split: []}", ": split must not be empty"),
        ("{relay: {to: r}, with: {a: b}}", ": with is only supported on uses steps"),
        ("{steps: [{uses: a}], with: {a: b}}", ": with is only supported on uses steps"),
        ("{split: [{uses: a}], baggage: {a: payload.b}}", ": baggage is only supported on uses steps"),
        ("{split: [{uses: a}], command: poll}", ": command is only supported on uses steps"),
        ("{uses: a, with: [b]}", ": with must be a mapping of keys to templates"),
        ("{uses: a, with: {k: {l: m}}}", ": with.k: must be a single value"),
        ("{uses: nobody}", " step \"step_1\" references unknown plugin \"nobody\""),
        ("{id: s, uses: nobody}", " step \"s\" references unknown plugin \"nobody\""),
        ("{id: s, uses: A}", " step \"s\" references unknown plugin \"A\""),
        ("{id: s, uses: a.nothing}", " step \"s\" references unknown plugin \"a.nothing\""),
        ("{id: s, uses: a, command: sync}", " step \"s\": plugin \"a\" does not support command \"sync\""),
        ("{id: s, uses: only_sync}", " step \"s\": plugin \"only_sync\" does not support command \"handle\""),
        (
            "{id: s, uses: a.poll, command: poll}",
            " step \"s\": uses \"a.poll\" already names the command; remove command",
        ),
        (
            "{id: s, uses: core.switch}",
            " step \"s\" uses \"core.switch\": core.* belongs to the gateway and can not be used",
        ),
        ("{call: q}", " references unknown pipeline \"q\""),
    ] {
        assert_eq!(only(&format!("name: p, on: x, steps: [{step}]")), format!("{at}{expected}"), "{step}");
    }
}

#[test]
fn ids_are_unique_with_those_of_switches() {
    let condition = "if: {path: payload.a, op: exists}";
    for (steps, position, id) in [
        ("{id: s, uses: a}, {split: [{id: s, uses: a}]}".to_owned(), "steps[1].split[0]", "s"),
        ("{id: g, steps: [{id: g, uses: a}]}".to_owned(), "steps[0].steps[0]", "g"),
        (format!("{{id: s, uses: a, {condition}}}, {{id: s__switch, uses: a}}"), "steps[0]", "s__switch"),
    ] {
        let expected = format!("pipelines[0].{position}: pipeline \"p\": duplicate step id \"{id}\"");
        assert_eq!(only(&format!("name: p, on: x, steps: [{steps}]")), expected);
    }
}

#[test]
fn calls_must_not_lead_back() {
    let calls = |pairs: &[(&str, &str)]| {
        let list = pairs.iter().map(|(name, target)| {
            format!("  - {{name: {name}, on: x, steps: [{{uses: a}}, {{steps: [{{call: {target}}}]}}]}}\n")
        });
        world().errors(&format!("pipelines:\n{}", list.collect::<String>()))
    };
    assert_eq!(
        calls(&[("a", "b"), ("b", "a")]),
        ["/c/config.yaml:2: pipelines[0].steps[1].steps[0]: pipeline call cycle detected: a -> b -> a"]
    );
    assert_eq!(
        calls(&[("a", "a")]),
        ["/c/config.yaml:2: pipelines[0].steps[1].steps[0]: pipeline call cycle detected: a -> a"]
    );
    assert_eq!(
        calls(&[("z", "a"), ("a", "b"), ("b", "c"), ("c", "a")]),
        ["/c/config.yaml:3: pipelines[1].steps[1].steps[0]: pipeline call cycle detected: a -> b -> c -> a"]
    );
}

#[test]
fn a_repeated_name_names_both_files() {
    let text = "pipelines: [{name: ' x ', on: e, steps: [{uses: p}]}]\n";
    let site = Site::new()
        .plugin("p", "")
        .config("plugins: {p: {enabled: true}}\ninclude: [a.yaml, more/b.yaml]\n")
        .file("a.yaml", text)
        .file("more/b.yaml", &text.replace("' x '", "x"));
    let errors = site.check().errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].message, "duplicate pipeline name \"x\" (a.yaml, more/b.yaml)");
    assert_eq!(errors[0].file, Some(site.path("more/b.yaml")));
    assert!(site.refusal().contains("duplicate pipeline name \"x\" (a.yaml, more/b.yaml)"));
    let distinct = site.file("more/b.yaml", &text.replace("' x '", "X"));
    assert!(distinct.plan().is_ok(), "names are case-sensitive");
}

#[test]
fn all_errors_are_told_by_file_then_position_and_refuse_whatever_the_gates_say() {
    let site = Site::new()
        .plugin("p", "")
        .config("plugins: {p: {enabled: true}}\ninclude: [z.yaml, b.yaml]\n")
        .file(
            "z.yaml",
            "pipelines:\n  - name: late\n    on: x\n    steps:\n      - uses: no1\n      - split:\n          - uses: p\n          - call: no2\n",
        )
        .file("b.yaml", &format!("pipelines:\n  - name: early\n    steps:\n{}", "      - uses: no\n".repeat(11)));
    let expected: Vec<_> = std::iter::once(("pipelines[1]".to_owned(), "b.yaml", 2))
        .chain((0..11).map(|step| (format!("pipelines[1].steps[{step}]"), "b.yaml", 4 + step)))
        .chain([
            ("pipelines[0].steps[0]".to_owned(), "z.yaml", 5),
            ("pipelines[0].steps[1].split[1]".to_owned(), "z.yaml", 8),
        ])
        .map(|(field, file, line)| (field, Some(site.path(file)), Some(line)))
        .collect();
    let places = |problems: Vec<ductile_model::Problem>| -> Vec<_> {
        problems.into_iter().map(|problem| (problem.field, problem.file, problem.line)).collect()
    };
    assert_eq!(places(site.check().errors), expected);
    assert_eq!(places(site.plan().unwrap_err().problems), expected);
    let plan = site.inspect().unwrap();
    assert!(plan.pipelines.is_empty());
    assert_eq!(places(plan.doctor_errors), expected);
}

#[test]
fn a_plugin_that_is_not_enabled_is_a_warning_and_with_the_gate_a_refusal() {
    let base = "plugins: {p: {enabled: false}}\npipelines: [{name: a, on: x, steps: [{id: s, uses: p}]}]\n";
    let message = "pipeline \"a\" step \"s\" uses plugin \"p\", which is discovered but not enabled";
    let site = Site::new().plugin("p", "").config(base);
    assert!(site.warnings().contains(message));
    assert_eq!(site.plan().unwrap().pipelines.len(), 1);
    let site = site.config(&format!("{base}service: {{admission: {{validate_config_on_boot: true}}}}\n"));
    assert!(site.refusal().contains(&format!("configuration validation failed: {message}")));
    let report = site.check();
    assert!(report.errors.iter().any(|error| error.message.contains(message)), "{report:?}");
    assert!(!report.warnings.iter().any(|warning| warning.message.contains(message)), "{report:?}");
}

#[test]
fn unknown_keys_are_reported_and_on_events_gets_a_hint() {
    let site = Site::new().plugin("p", "").config(
        "plugins: {p: {enabled: true}}\npipelines: [{name: a, on_events: [x], on_hook: job.failed, steps: [{uses: p, \
         retry: 3}]}]\n",
    );
    let warnings = site.warnings();
    let expected = "ignored config key \"pipelines[0].on_events\"; not supported: write one pipeline per event type";
    assert!(warnings.contains(expected), "{warnings}");
    assert!(warnings.contains("ignored config key \"pipelines[0].steps[0].retry\""), "{warnings}");
    assert!(!warnings.contains("on_hook"), "{warnings}");
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    for (fields, expected) in [
        ("max_depth: deep", "pipelines[0].max_depth must be a whole number, not \"deep\""),
        ("execution_mode: later", "pipelines[0].execution_mode must be one of async, synchronous, not \"later\""),
        ("steps: {uses: p}", "pipelines[0].steps must be a list"),
        ("timeout: 5", "pipelines[0].timeout is wrong: duration \"5\" needs a unit"),
    ] {
        let refusal = Site::new().config(&format!("pipelines: [{{name: a, on: x, {fields}}}]\n")).refusal();
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn routes_name_known_plugins_and_do_not_lead_back() {
    let errors = |routes: &str| world().errors(&format!("routes: [{routes}]\n"));
    assert_eq!(
        errors("{from: nobody, event_type: e, to: a}"),
        ["/c/config.yaml:1: routes[0].from references unknown plugin \"nobody\""]
    );
    assert_eq!(
        errors("{from: a, event_type: e, to: b}, {from: b, event_type: f, to: a}"),
        ["/c/config.yaml:1: routes[0]: route cycle detected: a -> b -> a"]
    );
    assert_eq!(
        errors("{from: a, event_type: e, to: a}"),
        ["/c/config.yaml:1: routes[0]: route cycle detected: a -> a"]
    );
    let site = Site::new().plugin("p", "").plugin("q", "");
    let site = site.config("plugins: {p: {enabled: true}}\nroutes: [{from: p, event_type: e, to: q}]\n");
    let refusal = site.refusal();
    assert!(
        refusal.contains("routes[0].to references plugin \"q\", which is not configured under plugins"),
        "{refusal}"
    );
}

#[test]
fn hooks_that_start_each_other_are_worth_a_warning() {
    let world = |a: bool| {
        World::new(&["plain"]).plugin("a", &["handle"], json!({"enabled": true, "notify_on_complete": a})).plugin(
            "b",
            &["handle"],
            json!({"enabled": true, "notify_on_complete": true}),
        )
    };
    let cycles = |world: &World, text: &str| -> Vec<String> {
        let compiled = world.compile(text);
        assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
        assert!(compiled.warnings.iter().all(|warning| warning.category == "hook_cycles"));
        compiled.warnings.into_iter().map(|warning| warning.message).collect()
    };
    let message = |path: &str| {
        format!(
            "plugins with notify_on_complete start each other through hook pipelines: {path}; only service.hook_max_depth \
             ends that"
        )
    };
    let called = "pipelines:\n  - {name: h, on-hook: job.failed, from_plugin: a, steps: [{call: inner}]}\n  - {name: \
                  inner, on: x, steps: [{split: [{uses: plain}, {uses: b}]}]}\n  - {name: back, on_hook: job.finished, \
                  from_plugin: b, steps: [{uses: a}]}\n";
    assert_eq!(cycles(&world(true), called), [message("a -> b -> a")]);
    assert!(cycles(&world(false), called).is_empty());
    let own = "pipelines: [{name: h, on-hook: job.completed, steps: [{uses: a}]}]\n";
    assert_eq!(cycles(&world(true), own), [message("a -> a")]);
    let gated =
        "pipelines: [{name: h, on-hook: job.completed, steps: [{uses: a, if: {path: payload.x, op: exists}}]}]\n";
    assert!(cycles(&world(true), gated).is_empty(), "a switch tells nobody about its end");
}

/// Pipelines of which each calls the one before it twice, side by side.
fn doubling(last: usize, first_step: &str, trigger: &str) -> String {
    let first = format!("pipelines:\n  - {{name: p0, {trigger}, steps: [{first_step}]}}\n");
    (1..=last).fold(first, |text, n| {
        let call = format!("{{call: p{}}}", n - 1);
        text + &format!("  - {{name: p{n}, {trigger}, steps: [{{split: [{call}, {call}]}}]}}\n")
    })
}

#[test]
fn calls_that_multiply_without_limit_are_refused_and_not_tried() {
    let world = World::new(&[]).plugin("a", &["handle"], json!({"enabled": true, "notify_on_complete": true}));
    for trigger in ["on: e", "on-hook: job.failed"] {
        let fits = world.compile(&doubling(9, "{uses: a}", trigger)).pipelines;
        assert_eq!(fits.get("p9").unwrap().entry_count, 512);
        assert_eq!(
            world.errors(&doubling(200, "{uses: a}", trigger)),
            [
                "/c/config.yaml:12: pipelines[10].steps[0]: pipeline \"p10\": one event would make 1024 jobs at once here, \
              more than 1000: use fewer branches, or calls of pipelines that begin with fewer steps"
            ]
        );
    }
}

#[test]
fn jobs_that_one_event_makes_are_counted_behind_conditions_and_steps_too() {
    let world = World::new(&["a"]);
    let gate = "if: {path: payload.x, op: exists}";
    let gated = format!("{{uses: a, {gate}}}");
    assert_eq!(world.pipelines(&doubling(3, &gated, "on: e")).get("p3").unwrap().entry_count, 8);
    let wide = format!("[{}]", vec!["{uses: a}"; 1001].join(", "));
    for steps in [
        format!("[{{split: {wide}, {gate}}}]"),
        format!("[{{uses: a}}, {{split: {wide}}}]"),
        format!("[{{steps: [{{uses: a}}, {{split: {wide}}}]}}]"),
    ] {
        let errors = world.errors(&format!("pipelines: [{{name: p, on: e, steps: {steps}}}]\n"));
        assert!(errors.len() == 1 && errors[0].contains("would make 1001 jobs at once"), "{errors:?}");
    }
    let fits = format!("[{{split: [{}]}}, {{split: [{{uses: a}}, {{uses: a}}]}}]", vec!["{uses: a}"; 1000].join(", "));
    let fits = world.pipelines(&format!("pipelines: [{{name: p, on: e, steps: {fits}}}]\n"));
    assert_eq!(fits.get("p").unwrap().entry_count, 1000);
}

//! What needs discovered plugins.

use super::site::Site;
use crate::Unavailable;

#[test]
fn what_can_run_and_why_something_can_not() {
    let site = Site::new()
        .plugin("echo", "")
        .plugin("off", "")
        .plugin("spare", "")
        .plugin("needy", "config_keys: {required: [a, b, c]}\n")
        .config(
            "plugins: {echo: {enabled: true}, off: {enabled: false}, twin: {enabled: true, uses: echo, config: {x: 1}}, \
             needy: {enabled: true, config: {a: 1, b: null}}}\n",
        );
    let plan = site.plan().unwrap();
    let why = |plugin: &str, command: &str| plan.runnable(plugin, command).unwrap_err().to_string();
    assert_eq!(plan.runnable("echo", "poll").unwrap().2.name, "poll");
    let (twin, config, _) = plan.runnable("twin", "handle").unwrap();
    assert_eq!((twin.name.as_str(), config.config.get()), ("twin", r#"{"x":1}"#));
    assert_eq!(why("nope", "poll"), "plugin \"nope\" not found in registry");
    assert_eq!(why("off", "poll"), "plugin \"off\" is not enabled");
    assert_eq!(why("spare", "poll"), "plugin \"spare\" is not enabled");
    assert_eq!(why("needy", "poll"), "plugin \"needy\" is missing required config keys: b, c");
    assert!(matches!(plan.runnable("echo", "dance"), Err(Unavailable::NoCommand { .. })));
    let errors: Vec<_> = plan.doctor_errors.iter().map(|error| (error.category, error.field.as_str())).collect();
    assert_eq!(errors, [("plugin_refs", "plugins.needy.config")]);
    assert!(plan.warnings.iter().any(|w| w.message == "plugin \"spare\" discovered but not referenced in config"));
}

#[test]
fn a_configured_plugin_that_was_not_found_is_a_doctor_error_with_its_place() {
    let site = Site::new().config("plugins:\n  mailer: {enabled: true}\n  gone: {enabled: false}\n");
    let plan = site.plan().unwrap();
    assert_eq!(plan.doctor_errors.len(), 1);
    let error = &plan.doctor_errors[0];
    assert_eq!(error.message, "plugin \"mailer\" in config but not found in configured plugin roots");
    assert_eq!((error.field.as_str(), error.line), ("plugins.mailer", Some(3)));
    let report = site.check();
    assert_eq!(report.errors, plan.doctor_errors);
}

#[test]
fn a_rejected_candidate_explains_a_missing_plugin() {
    let site = Site::new().plugin("mailer", "protocol: 1\n").config("plugins: {mailer: {enabled: true}}\n");
    let plan = site.plan().unwrap();
    assert!(plan.doctor_errors[0].message.contains("was left out"), "{:?}", plan.doctor_errors);
}

#[test]
fn broken_aliases_refuse() {
    for text in ["a: {enabled: true, uses: a}", "a: {enabled: true, uses: none}"] {
        let site = Site::new().config(&format!("plugins: {{{text}}}\n"));
        assert!(site.plan().is_err(), "{text}");
        assert!(!site.check().errors.is_empty(), "{text}");
    }
}

#[test]
fn lanes_follow_what_is_written_then_the_manifest_then_the_workers() {
    let site = Site::new().plugin("serial", "concurrency_safe: false\n").plugin("free", "").config(
        "service: {max_workers: 4}\nplugins: {serial: {enabled: true}, free: {enabled: true}, two: {enabled: true, uses: \
         serial, parallelism: 2}}\n",
    );
    let plan = site.plan().unwrap();
    assert_eq!((plan.lane_cap("serial"), plan.lane_cap("free"), plan.lane_cap("two")), (1, 4, 2));
    let about: Vec<_> = plan.warnings.iter().filter(|w| w.message.contains("concurrency_safe: false")).collect();
    assert_eq!(about.len(), 1);
    assert!(about[0].message.contains("\"two\""));
    assert_eq!(site.snapshot()["plugins"]["serial"]["parallelism"].to_string(), "1");
    let site = Site::new().config("service: {max_workers: 4}\nplugins: {p: {enabled: false, parallelism: 5}}\n");
    assert!(site.refusal().contains("plugins.p.parallelism 5 must be from 1 to service.max_workers 4"));
}

#[test]
fn plugin_entries_are_checked_without_the_plugin_too() {
    let site = Site::new().config("plugins: {p: {}}\n");
    assert!(site.warnings().contains("plugin \"p\" does not say whether it is enabled"));
    let site = Site::new().config("plugins: {p: {enabled: false, run_as: nobody}}\n");
    assert!(site.refusal().contains("account \"nobody\" is not defined"));
    let site = Site::new().config("plugins: {p: {enabled: true, schedule: {every: 1m}}}\n");
    assert!(site.refusal().contains("schedule is no longer supported; use schedules[]"));
    let site = Site::new().config("plugins: {p: {enabled: false, schedule: {every: 1m}}}\n");
    assert!(site.warnings().contains("schedule is no longer supported; use schedules[]"));
    let site = Site::new().config("accounts: {a: {uid: 5}}\n");
    assert!(site.refusal().contains("accounts.a: gid is required unless user is given"));
}

#[test]
fn fingerprints_of_plugins_say_why_they_are_not_there() {
    let site =
        Site::new().plugin("echo", "").config("plugins: {twin: {enabled: true, uses: echo}, gone: {enabled: false}}\n");
    let rows: serde_json::Value = serde_json::from_str(&site.plan().unwrap().snapshot.plugin_fingerprints).unwrap();
    assert_eq!(
        rows,
        serde_json::json!([
            {"plugin": "gone", "enabled": false, "available": false,
             "unavailable_reason": "configured plugin was not discovered"},
            {"plugin": "twin", "enabled": true, "uses": "echo", "available": false,
             "unavailable_reason": "configured plugin missing from .checksums plugin_fingerprints"},
        ])
    );
}

#[test]
fn scopes_are_checked_against_the_plugins() {
    let site = Site::new().secret("tok", "v").plugin("echo", "").config(
        "plugins: {echo: {enabled: true}}\napi: {enabled: true, auth: {tokens: [{secret_ref: tok, scopes: ['*', \
         'echo:rw', 'ghost:ro', 'echo:deny:dance']}]}}\n",
    );
    let plan = site.plan().unwrap();
    let fields: Vec<_> = plan.doctor_errors.iter().map(|e| (e.category, e.field.as_str())).collect();
    assert_eq!(fields, [("token_scopes", "api.auth.tokens[0].scopes[2]")]);
    assert!(plan.warnings.iter().any(|w| w.field == "api.auth.tokens[0].scopes[3]"));
}

//! What came from the environment is named and never shown.

use super::site::Site;

const VALUE: &str = "sk-live 1/2";

/// Everything that a load of this configuration tells, `${X}` being a secret.
fn told(text: &str) -> String {
    let site = Site::new()
        .var("X", VALUE)
        .secret("s", "value-of-s")
        .plugin("echo", "")
        .config(&format!("secrets: {{vault_file: v}}\n{text}"));
    let report = site.check();
    let started = match site.plan() {
        Ok(plan) => plan.warnings.iter().map(|w| format!("{w} {}", w.field)).collect::<Vec<_>>().join("\n"),
        Err(refusal) => refusal.lines().collect::<Vec<_>>().join("\n"),
    };
    let checked = report.errors.iter().chain(&report.warnings).map(|p| format!("{p} {}", p.field));
    format!("{started}\n{}", checked.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_value_from_the_environment_is_in_no_message() {
    let token = |rest: &str| format!("api: {{enabled: true, auth: {{tokens: [{rest}]}}}}\n");
    let schedule = |rest: &str| format!("plugins: {{echo: {{enabled: true, schedules: [{{{rest}}}]}}}}\n");
    for text in [
        token("{secret_ref: \"${X}\"}"),
        token("{name: \"${X}\", secret_ref: s}, {name: \"${X}\", secret_ref: s}"),
        token("{secret_ref: s, scopes: [~, jobs:ro, \"${X}\"]}"),
        token("{secret_ref: s, scopes_file: \"${X}\"}"),
        token("{secret_ref: s, scopes_file: \"~${X}\"}"),
        token("{secret_ref: s, scopes_file: config.yaml, scopes_hash: \"${X}\"}"),
        token("{secret_ref: s, \"${X}\": 1}"),
        "service: {name: \"${X}\"}\n".to_owned(),
        "service: {plugin_env_passthrough: [~, A, \"${X}\"]}\n".to_owned(),
        "service: {log_level: \"${X}\"}\n".to_owned(),
        "api: {allowed_origins: [~, '*', \"${X}\"]}\n".to_owned(),
        format!("api: {{management_socket: '/{}/${{X}}'}}\n", "x".repeat(100)),
        "plugins: {p: {enabled: false, run_as: \"${X}\"}}\n".to_owned(),
        "plugins: {p: {enabled: true, uses: \"${X}\"}}\n".to_owned(),
        "plugins: {p: {enabled: false, uses: \"${X}\"}}\n".to_owned(),
        "plugins: {p: {enabled: false, vault_principal: \"${X}\"}}\n".to_owned(),
        "plugins: {\"${X}\": {enabled: true}}\n".to_owned(),
        "plugins: {\"${X}\": {parallelism: 9999, run_as: no, schedule: {}, odd: 1, retry: 5}}\n".to_owned(),
        "plugins: {\"${X}\": {enabled: true, uses: \"${X}\"}}\n".to_owned(),
        "plugins: {\"${X}\": {enabled: true, uses: echo, requires_vault: true, config: {a: \"${UNSET}\"}}}\n"
            .to_owned(),
        "plugins: {\"${X}\": {enabled: true, uses: echo, requires_vault: true, schedules: [{}]}}\n".to_owned(),
        "plugins: {\"${X}\": {enabled: true, uses: echo, schedules: [{every: 1s, command: walk}]}}\n".to_owned(),
        "plugins: {echo: {enabled: true, schedules: [{every: 1h, command: \"${X}\"}]}}\n".to_owned(),
        "plugins: {gone: {enabled: true, schedules: [{every: 1h, command: \"${X}\"}]}}\n".to_owned(),
        "plugins: {\"${X}\": {enabled: true, schedules: [{cron: \"0 0 * * ${X}\"}, 1, {after: x}]}}\n".to_owned(),
        schedule("every: \"${X}\""),
        schedule("at: \"${X}\""),
        schedule("after: \"${X}\""),
        schedule("every: 1h, id: \"${X}:\""),
        schedule("every: 1h, id: \"${X}\"}, {every: 1h, id: \"${X}\""),
        schedule("every: 1h, jitter: \"${X}\""),
        schedule("every: 1h, timezone: \"${X}\""),
        schedule("every: 1h, only_between: \"${X}\""),
        schedule("every: 1h, preferred_window: {start: \"${X}\", end: 08:00}"),
        schedule("every: 1h, not_on: [\"${X}\"]"),
        schedule("every: 1h, catch_up: \"${X}\""),
        schedule("every: 1h, if_running: \"${X}\""),
        schedule("every: 1h, payload: {\"${X}\": .inf}"),
        "plugins: {\"${X}\": {enabled: true, uses: echo, requires_vault: true, parallelism: 1}}\n".to_owned(),
        "plugins: {p: {enabled: false, config: {a_ref: \"${X}\"}}}\n".to_owned(),
        "plugins: {p: {enabled: false, config: {\"${X}_ref\": [1]}}}\n".to_owned(),
        "plugins: {p: {enabled: false, config: {\"${X}\": .inf}}}\n".to_owned(),
        "accounts: {\"${X}\": {uid: 5}}\n".to_owned(),
        "pipelines: [{name: \"${X}\"}, {name: \"${X}\"}]\n".to_owned(),
        "instances: [{name: \"${X}\", base_url: \"${X}\"}]\n".to_owned(),
        "webhooks: [{path: \"${X}\", secret_ref: \"${X}\"}]\n".to_owned(),
        "environment_vars: {include: [\"${X}\"]}\n".to_owned(),
        "environment_vars: {include: [\"~${X}\"]}\n".to_owned(),
    ] {
        let told = told(&text);
        assert!(!told.contains("sk-live"), "{text}: {told}");
        assert!(told.contains("${X}") || told.contains("variable X"), "{text}: {told}");
    }
}

#[test]
fn a_repeated_name_is_shown_as_it_is_written() {
    let site = Site::new()
        .var("X", VALUE)
        .config("include: [b.yaml]\nplugins: {\"${X}\": {enabled: false}}\n")
        .file("b.yaml", "plugins: {\"${X}\": {enabled: false}}\n");
    let warnings = site.warnings();
    assert!(warnings.contains("plugins.${X} is defined in") && !warnings.contains("sk-live"), "{warnings}");
    let site = Site::new().var("X", VALUE).secret(VALUE, "v").config("tokens: [{name: \"${X}\", key: a}]\n");
    let warnings = site.warnings();
    assert!(warnings.contains("secret \"${X}\" is in the vault and in tokens[]"), "{warnings}");
    assert!(!warnings.contains("sk-live"), "{warnings}");
}

#[test]
fn the_record_names_a_reference_as_it_is_written() {
    let site = Site::new().var("API_TOKEN", "tok-name").secret("tok-name", "value-1").plugin("echo", "").config(
        "api: {enabled: true, auth: {tokens: [{secret_ref: \"${API_TOKEN}\"}]}}\nwebhooks: [{path: /a, plugin: p, \
             scheme: github, secret_ref: \"${API_TOKEN}\"}]\nplugins: {\"${API_TOKEN}\": {enabled: true, uses: echo, \
             config: {a_ref: tok-name}}}\n",
    );
    let record = site.plan().unwrap().snapshot;
    assert!(!record.secret_fingerprints.contains("\"tok-name\",\"purpose\":\"api"), "{record:?}");
    let rows: serde_json::Value = serde_json::from_str(&record.secret_fingerprints).unwrap();
    let row = |purpose: &str| rows.as_array().unwrap().iter().find(|row| row["purpose"] == purpose).unwrap().clone();
    for purpose in ["api.auth.tokens[0].secret_ref", "webhooks.endpoints[0].secret_ref"] {
        assert_eq!(row(purpose)["ref"], "${API_TOKEN}");
        assert_eq!(row(purpose)["present"], true);
    }
    assert_eq!(row("plugins.${API_TOKEN}.config.a_ref")["ref"], "tok-name");
    assert!(!record.plugin_fingerprints.contains("tok-name"), "{}", record.plugin_fingerprints);
}

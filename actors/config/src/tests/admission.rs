//! Gates, the check report, reload rules.

use super::site::Site;
use crate::{reload_refusals, restart_changes};

const TWO_KEYS: &str = "log_level: debug\nplugins:\n  echo:\n    enabled: true\n    timeout: 5s\n";

#[test]
fn unknown_keys_are_warnings_and_refuse_with_the_gate() {
    let site = Site::new().plugin("echo", "").config(TWO_KEYS);
    let report = site.check();
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    let found: Vec<_> = report.warnings.iter().filter(|w| w.category == "strict_decode").collect();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].field.as_str(), found[0].line), ("log_level", Some(2)));
    assert_eq!((found[1].field.as_str(), found[1].line), ("plugins.echo.timeout", Some(6)));
    let site = site.config(&format!("{TWO_KEYS}service: {{admission: {{validate_config_on_boot: true}}}}\n"));
    let refusal = site.refusal();
    assert!(refusal.contains("configuration validation failed: 2 ignored config key(s): "), "{refusal}");
    assert!(refusal.contains("\"log_level\"") && refusal.contains("\"plugins.echo.timeout\""), "{refusal}");
    assert!(refusal.contains("validate_config_on_boot"), "{refusal}");
    let report = site.check();
    assert_eq!(report.errors.len(), 1);
    assert!(!report.warnings.iter().any(|w| w.category == "strict_decode"));
    assert!(site.inspect().is_ok());
}

#[test]
fn doctor_errors_refuse_with_the_gate() {
    let text = "plugins: {mailer: {enabled: true}}\nservice: {admission: {validate_config_on_boot: true}}\n";
    let site = Site::new().config(text);
    assert!(
        site.refusal().contains(
            "configuration validation failed: plugin \"mailer\" in config but not found in configured plugin roots"
        ),
        "{}",
        site.refusal()
    );
    assert_eq!(site.check().errors.len(), 1, "{:?}", site.check().errors);
}

#[test]
fn gates_that_this_version_can_not_keep_are_refused() {
    for gate in ["verify_integrity_on_boot", "fail_on_drift", "fail_on_sidedoor"] {
        let site = Site::new().config(&format!("service: {{admission: {{{gate}: true}}}}\n"));
        let refusal = site.refusal();
        assert!(refusal.contains(&format!("service.admission.{gate} is on, but this version can not verify")));
        assert!(site.inspect().is_ok());
        assert!(!site.check().errors.is_empty());
    }
    let site = Site::new().config("service: {strict_mode: true}\n");
    assert!(site.refusal().contains("fail_on_drift"));
    let admission = site.inspect().unwrap().config.service.admission;
    assert!(admission.validate_config_on_boot && admission.require_api_auth && !admission.refuse_cleartext);
    let site = Site::new()
        .config("include: [a.yaml]\nservice: {strict_mode: true}\n")
        .file("a.yaml", "service: {admission: {require_api_auth: true}}\n");
    let plan = site.plan().unwrap();
    assert!(!plan.config.service.admission.fail_on_drift);
    assert!(site.warnings().contains("service.strict_mode is deprecated and ignored"));
}

#[test]
fn an_address_that_others_can_reach_warns_or_is_refused() {
    let open = |rest: &str| {
        Site::new().secret("tok", "v").config(&format!(
            "api: {{enabled: true, listen: '0.0.0.0:1', auth: {{tokens: [{{secret_ref: tok, scopes: []}}]}}}}\n{rest}"
        ))
    };
    let warnings = open("").warnings();
    assert!(warnings.contains("bearer tokens travel in cleartext; put a TLS-terminating proxy in front"), "{warnings}");
    let refusal = open("service: {admission: {refuse_cleartext: true}}\n").refusal();
    assert!(refusal.starts_with("refused: api: api.listen"), "{refusal}");
    let local = Site::new().empty_vault().config("api: {enabled: true, listen: 'localhost:1'}\n");
    assert!(!local.warnings().contains("cleartext"));
}

#[test]
fn findings_are_told_in_a_fixed_order() {
    let site = Site::new()
        .plugin("unused", "")
        .config("zzz: 1\nservice: {name: Bad, tick_interval: 500ms}\nplugins: {p: {config: {a: \"${U}\"}}}\n");
    let categories: Vec<_> = site.check().warnings.iter().map(|w| w.category).collect();
    assert_eq!(categories, ["service", "service", "plugin_refs", "env_vars", "unused", "strict_decode"]);
}

#[test]
fn walls_that_this_version_can_not_build_are_refused_and_never_left_out() {
    for (text, field) in [
        ("accounts: {low: {user: nobody}}\n", "accounts"),
        ("accounts: {low: {user: nobody}}\nplugins: {p: {enabled: true, run_as: low}}\n", "plugins.p.run_as"),
        ("service: {no_new_privs: true}\n", "service.no_new_privs"),
    ] {
        let site = Site::new().plugin("p", "").config(text);
        let refusal = site.refusal();
        assert!(refusal.contains(&format!("{field} is set")), "{refusal}");
        assert!(site.check().errors.iter().any(|error| error.field == field), "{text}");
    }
    // Told among the others, before what only a file can be guilty of.
    let site = Site::new()
        .config(
            "include: [l.yaml]\naccounts: {low: {user: nobody}}\nservice: {admission: {fail_on_drift: true, \
             validate_config_on_boot: true}}\nzzz: 1\n",
        )
        .file("real.yaml", "");
    std::os::unix::fs::symlink(site.path("real.yaml"), site.path("l.yaml")).unwrap();
    let categories: Vec<_> = site.check().errors.iter().map(|error| error.category).collect();
    assert_eq!(categories, ["strict_decode", "integrity", "privsep", "symlinks"]);
}

#[test]
fn keys_that_are_fixed_for_the_process_are_named() {
    let plan = |text: &str| Site::new().config(text).inspect().unwrap();
    let base = "state: {path: /x/a.db}\n";
    let old = plan(base);
    assert!(restart_changes(&old, &plan("database: {path: /x/./a.db}\nservice: {name: other}\n")).is_empty());
    assert_eq!(restart_changes(&old, &plan("state: {path: /x/b.db}\n")), ["state.path"]);
    let new = plan(&format!("{base}service: {{no_new_privs: true, cgroups: off}}\n"));
    assert_eq!(restart_changes(&old, &new), ["service.no_new_privs", "service.cgroups"]);
    assert_eq!(reload_refusals(&old, &new)[0].message, "changes to service.no_new_privs require a full restart");
}

#[test]
fn the_running_gates_stay_on_for_the_configuration_that_drops_them() {
    let dir = "state: {path: /x/a.db}\n";
    let plan = |text: &str| Site::new().secret("tok", "v").config(&format!("{dir}{text}")).plan().unwrap();
    let old = plan("service: {admission: {validate_config_on_boot: true}}\n");
    let refusals = reload_refusals(&old, &plan("zzz: 1\n"));
    assert!(refusals[0].message.contains("1 ignored config key(s)"), "{refusals:?}");
    assert!(reload_refusals(&old, &plan("")).is_empty());
    let token = "api: {enabled: true, auth: {tokens: [{secret_ref: tok, scopes: []}]}}\n";
    let gate = "service: {admission: {require_api_auth: true}}\n";
    let serving = plan(&format!("{token}{gate}"));
    let bare = plan("api: {enabled: true}\n");
    assert!(reload_refusals(&serving, &bare)[0].message.contains("no API tokens configured"));
    assert!(reload_refusals(&plan(token), &bare).is_empty());
    assert!(reload_refusals(&bare, &plan(&format!("api: {{enabled: true}}\n{gate}"))).is_empty());
}

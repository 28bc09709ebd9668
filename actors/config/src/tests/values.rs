//! Variables, types and rules of the merged configuration.

use std::time::Duration;

use super::site::Site;

#[test]
fn a_value_can_not_add_keys_to_a_file() {
    let site = Site::new()
        .var("EVIL", "x\nplugins: {}\n# \"")
        .config("plugins:\n  p:\n    enabled: false\n    config:\n      message: ${EVIL}\n      list: [${EVIL}, ok]\n");
    let plan = site.plan().unwrap();
    let config: serde_json::Value = serde_json::from_str(plan.config.plugins["p"].config.get()).unwrap();
    assert_eq!(config["message"], "x\nplugins: {}\n# \"");
    assert_eq!(config["list"], serde_json::json!(["x\nplugins: {}\n# \"", "ok"]));
    assert_eq!(config.as_object().unwrap().len(), 2);
}

#[test]
fn an_unquoted_scalar_is_typed_after_substitution_and_a_quoted_one_stays_text() {
    let site =
        Site::new().var("N", "4").var("YES", "yes").config("service: {max_workers: ${N}, allow_symlinks: ${YES}}\n");
    let config = site.plan().unwrap().config;
    assert_eq!((config.service.max_workers, config.service.allow_symlinks), (4, true));
    let site = Site::new().var("N", "4").config("service: {max_workers: \"${N}\"}\n");
    assert!(site.refusal().contains("service.max_workers must be a whole number"));
}

#[test]
fn numbers_of_a_plugin_keep_their_digits_and_words_stay_words() {
    let site = Site::new().config(
        "plugins: {p: {enabled: false, config: {big: 123456789012345678901234567890, f: 1.50, y: yes, t: true, n: null, \
         on: off}}}\n",
    );
    assert_eq!(
        site.plan().unwrap().config.plugins["p"].config.get(),
        r#"{"big":123456789012345678901234567890,"f":1.50,"y":"yes","t":true,"n":null,"on":"off"}"#
    );
}

#[test]
fn a_left_over_variable_is_an_error_in_an_enabled_plugin_and_a_warning_elsewhere() {
    let site = Site::new().plugin("mailer", "").config(
        "plugins:\n  mailer:\n    enabled: true\n    config: {list: [\"${UNSET_VAR}\"], m: {n: [{o: \"${OTHER}\"}]}}\n",
    );
    let refusal = site.refusal();
    assert!(refusal.contains("plugin \"mailer\": environment variable ${UNSET_VAR} is not set"), "{refusal}");
    assert!(refusal.contains("plugin \"mailer\": environment variable ${OTHER} is not set"), "{refusal}");
    assert!(refusal.contains("config.yaml:5"), "{refusal}");
    let site = Site::new().config("plugins: {m: {enabled: false, config: {a: \"${UNSET_VAR}\"}}}\n");
    let plan = site.plan().unwrap();
    let warning = plan.warnings.iter().find(|warning| warning.category == "env_vars").unwrap();
    assert!(warning.message.contains("${UNSET_VAR}"));
    assert_eq!(warning.field, "plugins.m.config.a");
    assert_eq!(warning.line, Some(2));
}

#[test]
fn a_left_over_variable_is_an_error_in_paths_addresses_urls_and_references() {
    for text in [
        "state: {path: \"${U}/x.db\"}\n",
        "api: {listen: \"${U}:80\"}\n",
        "instances: [{name: a, base_url: \"https://${U}\", ingress_path: /x, secret_ref: s}]\n",
        "instances: [{name: a, base_url: \"https://h\", ingress_path: /x, secret_ref: \"${U}\"}]\n",
        "service: {max_workers: ${U}}\n",
    ] {
        let site = Site::new().secret("s", "v").config(text);
        assert!(site.refusal().contains("environment variable ${U} is not set"), "{text}: {}", site.refusal());
    }
    let site = Site::new().var("U", "").config("service: {name: \"a${U}\"}\n");
    assert_eq!(site.plan().unwrap().config.service.name, "a");
}

#[test]
fn durations_take_days_and_refuse_bare_numbers() {
    let site = Site::new().config("service: {job_log_retention: 30d}\n");
    assert_eq!(site.snapshot()["service"]["job_log_retention"], "720h0m0s");
    let site = Site::new().config("service: {tick_interval: 30}\n");
    assert!(site.refusal().contains("duration \"30\" needs a unit"), "{}", site.refusal());
    let site = Site::new().config("service: {tick_interval: 50ms}\n");
    assert!(site.refusal().contains("service.tick_interval 50ms is below 100ms"), "{}", site.refusal());
    let site = Site::new().config("service: {tick_interval: 500ms}\n");
    assert!(site.warnings().contains("below 1s"));
    let site = Site::new().config("service: {tick_interval: -1s}\n");
    assert!(site.refusal().contains("is negative"));
}

#[test]
fn zero_asks_for_the_default_unless_it_has_a_meaning() {
    let site = Site::new().config(
        "service: {dedupe_ttl: 0, drain_timeout: 0, hook_max_depth: 0}\napi: {max_queue_depth: 0, max_event_streams: \
         0}\nplugins: {p: {enabled: false, retry: {max_attempts: 0, backoff_base: 0s}, timeouts: {handle: 0, own: 0}}}\n",
    );
    let config = site.plan().unwrap().config;
    assert_eq!(config.service.dedupe_ttl, Duration::from_secs(86_400));
    assert_eq!(config.service.drain_timeout, Duration::ZERO);
    assert_eq!((config.service.hook_max_depth, config.api.max_queue_depth, config.api.max_event_streams), (0, 0, 64));
    let plugin = &config.plugins["p"];
    assert_eq!((plugin.retry.max_attempts, plugin.retry.backoff_base), (4, Duration::from_secs(30)));
    assert_eq!(plugin.timeouts.of("handle"), Duration::from_secs(120));
    assert_eq!(plugin.timeouts.of("own"), Duration::from_secs(60));
    for text in ["service: {max_workers: 0}\n", "api: {max_concurrent_sync: 0}\n", "api: {max_body_size: 0}\n"] {
        assert!(Site::new().config(text).refusal().contains("must be"), "{text}");
    }
}

#[test]
fn defaults_apply_per_field() {
    let site =
        Site::new().config("plugins: {p: {enabled: false, timeouts: {handle: 5m}, retry: {max_attempts: 2}}, q:}\n");
    let config = site.plan().unwrap().config;
    let plugin = &config.plugins["p"];
    assert_eq!(plugin.timeouts.of("handle"), Duration::from_secs(300));
    assert_eq!(plugin.timeouts.of("poll"), Duration::from_secs(60));
    assert_eq!((plugin.retry.max_attempts, plugin.retry.backoff_base), (2, Duration::from_secs(30)));
    assert_eq!(config.plugins["q"].config.get(), "{}");
    assert_eq!(config.plugins["q"].vault_principal, None);
    assert_eq!(site.snapshot()["plugins"]["q"]["vault_principal"], "q");
}

#[test]
fn rules_between_keys_name_the_values() {
    let site = Site::new().config("service: {job_queue_retention: 1h, dedupe_ttl: 2h}\n");
    let refusal = site.refusal();
    assert!(refusal.contains("service.job_queue_retention 1h0m0s must be at least service.dedupe_ttl 2h0m0s"));
    let site = Site::new().config("service: {plugin_env_passthrough: [OK, A=b, 1x, LISTEN_FDS]}\n");
    let refusal = site.refusal();
    assert!(refusal.contains("service.plugin_env_passthrough[1] must be the name of a variable"), "{refusal}");
    assert!(!refusal.contains("A=b"), "{refusal}");
    assert!(refusal.contains("service.plugin_env_passthrough[2] \"1x\""), "{refusal}");
    let site = Site::new().config("service: {plugin_env_passthrough: [LISTEN_FDS]}\n");
    assert!(site.warnings().contains("LISTEN_FDS is never passed to plugins"));
    for name in ["core", "webhook:/x", "Upper"] {
        let site = Site::new().config(&format!("service: {{name: '{name}'}}\n"));
        assert!(site.warnings().contains("service.name"), "{name}");
    }
    let site = Site::new().file("config.yaml", "plugin_roots: [' ']\n");
    assert!(site.refusal().contains("plugin_roots is required"));
    let site = Site::new().config("api: {allowed_origins: ['*', 'https://a.b/']}\n");
    assert!(site.refusal().contains("api.allowed_origins[1]"));
    let site = Site::new().config(&format!("api: {{management_socket: /{}}}\n", "x".repeat(103)));
    assert!(site.refusal().contains("api.management_socket"));
    let site = Site::new().config(&format!("api: {{management_socket: /{}}}\n", "x".repeat(102)));
    assert!(site.plan().is_ok());
    let site = Site::new()
        .config("pipelines: [{name: a, on: x}]\ninclude: [p.yaml]\n")
        .file("p.yaml", "pipelines: [{name: a, on: y}]\n");
    let refusal = site.refusal();
    assert!(refusal.contains("duplicate pipeline name \"a\" (config.yaml, p.yaml)"), "{refusal}");
}

#[test]
fn the_short_form_of_the_listen_address_counts_when_it_stands_alone() {
    let site = Site::new().config("service: {api_port: 9000}\n");
    assert_eq!(site.plan().unwrap().config.api.listen.to_string(), "127.0.0.1:9000");
    let site = Site::new().config("service: {api_port: 9000}\napi: {listen: '[::1]:0'}\n");
    assert_eq!(site.plan().unwrap().config.api.listen.to_string(), "[::1]:0");
    assert!(site.warnings().contains("service.api_port is ignored"));
    let site = Site::new().config("service: {api_port: 0}\n");
    assert!(site.refusal().contains("from 1 to 65535"));
}

#[test]
fn a_rate_limit_without_burst_gets_twice_its_rate() {
    let site = Site::new().config("api: {rate_limit: {requests_per_second: 2.5}}\n");
    let limit = site.plan().unwrap().config.api.rate_limit.unwrap();
    assert_eq!((limit.requests_per_second, limit.burst), (2.5, 5));
    assert_eq!(Site::new().plan().unwrap().config.api.rate_limit, None);
}

#[test]
fn webhooks_may_be_a_bare_list_of_endpoints_in_any_file() {
    let site = Site::new()
        .secret("s", "v")
        .config("include: [w.yaml]\nwebhooks: {max_in_flight: 3}\n")
        .file("w.yaml", "webhooks:\n  - {path: /a, plugin: p, secret_ref: s, scheme: github}\n");
    let snapshot = site.snapshot();
    assert_eq!(snapshot["webhooks"]["max_in_flight"].to_string(), "3");
    assert_eq!(snapshot["webhooks"]["endpoints"][0]["name"], "/a");
    assert_eq!(snapshot["webhooks"]["endpoints"][0]["tolerance"], "5m0s");
}

#[test]
fn two_keys_that_become_one_are_refused() {
    let site = Site::new().var("A", "x").config("plugins: {p: {enabled: false, config: {x: 1, \"${A}\": 2}}}\n");
    assert!(site.refusal().contains("written twice after its variables are replaced"));
}

#[test]
fn a_default_socket_path_that_is_too_long_only_matters_when_it_is_used() {
    let long = format!("state: {{path: /{}/x.db}}\n", "x".repeat(100));
    assert!(Site::new().config(&long).plan().is_ok());
    let site = Site::new().empty_vault().config(&format!("{long}api: {{enabled: true}}\n"));
    assert!(site.refusal().contains("api.management_socket"));
}

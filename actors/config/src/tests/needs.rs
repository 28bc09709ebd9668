//! Keys that must be there, keys that exclude one another, and the form of names.

use super::site::Site;
use crate::Standing;

/// All problems of a configuration that has a secret `s`.
fn refusal(text: &str) -> String {
    Site::new().secret("s", "value-of-s").config(text).refusal()
}

fn is_accepted(text: &str) -> bool {
    Site::new().secret("s", "value-of-s").config(text).plan().is_ok()
}

#[test]
fn each_missing_key_is_named_with_its_entry() {
    for (text, expected) in [
        ("pipelines: [{on: a, steps: []}]\n", "pipelines[0]: name is required"),
        ("pipelines: [{name: ok}, {name: ' '}]\n", "pipelines[1]: name is required"),
        ("routes: [{from: a, to: b}]\n", "routes[0]: event_type is required"),
        ("routes: [~]\n", "routes[0]: from is required"),
        ("instances: [{name: a, ingress_path: /x, secret_ref: s}]\n", "instances[0] (a): base_url is required"),
        ("instances: [{name: a, base_url: 'http://h', secret_ref: s}]\n", "instances[0] (a): ingress_path is required"),
        (
            "instances: [{name: a, base_url: 'http://h', ingress_path: /x}]\n",
            "instances[0] (a): secret_ref is required",
        ),
        ("remote_ingress: {peers: [{secret_ref: s}]}\n", "remote_ingress.peers[0]: name is required"),
        (
            "remote_ingress: {peers: [{name: a, keys: [{key_id: k}]}]}\n",
            "remote_ingress.peers[0].keys[0]: secret_ref is required",
        ),
        ("webhooks: [{plugin: p, secret_ref: s, scheme: github}]\n", "webhooks.endpoints[0]: path is required"),
        (
            "webhooks: [{path: /a, plugin: p, secret_ref: s}]\n",
            "webhooks.endpoints[0] (/a): signature_header is required for scheme hmac-sha256",
        ),
        (
            "webhooks: [{path: /a, plugin: p, secret_ref: s, scheme: token}]\n",
            "webhooks.endpoints[0] (/a): signature_header is required for scheme token",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(expected), "{expected}: {refusal}");
        assert!(refusal.contains("config.yaml:2"), "{refusal}");
    }
}

#[test]
fn of_keys_that_exclude_one_another_there_is_exactly_one() {
    let hook = |rest: &str| format!("webhooks: [{{path: /a, scheme: github, {rest}}}]\n");
    let peer = |rest: &str| format!("remote_ingress: {{peers: [{{name: a, {rest}}}]}}\n");
    for (text, expected) in [
        (hook("secret_ref: s"), "requires one of plugin, pipeline, or event"),
        (hook("secret_ref: s, plugin: p, event: e"), "must set exactly one of plugin, pipeline, or event"),
        (hook("plugin: p"), "requires one of secret_ref or secret_refs"),
        (hook("plugin: p, secret_refs: []"), "requires one of secret_ref or secret_refs"),
        (hook("plugin: p, secret_ref: s, secret_refs: [s]"), "must set exactly one of secret_ref or secret_refs"),
        (peer("enabled: true"), "remote_ingress.peers[0] (a): requires one of secret_ref or keys"),
    ] {
        let refusal = refusal(&text);
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
    for text in [
        hook("plugin: p, secret_ref: s"),
        hook("event: e, secret_refs: [s]"),
        peer("keys: [{key_id: k, secret_ref: s}]"),
    ] {
        assert!(is_accepted(&text), "{text}");
    }
}

#[test]
fn other_gateways_are_named_with_words_joined_by_hyphens() {
    let long = "x".repeat(64);
    for name in ["Edge", "a_b", "a--b", long.as_str()] {
        let text = format!("instances: [{{name: {name}, base_url: 'http://h', ingress_path: /x, secret_ref: s}}]\n");
        assert!(refusal(&text).contains("instances[0].name must be a name of at most 63"), "{name}");
        let text = format!("remote_ingress: {{peers: [{{name: {name}, secret_ref: s}}]}}\n");
        assert!(refusal(&text).contains("remote_ingress.peers[0].name must be a name of at most 63"), "{name}");
    }
    assert!(is_accepted("remote_ingress: {peers: [{name: edge-7, secret_ref: s}]}\n"));
}

#[test]
fn a_plugin_may_act_as_a_legal_principal_and_never_as_the_gateway() {
    let acting = |principal: &str| format!("plugins: {{p: {{enabled: false, vault_principal: {principal}}}}}\n");
    assert!(refusal(&acting("core")).contains("plugins.p.vault_principal must not be \"core\""));
    let long = "x".repeat(129);
    for principal in ["Mailer", "mail_er", "mail-", long.as_str()] {
        let refusal = refusal(&acting(principal));
        assert!(refusal.contains("plugins.p.vault_principal must be a name of at most 128"), "{refusal}");
    }
    assert!(is_accepted(&acting("mailer-2")));
}

#[test]
fn principals_that_look_like_a_mistake_are_warnings() {
    let site = Site::new()
        .plugin("file_watch", "")
        .plugin("a", "")
        .principal("shared", Standing::Plugin)
        .principal("reader", Standing::Consumer)
        .config(
            "plugins:\n  file_watch: {enabled: true, requires_vault: true}\n  a: {enabled: true, vault_principal: \
             shared}\n  b: {enabled: true, uses: a, vault_principal: shared}\n  c: {enabled: true, uses: a, \
             vault_principal: ghost}\n  d: {enabled: true, uses: a, vault_principal: reader}\n  e: {enabled: true, \
             uses: a}\n  f: {enabled: false, vault_principal: ghost}\n",
        );
    let report = site.check();
    assert!(report.errors.is_empty(), "{report:?}");
    let about: Vec<_> = report
        .warnings
        .iter()
        .filter(|w| w.field.ends_with(".vault_principal"))
        .map(|w| (w.category, w.message.as_str()))
        .collect();
    assert_eq!(
        about,
        [
            ("plugin_refs", "plugins \"a\" and \"b\" get the same secrets: both act as principal \"shared\""),
            ("plugin_refs", "plugin \"c\": vault_principal \"ghost\" is not registered in the vault"),
            (
                "plugin_refs",
                "plugin \"d\" acts as principal \"reader\", which is registered as a consumer and not as a plugin"
            ),
            (
                "plugin_refs",
                "plugin \"file_watch\" requires the vault, but its name is no name of a principal; set vault_principal"
            ),
        ]
    );
}

#[test]
fn what_is_checked_but_not_built_yet_is_said_aloud() {
    let site = Site::new().plugin("p", "").secret("s", "value-of-s").config(
        "plugins: {p: {enabled: true, schedules: [{every: 5m}]}}\nwebhooks: {listen: 'h:1', endpoints: []}\nremote_ingress: \
         {peers: [{name: a, secret_ref: s}]}\n",
    );
    let found = site.check().warnings.into_iter().filter(|w| w.message.contains("does nothing with it yet"));
    let fields: Vec<_> = found.map(|warning| warning.field).collect();
    assert_eq!(fields, ["remote_ingress"]);
    let relay = "pipelines: [{name: a, on: x, steps: [{relay: {to: r, event: e}}]}]\n";
    let warnings = Site::new().config(relay).warnings();
    assert!(warnings.contains("relay steps are checked, but this version does nothing with them yet"), "{warnings}");
}

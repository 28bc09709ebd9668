//! What a plugin gets, and what it does not get.

use std::fs;

use serde_json::{Value, json};

use crate::testing::{Answers, Site, assert_succeeded, claimed, failure};

/// Leaves its request, arguments and environment behind.
const DUMP: &str = "cat > \"$SITE/request\"
tr '\\0' '\\n' < /proc/$$/cmdline > \"$SITE/argv\"
tr '\\0' '\\n' < /proc/$$/environ > \"$SITE/environ\"
echo '{\"status\":\"ok\",\"result\":\"x\"}'";

fn request(site: &Site) -> Value {
    serde_json::from_str(&site.read("request")).unwrap()
}

#[tokio::test]
async fn arguments_are_the_path_only_and_the_environment_is_built_from_nothing() {
    let mut site = Site::sh(DUMP);
    site.passthrough = vec!["DUCTILE_JOB_ID".to_owned(), "ABSENT".to_owned()];
    let job = claimed("p", "poll", Some(r#"{"my-key":1,"my key":true,"9x":null}"#));
    assert_succeeded(&site.run(&job).await);
    let run = site.path("run").display().to_string();
    assert_eq!(site.read("argv").lines().collect::<Vec<_>>(), ["/bin/sh", run.as_str()]);
    let environ = site.read("environ");
    let mut entries: Vec<_> = environ.lines().filter(|line| !line.starts_with("PATH=")).collect();
    entries.sort_unstable();
    let id = format!("DUCTILE_JOB_ID={}", job.id);
    assert_eq!(
        entries,
        [
            "DUCTILE_COMMAND=poll",
            "DUCTILE_EVENT_TYPE=",
            id.as_str(),
            "DUCTILE_PAYLOAD_DUCTILE_PLUGIN=p",
            "DUCTILE_PAYLOAD_MY_KEY=True",
            "DUCTILE_PAYLOAD_MY_KEY_2=1",
            "DUCTILE_PAYLOAD__9X=",
            "DUCTILE_PLUGIN=p",
        ]
    );
}

#[tokio::test]
async fn a_payload_value_that_is_too_large_for_the_environment_is_in_the_request() {
    let site = Site::sh(DUMP);
    let large = "v".repeat(1_048_576);
    assert_succeeded(&site.poll(Some(&json!({"large": large, "small": "s"}).to_string())).await);
    assert_eq!(request(&site)["payload"]["large"].as_str().map(str::len), Some(1_048_576));
    let environ = site.read("environ");
    assert!(environ.contains("DUCTILE_PAYLOAD_SMALL=s") && !environ.contains("DUCTILE_PAYLOAD_LARGE"));
}

#[tokio::test]
async fn the_request_is_one_line_and_keeps_all_digits() {
    let mut site = Site::sh(DUMP);
    site.config = crate::testing::plugin_config(r#"{"id":98765432109876543210}"#);
    let mut job = claimed("p", "handle", Some("{\"type\":\"t\",\n\"payload\":{\"mtime_ns\":1713740000123456789}}"));
    job.state = Some(r#"{"n":1713740000123456789}"#.to_owned());
    assert_succeeded(&site.run(&job).await);
    let text = site.read("request");
    assert_eq!((text.lines().count(), text.ends_with('\n')), (1, true));
    assert_eq!(text.matches("1713740000123456789").count(), 3);
    assert!(text.contains("98765432109876543210"));
    assert!(site.read("environ").contains("DUCTILE_EVENT_TYPE=t"));
}

#[tokio::test]
async fn secrets_are_in_the_request_and_nowhere_else() {
    let mut site = Site::sh(DUMP);
    site.vault = Some(Answers::Secrets(vec![("smtp_pw", "hunter2hunter2")]));
    let outcome = site.poll(Some("{}")).await;
    assert_succeeded(&outcome);
    assert_eq!(request(&site)["secrets"], json!({"smtp_pw": "hunter2hunter2"}));
    assert!(!site.read("environ").contains("hunter2") && !site.read("argv").contains("hunter2"));
    assert!(!format!("{outcome:?} {:?}", site.events()).contains("hunter2"));
}

#[tokio::test]
async fn a_principal_without_secrets_gets_an_empty_object_and_others_no_key() {
    let mut site = Site::sh(DUMP);
    site.vault = Some(Answers::Secrets(vec![]));
    assert_succeeded(&site.poll(None).await);
    assert_eq!(request(&site)["secrets"], json!({}));
    site.vault = Some(Answers::NotAPrincipal);
    assert_succeeded(&site.poll(None).await);
    assert!(request(&site).get("secrets").is_none());
}

#[tokio::test]
async fn without_its_secrets_a_plugin_is_not_started() {
    let mut site = Site::sh("touch \"$SITE/ran\"");
    site.vault = Some(Answers::Denied("secret composition failed: vault: principal is not active: \"p\" is revoked"));
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome).0, "secret_denied");
    assert!(failure(&outcome).1.ends_with("\"p\" is revoked"));
    site.vault = None;
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome).0, "vault_unavailable");
    assert!(fs::metadata(site.path("ran")).is_err());
}

#[tokio::test]
async fn printed_secrets_are_redacted_everywhere_but_in_an_answer() {
    let value = "hunter2\"hunter2";
    let print = "import sys, json\nr = json.load(sys.stdin)['secrets']['pw']\n";
    let mut site = Site::python(&format!("{print}sys.stderr.write(r + '\\n')\nprint(r, json.dumps(r))\nsys.exit(1)"));
    site.vault = Some(Answers::Secrets(vec![("pw", value)]));
    let outcome = site.poll(None).await;
    assert!(failure(&outcome).1.ends_with("(exit code 1): [REDACTED]"), "{outcome:?}");
    assert!(!format!("{outcome:?}").contains("hunter2"), "{outcome:?}");
    assert!(outcome.result.as_deref().unwrap().contains("[REDACTED]"));

    let mut site = Site::python(&format!("{print}print(json.dumps({{'status': 'ok', 'result': r}}))"));
    site.vault = Some(Answers::Secrets(vec![("pw", value)]));
    let outcome = site.poll(None).await;
    assert_succeeded(&outcome);
    assert!(outcome.result.as_deref().unwrap().contains("hunter2"));
    let echoed: Vec<_> = site.events().into_iter().filter(|event| event.kind == "vault.secret_echoed").collect();
    assert_eq!(echoed.len(), 1);
    assert_eq!((&echoed[0].data["secret"], &echoed[0].data["place"]), (&json!("pw"), &json!("result")));
}

#[tokio::test]
async fn a_secret_across_the_cut_of_stderr_leaves_nothing_behind() {
    let mut site = Site::python(
        "import sys, json\nr = json.load(sys.stdin)['secrets']['pw']\nsys.stderr.write('x' * 65530 + r)\nprint(json.dumps({'status': 'ok', 'result': 'x'}))",
    );
    site.vault = Some(Answers::Secrets(vec![("pw", "hunter2hunter2")]));
    let stderr = site.poll(None).await.stderr.unwrap();
    assert_eq!(&stderr[65_530..], "[REDAC");
}

#[tokio::test]
async fn polls_of_the_scheduler_are_announced_with_their_schedule() {
    let site = Site::sh(DUMP);
    let mut job = claimed("p", "poll", None);
    job.submitted_by = "ductile".to_owned();
    job.dedupe_key = Some("p:poll:every:hour".to_owned());
    assert_succeeded(&site.run(&job).await);
    let events = site.events();
    assert_eq!(events[1].kind, "poll.started");
    assert_eq!(events[1].data["schedule_id"], "every:hour");
    assert_eq!(events[0].data["parent_job_id"], "");
    assert_eq!((&events[3].data["mode"], events[3].kind), (&json!("unconfined"), "plugin.spawned"));
}

#[tokio::test]
async fn spans_that_are_no_json_without_a_secret_are_dropped() {
    for (secret, spans) in [("fetch-body", r#"[{"name":"[REDACTED]","dur_ns":12}]"#), (r#"","dur_ns":"#, "[]")] {
        let mut site = Site::sh(
            r#"echo '{"status":"ok","result":"x","ductile_stopwatch_subs":[{"name":"fetch-body","dur_ns":12}]}'"#,
        );
        site.vault = Some(Answers::Secrets(vec![("pw", secret)]));
        let outcome = site.poll(None).await;
        assert_succeeded(&outcome);
        assert_eq!(outcome.stopwatch.unwrap().spans, spans);
    }
}

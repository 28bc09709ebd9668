//! Plugins as the gateway finds and runs them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::site::{OK, Site, eventually};

#[test]
fn plugins_are_found_at_any_depth_and_the_first_of_a_name_wins() {
    let site = Site::new().plugin("top", OK).plugin_entry("deep", "enabled: true");
    site.install("deep", r#"cat >/dev/null; echo '{"status":"ok","result":"first"}'"#, "");
    fs::create_dir_all(site.path("plugins/team")).expect("a directory");
    fs::rename(site.path("plugins/deep"), site.path("plugins/team/deep")).expect("a move");
    site.install("deep", r#"cat >/dev/null; echo '{"status":"ok","result":"second"}'"#, "");
    fs::create_dir(site.path("second")).expect("a directory");
    fs::rename(site.path("plugins/deep"), site.path("second/deep")).expect("a move");
    fs::create_dir(site.path("plugins/forgotten")).expect("a directory");
    fs::write(site.path("plugins/forgotten/run.py"), "").expect("a file");
    site.write_config();
    let text = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let text = text.replace("plugin_roots: [../plugins]", "plugin_roots: [../plugins, ../second]");
    fs::write(site.path("config/config.yaml"), text).expect("the configuration");
    let mut gateway = site.launch(&[]);
    gateway.wait_for_log("readiness", |line| line["message"] == "ductile running");
    let seen = gateway.wait_for(&gateway.trigger("deep", "poll"));
    assert_eq!(seen["result"]["result"], "first");
    let log = gateway.log();
    let duplicate = log.lines().find(|line| line.contains("second/deep")).unwrap_or_else(|| panic!("{log}"));
    assert!(duplicate.contains("team/deep"), "both paths are named: {duplicate}");
    assert!(log.contains("missing manifest.yaml"), "{log}");
}

#[test]
fn an_alias_runs_the_same_code_with_its_own_configuration_and_state() {
    let script = r#"request=$(cat); name=$(echo "$request" | sed -n 's/.*"who":"\([a-z]*\)".*/\1/p'); echo "{\"status\":\"ok\",\"result\":\"$name\",\"state_updates\":{\"who\":\"$name\"}}""#;
    let site = Site::new()
        .plugin_with("base", script, "", "config: {who: base}")
        .plugin_entry("other", "uses: base\nenabled: true\nconfig: {who: other}");
    let gateway = site.start();
    for name in ["base", "other"] {
        assert_eq!(gateway.wait_for(&gateway.trigger(name, "poll"))["result"]["result"], name);
    }
    let states = site.column("SELECT plugin_name || state FROM plugin_state ORDER BY plugin_name");
    assert_eq!(states, [r#"base{"who":"base"}"#, r#"other{"who":"other"}"#]);
    drop(gateway);
    for broken in ["uses: nothing", "uses: loop"] {
        let site = Site::new().plugin("base", OK).plugin_entry("loop", &format!("{broken}\nenabled: true"));
        let (status, stderr) = site.start_refused();
        assert_eq!(status.code(), Some(78), "{stderr}");
        assert!(stderr.contains("plugins.loop"), "{stderr}");
    }
}

#[test]
fn a_plugin_sees_only_what_it_is_meant_to_see() {
    let script = r#"cat >/dev/null; env > "$DUCTILE_PAYLOAD_OUT"; echo "$#" > "$DUCTILE_PAYLOAD_OUT.args"; echo '{"status":"ok","result":"x"}'"#;
    let site = Site::new().service("plugin_env_passthrough: [PASSED]").plugin("env", script);
    let gateway = site.start_with(&[
        ("SECRET", "x"),
        ("PASSED", "yes"),
        ("DUCTILE_JOB_ID", "forged"),
        ("DUCTILE_PAYLOAD_OLD", "stale"),
    ]);
    let out = site.path("env");
    let payload = json!({"out": out, "my-key": 1, "my key": true, "9x": null, "list": [1, 2]});
    let job = gateway.trigger_with("env", "poll", &payload);
    assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
    let text = fs::read_to_string(&out).expect("the environment");
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
    assert_eq!(value("DUCTILE_JOB_ID"), Some(job));
    assert_eq!(value("DUCTILE_PLUGIN").as_deref(), Some("env"));
    assert_eq!(value("DUCTILE_COMMAND").as_deref(), Some("poll"));
    assert_eq!(value("PASSED").as_deref(), Some("yes"));
    let both = [value("DUCTILE_PAYLOAD_MY_KEY"), value("DUCTILE_PAYLOAD_MY_KEY_2")];
    assert_eq!(both.map(Option::unwrap_or_default), ["True", "1"]);
    assert_eq!(value("DUCTILE_PAYLOAD__9X").as_deref(), Some(""));
    assert_eq!(value("DUCTILE_PAYLOAD_LIST").as_deref(), Some("[1,2]"));
    assert_eq!((value("SECRET"), value("DUCTILE_PAYLOAD_OLD")), (None, None));
    assert_eq!(fs::read_to_string(site.path("env.args")).expect("the count").trim(), "0");
}

/// Path of the bundled plugins.
fn bundled() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").display().to_string()
}

#[test]
fn the_bundled_echo_speaks_and_misbehaves_on_request() {
    let site = Site::new()
        .plugin_entry("echo", "enabled: true")
        .plugin_entry("errs", "uses: echo\nenabled: true\nconfig: {mode: error}")
        .plugin_entry(
            "hangs",
            "uses: echo\nenabled: true\nconfig: {mode: hang}\ntimeouts: {poll: 400ms}\nretry: {max_attempts: 1}",
        )
        .plugin_entry("babbles", "uses: echo\nenabled: true\nconfig: {mode: protocol_error}\nretry: {max_attempts: 1}")
        .extra(&format!("plugin_roots: [\"{}\"]", bundled()));
    let gateway = start_with_one_root(&site);
    let message = "\"quoted\", ünïcode\nand two lines";
    let seen = gateway.wait_for(&gateway.trigger_with("echo", "poll", &json!({"message": message})));
    assert!(seen["result"]["result"].as_str().expect("a result").starts_with(message), "{seen}");
    for (plugin, status) in [("errs", "failed"), ("hangs", "timed_out"), ("babbles", "failed")] {
        assert_eq!(gateway.wait_for(&gateway.trigger(plugin, "poll"))["status"], status, "{plugin}");
    }
}

/// The harness writes `plugin_roots` itself; these tests bring their own.
fn start_with_one_root(site: &Site) -> crate::site::Gateway {
    site.write_config();
    let text = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    fs::write(site.path("config/config.yaml"), text.replace("plugin_roots: [../plugins]\n", ""))
        .expect("the configuration");
    let mut gateway = site.launch(&[]);
    gateway.wait_for_log("readiness", |line| line["message"] == "ductile running");
    gateway
}

#[test]
fn the_bundled_file_watch_reports_each_change_once() {
    let site = Site::new();
    let file = site.path("watched.txt");
    let watch =
        format!("enabled: true\nconfig: {{watches: [{{id: w, path: \"{}\", event_type: seen}}]}}", file.display());
    let site = site.plugin_entry("file_watch", &watch).extra(&format!("plugin_roots: [\"{}\"]", bundled()));
    let gateway = start_with_one_root(&site);
    let poll = || -> Vec<String> {
        let seen = gateway.wait_for(&gateway.trigger("file_watch", "poll"));
        assert_eq!(seen["status"], "succeeded", "{seen}");
        let events = seen["result"]["events"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| event["payload"]["change_type"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(poll(), Vec::<String>::new());
    fs::write(&file, "one").expect("a file");
    assert_eq!((poll(), poll()), (vec!["created".to_owned()], vec![]));
    fs::write(&file, "two, longer").expect("a file");
    assert_eq!((poll(), poll()), (vec!["modified".to_owned()], vec![]));
    fs::remove_file(&file).expect("the file");
    assert_eq!((poll(), poll()), (vec!["deleted".to_owned()], vec![]));
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM plugin_facts WHERE fact_type='file_watch.snapshot'"), 7);
}

fn init_jobs(site: &Site) -> i64 {
    site.query("SELECT COUNT(*) FROM job_queue WHERE command='init' AND submitted_by='core'")
}

const WITH_INIT: &str = "commands:\n  - {name: poll, type: write}\n  - {name: init, type: write}";

/// A plugin with an `init` command: the harness's own manifest has none.
fn install_with_init(site: &Site, name: &str, script: &str) {
    site.install(name, script, "");
    let path = site.path("plugins").join(name).join("manifest.yaml");
    let text = fs::read_to_string(&path).expect("the manifest");
    let head = text.split("commands:").next().expect("a head").to_owned();
    fs::write(path, format!("{head}{WITH_INIT}\n")).expect("a manifest");
}

#[test]
fn init_runs_on_first_sight_and_after_a_change_but_not_at_every_start() {
    let site = Site::new().plugin_entry("made", "enabled: true\nconfig: {n: 1}");
    install_with_init(&site, "made", OK);
    let gateway = site.start();
    let done = || site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE command='init' AND status='succeeded'");
    let wait = |wanted: i64| {
        eventually(|| if done() == wanted { Ok(()) } else { Err(done()) }).expect("init to succeed");
    };
    wait(1);
    gateway.kill_nine();
    let gateway = site.start();
    // A later job shows that the start's own jobs, if there were any, have been queued before it.
    gateway.wait_for(&gateway.trigger("made", "poll"));
    assert_eq!(init_jobs(&site), 1);
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    fs::write(site.path("config/config.yaml"), config.replace("{n: 1}", "{n: 2}")).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    wait(2);
}

#[test]
fn a_failed_init_runs_once_is_reported_and_stops_nothing_else() {
    let site = Site::new().plugin_entry("sick", "enabled: true");
    let script = r#"cat >/dev/null; if [ "$DUCTILE_COMMAND" = init ]; then echo '{"status":"error","error":"no disk"}'; else echo '{"status":"ok","result":"x"}'; fi"#;
    install_with_init(&site, "sick", script);
    let mut gateway = site.start();
    let line = gateway.wait_for_log("the report", |line| line["event"] == "plugin.init_failed");
    assert_eq!((&line["level"], &line["plugin"], &line["error"]), (&json!("ERROR"), &json!("sick"), &json!("no disk")));
    assert_eq!(gateway.wait_for(&gateway.trigger("sick", "poll"))["status"], "succeeded");
    assert_eq!(site.query::<i64>("SELECT attempt FROM job_queue WHERE command='init'"), 1);
    let status: Value = serde_json::from_str(&site.run(&["system", "status", "--json"])).expect("JSON");
    let warning = "plugin \"sick\" is unhealthy: init failed: no disk";
    assert!(status["warnings"].as_array().is_some_and(|all| all.iter().any(|one| one == warning)), "{status}");
}

//! Plugins as the gateway finds and runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::site::{OK, Site, eventually, is_alive};

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
    let facts = "fact_outputs:\n  - {when: {command: poll}, from: state_updates, fact_type: base.snapshot}";
    let site = Site::new()
        .plugin_with("base", script, facts, "config: {who: base}")
        .plugin_entry("other", "uses: base\nenabled: true\nconfig: {who: other}");
    let gateway = site.start();
    for name in ["base", "other"] {
        assert_eq!(gateway.wait_for(&gateway.trigger(name, "poll"))["result"]["result"], name);
    }
    let states = site.column("SELECT plugin_name || state FROM plugin_state ORDER BY plugin_name");
    assert_eq!(states, [r#"base{"who":"base"}"#, r#"other{"who":"other"}"#]);
    let facts = site.column("SELECT plugin_name || ' ' || fact_type || fact_json FROM plugin_facts ORDER BY seq");
    assert_eq!(facts, [r#"base base.snapshot{"who":"base"}"#, r#"other base.snapshot{"who":"other"}"#]);
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
    let site = Site::new().service("plugin_env_passthrough: [PASSED, DUCTILE_JOB_ID]").plugin("env", script);
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

/// Changes the manifest of an installed plugin.
fn edit_manifest(site: &Site, name: &str, from: &str, to: &str) {
    let path = site.path("plugins").join(name).join("manifest.yaml");
    let text = fs::read_to_string(&path).expect("the manifest");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("the manifest");
}

#[test]
fn faulty_plugins_are_left_out_each_with_its_reason_and_the_others_load() {
    let site = Site::new().service("allow_symlinks: true").plugin("good", OK);
    let fact = |command: &str| {
        format!("fact_outputs:\n  - {{when: {{command: {command}}}, from: state_updates, fact_type: f}}")
    };
    for (name, manifest) in [
        ("wide", ""),
        ("idle", ""),
        ("upward", ""),
        ("outside", ""),
        ("older", ""),
        ("newer", ""),
        ("typed", ""),
        ("consumer", ""),
        ("reporter", &*fact("sing")),
    ] {
        site.install(name, OK, manifest);
    }
    let dir = |name: &str| site.path("plugins").join(name);
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    set_mode(&dir("wide"), 0o777);
    set_mode(&dir("idle").join("run.sh"), 0o644);
    edit_manifest(&site, "upward", "entrypoint: run.sh", "entrypoint: ../good/run.sh");
    fs::remove_file(dir("outside").join("run.sh")).expect("the script");
    std::os::unix::fs::symlink(dir("good").join("run.sh"), dir("outside").join("run.sh")).expect("a link");
    edit_manifest(&site, "older", "protocol: 2", "protocol: 1");
    edit_manifest(&site, "newer", "manifest_version: 1", "manifest_version: 2");
    edit_manifest(&site, "typed", "{name: poll, type: write}", "{name: poll, type: sometimes}");
    edit_manifest(&site, "consumer", "{name: poll, type: write}", "{name: poll, values: {consume: [context.x]}}");
    let gateway = site.start();
    let plugins = gateway.get("/plugins").body;
    let names: Vec<&str> =
        plugins["plugins"].as_array().expect("plugins").iter().filter_map(|plugin| plugin["name"].as_str()).collect();
    assert_eq!(names, ["good"]);
    assert_eq!(gateway.wait_for(&gateway.trigger("good", "poll"))["status"], "succeeded");
    let log = gateway.log();
    for (name, reasons) in [
        ("wide", ["world-writable", ""]),
        ("idle", ["entrypoint is not executable", ""]),
        ("upward", ["entrypoint contains path traversal", ""]),
        ("outside", ["entrypoint", ""]),
        ("older", ["unsupported protocol version 1", ""]),
        ("newer", ["manifest_version", "2"]),
        ("typed", ["type", "sometimes"]),
        ("consumer", ["consume", "context.x"]),
        ("reporter", ["fact_outputs[0]", "sing"]),
    ] {
        let place = format!("plugins/{name},");
        let told: Vec<&str> =
            log.lines().filter(|line| line.contains("failed to load plugin") && line.contains(&place)).collect();
        assert_eq!(told.len(), 1, "{name}: {log}");
        assert!(told[0].contains(r#""level":"WARN""#), "{}", told[0]);
        assert!(reasons.iter().all(|reason| told[0].contains(reason)), "{name}: {}", told[0]);
    }
}

#[test]
fn commands_are_written_in_three_forms_and_their_schemas_are_published() {
    let site = Site::new().plugin("list", OK).plugin("map", OK).plugin("bare", OK);
    let list =
        "commands:\n  - {name: poll, type: write}\n  - {name: handle, type: write}\n  - {name: health, type: read}";
    edit_manifest(
        &site,
        "list",
        list,
        "commands:\n  - {name: poll, input_schema: {url: string, type: string}}\n  - {name: look, type: read}",
    );
    edit_manifest(&site, "map", list, "commands:\n  poll:\n  look: {type: read}");
    edit_manifest(&site, "bare", list, "commands: [poll, look]");
    let gateway = site.start();
    for (plugin, look) in [("list", "read"), ("map", "read"), ("bare", "write")] {
        let commands = gateway.get(&format!("/plugin/{plugin}")).body["commands"].clone();
        let kinds: Vec<(&str, &str)> = commands
            .as_array()
            .expect("commands")
            .iter()
            .map(|one| (one["name"].as_str().expect("a name"), one["type"].as_str().expect("a type")))
            .collect();
        assert_eq!(kinds, [("poll", "write"), ("look", look)], "{plugin}");
        assert_eq!(gateway.wait_for(&gateway.trigger(plugin, "look"))["status"], "succeeded");
    }
    let schema = gateway.get("/plugin/list").body["commands"][0]["input_schema"].clone();
    assert_eq!(
        schema,
        json!({"type": "object", "properties": {"url": {"type": "string"}, "type": {"type": "string"}}})
    );
}

#[test]
fn each_kind_of_answer_has_its_outcome() {
    let cases = [
        ("chatty", r#"echo 'log line'; echo '{"status":"ok","result":"x"}'"#, "failed", 2, "decode response"),
        (
            "twice",
            r#"echo '{"status":"ok","result":"x"} {"status":"ok","result":"x"}'"#,
            "failed",
            2,
            "decode response",
        ),
        ("array", "echo '[]'", "failed", 2, "decode response"),
        ("silent", "true", "failed", 2, "plugin produced no output on stdout"),
        (
            "pretty",
            r#"printf '\357\273\277{\n  "status": "ok",\n  "result": "x",\n  "unknown": {"a": 1}\n}\n\n'"#,
            "succeeded",
            1,
            "",
        ),
        ("blank", r#"echo '{"status":"ok"}'"#, "failed", 2, "result"),
        ("number", r#"echo '{"status":"ok","result":5}'"#, "failed", 2, r#"field "result" must be a string"#),
        ("three", r#"echo '{"status":"ok","result":"x"}'; exit 3"#, "succeeded", 1, ""),
        (
            "config",
            r#"echo '{"status":"ok","result":"x","state_updates":{"n":1},"events":[{"type":"a.b"}]}'; exit 78"#,
            "failed",
            1,
            "(exit code 78)",
        ),
        ("wordless", r#"echo '{"status":"error"}'"#, "failed", 2, "plugin returned an error without a message"),
        (
            "final",
            r#"echo '{"status":"error","error":"no","retry":false,"state_updates":{"n":1},"events":[{"type":"a.b"}]}'"#,
            "failed",
            1,
            "no",
        ),
        (
            "noisy",
            r#"head -c 1048576 /dev/zero | tr '\0' x >&2; cat >/dev/null; echo '{"status":"ok","result":"x"}'"#,
            "succeeded",
            1,
            "",
        ),
        ("flood", "head -c 11534336 /dev/zero | tr '\\0' x", "failed", 2, "plugin stdout exceeded 10485760 bytes"),
    ];
    let site = cases.iter().fold(Site::new(), |site, (name, script, ..)| {
        site.plugin_with(name, script, "", "retry: {max_attempts: 2, backoff_base: 10ms}")
    });
    let mut gateway = site.start();
    gateway.wait_for(&gateway.trigger("three", "health"));
    let warning =
        gateway.wait_for_log("a word about the exit code", |line| line["level"] == "WARN" && line["plugin"] == "three");
    assert!(warning.to_string().contains("exit"), "{warning}");
    for (name, _, status, attempt, error) in &cases {
        let seen = gateway.wait_for(&gateway.trigger(name, "poll"));
        assert_eq!((&seen["status"], &seen["attempt"]), (&json!(status), &json!(attempt)), "{name}: {seen}");
        assert!(seen["last_error"].as_str().unwrap_or_default().contains(error), "{name}: {seen}");
        assert_eq!(seen["last_error"].is_null(), error.is_empty(), "{name}: {seen}");
    }
    let one: i64 = site.query("SELECT length(CAST(stderr AS BLOB)) FROM job_log WHERE plugin = 'noisy'");
    assert_eq!(one, 65_536);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM plugin_state"), 0, "what failed leaves no state");
    let expected = i64::try_from(cases.len()).expect("a count");
    let polls = "SELECT COUNT(*) FROM job_queue WHERE command <> 'health'";
    assert_eq!(site.query::<i64>(polls), expected, "and no successor");
    let kept: String = site.query("SELECT result FROM job_log WHERE plugin = 'final'");
    assert!(kept.contains(r#""events":[{"type":"a.b"}]"#), "the answer can still be read: {kept}");
    assert_eq!(
        site.query::<i64>("SELECT COUNT(*) FROM job_log WHERE result IS NOT NULL AND NOT json_valid(result)"),
        0
    );
}

/// Most memory that a process has ever used, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn output_without_end_fails_the_job_and_costs_no_memory() {
    let site = Site::new().plugin_with("endless", "head -c 314572800 /dev/zero", "", "retry: {max_attempts: 1}");
    let gateway = site.start();
    let before = peak_memory(gateway.pid());
    let seen = gateway.wait_for(&gateway.trigger("endless", "poll"));
    assert_eq!(seen["status"], "failed", "{seen}");
    let grown = peak_memory(gateway.pid()) - before;
    assert!(grown < 150 * 1024, "300 MiB of output cost {grown} KiB");
}

#[test]
fn a_large_payload_neither_fails_the_start_nor_blocks_a_plugin_that_does_not_read() {
    let site = Site::new().plugin("deaf", r#"echo '{"status":"ok","result":"x"}'"#).plugin(
        "counts",
        r#"n=$(wc -c); echo '{"status":"ok","result":"'"$n ${DUCTILE_PAYLOAD_BIG-absent} $DUCTILE_PAYLOAD_SMALL"'"}'"#,
    );
    let gateway = site.start();
    let payload = json!({"big": "y".repeat(1 << 20), "small": "s"});
    assert_eq!(gateway.wait_for(&gateway.trigger_with("deaf", "poll", &payload))["status"], "succeeded");
    let seen = gateway.wait_for(&gateway.trigger_with("counts", "poll", &payload));
    let words: Vec<&str> = seen["result"]["result"].as_str().expect("a result").split_whitespace().collect();
    assert!(words[0].parse::<usize>().is_ok_and(|bytes| bytes > 1 << 20), "{words:?}");
    assert_eq!(words[1..], ["absent", "s"]);
}

#[test]
fn what_a_plugin_leaves_behind_is_ended_with_its_attempt() {
    let script = |how: &str| {
        format!(
            "cat >/dev/null; {how} sh -c 'echo $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; exec sleep 600' sh \"$DUCTILE_PAYLOAD_OUT\" &\n\
             while [ -e \"$0\" ] && [ ! -e \"$DUCTILE_PAYLOAD_OUT\" ]; do sleep 0.01; done\necho '{{\"status\":\"ok\",\"result\":\"x\"}}'"
        )
    };
    let site = Site::new().plugin("child", &script("")).plugin("daemon", &script("setsid"));
    let gateway = site.start();
    for plugin in ["child", "daemon"] {
        let out = site.path(&format!("{plugin}.pid"));
        let seen = gateway.wait_for(&gateway.trigger_with(plugin, "poll", &json!({"out": out})));
        assert_eq!(seen["status"], "succeeded", "{seen}");
        let pid = fs::read_to_string(&out).expect("the child's pid");
        assert!(!is_alive(&pid), "{plugin} left {pid}");
    }
}

#[test]
fn log_entries_of_a_plugin_reach_the_log_and_unexpected_state_is_kept_with_a_warning() {
    let script = r#"cat >/dev/null; echo '{"status":"ok","result":"fine","logs":[{"level":"error","message":"one of mine"},"two of mine",{"level":"loud","message":"three of mine"},7],"state_updates":{"n":1}}'"#;
    let site = Site::new().plugin("talks", script);
    let mut gateway = site.start();
    let job = gateway.trigger("talks", "health");
    assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
    // Comes after the plugin's own entries.
    let warning = gateway.wait_for_log("the warning", |line| line["level"] == "WARN" && line["job_id"] == job.as_str());
    assert!(warning["message"].as_str().is_some_and(|text| text.contains("state_updates")), "{warning}");
    let log: Vec<Value> = gateway.log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mine: Vec<(&str, &str)> = log
        .iter()
        .filter(|line| line["job_id"].as_str() == Some(&job) && line["plugin"] == "talks")
        .filter_map(|line| Some((line["level"].as_str()?, line["text"].as_str()?)))
        .collect();
    assert_eq!(mine, [("ERROR", "one of mine"), ("INFO", "two of mine"), ("INFO", "three of mine")]);
    assert_eq!(site.query::<String>("SELECT state FROM plugin_state"), r#"{"n":1}"#);
}

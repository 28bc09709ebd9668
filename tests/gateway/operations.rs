//! The life of the process as whoever operates it sees it: refusals and their exit statuses, signals, closed outputs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::site::{Client, GATED, Gateway, OK, Site, ductile, eventually, free_address, is_alive, show, token};

/// A start that must not succeed.
struct Refusal<'s> {
    site: &'s Site,
    address: &'s str,
}

impl Refusal<'_> {
    /// Starts the gateway: it ends with this status, says these words, opens no port and records no configuration.
    fn expect(&self, what: &str, code: i32, said: &[&str]) {
        let before = snapshots(self.site);
        let output = self.site.command(&["system", "start"]).output().expect("the binary");
        assert_eq!(output.status.code(), Some(code), "{what}: {}", show(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        for part in said {
            assert!(stderr.contains(part), "{what}: {part:?} is missing in {stderr}");
        }
        assert!(TcpStream::connect(self.address).is_err(), "{what}: the port is open");
        assert_eq!(snapshots(self.site), before, "{what}: a configuration that never served is recorded");
    }
}

/// Number of recorded configurations; none when there is no database of ours.
fn snapshots(site: &Site) -> i64 {
    let path = site.path("data/ductile.db");
    let Ok(database) = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY) else { return 0 };
    database.query_row("SELECT COUNT(*) FROM config_snapshots", [], |row| row.get(0)).unwrap_or(0)
}

fn site_at(address: &str) -> Site {
    Site::new().api(&format!("listen: {address}")).plugin("hello", OK)
}

#[test]
fn a_configuration_that_is_refused_is_told_apart_and_opens_no_port() {
    let address = free_address();
    let refused = |site: Site, what: &str, said: &[&str]| {
        site.write_config();
        Refusal { site: &site, address: &address }.expect(what, 78, said);
        assert!(!site.path("data").exists(), "{what}: something was made");
    };
    let at = || site_at(&address);
    let gate = "admission: {validate_config_on_boot: true}";
    refused(at().extra("include: [missing.yaml]"), "an include", &["Failed to load config: ", "missing.yaml"]);
    refused(at().extra("name: [1, 2"), "no YAML", &["Failed to load config: ", "config.yaml:", "refused: "]);
    refused(at().plugin_entry("alias", "uses: nobody\nenabled: true"), "an alias", &["alias", "nobody"]);
    refused(at().extra("surprise: 1").service(gate), "an unknown key", &["surprise", "validate_config_on_boot"]);
    refused(at().plugin_entry("ghost", "enabled: true").service(gate), "a doctor's error", &["ghost"]);
    for key in ["fail_on_drift", "verify_integrity_on_boot", "fail_on_sidedoor"] {
        let site = at().service(&format!("admission: {{{key}: true}}"));
        refused(site, "a gate that can not be kept", &[&format!("service.admission.{key}")]);
    }
    refused(at().service("no_new_privs: true"), "a wall that can not be built", &["service.no_new_privs"]);
    let tokens = |entries: &str| Site::new().api(&format!("listen: {address}\nauth:\n  tokens: {entries}"));
    for entry in ["{secret_ref: nope}", "{token: literal}", "{name: bare}"] {
        refused(tokens(&format!("[{entry}]")), "a token", &["api.auth.tokens[0]"]);
    }
    refused(tokens("[]").service("admission: {require_api_auth: true}"), "no token with the gate", &["API"]);
    let without_vault = tokens("[]");
    fs::remove_file(without_vault.path("config/vault.age")).expect("the vault");
    refused(without_vault, "neither token nor vault", &["api"]);
    let exposed = Site::new().api("listen: 0.0.0.0:1").service("admission: {refuse_cleartext: true}");
    refused(exposed, "an address for all without encryption", &["api.listen", "refuse_cleartext"]);
}

#[test]
fn a_link_among_the_configuration_files_is_refused_or_at_least_told() {
    let address = free_address();
    let site = site_at(&address).extra("include: [linked.yaml]");
    fs::write(site.path("elsewhere.yaml"), "service: {max_workers: 3}\n").expect("a fragment");
    symlink(site.path("elsewhere.yaml"), site.path("config/linked.yaml")).expect("a link");
    site.write_config();
    Refusal { site: &site, address: &address }.expect("a link", 78, &["symlinks detected", "linked.yaml"]);
    let site = site.service("allow_symlinks: true");
    let gateway = site.start();
    let told = gateway.log();
    let warned = told.lines().filter(|line| line.contains("symlink detected")).collect::<Vec<_>>();
    assert!(warned.iter().any(|line| line.contains("linked.yaml") && line.contains("elsewhere.yaml")), "{told}");
    assert_eq!(Client::new(&address, "").get("/readyz").status, 200);
}

#[test]
fn what_only_the_surroundings_refuse_is_told_by_another_status() {
    let address = free_address();
    let site = site_at(&address);
    site.write_config();
    let refusal = Refusal { site: &site, address: &address };
    let lock = ductile_vault::VaultLock::acquire(&site.path("config/vault.age")).expect("the vault's lock");
    refusal.expect("a vault that somebody writes", 1, &["vault.age"]);
    drop(lock);
    site.start().kill_nine();
    let path = site.path("data/ductile.db");
    let change = |sql: &str| Connection::open(&path).expect("the database").execute_batch(sql).expect("a change");
    change("ALTER TABLE job_attempts RENAME TO hidden");
    refusal.expect("a missing table", 1, &["job_attempts"]);
    change("ALTER TABLE hidden RENAME TO job_attempts");
    change("ALTER TABLE job_queue RENAME COLUMN payload TO hidden");
    refusal.expect("a missing column", 1, &["payload"]);
    change("ALTER TABLE job_queue RENAME COLUMN hidden TO payload");
    let index: String =
        site.query("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name LIMIT 1");
    let sql: String = site.query(&format!("SELECT sql FROM sqlite_master WHERE name = '{index}'"));
    change(&format!("DROP INDEX {index}"));
    refusal.expect("a missing index", 1, &[&index]);
    change(&sql);
    // All is as it was.
    assert_eq!(site.start().get("/readyz").status, 200);
    let taken = TcpListener::bind(&address).expect("the address");
    let output = site.command(&["system", "start"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert_eq!(snapshots(&site), 2, "one for each start that served");
    drop(taken);
    fs::remove_dir_all(site.path("data")).expect("the data");
    fs::write(site.path("data"), "").expect("a file in its place");
    refusal.expect("a state directory that can not be made", 1, &["data"]);
}

#[test]
fn the_reload_command_tells_a_wrong_configuration_from_wrong_surroundings() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let good = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_address = taken.local_addr().expect("its address").to_string();
    for (text, code, outcome, said) in [
        (good.replace("../plugins", "../nowhere"), 78, "rejected", "nowhere"),
        (good.replace("127.0.0.1:0", &taken_address), 1, "failed", taken_address.as_str()),
        (good.replace("secret_ref: api-token", "secret_ref: nope"), 78, "rejected", "api.auth.tokens[0]"),
        (good.clone(), 0, "ok", ""),
    ] {
        fs::write(site.path("config/config.yaml"), text).expect("the configuration");
        let output = site.command(&["system", "reload"]).output().expect("the binary");
        assert_eq!(output.status.code(), Some(code), "{outcome}: {}", show(&output));
        assert!(show(&output).contains(said), "{said}: {}", show(&output));
        assert_eq!(site.query::<String>("SELECT outcome FROM reload_history ORDER BY id DESC LIMIT 1"), outcome);
    }
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    assert_eq!(gateway.get("/healthz").body["generation"], 3);
    assert_eq!(snapshots(&site), 3, "one for each generation that served");
}

#[test]
fn the_status_of_a_gateway_counts_its_generations() {
    let address = free_address();
    let site = site_at(&address);
    let gateway = site.start();
    for _ in 0..2 {
        assert_eq!(gateway.post("/system/reload", &json!({})).status, 200, "{}", gateway.said());
    }
    let status: Value = serde_json::from_str(&site.run(&["system", "status", "--json"])).expect("JSON");
    assert_eq!((&status["running"], &status["generation"]), (&json!(true), &json!(3)), "{status}");
    let lock = status["checks"].as_array().expect("checks").iter().find(|check| check["name"] == "pid_lock");
    assert_eq!(lock.map(|lock| &lock["active_pid"]), Some(&json!(gateway.pid())), "{status}");
}

#[test]
fn a_request_on_the_old_address_is_answered_after_the_move() {
    let (old, new) = (free_address(), free_address());
    let site = Site::new().api(&format!("listen: {old}")).plugin("gated", GATED);
    let gateway = site.start();
    let client = gateway.client();
    let body = json!({"payload": {"gate": site.path("gate")}, "sync": true}).to_string();
    let waiter = std::thread::spawn(move || client.post("/plugin/gated/poll", &body, &[]));
    wait_for_running(&gateway, 1);
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    fs::write(site.path("config/config.yaml"), config.replace(&old, &new)).expect("the configuration");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200, "{}", gateway.said());
    assert_eq!(Client::new(&new, token()).get("/jobs?status=running").body["total"], 1);
    fs::write(site.path("gate"), "").expect("a file");
    let answer = waiter.join().expect("an answer");
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("succeeded")), "{answer:?}");
    let refused = eventually(|| TcpStream::connect(&old).err().ok_or(()));
    refused.expect("the old address to be gone");
}

fn wait_for_running(gateway: &Gateway, jobs: u64) {
    let seen = eventually(|| match gateway.get("/jobs?status=running").body["total"].as_u64() {
        Some(total) if total == jobs => Ok(()),
        other => Err(other),
    });
    seen.unwrap_or_else(|last| panic!("{last:?} jobs run\n{}", gateway.said()));
}

#[test]
fn a_second_stop_signal_ends_the_running_plugins_at_once() {
    let script = r#"trap '' TERM; echo $$ > "$DUCTILE_PAYLOAD_PID"; cat >/dev/null; while :; do sleep 1; done"#;
    for (first, second) in [("TERM", "INT"), ("INT", "TERM")] {
        // Without the second signal the stop would take longer than any test waits.
        let site = Site::new().service("drain_timeout: 1h").plugin("stuck", script);
        let mut gateway = site.start();
        let job = gateway.trigger_with("stuck", "poll", &json!({"pid": site.path("pid")}));
        gateway.wait_for_status(&job, |status| status == "running");
        let pid = eventually(|| fs::read_to_string(site.path("pid")).ok().filter(|pid| pid.ends_with('\n')).ok_or(()));
        let pid = pid.expect("the plugin's pid");
        gateway.signal(first);
        gateway.wait_for_log("the stop to begin", |line| line["event"] == "shutdown.started");
        gateway.signal(second);
        assert_eq!(gateway.wait_for_exit().code(), Some(1), "{}", gateway.said());
        assert!(!is_alive(pid.trim()), "the plugin lives on");
        assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE status = 'running'"), 0);
        assert_eq!(fs::read_to_string(site.path("data/ductile.pid")).expect("the lock file"), "");
        assert_eq!(site.start().get("/readyz").status, 200);
    }
}

/// A gateway in the middle of its start: it can not go on until the transaction on its database ends.
fn held_in_its_start(address: &str) -> (Site, Gateway, Connection) {
    let site = site_at(address);
    assert_eq!(site.start().stop().code(), Some(0));
    let other = Connection::open(site.path("data/ductile.db")).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    let mut gateway = site.launch(&[]);
    gateway.wait_for_log("the lock to be taken", |line| line["message"] == "pid lock acquired");
    (site, gateway, other)
}

#[test]
fn a_reload_signal_during_the_start_is_one_reload_afterwards() {
    let address = free_address();
    let (site, mut gateway, held) = held_in_its_start(&address);
    gateway.signal("HUP");
    gateway.signal("HUP");
    held.execute_batch("ROLLBACK").expect("the end of the transaction");
    gateway.wait_for_log("the gateway to be ready", |line| line["message"] == "ductile running");
    gateway.wait_for_log("the reload", |line| line["event"] == "reload.ok");
    let generation = Client::new(&address, "").get("/healthz").body["generation"].as_u64();
    assert!(matches!(generation, Some(2 | 3)), "{generation:?}");
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    let history = site.column("SELECT DISTINCT trigger || ' ' || outcome FROM reload_history");
    assert_eq!(history, ["sighup ok"]);
}

#[test]
fn a_stop_signal_during_the_start_ends_it_in_order() {
    let address = free_address();
    let (site, mut gateway, held) = held_in_its_start(&address);
    gateway.signal("TERM");
    held.execute_batch("ROLLBACK").expect("the end of the transaction");
    assert_eq!(gateway.wait_for_exit().code(), Some(0), "{}", gateway.said());
    assert!(TcpStream::connect(&address).is_err(), "the port is open");
    assert_eq!(fs::read_to_string(site.path("data/ductile.pid")).expect("the lock file"), "");
    assert_eq!(site.start().get("/readyz").status, 200);
}

#[test]
fn a_reader_of_the_log_that_goes_away_takes_nobody_along() {
    let address = free_address();
    let site = site_at(&address);
    site.write_config();
    let mut child =
        site.command(&["system", "start"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
    drop((child.stdout.take(), child.stderr.take()));
    let client = Client::new(&address, token());
    let ready = eventually(|| match client.try_get("/readyz") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    ready.expect("a serving gateway");
    for _ in 0..20 {
        let answer = client.post("/plugins/hello/run", r#"{"payload":{},"sync":true}"#, &[]);
        assert_eq!((answer.status, &answer.body["status"]), (200, &json!("succeeded")), "{answer:?}");
    }
    assert!(child.try_wait().expect("its status").is_none(), "the gateway ended");
    let stop = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(stop.success());
    assert_eq!(child.wait().expect("its status").code(), Some(0));
}

#[test]
fn a_reader_of_a_result_that_goes_away_is_no_error() {
    let address = free_address();
    let site = site_at(&address);
    let gateway = site.start();
    let job = gateway.trigger("hello", "poll");
    gateway.wait_for(&job);
    for args in [vec!["job", "inspect", &job], vec!["plugin", "list"], vec!["version"], vec!["help"]] {
        let config = !matches!(args[0], "version" | "help");
        let mut command = if config { site.command(&args) } else { ductile(&args) };
        // The reader is gone before the first byte is written.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().expect("the binary");
        assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), true), "{args:?}: {}", show(&output));
    }
}

#[test]
fn whoever_wants_to_stop_or_restart_is_sent_to_the_service_manager() {
    for action in ["stop", "restart"] {
        let output = ductile(&["system", action]).output().expect("the binary");
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        for word in ["systemctl", "launchctl", "Ctrl-C", "ductile system reload"] {
            assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{word}: {}", show(&output));
        }
    }
}

#[test]
fn secrets_of_the_configuration_are_in_no_record_and_change_its_hash() {
    let script = r#"cat >/dev/null; tr '\0' '\n' < /proc/$$/cmdline > "$DUCTILE_PAYLOAD_OUT" || true; echo '{"status":"ok","result":"done"}'"#;
    let site = Site::new().plugin_with(
        "hello",
        script,
        "",
        "config: {api_key: \"${MY_KEY}\", dsn: \"postgres://user:hunter-two@host/db\", dedupe_key: shown-word}",
    );
    let secrets = ["first-secret-value", "hunter-two", token()];
    for key in ["first-secret-value", "first-secret-value", "other-secret-value"] {
        let mut gateway = site.start_with(&[("MY_KEY", key)]);
        gateway.wait_for(&gateway.trigger_with("hello", "poll", &json!({"out": site.path("argv")})));
        assert_eq!(gateway.stop().code(), Some(0));
        assert!(secrets.iter().chain([&key]).all(|secret| !gateway.log().contains(*secret)), "{}", gateway.log());
    }
    let hashes = site.column("SELECT config_hash FROM config_snapshots ORDER BY loaded_at");
    assert!(hashes[0] == hashes[1] && hashes[1] != hashes[2], "{hashes:?}");
    assert_eq!(site.column("SELECT DISTINCT reason FROM config_snapshots"), ["startup"]);
    let recorded = site.column("SELECT sanitized_config FROM config_snapshots").join("\n");
    assert!(recorded.contains("shown-word") && recorded.contains("[REDACTED]"), "{recorded}");
    for name in ["data/ductile.db", "data/ductile.db-wal", "argv"] {
        let bytes = fs::read(site.path(name)).unwrap_or_default();
        for secret in secrets.iter().chain([&"other-secret-value"]) {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in {name}");
        }
    }
}

#[test]
fn the_state_lies_beside_the_configuration_wherever_it_is_started_from() {
    for (inside, expected) in [(false, "data/ductile.db"), (true, "config/data/ductile.db")] {
        let site = Site::new().plugin("hello", OK);
        site.write_config();
        let text = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
        fs::write(site.path("config/config.yaml"), text.replace("../data/ductile.db", "./data/ductile.db"))
            .expect("the configuration");
        fs::create_dir(site.path("data")).expect("a directory");
        if inside {
            fs::create_dir(site.path("config/data")).expect("a directory");
        }
        let mut gateway = site.launch(&[]);
        gateway.wait_for_log("the gateway to be ready", |line| line["message"] == "ductile running");
        assert_eq!(gateway.stop().code(), Some(0));
        assert!(site.path(expected).exists(), "{}", gateway.log());
        assert!(inside || !site.path("config/data").exists());
        assert!(!inside || !site.path("data/ductile.db").exists());
    }
}

#[test]
fn a_plugin_that_needs_the_vault_never_starts_without_being_known_to_it() {
    let script = r#"cat > "$DUCTILE_PAYLOAD_OUT"; echo '{"status":"ok","result":"done"}'"#;
    let site = Site::new().plugin_with("stranger", script, "", "requires_vault: true").plugin_with(
        "snake_case",
        script,
        "",
        "vault_principal: my-mailer",
    );
    site.principal("my-mailer");
    site.secret("pw", "value-for-the-mailer", "my-mailer");
    let gateway = site.start();
    let out = site.path("request");
    let refused = gateway.wait_for(&gateway.trigger_with("stranger", "poll", &json!({"out": out})));
    assert_eq!((&refused["status"], &refused["attempt"]), (&json!("failed"), &json!(1)), "{refused}");
    assert!(!out.exists(), "the plugin ran");
    gateway.wait_for(&gateway.trigger_with("snake_case", "poll", &json!({"out": out})));
    let request: Value = serde_json::from_slice(&fs::read(&out).expect("the request")).expect("JSON");
    assert_eq!(request["secrets"], json!({"pw": "value-for-the-mailer"}));
}

#[test]
fn a_check_without_the_key_only_warns_and_a_damaged_vault_fails_everywhere() {
    let site = Site::new().plugin("hello", OK);
    site.write_config();
    let named = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    // A key that is named must be there; one in its usual place may be missing.
    let usual = named.replace("secrets:\n  age_key_file: age.key\n", "");
    fs::write(site.path("config/config.yaml"), &usual).expect("the configuration");
    let key = fs::read(site.path("config/age.key")).expect("the key");
    fs::remove_file(site.path("config/age.key")).expect("the key");
    let output = site.command(&["config", "check"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(show(&output).contains("vault"), "{}", show(&output));
    let output = site.command(&["system", "start"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(78), "{}", show(&output));
    fs::write(site.path("config/age.key"), key).expect("the key");
    fs::set_permissions(site.path("config/age.key"), fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(site.path("config/vault.age"), "no vault at all\n").expect("the vault");
    for (args, code) in [(["config", "check"], 1), (["system", "start"], 78)] {
        let output = site.command(&args).output().expect("the binary");
        assert_eq!(output.status.code(), Some(code), "{}", show(&output));
        assert!(show(&output).contains("vault.age"), "{}", show(&output));
    }
}

#[test]
fn a_grant_to_nobody_stores_nothing() {
    let site = Site::new().plugin("hello", OK);
    site.write_config();
    let before = fs::read(site.path("config/vault.age")).expect("the vault");
    let value = site.path("value");
    fs::write(&value, "never-stored-value").expect("a value");
    let mut command = site.command(&["vault", "set", "--name", "pw", "--principal", "nobody-known"]);
    let output = command.stdin(fs::File::open(&value).expect("the value")).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("pw") && said.contains("nobody-known") && !said.contains("never-stored"), "{said}");
    assert_eq!(fs::read(site.path("config/vault.age")).expect("the vault"), before);
}

#[test]
fn a_vault_of_before_is_used_with_a_warning_and_a_current_one_without() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/vault/tests/fixtures");
    for (blob, warns) in [("legacy.age", true), ("vault.age", false)] {
        let tokens = "auth:\n  tokens: [{name: old, secret_ref: webhook, scopes: [\"*\"]}]";
        let site = Site::new().api(tokens).plugin("hello", OK);
        for (from, to) in [("age.key", "config/age.key"), (blob, "config/vault.age")] {
            fs::copy(fixtures.join(from), site.path(to)).expect("a stored file");
            fs::set_permissions(site.path(to), fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        let mut gateway = site.start();
        assert_eq!(gateway.stop().code(), Some(0));
        assert_eq!(gateway.log().contains("vault.legacy"), warns, "{blob}: {}", gateway.log());
    }
}

#[test]
fn a_reload_can_be_asked_for_by_address_or_without_waiting() {
    let address = free_address();
    let site = site_at(&address);
    let asks = |args: &[&str], code: i32| {
        let output = site.command(&["system", "reload"]).args(args).output().expect("the binary");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", show(&output));
        show(&output)
    };
    site.write_config();
    let nobody = asks(&[], 1);
    assert!(nobody.contains("no running gateway"), "{nobody}");
    let mut gateway = site.start();
    let mode = fs::metadata(site.path("data/ductile.pid")).expect("the lock file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let sent = site.run(&["system", "reload", "--no-wait", "--json"]);
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert_eq!(sent, json!({"status": "ok", "message": format!("SIGHUP sent to {}", gateway.pid())}));
    gateway.wait_for_log("the reload", |line| line["event"] == "reload.ok");
    let url = format!("http://{address}");
    let by_address = ["--api-url", &url, "--api-key", token()];
    assert!(asks(&by_address, 0).contains("Reloaded at "));
    let config = fs::read_to_string(site.path("config/config.yaml")).expect("the configuration");
    fs::write(site.path("config/config.yaml"), "service: [").expect("the configuration");
    let refused = asks(&by_address, 78);
    assert!(refused.contains("Reload failed (409): ") && refused.contains("config reload rejected: "), "{refused}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let elsewhere = taken.local_addr().expect("its address").to_string();
    fs::write(site.path("config/config.yaml"), config.replace(&address, &elsewhere)).expect("the configuration");
    assert!(asks(&by_address, 1).contains(&elsewhere));
    let outcomes = site.column("SELECT outcome FROM reload_history ORDER BY id");
    assert_eq!(outcomes, ["ok", "ok", "rejected", "failed"]);
    let history: Value = serde_json::from_str(&asks_history(&site, config)).expect("JSON");
    let shown = history["reloads"].as_array().expect("rows").iter().map(|row| row["outcome"].clone());
    assert_eq!(shown.collect::<Vec<_>>(), ["failed", "rejected"], "{history}");
}

fn asks_history(site: &Site, config: String) -> String {
    fs::write(site.path("config/config.yaml"), config).expect("the configuration");
    site.run(&["system", "reload", "--history", "--limit", "2", "--json"])
}

#[test]
fn a_deployment_made_by_root_says_that_plugins_are_not_confined() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let mut command = ductile(&["quickstart", "--once", "--listen", &free_address(), "--dir"]);
    let output = command.arg(&dir).output().expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let config = fs::read_to_string(dir.join("config/config.yaml")).expect("the configuration");
    let root = rustix::process::geteuid().is_root();
    assert_eq!(config.lines().any(|line| line == "  unconfined: true"), root, "{config}");
    assert_eq!(show(&output).contains("service.unconfined: true"), root, "{}", show(&output));
}

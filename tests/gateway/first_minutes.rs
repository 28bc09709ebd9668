//! The first minutes of a new user, and the command line.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use serde_json::{Value, json};

use crate::site::{Client, OK, Site, ductile, eventually, free_address, show};

pub(crate) fn quickstart(dir: &Path, args: &[&str]) -> Output {
    let mut command = ductile(&["quickstart", "--dir"]);
    command.arg(dir).args(args).output().expect("the binary")
}

#[test]
fn quickstart_makes_a_deployment_runs_a_job_and_a_second_run_changes_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let output = quickstart(&dir, &["--once", "--json", "--listen", &free_address()]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    for key in ["dir", "created", "listen", "api_url", "token", "pid", "job_id", "status", "tree", "commands"] {
        assert!(!document[key].is_null(), "{key} in {document}");
    }
    assert_eq!(document["status"], "succeeded");
    assert_eq!(document["tree"][0]["result"]["events"][0]["type"], "hello.changed");
    assert_eq!(document["tree"].as_array().map(Vec::len), Some(6), "{document}");
    let before = contents(&dir);
    let again = quickstart(&dir, &["--once"]);
    assert_eq!(again.status.code(), Some(0), "{}", show(&again));
    assert_eq!(contents(&dir), before);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.contains(document["token"].as_str().expect("a token")), "{text}");
}

/// Every file of the parts that only the first run makes.
pub(crate) fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for part in ["config", "secret", "plugins", "watched"] {
        let mut open = vec![dir.join(part)];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
            } else if !path.ends_with("vault.age.lock") && path.extension().is_none_or(|extension| extension != "pyc") {
                files.push((path.display().to_string(), fs::read(&path).expect("a file")));
            }
        }
    }
    files.sort();
    files
}

/// A quickstart in the foreground; killed when dropped.
struct Foreground {
    child: Child,
    /// What it printed when its first job was over.
    told: Value,
}

impl Foreground {
    fn start(dir: &Path, listen: &str) -> Self {
        let mut command = ductile(&["quickstart", "--json", "--listen", listen, "--dir"]);
        let child = command.arg(dir).stdout(Stdio::piped()).spawn().expect("the binary");
        let mut started = Self { child, told: Value::Null };
        let mut stdout = started.child.stdout.take().expect("stdout");
        let mut text = String::new();
        while started.told.is_null() {
            let mut chunk = [0; 65536];
            let read = stdout.read(&mut chunk).expect("output");
            assert!(read > 0, "quickstart ended early: {text}");
            text.push_str(&String::from_utf8_lossy(&chunk[..read]));
            started.told = serde_json::from_str(&text).unwrap_or_default();
        }
        started
    }

    fn wait(&mut self) -> Option<i32> {
        let ended = eventually(|| self.child.try_wait().expect("its status").ok_or(()));
        ended.expect("quickstart to end").code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn every_command_that_quickstart_prints_works_as_printed() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("with a blank");
    let mut running = Foreground::start(&dir, &free_address());
    let commands = running.told["commands"].as_array().expect("commands");
    for wanted in [" job inspect ", " pipeline graph hello "] {
        assert!(commands.iter().any(|command| command.to_string().contains(wanted)), "{wanted}: {commands:?}");
    }
    for command in commands {
        let command = command.as_str().expect("a command");
        let output =
            std::process::Command::new("sh").args(["-c", command]).env("HOME", "/nonexistent").output().expect("sh");
        assert!(output.status.success(), "{command}: {}", show(&output));
        if command.starts_with("curl") {
            let answer: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{command}: {}", show(&output)));
            assert!(answer["error"].is_null(), "{command}: {answer}");
            // The command before it has changed the file.
            if command.contains("/file_watch/poll") {
                assert_eq!(answer["tree"].as_array().map(Vec::len), Some(6), "{answer}");
            }
        }
    }
    // The last command is the one that stops it.
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn quickstart_touches_no_directory_that_is_not_its_own() {
    let place = tempfile::tempdir().expect("a directory");
    fs::write(place.path().join("mine.txt"), "mine").expect("a file");
    let output = quickstart(place.path(), &["--once"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert_eq!(fs::read_dir(place.path()).expect("the directory").count(), 1);
}

#[test]
fn quickstart_killed_at_any_instant_is_finished_by_the_next_run() {
    let place = tempfile::tempdir().expect("a directory");
    for round in 0..10 {
        let listen = free_address();
        let dir = place.path().join(format!("q{round}"));
        let mut child = ductile(&["quickstart", "--listen", &listen, "--dir"])
            .arg(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary");
        std::thread::sleep(std::time::Duration::from_micros(fastrand::u64(0..120_000)));
        child.kill().expect("a running quickstart");
        child.wait().expect("its status");
        let output = quickstart(&dir, &["--once", "--listen", &listen]);
        assert_eq!(output.status.code(), Some(0), "round {round}: {}", show(&output));
    }
}

#[test]
fn quickstart_takes_another_port_when_the_usual_one_is_taken() {
    // Whoever has it now, this test or another program, it is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:8080");
    let place = tempfile::tempdir().expect("a directory");
    let output = quickstart(&place.path().join("q"), &["--once", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_ne!(document["listen"], "127.0.0.1:8080");
    drop(taken);
}

#[test]
fn status_tells_a_running_gateway_from_a_stopped_one() {
    let site = Site::new().plugin("hello", OK);
    let free = free_address();
    let site = site.api(&format!("listen: {free}"));
    let mut gateway = site.start();
    let document: Value = serde_json::from_str(&site.run(&["system", "status", "--json"])).expect("JSON");
    assert_eq!(
        (&document["healthy"], &document["running"], &document["generation"]),
        (&json!(true), &json!(true), &json!(1))
    );
    let names: Vec<_> = document["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .map(|check| check["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["config_discovery", "config_load", "state_db", "pid_lock", "boot_posture", "plugins"]);
    assert_eq!(document["checks"][3]["active_pid"], gateway.pid());
    gateway.stop();
    assert!(site.run(&["system", "status"]).starts_with("System Status: HEALTHY"));
    let output = site.command(&["system", "status", "--require-running"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn plugins_are_listed_and_run_from_the_command_line() {
    let free = free_address();
    let site = Site::new().plugin("hello", OK).api(&format!("listen: {free}"));
    let _gateway = site.start();
    assert!(site.run(&["plugin", "list"]).contains("hello  1.0"));
    assert!(site.run(&["plugin", "run", "hello", "health"]).starts_with("Queued job "));
    assert!(site.run(&["plugin", "run", "--command", "handle", "hello"]).contains("(hello handle)"));
    assert!(site.run(&["plugin", "run", "hello", "--sync"]).contains("succeeded"));
    let before: i64 = site.query("SELECT COUNT(*) FROM job_queue");
    let output = site.command(&["plugin", "run", "hello", "--payload", "[1]"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), before);
    let said = site.run(&["api", "/plugin/hello/poll", "-f", "message=hi"]);
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON")["status"], "queued");
    let output = site.command(&["api", "/jobs", "--api-key", "wrong"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Response Status: 401 Unauthorized"), "{}", show(&output));
}

#[test]
fn a_job_is_shown_with_its_history_while_the_gateway_runs_and_after() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    let job = gateway.trigger("hello", "poll");
    gateway.wait_for(&job);
    let document: Value = serde_json::from_str(&site.run(&["job", "inspect", &job, "--json"])).expect("JSON");
    assert_eq!(
        (&document["job_id"], &document["status"], &document["hops"]),
        (&json!(job), &json!("succeeded"), &json!(0))
    );
    assert_eq!(document["transitions"].as_array().expect("transitions").len(), 3);
    assert_eq!(
        document["consistency"],
        json!({"status_matches_latest": true, "attempts_match": true, "missing_facts": false})
    );
    gateway.stop();
    let short = &job[job.len() - 8..];
    assert!(site.run(&["job", "inspect", short]).starts_with("Lineage Report"));
    let logs: Value = serde_json::from_str(&site.run(&["job", "logs", "--json", "--status", "OK"])).expect("JSON");
    assert_eq!((&logs["total"], &logs["logs"][0]["result"]), (&json!(1), &Value::Null));
    let output = site.command(&["job", "inspect", "00000000"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1));
    let output = site.command(&["job", "logs", "--limit", "201"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn looking_at_a_database_that_is_not_there_creates_nothing() {
    let site = Site::new().plugin("hello", OK);
    site.write_config();
    let output = site.command(&["job", "logs"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("database not found"), "{}", show(&output));
    assert!(!site.path("data").exists());
}

#[test]
fn config_check_finds_what_a_start_would_warn_about() {
    let site = Site::new().plugin("hello", OK).extra("log_level: debug");
    site.write_config();
    let document: Value = serde_json::from_str(&site.run(&["config", "check", "--json"])).expect("JSON");
    assert_eq!(document["valid"], true);
    assert!(document["warnings"].to_string().contains("log_level"), "{document}");
    let output = site.command(&["config", "check", "--strict"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
}

#[test]
fn an_address_that_makes_no_sense_is_refused_before_anything_is_made() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    for listen in ["foo", "127.0.0.1", "127.0.0.1:0", ":8080", "127.0.0.1:99999"] {
        let output = quickstart(&dir, &["--once", "--json", "--listen", listen]);
        assert_eq!(output.status.code(), Some(1), "{listen}: {}", show(&output));
        assert_eq!(refusal(&output)["code"], 64, "{listen}: {}", show(&output));
        assert!(!dir.exists(), "{listen}");
    }
}

/// The one document of a failure.
fn refusal(output: &Output) -> Value {
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(output)));
    assert!(document["error"].is_string() && document["context"].is_object(), "{document}");
    document
}

#[test]
fn runs_at_once_on_one_directory_leave_one_that_works() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let listen = free_address();
    let runs: Vec<Output> = std::thread::scope(|scope| {
        let run = || quickstart(&dir, &["--once", "--json", "--listen", &listen]);
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect()
    });
    let mut tokens = Vec::new();
    for output in &runs {
        match output.status.code() {
            Some(0) => {
                let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                tokens.push(document["token"].as_str().expect("a token").to_owned());
            }
            // Only because another one runs there.
            code => {
                assert_eq!(code, Some(1), "{}", show(output));
                refusal(output);
            }
        }
    }
    let last = quickstart(&dir, &["--once", "--json", "--listen", &listen]);
    assert_eq!(last.status.code(), Some(0), "{}", show(&last));
    let document: Value = serde_json::from_slice(&last.stdout).expect("JSON");
    assert!(!tokens.is_empty() && tokens.iter().all(|token| document["token"] == **token), "{runs:?}");
}

#[test]
fn a_failing_quickstart_prints_one_error_for_programs() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let listen = free_address();
    // Another one runs there.
    let mut running = Foreground::start(&dir, &listen);
    let pid = running.child.id().to_string();
    let output = quickstart(&dir, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let document = refusal(&output);
    assert_eq!((&document["code"], &document["context"]["exit_status"]), (&json!(75), &json!(1)), "{document}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&pid), "{}", show(&output));
    assert!(std::process::Command::new("kill").arg(pid).status().expect("kill").success());
    assert_eq!(running.wait(), Some(0));
    // The first job can not be triggered; the gateway does not stay.
    let plugins = dir.join("config/plugins.yaml");
    let text = fs::read_to_string(&plugins).expect("a file");
    fs::write(&plugins, text.replacen("enabled: true", "enabled: false", 1)).expect("a file");
    let output = quickstart(&dir, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let document = refusal(&output);
    assert!(document["error"].as_str().expect("text").contains("could not be triggered"), "{document}");
    assert!(output.stderr.is_empty(), "{}", show(&output));
    // The start is refused.
    fs::write(&plugins, "plugins: [").expect("a file");
    let output = quickstart(&dir, &["--json"]);
    assert_eq!(output.status.code(), Some(78), "{}", show(&output));
    let document = refusal(&output);
    assert_eq!((&document["code"], &document["context"]["exit_status"]), (&json!(78), &json!(78)), "{document}");
    assert!(document["context"]["log"].as_str().expect("a path").ends_with("data/gateway.log"), "{document}");
    // The address can not be compared.
    let output = quickstart(&dir, &["--json", "--listen", &listen]);
    assert_eq!(output.status.code(), Some(78), "{}", show(&output));
    assert!(refusal(&output)["error"].as_str().expect("text").contains("plugins.yaml"), "{}", show(&output));
}

#[test]
fn a_first_job_that_fails_is_shown_with_its_cause() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let listen = free_address();
    assert_eq!(quickstart(&dir, &["--once", "--listen", &listen]).status.code(), Some(0));
    let script =
        "#!/bin/sh\ncat >/dev/null; echo '{\"status\":\"error\",\"error\":\"out of paper\",\"retry\":false}'\n";
    let program = dir.join("plugins/file_watch/run.py");
    fs::write(&program, script).expect("a plugin");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("an execute bit");
    let output = quickstart(&dir, &["--once", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(document["error"].as_str().expect("a cause").contains("out of paper"), "{document}");
    assert!(output.stderr.is_empty(), "{}", show(&output));
    let output = quickstart(&dir, &["--once"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("out of paper"), "{}", show(&output));
}

#[test]
fn the_commands_of_the_readme_lead_to_a_serving_gateway() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(repository.join("README.md")).expect("the README");
    let block =
        readme.split("```sh\n").find(|block| block.starts_with("mkdir -m 700 /etc/ductile")).expect("the block");
    let block = block.split("```").next().expect("its end");
    let place = tempfile::tempdir().expect("a directory");
    let here = place.path().display().to_string();
    let block = block.replace("/etc/ductile", &format!("{here}/ductile"));
    let (before, start) = block.trim_end().rsplit_once('\n').expect("several commands");
    assert!(start.starts_with("ductile system start "), "{start}");
    // What one is told to begin with, with the key named as one is told.
    let listen = free_address();
    let example = fs::read_to_string(repository.join("config-examples/minimal/config.yaml")).expect("the example");
    let plugins = repository.join("plugins").display().to_string();
    let wanted = example.replace("127.0.0.1:8080", &listen).replace("../../plugins", &plugins);
    fs::write(
        place.path().join("wanted.yaml"),
        format!("{wanted}\nsecrets:\n  age_key_file: {here}/ductile-secret/age.key\n"),
    )
    .expect("a configuration");
    let bin = place.path().join("bin");
    fs::create_dir(&bin).expect("a directory");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ductile"), bin.join("ductile")).expect("the binary");
    // Not every machine that runs the tests has it.
    fs::write(bin.join("openssl"), "#!/bin/sh\nprintf '%064d\\n' 7\n").expect("a program");
    fs::set_permissions(bin.join("openssl"), fs::Permissions::from_mode(0o755)).expect("an execute bit");
    let shell = |commands: &str| {
        let mut command = std::process::Command::new("sh");
        let path = std::env::var("PATH").expect("a search path");
        command.args(["-euc", commands]).current_dir(place.path()).env("HOME", "/nonexistent").stdin(Stdio::null());
        command.env("PATH", format!("{}:{path}", bin.display())).env("EDITOR", format!("cp {here}/wanted.yaml"));
        for variable in ["DUCTILE_CONFIG_DIR", "DUCTILE_API_URL", "DUCTILE_API_KEY"] {
            command.env_remove(variable);
        }
        command
    };
    let output = shell(before).output().expect("sh");
    assert!(output.status.success(), "{before}: {}", show(&output));
    let mut gateway = shell(&format!("exec {start}")).stdout(Stdio::null()).spawn().expect("sh");
    let client = Client::new(&listen, &format!("{:064}", 7));
    let answer = eventually(|| match client.try_get("/plugins") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    gateway.kill().expect("a running gateway");
    gateway.wait().expect("its end");
    answer.expect("a gateway that serves");
}

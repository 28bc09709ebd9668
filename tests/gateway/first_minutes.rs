//! The first minutes of a new user, and the command line.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::site::{OK, Site, ductile, eventually, free_address, show};

fn quickstart(dir: &std::path::Path, args: &[&str]) -> std::process::Output {
    let mut command = ductile(&["quickstart", "--dir"]);
    command.arg(dir).args(args).output().expect("the binary")
}

#[test]
fn quickstart_makes_a_deployment_runs_a_job_and_a_second_run_changes_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("q");
    let output = quickstart(&dir, &["--once", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    for key in ["dir", "created", "listen", "api_url", "token", "pid", "job_id", "status", "tree", "commands"] {
        assert!(!document[key].is_null(), "{key} in {document}");
    }
    assert_eq!(document["status"], "succeeded");
    assert_eq!(document["tree"][0]["result"]["events"][0]["type"], "hello.changed");
    let before = contents(&dir);
    let again = quickstart(&dir, &["--once"]);
    assert_eq!(again.status.code(), Some(0), "{}", show(&again));
    assert_eq!(contents(&dir), before);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.contains(document["token"].as_str().expect("a token")), "{text}");
}

/// Every file of the parts that only the first run makes.
fn contents(dir: &std::path::Path) -> Vec<(String, Vec<u8>)> {
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

#[test]
fn every_command_that_quickstart_prints_works_as_printed() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("with a blank");
    let mut child = ductile(&["quickstart", "--json", "--listen", &free_address(), "--dir"])
        .arg(&dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary");
    let mut stdout = child.stdout.take().expect("stdout");
    let mut text = String::new();
    let document: Value = loop {
        let mut chunk = [0; 65536];
        let read = stdout.read(&mut chunk).expect("output");
        assert!(read > 0, "quickstart ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
        if let Ok(document) = serde_json::from_str(&text) {
            break document;
        }
    };
    let commands = document["commands"].as_array().expect("commands");
    for command in commands {
        let command = command.as_str().expect("a command");
        let output =
            std::process::Command::new("sh").args(["-c", command]).env("HOME", "/nonexistent").output().expect("sh");
        assert!(output.status.success(), "{command}: {}", show(&output));
        if command.starts_with("curl") {
            let answer: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{command}: {}", show(&output)));
            assert!(answer["error"].is_null(), "{command}: {answer}");
        }
    }
    // The last command is the one that stops it.
    let status = eventually(|| child.try_wait().expect("its status").ok_or(())).expect("quickstart to end");
    assert_eq!(status.code(), Some(0));
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
fn help_needs_nothing_and_usage_errors_exit_1() {
    for args in [
        vec!["--help"],
        vec!["help"],
        vec!["system", "--help"],
        vec!["system", "start", "--help"],
        vec!["config", "check", "-h"],
        vec!["job", "--help"],
        vec!["plugin", "run", "--help"],
        vec!["vault", "init", "--help"],
        vec!["secrets", "--help"],
        vec!["api", "--help"],
        vec!["quickstart", "--help"],
        vec!["version", "--help"],
        vec!["job", "help"],
    ] {
        let output = ductile(&args).output().expect("the binary");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", show(&output));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}: {}", show(&output));
    }
    for args in [
        vec![],
        vec!["system"],
        vec!["job"],
        vec!["nope"],
        vec!["job", "nope"],
        vec!["version", "--nope"],
        vec!["system", "stop"],
    ] {
        let output = ductile(&args).output().expect("the binary");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {}", show(&output));
    }
}

#[test]
fn version_has_exactly_its_keys() {
    for args in [["version", "--json"], ["version", "-json"], ["--version", "--json"]] {
        let output = ductile(&args).output().expect("the binary");
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let keys: Vec<_> = document.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(keys, ["version", "commit", "build_time"]);
    }
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
fn a_vault_is_made_once_and_a_key_is_never_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let (key, vault) = (dir.path().join("k"), dir.path().join("v"));
    let keygen = || ductile(&["secrets", "keygen", "--out"]).arg(&key).output().expect("the binary");
    let first = keygen();
    assert!(String::from_utf8_lossy(&first.stderr).contains("age1"), "{}", show(&first));
    let bytes = fs::read(&key).expect("the key");
    assert_eq!(keygen().status.code(), Some(1));
    assert_eq!(fs::read(&key).expect("the key"), bytes);
    let init =
        || ductile(&["vault", "init", "--vault"]).arg(&vault).arg("--key").arg(&key).output().expect("the binary");
    let made = init();
    let token = String::from_utf8(made.stdout.clone()).expect("UTF-8");
    assert_eq!((made.status.code(), token.trim_end().len()), (Some(0), 43), "{}", show(&made));
    let blob = fs::read(&vault).expect("the vault");
    assert!(blob.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----"));
    assert_eq!(init().status.code(), Some(1));
    assert_eq!(fs::read(&vault).expect("the vault"), blob);
    let one = ductile(&["vault", "set", "--name", "x", "--vault", "v"]).output().expect("the binary");
    assert!(String::from_utf8_lossy(&one.stderr).contains("BOTH --vault and --key"), "{}", show(&one));
}

//! The command line as a whole: help, wrong words and flags, and what is common to all commands.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::{OK, Site, ductile, free_address, show};

/// Runs the binary where there is no configuration.
fn run(args: &[&str]) -> Output {
    ductile(args).output().expect("the binary")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every noun and action that the binary's own help names, as words.
fn every_command() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = stdout(&run(&words));
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        for line in listed {
            // A description that goes on in the next line is deeper.
            let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else { continue };
            let name = name.split_whitespace().next().expect("a name").to_owned();
            if name != "help" {
                let path: Vec<String> = path.iter().cloned().chain([name]).collect();
                open.push(path.clone());
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn help_of_every_command_is_the_same_however_it_is_asked_for() {
    let commands = every_command();
    let joined: Vec<String> = commands.iter().map(|path| path.join(" ")).collect();
    for known in ["system start", "job logs", "vault set", "secrets keygen", "api", "quickstart", "version"] {
        assert!(joined.iter().any(|path| path == known), "{known} in {joined:?}");
    }
    for path in &commands {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let ask = |words: &[&str]| {
            let output = run(words);
            assert_eq!(output.status.code(), Some(0), "{words:?}: {}", show(&output));
            assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}: {}", show(&output));
            stdout(&output)
        };
        let help = ask(&[&path[..], &["--help"]].concat());
        for part in ["Usage: ductile ", "Example", "Exit codes: ", "--json"] {
            assert!(help.contains(part), "{path:?} says nothing of {part:?}: {help}");
        }
        assert_eq!(ask(&[&path[..], &["help"]].concat()), help, "{path:?} help");
        assert_eq!(ask(&[&["help"], &path[..]].concat()), help, "help {path:?}");
        ask(&[&path[..], &["-h"]].concat());
    }
}

#[test]
fn help_needs_nothing_and_usage_errors_exit_1() {
    for args in [vec!["--help"], vec!["help"], vec!["-h"], vec!["--config", "/nowhere", "job", "logs", "help"]] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", show(&output));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}: {}", show(&output));
    }
    for args in [
        vec![],
        vec!["system"],
        vec!["job"],
        vec!["-v", "job", "--no-color"],
        vec!["nope"],
        vec!["job", "nope"],
        vec!["version", "--nope"],
        vec!["system", "stop"],
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {}", show(&output));
    }
}

#[test]
fn a_usage_error_names_what_is_missing_and_how_the_action_is_used() {
    for (args, missing, usage) in [
        (&["job", "inspect"][..], "<JOB_ID>", "Usage: ductile job inspect "),
        (&["plugin", "run"], "<NAME>", "Usage: ductile plugin run "),
        (&["--config", "/nowhere", "job", "inspect", "--json=false"], "<JOB_ID>", "Usage: ductile job inspect "),
        (&["vault", "set", "--nope"], "--nope", "Usage: ductile vault set "),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
        let said = stderr(&output);
        let (first, rest) = said.split_once('\n').expect("two lines");
        assert!(first.starts_with("Flag error: ") && first.contains(missing), "{args:?}: {said}");
        assert!(rest.starts_with(usage), "{args:?}: {said}");
    }
    let output = run(&["job", "inspect", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["code"], 64);
    assert!(document["error"].as_str().expect("an error").contains("<JOB_ID>"), "{document}");
    let document: Value = serde_json::from_slice(&run(&["job", "--json"]).stdout).expect("JSON");
    assert_eq!(document["error"], "ductile job: the command is missing, one of: inspect, logs, cancel, retry, help");
}

#[test]
fn a_word_that_job_logs_does_not_take_prints_its_help_and_exits_1() {
    let output = run(&["job", "logs", "x"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(output.stdout.is_empty(), "{}", show(&output));
    assert!(stderr(&output).contains("--submitted-by"), "{}", show(&output));
}

#[test]
fn flags_before_the_noun_do_not_hide_it() {
    let output = run(&["--config", "/nowhere", "job", "inspct"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let said = stderr(&output);
    assert!(said.starts_with("Unknown job action: inspct\nDid you mean: ductile job inspect\n"), "{said}");
    assert!(said.contains("Usage: ductile job "), "{said}");
}

#[test]
fn version_has_exactly_its_keys() {
    for args in [["version", "--json"], ["version", "-json"], ["--version", "--json"]] {
        let document: Value = serde_json::from_slice(&run(&args).stdout).expect("JSON");
        let keys: Vec<_> = document.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(keys, ["version", "commit", "build_time"]);
    }
}

#[test]
fn two_names_for_the_configuration_are_refused_by_every_command() {
    for command in every_command() {
        let path: Vec<&str> = command.iter().map(String::as_str).collect();
        let more: &[&str] = match path[..] {
            // A noun alone asks for nothing.
            ["system" | "config" | "job" | "pipeline" | "plugin" | "schedule" | "vault" | "secrets" | "stopwatch"] => {
                continue;
            }
            ["schedule" | "system", .., "next" | "pause" | "resume"] => &["echo"],
            ["pipeline", "show" | "graph"] => &["article"],
            ["job", "inspect" | "cancel" | "retry"] => &["12345678"],
            ["system", "reset" | "breaker"] => &["echo"],
            ["stopwatch", _] => &["--older-than", "1d"],
            ["plugin", "run"] => &["echo", "--api-url", "http://127.0.0.1:1", "--api-key", "k"],
            ["api"] => &["/healthz", "--api-url", "http://127.0.0.1:1", "--api-key", "k"],
            _ => &[],
        };
        let output = run(&[&path[..], more, &["--config", "/a", "--config-dir", "/b"]].concat());
        assert_eq!(output.status.code(), Some(1), "{path:?}: {}", show(&output));
        assert_eq!(stderr(&output), "use only one of --config or --config-dir\n", "{path:?}");
    }
}

#[test]
fn an_empty_address_or_token_is_none() {
    let site = Site::new().plugin("hello", OK).api(&format!("listen: {}", free_address()));
    let _gateway = site.start();
    assert!(site.run(&["plugin", "run", "hello", "--api-key", "", "--api-url", ""]).starts_with("Queued job "));
    assert!(site.run(&["api", "/jobs", "--api-key=", "--api-url="]).contains("\"jobs\""));
    // Without a named address it is the signal that reloads, not the API.
    assert!(site.run(&["system", "reload", "--api-url", ""]).starts_with("Reload signal sent to PID "));
}

#[test]
fn an_endpoint_with_a_host_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("its address");
    for endpoint in
        [format!("{address}/healthz"), format!("localhost:{}/healthz", address.port()), "127.0.0.1/x".into()]
    {
        let output = run(&["api", &endpoint, "--api-url", &format!("http://{address}"), "--api-key", "k"]);
        assert_eq!(output.status.code(), Some(1), "{endpoint}: {}", show(&output));
        assert!(stderr(&output).contains("must be a path of the gateway"), "{endpoint}: {}", show(&output));
    }
    assert!(listener.accept().is_err(), "nothing was sent");
}

/// Takes one connection, reads the request, and hands the connection over.
fn serve_one(listener: TcpListener, answer: impl FnOnce(std::net::TcpStream) + Send + 'static) {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.push(byte[0]);
        }
        answer(stream);
    });
}

#[test]
fn a_stream_of_events_outlives_the_time_limit_of_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let limit = Duration::from_millis(200);
    serve_one(listener, move |mut stream| {
        let begun = Instant::now();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            .expect("headers");
        while begun.elapsed() < limit * 3 {
            stream.write_all(b"data: more\n\n").expect("a reader that stays");
            std::thread::sleep(Duration::from_millis(10));
        }
        stream.write_all(b"data: last\n\n").expect("a reader that stays");
    });
    let output = run(&["api", "/events", "--timeout", "200ms", "--api-url", &url, "--api-key", "k"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(stdout(&output).ends_with("data: last\n\n"), "{}", show(&output));
}

#[test]
fn an_answer_that_does_not_come_ends_at_the_time_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let (done, held) = std::sync::mpsc::channel::<()>();
    serve_one(listener, move |_stream| assert!(held.recv().is_err()));
    let output = run(&["api", "/jobs", "--timeout", "100ms", "--api-url", &url, "--api-key", "k"]);
    drop(done);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(stderr(&output).starts_with("no answer in time from http://127.0.0.1:"), "{}", show(&output));
}

#[test]
fn config_check_says_how_the_configuration_was_chosen() {
    let site = Site::new().plugin("hello", OK);
    site.write_config();
    let output = site.command(&["config", "check", "-v"]).output().expect("the binary");
    assert!(stderr(&output).contains("config.yaml (explicit)"), "{}", show(&output));
    let mut command = ductile(&["config", "check", "-v"]);
    let output = command.env("DUCTILE_CONFIG_DIR", site.config()).output().expect("the binary");
    assert!(stderr(&output).contains("config.yaml (env)"), "{}", show(&output));
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README")
}

/// The commands in the table of the README, as words; `a|b` stands for two.
fn commands_of_readme() -> Vec<Vec<String>> {
    let text = readme().replace("\\|", "|");
    let rows = text.lines().filter(|line| line.starts_with("| `ductile "));
    let cells = rows.flat_map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    let mut found = Vec::new();
    for cell in cells.filter(|cell| cell.starts_with("ductile ")) {
        let words: Vec<&str> = cell.split(' ').skip(1).filter(|word| !word.starts_with('<')).collect();
        match words[..] {
            [noun, actions] => found.extend(actions.split('|').map(|action| vec![noun.to_owned(), action.to_owned()])),
            _ => found.push(words.iter().map(|word| (*word).to_owned()).collect()),
        }
    }
    found.sort();
    found
}

#[test]
fn the_readme_names_every_command_and_none_that_is_not_there() {
    let nouns = ["system", "config", "job", "pipeline", "plugin", "schedule", "vault", "secrets", "stopwatch"];
    let mut there = every_command();
    // A noun within a noun is another name for the same actions.
    there.retain(|path| path.len() == 2 || path.len() == 1 && !nouns.contains(&path[0].as_str()));
    assert_eq!(commands_of_readme(), there);
}

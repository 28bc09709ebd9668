//! Every directory of `config-examples/` starts, passes a strict check, and runs a job.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::site::{Answer, Client, ductile, eventually, free_address, show};

/// The address in the examples; tests put a free one in its place.
const ADDRESS: &str = "127.0.0.1:8080";

#[test]
fn every_example_passes_a_strict_check_and_runs_a_job() {
    let names = example_names();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let example = Example::prepare(&name);
        example.check();
        let running = example.start();
        let ran = example.secrets.iter().any(|secret| {
            let answer = running.run(secret, "echo", "poll");
            answer.status == 200 && answer.body["status"] == "succeeded"
        });
        assert!(ran, "{name}: no token can run echo\n{}", running.log());
    }
}

#[test]
fn the_files_of_the_split_example_come_together() {
    let example = Example::prepare("split");
    let running = example.start();
    let result = |plugin: &str| {
        let answer = running.run("api-operator", plugin, "poll");
        answer.body["result"]["result"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    assert!(result("echo").starts_with("hello from split-example at "), "{}", result("echo"));
    assert!(result("greeter").starts_with("good morning, everybody at "), "{}", result("greeter"));
}

#[test]
fn the_locked_down_tokens_may_do_what_their_comments_say() {
    let example = Example::prepare("locked-down-tokens");
    let running = example.start();
    let job = running.run("api-submitter", "echo", "poll").body["job_id"].as_str().expect("an id").to_owned();
    let (status, tree) = (format!("/job/{job}?include=payload,log"), format!("/job/{job}/tree"));
    // For each token: run poll, run health, see the job, see its tree, reload.
    for (secret, expected) in [
        ("api-submitter", [200, 403, 403, 403, 403]),
        ("api-reader", [403, 200, 200, 403, 403]),
        ("api-dashboard", [403, 403, 200, 200, 403]),
        ("api-operator", [403, 403, 403, 403, 200]),
    ] {
        let client = running.client(secret);
        let seen = [
            running.run(secret, "echo", "poll").status,
            running.run(secret, "echo", "health").status,
            client.get(&status).status,
            client.get(&tree).status,
            client.post("/system/reload", "", &[]).status,
        ];
        assert_eq!(seen, expected, "{secret}\n{}", running.log());
    }
    let told = |secret: &str, field: &str| !running.client(secret).get(&status).body[field].is_null();
    for field in ["result", "payload", "log"] {
        assert!(told("api-dashboard", field) && !told("api-reader", field), "{field}");
    }
}

#[test]
fn the_pipelines_example_measures_decides_fans_out_and_raises_the_alarm() {
    let example = Example::prepare("pipelines");
    let running = example.start();
    let client = running.client("api-token");
    // The results of the steps of a tree, but for switches.
    let results = |tree: &Value| -> Vec<(String, String)> {
        let nodes = tree.as_array().unwrap_or_else(|| panic!("{tree}\n{}", running.log()));
        let steps = nodes.iter().filter(|node| node["plugin"] != "core.switch");
        let told = |node: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let result = text(&node["result"]["result"]);
            (text(&node["step_id"]), result.split(" at 2").next().unwrap_or_default().to_owned())
        };
        let mut results: Vec<_> = steps.map(told).collect();
        results.sort();
        results
    };
    let review = |text: &str| {
        let body = json!({"payload": {"title": "note", "text": text}}).to_string();
        let answer = client.post("/pipeline/review", &body, &[]);
        assert_eq!((answer.status, &answer.body["status"]), (200, &json!("succeeded")), "{answer:?}");
        results(&answer.body["tree"])
    };
    let told = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(step, result)| ((*step).to_owned(), (*result).to_owned())).collect()
    };
    assert_eq!(
        review("a text of five words"),
        told(&[
            ("announce", "note: 5 words"),
            ("archive", "a text of five words"),
            ("count", "5 word(s) in 1 line(s)")
        ])
    );
    assert_eq!(review("too short"), told(&[("count", "2 word(s) in 1 line(s)")]));
    // Without a text there is nothing to count.
    let failed = running.run("api-token", "word_count", "handle");
    assert_eq!(failed.body["status"], "failed", "{failed:?}");
    let alarm = eventually(|| {
        let jobs = client.get("/jobs?plugin=announcer&status=succeeded&limit=10").body;
        let ids: Vec<String> = jobs["jobs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|job| job["job_id"].as_str().unwrap_or_default().to_owned())
            .collect();
        let trees = ids.iter().map(|id| client.get(&format!("/job/{id}/tree")).body);
        trees.map(|tree| results(&tree)).find(|found| found[0].0 == "alarm").ok_or(jobs)
    });
    let alarm = alarm.unwrap_or_else(|jobs| panic!("no alarm: {jobs}\n{}", running.log()));
    assert!(alarm[0].1.starts_with("Job failed [word_count]: payload.text is missing"), "{alarm:?}");
}

/// The examples, by the names of their directories.
fn example_names() -> Vec<String> {
    let entries = fs::read_dir(repository().join("config-examples")).expect("the examples");
    let directories = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = directories.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of an example, with the bundled plugins where it looks for them.
struct Example {
    place: TempDir,
    name: String,
    address: String,
    /// Names of the secrets of its tokens.
    secrets: Vec<String>,
}

impl Example {
    /// Copies an example and makes its key, its vault and its secrets as its comments say.
    fn prepare(name: &str) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let address = free_address();
        let original = repository().join("config-examples").join(name);
        let mut texts = Vec::new();
        copy(&repository().join("plugins"), &place.path().join("plugins"), &mut |_, _| None);
        copy(&original, &place.path().join("config-examples").join(name), &mut |path, text| {
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
            is_yaml.then(|| {
                texts.push(text.to_owned());
                text.replace(ADDRESS, &address)
            })
        });
        let texts = texts.concat();
        assert!(texts.contains(&format!("listen: {ADDRESS}")), "{name}: no address to replace");
        let example = Self { place, name: name.to_owned(), address, secrets: secrets_in(&texts) };
        example.run(&["secrets", "keygen", "--out", "age.key"], "");
        example.run(&["vault", "init", "--vault", "vault.age", "--key", "age.key"], "");
        for secret in &example.secrets {
            let command = format!("vault set --vault vault.age --key age.key --name {secret}");
            assert!(texts.contains(&format!("ductile {command}")), "{name}: how to make {secret} is not told");
            example.run(&command.split(' ').collect::<Vec<_>>(), &token(secret));
        }
        example
    }

    fn directory(&self) -> PathBuf {
        self.place.path().join("config-examples").join(&self.name)
    }

    /// A command in the directory of the example, with something to read; it must succeed.
    fn run(&self, args: &[&str], input: &str) {
        let file = self.place.path().join("input");
        fs::write(&file, input).expect("the input");
        let mut command = ductile(args);
        command.current_dir(self.directory()).stdin(File::open(&file).expect("the input"));
        let output = command.output().expect("the binary");
        assert!(output.status.success(), "{}: {args:?}: {}", self.name, show(&output));
    }

    fn check(&self) {
        self.run(&["config", "check", "--strict", "--config", "."], "");
    }

    fn start(&self) -> Running<'_> {
        let log = self.place.path().join("log");
        let file = File::create(&log).expect("the log");
        let errors = file.try_clone().expect("the log");
        // From elsewhere: nothing may depend on the working directory.
        let child = ductile(&["system", "start", "--config"])
            .arg(self.directory())
            .current_dir(self.place.path())
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(errors))
            .spawn()
            .expect("the binary");
        let running = Running { child, example: self, log };
        let stranger = Client::new(&self.address, "");
        let ready = eventually(|| match stranger.try_get("/readyz") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{answer:?}")),
            Err(error) => Err(error.to_string()),
        });
        ready.unwrap_or_else(|last| panic!("{}: {last}\n{}", self.name, running.log()));
        running
    }
}

/// A gateway on an example.
struct Running<'e> {
    child: Child,
    example: &'e Example,
    log: PathBuf,
}

impl Running<'_> {
    fn client(&self, secret: &str) -> Client {
        Client::new(&self.example.address, &token(secret))
    }

    /// Runs a command and waits for it.
    fn run(&self, secret: &str, plugin: &str, command: &str) -> Answer {
        let body: Value = json!({"payload": {}, "sync": true});
        self.client(secret).post(&format!("/plugin/{plugin}/{command}"), &body.to_string(), &[])
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The value of a token, for the name of its secret.
fn token(secret: &str) -> String {
    format!("{secret}-0123456789abcdef0123456789abcdef")
}

fn secrets_in(texts: &str) -> Vec<String> {
    let lines = texts.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("secret_ref: "));
    lines.map(|name| name.trim().to_owned()).collect()
}

/// Copies a tree. `change` may give a file another text.
fn copy(from: &Path, to: &Path, change: &mut dyn FnMut(&Path, &str) -> Option<String>) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target, change);
            continue;
        }
        // Keeps the execute bit.
        fs::copy(&path, &target).expect("a file");
        let changed = fs::read_to_string(&path).ok().and_then(|text| change(&path, &text));
        if let Some(text) = changed {
            fs::write(&target, text).expect("a file");
        }
    }
}

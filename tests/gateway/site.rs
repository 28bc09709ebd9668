//! A place to run the real binary in: a temporary directory with configuration, vault and plugins, and the gateways
//! started in it. Tests run in parallel; every gateway gets a free port of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a test waits for anything before it gives up and prints what it saw.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with everything a gateway needs.
pub(crate) struct Site {
    dir: TempDir,
    service: String,
    plugins: String,
    api: String,
    extra: String,
}

impl Site {
    /// A site with a vault that holds one token with all scopes, and no plugin.
    pub(crate) fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            service: String::new(),
            plugins: String::new(),
            api: String::new(),
            extra: String::new(),
        };
        for name in ["config", "plugins"] {
            fs::create_dir(site.path(name)).expect("a directory");
        }
        let vault = template_vault();
        fs::copy(vault.join("age.key"), site.path("config/age.key")).expect("the key");
        fs::copy(vault.join("vault.age"), site.path("config/vault.age")).expect("the vault");
        site
    }

    /// Lines of the `service` section, two blanks deep.
    pub(crate) fn service(mut self, lines: &str) -> Self {
        self.service.push_str(&indent(lines, 2));
        self
    }

    /// Lines of the `api` section, two blanks deep.
    pub(crate) fn api(mut self, lines: &str) -> Self {
        self.api.push_str(&indent(lines, 2));
        self
    }

    /// Lines at the top level.
    pub(crate) fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(&indent(lines, 0));
        self
    }

    /// A plugin that answers every command with this shell script; `poll` and `handle` write, `health` reads.
    pub(crate) fn plugin(self, name: &str, script: &str) -> Self {
        self.plugin_with(name, script, "", "")
    }

    /// The same with further lines for its manifest and for its entry in `plugins`.
    pub(crate) fn plugin_with(mut self, name: &str, script: &str, manifest: &str, config: &str) -> Self {
        self.install(name, script, manifest);
        self.plugins.push_str(&format!("  {name}:\n    enabled: true\n{}", indent(config, 4)));
        self
    }

    /// Only an entry in `plugins`.
    pub(crate) fn plugin_entry(mut self, name: &str, config: &str) -> Self {
        self.plugins.push_str(&format!("  {name}:\n{}", indent(config, 4)));
        self
    }

    /// Writes a plugin's files without configuring it.
    pub(crate) fn install(&self, name: &str, script: &str, manifest: &str) {
        let dir = self.path("plugins").join(name);
        fs::create_dir_all(&dir).expect("a plugin directory");
        let text = format!(
            "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: 1.0\nprotocol: 2\nentrypoint: run.sh\n\
             commands:\n  - {{name: poll, type: write}}\n  - {{name: handle, type: write}}\n  - {{name: health, type: read}}\n{}",
            indent(manifest, 0)
        );
        fs::write(dir.join("manifest.yaml"), text).expect("a manifest");
        // Written beside and renamed: a script that is being written can not be executed.
        let script = format!("#!/bin/sh\n{script}\n");
        let path = dir.join("run.sh");
        fs::write(dir.join("run.new"), script).expect("a script");
        fs::set_permissions(dir.join("run.new"), fs::Permissions::from_mode(0o755)).expect("an execute bit");
        fs::rename(dir.join("run.new"), path).expect("a script");
    }

    /// Writes the configuration as it stands.
    pub(crate) fn write_config(&self) {
        let plugins =
            if self.plugins.is_empty() { "plugins: {}\n".into() } else { format!("plugins:\n{}", self.plugins) };
        let listen = if self.api.contains("listen:") { "" } else { "  listen: 127.0.0.1:0\n" };
        let auth = if self.api.contains("auth:") {
            ""
        } else {
            "  auth:\n    tokens:\n      - {name: tests, secret_ref: api-token, scopes: [\"*\"]}\n"
        };
        let service = if self.service.contains("name:") { "" } else { "  name: site\n" };
        let text = format!(
            "service:\n{service}{}state:\n  path: ../data/ductile.db\nsecrets:\n  age_key_file: age.key\n\
             plugin_roots: [../plugins]\napi:\n  enabled: true\n{listen}{}{auth}{plugins}{}",
            self.service, self.api, self.extra
        );
        fs::write(self.path("config/config.yaml"), text).expect("the configuration");
    }

    /// A path inside the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of the configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("config")
    }

    /// A read-only connection to the state database.
    pub(crate) fn database(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.path("data/ductile.db"), flags).expect("the database");
        connection.busy_timeout(Duration::from_secs(10)).expect("a busy timeout");
        connection
    }

    /// A connection of somebody else who may write.
    pub(crate) fn outsider(&self) -> Connection {
        let connection = Connection::open(self.path("data/ductile.db")).expect("the database");
        connection.busy_timeout(Duration::from_secs(20)).expect("a busy timeout");
        connection
    }

    /// One value of one row.
    pub(crate) fn query<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.database().query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// First column of all rows, as text.
    pub(crate) fn column(&self, sql: &str) -> Vec<String> {
        let connection = self.database();
        let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows = statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0)).expect("rows");
        rows.map(|value| match value.expect("a row") {
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        })
        .collect()
    }

    /// Puts a secret into the vault, with the real command.
    pub(crate) fn secret(&self, name: &str, value: &str, principals: &str) {
        set_secret(&self.config(), name, value, principals);
    }

    /// Registers a principal in the vault, as a coming online command will.
    pub(crate) fn principal(&self, name: &str) {
        let identities = ductile_vault::Identities::read(&self.path("config/age.key")).expect("the key");
        let vault = ductile_vault::Vault::open(&self.path("config/vault.age"), &identities).expect("the vault");
        vault.register_principal(name, "plugin", chrono::Utc::now()).expect("a new principal");
    }

    /// Writes the configuration and starts a gateway that must become ready.
    pub(crate) fn start(&self) -> Gateway {
        self.start_with(&[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(&self, environment: &[(&str, &str)]) -> Gateway {
        self.write_config();
        let mut gateway = self.launch(environment);
        gateway.wait_until_ready();
        gateway
    }

    /// Starts a gateway on the configuration on disk, which a test may have edited; it must become ready.
    pub(crate) fn start_again(&self) -> Gateway {
        let mut gateway = self.launch(&[]);
        gateway.wait_until_ready();
        gateway
    }

    /// Starts a gateway on the configuration on disk without waiting for it.
    pub(crate) fn launch(&self, environment: &[(&str, &str)]) -> Gateway {
        let mut command = self.command(&["system", "start"]);
        command.envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// Starts a gateway that gets an error for a write beyond its limit of file size, and no signal.
    pub(crate) fn start_with_limits(&self) -> Gateway {
        self.write_config();
        let plain = self.command(&["system", "start"]);
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut gateway = Self::spawn(command);
        gateway.wait_until_ready();
        gateway
    }

    fn spawn(mut command: Command) -> Gateway {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let seen = Arc::new(Mutex::new(String::new()));
        let lines = follow(child.stdout.take().expect("stdout"), seen.clone());
        let errors = Arc::new(Mutex::new(String::new()));
        follow(child.stderr.take().expect("stderr"), errors.clone());
        Gateway { child, lines, seen, errors, address: String::new(), token: token().to_owned() }
    }

    /// Starts a gateway that must refuse; returns its exit status and what it said on stderr.
    pub(crate) fn start_refused(&self) -> (ExitStatus, String) {
        self.write_config();
        let output = self.command(&["system", "start"]).output().expect("the binary");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A command of the binary with this site's configuration.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = ductile(args);
        command.arg("--config").arg(self.config()).current_dir(self.dir.path());
        command
    }

    /// Runs a command that must succeed and gives its stdout.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("the binary");
        assert!(output.status.success(), "{args:?}: {}", show(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

/// The binary with a clean environment.
pub(crate) fn ductile(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ductile"));
    command.args(args).env_remove("DUCTILE_CONFIG_DIR").env_remove("DUCTILE_API_URL").env_remove("DUCTILE_API_KEY");
    command.env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// Everything a command said.
pub(crate) fn show(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Value of the token in every site's vault.
pub(crate) fn token() -> &'static str {
    "test-token-0123456789abcdef0123456789abcdef"
}

/// Key and vault with the API token: made once per run, by the real commands.
fn template_vault() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let dir = TEMPLATE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = dir.path().join("age.key");
        let vault = dir.path().join("vault.age");
        let ok = |command: &mut Command| {
            let output = command.output().expect("the binary");
            assert!(output.status.success(), "{}", show(&output));
        };
        ok(ductile(&["secrets", "keygen", "--out"]).arg(&key));
        ok(ductile(&["vault", "init", "--vault"]).arg(&vault).arg("--key").arg(&key));
        set_secret(dir.path(), "api-token", token(), "");
        dir
    });
    dir.path()
}

fn set_secret(dir: &Path, name: &str, value: &str, principals: &str) {
    let input = dir.join(".value");
    fs::write(&input, value).expect("a value");
    let mut command = ductile(&["vault", "set", "--name", name]);
    command.arg("--vault").arg(dir.join("vault.age")).arg("--key").arg(dir.join("age.key"));
    if !principals.is_empty() {
        command.args(["--principal", principals]);
    }
    let output = command.stdin(fs::File::open(&input).expect("the value")).output().expect("the binary");
    assert!(output.status.success(), "{}", show(&output));
    fs::remove_file(input).expect("the value");
}

fn indent(lines: &str, by: usize) -> String {
    lines.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{:by$}{line}\n", "")).collect()
}

fn follow(stream: impl std::io::Read + Send + 'static, seen: Arc<Mutex<String>>) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            {
                let mut seen = seen.lock().expect("the log");
                seen.push_str(&line);
                seen.push('\n');
            }
            drop(sender.send(serde_json::from_str(&line).unwrap_or(Value::Null)));
        }
    });
    receiver
}

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    lines: Receiver<Value>,
    seen: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
    address: String,
    token: String,
}

impl Gateway {
    fn wait_until_ready(&mut self) {
        self.wait_for_log("the gateway to be ready", |line| line["message"] == "ductile running");
    }

    /// Waits until an address is served, for gateways that do not log that they are ready.
    pub(crate) fn wait_until_serving(&mut self, address: &str) {
        address.clone_into(&mut self.address);
        let client = Client::new(address, "");
        let ready = eventually(|| match client.try_get("/readyz") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{answer:?}")),
            Err(error) => Err(error.to_string()),
        });
        ready.unwrap_or_else(|last| panic!("{last}\n{}", self.said()));
    }

    /// Waits for a log line.
    pub(crate) fn wait_for_log(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if line["message"] == "API server listening" {
                        line["addr"].as_str().unwrap_or_default().clone_into(&mut self.address);
                    }
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(error) => panic!("waiting for {what}: {error}\n{}", self.said()),
            }
        }
    }

    /// Everything logged and said on stderr so far.
    pub(crate) fn said(&self) -> String {
        format!("log:\n{}\nstderr:\n{}", self.log(), self.errors.lock().expect("stderr"))
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        self.seen.lock().expect("the log").clone()
    }

    /// Address of the API.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client for use in other threads.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.address, &self.token)
    }

    /// `GET`, with the token.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    /// `POST` of a JSON value, with the token.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.client().post(path, &body.to_string(), &[])
    }

    /// Queues a job and gives its id.
    pub(crate) fn trigger(&self, plugin: &str, command: &str) -> String {
        self.trigger_with(plugin, command, &json!({}))
    }

    /// The same with a payload.
    pub(crate) fn trigger_with(&self, plugin: &str, command: &str, payload: &Value) -> String {
        let answer = self.post(&format!("/plugin/{plugin}/{command}"), &json!({"payload": payload}));
        assert_eq!(answer.status, 202, "{answer:?}\n{}", self.said());
        answer.body["job_id"].as_str().expect("an id").to_owned()
    }

    /// Waits until a job is terminal.
    pub(crate) fn wait_for(&self, job: &str) -> Value {
        self.wait_for_status(job, |status| !matches!(status, "queued" | "running"))
    }

    /// Waits until a job has a status.
    pub(crate) fn wait_for_status(&self, job: &str, wanted: impl Fn(&str) -> bool) -> Value {
        let client = self.client();
        let seen = eventually(|| {
            let answer = client.get(&format!("/job/{job}"));
            wanted(answer.body["status"].as_str().unwrap_or_default()).then_some(answer.body.clone()).ok_or(answer)
        });
        seen.unwrap_or_else(|last| panic!("job {job}: {last:?}\n{}", self.said()))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub(crate) fn kill_nine(mut self) {
        self.child.kill().expect("a running gateway");
        self.child.wait().expect("its status");
    }

    /// Waits until it ends.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let ended = eventually(|| self.child.try_wait().expect("its status").ok_or(()));
        ended.unwrap_or_else(|()| panic!("the gateway did not end\n{}", self.said()))
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_exit()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Tries until it succeeds; the last failure otherwise. Looks often: it waits for a condition, not for a time.
pub(crate) fn eventually<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    status.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// An address that nobody uses, for configurations that must name one. Below the range that outgoing connections
/// get, and never given out twice.
pub(crate) fn free_address() -> String {
    static NEXT: OnceLock<Mutex<u16>> = OnceLock::new();
    let mut next = NEXT.get_or_init(|| Mutex::new(fastrand::u16(10_000..28_000))).lock().expect("the counter");
    loop {
        *next += 1;
        let address = format!("127.0.0.1:{next}");
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// What the gateway answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Answer {
    /// Value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An HTTP client with keep-alive.
#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
    token: String,
}

impl Client {
    /// A client of an address; an empty token sends none.
    pub(crate) fn new(address: &str, token: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.into(), base: format!("http://{address}"), token: token.to_owned() }
    }

    /// `GET`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `GET` that may fail.
    pub(crate) fn try_get(&self, path: &str) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        request.call().map(answer)
    }

    /// `POST` with further headers.
    pub(crate) fn post(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_post(path, body, headers).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// `POST` that may fail.
    pub(crate) fn try_post(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send(body).map(answer)
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let text = response.body_mut().read_to_string().unwrap_or_default();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status: response.status().as_u16(), headers, body }
}

/// The shell script of a plugin that answers ok.
pub(crate) const OK: &str = r#"cat >/dev/null; echo '{"status":"ok","result":"done"}'"#;

/// The shell script of a plugin that runs until the file named by `gate` in its payload is there, or its site is gone.
pub(crate) const GATED: &str = r#"cat >/dev/null; while [ -e "$0" ] && [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; do sleep 0.02; done; echo '{"status":"ok","result":"done"}'"#;

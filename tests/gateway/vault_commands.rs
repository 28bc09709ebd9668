//! The commands that make keys, the vault and what is in it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ductile_vault::{Identities, Vault};
use serde_json::Value;

use crate::site::{Gateway, OK, Site, ductile, show};
use crate::terminal::Terminal;

/// A directory for a key and a vault.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    /// With a key and a vault in it.
    fn with_vault() -> Self {
        let place = Self::new();
        place.keygen();
        assert_eq!(place.init().output().expect("the binary").status.code(), Some(0));
        place
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("age.key")
    }

    fn vault(&self) -> PathBuf {
        self.dir.path().join("vault.age")
    }

    fn keygen(&self) {
        let output = ductile(&["secrets", "keygen", "--out"]).arg(self.key()).output().expect("the binary");
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    }

    fn init(&self) -> Command {
        self.command(&["vault", "init"])
    }

    fn set(&self, name: &str) -> Command {
        self.command(&["vault", "set", "--name", name])
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = ductile(args);
        command.arg("--vault").arg(self.vault()).arg("--key").arg(self.key());
        command
    }

    /// What the vault says about a secret.
    fn value(&self, name: &str) -> Result<String, &'static str> {
        let identities = Identities::read(&self.key()).expect("the key");
        let vault = Vault::open(&self.vault(), &identities).expect("the vault");
        vault.resolve(name).map(|secret| secret.expose().to_owned())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A pipe that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_vault_is_made_once_and_a_key_is_never_overwritten() {
    let place = Place::new();
    let keygen = || ductile(&["secrets", "keygen", "--out"]).arg(place.key()).output().expect("the binary");
    let first = keygen();
    assert!(stderr(&first).contains("age1"), "{}", show(&first));
    let bytes = fs::read(place.key()).expect("the key");
    assert_eq!(keygen().status.code(), Some(1));
    assert_eq!(fs::read(place.key()).expect("the key"), bytes);
    let init = || place.init().output().expect("the binary");
    let made = init();
    let token = String::from_utf8(made.stdout.clone()).expect("UTF-8");
    assert_eq!((made.status.code(), token.trim_end().len()), (Some(0), 43), "{}", show(&made));
    let blob = fs::read(place.vault()).expect("the vault");
    assert!(blob.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----"));
    assert_eq!(init().status.code(), Some(1));
    assert_eq!(fs::read(place.vault()).expect("the vault"), blob);
    let one = ductile(&["vault", "set", "--name", "x", "--vault", "v"]).output().expect("the binary");
    assert!(stderr(&one).contains("BOTH --vault and --key"), "{}", show(&one));
}

#[test]
fn a_key_is_printed_when_no_file_is_named() {
    let output = ductile(&["secrets", "keygen"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let [created, public, private] = lines[..] else { panic!("{text}") };
    assert_eq!(created, "# created by ductile secrets keygen");
    let recipient = public.strip_prefix("# public key: ").expect("the recipient");
    assert!(private.starts_with("AGE-SECRET-KEY-1"));
    assert_eq!(stderr(&output), format!("Public recipient: {recipient}\n"));
    let output = ductile(&["secrets", "keygen", "--json"]).output().expect("the binary");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(document["key"].as_str().expect("a key").contains("AGE-SECRET-KEY-1"));
    assert!(document["recipient"].as_str().expect("a recipient").starts_with("age1"));
}

#[test]
fn a_secret_that_could_not_be_printed_is_said_and_is_a_failure() {
    for json in [&[][..], &["--json"]] {
        for sink in ["a closed pipe", "/dev/full"] {
            let stdout = || match sink {
                "/dev/full" => File::create(sink).expect("a full device").into(),
                _ => closed_pipe(),
            };
            let place = Place::new();
            place.keygen();
            let output = place.init().args(json).stdout(stdout()).output().expect("the binary");
            assert_eq!(output.status.code(), Some(1), "{sink} {json:?}: {}", show(&output));
            let said = stderr(&output);
            assert!(said.contains("was created and stays") && said.contains("rotate-admin-token"), "{sink}: {said}");
            assert!(place.vault().exists());
            let output = ductile(&["secrets", "keygen"]).args(json).stdout(stdout()).output().expect("the binary");
            assert_eq!(output.status.code(), Some(1), "{sink} {json:?}: {}", show(&output));
            assert!(stderr(&output).contains("could not be written"), "{sink}: {}", show(&output));
        }
    }
}

#[test]
fn nobody_reading_the_notes_does_not_lose_the_token() {
    let place = Place::new();
    place.keygen();
    let output = place.init().stderr(closed_pipe()).output().expect("the binary");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 44), "{}", show(&output));
}

#[test]
fn a_value_for_a_vault_that_is_not_there_leaves_nothing_behind() {
    let place = Place::new();
    place.keygen();
    let output = place.set("x").output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(stderr(&output).contains("there is no vault at"), "{}", show(&output));
    assert_eq!(names(place.dir.path()), ["age.key"]);
}

#[test]
fn a_value_that_is_too_long_is_refused_without_reading_it_all() {
    let place = Place::with_vault();
    let mut child = place.set("x").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
    let mut stdin = child.stdin.take().expect("stdin");
    // Far more than a pipe holds: the writer is told that nobody reads.
    let written = (0..1024).try_for_each(|_| stdin.write_all(&[b'x'; 4096]));
    assert!(written.is_err(), "4 MiB were read");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(stderr(&output).contains("longer than 64 KiB"), "{}", show(&output));
    assert!(place.value("x").is_err());
}

#[test]
fn the_longest_value_fits() {
    let place = Place::with_vault();
    let value = "x".repeat(64 * 1024);
    let input = place.dir.path().join("value");
    fs::write(&input, format!("{value}\r\n\n")).expect("a value");
    let output = place.set("x").stdin(File::open(&input).expect("the value")).output().expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(place.value("x").as_deref(), Ok(value.as_str()));
}

#[test]
fn a_value_typed_on_a_terminal_is_not_shown() {
    let place = Place::with_vault();
    let mut terminal = Terminal::open();
    assert!(terminal.echoes());
    let child = place.set("typed").stdin(terminal.stream()).stderr(Stdio::piped()).spawn().expect("the binary");
    terminal.wait_until_quiet();
    terminal.ours.write_all(b"correct horse\n").expect("typing");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(rustix::io::ioctl_fionread(&terminal.ours).expect("a count"), 0, "something was shown");
    assert!(terminal.echoes(), "the terminal is as it was");
    assert_eq!(place.value("typed").as_deref(), Ok("correct horse"));
}

#[test]
fn a_terminal_is_put_back_when_the_question_is_broken_off() {
    let place = Place::with_vault();
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let terminal = Terminal::open();
        let mut child = place.set("x").stdin(terminal.stream()).stderr(Stdio::null()).spawn().expect("the binary");
        terminal.wait_until_quiet();
        let killed = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(killed.expect("kill").success());
        let status = child.wait().expect("its end");
        assert_eq!(status.signal(), Some(number), "{signal}: {status}");
        assert!(terminal.echoes(), "{signal}");
    }
    assert!(place.value("x").is_err());
}

/// A gateway without API, and so without a need for a vault.
fn without_vault() -> (Site, Gateway) {
    let site = Site::new().plugin("hello", OK);
    fs::remove_file(site.path("config/vault.age")).expect("the vault");
    let text = "state:\n  path: ../data/ductile.db\nplugin_roots: [../plugins]\napi:\n  enabled: false\n";
    fs::write(site.path("config/config.yaml"), text).expect("a configuration");
    let mut gateway = site.launch(&[]);
    gateway.wait_for_log("the gateway to be ready", |line| line["message"] == "ductile running");
    (site, gateway)
}

#[test]
fn no_vault_is_made_beside_a_running_gateway() {
    let (site, mut gateway) = without_vault();
    let key = site.path("config/age.key");
    std::os::unix::fs::symlink(site.config(), site.path("link")).expect("a link");
    let pid = format!("(pid {})", gateway.pid());
    let refused = |args: &[&str]| {
        let output = site.command(&["vault", "init"]).args(args).output().expect("the binary");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
        let said = stderr(&output);
        assert!(said.contains("the gateway appears to be running") && said.contains(&pid), "{args:?}: {said}");
        assert!(!site.path("config/vault.age").exists(), "{args:?}");
    };
    let key = key.to_str().expect("UTF-8");
    let every_way = || {
        refused(&[]);
        for vault in ["config/vault.age", "config/../config/./vault.age", "link/vault.age"] {
            refused(&["--vault", vault, "--key", key]);
        }
    };
    every_way();
    // Set up in the usual order: the configuration names a token before there is a vault to hold it.
    site.write_config();
    every_way();
    gateway.stop();
    let output = site.command(&["vault", "init"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(
        fs::read_to_string(site.path("data/ductile.pid")).expect("the lock file"),
        "",
        "the lock was given back"
    );
}

#[test]
fn a_configuration_that_can_not_be_read_leaves_the_vault_alone() {
    let site = Site::new();
    fs::remove_file(site.path("config/vault.age")).expect("the vault");
    fs::write(site.path("config/config.yaml"), "state: [").expect("a configuration");
    let files = names(&site.config());
    let flags = |command: &mut Command| {
        command.args(["--vault", "config/vault.age", "--key", "config/age.key"]).output().expect("the binary")
    };
    let by_flag = flags(&mut site.command(&["vault", "init"]));
    let mut command = ductile(&["vault", "init"]);
    let by_variable = flags(command.env("DUCTILE_CONFIG_DIR", site.config()).current_dir(site.path("")));
    for output in [by_flag, by_variable] {
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        assert!(stderr(&output).contains("it is not known whether a gateway uses"), "{}", show(&output));
    }
    assert_eq!(names(&site.config()), files);
}

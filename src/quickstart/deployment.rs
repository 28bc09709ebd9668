//! Makes the deployment, step by step.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chrono::Utc;
use ductile_config::{Config, ListenAddr, Purpose, locate, plan};
use ductile_model::{Refusal, Secret};
use ductile_vault::{Identities, SetSecret, Vault, VaultError, VaultLock, generate_identity};

use super::address::try_bind;
use super::bundle::{self, BundledPlugin};
use super::steps::{Notes, Step, is_beginning, lock, write_whole};
use super::templates::{PIPELINES_YAML, PLUGINS_YAML, config_yaml};
use crate::gateway::secrets::VaultSource;

/// Secret with the API token.
const TOKEN: &str = "api-quickstart";
const DEFAULT_HOST: &str = "127.0.0.1";
const PORTS: std::ops::RangeInclusive<u16> = 8080..=8179;
/// What the watched file says: enough to get past the condition of the pipeline.
const HELLO: &str = "Change this line and trigger file_watch again.\n";
/// Programs that the bundled plugins need.
const NEEDED: [&str; 3] = ["sh", "awk", "python3"];

/// Why a deployment could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program is missing; nothing was made.
    #[error("quickstart needs {} on the PATH; install it and run this again (nothing was made)", .0.join(" and "))]
    Missing(Vec<&'static str>),
    /// The directory holds something else; nothing was touched.
    #[error("{} is not empty and was not made by quickstart; choose another one with --dir (nothing was touched)", .0.display())]
    Foreign(PathBuf),
    /// Another address was asked for than the deployment has.
    #[error("this deployment listens on {present}; to change that, edit api.listen in {}", file.display())]
    OtherListen { present: String, file: PathBuf },
    /// The address that was asked for can not be used.
    #[error("--listen {listen}: {source}; name another one (nothing was made)")]
    Unusable { listen: ListenAddr, source: std::io::Error },
    /// What is there can not be compared with what was asked for.
    #[error("{0}")]
    Config(Refusal),
    /// No port is free.
    #[error("no free port between {} and {} on {DEFAULT_HOST}; name one with --listen", PORTS.start(), PORTS.end())]
    NoPort,
    /// A step failed. The next run tries it again.
    #[error("step {step:?} failed: {cause}; run quickstart again, or remove everything with: rm -r {}", dir.display())]
    Step { step: Step, cause: String, dir: PathBuf },
    /// The vault can not be opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The token is gone from the vault.
    #[error("vault: secret {TOKEN:?}: {0}")]
    NoToken(&'static str),
    /// The directory or its notes can not be used.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// A complete deployment on disk.
pub(crate) struct Deployment {
    /// Absolute.
    pub(crate) dir: PathBuf,
    /// What this run made, relative to the directory.
    pub(crate) created: Vec<String>,
    /// Address in the configuration.
    pub(crate) listen: String,
}

impl Deployment {
    /// Makes what is missing in `dir`, or nothing when all is there.
    ///
    /// # Errors
    /// See [`Error`]; a foreign directory is not touched.
    pub(crate) fn make(dir: &Path, wanted: Option<&ListenAddr>) -> Result<Self, Error> {
        let dir = std::path::absolute(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
        let missing: Vec<&str> = NEEDED.into_iter().filter(|program| !on_path(program)).collect();
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
        let io = |source| Error::Io { path: dir.clone(), source };
        let mut fresh = None;
        if Notes::read(&dir).map_err(io)?.is_none() {
            refuse_foreign(&dir)?;
            fresh = Some(usable_address(wanted)?);
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io)?;
        }
        let _turn = lock(&dir).map_err(io)?;
        // Looked at again: another run may have made it all while this one waited for its turn.
        let mut notes = match Notes::read(&dir).map_err(io)? {
            Some(notes) => notes,
            None => {
                refuse_foreign(&dir)?;
                let listen = fresh.map_or_else(|| usable_address(wanted), Ok)?;
                let notes = Notes { listen: listen.to_string(), done: Vec::new() };
                notes.write(&dir).map_err(io)?;
                notes
            }
        };
        let listen = present_address(&dir, &notes, wanted)?;
        let mut deployment = Self { dir, created: Vec::new(), listen };
        deployment.finish(&mut notes)?;
        Ok(deployment)
    }

    /// Makes the steps that are missing, and notes each.
    fn finish(&mut self, notes: &mut Notes) -> Result<(), Error> {
        let dir = self.dir.clone();
        for step in Step::ALL {
            if notes.done.contains(&step) {
                continue;
            }
            let failed = |cause: String| Error::Step { step, cause, dir: dir.clone() };
            self.make_step(step).map_err(|error| failed(error.to_string()))?;
            notes.done.push(step);
            notes.write(&dir).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }

    /// Directory of the configuration.
    pub(crate) fn config_dir(&self) -> PathBuf {
        self.dir.join("config")
    }

    /// The file whose changes start the pipeline.
    pub(crate) fn watched_file(&self) -> PathBuf {
        self.dir.join("watched/hello.txt")
    }

    /// Where the gateway logs.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.dir.join("data/gateway.log")
    }

    /// The API token, from the vault.
    ///
    /// # Errors
    /// The vault can not be opened, or the token is gone from it.
    pub(crate) fn token(&self) -> Result<Secret, Error> {
        let identities = Identities::read(&self.key_file())?;
        let vault = Vault::open(&self.vault_file(), &identities)?;
        vault.resolve(TOKEN).map_err(Error::NoToken)
    }

    fn key_file(&self) -> PathBuf {
        self.dir.join("secret/age.key")
    }

    fn vault_file(&self) -> PathBuf {
        self.dir.join("config/vault.age")
    }

    /// Each step can be made again after it was cut off at any instant.
    fn make_step(&mut self, step: Step) -> Result<(), Box<dyn std::error::Error>> {
        match step {
            Step::Directories => {
                for name in ["config", "secret", "data", "plugins", "watched"] {
                    let path = self.dir.join(name);
                    if !path.is_dir() {
                        DirBuilder::new().mode(0o700).create(&path)?;
                        self.created.push(format!("{name}/"));
                    }
                }
            }
            Step::Key => self.make_key()?,
            Step::Vault => {
                let path = self.vault_file();
                if path.symlink_metadata().is_err() {
                    let _lock = VaultLock::acquire(&path)?;
                    // The admin token is not kept: `vault rotate-admin-token` issues another one.
                    Vault::genesis(&path, &self.key_file(), Utc::now())?;
                    self.created.push("config/vault.age".to_owned());
                }
            }
            Step::Token => {
                let path = self.vault_file();
                let _lock = VaultLock::acquire(&path)?;
                let vault = Vault::open(&path, &Identities::read(&self.key_file())?)?;
                if vault.resolve(TOKEN).is_err() {
                    let description = Some("API token of the quickstart".to_owned());
                    let set =
                        SetSecret { name: TOKEN.to_owned(), auto: Some(true), description, ..SetSecret::default() };
                    vault.set(set, Utc::now())?;
                }
            }
            Step::Plugins => {
                for plugin in &bundle::PLUGINS {
                    self.copy_plugin(plugin)?;
                }
            }
            Step::Watched => self.write("watched/hello.txt", HELLO)?,
            Step::Config => {
                // An older version may have made the step before, with fewer plugins, and was cut off here.
                for plugin in &bundle::PLUGINS {
                    if !self.has_plugin(plugin) {
                        self.copy_plugin(plugin)?;
                    }
                }
                self.write("config/plugins.yaml", PLUGINS_YAML)?;
                self.write("config/pipelines.yaml", PIPELINES_YAML)?;
                // The root file last: with it the deployment is complete.
                self.write(
                    "config/config.yaml",
                    &config_yaml(&self.listen, TOKEN, rustix::process::geteuid().is_root()),
                )?;
            }
        }
        Ok(())
    }

    /// The key is there whole or not at all, and one that is there stays.
    fn make_key(&mut self) -> Result<(), VaultError> {
        let path = self.key_file();
        if path.symlink_metadata().is_err() {
            generate_identity(&path)?;
            self.created.push("secret/age.key".to_owned());
        }
        Ok(())
    }

    fn has_plugin(&self, plugin: &BundledPlugin) -> bool {
        let dir = self.dir.join("plugins").join(plugin.name);
        plugin.files.iter().all(|file| dir.join(file.name).is_file())
    }

    fn copy_plugin(&mut self, plugin: &BundledPlugin) -> std::io::Result<()> {
        let dir = self.dir.join("plugins").join(plugin.name);
        if !dir.is_dir() {
            DirBuilder::new().mode(0o755).create(&dir)?;
        }
        for file in plugin.files {
            let mode = if file.executable { 0o755 } else { 0o644 };
            write_whole(&dir.join(file.name), file.content.as_bytes(), mode)?;
        }
        self.created.push(format!("plugins/{}/", plugin.name));
        Ok(())
    }

    fn write(&mut self, name: &str, content: &str) -> std::io::Result<()> {
        write_whole(&self.dir.join(name), content.as_bytes(), 0o600)?;
        self.created.push(name.to_owned());
        Ok(())
    }
}

/// An absent or empty directory is ours to make; so is one where a run was cut off at its beginning.
fn refuse_foreign(dir: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    for entry in entries {
        if !is_beginning(&entry.map_err(io)?.path(), dir) {
            return Err(Error::Foreign(dir.to_owned()));
        }
    }
    Ok(())
}

/// The address of a new deployment: what was asked for must be usable, or it would stand in the configuration for good.
fn usable_address(wanted: Option<&ListenAddr>) -> Result<ListenAddr, Error> {
    match wanted {
        Some(listen) => {
            try_bind(listen).map_err(|source| Error::Unusable { listen: listen.clone(), source })?;
            Ok(listen.clone())
        }
        None => PORTS
            .map(|port| ListenAddr { host: DEFAULT_HOST.to_owned(), port })
            .find(|address| try_bind(address).is_ok())
            .ok_or(Error::NoPort),
    }
}

/// The address of the deployment, which must be the one that was asked for. Once there is a configuration it decides:
/// it may have been edited.
fn present_address(dir: &Path, notes: &Notes, wanted: Option<&ListenAddr>) -> Result<String, Error> {
    let present = if notes.done.contains(&Step::Config) {
        match (configuration(&dir.join("config")), wanted) {
            (Ok(config), _) => config.api.listen.to_string(),
            (Err(refusal), Some(_)) => return Err(Error::Config(refusal)),
            // The start refuses it too, and says more.
            (Err(_), None) => notes.listen.clone(),
        }
    } else {
        notes.listen.clone()
    };
    match wanted {
        Some(wanted) if wanted.to_string() != present => {
            Err(Error::OtherListen { present, file: dir.join("config/config.yaml") })
        }
        _ => Ok(present),
    }
}

fn configuration(dir: &Path) -> Result<Config, Refusal> {
    let environment = crate::environment();
    let source = locate(Some(dir), &environment).map_err(|problem| Refusal::rejected("load", vec![problem]))?;
    Ok(plan(&source, &environment, &VaultSource::default(), Purpose::Inspecting)?.config.clone())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::super::address::parse;
    use super::*;

    #[test]
    fn a_foreign_directory_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine.txt"), "x").unwrap();
        assert!(matches!(Deployment::make(dir.path(), None), Err(Error::Foreign(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_step_is_finished_by_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("q");
        let first = Deployment::make(&target, None).unwrap();
        let token = first.token().unwrap();
        for cut in 0..Step::ALL.len() {
            let notes = Notes { listen: first.listen.clone(), done: Step::ALL[..cut].to_vec() };
            notes.write(&target).unwrap();
            let again = Deployment::make(&target, None).unwrap();
            assert!(again.token().unwrap() == token, "the token survives step {cut}");
        }
        let settled = Deployment::make(&target, None).unwrap();
        assert!(settled.created.is_empty(), "{:?}", settled.created);
    }

    #[test]
    fn what_an_older_version_left_half_made_gets_all_plugins() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("q");
        let made = Deployment::make(&target, None).unwrap();
        let done = Step::ALL.into_iter().filter(|step| *step != Step::Config).collect();
        Notes { listen: made.listen, done }.write(&target).unwrap();
        fs::remove_dir_all(target.join("plugins/file_read")).unwrap();
        fs::remove_file(target.join("plugins/word_count/run.sh")).unwrap();
        let again = Deployment::make(&target, None).unwrap();
        assert!(again.created.contains(&"plugins/file_read/".to_owned()), "{:?}", again.created);
        assert!(!again.created.contains(&"plugins/echo/".to_owned()), "{:?}", again.created);
        assert!(bundle::PLUGINS.iter().all(|plugin| again.has_plugin(plugin)));
    }

    #[test]
    fn another_address_than_the_configuration_has_is_refused_later() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("q");
        let made = Deployment::make(&target, None).unwrap();
        let first = parse(&made.listen).unwrap();
        Deployment::make(&target, Some(&first)).unwrap();
        let second = ListenAddr { port: 1, ..first.clone() };
        assert!(matches!(Deployment::make(&target, Some(&second)), Err(Error::OtherListen { .. })));
        // Somebody edits the file: it decides, not what was asked for once.
        let file = target.join("config/config.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace(&made.listen, &second.to_string())).unwrap();
        assert_eq!(Deployment::make(&target, None).unwrap().listen, second.to_string());
        assert_eq!(Deployment::make(&target, Some(&second)).unwrap().listen, second.to_string());
        assert!(matches!(Deployment::make(&target, Some(&first)), Err(Error::OtherListen { .. })));
        fs::write(&file, "api: [").unwrap();
        assert!(matches!(Deployment::make(&target, Some(&first)), Err(Error::Config(_))));
    }

    #[test]
    fn an_address_that_is_taken_is_refused_before_anything_is_made() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = parse(&taken.local_addr().unwrap().to_string()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("q");
        assert!(matches!(Deployment::make(&target, Some(&listen)), Err(Error::Unusable { .. })));
        assert!(!target.exists());
    }

    #[test]
    fn runs_at_once_make_one_deployment() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("q");
        let start = std::sync::Barrier::new(8);
        let made: Vec<Deployment> = std::thread::scope(|scope| {
            let run = || {
                start.wait();
                Deployment::make(&target, None).unwrap()
            };
            let runs: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let token = made[0].token().unwrap();
        assert!(made.iter().all(|one| one.token().unwrap() == token && one.listen == made[0].listen));
        assert_eq!(made.iter().filter(|one| !one.created.is_empty()).count(), 1, "one run made it all");
    }

    #[test]
    fn a_run_that_was_cut_off_before_its_notes_is_no_foreign_directory() {
        let dir = tempfile::tempdir().unwrap();
        drop(lock(dir.path()).unwrap());
        fs::write(dir.path().join(".quickstart.json.tmp"), "{").unwrap();
        Deployment::make(dir.path(), None).unwrap();
    }
}
